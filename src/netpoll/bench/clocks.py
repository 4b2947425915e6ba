"""CPU time, read from outside: of a process, and of a process with all its descendants.

A process's CPU time is read with its process CPU clocks (clock_getcpuclockid(3)): the process is
not asked, so nothing that answers has to run in it. All its threads count, those that the kernel
makes for io_uring among them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CpuTime", "cpu_time", "descendants", "run_delay_ns", "tree_cpu_time"]

# The kinds of a process CPU clock, from the kernel's posix-timers.h: all of a process's time as
# the scheduler accounts it, exact to the nanosecond; and its division, sampled at each timer tick.
_CLOCK_TICKS_ALL, _CLOCK_TICKS_USER, _CLOCK_SCHEDULER = 0, 1, 2

# Of /proc/PID/stat, counted behind the name, which is in brackets and may hold anything.
_PARENT, _REAPED_USER, _REAPED_SYSTEM = 1, 13, 14

READINGS_MAX = 50  # of a tree that changes while it is read

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class CpuTime:
    """CPU time of a process, nanoseconds. `user_ns` and `system_ns` are what the timer tick saw."""

    total_ns: int
    user_ns: int
    system_ns: int

    def __add__(self, other: CpuTime) -> CpuTime:
        """The time of two processes."""
        return CpuTime(
            self.total_ns + other.total_ns,
            self.user_ns + other.user_ns,
            self.system_ns + other.system_ns,
        )

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        """The time between two readings. The total is exact; it is divided as the ticks of the
        same interval were, which is coarse below a second."""
        total = self.total_ns - earlier.total_ns
        user = self.user_ns - earlier.user_ns
        system = self.system_ns - earlier.system_ns
        share = user / (user + system) if user + system else 0.0
        return CpuTime(total, round(total * share), total - round(total * share))


def cpu_time(pid: int) -> CpuTime:
    """CPU time so far of process `pid`, all its threads. Raises OSError when it is gone."""

    def read(kind: int) -> int:
        return time.clock_gettime_ns((~pid << 3) | kind)

    user = read(_CLOCK_TICKS_USER)
    return CpuTime(read(_CLOCK_SCHEDULER), user, read(_CLOCK_TICKS_ALL) - user)


def run_delay_ns(pid: int) -> int | None:
    """How long the main thread of `pid` was ready to run while its core was somebody else's,
    nanoseconds so far; None where the kernel does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _stat(pid: int | str) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name; None when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def descendants(root: int) -> list[int]:
    """The processes below `root`, parents first; one that has ended counts until it is reaped."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and (stat := _stat(name)) is not None:
            children.setdefault(int(stat[_PARENT]), []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found[1:]


def _reaped_time(pid: int) -> CpuTime:
    """What the children had used that `pid` has waited for. The kernel tells it in clock ticks."""
    stat = _stat(pid)
    if stat is None:
        raise ProcessLookupError(f"process {pid} is gone")
    user = int(stat[_REAPED_USER]) * _TICK_NS
    system = int(stat[_REAPED_SYSTEM]) * _TICK_NS
    return CpuTime(user + system, user, system)


def tree_cpu_time(root: int) -> CpuTime:
    """CPU time so far of `root` and of all its descendants, those that have ended included.

    Exact, as `cpu_time` is, for the processes that are there. One that has ended is known by what
    its parent was told when it waited for it: within two clock ticks (20 ms) for each that ends
    between two readings. Raises OSError when `root` is gone, or when its processes come and go
    faster than they can be read.
    """
    for _ in range(READINGS_MAX):
        there = descendants(root)
        total = cpu_time(root) + _reaped_time(root)
        try:
            for pid in there:
                total += cpu_time(pid) + _reaped_time(pid)
        except OSError:
            continue
        # A process that was waited for meanwhile was counted twice, or not at all.
        if descendants(root) == there:
            return total
    raise OSError(f"the processes of {root} come and go too fast to be measured")
