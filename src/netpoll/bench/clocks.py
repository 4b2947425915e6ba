"""CPU time of a process, read from outside.

A process's CPU time is read with its process CPU clocks (clock_getcpuclockid(3)): the process is
not asked, so nothing that answers has to run in it. All its threads count, those that the kernel
makes for io_uring among them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CpuTime", "cpu_time", "run_delay_ns"]

# The kinds of a process CPU clock, from the kernel's posix-timers.h: all of a process's time as
# the scheduler accounts it, exact to the nanosecond; and its division, sampled at each timer tick.
_CLOCK_TICKS_ALL, _CLOCK_TICKS_USER, _CLOCK_SCHEDULER = 0, 1, 2


@dataclass(frozen=True)
class CpuTime:
    """CPU time of a process, nanoseconds. `user_ns` and `system_ns` are what the timer tick saw."""

    total_ns: int
    user_ns: int
    system_ns: int

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
