"""``bench scale``: how the cost of a request changes with connections, size, workers and load.

A cell is a point of an axis (`axes.py`), an entry an arm in one mode. A point of the axis `load` is
a window of an open loop, at a part of the full rate that the same server has just shown.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

from netpoll.bench._native import Load
from netpoll.bench.arguments import list_of, number_in, one_of
from netpoll.bench.arms import AGAIN, ARMS, SocketArm, is_own
from netpoll.bench.axes import AXES, SPARE_FDS, Point, server_cpus, why_no_connections
from netpoll.bench.blocks import (
    Block,
    Choice,
    Figure,
    Group,
    Heading,
    Line,
    LineOf,
    Lines,
    Multiples,
    Note,
    Table,
    counted,
    number,
)
from netpoll.bench.cells import MAX_CONNECTIONS, parse_size
from netpoll.bench.cores import on_cpu
from netpoll.bench.document import malloc_note
from netpoll.bench.errors import UsageError
from netpoll.bench.kind import Kind, Terms, distinct, measured
from netpoll.bench.loaded import (
    USUAL_WINDOW_S,
    WARMUP_S,
    PartialPlan,
    Servers,
    Subject,
    fitted,
    samples_of,
)
from netpoll.bench.process import Server, check_arms, raise_fd_limit
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.rounds import Measure, Run, no_garbage_collection
from netpoll.bench.watch import Watch
from netpoll.bench.windows import figures, how_measured, sample_dict

__all__ = ["KIND", "PointLoad", "ScalePlan"]

MODES = {"loop": "protocol", "server": "on_data"}
MOST_CONNECTIONS = 10_000
STALL_S, CONNECTIONS_PER_STALL_S = 5.0, 5_000
CONNECT_S = 30e-6
WINDOW_PER_CONNECTION_S = 100e-6  # some requests of each, and not its first one alone
QUANTITIES = {
    "cost": "server CPU per request, µs",
    "p99": "p99, µs",
    "rate": "requests per second",
}


def usual_mode(arm: SocketArm) -> str:
    return MODES.get(arm.kind, "-")


def can(arm: str, point: Point) -> bool:
    """Only netpoll.Server has workers."""
    return point.axis != "workers" or ARMS[arm].kind == "server"


# ---- the run ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ScalePlan(PartialPlan):
    def is_able(self, subject: Any) -> bool:
        return can(subject.entry, subject.cell)

    @property
    def measurement_s(self) -> float:
        """On average: points of the open loop have a window more, and connections take time."""
        more_s: float = sum(
            bool(point.percent) * self.duration_s
            + point.connections * (CONNECT_S + 2 * WINDOW_PER_CONNECTION_S)
            for point in self.cells
        )
        return super().measurement_s + more_s / max(len(self.cells), 1)


class PointLoad:
    """The load of a point; a context manager. Many connections have longer windows; at a part of
    the full rate, the first run finds out what that is."""

    def __init__(self, load: Any, point: Point, window_s: float) -> None:
        self.load = load
        self.point = point
        self.window_s = window_s
        self.rate_per_s = 0.0

    def run(self, duration_s: float, rate_per_s: float = 0.0) -> Mapping[str, Any]:
        """The first time a warm-up, and for a part of the full rate a window at that rate."""
        found: Mapping[str, Any]
        if self.rate_per_s:
            found = self.load.run(duration_s, self.rate_per_s)
            return found
        found = self.load.run(max(duration_s, self.point.connections * WINDOW_PER_CONNECTION_S))
        if self.point.percent:
            found = self.load.run(self.window_s)
            full_per_s = found["requests"] / found["window_ns"] * 1e9
            self.rate_per_s = max(full_per_s * self.point.percent / 100, 1.0)
        return found

    def __enter__(self) -> Self:
        self.load.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.load.__exit__(*exc)


def start_server(plan: ScalePlan, subject: Subject) -> Server:
    arm, point = ARMS[subject.entry], subject.cell
    cpus = server_cpus(plan.pinning) if point.workers > 1 else plan.pinning.server_cpu
    return Server(
        arm,
        usual_mode(arm),
        cpu=cpus,
        bulk=point.is_bulk,
        malloc=plan.malloc,
        workers=point.workers,
    )


def connect_load(plan: ScalePlan, stop_fd: int, server: Server, subject: Subject) -> PointLoad:
    point = subject.cell
    load = Load(
        server.address,
        point.connections,
        point.size_bytes,
        stop_fd=stop_fd,
        stall_s=plan.stall_s + point.connections / CONNECTIONS_PER_STALL_S,
        # Connections that end in order leave their ports in TIME_WAIT, and there are many.
        reset_on_close=True,
    )
    return PointLoad(load, point, plan.duration_s)


# ---- rows -------------------------------------------------------------------------------------


def _row(run: Run, point: Point, arm: str) -> Row:
    row: Row = {
        "axis": point.axis,
        "value": point.value,
        "cell": str(point),
        "connections": point.connections,
        "size_bytes": point.size_bytes,
        "workers": point.workers,
        "percent": point.percent or None,
        "arm": arm,
        "mode": usual_mode(ARMS[arm]),
        "fault": run.faults.get(Subject(point, arm)),
        "rounds": 0,
    }
    samples = list(samples_of(run, point, arm).values())
    return row | figures(samples, point.size_bytes) if samples else row


def slopes(rows: Sequence[Row]) -> list[Facts]:
    """Of each arm along each axis, where there are two points at least."""
    found = []
    for axis in distinct(rows, "axis"):
        for arm in distinct(rows, "arm"):
            here = [row for row in rows if (row["axis"], row["arm"]) == (axis, arm)]
            points = [(row["value"], row["cpu_us"]["median"]) for row in here if row["rounds"]]
            if slope := AXES[axis].slope(points):
                found.append({"axis": axis, "arm": arm, "text": slope.text} | asdict(slope))
    return found


# ---- to look at -------------------------------------------------------------------------------


def quantity_of(row: Row, name: str) -> float:
    """One of QUANTITIES."""
    if name == "cost":
        return float(row["cpu_us"]["median"])
    return float(row["latency_us"]["p99"] if name == "p99" else row["requests_per_s"]["median"])


def _slope_figure(document: Document, axis: str, arm: str) -> Figure:
    for slope in document["slopes"]:
        if (slope["axis"], slope["arm"]) == (axis, arm):
            return Figure(slope["text"], f"R² {round(slope['r2'], 2):g}", tone="key")
    return Figure("–")


def axis_table(document: Document, axis: str) -> Table:
    """A line for each arm, a column for each point, and the slope."""
    rows = [row for row in document["rows"] if row["axis"] == axis]
    values = distinct(rows, "value")
    lines = []
    for arm in distinct(rows, "arm"):
        here = {row["value"]: row for row in rows if row["arm"] == arm}
        costs = [
            Figure(number(row["cpu_us"]["median"]))
            if (row := here.get(value)) and row["rounds"]
            else Figure("–")
            for value in values
        ]
        figures = [*costs, _slope_figure(document, axis, arm)]
        lines.append(Line(arm, figures, own=is_own(arm)))
    head = ["server CPU, µs", *(AXES[axis].text(value) for value in values), "slope"]
    return Table(head, [Group("", lines)], f"{axis}: {AXES[axis].title}")


def axis_chart(document: Document, axis: str, is_small: bool = False) -> Lines:
    """is_small: a chart for each arm."""
    rows = [row for row in measured(document) if row["axis"] == axis]
    lines = [
        LineOf(
            arm,
            [(row["value"], quantity_of(row, name)) for row in rows if row["arm"] == arm],
            {"quantity": name},
        )
        for arm in distinct(rows, "arm")
        for name in QUANTITIES
    ]
    one = AXES[axis]
    kind = Multiples if is_small else Lines
    identity = f"each-{axis}" if is_small else f"scale-{axis}"
    title = f"{axis}, each arm before the others:" if is_small else f"{axis}:"
    return kind(identity, title, lines, one.title, one.x_unit, is_log_x=one.is_log_x)


LEGEND = (
    "Server CPU per request, µs, the median of the rounds. slope: how it changes, by least "
    "squares; R² is 1 where the points lie on the line. A factor below 1 is a server that gets "
    "cheaper."
)


class Scale(Kind):
    name = "scale"
    help = "how the cost of a request changes with connections, size, workers and load"
    description = (
        "Measures echo servers along four axes, one at a time: connections, message size, workers "
        "of netpoll.Server, and the part of the full rate that is offered. States a slope per arm."
    )
    title = "How the cost of a request scales"
    method = """
