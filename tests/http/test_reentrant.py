"""Applications at random: they answer, read, fail, cancel and wait, for any request in progress,
from wherever code of theirs runs within a call of ours: fields, links, numbers, files, buffers,
iterators, finalisers, the collector. Their clients send in parts, pipeline, stop reading and go
away.

NETPOLL_REENTRANT_OPERATIONS (a thousand) says how many operations each test makes,
NETPOLL_REENTRANT_SEED with which seed they begin.
"""

import asyncio
import logging
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from netpoll import LoopConfig, http
from tests import programs_at_random as programs
from tests.programs_at_random import Chaos, Exporter, Trash, operations_count, run_programs
from tests.server.conftest import wait_for
from tests.support import reset

from .conftest import HttpServing

OPERATIONS = operations_count(1000)
CLIENTS = 16
# A client's tag is no byte of a head or of framing: whatever of these comes, has to be its own.
TAGS = range(128, 250)


class Exchange:
    """A request that is in progress: its tag, and what the application has of it."""

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.receive: Any = None
        self.send: Any = None
        self.request: Any = None
        self.task: Any = None


class Program(programs.Program):
    expected = reported = (
        *(Chaos, OSError, RuntimeError, ValueError, BufferError, TypeError),
        asyncio.CancelledError,
    )
    reach = 10

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.answered = 0

    def operations(self, exchange: Exchange) -> list[Callable[["Program", Exchange], None]]:
        return RAW if exchange.request is not None else ASGI

    def begin(self, tag: int) -> Exchange:
        self.thread_id = threading.get_ident()
        exchange = Exchange(tag)
        self.live.append(exchange)
        return exchange

    def end(self, exchange: Exchange) -> None:
        if exchange in self.live:
            self.live.remove(exchange)

    def check(self, exchange: Exchange, data: bytes) -> None:
        if data.strip(bytes([exchange.tag])):
            self.faults.append(f"bytes of another connection: {set(data)} at {exchange.tag}")

    def own_bytes(self, exchange: Exchange) -> bytes:
        return bytes([exchange.tag]) * self.random.choice([0, 1, 10, 3000, 20000, 100_000])

    def data(self, exchange: Exchange) -> Any:
        data = self.own_bytes(exchange)
        kind = self.random.randrange(5)
        if kind == 0:
            return bytearray(data)
        if kind == 1:
            return memoryview(data)
        if kind == 2 and sys.version_info >= (3, 12):
            return Exporter(self, exchange, data)
        if kind == 3:
            trash = TrashBytes(data)
            trash.program = self
            return trash
        return data

    def fields(self, exchange: Exchange) -> Iterator[tuple[bytes, bytes]]:
        self.operation(exchange)
        yield b"x-field", b"value"
        self.operation(exchange)
        if self.random.random() < 0.1:
            yield b"connection", b"close"
        if self.random.random() < 0.1:
            yield b"content-length", b"%d" % self.random.choice([0, 10, 3000])
        if self.random.random() < 0.05:
            raise Chaos


class TrashBytes(bytes):
    """Acts when it has left, or was copied."""

    program: Any = None

    def __del__(self) -> None:
        if self.program is not None:
            self.program.operation()


class Number:
    def __init__(self, program: Program, exchange: Exchange, value: int) -> None:
        self.program, self.exchange, self.value = program, exchange, value

    def __index__(self) -> int:
        self.program.operation(self.exchange)
        return self.value

    __int__ = __index__


class File:
    """A file of own bytes that acts when it is asked for its descriptor."""

    def __init__(self, program: Program, exchange: Exchange) -> None:
        self.program, self.exchange = program, exchange
        self.fd = os.memfd_create("bytes")
        os.write(self.fd, program.own_bytes(exchange))
        os.lseek(self.fd, 0, os.SEEK_SET)

    def fileno(self) -> int:
        self.program.operation(self.exchange)
        return self.fd

    def tell(self) -> int:
        self.program.operation(self.exchange)
        return 0

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


# ---- what an application does -------------------------------------------------------------------


def litter(program: Program, _exchange: Exchange) -> None:
    for _ in range(5):
        Trash(program)


def cancel(program: Program, exchange: Exchange) -> None:
    if exchange.task is not None:
        exchange.task.cancel()


def later(program: Program, exchange: Exchange) -> None:
    asyncio.get_running_loop().call_soon(program.operation, exchange)


def start(program: Program, exchange: Exchange) -> None:
    status = program.random.choice([200, 200, 200, 204, 304, 404, 99])
    exchange.send(
        {
            "type": "http.response.start",
            "status": Number(program, exchange, status),
            "headers": program.fields(exchange),
        }
    )


