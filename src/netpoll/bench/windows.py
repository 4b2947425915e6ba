"""Windows of a server under load: measured, and turned into rows, columns and charts.

For kinds whose servers answer requests: one window is one `Sample`, and a row holds the windows of
all rounds of one arm. The rest of a row (which load, ratios to which arm) is the kind's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from netpoll.bench.blocks import (
    Bar,
    Bars,
    Column,
    Curve,
    Curves,
    Figure,
    counted,
    judged,
    number,
    rate,
    ratio,
)
from netpoll.bench.clocks import CpuTime
from netpoll.bench.records import Facts, Row
from netpoll.bench.stats import (
    PERCENTILES,
    Histogram,
    Offered,
    Sample,
    Spread,
    merge,
    percentile_ns,
)

__all__ = [
    "COST_LEGEND",
    "Columns",
    "bar_of",
    "cost_chart",
    "cost_key",
    "curve_of",
    "figures",
    "how_measured",
    "latency_chart",
    "overview_figure",
    "versus",
]

# User and system are told apart by the timer tick, 100 to 1000 times a second: with less CPU time
# than this that says nothing.
DIVIDED_FROM_NS = 300_000_000

# Above this share of a window somebody else had the server's core: the row is marked.
DISTURBED_SHARE = 0.05

# Where a latency curve has its points, as parts of the requests.
CURVE = (
    *(p / 100 for p in range(0, 100, 5)),
    *(0.9 + p / 1000 for p in range(60, 100, 5)),
    *(1 - step * 10**-power for power in (2, 3, 4, 5) for step in (1.0, 0.5, 0.2)),
)

COST_LEGEND = (
    "CPU: server CPU per request, µs, user and system: the median of the rounds, their minimum, "
    "and ± half their range in per cent. p50, p99, p99.9: latency, µs."
)


# ---- measuring --------------------------------------------------------------------------------


class Measured(Protocol):
    """What is measured: `process.Server`, `process.Program`."""

    def cpu_time(self) -> CpuTime: ...
    def run_delay_ns(self) -> int | None: ...


class Load(Protocol):
    """What loads it for so many seconds, at a rate if there is one: `_native.Load`."""

    def run(self, duration_s: float, rate_per_s: float = ...) -> Mapping[str, Any]: ...


def measure(server: Measured, load: Load, duration_s: float, round_number: int) -> Sample:
    """One window. Raises OSError when the server is gone, and what the load raises."""
    wait_before = server.run_delay_ns()
    load_before = time.thread_time_ns()
    cpu_before = server.cpu_time()
    result = load.run(duration_s)
    cpu = server.cpu_time() - cpu_before
    load_cpu = time.thread_time_ns() - load_before
    wait_after = server.run_delay_ns()
    wait_ns = None if wait_before is None or wait_after is None else wait_after - wait_before
    return Sample(
        round=round_number,
        requests=result["requests"],
        requests_all=result["requests_all"],
        checked_bytes=result["checked_bytes"],
        window_ns=result["window_ns"],
        elapsed_ns=result["elapsed_ns"],
        cpu_ns=cpu.total_ns,
        cpu_user_ns=cpu.user_ns,
        cpu_system_ns=cpu.system_ns,
        load_cpu_ns=result.get("load_cpu_ns", load_cpu),  # told by a load on another machine
        wait_ns=wait_ns,
        latency_max_ns=result["latency_max_ns"],
        histogram=result["histogram"],
    )


# ---- rows -------------------------------------------------------------------------------------


def figures(samples: Sequence[Sample], size_bytes: int) -> Facts:
    """What a row says about the windows of all rounds; each answer has `size_bytes`."""
    histogram = merge(s.histogram for s in samples)
    cpu = Spread.of(s.cpu_us for s in samples)
    # Divided by the ticks of all rounds together: those of one window are few.
    total_ns = sum(s.cpu_ns for s in samples)
    user_share = sum(s.cpu_user_ns for s in samples) / total_ns
    is_divided = total_ns >= DIVIDED_FROM_NS
    return {
        "rounds": len(samples),
        "requests": sum(s.requests_all for s in samples),
        "requests_per_s": Spread.of(s.requests_per_s for s in samples).as_dict(),
        "mb_per_s": Spread.of(s.requests_per_s * size_bytes / 1e6 for s in samples).as_dict(),
        "latency_us": _latencies(histogram, samples),
        "cpu_us": cpu.as_dict(),
        "cpu_user_us": cpu.median * user_share if is_divided else None,
        "cpu_system_us": cpu.median * (1 - user_share) if is_divided else None,
        "cpu_us_by_round": [s.cpu_us for s in samples],
        "server_busy": Spread.of(s.server_busy for s in samples).as_dict(),
        "histogram_ns": histogram,
    } | _offered(samples)


def _latencies(histogram: Histogram, windows: Iterable[Sample | Offered]) -> dict[str, float]:
    """Percentiles, and the largest of the windows; microseconds."""
    latency = {f"p{p:g}": percentile_ns(histogram, p) / 1e3 for p in PERCENTILES}
    return latency | {"max": max(window.latency_max_ns for window in windows) / 1e3}


def _offered(samples: Sequence[Sample]) -> Facts:
    """What the open loop said, load by load, all rounds together; {} when there was none."""
    loads = []
    for windows in zip(*(sample.offered for sample in samples), strict=True):
        histogram = merge(window.histogram for window in windows)
        answered = (window.requests / window.window_ns * 1e9 for window in windows)
        loads.append(
            {
                "percent": windows[0].percent,
                "rate_per_s": Spread.of(window.rate_per_s for window in windows).as_dict(),
                "answered_per_s": Spread.of(answered).as_dict(),
                "latency_us": _latencies(histogram, windows),
                "histogram_ns": histogram,
            }
        )
    return {"offered": loads} if loads else {}


def disturbed_rounds(samples: Iterable[Sample]) -> int:
    """In how many of the windows somebody else had the server's core."""
    return sum(s.wait_share > DISTURBED_SHARE for s in samples)


