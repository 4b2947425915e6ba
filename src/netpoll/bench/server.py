"""One echo server in a process of its own: ``python -m netpoll.bench.server --arm X --mode M``.

Started by the harness, which pins it to a core and reads its CPU clock from outside, so that
nothing in here but the echo runs while it is measured. It binds, writes one line of JSON to
standard output ({"address": ..., ...}, or {"unavailable": reason}), and serves until it is killed;
it dies with its parent. ``--check`` only answers whether the arm can run here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

import netpoll
from netpoll.bench import _native, tls
from netpoll.bench.arms import ARMS, TLS_MODE, UDP_MODE, SocketArm, loop_guest
from netpoll.bench.errors import ArmUnavailable
from netpoll.bench.process import die_with_parent
from netpoll.bench.records import Facts
from netpoll.bench.tcp import tune

BACKLOG = 4096
# What one read of the streams and sock modes and of the stdlib servers asks for. 64 KiB is what
# programs write; for larger messages the 256 KiB that asyncio itself reads with in protocol mode.
READ_BYTES = 64 * 1024
READ_BULK_BYTES = 256 * 1024
DATAGRAMS_BYTES = 8 << 20  # receive buffer of a datagram server


def host_of(address: str) -> str | None:
    """Of "tcp" (127.0.0.1) or "tcp:HOST"; None for the path of a Unix socket."""
    word, _, host = address.partition(":")
    return (host or "127.0.0.1") if word == "tcp" else None


def listening_socket(address: str) -> socket.socket:
    """`address` is "tcp" or "tcp:HOST" (a free port there) or the path of a Unix socket."""
    host = host_of(address)
    if host is not None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tune(sock)
        sock.bind((host, 0))
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(address)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def datagram_socket(address: str) -> socket.socket:
    """As `listening_socket`, for datagrams."""
    host = host_of(address)
    if host is not None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, 0))
    else:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(address)
    # One datagram of each client has to fit, as far as this user may raise it: what does not is
    # lost, and a lost one ends the run.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAMS_BYTES)
    sock.setblocking(False)
    return sock


class EchoProtocol(asyncio.Protocol):
    """The echo of the protocol mode."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve_protocol(listener: socket.socket, read_bytes: int) -> None:
    loop = asyncio.get_running_loop()
    if listener.family == socket.AF_UNIX:
        server = await loop.create_unix_server(EchoProtocol, sock=listener, backlog=BACKLOG)
    else:
        server = await loop.create_server(EchoProtocol, sock=listener, backlog=BACKLOG)
    async with server:
        await asyncio.Event().wait()


async def serve_tls(listener: socket.socket, read_bytes: int) -> None:
    loop = asyncio.get_running_loop()
    context = tls.server_context()
    async with await loop.create_server(EchoProtocol, sock=listener, backlog=BACKLOG, ssl=context):
        await asyncio.Event().wait()


async def serve_streams(listener: socket.socket, read_bytes: int) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(read_bytes):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # the load closes without ceremony
        finally:
            writer.close()

    start = asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
    server = await start(echo, sock=listener, backlog=BACKLOG)
    async with server:
        await asyncio.Event().wait()


async def serve_sock(listener: socket.socket, read_bytes: int) -> None:
    loop = asyncio.get_running_loop()
    tasks = set()

    async def echo(client: socket.socket) -> None:
        try:
            while data := await loop.sock_recv(client, read_bytes):
                await loop.sock_sendall(client, data)
        except ConnectionError:
            pass
        finally:
            client.close()

    while True:
        client, _ = await loop.sock_accept(listener)
        task = loop.create_task(echo(client))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


