"""pidfd_open refused by a filter, as by old container profiles: children are waited for."""

import subprocess
import sys
from pathlib import Path

import pytest

RESTRICTED = Path(__file__).with_name("restricted.py")

CODE = """
import asyncio, faulthandler, netpoll, signal, threading
faulthandler.dump_traceback_later(45, exit=True)

async def main():
    child = await asyncio.create_subprocess_exec("sleep", "1000")
    threads = threading.active_count()
    child.kill()
    codes = [await child.wait()]
    child = await asyncio.create_subprocess_shell("cat; exit 3", stdin=-1, stdout=-1)
    out, _ = await child.communicate(b"text")
    codes.append(child.returncode)
    print(threads, codes, out.decode())

netpoll.run(main(), backend={backend!r})
"""


@pytest.mark.parametrize("code", ["ENOSYS", "EPERM"])
def test_children_without_pidfd(backend: str, code: str) -> None:
    command = [sys.executable, str(RESTRICTED), "--refuse", f"pidfd_open={code}"]
    done = subprocess.run(
        [*command, CODE.format(backend=backend)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "BackendUnavailableError" in done.stderr:
        pytest.skip("no io_uring here")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 [-9, 3] text\n"
