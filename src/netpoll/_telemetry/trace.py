"""`netpoll trace PID`: what the kernel does with a program's rings, as text or for Perfetto."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from netpoll._telemetry.recording import Event, Recording, TraceError, record

__all__ = ["main"]

SECONDS = 1.0
# IORING_CQE_F_MORE: more completions of this operation will come.
MORE = 1 << 1
# IOSQE_CQE_SKIP_SUCCESS: one that succeeds has no completion.
SILENT = 1 << 6
NOTHING = (
    "no event of io_uring: the program has done nothing meanwhile, or it uses epoll (`netpoll top` "
    "and stats() say which)"
)
SHOWN = ("opcode", "fd", "result", "count", "min_events", "user_data", "cflags")


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    try:
        recording = record(options.pid, options.seconds)
    except (TraceError, OSError) as exc:
        print(f"netpoll: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    if not recording.events:
        print(f"netpoll: {NOTHING}", file=sys.stderr)
    if options.chrome is not None:
        document = {"traceEvents": list(chrome(recording.events, options.pid))}
        Path(options.chrome).write_text(json.dumps(document))
        print(f"{len(recording.events)} events are in {options.chrome}: open it in ui.perfetto.dev")
        return 0
    for line in text(recording):
        print(line)
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="netpoll trace",
        description="Records the kernel's tracepoints of io_uring for a process and its children. "
        "It needs root, or CAP_SYS_ADMIN; the program needs nothing.",
    )
    made.add_argument("pid", type=int, metavar="PID", help="of the program")
    made.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="SECONDS", help="how long (1)"
    )
    made.add_argument("--chrome", metavar="FILE", help="JSON for ui.perfetto.dev, not text")
    return made


# ---- text ---------------------------------------------------------------------------------------


def text(recording: Recording) -> Iterator[str]:
    """A line for each event, and what there was of each kind."""
    events = recording.events
    for event in events:
        facts = " ".join(f"{key}={event.facts[key]}" for key in SHOWN if key in event.facts)
        since_ms = (event.time_s - events[0].time_s) * 1e3
        yield f"{since_ms:11.3f} ms  {event.tid:>7}  {event.name:18} {facts}".rstrip()
    for name, count in Counter(event.name for event in events).most_common():
        yield f"{count:11}  {name}"
    if recording.lost:
        yield f"{recording.lost:11}  events are lost: take fewer seconds"


# ---- Chrome's format ----------------------------------------------------------------------------


def chrome(events: list[Event], pid: int) -> Iterator[dict[str, Any]]:
    """An operation from its submission to its last completion, if it has one; a wait up to the
    thread's next event; everything else at its moment."""
    names = {event.tid: event.task for event in events}
    for tid, name in names.items():
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}
    waits: dict[int, Event] = {}
    open_: dict[str, str] = {}
    for event in events:
        common = {"pid": pid, "tid": event.tid, "ts": microseconds(event)}
        if (wait := waits.pop(event.tid, None)) is not None:
            begun = microseconds(wait)
            length = {"ts": begun, "dur": round(common["ts"] - begun, 3)}
            yield {**common, **length, "ph": "X", "name": "wait", "args": wait.facts}
        if event.name == "cqring_wait":
            waits[event.tid] = event
            continue
        key = f"{event.facts.get('ring')}/{event.facts.get('user_data')}"
        operation = {**common, "cat": "operation", "id": key, "args": event.facts}
        if event.name == "submit_req" and int(event.facts.get("flags", "0"), 16) & SILENT:
            yield {**operation, "ph": "n", "name": event.facts.get("opcode", "operation")}
        elif event.name == "submit_req":
            open_[key] = event.facts.get("opcode", "operation")
            yield {**operation, "ph": "b", "name": open_[key]}
        elif event.name == "complete" and key in open_:
            is_last = not int(event.facts.get("cflags", "0"), 16) & MORE
            name = open_.pop(key) if is_last else open_[key]
            yield {**operation, "ph": "e" if is_last else "n", "name": name}
        else:
            yield {**common, "ph": "i", "s": "t", "name": event.name, "args": event.facts}


def microseconds(event: Event) -> float:
    return round(event.time_s * 1e6, 3)
