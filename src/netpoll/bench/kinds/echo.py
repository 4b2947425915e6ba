"""``bench echo``: servers as children on one core, the load on another, arms interleaved.

A round measures every cell with every entry (an arm in a mode) once, in an order that begins at
another entry in each round. One measurement is: a server (a fresh process), the connections, a
warm-up, then a window in which requests, latencies and the server's CPU time are counted. Between
warm-up and window, and after it, nothing is in flight, so the CPU time is that of exactly the
requests counted with it.
"""

from __future__ import annotations

import argparse
import functools
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from netpoll.bench import openloop, tls
from netpoll.bench._native import Load
from netpoll.bench.arms import (
    ARMS,
    DEFAULT_ARMS,
    PEER_ARMS,
    TLS_MODE,
    UDP_MODE,
    SocketArm,
    is_own,
    loop_guest,
)
from netpoll.bench.blocks import (
    Bar,
    Bars,
    Block,
    Choice,
    Column,
    Figure,
    Group,
    Heading,
    Line,
    Note,
    Table,
    counted,
    judged,
    line_of,
    number,
)
from netpoll.bench.cells import (
    MALLOC_CHOICES,
    MAX_DATAGRAM_BYTES,
    MODE_TITLES,
    SCENARIOS,
    Cell,
    Entry,
    add_load_options,
    chosen_cells,
    chosen_modes,
    entries,
)
from netpoll.bench.cores import on_cpu
from netpoll.bench.document import malloc_note
from netpoll.bench.errors import UsageError
from netpoll.bench.hosts import HERE, Hosts, RemoteLoad, RemoteServer
from netpoll.bench.kind import Kind, Terms, distinct, measured
from netpoll.bench.loaded import (
    USUAL_WINDOW_S,
    WARMUP_S,
    LoadPlan,
    Servers,
    Subject,
    calls_of,
    cpu_ratio,
    fitted,
    samples_of,
)
from netpoll.bench.process import Program, Server, check_arms, raise_fd_limit
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.rounds import Measure, Run, no_garbage_collection
from netpoll.bench.syscalls import SyscallCounter
from netpoll.bench.watch import Watch
from netpoll.bench.windows import (
    COST_LEGEND,
    Columns,
    bar_of,
    cost_chart,
    cost_key,
    cost_with_bar,
    curve_of,
    disturbed_rounds,
    figures,
    how_measured,
    latency_chart,
    overview_figure,
    sample_dict,
    versus,
)

__all__ = ["KIND", "EchoPlan"]

SPARE_FDS = 200
BULK_FROM_BYTES = 64 << 10  # from here on, the chart of rates is in MB/s


@dataclass(frozen=True, kw_only=True)
class EchoPlan(LoadPlan):
    modes: tuple[str, ...]

    @property
    def entries(self) -> list[Entry]:
        return entries(self.arms, self.modes)


AnyServer = Server | Program | RemoteServer


def start_server(plan: EchoPlan, hosts: Hosts, subject: Subject) -> AnyServer:
    arm = ARMS[subject.entry.arm]
    if hosts.server:
        return RemoteServer(
            hosts.server,
            arm=arm.name,
            mode=subject.entry.mode,
            bulk=subject.cell.is_bulk,
            malloc=plan.malloc,
        )
    if arm.command:
        return Program(arm.program(), cpu=plan.pinning.server_cpu, malloc=plan.malloc)
    return Server(
        arm,
        subject.entry.mode,
        cpu=plan.pinning.server_cpu,
        bulk=subject.cell.is_bulk,
        listen=hosts.listen,
        malloc=plan.malloc,
    )


