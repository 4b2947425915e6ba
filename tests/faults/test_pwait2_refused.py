"""epoll_pwait2 refused by a filter that is older than the call: epoll_wait serves, silently."""

import subprocess
import sys
from pathlib import Path

import pytest

RESTRICTED = Path(__file__).with_name("restricted.py")

CODE = """
import asyncio, netpoll

async def main():
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    await asyncio.sleep(0.02)
    assert loop.time() - start_s >= 0.02
    print("pwait2" in loop.stats()["features"])

netpoll.run(main(), backend="epoll")
"""


@pytest.mark.parametrize("code", ["ENOSYS", "EPERM", "EACCES", "EOPNOTSUPP", "EINVAL"])
def test_waits_without_epoll_pwait2(code: str) -> None:
    command = [sys.executable, str(RESTRICTED), "--refuse", f"epoll_pwait2={code}", CODE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
