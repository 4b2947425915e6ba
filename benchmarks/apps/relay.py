"""A proxy and a broadcast: netpoll.Server against the same programs on uvloop's protocols.

    python benchmarks/apps/relay.py [--rounds 3]

Each server is a process on one core, the load (and the proxy's upstream, the echo in C) on another.
The figure is the server's CPU time, user and system, per byte that it received; arms alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import netpoll
from netpoll.bench import _native
from netpoll.bench.arms import ARMS
from netpoll.bench.process import Server, choose_pinning, cpu_time

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "server"
CONNECTIONS, MESSAGE_BYTES, WINDOW_S = 16, 64 * 1024, 1.0
LISTENERS, LINE_BYTES, LINES = 200, 1024, 150


class UvProxy(asyncio.Protocol):
    """One side of the proxy on uvloop: what arrives is written to the other side."""

    def __init__(self, upstream: int | None, other: UvProxy | None = None) -> None:
        self.upstream = upstream
        self.other = other
        self.early: list[bytes] = []  # uvloop reads before pause_reading() is heard

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.upstream is not None:
            self.task = asyncio.get_running_loop().create_task(self.connect(self.upstream))

    async def connect(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        _, other = await loop.create_connection(lambda: UvProxy(None, self), "127.0.0.1", port)
        self.other = other
        other.transport.writelines(self.early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class UvChat(asyncio.Protocol):
    """The broadcast on uvloop: each line to everybody."""

    members: set[Any] = set()
    rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.members.add(transport)
        transport.write(b"welcome\n")

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            line += b"\n"
            for member in self.members:
                member.write(line)

    def connection_lost(self, error: Exception | None) -> None:
        self.members.discard(self.transport)


def serve_uvloop(kind: str, upstream: int) -> None:
    import uvloop

    async def main() -> None:
        loop = asyncio.get_running_loop()
        factory = (lambda: UvProxy(upstream)) if kind == "proxy" else UvChat
        server = await loop.create_server(factory, "127.0.0.1", 0, backlog=1024)
        print(f"listening on port {server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.Event().wait()

    uvloop.run(main())


def command(kind: str, arm: str, upstream: int) -> list[str]:
    if arm == "uvloop":
        return [__file__, "--serve", kind, "--upstream", str(upstream)]
    where = ["127.0.0.1", str(upstream)] if kind == "proxy" else []
    return [str(EXAMPLES / f"{'proxy' if kind == 'proxy' else 'chat'}.py"), *where, "--port", "0"]


def load_proxy(port: int) -> int:
    with _native.Load(("127.0.0.1", port), CONNECTIONS, MESSAGE_BYTES) as load:
        return load.run(WINDOW_S)["requests_all"] * MESSAGE_BYTES * 2


def load_broadcast(port: int) -> int:
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(LISTENERS)]
    total = LINES * LINE_BYTES + len(b"welcome\n")

    def read(some: list[socket.socket]) -> None:
        for client in some:
            left = total
            while left:
                left -= len(client.recv(min(left, 1 << 20)))

    reader = threading.Thread(target=read, args=(clients,))
    reader.start()
    time.sleep(0.3)  # everybody is accepted
    line = b"x" * (LINE_BYTES - 1) + b"\n"
    for _ in range(LINES):
        clients[0].sendall(line)
        time.sleep(0.002)
    reader.join()
    for client in clients:
        client.close()
    return LISTENERS * LINES * LINE_BYTES


def measure(kind: str, arm: str, upstream: int, server_cpu: int) -> float:
    """CPU nanoseconds per byte."""
    args = [sys.executable, *command(kind, arm, upstream)]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            os.sched_setaffinity(process.pid, {server_cpu})
            port = int(process.stdout.readline().split()[-1])
            before = cpu_time(process.pid)
            size_bytes = (load_proxy if kind == "proxy" else load_broadcast)(port)
            return (cpu_time(process.pid) - before).total_ns / size_bytes
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=("proxy", "broadcast"))
    parser.add_argument("--upstream", type=int, default=0)
    options = parser.parse_args()
    if options.serve:
        serve_uvloop(options.serve, options.upstream)
        return
    pinning = choose_pinning()
    os.sched_setaffinity(0, {pinning.load_cpu})
    print(f"netpoll {netpoll.__version__}; {pinning.sentence()}; CPU ns per byte")
    with Server(ARMS["floor-epoll"], "-", cpu=pinning.load_cpu) as echo:
        for kind in ("proxy", "broadcast"):
            figures: dict[str, list[float]] = {"netpoll": [], "uvloop": []}
            for _ in range(options.rounds):
                for arm, found in figures.items():
                    found.append(measure(kind, arm, echo.address[1], pinning.server_cpu))
            ours, theirs = (statistics.median(found) for found in figures.values())
            print(f"{kind}: netpoll {ours:.3f}, uvloop {theirs:.3f}, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
