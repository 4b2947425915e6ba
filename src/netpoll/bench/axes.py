"""What `bench scale` varies: connections, message size, workers, offered load; one at a time.

An axis says which of its points can be had here, and what its slope is: how the cost of a request
changes with what is varied. A cost that grows by a factor is told per tenfold or per doubling, one
that grows by an amount per KiB or per ten per cent of the load.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from netpoll.bench.cells import size_text
from netpoll.bench.cores import Pinning
from netpoll.bench.process import raise_fd_limit
from netpoll.bench.stats import Fit

__all__ = ["AXES", "Axis", "Point", "Slope", "server_cpus", "why_no_connections"]

BASE_CONNECTIONS, BASE_SIZE_BYTES = 64, 64
SPARE_FDS = 200
# What two ends of a connection with a short message take in the kernel and in a server of Python.
CONNECTION_BYTES = 16 << 10


@dataclass(frozen=True)
class Point:
    """A load: one value of one axis, all else as usual. percent: of the server's full rate; 0: a
    closed loop."""

    axis: str
    value: float
    connections: int = BASE_CONNECTIONS
    size_bytes: int = BASE_SIZE_BYTES
    workers: int = 1
    percent: float = 0.0

    def __str__(self) -> str:
        return f"{self.axis} {AXES[self.axis].text(self.value)}"

    @property
    def is_bulk(self) -> bool:
        return self.size_bytes > 64 << 10


@dataclass(frozen=True)
class Slope:
    """`value`: a factor when `is_factor`, else microseconds more; `per` so much of what varies."""

    value: float
    per: str
    is_factor: bool
    r2: float

    @property
    def text(self) -> str:
        if self.is_factor:
            return f"×{self.value:.2f} {self.per}"
        return f"{self.value:+.3g} µs {self.per}"


@dataclass(frozen=True)
class Axis:
    """values: the usual ones. text: of a value. point: the load at it. base: of the factor that is
    told; 0: the cost grows by amounts, which are told per `step`. x_unit: of the chart.
    slope_from: values below it are measured and have no part in the slope."""

    name: str
    title: str
    values: tuple[float, ...]
    text: Callable[[float], str]
    point: Callable[[float], Point]
    per: str
    base: float = 0.0
    step: float = 1.0
    x_unit: str = ""
    is_log_x: bool = True
    slope_from: float = 0.0

    def slope(self, points: Sequence[tuple[float, float]]) -> Slope | None:
        """Of costs in microseconds by value; None with fewer than two points."""
        points = [(x, y) for x, y in points if x >= self.slope_from]
        if not self.base:
            fit = Fit.of(points)
            return Slope(fit.slope * self.step, self.per, False, fit.r2) if fit else None
        fit = Fit.of([(math.log(x), math.log(y)) for x, y in points])
        return Slope(self.base**fit.slope, self.per, True, fit.r2) if fit else None


def plain(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis(
            "connections",
            "more connections, each with a message of 64 B on its way",
            (1, 10, 100, 1_000, 10_000),
            plain,
            lambda value: Point("connections", value, connections=int(value)),
            "per tenfold",
            base=10.0,
            # A request of a lone connection has a sleep and a wake-up of its own: another quantity.
            slope_from=10,
        ),
        Axis(
            "size",
            f"larger messages, {BASE_CONNECTIONS} connections",
            (64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10),
            lambda value: size_text(int(value)),
            lambda value: Point("size", value, size_bytes=int(value)),
            "per KiB",
            step=1024.0,
            x_unit="B",
        ),
        Axis(
            "workers",
            f"more workers of netpoll.Server, each on a core, {BASE_CONNECTIONS} connections each",
            (1, 2, 4, 8, 16, 32),
            plain,
            lambda value: Point(
                "workers", value, connections=BASE_CONNECTIONS * int(value), workers=int(value)
            ),
            "per doubling",
            base=2.0,
        ),
        Axis(
            "load",
            "more of the server's full rate, in an open loop",
            (10, 30, 50, 70, 90),
            lambda value: f"{value:g} %",
            lambda value: Point("load", value, percent=value),
            "per 10 % of the load",
            step=10.0,
            x_unit="%",
            is_log_x=False,
        ),
    )
}


def server_cpus(pinning: Pinning) -> frozenset[int]:
    """The cores that workers may have: all but that of the load, where there are two."""
    allowed = frozenset(os.sched_getaffinity(0))
    return (allowed - {pinning.load_cpu}) or allowed


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) << 10
    return 0


def why_no_connections(count: int) -> str | None:
    """Why so many cannot be had here, one clause; None when they can."""
    most = raise_fd_limit(count + SPARE_FDS)
    if count + SPARE_FDS > most:
        return f"a process may have {most} open files"
    files = int(Path("/proc/sys/fs/file-max").read_text())
    if 2 * count > files:
        return f"this system may have {files} open files"
    needed = count * CONNECTION_BYTES
    if needed > _available_bytes():
        return f"they need {needed >> 20} MiB of memory, and {_available_bytes() >> 20} are free"
    return None