def connect_load(
    plan: EchoPlan, hosts: Hosts, stop_fd: int, server: AnyServer, subject: Subject
) -> Load | RemoteLoad:
    cell, mode = subject.cell, subject.entry.mode
    if hosts.load:
        return RemoteLoad(
            hosts.load,
            stop_fd,
            address=server.address,
            connections=cell.connections,
            size_bytes=cell.size_bytes,
            stall_s=plan.stall_s,
            datagrams=mode == UDP_MODE,
            tls=mode == TLS_MODE,
        )
    return Load(
        server.address,
        cell.connections,
        cell.size_bytes,
        stop_fd=stop_fd,
        stall_s=plan.stall_s,
        datagrams=mode == UDP_MODE,
        tls_library=tls.openssl_path() if mode == TLS_MODE else None,
    )


# ---- rows -------------------------------------------------------------------------------------


def floor_of(interface: str, entry: Entry) -> Entry:
    """The floor on this interface that does what the entry does."""
    return Entry(f"floor-{interface}", UDP_MODE if entry.mode == UDP_MODE else "-")


def _in_mode(run: Run, cell: Cell, entry: Entry, arm: str) -> Entry | None:
    """`arm` in the same mode; for what has no modes, in the first one that was measured."""
    modes = (entry.mode,) if entry.mode != "-" else run.plan.modes
    found = (Entry(arm, mode) for mode in modes)
    return next((other for other in found if samples_of(run, cell, other)), None)


def _row(run: Run, cell: Cell, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "connections": cell.connections,
        "size_bytes": cell.size_bytes,
        "cell": str(cell),
        "arm": entry.arm,
        "mode": entry.mode,
        "fault": run.faults.get(Subject(cell, entry)),
        "rounds": 0,
    }
    samples = list(samples_of(run, cell, entry).values())
    if not samples:
        return row
    control = _in_mode(run, cell, entry, "asyncio")
    ratios = {
        "cpu_vs_asyncio": control,
        "cpu_vs_uvloop": _in_mode(run, cell, entry, "uvloop"),
        "cpu_vs_floor_epoll": floor_of("epoll", entry),
        "cpu_vs_floor_uring": floor_of("uring", entry),
    }
    row |= figures(samples, cell.size_bytes)
    row |= {key: to and cpu_ratio(run, cell, entry, to) for key, to in ratios.items()}
    # With a thread per connection the threads keep each other waiting: that is no disturbance.
    alone = entry.arm != "sockets-threads"
    return row | {
        "cpu_vs_asyncio_mode": control.mode if control else None,
        # Of datagrams there is one floor only.
        "near_floor": "epoll" if entry.mode == UDP_MODE else ARMS[entry.arm].interface,
        "disturbed_rounds": disturbed_rounds(samples) if alone else 0,
        "syscalls_per_request": calls_of(run, cell, entry),
    }


# ---- columns ----------------------------------------------------------------------------------


def _near_floor(row: Row) -> Figure:
    """The ratio to the floor of the arm's own kernel interface, else to the other; and its letter
    ("u" for io_uring, "e" for epoll)."""
    near = row["near_floor"]
    for interface in (near, "epoll" if near == "uring" else "uring"):
        if (value := row[f"cpu_vs_floor_{interface}"]) is not None:
            return judged(value, f" {interface[0]}")
    return judged(None)


def _counted_calls(title: str, name: str) -> Column:
    return Column(title, lambda row: Figure(number((row["syscalls_per_request"] or {}).get(name))))


C = Columns
VERSUS_ASYNCIO = versus("×aio", "cpu_vs_asyncio")
NEAR_FLOOR = Column("×floor", _near_floor)
NARROW = (C.RATE, C.MB, C.P50, C.P99, C.CPU, C.SPREAD, VERSUS_ASYNCIO, NEAR_FLOOR)
WIDE = (*C.WIDE, VERSUS_ASYNCIO, versus("×uvl", "cpu_vs_uvloop"), NEAR_FLOOR)
CALLS = (_counted_calls("calls", "all"), _counted_calls("enters", "io_uring_enter"))
OF_PAGE = (
    *C.PAGE_COSTS,
    *(versus("× asyncio", "cpu_vs_asyncio"), versus("× uvloop", "cpu_vs_uvloop")),
    versus("× floor-epoll", "cpu_vs_floor_epoll"),
    versus("× floor-uring", "cpu_vs_floor_uring"),
    *C.PAGE_RATES,
)
CALLS_OF_PAGE = (
    Column("calls/req", CALLS[0].figure),
    Column("enters/req", CALLS[1].figure),
)

