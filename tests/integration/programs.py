"""Child processes of the integration tests: started on ephemeral ports, watched, ended by pid.

What a program prints goes to a file. Besides the exit code that file is the test: a warning about
something left open, a task's exception that nobody took or a traceback fails it (`clean`).
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ..support import SLOWNESS

ROOT = Path(__file__).resolve().parent.parent.parent
T = TypeVar("T")

START_TIMEOUT_S = 30.0 * SLOWNESS
STOP_TIMEOUT_S = 20.0 * SLOWNESS

# What must not be in the output of a Python program.
SUSPICIOUS = re.compile(
    r"ResourceWarning|unclosed|never awaited|never retrieved|was destroyed but|Traceback|"
    r"Fatal error|counter after close"
)


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Program:
    """One running child and the file with its output."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str], cwd: Path) -> None:
        self.log = log
        with open(log, "wb") as output:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        """The matches of a regular expression in the output, once there are `count` of them."""
        return self.wait_until(
            lambda: found if len(found := re.findall(pattern, self.output())) >= count else None,
            f"{count} x {pattern!r} in its output",
        )

    def wait_until(self, ready: Callable[[], T | None], what: str) -> T:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            if (found := ready()) is not None:
                return found
            if self.child.poll() is not None:
                raise AssertionError(f"ended with {self.child.returncode}:\n{self.output()}")
            if time.monotonic() > deadline_s:
                raise AssertionError(f"not in {START_TIMEOUT_S} s: {what}\n{self.output()}")
            time.sleep(0.02)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Asks it to end; its exit code."""
        if self.child.poll() is None:
            self.child.send_signal(sig)
        try:
            return self.child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end:\n{self.output()}") from None

    def clean(self, but: str = "$^") -> None:
        """Fails if the output has anything that a clean run does not print; `but` is excused."""
        if match := SUSPICIOUS.search(re.sub(but, "", self.output())):
            raise AssertionError(f"{match[0]!r} in the output:\n{self.output()}")

    def kill(self) -> None:
        """The whole process group, whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


@contextlib.contextmanager
def running(
    command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Program]:
    """A program, for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="netpoll-"))
    program = None
    try:
        program = Program(command, folder / "log", os.environ | (env or {}), cwd or ROOT)
        yield program
    finally:
        if program is not None:
            program.kill()
        shutil.rmtree(folder, ignore_errors=True)


def python_env(backend: str) -> dict[str, str]:
    """For a Python child that uses netpoll: the backend, and all warnings shown."""
    return {
        "NETPOLL_BACKEND": backend,
        "PYTHONWARNINGS": "default",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }


def python(*arguments: str) -> list[str]:
    return [sys.executable, "-X", "faulthandler", *arguments]
