"""What the kernel says of a process's rings: its tracepoints of io_uring, for some seconds.

They are recorded in an instance of tracefs of their own: what others trace is not touched, and the
instance goes when the recording ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from netpoll._telemetry.look import descendants

__all__ = ["Event", "Recording", "TraceError", "parse", "record"]

PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
# Of each CPU: some 30 000 events.
BUFFER_KIB = 4096
LINE = re.compile(
    r"^ *(?P<task>.+)-(?P<tid>\d+) +\[(?P<cpu>\d+)\] \S+ +(?P<time>\d+\.\d+): "
    r"io_uring_(?P<name>\w+): (?P<text>.*)$"
)
WRITTEN = re.compile(r"entries-in-buffer/entries-written: (\d+)/(\d+)")
# "user_data 0x1", "sq size 8": what the kernel prints, in pairs but for what follows them.
PAIR = re.compile(r"([a-z_]+[0-9]?(?: size)?) (0x[0-9a-f]+|-?[0-9a-zA-Z_]+)")


class TraceError(Exception):
    """Nothing can be recorded: why, in a sentence."""


@dataclass(frozen=True)
class Event:
    """name: of the tracepoint, without io_uring_. facts: what it tells, by the kernel's names."""

    time_s: float
    task: str
    tid: int
    name: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Recording:
    events: list[Event]
    lost: int  # the buffer was too small for them


def record(pid: int, seconds: float) -> Recording:
    """Of a process and those that it has started. Raises TraceError."""
    if not Path(f"/proc/{pid}").exists():
        raise TraceError(f"there is no process {pid}")
    tids = [tid for one in (pid, *descendants(pid)) for tid in threads_of(one)]
    with instance() as folder:
        (folder / "set_event_pid").write_text(" ".join(map(str, tids)))
        for option, value in (("options/event-fork", "1"), ("trace_clock", "mono")):
            (folder / option).write_text(value)
        (folder / "buffer_size_kb").write_text(str(BUFFER_KIB))
        switch = folder / "events" / "io_uring" / "enable"
        switch.write_text("1")
        time.sleep(seconds)
        switch.write_text("0")
        return parse((folder / "trace").read_text(errors="replace").splitlines())


def threads_of(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):  # it has just ended
        yield from map(int, os.listdir(f"/proc/{pid}/task"))


@contextlib.contextmanager
def instance() -> Iterator[Path]:
    place = next((place for place in PLACES if (place / "instances").is_dir()), None)
    if place is None:
        raise TraceError(
            "tracefs cannot be seen: it is root's, and in a container it has to be mounted "
            "(mount -t tracefs tracefs /sys/kernel/tracing)"
        )
    if not (place / "events" / "io_uring").is_dir():
        raise TraceError("this kernel has no tracepoints of io_uring")
    folder = place / "instances" / f"netpoll-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as exc:
        reason = f"tracing is root's, or CAP_SYS_ADMIN's ({exc.strerror}): use sudo"
        raise TraceError(reason) from exc
    try:
        yield folder
    finally:
        folder.rmdir()


def parse(lines: Iterable[str]) -> Recording:
    events, lost = [], 0
    for line in lines:
        match = LINE.match(line)
        if match is not None:
            facts = dict(PAIR.findall(match["text"]))
            time_s, tid = float(match["time"]), int(match["tid"])
            events.append(Event(time_s, match["task"], tid, match["name"], facts))
        elif counts := WRITTEN.search(line):
            lost = int(counts[2]) - int(counts[1])
    return Recording(events, lost)
