"""The accept, proxy, broadcast and bursts benchmarks: server CPU per connection, KiB, message.

Each server is a child of this module, pinned to one core; the load, and the echo in C behind a
proxy, run on the other. Arms alternate, round by round. Event loops run asyncio protocols,
netpoll.Server its plain handlers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import netpoll
from netpoll.bench import _native
from netpoll.bench.arms import ARMS, ArmUnavailable
from netpoll.bench.echo import Step, on_cpu
from netpoll.bench.process import (
    Child,
    Pinning,
    Server,
    ServerError,
    child_environment,
    cpu_time,
    die_with_parent,
    raise_fd_limit,
)
from netpoll.bench.stats import Spread, paired_ratio
from netpoll.bench.tcp import connect, tune
from netpoll.bench.watch import Watch

__all__ = ["WORKS", "RelayPlan", "RelayRun", "relay_document", "run_relay"]

CONTROL = "uvloop"
WORKS = {
    "accept": "connect, 64 B there and back, close; ns per connection",
    "proxy": "16 connections × 64 KiB to an echo and back; ns per KiB received",
    "broadcast": "a line of 1 KiB at a time to 200 connections; ns per line and connection",
    "bursts": "8 lines of 1 KiB at a time to 200 connections; ns per line and connection",
}
CROWD, CROWDS, ACCEPT_BYTES = 500, 4, 64
PROXY_CONNECTIONS, PROXY_BYTES = 16, 64 << 10
LISTENERS, LINE_BYTES, LINES, LINE_PAUSE_S = 200, 1024, 160, 0.002
BURST_LINES = 8
WINDOW_S = 0.8
MEASUREMENT_S = 2.5
PENDING_MAX_BYTES = 512 << 10


@dataclass(frozen=True)
class RelayPlan:
    """What to run; limit_s as in EchoPlan."""

    work: str
    arms: tuple[str, ...]
    pinning: Pinning
    rounds: int = 5
    limit_s: float | None = None

    @property
    def expected_s(self) -> float:
        expected_s = len(self.arms) * self.rounds * MEASUREMENT_S
        return min(expected_s, self.limit_s) if self.limit_s else expected_s


@dataclass
class RelayRun:
    """`samples`: arm to ns by round."""

    plan: RelayPlan
    samples: dict[str, dict[int, float]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    started_at: float = field(default_factory=time.time)
    elapsed_s: float = 0.0


# ---- the load ---------------------------------------------------------------------------------


def _load_accept(address: tuple[str, int]) -> int:
    for _ in range(CROWDS):
        with _native.Load(address, CROWD, ACCEPT_BYTES, stall_s=10.0, reset_on_close=True) as load:
            load.run(0)
    return CROWDS * CROWD


def _load_proxy(address: tuple[str, int]) -> int:
    with _native.Load(address, PROXY_CONNECTIONS, PROXY_BYTES, stall_s=10.0) as load:
        return load.run(WINDOW_S)["requests_all"] * PROXY_BYTES * 2 // 1024


def _load_broadcast(address: tuple[str, int], lines_at_once: int = 1) -> int:
    total = LINES * LINE_BYTES + 1
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(LISTENERS)]
        for client in clients:
            client.settimeout(20)
            client.recv(1)  # the greeting: it is a member

        def read() -> None:
            for client in clients:
                left = total - 1
                while left and (got := len(client.recv(min(left, 1 << 20)))):
                    left -= got

        reader = threading.Thread(target=read)
        reader.start()
        lines = (b"x" * (LINE_BYTES - 1) + b"\n") * lines_at_once
        for _ in range(LINES // lines_at_once):
            clients[0].sendall(lines)
            time.sleep(LINE_PAUSE_S * lines_at_once)
        reader.join()
    return LISTENERS * LINES


LOADS: dict[str, Callable[[tuple[str, int]], int]] = {
    "accept": _load_accept,
    "proxy": _load_proxy,
    "broadcast": _load_broadcast,
    "bursts": functools.partial(_load_broadcast, lines_at_once=BURST_LINES),
}


def measure(plan: RelayPlan, arm: str, far: tuple[str, int]) -> float:
    """Server CPU per unit, ns. Raises ServerError or OSError."""
    args = ["-m", "netpoll.bench.relay", "--arm", arm, "--work", plan.work]
    args += ["--far", json.dumps(far)]
    with Child(args, child_environment(ARMS[arm], "all"), plan.pinning.server_cpu) as child:
        address = tuple(child.answer()["address"])
        before = cpu_time(child.pid)
        count = LOADS[plan.work](address)
        return (cpu_time(child.pid) - before).total_ns / count


def run_relay(plan: RelayPlan, progress: Callable[[Step], None] = lambda step: None) -> RelayRun:
    """Runs the plan; what is there by Ctrl-C or by the time limit is returned."""
    run = RelayRun(plan)
    done, total = 0, plan.rounds * len(plan.arms)
    raise_fd_limit(4 * CROWD)
    with (
        Watch(plan.limit_s) as watch,
        on_cpu(plan.pinning.load_cpu),
        Server(ARMS["floor-epoll"], "-", cpu=plan.pinning.load_cpu) as far,
    ):
        for number in range(plan.rounds):
            first = number % len(plan.arms)
            for arm in plan.arms[first:] + plan.arms[:first]:
                run.elapsed_s = watch.elapsed_s
                run.stopped = watch.why_stop(MEASUREMENT_S)
                if run.stopped:
                    return run
                progress(Step(done, total, f"round {number + 1} of {plan.rounds}", arm))
                done += 1
                if arm in run.faults:
                    continue
                try:
                    run.samples.setdefault(arm, {})[number] = measure(plan, arm, far.address)
                except (ServerError, OSError) as error:
                    run.faults[arm] = str(error)
        run.elapsed_s = watch.elapsed_s
    return run


def relay_document(run: RelayRun, header: dict[str, Any], arms: dict[str, Any]) -> dict[str, Any]:
    """The document: rows as in a micro run, set against uvloop."""
    rows = []
    for arm in run.plan.arms:
        by_round = run.samples.get(arm, {})
        row: dict[str, Any] = {
            "workload": run.plan.work,
            "title": WORKS[run.plan.work],
            "arm": arm,
            "mode": "-",
            "fault": run.faults.get(arm),
            "rounds": len(by_round),
        }
        if by_round:
            row |= {
                "ns": Spread.of(by_round.values()).as_dict(),
                "ns_by_round": list(by_round.values()),
                "vs_control": paired_ratio(by_round, run.samples.get(CONTROL, {})),
            }
        rows.append(row)
    return header | {
        "elapsed_s": run.elapsed_s,
        "stopped": run.stopped,
        "settings": {"rounds": run.plan.rounds, "work": run.plan.work},
        "arms": arms,
        "rows": rows,
    }


# ---- the servers: event loops -----------------------------------------------------------------


class EchoSide(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class ProxySide(asyncio.Protocol):
    """One side: what arrives is written to the other."""

    def __init__(self, far: tuple[str, int] | None, other: ProxySide | None = None) -> None:
        self.far, self.other = far, other
        self.early: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.far is not None:
            self.task = asyncio.get_running_loop().create_task(self.connect(self.far))

    async def connect(self, far: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        sock = connect(far)
        _, self.other = await loop.create_connection(lambda: ProxySide(None, self), sock=sock)
        self.other.transport.writelines(self.early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class Member(asyncio.Protocol):
    """Of the broadcast: each line goes to everybody."""

    members: set[Any] = set()
    rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.members.add(transport)
        transport.write(b"!")

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            whole = line + b"\n"
            for member in self.members:
                member.write(whole)

    def connection_lost(self, error: Exception | None) -> None:
        self.members.discard(self.transport)


async def serve_loop(work: str, listener: socket.socket, far: tuple[str, int]) -> None:
    kinds: dict[str, Callable[[], asyncio.Protocol]] = {
        "accept": EchoSide,
        "proxy": lambda: ProxySide(far),
        "broadcast": Member,
        "bursts": Member,
    }
    async with await asyncio.get_running_loop().create_server(kinds[work], sock=listener):
        await asyncio.Event().wait()


# ---- the servers: netpoll.Server --------------------------------------------------------------


def _forward(conn: netpoll.Connection) -> None:
    conn.forward()


def proxy_hooks(far: tuple[str, int]) -> dict[str, Any]:
    def on_connect(conn: netpoll.Connection) -> None:
        upstream = conn.adopt(connect(far))
        conn.state, upstream.state = upstream, conn

    def on_data(conn: netpoll.Connection) -> None:
        other = conn.state
        other.forward(conn.next())
        if other.pending > PENDING_MAX_BYTES:
            conn.pause_reading()
            conn.loop.create_task(resume_later(conn, other))

    async def resume_later(conn: netpoll.Connection, other: netpoll.Connection) -> None:
        with contextlib.suppress(ConnectionError):
            await other.drain()
            conn.resume_reading()

    def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
        other, conn.state = conn.state, None
        if other is not None:
            other.close()

    return {"handler": on_data, "on_connect": on_connect, "on_close": on_close}


def broadcast_hooks() -> dict[str, Any]:
    members: set[netpoll.Connection] = set()

    def on_connect(conn: netpoll.Connection) -> None:
        members.add(conn)
        conn.write(b"!")

    def on_data(conn: netpoll.Connection) -> None:
        while (line := conn.readline()) is not None:
            for member in members:
                member.write(line)

    def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
        members.discard(conn)

    return {"handler": on_data, "on_connect": on_connect, "on_close": on_close}


async def serve_server(work: str, listener: socket.socket, far: tuple[str, int]) -> None:
    hooks = {
        "accept": lambda: {"handler": _forward},
        "proxy": lambda: proxy_hooks(far),
        "broadcast": broadcast_hooks,
        "bursts": broadcast_hooks,
    }
    options = hooks[work]()
    async with netpoll.Server(sockets=[listener], **options):
        await asyncio.Event().wait()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m netpoll.bench.relay")
    parser.add_argument("--arm", required=True, choices=ARMS)
    parser.add_argument("--work", required=True, choices=WORKS)
    parser.add_argument("--far", type=json.loads, required=True)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    arm = ARMS[options.arm]
    try:
        loop = arm.new_loop()
    except ArmUnavailable as reason:
        print(reason, file=sys.stderr)
        return 1
    raise_fd_limit(4 * CROWD)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    tune(listener)
    listener.setblocking(False)
    print(json.dumps({"address": listener.getsockname()}), flush=True)
    serve = serve_server if arm.kind == "server" else serve_loop
    loop.run_until_complete(serve(options.work, listener, tuple(options.far)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
