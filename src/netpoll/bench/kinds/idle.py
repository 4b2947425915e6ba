"""``bench idle``: user memory per idle connection.

A server child has already served a hundred connections, so that what a loop makes once is made;
then ten thousand connect, each has one message echoed (so that each is accepted, and has what a
connection that was used keeps), and the server's private memory is read before and after.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from netpoll.bench._native import Load
from netpoll.bench.arguments import list_of, number_in, one_of
from netpoll.bench.arms import ARMS, DEFAULT_ARMS, LOOP_MODES, PEER_ARMS, SERVER_MODES, is_own
from netpoll.bench.blocks import (
    Bar,
    Bars,
    Block,
    Figure,
    Group,
    Heading,
    Line,
    Table,
    counted,
    judged,
    number,
)
from netpoll.bench.cells import MALLOC_CHOICES, MODE_TITLES, Entry, entries
from netpoll.bench.cores import on_cpu
from netpoll.bench.costs import spread_figures
from netpoll.bench.kind import Kind, Terms, distinct, measured
from netpoll.bench.process import Server, check_arms, raise_fd_limit
from netpoll.bench.records import Document, Facts, Row
from netpoll.bench.rounds import Measure, Plan, Run, no_garbage_collection
from netpoll.bench.stats import Spread, paired_ratio
from netpoll.bench.watch import Watch

__all__ = ["KIND"]

SEASON_CONNECTIONS = 100
CONNECTIONS, CONNECTIONS_MAX = 10_000, 25_000
MESSAGE_BYTES = 64
SPARE_FDS = 200
SETTLE_S = 0.2
START_S, PER_CONNECTION_S = 0.4, 1.2e-4  # of a measurement, about
CONTROL = "asyncio"


@dataclass(frozen=True, kw_only=True)
class IdlePlan(Plan):
    modes: tuple[str, ...]
    connections: int

    @property
    def subjects(self) -> list[Entry]:
        return entries(self.arms, self.modes)

    @property
    def measurement_s(self) -> float:
        return START_S + PER_CONNECTION_S * self.connections


def user_memory_bytes(pid: int) -> int:
    """Memory that only this process has (its unique set size)."""
    import psutil  # of the extra: the kind has to be described without it, too

    return int(psutil.Process(pid).memory_full_info().uss)


def _connect(server: Server, connections: int, stop_fd: int) -> Load:
    load = Load(
        server.address,
        connections,
        MESSAGE_BYTES,
        stop_fd=stop_fd,
        stall_s=10.0,
        reset_on_close=True,
    )
    load.run(0)  # one message each
    return load


def measure_idle(plan: IdlePlan, entry: Entry, stop_fd: int = -1) -> float:
    """Bytes per connection. Raises ServerError or OSError when the server fails."""
    arm, cpu = ARMS[entry.arm], plan.pinning.server_cpu
    with Server(arm, entry.mode, cpu=cpu, malloc=plan.malloc) as server:
        with _connect(server, SEASON_CONNECTIONS, stop_fd):
            before = user_memory_bytes(server.pid)
            with _connect(server, plan.connections, stop_fd):
                time.sleep(SETTLE_S)
                after = user_memory_bytes(server.pid)
                server.kill()  # before the connections end: it would have to end each of them
    return (after - before) / plan.connections


class Idle(Kind):
    name = "idle"
    help = "memory: what ten thousand idle connections cost"
    description = "Measures the user memory of a server per connection that is open and idle."
    title = "Memory of idle connections"
    method = """
