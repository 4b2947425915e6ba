"""Every extension type, handled as nobody should: an exception, never a signal, never a hang.

The types are found by walking the package, so a new one is tested by being there. mishandle.py has
what is done to them.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import netpoll
from tests.support import SLOWNESS

ROOT = Path(__file__).resolve().parents[2]


def mishandle(backend: str, part: str) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, "-m", "tests.regress.mishandle", backend, part],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=300 * SLOWNESS,
    )
    assert child.stdout, child.stderr
    report: dict[str, Any] = json.loads(child.stdout)
    assert not report["faults"], "\n\n".join(report["faults"])
    return report


def test_half_made_objects() -> None:
    """Type.__new__(Type), subclasses that forget super().__init__(), wrong arguments and self."""
    report = mishandle("epoll", "fresh")
    assert report["pieces"] > 80, "the walk finds no types any more"


def test_native_functions(backend: str) -> None:
    """Any argument, closed and half-made loops, closed sockets."""
    report = mishandle(backend, "functions")
    assert report["pieces"] > 20, "the walk finds no functions any more"


def test_an_ordinary_loop_runs_its_own_turns(backend: str) -> None:
    """What looks for a replaced _run_once knows the native one; else each turn costs more."""

    class Loop(netpoll.EventLoop):
        def _run_patched_turns(self) -> None:
            raise AssertionError("nobody has replaced _run_once")

    loop = Loop(backend)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
