"""``bench verify``: the harness's figures against those of loads that others wrote.

A subject is a server. One measurement asks the same process twice, with the harness's load and with
the other one, in windows of one length; which of them comes first changes from round to round. The
CPU time of both is read by the same clock, so what is set against each other is the load: whether
it keeps the server as busy, asks for the same work, and counts what was answered.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from netpoll.bench import httpworks
from netpoll.bench._native import HttpLoad, Load
from netpoll.bench.answers import HELLO, HELLO_PATH, write_files
from netpoll.bench.arguments import number_in
from netpoll.bench.arms import ARMS
from netpoll.bench.blocks import (
    Bar,
    Bars,
    Block,
    Column,
    Figure,
    Group,
    Heading,
    Note,
    Table,
    counted,
    line_of,
    number,
    rate,
    ratio,
)
from netpoll.bench.cores import on_cpu
from netpoll.bench.errors import ServerError
from netpoll.bench.httparms import HTTP_ARMS
from netpoll.bench.kind import Kind, Terms, measured
from netpoll.bench.otherloads import (
    CLOSED_LOOP,
    WRK,
    ClosedLoop,
    Wrk,
    compiled,
    why_no_closed_loop,
    why_no_wrk,
)
from netpoll.bench.process import Program, Server, check_arms, check_commands, raise_fd_limit
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.rounds import Measure, Plan, Run, no_garbage_collection
from netpoll.bench.stats import Sample, Spread, paired_ratio
from netpoll.bench.watch import Watch
from netpoll.bench.windows import measure, sample_dict

__all__ = ["AGREES", "DIFFERS", "KIND", "OF_LOAD", "TOLERANCE_PERCENT", "judged"]

OURS = "harness"
ECHO_MODE = "protocol"
HELLO_WORK = "hello"

# Two loads agree when the medians of the rounds' ratios are no further apart.
TOLERANCE_PERCENT = 10.0
# A server that waits for a part of the time is asked for less than it can do: the rate is then the
# load's, or that of whoever else has the core.
BUSY_MIN = 0.9

AGREES, DIFFERS, OF_LOAD = "agrees", "differs", "the load's"
TONES = {AGREES: "good", DIFFERS: "bad", OF_LOAD: ""}

WINDOW_S, WARMUP_S = 1, 0.3
START_S, START_TIMEOUT_S = 0.6, 30.0
SPARE_FDS = 200

BOTH_ARMS: dict[str, Any] = {**ARMS, **HTTP_ARMS}
NO_CONTROLS: dict[str, str] = {}  # a row of an arm is two loads already

Pair = dict[str, Sample]


@dataclass(frozen=True, kw_only=True)
class VerifyPlan(Plan):
    connections: int
    size_bytes: int
    duration_s: int
    warmup_s: float = WARMUP_S
    malloc: str = "all"

    @property
    def measurement_s(self) -> float:
        return START_S + 2 * (self.duration_s + self.warmup_s)


def other_load(arm: str) -> str:
    """What an arm is asked by, beside the harness."""
    return CLOSED_LOOP if arm in ARMS else WRK


# ---- the run ----------------------------------------------------------------------------------


def hello_of_wrk(address: tuple[str, int]) -> httpworks.Exchange:
    """The request that wrk sends, byte by byte, and its answer."""
    host, port = address
    return f"GET {HELLO_PATH} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode(), HELLO


@dataclass(frozen=True)
class Verifying:
    """One run: its plan, the program of the closed loop, the folder that servers read."""

    plan: VerifyPlan
    stop_fd: int
    program: Path | None
    folder: Path

    def echo(self, arm: str, stack: ExitStack) -> tuple[Any, dict[str, Any]]:
        """A server, and the loads that are connected to it."""
        plan = self.plan
        mode = ECHO_MODE if ECHO_MODE in ARMS[arm].modes else ARMS[arm].modes[0]
        cpu = plan.pinning.server_cpu
        server = stack.enter_context(Server(ARMS[arm], mode, cpu=cpu, malloc=plan.malloc))
        assert isinstance(server.address, tuple)
        assert self.program is not None, "an arm whose other load is missing is skipped"
        ours = Load(server.address, plan.connections, plan.size_bytes, stop_fd=self.stop_fd)
        other = ClosedLoop(self.program, server.address, plan.connections, plan.size_bytes)
        return server, {OURS: stack.enter_context(ours), CLOSED_LOOP: stack.enter_context(other)}

    def http(self, arm: str, stack: ExitStack) -> tuple[Any, dict[str, Any]]:
        plan = self.plan
        command = HTTP_ARMS[arm].serving(httpworks.WORKS[HELLO_WORK], self.folder)
        cpu, malloc = plan.pinning.server_cpu, plan.malloc
        program = Program(command, cpu=cpu, malloc=malloc, timeout_s=START_TIMEOUT_S)
        server = stack.enter_context(program)
        exchanges = [hello_of_wrk(server.address)]
        ours = HttpLoad(server.address, plan.connections, exchanges, stop_fd=self.stop_fd)
        other = Wrk(server.address, plan.connections, HELLO_PATH)
        return server, {OURS: stack.enter_context(ours), WRK: other}

    def measure(self, arm: str, round_number: int) -> Pair:
        """Both loads against one server. Raises ServerError or OSError."""
        with ExitStack() as stack:
            server, loads = (self.echo if arm in ARMS else self.http)(arm, stack)
            names = sorted(loads, reverse=bool(round_number % 2))
            samples = {}
            for name in names:
                loads[OURS].run(self.plan.warmup_s)
                samples[name] = measure(server, loads[name], self.plan.duration_s, round_number)
                if not samples[name].requests:
                    raise ServerError(f"{name}: no request was answered within the window")
        return samples


# ---- rows -------------------------------------------------------------------------------------


def judged(found: float | None, busy: Mapping[str, float] | None = None) -> str:
    """What a ratio of the two loads says. `busy`: of a rate, how busy each kept the server."""
    assert found is not None, "two loads in one round have a ratio"
    if abs(found - 1) * 100 <= TOLERANCE_PERCENT:
        return AGREES
    return OF_LOAD if busy and min(busy.values()) < BUSY_MIN else DIFFERS


def _set_against(values: Mapping[str, Mapping[int, float]], other: str) -> Facts:
    """A quantity with both loads: their spreads, and the ratio of the rounds."""
    return {
        "harness": Spread.of(values[OURS].values()).as_dict(),
        "other": Spread.of(values[other].values()).as_dict(),
        "ratio": paired_ratio(values[OURS], values[other]),
    }


def _row(run: Run, arm: str) -> Row:
    pairs: Mapping[int, Pair] = run.samples.get(arm, {})
    other = other_load(arm)
    row: Row = {
        "arm": arm,
        "mode": "-",
        "other_load": other,
        "fault": run.faults.get(arm),
        "rounds": len(pairs),
    }
    if not pairs:
        return row

    def by_load(figure: str) -> dict[str, dict[int, float]]:
        return {
            load: {number: getattr(pair[load], figure) for number, pair in pairs.items()}
            for load in (OURS, other)
        }

    busy = {load: median(each.values()) for load, each in by_load("server_busy").items()}
    rates = _set_against(by_load("requests_per_s"), other)
    costs = _set_against(by_load("cpu_us"), other)
    return row | {
        "requests_per_s": rates | {"verdict": judged(rates["ratio"], busy)},
        "cpu_us": costs | {"verdict": judged(costs["ratio"])},
        "cpu_us_by_round": list(by_load("cpu_us")[OURS].values()),
        "server_busy": {"harness": busy[OURS], "other": busy[other]},
    }


# ---- columns ----------------------------------------------------------------------------------


def _verdict(row: Row, key: str) -> Figure:
    word = row[key]["verdict"]
    return Figure(ratio(row[key]["ratio"]), word, tone=TONES[word])


def _both(key: str, text: Callable[[float], str]) -> Callable[[Row], Figure]:
    """The harness's median, and beside it the other load's."""

    def figure(row: Row) -> Figure:
        return Figure(text(row[key]["harness"]["median"]), text(row[key]["other"]["median"]))

    return figure


COLUMNS = (
    Column("against", lambda row: Figure(row["other_load"])),
    Column("req/s, its", _both("requests_per_s", rate)),
    Column("ratio", lambda row: _verdict(row, "requests_per_s")),
    Column("CPU, its", _both("cpu_us", number)),
    Column("ratio", lambda row: _verdict(row, "cpu_us")),
    Column("busy", lambda row: Figure(f"{min(row['server_busy'].values()):.0%}")),
)

LEGEND = (
    "The same server under the harness's load and under the other one: requests per second, and "
    "server CPU per request. ratio: the harness's to the other's, the median of the rounds; they "
    f"agree within {TOLERANCE_PERCENT:g} %. busy: the part of the time in which the server ran, "
    f"under the load that kept it less busy; below {BUSY_MIN:.0%} rates may differ: they are the "
    "load's then."
)


class Verify(Kind):
    name = "verify"
    help = "the harness's figures against wrk, and against another closed loop in C"
    description = (
        "Measures servers with the harness's load and with another one in turns: HTTP with wrk, "
        "echo with a closed loop in C that shares no code with the harness. Exit code 1 when a "
        f"rate or the CPU per request is more than {TOLERANCE_PERCENT:g} % apart."
    )
    title = "The harness against other loads"
    method = """
