"""Programs at random that end, feed and read connections from wherever code of theirs runs within a
call of ours: hooks, iterators, numbers, files, sockets, errors, finalisers, the collector.

NETPOLL_REENTRANT_OPERATIONS (a few thousand) says how many operations each test makes,
NETPOLL_REENTRANT_SEED with which seed they begin.
"""

import contextlib
import os
import random
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import netpoll
from netpoll import Connection, LoopConfig
from tests import programs_at_random as programs
from tests.programs_at_random import Chaos, Exporter, Trash, operations_count, run_programs
from tests.support import reset
from tests.tls import HOST, client_context, server_context

from .conftest import Serving, wait_for

OPERATIONS = operations_count(2500)
CLIENTS = 24


class Tag:
    """One connection of the server: `byte` is all that it may ever see or say."""

    def __init__(self, byte: int | None) -> None:
        self.byte = byte
        self.closed = 0
        self.kept: list[Any] = []


class Program(programs.Program):
    expected = (OSError, BufferError, ValueError)
    reported = (Chaos, ConnectionError, BufferError, ValueError)
    reach = 40

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.tags: list[Tag] = []
        self.peers: list[tuple[socket.socket, int]] = []  # of what was adopted
        self.free = list(range(1, 200))

    def operations(self, conn: Connection) -> list[Callable[["Program", Connection], None]]:
        return OPERATIONS_WEIGHTED

    # ---- hooks --------------------------------------------------------------------------------

    def on_connect(self, conn: Connection) -> None:
        self.thread_id = threading.get_ident()
        self.opened(conn, None)
        self.some_operations(conn, 1)

    def opened(self, conn: Connection, byte: int | None) -> None:
        conn.state = Tag(byte)
        self.tags.append(conn.state)
        self.live.append(conn)

    def on_data(self, conn: Connection) -> None:
        if conn.fileno() < 0 or conn.state is None or conn.state.closed:
            self.faults.append(f"on_data of {conn!r}, {conn.state and conn.state.closed}")
            return
        self.check(conn)
        self.some_operations(conn, 12)
        if self.random.random() < 0.5:
            with contextlib.suppress(ValueError):  # a lease on the same bytes may not be sent
                conn.skip(self.random.choice([None, None, 10, 1000]))
        if self.random.random() < 0.05:
            raise Chaos

    def on_close(self, conn: Connection, error: Any) -> None:
        if conn.state is None or conn.fileno() < 0:
            self.faults.append(f"on_close of {conn!r}")
            return
        conn.state.closed += 1
        if conn in self.live:
            self.live.remove(conn)
        self.some_operations(conn, 4)

    def check(self, conn: Connection) -> None:
        data = bytes(conn.peek_lease())
        tag = conn.state
        if tag.byte is None and data:
            tag.byte = data[0]
        if data.strip(bytes([tag.byte or 0])):
            self.faults.append(f"bytes of another connection: {set(data)} at {tag.byte}")

    # ---- operations ---------------------------------------------------------------------------

    def own_bytes(self, conn: Connection) -> bytes:
        byte = conn.state.byte if conn.state is not None else None
        size = self.random.choice([1, 10, 100, 3000, 20000])
        return bytes([byte]) * size if byte is not None else b""

    def data(self, conn: Connection) -> Any:
        data = self.own_bytes(conn)
        kind = self.random.randrange(5)
        if kind == 0:
            return bytearray(data)
        if kind == 1:
            return memoryview(data)
        if kind == 2 and sys.version_info >= (3, 12):
            return Exporter(self, conn, data)
        if kind == 3 and data:
            buffer = conn.reserve(len(data))
            buffer.write(data)
            return buffer
        return data


class Number:
    def __init__(self, program: Program, conn: Connection) -> None:
        self.program, self.conn = program, conn

    def __index__(self) -> int:
        self.program.operation(self.conn)
        return self.program.random.choice([0, 1, 5, 700, 1 << 20])


class Socket:
    def __init__(self, program: Program, conn: Connection, sock: socket.socket) -> None:
        self.program, self.conn, self.sock = program, conn, sock

    def setblocking(self, flag: bool) -> None:
        self.sock.setblocking(flag)
        self.program.operation(self.conn)

    def detach(self) -> int:
        self.program.operation(self.conn)
        return self.sock.detach()


class Error(Exception):
    program: Any = None

    @property
    def __class__(self) -> Any:
        if self.program is not None and not self.program.is_calm:
            self.program.operation()
        return Error


def write(program: Program, conn: Connection) -> None:
    conn.write(program.data(conn))


def pieces(program: Program, conn: Connection) -> Iterator[Any]:
    for _ in range(program.random.randint(0, 6)):
        yield program.data(conn)
        program.operation(conn)
    if program.random.random() < 0.1:
        raise ValueError


def writev(program: Program, conn: Connection) -> None:
    conn.writev(pieces(program, conn))


def forward(program: Program, conn: Connection) -> None:
    if program.random.random() < 0.5:
        conn.forward()
    else:
        conn.forward(conn.lease(Number(program, conn)))


def take(program: Program, conn: Connection) -> None:
    method = program.random.choice([conn.lease, conn.peek_lease, conn.skip, conn.take])
    lease = method(Number(program, conn))
    if isinstance(lease, netpoll.Lease) and conn.state is not None:
        kind = program.random.randrange(4)
        if kind == 0:
            conn.state.kept.append(lease.retain())
        elif kind == 1:
            conn.state.kept.append(memoryview(lease))
        elif kind == 2:
            lease.release()
        while len(conn.state.kept) > 3:
            conn.state.kept.pop(0).release()