def body(program: Program, exchange: Exchange) -> None:
    more = program.random.random() < 0.7
    data = program.data(exchange)
    exchange.send({"type": "http.response.body", "body": data, "more_body": more})


def file(program: Program, exchange: Exchange) -> None:
    count = program.random.choice([None, 0, 100, 1 << 30])
    message = {
        "type": "http.response.zerocopysend",
        "file": File(program, exchange),
        "more_body": program.random.random() < 0.7,
    }
    if count is not None:
        message |= {"count": Number(program, exchange, count)}
        message |= {"offset": Number(program, exchange, 0)}
    exchange.send(message)


def hints(program: Program, exchange: Exchange) -> None:
    def links() -> Iterator[bytes]:
        for _ in range(2):
            program.operation(exchange)
            yield b"</style.css>; rel=preload"

    exchange.send({"type": "http.response.early_hint", "links": links()})


def receive(program: Program, exchange: Exchange) -> None:
    """A step of a receive that is not waited for."""
    wait = exchange.receive()
    try:
        wait.send(None)
    except StopIteration as done:
        program.check(exchange, done.value.get("body", b""))
    finally:
        wait.close()


def read(program: Program, exchange: Exchange) -> None:
    ways = [exchange.request.read, exchange.request.read_some, exchange.request.__anext__]
    wait = program.random.choice(ways)()
    try:
        wait.send(None)
    except StopIteration as done:
        program.check(exchange, done.value)
    except StopAsyncIteration:
        pass
    finally:
        wait.close()


def look(program: Program, exchange: Exchange) -> None:
    request = exchange.request
    _ = repr(request), request.method, request.target, request.path, request.query
    _ = request.version, request.headers, request.header("x-none"), request.client


COMMON: list[Callable[[Program, Exchange], None]] = [litter, litter, cancel, later]
ASGI = [*COMMON, *[start] * 4, *[body] * 6, *[file] * 2, *[receive] * 4, hints]
RAW = [*COMMON, *[read] * 4, *[look] * 2]


def asgi_of(program: Program) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchange = program.begin(int(scope["path"][1:]))
        exchange.receive, exchange.send = receive, send
        exchange.task = asyncio.current_task()
        try:
            for _ in range(program.random.randint(0, 8)):
                program.some_operations(exchange, 2)
                await some_wait(program, exchange)
            if program.random.random() < 0.8:
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": program.own_bytes(exchange)})
                program.answered += 1
                program.some_operations(exchange, 2)
            elif program.random.random() < 0.5:
                raise Chaos
        finally:
            program.end(exchange)

    return app


async def some_wait(program: Program, exchange: Exchange) -> None:
    kind = program.random.randrange(4)
    if kind == 0:
        message = await exchange.receive()
        program.check(exchange, message.get("body", b""))
    elif kind == 1:
        await asyncio.sleep(0)
    elif kind == 2:
        data = program.data(exchange)
        await exchange.send({"type": "http.response.body", "body": data, "more_body": True})


def answer_of(program: Program, exchange: Exchange) -> Any:
    """What a function returns."""
    kind = program.random.randrange(8)
    if kind == 0:
        raise Chaos
    if kind == 1:
        return object()
    if kind == 2:
        return program.own_bytes(exchange)
    payload: Any = program.data(exchange)
    if kind == 3:
        payload = File(program, exchange)
    elif kind == 4:
        payload = parts(program, exchange)
    elif kind == 5:
        payload = async_parts(program, exchange)
    program.answered += 1
    return http.Response(payload, Number(program, exchange, 200), headers=program.fields(exchange))


def parts(program: Program, exchange: Exchange) -> Iterator[Any]:
    for _ in range(program.random.randint(0, 4)):
        program.some_operations(exchange, 2)
        yield program.data(exchange)


async def async_parts(program: Program, exchange: Exchange) -> Any:
    for part in parts(program, exchange):
        await asyncio.sleep(0)
        yield part


def function_of(program: Program) -> Any:
    def handler(request: http.Request) -> Any:
        exchange = program.begin(int(request.path[1:]))
        exchange.request = request
        try:
            program.check(exchange, request.body)
            program.some_operations(exchange, 4)
            return answer_of(program, exchange)
        finally:
            if program.random.random() < 0.7:  # else it is kept, beyond its answer
                program.end(exchange)

    return handler


