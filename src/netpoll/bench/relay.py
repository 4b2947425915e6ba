"""Servers that do something with what they receive: accept, forward, broadcast. CPU per unit.

Each server is a child of this module (``python -m netpoll.bench.relay MODULE ARM FAR``), pinned to
one core; the load, and the echo in C behind a proxy, run on the other. Every measurement has a
child of its own. Event loops run an asyncio protocol, netpoll.Server its plain handlers: both are
the kind's.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import signal
import socket
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import netpoll
from netpoll.bench.arms import ARMS, DEFAULT_ARMS, PEER_ARMS, is_own
from netpoll.bench.blocks import Group, Line, Table, counted, judged
from netpoll.bench.clocks import cpu_time
from netpoll.bench.cores import on_cpu
from netpoll.bench.costs import CostKind, spread_figures
from netpoll.bench.errors import ArmUnavailable
from netpoll.bench.kind import Terms, measured
from netpoll.bench.process import (
    Child,
    Server,
    check_arms,
    child_environment,
    die_with_parent,
    raise_fd_limit,
)
from netpoll.bench.records import Document, Facts
from netpoll.bench.rounds import Measure, Plan
from netpoll.bench.tcp import tune
from netpoll.bench.watch import Watch

__all__ = ["Address", "RelayKind"]

Address = tuple[str, int]

FDS_COUNT = 2000  # of the load and of a server
BACKLOG = 4096
MEASUREMENT_S = 2.5


@dataclass(frozen=True, kw_only=True)
class RelayPlan(Plan):
    """One operation, that of the kind."""

    operations: tuple[str, ...]

    @property
    def measurement_s(self) -> float:
        return MEASUREMENT_S


class RelayKind(CostKind):
    """what: the operation, and the unit of its cost."""

    what: ClassVar[str]
    schema = "relay"
    title = "Accepting, forwarding, broadcasting"
    method = """
Each server is a process of its own on one core; the load, and the echo in C behind a proxy, run
on another. Arms are interleaved. The figure is CPU time of the server, user and system. Figures are
medians over the rounds; a dot is one round.
"""
    arms = ARMS
    default_arms = tuple(name for name in DEFAULT_ARMS if ARMS[name].kind in ("loop", "server"))
    peers = PEER_ARMS
    quick_rounds = 2
    control = "uvloop"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.help = f"server CPU: {cls.what}"
        cls.description = f"Measures server CPU: {cls.what}."
        cls.operations = {cls.name: cls.what}

    # ---- what differs

    @abstractmethod
    def load(self, address: Address) -> int:
        """Loads a server; returns how many units it has done."""

    @abstractmethod
    def protocol(self, far: Address) -> Callable[[], asyncio.Protocol]:
        """What an event loop serves with; an echo listens at `far`."""

    @abstractmethod
    def server_options(self, far: Address) -> dict[str, Any]:
        """What netpoll.Server serves with: its handler, and other arguments."""

    # ---- the run

    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        """What a relay does is fixed."""

    def check(self, arms: Sequence[str]) -> dict[str, Facts]:
        return check_arms(ARMS[name] for name in arms)

    def plan(self, options: argparse.Namespace, terms: Terms) -> RelayPlan:
        return RelayPlan(**vars(terms), operations=(self.name,), malloc="all")

    def size(self, plan: RelayPlan) -> str:
        return counted(len(plan.arms), "server")

    @contextmanager
    def measuring(self, plan: RelayPlan, watch: Watch) -> Iterator[Measure]:
        raise_fd_limit(FDS_COUNT)
        far_cpu = plan.pinning.load_cpu
        with (
            on_cpu(far_cpu),
            Server(ARMS["floor-epoll"], "-", cpu=far_cpu) as far,
        ):
            yield lambda arm, _: {self.name: self._measure(plan, arm, far.address)}

    def _measure(self, plan: RelayPlan, arm: str, far: Any) -> float:
        """Server CPU per unit, ns. Raises ServerError or OSError."""
        args = ["-m", "netpoll.bench.relay", type(self).__module__, arm, json.dumps(far)]
        env = child_environment(ARMS[arm], plan.malloc)
        with Child(args, env, plan.pinning.server_cpu) as child:
            address = tuple(child.answer()["address"])
            before = cpu_time(child.pid)
            count = self.load(address)
            return (cpu_time(child.pid) - before).total_ns / count

    # ---- the document and its looks

    def settings(self, plan: RelayPlan) -> Facts:
        return {"rounds": plan.rounds, "work": self.name}

    def owns(self, document: Document) -> bool:
        """Documents of all relays have one schema."""
        settings = document.get("settings", {})
        return super().owns(document) and settings.get("work") == self.name

    def tables(self, document: Document, wide: bool) -> list[Table]:
        """A line per arm, the cheapest first: there is one operation only."""
        rows = sorted(measured(document), key=lambda row: row["ns"]["median"])
        lines = [
            Line(
                row["arm"],
                [*spread_figures(row["ns"]), judged(row["vs_control"])],
                own=is_own(row["arm"]),
            )
            for row in rows
        ]
        head = ["arm", "ns", "min", "±%", "×uvl"]
        return [Table(head, [Group("", lines)], f"{self.what} (and × {self.control})")]

    def notes(self, document: Document, wide: bool) -> list[str]:
        (note,) = super().notes(document, wide)
        return [f"{note} CPU time of the server, user and system."]


# ---- the child --------------------------------------------------------------------------------


async def serve_loop(kind: RelayKind, listener: socket.socket, far: Address) -> None:
    loop = asyncio.get_running_loop()
    async with await loop.create_server(kind.protocol(far), sock=listener):
        await asyncio.Event().wait()


async def serve_server(kind: RelayKind, listener: socket.socket, far: Address) -> None:
    async with netpoll.Server(sockets=[listener], **kind.server_options(far)):
        await asyncio.Event().wait()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m netpoll.bench.relay")
    parser.add_argument("module", help="of the kind")
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("far", type=json.loads)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    kind = importlib.import_module(options.module).KIND
    arm = ARMS[options.arm]
    try:
        loop = arm.new_loop()
    except ArmUnavailable as reason:
        print(reason, file=sys.stderr)
        return 1
    raise_fd_limit(FDS_COUNT)
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    tune(listener)
    listener.setblocking(False)
    print(json.dumps({"address": listener.getsockname()}), flush=True)
    serve = serve_server if arm.kind == "server" else serve_loop
    loop.run_until_complete(serve(kind, listener, tuple(options.far)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
