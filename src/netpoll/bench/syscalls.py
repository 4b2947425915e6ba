"""System calls per request, counted from outside the server.

`perf stat` on the kernel's tracepoints counts without stopping anybody; where it is not allowed,
`strace -c` does, slowly. Neither is ever attached while time is measured.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

ENTER = "io_uring_enter"
ALL = "all"
_PERF_EVENTS = {"syscalls:sys_enter_io_uring_enter": ENTER, "raw_syscalls:sys_enter": ALL}
ATTACH_S = 5.0


def _perf_command(output: str, *target: str) -> list[str]:
    return ["perf", "stat", "-x", ",", "-o", output, "-e", ",".join(_PERF_EVENTS), *target]


def parse_perf(text: str) -> dict[str, int]:
    """Counts from `perf stat -x ,`; an event that was not counted is left out."""
    counts = {}
    for line in text.splitlines():
        fields = line.split(",")
        if len(fields) > 2 and fields[2] in _PERF_EVENTS and fields[0].isdecimal():
            counts[_PERF_EVENTS[fields[2]]] = int(fields[0])
    return counts


def parse_strace(text: str) -> dict[str, int]:
    """Counts from the summary of `strace -c`."""
    counts = {ENTER: 0, ALL: 0}
    for line in text.splitlines():
        # % time, seconds, usecs/call, calls, [errors,] syscall
        match = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$", line)
        if match and match[2] != "total":
            counts[ALL] += int(match[1])
            if match[2] == ENTER:
                counts[ENTER] = int(match[1])
    return counts


@dataclass(frozen=True)
class SyscallCounter:
    """`name` is "perf" or "strace"."""

    name: str

    @classmethod
    def find(cls) -> SyscallCounter | None:
        """The better one that works here, or None."""
        if shutil.which("perf"):
            with tempfile.NamedTemporaryFile("r") as output:
                done = subprocess.run(_perf_command(output.name, "true"), capture_output=True)
                if done.returncode == 0 and len(parse_perf(output.read())) == len(_PERF_EVENTS):
                    return cls("perf")
        if shutil.which("strace"):
            done = subprocess.run(["strace", "-c", "-o", os.devnull, "true"], capture_output=True)
            if done.returncode == 0:
                return cls("strace")
        return None

    @contextmanager
    def attached(self, pid: int) -> Iterator[dict[str, int]]:
        """Counts the calls of process `pid` (all its threads) inside the block; the dict is filled
        when the block ends. Raises OSError when the tool does not attach."""
        counts: dict[str, int] = {}
        with tempfile.NamedTemporaryFile("r") as output:
            if self.name == "perf":
                command = _perf_command(output.name, "-p", str(pid))
            else:
                command = ["strace", "-c", "-f", "-o", output.name, "-p", str(pid)]
            tool = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
            try:
                self._wait_until_attached(tool, pid)
                yield counts
            finally:
                tool.send_signal(signal.SIGINT)
                tool.wait()
            text = output.read()
            counts.update(parse_perf(text) if self.name == "perf" else parse_strace(text))

    def _wait_until_attached(self, tool: subprocess.Popen[bytes], pid: int) -> None:
        deadline = time.monotonic() + ATTACH_S
        while time.monotonic() < deadline:
            if tool.poll() is not None:
                raise OSError(f"{self.name} could not attach to the server")
            if self._is_attached(tool.pid, pid):
                return
            time.sleep(0.01)
        raise OSError(f"{self.name} did not attach to the server in time")

    def _is_attached(self, tool_pid: int, pid: int) -> bool:
        if self.name == "strace":
            with open(f"/proc/{pid}/status") as status:
                return f"TracerPid:\t{tool_pid}\n" in status.read()
        # perf waits for its signal once its counters are open.
        with open(f"/proc/{tool_pid}/wchan") as wchan:
            opened = any(
                os.readlink(entry.path) == "anon_inode:[perf_event]"
                for entry in os.scandir(f"/proc/{tool_pid}/fd")
            )
            return opened and wchan.read() not in ("", "0")