Each server is a process of its own. It has served a hundred connections before; then all
connections are opened and have one message echoed, so that each was accepted and used. The figure
is the growth of the memory that only the server's process has, per connection. What the kernel
keeps for a socket is not in it: it is the same for all. Figures are medians over the rounds; a dot
is one round.
"""
    arms = ARMS
    default_arms = tuple(
        name for name in DEFAULT_ARMS if ARMS[name].kind in ("loop", "server", "floor")
    )
    peers = PEER_ARMS
    rounds = 4
    quick_rounds = 1

    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        modes = LOOP_MODES + SERVER_MODES
        parser.add_argument(
            "--modes",
            type=list_of(one_of(modes, "mode"), "mode"),
            default=("protocol", "on_data"),
            metavar="M,N",
            help=f"of {','.join(modes)}; default: protocol,on_data",
        )
        parser.add_argument(
            "--connections",
            type=number_in(1, CONNECTIONS_MAX),
            default=CONNECTIONS,
            metavar="N",
            help=f"default: {CONNECTIONS}",
        )
        parser.add_argument(
            "--malloc",
            choices=MALLOC_CHOICES,
            default="none",
            help="as in bench echo; default: none",
        )

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        return check_arms(ARMS[name] for name in arms)

    def plan(self, options: argparse.Namespace, terms: Terms) -> IdlePlan:
        return IdlePlan(
            **vars(terms),
            modes=options.modes,
            connections=options.connections,
            malloc=options.malloc,
        )

    def size(self, plan: IdlePlan) -> str:
        servers = counted(len(plan.subjects), "server")
        return f"{servers}, {counted(plan.connections, 'connection')}"

    @contextmanager
    def measuring(self, plan: IdlePlan, watch: Watch) -> Iterator[Measure]:
        """Raises ValueError when so many connections cannot be opened here."""
        wanted = plan.connections + SEASON_CONNECTIONS + SPARE_FDS
        if raise_fd_limit(wanted) < wanted:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            raise ValueError(
                f"{plan.connections} connections need {wanted} open files and the limit is "
                f"{limit}: raise it (ulimit -Hn), or give fewer with --connections"
            )
        with no_garbage_collection(), on_cpu(plan.pinning.load_cpu):
            yield lambda entry, _: measure_idle(plan, entry, watch.fd)

    # ---- the document

    def settings(self, plan: IdlePlan) -> Facts:
        return {
            "rounds": plan.rounds,
            "connections": plan.connections,
            "seasoned": SEASON_CONNECTIONS,
            "modes": plan.modes,
            "malloc": plan.malloc,
        }

    def rows(self, run: Run) -> list[Row]:
        rows = []
        for entry in run.plan.subjects:
            by_round = run.samples.get(entry, {})
            row = {
                "arm": entry.arm,
                "mode": entry.mode,
                "fault": run.faults.get(entry),
                "rounds": len(by_round),
            }
            if by_round:
                control = run.samples.get(Entry(CONTROL, entry.mode), {})
                row |= {
                    "bytes": Spread.of(by_round.values()).as_dict(),
                    "bytes_by_round": list(by_round.values()),
                    "vs_asyncio": paired_ratio(by_round, control),
                }
            rows.append(row)
        return rows

    # ---- to look at

    def _groups(self, rows: list[Row], figures: Callable[[Row], list[Figure]]) -> list[Group]:
        """Mode by mode, the least memory first."""

        def line(row: Row) -> Line:
            own, faint = is_own(row["arm"]), row["mode"] == "-"
            return Line(row["arm"], figures(row), own=own, faint=faint)

        by_memory = sorted(rows, key=lambda row: row["bytes"]["median"])
        return [
            Group(MODE_TITLES[mode], [line(row) for row in by_memory if row["mode"] == mode])
            for mode in distinct(rows, "mode")
        ]

    def tables(self, document: Document, wide: bool) -> list[Table]:
        count = document["settings"]["connections"]
        groups = self._groups(
            measured(document),
            lambda row: [*spread_figures(row["bytes"]), judged(row["vs_asyncio"])],
        )
        title = f"User memory per idle connection, {count} connections"
        return [Table(["arm", "bytes", "min", "±%", "×aio"], groups, title)]

    def notes(self, document: Document, wide: bool) -> list[str]:
        settings = document["settings"]
        rounds = counted(settings["rounds"], "round")
        memory = "Private memory of the server process, after one message on each connection"
        return [f"{memory}, less what it had with {settings['seasoned']}; {rounds}, the median."]

    def section(self, document: Document) -> list[Block]:
        rows = measured(document)
        most = max((row["bytes"]["median"] for row in rows), default=0)

        def figures(row: Row) -> list[Figure]:
            spread = row["bytes"]
            sub, share = f"±{spread['spread_percent']:.0f} %", spread["median"] / most
            return [
                Figure(number(spread["median"]), sub, tone="key", share=share),
                Figure(number(spread["min"])),
                judged(row["vs_asyncio"]),
            ]

        def chart(mode: str) -> Bars:
            bars = [
                Bar(row["arm"], (row["bytes"]["median"],), row["bytes_by_round"])
                for row in rows
                if row["mode"] in (mode, "-")
            ]
            title = f"{MODE_TITLES[mode]}, bytes per connection"
            return Bars(f"idle-{mode}", title, bars, unit="bytes")

        count = document["settings"]["connections"]
        caption = f"Bytes per idle connection, {count} connections."
        head = ["arm", "bytes", "min", "× asyncio"]
        modes = [mode for mode in distinct(rows, "mode") if mode != "-"] or ["-"]
        return [
            Heading("Figures"),
            Table(head, self._groups(rows, figures), caption=caption),
            Heading("Charts"),
            *map(chart, modes),
        ]


KIND = Idle()