def release(program: Program, conn: Connection) -> None:
    if conn.state is not None:
        while conn.state.kept:
            conn.state.kept.pop().release()


def until(program: Program, conn: Connection) -> None:
    conn.lease_until(b"\0", program.random.choice([None, 1 << 30]))
    conn.take_line()


def adopt(program: Program, conn: Connection) -> None:
    if not program.free or len(program.peers) > 20:
        return
    byte = program.free.pop()
    ours, theirs = socket.socketpair()
    try:
        adopted = conn.adopt(Socket(program, conn, ours))
        program.opened(adopted, byte)
    except BaseException:
        theirs.close()
        ours.close()
        program.free.append(byte)
        raise
    theirs.setblocking(False)
    program.peers.append((theirs, byte))


def abort_with_error(program: Program, conn: Connection) -> None:
    error = Error()
    error.program = program
    conn.abort(error)


def sendfile(program: Program, conn: Connection) -> None:
    data = program.own_bytes(conn)
    if data:
        fd = os.memfd_create("bytes")
        with open(fd, "wb+") as file:
            file.write(data)
            file.flush()
            program.operation(conn)
            conn.sendfile(file, 0, Number(program, conn))


def look(program: Program, conn: Connection) -> None:
    repr(conn), conn.peername, conn.sockname, conn.pending, conn.available, conn.at_eof, conn.closed
    _ = conn.ssl_object


def litter(program: Program, conn: Connection) -> None:
    for _ in range(5):
        Trash(program)


def call(name: str) -> Callable[[Program, Connection], None]:
    return lambda program, conn: getattr(conn, name)()


OPERATIONS_WEIGHTED: list[Callable[[Program, Connection], None]] = [
    *[write] * 5,
    *[writev] * 5,
    *[forward] * 5,
    *[take] * 8,
    *[release] * 2,
    *[adopt] * 2,
    *[litter] * 3,
    *[call("pause_reading")] * 2,
    *[call("resume_reading")] * 4,
    until,
    abort_with_error,
    sendfile,
    look,
    call("close"),
    call("abort"),
    call("shutdown"),
    call("cork"),
    *[call("uncork")] * 2,
]


class Client(programs.Peer):
    """Talks one byte to the server, and wants to hear no other."""

    def __init__(self, program: Program, sock: socket.socket, byte: int) -> None:
        super().__init__(program, sock)
        self.byte = byte

    def step(self, dice: random.Random) -> None:
        kind = dice.randrange(20)
        try:
            if kind < 10:
                self.sock.send(bytes([self.byte]) * dice.choice([1, 10, 1000, 9000, 60000]))
            elif kind == 10 and dice.random() < 0.3:
                socket.socket.shutdown(self.sock, socket.SHUT_WR)
            elif kind == 11 and dice.random() < 0.3:
                self.end(reset)
            elif kind == 12 and dice.random() < 0.3:
                self.end(lambda sock: sock.close())
            else:
                data = self.sock.recv(1 << 16)
                if data.strip(bytes([self.byte])):
                    self.program.faults.append(f"client {self.byte} got {set(data)}")
                if not data:
                    self.end(lambda sock: sock.close())
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            self.end(lambda sock: sock.close())

    def end(self, how: Callable[[socket.socket], Any]) -> None:
        if not self.is_over:
            self.program.free.append(self.byte)
        super().end(how)


def dial(serving: Serving, program: Program, tls: bool) -> Client | None:
    byte = program.free.pop(0)
    sock = socket.create_connection(("127.0.0.1", serving.servers[-1].port))
    sock.settimeout(0.5)
    try:
        if tls:
            sock = client_context().wrap_socket(sock, server_hostname=HOST)
        sock.setblocking(False)
    except OSError:
        sock.close()
        program.free.append(byte)
        return None
    return Client(program, sock, byte)


def play(serving: Serving, tls: bool, program: Program, config: LoopConfig, count: int) -> None:
    """One server's life."""
    options: dict[str, Any] = {"ssl": server_context()} if tls else {}
    dice = program.random
    server = serving(
        program.on_data,
        on_connect=program.on_connect,
        on_close=program.on_close,
        config=config,
        limits=netpoll.ServerLimits(
            pending_max_bytes=1 << dice.randrange(12, 20),
            unread_max_bytes=1 << dice.randrange(14, 20),
            retained_max_bytes=1 << dice.randrange(12, 20),
            idle_timeout_s=dice.choice([None, 0.2]),
        ),
        **options,
    )
    dice = random.Random(dice.random())  # the server's thread has the other one
    clients: list[Client] = []
    deadline_s = time.monotonic() + 60
    while program.count < count and not program.faults and time.monotonic() < deadline_s:
        clients = [client for client in clients if not client.is_over]
        while program.peers:
            clients.append(Client(program, *program.peers.pop()))
        if len(clients) < CLIENTS and program.free:
            new = dial(serving, program, tls)
            clients += [new] if new is not None else []
        for client in clients:
            client.step(dice)
        time.sleep(0.0005)  # the server's turn
    if dice.random() < 0.5:
        program.is_calm = True
        for client in clients:
            client.end(lambda sock: sock.close())
    server.close(dice.choice([0, 0.1]))
    program.is_calm = True
    for client in clients:
        client.end(lambda sock: sock.close())
    for peer, _ in program.peers:
        peer.close()
    assert not program.faults
    wait_for(lambda: all(tag.closed for tag in program.tags))
    assert {tag.closed for tag in program.tags} <= {1}, "on_close() once for each connection"
    for tag in program.tags:
        while tag.kept:
            tag.kept.pop().release()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_programs_at_random(serving: Serving, tls: bool) -> None:
    run_programs(Program, OPERATIONS, serving.errors, partial(play, serving, tls))