Each server is asked twice in each round, by the harness's load and by another one: HTTP by wrk with
one thread, which sends the same bytes, and echo by a closed loop in C that shares no code with the
harness and is compiled for the run. Both have as many connections, run on the same core, and in
windows of one length; which of the two comes first changes from round to round. The server is the
same process for both, so that the load is all that differs.

The server's CPU time is read around each window, and requests are counted by whoever asked. wrk's
window has its connections' beginning and end in it.
"""
    arms = BOTH_ARMS
    default_arms = (
        *("asyncio", "netpoll-epoll", "netpoll-uring"),
        *("uvicorn-asyncio", "netpoll-asgi-epoll", "netpoll-asgi-uring"),
    )
    controls = NO_CONTROLS
    is_in_all = False

    # ---- before the run

    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        parser.add_argument(
            "--connections",
            type=number_in(1, 10_000),
            default=64,
            metavar="N",
            help="that each load has; default: 64",
        )
        parser.add_argument(
            "--size-bytes",
            type=number_in(1, 1 << 20),
            default=64,
            metavar="N",
            help="of a message of echo; default: 64",
        )
        parser.add_argument(
            "--duration-s",
            type=number_in(1, 60),
            default=WINDOW_S,
            metavar="S",
            help=f"length of a window, whole seconds, which wrk wants; default: {WINDOW_S}",
        )

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        facts = check_arms(ARMS[name] for name in arms if name in ARMS)
        facts |= check_commands(HTTP_ARMS[name] for name in arms if name in HTTP_ARMS)
        reasons = {CLOSED_LOOP: why_no_closed_loop(), WRK: why_no_wrk()}
        for name in arms:
            if reason := reasons[other_load(name)]:
                facts[name] = {"unavailable": reason}
        return {name: facts[name] for name in arms}

    def plan(self, options: argparse.Namespace, terms: Terms) -> VerifyPlan:
        return VerifyPlan(
            **vars(terms),
            connections=options.connections,
            size_bytes=options.size_bytes,
            duration_s=options.duration_s,
        )

    def size(self, plan: VerifyPlan) -> str:
        return f"{counted(len(plan.arms), 'server')}, each with two loads"

    @contextmanager
    def measuring(self, plan: VerifyPlan, watch: Watch) -> Iterator[Measure]:
        raise_fd_limit(plan.connections + SPARE_FDS)
        program: AbstractContextManager[Path | None] = nullcontext()
        if any(arm in ARMS for arm in plan.arms):
            program = compiled()
        with program as path, tempfile.TemporaryDirectory(prefix="netpoll-bench-") as name:
            write_files(Path(name))
            verifying = Verifying(plan, watch.fd, path, Path(name))
            with no_garbage_collection(), on_cpu(plan.pinning.load_cpu):
                yield verifying.measure

    # ---- the document

    def settings(self, plan: VerifyPlan) -> Facts:
        return {
            "rounds": plan.rounds,
            "connections": plan.connections,
            "size_bytes": plan.size_bytes,
            "duration_s": plan.duration_s,
            "warmup_s": plan.warmup_s,
            "tolerance_percent": TOLERANCE_PERCENT,
        }

    def rows(self, run: Run) -> list[Row]:
        return [_row(run, arm) for arm in run.plan.arms]

    def more(self, run: Run) -> Facts:
        """Every window."""
        return {
            "samples": [
                {"arm": arm, "load": load} | sample_dict(sample)
                for arm in run.plan.arms
                for pair in run.samples.get(arm, {}).values()
                for load, sample in pair.items()
            ]
        }

    def wrong(self, document: Document) -> list[str]:
        rows = measured(document)
        if rows and all(row["requests_per_s"]["verdict"] == OF_LOAD for row in rows):
            return ["no rate can be judged: no server was busy all the time."]
        return [
            f"differs: {row['arm']}: {words} is {row[key]['ratio']:.2f} of what {row['other_load']}"
            " finds."
            for row in rows
            for key, words in (
                ("requests_per_s", "the rate"),
                ("cpu_us", "server CPU per request"),
            )
            if row[key]["verdict"] == DIFFERS
        ]

    # ---- to look at

    def tables(self, document: Document, wide: bool) -> list[Table]:
        lines = [line_of(row, COLUMNS) for row in document["rows"]]
        head = ["server", *(column.title for column in COLUMNS)]
        return [Table(head, [Group("", lines)], self.title)]

    def notes(self, document: Document, wide: bool) -> list[str]:
        settings = document["settings"]
        rounds = counted(settings["rounds"], "round")
        connections = counted(settings["connections"], "connection")
        what = f"echo of {settings['size_bytes']} B, HTTP of {len(HELLO)} B"
        lasted = f"windows of {settings['duration_s']} s"
        return [f"{rounds}, {lasted}, {connections}; {what}.", LEGEND]

    def section(self, document: Document) -> list[Block]:
        bars = [
            Bar(f"{row['arm']}, {load}", (row["cpu_us"][key]["median"],))
            for row in measured(document)
            for key, load in (("harness", OURS), ("other", row["other_load"]))
        ]
        return [
            Heading("Figures"),
            *self.tables(document, True),
            Note(LEGEND),
            Heading("Charts"),
            Bars("cpu", "Server CPU per request, µs, by each load.", bars, unit="µs"),
        ]


KIND = Verify()
