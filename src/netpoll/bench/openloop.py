"""The open loop: requests that are due at a steady rate, whether earlier ones are answered or not.

A closed loop asks again only when it has its answer, so a server that pauses is asked less, and the
pause counts once: its latencies omit what real clients would have seen. Here a latency counts from
when its request was due. `Pace` says which windows are measured after the one at full rate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netpoll.bench.arguments import number_in
from netpoll.bench.arms import is_own
from netpoll.bench.blocks import (
    Block,
    Choice,
    Figure,
    Group,
    LineOf,
    Lines,
    Multiples,
    Note,
    Table,
    number,
)
from netpoll.bench.blocks import Line as TableLine
from netpoll.bench.errors import ServerError
from netpoll.bench.records import Facts, Row
from netpoll.bench.stats import Offered, Sample

__all__ = [
    "CURVE_PERCENTS",
    "Pace",
    "add_options",
    "chosen",
    "curve_blocks",
    "curve_table",
    "footnote",
    "with_paced",
]

CURVE_PERCENTS = (10.0, 30.0, 50.0, 70.0, 90.0)
SHOWN = ("p50", "p99", "p99.9")
RATE_MAX = 1e8


@dataclass(frozen=True)
class Pace:
    """Windows of an open loop, after the one at full rate.

    percent: of the full rate, in the window that the latencies are of; 0: there is none, and they
        are of the window at full rate. rate_per_s: the same for every server, in the place of
        percent. curve: parts of the full rate, per cent, with a window each.
    """

    percent: float = 0.0
    rate_per_s: float = 0.0
    curve: tuple[float, ...] = ()

    @property
    def windows(self) -> int:
        return bool(self.percent or self.rate_per_s) + len(self.curve)

    def rate_of(self, full_per_s: float) -> float:
        """Of the window of the latencies; 0: there is none. Raises ServerError when a server
        cannot keep up: a queue that grows without end has no latency."""
        if self.rate_per_s > full_per_s:
            raise ServerError(
                f"it answers {full_per_s:.0f} requests per second, not {self.rate_per_s:.0f}"
            )
        return self.rate_per_s or full_per_s * self.percent / 100

    def facts(self) -> Facts:
        """As they stand in a document's settings."""
        return {
            "paced_percent": 0.0 if self.rate_per_s else self.percent,
            "rate_per_s": self.rate_per_s or None,
            "curve_percents": self.curve or None,
        }


def with_paced(sample: Sample, pace: Pace, run: Callable[[float], Mapping[str, Any]]) -> Sample:
    """The window at full rate, and after it those of the pace. `run` runs a window at a rate."""
    if not sample.requests:
        return sample
    if rate_per_s := pace.rate_of(sample.requests_per_s):
        paced = run(rate_per_s)
        sample = replace(
            sample, histogram=paced["histogram"], latency_max_ns=paced["latency_max_ns"]
        )
    return replace(sample, offered=tuple(_offered(sample, percent, run) for percent in pace.curve))


def _offered(sample: Sample, percent: float, run: Callable[[float], Mapping[str, Any]]) -> Offered:
    rate_per_s = sample.requests_per_s * percent / 100
    result = run(rate_per_s)
    return Offered(
        percent=percent,
        rate_per_s=rate_per_s,
        requests=result["requests"],
        window_ns=result["window_ns"],
        latency_max_ns=result["latency_max_ns"],
        histogram=result["histogram"],
    )


# ---- the options ------------------------------------------------------------------------------


def add_options(parser: argparse._ArgumentGroup, percent: float) -> None:
    """`percent`: the default of --paced."""
    parser.add_argument(
        "--paced",
        type=number_in(0, 100, float, " per cent"),
        default=percent,
        metavar="PERCENT",
        help="of a server's full rate at which its latencies are measured, in windows of their "
        f"own; 0: at the full rate; default: {percent:g}",
    )
    parser.add_argument(
        "--rate",
        type=number_in(1, RATE_MAX, float, " requests per second"),
        metavar="N",
        help="latencies at this rate, the same for every server, in the place of --paced",
    )
    parser.add_argument(
        "--curve",
        action="store_true",
        help="also latencies at "
        f"{', '.join(f'{p:g}' for p in CURVE_PERCENTS)} %% of each server's full rate",
    )


def chosen(options: argparse.Namespace) -> Pace:
    return Pace(
        percent=options.paced,
        rate_per_s=options.rate or 0.0,
        curve=CURVE_PERCENTS if options.curve else (),
    )


# ---- to look at -------------------------------------------------------------------------------


def footnote(settings: Facts) -> str:
    """What the latencies of a document are of."""
    if rate_per_s := settings.get("rate_per_s"):
        where = f"windows of their own at {rate_per_s:g} requests per second"
    elif percent := settings.get("paced_percent"):
        where = f"windows of their own at {percent:g} % of each server's rate"
    else:
        return "Latencies are those of a saturated server."
    return f"Latencies are of {where}; they count from the moment at which a request is due."


def _with_curve(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.get("offered")]


def curve_table(rows: Sequence[Row], name: Callable[[Row], str]) -> Iterator[Table]:
    """p99 against the offered load; nothing when it was not measured."""
    rows = _with_curve(rows)
    if not rows:
        return
    head = ["p99, µs, at", *(f"{each['percent']:g} %" for each in rows[0]["offered"])]
    lines = [
        TableLine(
            name(row),
            [Figure(number(each["latency_us"]["p99"])) for each in row["offered"]],
            own=is_own(row["arm"]),
        )
        for row in rows
    ]
    yield Table(head, [Group("", lines)], "latency by offered load, of each server's full rate")


def curve_blocks(rows: Sequence[Row], where: Callable[[Row], Mapping[str, str]]) -> list[Block]:
    """The chart of latencies against the offered load, one curve for each arm; nothing when they
    were not measured."""
    lines = [
        LineOf(
            row["arm"],
            [(each["percent"], each["latency_us"][name]) for each in row["offered"]],
            {**where(row), "latency": name},
        )
        for row in _with_curve(rows)
        for name in SHOWN
    ]
    if not lines:
        return []
    return [
        Choice("latency", SHOWN),
        Lines(
            "offered",
            "Latency by offered load, µs.",
            lines,
            "Requests are due at a part of each server's own full rate.",
            x_unit="%",
            y_unit="µs",
        ),
        Multiples(
            "offered-each",
            "The same, each arm before the others.",
            lines,
            x_unit="%",
            y_unit="µs",
        ),
        Note(
            "A latency counts from when its request was due: a pause makes all late that was due."
        ),
    ]