LEGEND = (
    f"{COST_LEGEND} ×aio, ×uvl, ×floor: CPU against asyncio and uvloop in the same mode and "
    "against the floor in C (u: io_uring, e: epoll), medians of the ratios round by round. MB/s: "
    "each byte counted once, though it goes both ways."
)


def _groups(rows: Sequence[Row], columns: Sequence[Column]) -> list[Group]:
    """Mode by mode; the cheapest first, failures last."""
    by_cost = sorted(rows, key=cost_key)
    return [
        Group(MODE_TITLES[mode], [line_of(r, columns) for r in by_cost if r["mode"] == mode])
        for mode in distinct(rows, "mode")
    ]


def _by_cell(document: Document) -> Iterator[tuple[str, list[Row], bool]]:
    """Each cell where somebody was measured, its rows, and whether system calls were counted."""
    rows = document["rows"]
    for cell in distinct(rows, "cell"):
        here = [row for row in rows if row["cell"] == cell]
        if any(row["rounds"] for row in here):
            yield cell, here, any(row.get("syscalls_per_request") for row in here)


def _footnotes(document: Document) -> list[str]:
    """What the tables do not say by themselves."""
    notes = [openloop.footnote(document["settings"])]
    if note := malloc_note(document):
        notes.append(note)
    if any(row.get("disturbed_rounds") for row in document["rows"]):
        notes.append("! something else ran on the server's core for a part of the time.")
    if any(row["mode"] == "-" for row in document["rows"]):
        notes.append("What has no modes is set against asyncio's first one here.")
    if counter := document["settings"]["syscall_counter"]:
        notes.append(
            "calls, enters: system calls and io_uring_enter per request, counted with "
            f"{counter} in runs of their own."
        )
    return notes


# ---- the page ---------------------------------------------------------------------------------


def _overview(rows: Sequence[Row]) -> Table:
    """All cells at once: CPU per request, shaded by the ratio to asyncio."""
    cells = distinct(rows, "cell")

    def line(arm: str, mode: str) -> Line:
        here = {r["cell"]: r for r in rows if (r["arm"], r["mode"]) == (arm, mode)}
        figures = [overview_figure(here.get(cell), "cpu_vs_asyncio") for cell in cells]
        return Line(arm, figures, own=is_own(arm))

    groups = []
    for mode in distinct(rows, "mode"):
        arms = distinct([row for row in rows if row["mode"] == mode], "arm")
        groups.append(Group(MODE_TITLES[mode], [line(arm, mode) for arm in arms]))
    caption = (
        "Server CPU per request, µs, and in small figures its ratio to asyncio in the same mode "
        "(green: less)."
    )
    return Table(["connections × message", *cells], groups, caption=caption)


def _page_table(cell: str, rows: Sequence[Row], with_calls: bool) -> Table:
    most_us = max(row["cpu_us"]["median"] for row in rows if row["rounds"])
    columns = [Column("CPU µs", cost_with_bar(most_us)), *OF_PAGE]
    columns += CALLS_OF_PAGE if with_calls else ()
    return Table(["arm", *(c.title for c in columns)], _groups(rows, columns), cell)


def _rate_chart(rows: Sequence[Row], is_bulk: bool) -> Bars:
    """Requests per second of small messages, MB of large ones."""
    key, unit = ("mb_per_s", "MB/s") if is_bulk else ("requests_per_s", "/s")
    bars = [
        Bar(row["arm"], (row[key]["median"],), where=_where(row))
        for row in rows
        if (row["size_bytes"] >= BULK_FROM_BYTES) == is_bulk
    ]
    title = "Rate, MB per second." if is_bulk else "Rate, requests per second."
    identity = "rate-bulk" if is_bulk else "rate"
    return Bars(identity, title, bars, "More is better.", unit, more_is_better=True)