class EchoDatagrams(asyncio.DatagramProtocol):
    """The echo of the udp mode."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.transport.sendto(data, addr)


async def serve_udp(bound: socket.socket, read_bytes: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(EchoDatagrams, sock=bound)
    await asyncio.Event().wait()


MODES = {
    "protocol": serve_protocol,
    "streams": serve_streams,
    "sock": serve_sock,
    UDP_MODE: serve_udp,
    TLS_MODE: serve_tls,
}


def echo_on_data(conn: netpoll.Connection) -> None:
    conn.forward(conn.lease())


async def echo_session(conn: netpoll.Connection) -> None:
    while await conn.fill():
        conn.forward(conn.lease())


SERVER_HANDLERS = {"on_data": echo_on_data, "session": echo_session}


async def serve_netpoll(
    listener: socket.socket, handler: Callable[..., object], backend: str, workers: int
) -> None:
    """One worker is the running loop; more of them are threads with loops of their own."""
    async with netpoll.Server(handler, sockets=[listener], backend=backend, workers=workers):
        await asyncio.Event().wait()


def serve_threads(listener: socket.socket, read_bytes: int) -> None:
    """A thread per connection."""

    def echo(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(read_bytes):
                    client.sendall(data)
            except ConnectionError:
                pass

    threading.stack_size(256 * 1024)
    listener.setblocking(True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=echo, args=(client,), daemon=True).start()


class SelectorEcho:
    """One connection of `serve_selectors`: reads while it has nothing to send."""

    def __init__(self, selector: selectors.BaseSelector, client: socket.socket, read_bytes: int):
        self.selector = selector
        self.client = client
        self.read_bytes = read_bytes
        self.rest = memoryview(b"")
        selector.register(client, selectors.EVENT_READ, self.on_ready)

    def on_ready(self) -> None:
        try:
            if self.rest:
                self.send(self.rest)
            elif data := self.client.recv(self.read_bytes):
                self.send(memoryview(data))
            else:
                self.close()
        except BlockingIOError:
            pass
        except ConnectionError:
            self.close()

    def send(self, data: memoryview) -> None:
        was_waiting = bool(self.rest)
        try:
            self.rest = data[self.client.send(data) :]
        except BlockingIOError:
            self.rest = data
        if bool(self.rest) != was_waiting:
            event = selectors.EVENT_WRITE if self.rest else selectors.EVENT_READ
            self.selector.modify(self.client, event, self.on_ready)

    def close(self) -> None:
        self.selector.unregister(self.client)
        self.client.close()


def serve_selectors(listener: socket.socket, read_bytes: int) -> None:
    """`selectors`, readiness callbacks, one thread."""
    selector = selectors.DefaultSelector()

    def accept() -> None:
        client, _ = listener.accept()
        client.setblocking(False)
        SelectorEcho(selector, client, read_bytes)

    selector.register(listener, selectors.EVENT_READ, accept)
    while True:
        for key, _ in selector.select():
            key.data()


def serve_floor(floor: Callable[[int, int], None], listener: socket.socket) -> None:
    never_readable, _keep_open = os.pipe()
    floor(listener.fileno(), never_readable)


def check(arm: SocketArm) -> Facts:
    """What the arm is here; raises ArmUnavailable when it cannot run."""
    if arm.name == "floor-uring" and (reason := _native.floor_uring_probe()):
        raise ArmUnavailable(f"io_uring is refused here: {reason}")
    facts = {"version": arm.installed_version()}
    if arm.kind in ("loop", "server"):
        loop = arm.new_loop()
        facts["loop"] = f"{type(loop).__module__}.{type(loop).__qualname__}"
        loop.close()
    return facts


def serve(
    arm: SocketArm, mode: str, listener: socket.socket, read_bytes: int, workers: int
) -> None:
    if arm.kind == "loop":
        loop = arm.new_loop()
        loop.run_until_complete(MODES[mode](listener, read_bytes))
    elif arm.kind == "server":
        backend = arm.loop_options["backend"]
        serving = serve_netpoll(listener, SERVER_HANDLERS[mode], backend, workers)
        arm.new_loop().run_until_complete(serving)
    elif arm.name == "sockets-threads":
        serve_threads(listener, read_bytes)
    elif arm.name == "sockets-selectors":
        serve_selectors(listener, read_bytes)
    elif mode == UDP_MODE:
        serve_floor(_native.floor_udp_epoll, listener)
    elif arm.name == "floor-epoll":
        serve_floor(_native.floor_epoll, listener)
    else:
        serve_floor(_native.floor_uring, listener)


def raise_fd_limit() -> None:
    """As many descriptors as this user may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def say(facts: Facts) -> None:
    print(json.dumps(facts), flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m netpoll.bench.server")
    parser.add_argument("--arm", required=True)
    parser.add_argument("--factory", help="of a loop that is not among the arms: module:factory")
    parser.add_argument("--mode", default="-")
    parser.add_argument("--listen", default="tcp", help='"tcp", "tcp:HOST" or a path')
    parser.add_argument("--bulk", action="store_true", help="messages are larger than 64 KiB")
    parser.add_argument("--workers", type=int, default=1, help="threads of netpoll.Server")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    if options.arm not in ARMS and not options.factory:
        parser.error(f"there is no arm {options.arm!r}")
    arm = loop_guest(options.arm, options.factory) if options.factory else ARMS[options.arm]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    die_with_parent()
    try:
        facts = check(arm)
    except ArmUnavailable as error:
        say({"unavailable": str(error)})
        return 0
    if options.check:
        say(facts)
        return 0
    if options.mode not in arm.modes:
        parser.error(f"{arm.name} has the modes {', '.join(arm.modes)}, not {options.mode!r}")
    raise_fd_limit()
    make_socket = datagram_socket if options.mode == UDP_MODE else listening_socket
    listener = make_socket(options.listen)
    say(facts | {"address": listener.getsockname()})
    read_bytes = READ_BULK_BYTES if options.bulk else READ_BYTES
    serve(arm, options.mode, listener, read_bytes, options.workers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