def async_function_of(program: Program) -> Any:
    async def handler(request: http.Request) -> Any:
        exchange = program.begin(int(request.path[1:]))
        exchange.request = request
        exchange.task = asyncio.current_task()
        try:
            for _ in range(program.random.randint(0, 4)):
                program.some_operations(exchange, 2)
                if program.random.random() < 0.5:
                    program.check(exchange, await request.read_some())
            return answer_of(program, exchange)
        finally:
            if program.random.random() < 0.7:
                program.end(exchange)

    return handler


APPLICATIONS = {"asgi": asgi_of, "function": function_of, "async": async_function_of}


# ---- who asks it --------------------------------------------------------------------------------


class Client(programs.Peer):
    """Sends bodies of its tag, and wants to see no other."""

    def __init__(
        self, program: Program, sock: socket.socket, tag: int, dice: random.Random
    ) -> None:
        super().__init__(program, sock)
        self.tag, self.dice = tag, dice
        self.unsent = b""

    def request(self) -> bytes:
        payload = bytes([self.tag]) * self.dice.choice([0, 0, 5, 3000, 90_000])
        head = b"POST /%d HTTP/1.%d\r\nhost: a\r\n" % (self.tag, self.dice.random() < 0.9)
        if self.dice.random() < 0.1:
            head += b"expect: 100-continue\r\n"
        if b"1.1" in head and self.dice.random() < 0.3:
            head += b"transfer-encoding: chunked\r\n\r\n"
            size = self.dice.choice([7, 1000, 50_000])
            pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
            framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
            return head + b"".join(framed) + b"0\r\n\r\n"
        return head + b"content-length: %d\r\n\r\n" % len(payload) + payload

    def step(self) -> None:
        kind = self.dice.randrange(20)
        try:
            if kind < 9:
                if not self.unsent:
                    self.unsent = self.request() * self.dice.choice([1, 1, 1, 4])
                size = self.dice.choice([1, 40, 1000, 1 << 20])
                self.unsent = self.unsent[self.sock.send(self.unsent[:size]) :]
            elif kind == 9 and self.dice.random() < 0.2:
                self.sock.shutdown(socket.SHUT_WR)
            elif kind == 10 and self.dice.random() < 0.2:
                self.end(reset)
            elif kind == 11 and self.dice.random() < 0.1:
                self.unsent += b"no request\0"
            else:
                data = self.sock.recv(1 << 17)
                if strange := {byte for byte in data if byte >= TAGS[0]} - {self.tag}:
                    self.program.faults.append(f"client {self.tag} got {strange}")
                if not data:
                    self.end(lambda sock: sock.close())
        except BlockingIOError:
            pass
        except OSError:
            self.end(lambda sock: sock.close())


def play(serving: HttpServing, kind: str, program: Program, config: LoopConfig, count: int) -> None:
    """One server's life."""
    dice = random.Random(program.random.random())  # the server's thread has the other one
    server = serving(
        APPLICATIONS[kind](program),
        interface="asgi" if kind == "asgi" else "raw",
        lifespan="off",
        config=config,
        limits=http.HttpLimits(
            body_max_bytes=dice.choice([None, 50_000]),
            head_timeout_s=dice.choice([None, 1.0]),
            stall_timeout_s=dice.choice([None, 1.0]),
            keep_alive_timeout_s=dice.choice([None, 0.2]),
        ),
    )
    clients: list[Client] = []
    tag = 0
    deadline_s = time.monotonic() + 60
    while program.count < count and not program.faults and time.monotonic() < deadline_s:
        clients = [client for client in clients if not client.is_over]
        if len(clients) < CLIENTS:
            tag += 1
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.setblocking(False)
            clients.append(Client(program, sock, TAGS[tag % len(TAGS)], dice))
        for client in clients:
            client.step()
        time.sleep(0.0005)  # the server's turn
    if dice.random() < 0.5:
        program.is_calm = True
        for client in clients:
            client.end(reset)  # a close would wait for what nobody reads
        wait_for(lambda: server.stats()["connections"] == 0)
    for client in clients:
        client.end(reset)  # what it has not read is memory of a zero-copy send
    server.close(dice.choice([0, 0.1]))
    program.is_calm = True
    program.live.clear()
    assert not program.faults
    assert program.answered, "they never came to an answer"


@pytest.mark.parametrize("kind", APPLICATIONS)
def test_applications_at_random(
    http_serving: HttpServing, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("netpoll.http"), "disabled", True)  # of their failures
    run_programs(Program, OPERATIONS, http_serving.errors, partial(play, http_serving, kind))
