"""``bench http``: HTTP servers as programs on one core, the load on another, arms interleaved.

A cell is a work (`httpworks.py`), an entry an arm (`httparms.py`). One measurement is a server, the
connections, a warm-up, a window at full rate, whose CPU time is the cost of a request, and a second
one at a part of that rate, which the latencies are of.
"""

from __future__ import annotations

import argparse
import functools
import http.client
import ssl
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netpoll.bench import openloop, tls
from netpoll.bench._native import HttpLoad
from netpoll.bench.answers import HELLO_PATH, write_files
from netpoll.bench.arguments import list_of, number_in, one_of
from netpoll.bench.arms import is_own
from netpoll.bench.blocks import (
    Bar,
    Bars,
    Block,
    Choice,
    Column,
    Group,
    Heading,
    Line,
    Note,
    Table,
    counted,
    line_of,
)
from netpoll.bench.cores import on_cpu
from netpoll.bench.errors import UsageError
from netpoll.bench.httparms import (
    CERTIFICATE,
    HTTP_ARMS,
    INTERFACE_TITLES,
    KEY,
    PEERS,
    UVICORN_AGAIN,
    HttpArm,
    loop_guest,
    server_guest,
)
from netpoll.bench.httpworks import WORKS
from netpoll.bench.kind import Kind, Terms, distinct, measured
from netpoll.bench.loaded import (
    PartialPlan,
    Servers,
    Subject,
    cpu_ratio,
    fitted,
    samples_of,
)
from netpoll.bench.process import Program, check_commands, raise_fd_limit
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.rounds import Measure, Run, no_garbage_collection
from netpoll.bench.watch import Watch
from netpoll.bench.windows import (
    COST_LEGEND,
    Columns,
    bar_of,
    cost_chart,
    cost_key,
    cost_with_bar,
    curve_of,
    figures,
    how_measured,
    latency_chart,
    overview_figure,
    sample_dict,
    versus,
)

__all__ = ["KIND", "HttpPlan"]

CONNECTIONS = 64
PACED_PERCENT = 50.0
WINDOW_S = 0.25  # there are two of them, and five rounds
WARMUP_S = 0.5  # Node.js compiles what is called often
QUICK_WORKS = ("hello",)
START_S = 1.2  # a program, until it answers
START_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 2.0
SPARE_FDS = 200
CONTROLS = {
    "cpu_vs_floor": "floor",
    "cpu_vs_uvicorn_asyncio": "uvicorn-asyncio",
    "cpu_vs_uvicorn_uvloop": "uvicorn-uvloop",
}


# ---- the run ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class HttpPlan(PartialPlan):
    connections: int

    def is_able(self, subject: Any) -> bool:
        return HTTP_ARMS[subject.entry].can(WORKS[subject.cell])

    @property
    def measurement_s(self) -> float:
        return super().measurement_s + self.fresh * START_S

    @property
    def start_s(self) -> float:
        servers = {shared_by(step.subject) for step in self.steps()}
        return 0.0 if self.fresh else len(servers) * START_S


def shared_by(subject: Any) -> Hashable:
    """One server answers all works of one application."""
    work = WORKS[subject.cell]
    return subject.entry, work.app, work.is_tls