def sample_dict(sample: Sample) -> Facts:
    """A window as it stands in a document; its histograms are in the row."""
    facts = asdict(sample)
    del facts["histogram"], facts["offered"]
    return facts


def cost_key(row: Row) -> float:
    """Sorts rows: the cheapest first, failures last."""
    return row["cpu_us"]["median"] if row["rounds"] else float("inf")


# ---- columns ----------------------------------------------------------------------------------


def _plain(value: Callable[[Row], float | None]) -> Callable[[Row], Figure]:
    return lambda row: Figure(number(value(row)))


def _latency(name: str) -> Callable[[Row], Figure]:
    return _plain(lambda row: row["latency_us"][name])


def cost_with_bar(most_us: float) -> Callable[[Row], Figure]:
    """The cost with its spread, and a bar behind it against the largest of the table."""

    def figure(row: Row) -> Figure:
        cpu = row["cpu_us"]
        share = cpu["median"] / most_us if most_us else 0.0
        return Figure(
            number(cpu["median"]), sub=f"±{cpu['spread_percent']:.0f} %", tone="key", share=share
        )

    return figure


class Columns:
    """The columns that every table of windows can have."""

    RATE = Column("req/s", lambda row: Figure(rate(row["requests_per_s"]["median"])))
    MB = Column("MB/s", _plain(lambda row: row["mb_per_s"]["median"]))
    P50 = Column("p50", _latency("p50"))
    P99 = Column("p99", _latency("p99"))
    P99_9 = Column("p99.9", _latency("p99.9"))
    MAX = Column("max", _latency("max"))
    CPU = Column("CPU", lambda row: Figure(number(row["cpu_us"]["median"]), tone="key"))
    MIN = Column("min", _plain(lambda row: row["cpu_us"]["min"]))
    SPREAD = Column("±%", lambda row: Figure(f"{row['cpu_us']['spread_percent']:.0f}"))
    USER = Column("user", _plain(lambda row: row["cpu_user_us"]))
    SYSTEM = Column("sys", _plain(lambda row: row["cpu_system_us"]))
    # Sets of them: of a wide terminal; of a page, before and behind the ratios to others.
    WIDE = (RATE, MB, P50, P99, P99_9, CPU, MIN, SPREAD, USER, SYSTEM)
    PAGE_COSTS = (MIN, USER, SYSTEM)
    PAGE_RATES = (RATE, MB, Column("p50 µs", P50.figure), P99, P99_9, MAX)


def versus(title: str, key: str) -> Column:
    """The ratio to another arm."""
    return Column(title, lambda row: judged(row[key]))


def overview_figure(row: Row | None, key: str) -> Figure:
    """The cost, and in small figures the ratio to another arm, which shades it."""
    if row is None:
        return Figure("–")
    value = row[key]
    sub = "" if value is None else ratio(value)
    return Figure(number(row["cpu_us"]["median"]), sub, shade=value)


def how_measured(settings: Facts, arms: str) -> str:
    """arms: what takes part, in the plural."""
    return (
        f"{counted(settings['rounds'], 'round')}, {arms} interleaved, windows of "
        f"{settings['duration_s']:.3g} s after {settings['warmup_s']:.3g} s of warm-up."
    )


# ---- charts -----------------------------------------------------------------------------------


def _points(histogram: Sequence[Sequence[int]]) -> list[tuple[float, float]]:
    """(part of the requests, latency in µs) at the points of CURVE that so many requests carry."""
    total = sum(count for _, count in histogram)
    points, below, position = [], 0, 0
    for part in sorted(CURVE):
        if (1 - part) * total < 1:
            break
        while position < len(histogram) - 1 and below + histogram[position][1] < part * total:
            below += histogram[position][1]
            position += 1
        points.append((part, histogram[position][0] / 1e3))
    return points


def bar_of(row: Row, where: Mapping[str, str]) -> Bar:
    """The cost, divided into kernel and user space where that is known."""
    user, system = row["cpu_user_us"] or 0.0, row["cpu_system_us"]
    parts = (row["cpu_us"]["median"] if system is None else system, user)
    return Bar(row["arm"], parts, row["cpu_us_by_round"], where)


def cost_chart(bars: Sequence[Bar]) -> Bars:
    return Bars(
        "cpu",
        "Server CPU per request, µs.",
        bars,
        "Dark: in the kernel; light: in user space; each dot is a round. Less is better.",
        "µs",
        ("in the kernel", "in user space"),
    )


def curve_of(row: Row, where: Mapping[str, str]) -> Curve:
    return Curve(row["arm"], _points(row["histogram_ns"]), row["mode"] == "-", where)


def latency_chart(curves: Sequence[Curve]) -> Curves:
    return Curves(
        "latency",
        "Latency of the requests, µs,",
        curves,
        "up to which part of them: the further right, the rarer. Dotted: without an event loop.",
    )
