"""From samples to figures: percentiles of histograms, medians and spreads, paired ratios."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from netpoll.bench.records import Facts

__all__ = [
    "PERCENTILES",
    "Fit",
    "Offered",
    "Sample",
    "Spread",
    "merge",
    "paired_ratio",
    "percentile_ns",
]

PERCENTILES = (50.0, 90.0, 99.0, 99.9)

Histogram = Sequence[tuple[int, int]]  # (largest latency of the bucket in nanoseconds, count)


def merge(histograms: Iterable[Histogram]) -> list[tuple[int, int]]:
    """One histogram of all samples."""
    counts: Counter[int] = Counter()
    for histogram in histograms:
        for top_ns, count in histogram:
            counts[top_ns] += count
    return sorted(counts.items())


def percentile_ns(histogram: Histogram, percent: float) -> int:
    """The latency that `percent` of the requests did not exceed, nanoseconds (the top of its
    bucket, so at most 0.8 % too high). Raises ValueError for an empty histogram."""
    total = sum(count for _, count in histogram)
    if total == 0:
        raise ValueError("no requests, no percentile")
    # The smallest bucket that leaves no more than the rest above it.
    allowed_above = total * (100.0 - percent) / 100.0
    below = 0
    for top_ns, count in histogram:
        below += count
        if total - below <= allowed_above + 1e-9 * total:
            return top_ns
    return histogram[-1][0]


@dataclass(frozen=True)
class Offered:
    """A window in which requests were due at `rate_per_s`, which is `percent` of the full rate."""

    percent: float
    rate_per_s: float
    requests: int
    window_ns: int
    latency_max_ns: int
    histogram: list[tuple[int, int]]


@dataclass(frozen=True)
class Sample:
    """One measured window of one entry in one cell.

    requests and window_ns give the rate; requests_all, cpu_* (of the server) and elapsed_ns include
    the answers that were on their way when the window ended. `wait_ns`: how long the server was
    kept from its core by somebody else; None where that is not known. `offered`: windows of an open
    loop that came after it.
    """

    round: int
    requests: int
    requests_all: int
    checked_bytes: int
    window_ns: int
    elapsed_ns: int
    cpu_ns: int
    cpu_user_ns: int
    cpu_system_ns: int
    load_cpu_ns: int
    wait_ns: int | None
    latency_max_ns: int
    histogram: list[tuple[int, int]]
    offered: tuple[Offered, ...] = ()

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.window_ns * 1e9

    @property
    def cpu_us(self) -> float:
        """Server CPU per request, microseconds."""
        return self.cpu_ns / self.requests_all / 1e3

    @property
    def wait_share(self) -> float:
        """Part of the time in which the server wanted its core and did not have it."""
        return (self.wait_ns or 0) / self.elapsed_ns

    @property
    def server_busy(self) -> float:
        """Part of the time in which the server ran. Clearly below 1: the load was the bottleneck,
        or the core was somebody else's."""
        return self.cpu_ns / self.elapsed_ns


@dataclass(frozen=True)
class Spread:
    """What several rounds say about one quantity."""

    median: float
    min: float
    max: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Raises ValueError when there is none."""
        values = list(values)
        if not values:
            raise ValueError("no values, no spread")
        return cls(median(values), min(values), max(values), len(values))

    @property
    def percent(self) -> float:
        """Half the distance from the lowest to the highest, in per cent of the median."""
        return (self.max - self.min) / 2 / self.median * 100 if self.median else 0.0

    def as_dict(self) -> Facts:
        return asdict(self) | {"spread_percent": self.percent}


@dataclass(frozen=True)
class Fit:
    """A straight line through points, by least squares. `r2`: how much of what the points differ by
    lies on it, 1 at most."""

    slope: float
    start: float
    r2: float

    @classmethod
    def of(cls, points: Sequence[tuple[float, float]]) -> Fit | None:
        """None when fewer than two points lie at different places."""
        if len({x for x, _ in points}) < 2:
            return None
        count = len(points)
        middle_x = sum(x for x, _ in points) / count
        middle_y = sum(y for _, y in points) / count
        across = sum((x - middle_x) ** 2 for x, _ in points)
        slope = sum((x - middle_x) * (y - middle_y) for x, y in points) / across
        start = middle_y - slope * middle_x
        whole = sum((y - middle_y) ** 2 for _, y in points)
        left = sum((y - start - slope * x) ** 2 for x, y in points)
        return cls(slope, start, 1 - left / whole if whole else 1.0)


def paired_ratio(values: Mapping[int, float], reference: Mapping[int, float]) -> float | None:
    """The median over the rounds of value / reference of the same round: what slows the whole
    machine for a while cancels out. None without a common round."""
    ratios = [values[r] / reference[r] for r in values if reference.get(r)]
    return median(ratios) if ratios else None