def answers(is_tls: bool, address: tuple[str, int]) -> bool:
    """Whether a server answers there, whatever it says."""
    connection: http.client.HTTPConnection
    if is_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            *address, timeout=ANSWER_TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(*address, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", HELLO_PATH)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def start_server(plan: HttpPlan, folder: Path, subject: Subject) -> Program:
    work = WORKS[subject.cell]
    return Program(
        HTTP_ARMS[subject.entry].serving(work, folder),
        cpu=plan.pinning.server_cpu,
        answers=functools.partial(answers, work.is_tls),
        timeout_s=START_TIMEOUT_S,
    )


def connect_load(
    plan: HttpPlan, stop_fd: int, file: bytes, server: Program, subject: Subject
) -> HttpLoad:
    work = WORKS[subject.cell]
    return HttpLoad(
        server.address,
        plan.connections,
        work.exchanges(file),
        depth=work.depth,
        upgrade=work.upgrade,
        stop_fd=stop_fd,
        stall_s=plan.stall_s,
        tls_library=tls.openssl_path() if work.is_tls else None,
    )


def write_certificate(folder: Path) -> None:
    """For 127.0.0.1. The key is in PKCS #8, which is all that granian reads."""
    import trustme
    from cryptography.hazmat.primitives import serialization as form

    certificate = trustme.CA().issue_cert("127.0.0.1")
    for blob in certificate.cert_chain_pems:
        with (folder / CERTIFICATE).open("ab") as file:
            file.write(blob.bytes())
    key = form.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (folder / KEY).write_bytes(pem)


# ---- rows -------------------------------------------------------------------------------------


def _row(run: Run, work: str, arm: str) -> Row:
    row: Row = {
        "work": work,
        "arm": arm,
        "mode": HTTP_ARMS[arm].interface,
        "fault": run.faults.get(Subject(work, arm)),
        "rounds": 0,
    }
    samples = list(samples_of(run, work, arm).values())
    if not samples:
        return row
    ratios = {key: cpu_ratio(run, work, arm, to) for key, to in CONTROLS.items()}
    return row | figures(samples, WORKS[work].size_bytes) | ratios


# ---- columns ----------------------------------------------------------------------------------


C = Columns
VERSUS_FLOOR = versus("×floor", "cpu_vs_floor")
VERSUS_UVLOOP = versus("×uvl", "cpu_vs_uvicorn_uvloop")
NARROW = (C.RATE, C.P50, C.P99, C.CPU, C.SPREAD, VERSUS_FLOOR, VERSUS_UVLOOP)
WIDE = (*C.WIDE, VERSUS_FLOOR, versus("×uvi", "cpu_vs_uvicorn_asyncio"), VERSUS_UVLOOP)
OF_PAGE = (
    *C.PAGE_COSTS,
    *(versus("× floor", "cpu_vs_floor"), versus("× uvicorn", "cpu_vs_uvicorn_asyncio")),
    versus("× uvicorn on uvloop", "cpu_vs_uvicorn_uvloop"),
    *C.PAGE_RATES,
)
LEGEND = (
    f"{COST_LEGEND} CPU counts all threads and processes of a server. ×floor, ×uvi, ×uvl: CPU "
    "against the server in C, and against uvicorn on asyncio and on uvloop: medians of the ratios "
    "round by round."
)


def _groups(rows: Sequence[Row], columns: Sequence[Column]) -> list[Group]:
    """Interface by interface; the cheapest first, failures last."""
    by_cost = sorted(rows, key=cost_key)
    return [
        Group(title, [line_of(row, columns) for row in by_cost if row["mode"] == mode])
        for mode, title in INTERFACE_TITLES.items()
        if any(row["mode"] == mode for row in rows)
    ]


def _by_work(document: Document) -> Iterator[tuple[str, list[Row]]]:
    """Each work in which somebody was measured, and its rows."""
    rows = document["rows"]
    for work in distinct(rows, "work"):
        here = [row for row in rows if row["work"] == work]
        if any(row["rounds"] for row in here):
            yield work, here


def _title(document: Document, work: str) -> str:
    connections = counted(document["settings"]["connections"], "connection")
    return f"{work}: {document['settings']['works'][work]}, {connections}"


def _footnotes(document: Document) -> list[str]:
    settings = document["settings"]
    skipped = [f"skipped: {work}: {why}." for work, why in settings["skipped"].items()]
    return [openloop.footnote(settings), *skipped]


# ---- the page ---------------------------------------------------------------------------------


def _overview(rows: Sequence[Row]) -> Table:
    """All works at once: CPU per request, shaded by the ratio to uvicorn on uvloop."""
    works = distinct(rows, "work")

    def line(arm: str) -> Line:
        here = {row["work"]: row for row in rows if row["arm"] == arm}
        figures = [overview_figure(here.get(work), "cpu_vs_uvicorn_uvloop") for work in works]
        return Line(arm, figures, own=is_own(arm))

    groups = []
    for mode in distinct(rows, "mode"):
        arms = distinct([row for row in rows if row["mode"] == mode], "arm")
        groups.append(Group(INTERFACE_TITLES[mode], [line(arm) for arm in arms]))
    caption = (
        "Server CPU per request, µs, and in small figures its ratio to uvicorn on uvloop (green: "
        "less)."
    )
    return Table(["server", *works], groups, caption=caption)


def _page_table(document: Document, work: str, rows: Sequence[Row]) -> Table:
    most_us = max(row["cpu_us"]["median"] for row in rows if row["rounds"])
    columns = [Column("CPU µs", cost_with_bar(most_us)), *OF_PAGE]
    head = ["server", *(column.title for column in columns)]
    return Table(head, _groups(rows, columns), _title(document, work))


def _charts(rows: Sequence[Row]) -> list[Block]:
    def where(row: Row) -> dict[str, str]:
        return {"work": row["work"]}

    rates = [Bar(row["arm"], (row["requests_per_s"]["median"],), where=where(row)) for row in rows]
    return [
        Choice("work", distinct(rows, "work")),
        cost_chart([bar_of(row, where(row)) for row in rows]),
        Bars(
            "rate",
            "Rate, requests per second.",
            rates,
            "More is better.",
            "/s",
            more_is_better=True,
        ),
        latency_chart([curve_of(row, where(row)) for row in rows]),
        *openloop.curve_blocks(rows, where),
    ]


# ---- the kind ---------------------------------------------------------------------------------


class Http(Kind):
    name = "http"
    help = "HTTP servers under load: server CPU per request, rate, latency"
    description = (
        "Measures HTTP servers, each a program of its own with one worker: netpoll.http, uvicorn "
        "on three loops, granian, hypercorn, gunicorn, fastpysgi, socketify, Node.js, and a floor "
        "in C. One that is not installed is skipped; `pip install netpoll[peers]` brings most."
    )
    epilog = "Works: " + "; ".join(f"{work.name}: {work.title}" for work in WORKS.values()) + "."
    title = "HTTP servers under load"
    method = """
Each server is a program with one worker; all its processes and threads run on one core, the load
generator (C) on another. Every server answers the same requests with the same bodies, out of one
ASGI application, one WSGI application, or functions of its own. Connections are kept alive. Each
one sends a request, waits for its answer, and sends the next: a closed loop, which finds out the
server's full rate and the CPU time of a request.

An answer is taken apart: its status has to be 200, its body as long as its head says, and every
byte of it the expected one. A server that answers anything else has failed, and has no figures.
Half of the connections ask for one text while the others ask for another, so a server that mixes
up answers is found out.

Latencies come from a second window. Requests are due at a steady rate, a half of the full one as a
rule, whether the server has answered the earlier ones or not, and a latency counts from the moment
at which its request was due.

Arms are interleaved: every round measures every work with every arm once, each round beginning at
another arm. CPU time is read from outside, user and system, of all processes and threads. Figures
are medians over the rounds; a dot in the chart is one round. Ratios are medians of the ratios round
by round, so that what slows the whole machine for a while cancels out.
"""
    arms = HTTP_ARMS
    default_arms = tuple(name for name in HTTP_ARMS if name not in PEERS)
    peers = PEERS
    controls = {UVICORN_AGAIN: "uvicorn-asyncio"}
    takes_guests = True
    has_latencies = True
    loop_guest_help = "uvicorn runs on it; the factory takes no arguments"
    server_guest_help = (
        "{asgi} or {wsgi} stands for the application that it has to run; without one it answers "
        "by itself"
    )
    quick_rounds = 3
    fills_limit = True

    # ---- before the run

    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        parser.add_argument(
            "--works",
            type=list_of(one_of(WORKS, "work"), "work"),
            metavar="A,B",
            help=f"default: {', '.join(WORKS)} (with --quick: {', '.join(QUICK_WORKS)})",
        )
        parser.add_argument(
            "--connections",
            type=number_in(1, 10_000),
            default=CONNECTIONS,
            metavar="N",
            help=f"that are open at once; default: {CONNECTIONS}",
        )
        openloop.add_options(parser, PACED_PERCENT)
        parser.add_argument(
            "--duration-s",
            type=number_in(0.01, 3600, float, " seconds"),
            metavar="S",
            help=f"length of a window; default: {WINDOW_S:g} (with --quick: what fits)",
        )
        parser.add_argument(
            "--warmup-s",
            type=number_in(0, 60, float, " seconds"),
            metavar="S",
            help=f"default: {WARMUP_S:g}",
        )

    def loop_guest(self, name: str, factory: str) -> HttpArm:
        return loop_guest(name, factory)

    def server_guest(self, name: str, command: tuple[str, ...]) -> HttpArm:
        return server_guest(name, command)

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        return check_commands(HTTP_ARMS[name] for name in arms)

    def plan(self, options: argparse.Namespace, terms: Terms) -> HttpPlan:
        works = options.works or (QUICK_WORKS if options.quick else tuple(WORKS))
        skipped = {name: why for name in works if (why := WORKS[name].why_not())}
        plan = HttpPlan(
            **vars(terms),
            cells=tuple(name for name in works if name not in skipped),
            connections=options.connections,
            duration_s=options.duration_s or WINDOW_S,
            warmup_s=WARMUP_S if options.warmup_s is None else options.warmup_s,
            pace=openloop.chosen(options),
            skipped=skipped,
        )
        if not plan.count:
            reasons = [f"{name}: {why}" for name, why in skipped.items()]
            raise UsageError("; ".join(reasons) or "none of these servers can be asked for that")
        if options.quick:
            return fitted(plan, options.duration_s, options.warmup_s)
        return plan

    def size(self, plan: HttpPlan) -> str:
        servers = counted(len(plan.arms), "server")
        return f"{plan.count} measurements: {servers}, {counted(len(plan.cells), 'work')}"

    @contextmanager
    def measuring(self, plan: HttpPlan, watch: Watch) -> Iterator[Measure]:
        raise_fd_limit(plan.connections + SPARE_FDS)
        with tempfile.TemporaryDirectory(prefix="netpoll-bench-") as name:
            folder = Path(name)
            file = write_files(folder)
            if any(WORKS[work].is_tls for work in plan.cells):
                write_certificate(folder)
            servers = Servers(
                plan,
                start=functools.partial(start_server, plan, folder),
                load=functools.partial(connect_load, plan, watch.fd, file),
                shared_by=shared_by,
            )
            with no_garbage_collection(), on_cpu(plan.pinning.load_cpu), servers:
                yield servers.measure

    # ---- the document

    def settings(self, plan: HttpPlan) -> Facts:
        return {
            "works": {name: WORKS[name].title for name in plan.cells},
            "skipped": plan.skipped,
            "connections": plan.connections,
            "rounds": plan.rounds,
            "duration_s": plan.duration_s,
            "warmup_s": plan.warmup_s,
            **plan.pace.facts(),
            "fresh_server_per_measurement": plan.fresh,
        }

    def rows(self, run: Run) -> list[Row]:
        plan = run.plan
        return [
            _row(run, work, arm)
            for work in plan.cells
            for arm in plan.arms
            if plan.is_able(Subject(work, arm))
        ]

    def more(self, run: Run) -> Facts:
        """Every window at full rate."""
        return {
            "samples": [
                {"work": work, "arm": arm} | sample_dict(sample)
                for work in run.plan.cells
                for arm in run.plan.arms
                for sample in samples_of(run, work, arm).values()
            ]
        }

    # ---- to look at

    def tables(self, document: Document, wide: bool) -> list[Table]:
        columns = WIDE if wide else NARROW
        head = ["server", *(column.title for column in columns)]
        tables = []
        for work, rows in _by_work(document):
            tables.append(Table(head, _groups(rows, columns), _title(document, work)))
            tables += openloop.curve_table(rows, lambda row: row["arm"])
        return tables

    def notes(self, document: Document, wide: bool) -> list[str]:
        notes = [how_measured(document["settings"], "servers"), "", LEGEND]
        if not wide:
            notes.append("More columns (p99.9, min, user, sys, ×uvi) fit into a wider terminal.")
        return notes + _footnotes(document)

    def section(self, document: Document) -> list[Block]:
        rows = measured(document)
        return [
            Heading("All works"),
            _overview(rows),
            Heading("One work"),
            *_charts(rows),
            Heading("Figures"),
            *(_page_table(document, *work) for work in _by_work(document)),
            *(Note(note) for note in _footnotes(document)),
        ]


KIND = Http()
