"""What is watched, and what it counts now: readings that any exporter can put into its own form."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from netpoll._telemetry.lag import lag_of
from netpoll._telemetry.metrics import (
    ACTIVE,
    DURATION,
    LANES,
    LOOP,
    POOL,
    QUEUED,
    REFUSED,
    SCHEDULER,
    SCHEDULER_WORKER,
    SERVER,
    STALLED,
    WAIT,
    WORKER,
    Attributes,
    Row,
)

__all__ = ["Histogram", "Readings", "Sources", "kind_of", "loops_of"]

SOURCE, NUMBER = "netpoll.source", "netpoll.worker"
NS = 1e-9
# The ends of the buckets that are kept, in powers of two of a nanosecond.
WAIT_ENDS = range(10, 37, 2)


class Source(Protocol):
    """An EventLoop, a Server or a Scheduler."""

    def stats(self) -> Any: ...


@dataclass(frozen=True)
class Histogram:
    """counts: by the upper ends of the buckets, and one beyond; not added up. sum_s: None: it is
    not known."""

    ends_s: list[float]
    counts: list[int]
    sum_s: float | None


class Readings:
    """Values by metric, in the order in which they were taken."""

    def __init__(self) -> None:
        self.values: dict[Row, list[tuple[dict[str, str | int], float]]] = {}
        self.histograms: dict[Row, list[tuple[dict[str, str | int], Histogram]]] = {}

    def add(self, row: Row, labels: Attributes, value: float) -> None:
        self.values.setdefault(row, []).append((dict(labels), value))

    def add_histogram(self, row: Row, labels: Attributes, value: Histogram) -> None:
        self.histograms.setdefault(row, []).append((dict(labels), value))

    def take(self, rows: Iterable[Row], labels: Attributes, stats: Mapping[str, Any]) -> None:
        for row in rows:
            for key, more in row.keys.items():
                self.add(row, {**labels, **more}, stats[key])


class Sources:
    """Things that are watched, with their names. They are not kept alive by it."""

    def __init__(self, sources: Iterable[Source] = ()) -> None:
        self._named: dict[str, weakref.ref[Any]] = {}
        self._lock = threading.Lock()
        for source in sources:
            self.add(source)

    def add(self, source: Source, name: str | None = None) -> None:
        """name: what tells it from others; the default is a scheduler's own, or its kind with a
        number. Raises ValueError for a name that is there."""
        kind = kind_of(source)
        measure = getattr(source, "_measure", None)
        if measure is not None:
            measure()
        with self._lock:
            if any(one() is source for one in self._named.values()):
                return
            if name is None:
                name = self._name_of(source, kind)
            elif name in self._named and self._named[name]() is not None:
                raise ValueError(f"something else is watched under the name {name!r}")
            self._named[name] = weakref.ref(source)

    def _name_of(self, source: Source, kind: str) -> str:
        base = getattr(source, "name", kind)
        name, number = base, 0
        while name in self._named and self._named[name]() is not None:
            number += 1
            name = f"{base}-{number}"
        return str(name)

    def each(self) -> list[tuple[str, Any]]:
        """Those that are there still."""
        with self._lock:
            found = {name: one() for name, one in self._named.items()}
            for name in [name for name, one in found.items() if one is None]:
                del self._named[name]
        return [(name, one) for name, one in found.items() if one is not None]

    def read(self, beside: Sources | None = None) -> Readings:
        """What all of them count now. From any thread. beside: others, in the same readings."""
        readings = Readings()
        each = self.each()
        known = {id(source) for _, source in each}
        if beside is not None:
            each += [(name, one) for name, one in beside.each() if id(one) not in known]
        for name, source in each:
            READERS[kind_of(source)](readings, name, source)
        return readings


def kind_of(source: Any) -> str:
    if isinstance(source, asyncio.AbstractEventLoop) and hasattr(source, "stats"):
        return "loop"
    if hasattr(source, "_loops") and hasattr(source, "stats"):
        return "scheduler" if hasattr(source, "spawn") else "server"
    raise TypeError(f"an EventLoop, a Server or a Scheduler of netpoll, not {source!r}")


def loops_of(source: Any) -> list[Any]:
    """The loops of a server's workers, or of a scheduler's."""
    if kind_of(source) == "server":
        return list(source._loops())
    return [loop for loop in source._loops if loop is not None]


def read_loop(readings: Readings, name: str, loop: Any, number: int = 0) -> None:
    stats = loop.stats()
    lag_s, late_s = lag_of(loop).read()
    used = stats["bufs_total"] - stats["bufs_free"]
    labels: Attributes = {SOURCE: name, NUMBER: number}
    readings.take(LOOP, labels, stats | {"lag_s": lag_s, "late_s": late_s, "bufs_used": used})


def read_server(readings: Readings, name: str, server: Any) -> None:
    stats = server.stats()
    workers = stats["workers"]
    for number, worker in enumerate(workers):
        readings.take(WORKER, {SOURCE: name, NUMBER: number}, worker)
    readings.take(SERVER, {SOURCE: name}, stats | {"count": len(workers)})
    for number, loop in enumerate(loops_of(server)):
        read_loop(readings, name, loop, number)
    if server._pool is not None:
        pool = server._pool.stats()
        refused = sum(one["refused"] for one in pool["classes"].values())
        readings.take(POOL, {SOURCE: name}, pool | {"refused": refused})
    if hasattr(server, "_meter_readings"):
        read_http(readings, name, server)


def read_http(readings: Readings, name: str, server: Any) -> None:
    each = server._meter_readings()
    if not each:
        return
    counts: dict[tuple[str | None, int], list[int]] = {}
    sums_s: dict[tuple[str | None, int], float] = {}
    refused: dict[tuple[str, int], int] = {}
    for one in each:
        for ended in one["ended"]:
            key = ended["method"], ended["status"]
            before = counts.get(key, [0] * len(ended["durations"]))
            counts[key] = [sum(pair) for pair in zip(before, ended["durations"], strict=True)]
            sums_s[key] = sums_s.get(key, 0.0) + ended["duration_s"]
        for fault, count in one["refused"].items():
            refused[fault] = refused.get(fault, 0) + count
    labels: dict[str, str | int] = {SOURCE: name, "url.scheme": server._scheme}
    for key, durations in counts.items():
        histogram = Histogram(each[0]["ends_s"], durations, sums_s[key])
        readings.add_histogram(DURATION, labels | of_request(*key), histogram)
    readings.add(ACTIVE, labels, sum(one["active"] for one in each))
    for (reason, status), count in refused.items():
        more: Attributes = {"error.type": reason, "http.response.status_code": status}
        readings.add(REFUSED, {SOURCE: name, **more}, count)
    readings.add(STALLED, {SOURCE: name}, sum(one["stalled"] for one in each))


def of_request(method: str | None, status: int) -> dict[str, str | int]:
    """The attributes that the conventions ask for. An error is a status of the server, or that
    there was no answer."""
    found: dict[str, str | int] = {"http.request.method": method or "_OTHER"}
    if status:
        found["http.response.status_code"] = status
    if status >= 500 or not status:
        found["error.type"] = str(status) if status else "no_answer"
    return found


def read_scheduler(readings: Readings, name: str, scheduler: Any) -> None:
    stats = scheduler.stats()
    readings.take(SCHEDULER, {SOURCE: name}, stats)
    for lane, more in LANES.items():
        readings.add(QUEUED, {SOURCE: name, **more}, stats["queued"][lane])
    for number, worker in enumerate(stats["workers"]):
        labels: Attributes = {SOURCE: name, NUMBER: number}
        readings.take(SCHEDULER_WORKER, labels, worker)
    for lane, more in LANES.items():
        each = [worker["wait_ns"][lane] for worker in stats["workers"]]
        counts = [sum(column) for column in zip(*each, strict=True)]
        readings.add_histogram(WAIT, {SOURCE: name, **more}, of_waits(counts))
    for number, loop in enumerate(scheduler._loops):
        if loop is not None:
            read_loop(readings, name, loop, number)


def of_waits(counts: list[int]) -> Histogram:
    """A scheduler's own buckets, one for each power of two, put together."""
    kept, first = [], 0
    for end in WAIT_ENDS:
        kept.append(sum(counts[first : end + 1]))
        first = end + 1
    return Histogram([2**end * NS for end in WAIT_ENDS], [*kept, sum(counts[first:])], None)


READERS: dict[str, Callable[[Readings, str, Any], None]] = {
    "loop": read_loop,
    "server": read_server,
    "scheduler": read_scheduler,
}