def _where(row: Row) -> dict[str, str]:
    return {"cell": row["cell"], "mode": row["mode"]}


def _charts(rows: Sequence[Row]) -> list[Block]:
    modes = [mode for mode in distinct(rows, "mode") if mode != "-"] or ["-"]
    return [
        Choice("cell", distinct(rows, "cell")),
        Choice("mode", modes, MODE_TITLES),
        cost_chart([bar_of(row, _where(row)) for row in rows]),
        _rate_chart(rows, is_bulk=False),
        _rate_chart(rows, is_bulk=True),
        latency_chart([curve_of(row, _where(row)) for row in rows]),
        *openloop.curve_blocks(rows, _where),
    ]


# ---- the kind ---------------------------------------------------------------------------------


class Echo(Kind):
    name = "echo"
    help = "servers under load: requests per second, latency, server CPU per request"
    description = (
        "Measures echo servers: each arm a process of its own on one core, the load generator on "
        "another, arms interleaved over several rounds."
    )
    epilog = "Sizes are written 64, 1KiB, 64KiB, 1MiB. Scenarios: " + "; ".join(
        f"{name}: {', '.join(map(str, cells))}" for name, cells in SCENARIOS.items()
    )
    title = "Echo servers under load"
    method = """
Each server is a process of its own on one core, the load generator (C) on another. Each
connection sends one message, waits until the same bytes came back, and sends again: a closed loop,
so a slow answer delays the next question and the latencies are those of a saturated server, not of
a given rate. The answers are compared with what was sent.

Arms are interleaved: every round measures every cell with every arm once, each round beginning
at another arm. One measurement is a warm-up and a window; between the two, and after, nothing is in
flight, so that the CPU time read from the server's process clocks belongs to exactly the requests
counted. It holds user and system time of all its threads, and is the figure to trust: requests per
second also depend on the load's core. In loopback TCP the receiver's kernel work is partly done by
the sender, the load.

With --paced, --rate or --curve there is an open loop as well, in windows of its own: requests are
due at a steady rate, whether the server has answered the earlier ones or not, and a latency counts
from the moment at which its request was due.

Figures are medians over the rounds; a dot in the chart is one round. Ratios are medians of the
ratios round by round, so that what slows the whole machine for a while cancels out.
"""
    arms = ARMS
    default_arms = DEFAULT_ARMS
    peers = PEER_ARMS
    takes_guests = True
    takes_hosts = True
    has_latencies = True
    fills_limit = True
    loop_guest_help = "the factory takes no arguments"
    server_guest_help = "it sends back what it is sent, on that port of 127.0.0.1"

    # ---- before the run

    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        add_load_options(parser)
        openloop.add_options(parser, 0.0)
        parser.add_argument(
            "--malloc",
            choices=MALLOC_CHOICES,
            default="all",
            help="who runs with glibc settings that keep large reads off mmap; default: all",
        )
        parser.add_argument(
            "--syscalls",
            action="store_true",
            help="also count system calls per request (perf or strace, in runs of their own)",
        )

    def chosen_arms(self, options: argparse.Namespace) -> tuple[str, ...]:
        modes, cells = chosen_modes(options), chosen_cells(options)
        if modes == (UDP_MODE,) and max(cell.size_bytes for cell in cells) > MAX_DATAGRAM_BYTES:
            raise UsageError(f"a datagram of UDP has at most {MAX_DATAGRAM_BYTES} bytes")
        if self.hosts != HERE and (options.loop or options.server):
            raise UsageError("--loop and --server take part on this machine only")
        return tuple(name for name in super().chosen_arms(options) if entries([name], modes))

    def loop_guest(self, name: str, factory: str) -> SocketArm:
        return loop_guest(name, factory)

    def server_guest(self, name: str, command: tuple[str, ...]) -> SocketArm:
        return SocketArm(name, "program", shlex.join(command), udp=False, command=command)

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        if self.hosts.server:
            return self.hosts.check(arms)
        return check_arms(ARMS[name] for name in arms)

    def plan(self, options: argparse.Namespace, terms: Terms) -> EchoPlan:
        if self.hosts.server and options.syscalls:
            raise UsageError("system calls are counted where the servers are, not from here")
        plan = EchoPlan(
            **vars(terms),
            modes=chosen_modes(options),
            cells=chosen_cells(options),
            duration_s=options.duration_s or USUAL_WINDOW_S,
            warmup_s=WARMUP_S if options.warmup_s is None else options.warmup_s,
            malloc=options.malloc,
            pace=openloop.chosen(options),
            counter=SyscallCounter.find() if options.syscalls else None,
        )
        if options.quick:
            return fitted(plan, options.duration_s, options.warmup_s)
        return plan

    def size(self, plan: EchoPlan) -> str:
        servers = counted(len(plan.entries), "server")
        return f"{plan.count} measurements: {servers}, {counted(len(plan.cells), 'cell')}"

    @contextmanager
    def measuring(self, plan: EchoPlan, watch: Watch) -> Iterator[Measure]:
        raise_fd_limit(max(cell.connections for cell in plan.cells) + SPARE_FDS)
        servers = Servers(
            plan,
            start=functools.partial(start_server, plan, self.hosts),
            load=functools.partial(connect_load, plan, self.hosts, watch.fd),
            shared_by=lambda subject: (subject.entry, subject.cell.is_bulk),
        )
        with no_garbage_collection(), on_cpu(plan.pinning.load_cpu), servers:
            yield servers.measure

    # ---- the document

    def settings(self, plan: EchoPlan) -> Facts:
        return {
            "modes": plan.modes,
            "cells": [asdict(cell) | {"label": str(cell)} for cell in plan.cells],
            "rounds": plan.rounds,
            "duration_s": plan.duration_s,
            "warmup_s": plan.warmup_s,
            "fresh_server_per_measurement": plan.fresh,
            "malloc": plan.malloc,
            **plan.pace.facts(),
            "syscall_counter": plan.counter.name if plan.counter else None,
            **self.hosts.facts(),
        }

    def rows(self, run: Run) -> list[Row]:
        plan = run.plan
        return [_row(run, cell, entry) for cell in plan.cells for entry in plan.entries]

    def more(self, run: Run) -> Facts:
        """Every window."""
        return {
            "samples": [
                {"cell": str(cell), "arm": entry.arm, "mode": entry.mode} | sample_dict(sample)
                for cell in run.plan.cells
                for entry in run.plan.entries
                for sample in samples_of(run, cell, entry).values()
            ]
        }

    # ---- to look at

    def tables(self, document: Document, wide: bool) -> list[Table]:
        tables = []
        for cell, rows, with_calls in _by_cell(document):
            columns = (*(WIDE if wide else NARROW), *(CALLS if with_calls else ()))
            head = ["arm", *(column.title for column in columns)]
            title = f"{cell}  (connections × message)"
            tables.append(Table(head, _groups(rows, columns), title))
            tables += openloop.curve_table(rows, lambda row: str(Entry(row["arm"], row["mode"])))
        return tables

    def notes(self, document: Document, wide: bool) -> list[str]:
        notes = [how_measured(document["settings"], "arms"), "", LEGEND]
        if not wide:
            notes.append("More columns (p99.9, min, user, sys, ×uvl) fit into a wider terminal.")
        return notes + _footnotes(document)

    def section(self, document: Document) -> list[Block]:
        rows = measured(document)
        return [
            Heading("All cells"),
            _overview(rows),
            Heading("One cell"),
            *_charts(rows),
            Heading("Figures"),
            *(_page_table(*cell) for cell in _by_cell(document)),
            *(Note(note) for note in _footnotes(document)),
        ]


KIND = Echo()
