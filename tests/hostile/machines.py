"""Hostile machines for children of a test: a program as a string, in a process that lacks much.

What a test sets belongs to its children; what it makes on the machine (a cgroup) it removes.
"""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import restricted
from tests.support import CHILD_DEADLINE_S, SLOWNESS

# What every program begins with: it ends in time, and with its test.
PRELUDE = f"""
import ctypes, faulthandler, os, signal, sys
faulthandler.dump_traceback_later({CHILD_DEADLINE_S!r}, exit=True)
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
sys.path.insert(0, {str(Path(restricted.__file__).parent)!r})
BACKEND = sys.argv[1]
"""
CGROUPS = Path("/sys/fs/cgroup")

in_the_long_lane = pytest.mark.skipif(
    not os.environ.get("NETPOLL_HOSTILE"),
    reason="takes seconds: the long lane's, or NETPOLL_HOSTILE=1",
)


def program(code: str, before: str = "") -> str:
    return PRELUDE + textwrap.dedent(before) + textwrap.dedent(code)


def run_program(
    backend: str,
    code: str,
    *args: str,
    before: str = "",
    prefix: tuple[str, ...] = (),
    **kwargs: Any,
) -> subprocess.CompletedProcess[str]:
    """before: what several programs begin with. prefix: a command in front, as unshare(1)."""
    text = program(code, before)
    command = [*prefix, sys.executable, "-X", "faulthandler", "-c", text, backend, *args]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60 * SLOWNESS,
        check=False,
        **kwargs,
    )


def output(backend: str, code: str, *args: str, **kwargs: Any) -> str:
    """What a program says that must end well, in silence on stderr; kwargs: of run_program."""
    done = run_program(backend, code, *args, **kwargs)
    said = f"{done.returncode}\n{done.stdout}{done.stderr}"
    assert (done.returncode, done.stderr) == (0, ""), said
    return done.stdout


class Cgroup:
    """A cgroup of one controller, version 1 or 2."""

    def __init__(self, path: Path, limit_file: str) -> None:
        self.path = path
        self._limit_file = limit_file

    def limit(self, value: int | str) -> None:
        (self.path / self._limit_file).write_text(str(value))

    def add(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        return list(map(int, (self.path / "cgroup.procs").read_text().split()))

    def tasks_count(self) -> int:
        return int((self.path / "pids.current").read_text())


@contextlib.contextmanager
def cgroup(controller: str, limit_v1: str, limit_v2: str) -> Iterator[Cgroup]:
    """Skips the test where none can be made. Its processes must have ended."""
    version_1 = CGROUPS / controller
    parent = version_1 if version_1.is_dir() else CGROUPS
    path = parent / f"netpoll-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        found = Cgroup(path, limit_v1 if version_1.is_dir() else limit_v2)
        if not (path / found._limit_file).exists():
            pytest.skip(f"no controller '{controller}' in {parent}")
        yield found
    finally:
        deadline_s = time.monotonic() + 10 * SLOWNESS
        while True:
            try:
                path.rmdir()
                break
            except OSError:  # who has just ended is in it for a moment
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)