One thing is varied at a time: the number of connections, with a message of 64 B each; the size of
the message; the workers of netpoll.Server, each on a core of its own and with 64 connections; and
the load, as a part of the server's full rate. All else is as in `bench echo`: each measurement is a
server of its own on one core, the load in C on another, arms interleaved over the rounds.

The slope of an arm is that of a straight line through its points, by least squares. Along
connections and workers it is a line through logarithms, so it is a factor, per tenfold or per
doubling; along size and load it is an amount. Where a cost does not follow a line, R² says so.

A point of the load is a window of an open loop: requests are due at a steady rate, a part of what
the same process has answered in a closed loop just before, and latencies count from when they were
due.
"""
    arms = ARMS
    default_arms = (
        *("netpoll-uring", "netpoll-epoll", "server-uring", "server-epoll"),
        *("asyncio", AGAIN, "uvloop", "floor-epoll", "floor-uring"),
    )
    is_in_all = False
    has_latencies = True

    # ---- before the run

    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        parser.add_argument(
            "--axes",
            type=list_of(one_of(AXES, "axis"), "axis"),
            default=tuple(AXES),
            metavar="A,B",
            help=f"default: {', '.join(AXES)}",
        )
        parser.add_argument(
            "--max-connections",
            type=number_in(1, MAX_CONNECTIONS),
            default=MOST_CONNECTIONS,
            metavar="N",
            help=f"in powers of ten up to so many; default: {MOST_CONNECTIONS}, at most "
            f"{MAX_CONNECTIONS}",
        )
        parser.add_argument(
            "--sizes",
            type=list_of(parse_size, "size"),
            default=AXES["size"].values,
            metavar="S,...",
            help="default: 64 B to 256 KiB",
        )
        parser.add_argument(
            "--workers",
            type=list_of(number_in(1, 256), "number"),
            metavar="N,...",
            help="default: powers of two, up to the cores beside that of the load",
        )
        parser.add_argument(
            "--loads",
            type=list_of(number_in(1, 99, float, " per cent"), "load"),
            default=AXES["load"].values,
            metavar="P,...",
            help="per cent of the full rate; default: 10,30,50,70,90",
        )
        for name, default in (("duration", USUAL_WINDOW_S), ("warmup", WARMUP_S)):
            parser.add_argument(
                f"--{name}-s",
                type=number_in(0.01, 3600, float, " seconds"),
                metavar="S",
                help=f"of a measurement; default: {default:g}",
            )

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        return check_arms(ARMS[name] for name in arms)

    def plan(self, options: argparse.Namespace, terms: Terms) -> ScalePlan:
        cores = len(server_cpus(terms.pinning))
        values: dict[str, Sequence[float]] = {
            "connections": [10**n for n in range(7) if 10**n <= options.max_connections],
            "size": options.sizes,
            "workers": options.workers or [n for n in AXES["workers"].values if n <= cores],
            "load": options.loads,
        }
        points = [AXES[axis].point(value) for axis in options.axes for value in values[axis]]
        skipped = {str(p): why for p in points if (why := why_no_connections(p.connections))}
        if "workers" in options.axes and len(values["workers"]) < 2:
            skipped["workers"] = f"there is {counted(cores, 'core')} beside that of the load"
        cells = tuple(p for p in points if str(p) not in skipped and p.axis not in skipped)
        if not cells:
            raise UsageError("; ".join(f"{what}: {why}" for what, why in skipped.items()))
        plan = ScalePlan(
            **vars(terms),
            cells=cells,
            duration_s=options.duration_s or USUAL_WINDOW_S,
            warmup_s=options.warmup_s or WARMUP_S,
            stall_s=STALL_S,
            malloc="all",
            skipped=skipped,
        )
        if options.quick:
            return fitted(plan, options.duration_s, options.warmup_s)
        return plan

    def size(self, plan: ScalePlan) -> str:
        servers = counted(len(plan.arms), "server")
        return f"{plan.count} measurements: {servers}, {counted(len(plan.cells), 'point')}"

    @contextmanager
    def measuring(self, plan: ScalePlan, watch: Watch) -> Iterator[Measure]:
        raise_fd_limit(max(point.connections for point in plan.cells) + SPARE_FDS)
        servers = Servers(
            plan,
            start=functools.partial(start_server, plan),
            load=functools.partial(connect_load, plan, watch.fd),
            shared_by=lambda subject: (
                subject.entry,
                subject.cell.is_bulk,
                subject.cell.workers,
            ),
        )
        with no_garbage_collection(), on_cpu(plan.pinning.load_cpu), servers:
            yield servers.measure

    # ---- the document

    def settings(self, plan: ScalePlan) -> Facts:
        return {
            "axes": distinct([asdict(point) for point in plan.cells], "axis"),
            "skipped": plan.skipped,
            "rounds": plan.rounds,
            "duration_s": plan.duration_s,
            "warmup_s": plan.warmup_s,
            "fresh_server_per_measurement": plan.fresh,
            "malloc": plan.malloc,
        }

    def rows(self, run: Run) -> list[Row]:
        plan = run.plan
        return [
            _row(run, point, arm) for point in plan.cells for arm in plan.arms if can(arm, point)
        ]

    def more(self, run: Run) -> Facts:
        """The slopes, and every window."""
        return {
            "slopes": slopes(self.rows(run)),
            "samples": [
                {"cell": str(point), "arm": arm} | sample_dict(sample)
                for point in run.plan.cells
                for arm in run.plan.arms
                for sample in samples_of(run, point, arm).values()
            ],
        }

    # ---- to look at

    def tables(self, document: Document, wide: bool) -> list[Table]:
        return [axis_table(document, axis) for axis in document["settings"]["axes"]]

    def _skipped(self, document: Document) -> list[str]:
        return [f"skipped: {what}: {why}." for what, why in document["settings"]["skipped"].items()]

    def notes(self, document: Document, wide: bool) -> list[str]:
        notes = [how_measured(document["settings"], "arms"), "", LEGEND]
        return [*notes, malloc_note(document), *self._skipped(document)]

    def section(self, document: Document) -> list[Block]:
        blocks: list[Block] = [Choice("quantity", list(QUANTITIES), QUANTITIES)]
        for axis in document["settings"]["axes"]:
            blocks += [axis_chart(document, axis), axis_table(document, axis)]
            blocks.append(axis_chart(document, axis, is_small=True))
        notes = [LEGEND, *self._skipped(document)]
        return [Heading("Scaling curves"), *blocks, *(Note(note) for note in notes)]


KIND = Scale()
