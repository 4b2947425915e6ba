"""What programs do while faults happen to their loops: each a coroutine that checks every byte.

Round is one loop, or a server with its loop, from one seed: several of these programs at once on a
configuration that the seed chooses, then the end of everything, and the counters. A round that
fails says how to repeat it.
"""

import asyncio
import contextlib
import functools
import gc
import io
import os
import random
import socket
import ssl
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Iterator
from concurrent import futures
from typing import Any

import netpoll
from netpoll import LoopConfig, _core
from netpoll.sched import Scheduler
from netpoll.testing import QUIET_KINDS, TOLD_KINDS, Faults
from tests.support import SLOWNESS, pattern, socket_pair, unix_pair

ROUND_TIMEOUT_S = 20.0 * SLOWNESS
ZERO = ("ops_live", "ready_count", "timers_count", "transports_count", "notifs_pending")
CONFIGS = [
    {},
    {"sq_entries": 8, "cq_entries": 16},
    {"buf_count": 2, "buf_bytes": 4096},
    {"buf_count": 8, "buf_bytes": 512, "features_off": ("buf_inc",)},
]
# A tenth of the rate: a second's pause may follow, or the end of a connection.
RARE = ("accept", *TOLD_KINDS)
# What the accepts that fail are told as: they are tried again.
ACCEPT_MESSAGES = ("accept() out of system resource", "accepting pauses", "accepting stops")
HOST = "127.0.0.1"

Program = Callable[["Round"], Coroutine[Any, Any, None]]


class BrokenError(AssertionError):
    """A round has not gone as it should; the text says how to repeat it."""


def rates(rate: float, is_told: bool) -> dict[str, float]:
    kinds = QUIET_KINDS + (TOLD_KINDS if is_told else ())
    return {kind: rate / 10 if kind in RARE else rate for kind in kinds}


def is_told_of(error: BaseException | None) -> bool:
    """A connection, or a call, has ended with an error that a program knows how to take."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_told_of(one) for one in error.exceptions)
    kinds = (OSError, EOFError, MemoryError, asyncio.IncompleteReadError)
    return isinstance(error, kinds) and not isinstance(error, TimeoutError)


class Round:
    """One seed's programs, on one backend. is_told: the errors among the faults, too."""

    def __init__(
        self, backend: str, seed: int, *, tls: bool = False, rate: float = 0.1, told: bool = False
    ) -> None:
        self.backend, self.seed, self.is_told = backend, seed, told
        self.command = f"python -m tests.faults.injected --backend {backend} --seed {seed}"
        self.command += f" --rounds 1 --rate {rate:g}" + " --tls" * tls + " --told" * told
        self.dice = random.Random(seed)
        self.faults = Faults(seed=seed, kinds=rates(rate, told))
        self.config = LoopConfig(**self.dice.choice(CONFIGS))
        self.contexts = contexts() if tls else None
        self.loops: list[Any] = []
        self.errors: list[dict[str, Any]] = []

    def run(self, count: int = 6) -> dict[str, int]:
        """Runs `count` programs at once; returns what has happened to them."""
        programs = [self.dice.choice(PROGRAMS) for _ in range(count)]
        with self.faults, self.births():
            loop = netpoll.new_event_loop(backend=self.backend, config=self.config)
            self.listen(loop)
            try:
                loop.run_until_complete(self.play(programs))
                loop.run_until_complete(loop.shutdown_default_executor())
            except BaseException as error:
                raise BrokenError(self.dump(error, programs)) from error
            finally:
                loop.close()
        gc.collect()
        problems = [*self.leaks(), *self.complaints()]
        if problems:
            raise BrokenError("\n".join([self.command, *problems]))
        return self.faults.counts()

    @contextlib.contextmanager
    def births(self) -> Iterator[None]:
        _core.ON_BIRTH.append(self.loops.append)
        try:
            yield
        finally:
            _core.ON_BIRTH.remove(self.loops.append)

    def listen(self, loop: Any) -> Any:
        loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        return loop

    async def play(self, programs: list[Program]) -> None:
        """All of them; one that fails ends the others, and so does the time limit."""
        tasks = [asyncio.ensure_future(self.one(program)) for program in programs]
        done, waiting = await asyncio.wait(
            tasks, timeout=ROUND_TIMEOUT_S, return_when=asyncio.FIRST_EXCEPTION
        )
        stacks = io.StringIO()
        if waiting:
            for task in asyncio.all_tasks():
                task.print_stack(file=stacks)
            for loop in self.loops:
                print(loop, loop.stats(), file=stacks)
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting, timeout=ROUND_TIMEOUT_S)
        for task in done:
            task.result()
        if waiting:
            raise TimeoutError(f"not done in {ROUND_TIMEOUT_S} s\n{stacks.getvalue()}")
        await all_ended()

    async def one(self, program: Program) -> None:
        try:
            await program(self)
        except BaseException as error:
            if not (self.is_told and is_told_of(error)):
                raise

    # ---- what is wrong ------------------------------------------------------------------------

    def leaks(self) -> list[str]:
        found = []
        for loop in self.loops:
            stats = loop.stats()
            found += [f"{name} == {stats[name]} after close" for name in ZERO if stats[name]]
            if not loop.is_closed():
                found.append(f"{loop!r} is not closed")
            if stats["bufs_free"] != stats["bufs_total"]:
                found.append(f"bufs_free == {stats['bufs_free']} of {stats['bufs_total']}")
        return found

    def complaints(self) -> list[str]:
        """What the exception handlers were told, that they should not have been."""
        return [
            f"exception handler was told: {context}"
            for context in self.errors
            if not (self.is_told and is_told_of(context.get("exception")))
            and not any(text in str(context["message"]) for text in ACCEPT_MESSAGES)
        ]

    def dump(self, error: BaseException, programs: list[Program]) -> str:
        lines = [self.command, f"programs: {[program.__name__ for program in programs]}"]
        lines += [f"config: {self.config}", f"faults: {self.faults.counts()}", *self.complaints()]
        for loop in self.loops:
            lines.append(f"{loop!r}: {loop.stats()}")
        lines += "".join(traceback.format_exception(error)).splitlines()
        return "\n".join(lines)

    # ---- for the programs ---------------------------------------------------------------------

    def size(self, most: int = 200_000) -> int:
        """Small ones are as likely as large ones."""
        return int(most ** self.dice.random())

    def data(self) -> bytes:
        return pattern(self.size(), self.dice.randrange(1 << 20))

    @property
    def client_ssl(self) -> dict[str, Any]:
        if self.contexts is None:
            return {}
        return {"ssl": self.contexts[1], "server_hostname": "localhost"}

    @property
    def server_ssl(self) -> dict[str, Any]:
        return {} if self.contexts is None else {"ssl": self.contexts[0]}


async def all_ended() -> None:
    """The other ends, too: the tasks and the transports of this loop."""
    loop: Any = asyncio.get_running_loop()
    async with asyncio.timeout(ROUND_TIMEOUT_S):
        while len(asyncio.all_tasks()) > 1 or loop.stats()["transports_count"]:
            await asyncio.sleep(0.001)


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    from tests.tls import client_context, server_context

    return server_context(), client_context()


# ---- protocols ------------------------------------------------------------------------------


class Mirror(asyncio.Protocol):
    """Sends back what it gets, and its end; does not read while it cannot write."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def eof_received(self) -> None:
        """The transport closes."""


class Speaker(asyncio.Protocol):
    """Writes `data` in pieces, in turns of its own, and reads it back; pauses reading at times."""

    def __init__(self, own: Round, data: bytes) -> None:
        self.own, self.data = own, data
        self.got = bytearray()
        self.at = 0
        self.is_paused = False
        self.lost: asyncio.Future[BaseException | None] = asyncio.Future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=self.own.size(100_000))
        self.speak()

    def speak(self) -> None:
        while self.at < len(self.data) and not self.is_paused:
            size = self.own.size(70_000)
            piece = self.data[self.at : self.at + size]
            self.at += len(piece)
            if self.own.dice.random() < 0.3:
                self.transport.writelines([piece[: size // 2], piece[size // 2 :]])
            else:
                self.transport.write(piece)
            if self.own.dice.random() < 0.5:
                asyncio.get_running_loop().call_soon(self.speak)
                return

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self.speak()

    def data_received(self, data: bytes) -> None:
        assert data == self.data[len(self.got) : len(self.got) + len(data)], "other bytes came back"
        self.got += data
        if len(self.got) == len(self.data):
            self.transport.close()
        elif self.own.dice.random() < 0.1:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(0.001, self.transport.resume_reading)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)  # twice is an error


async def protocols(own: Round) -> None:
    loop: Any = asyncio.get_running_loop()
    server = await loop.create_server(Mirror, HOST, 0, **own.server_ssl)
    address = server.sockets[0].getsockname()
    try:
        for _ in range(4):
            data = own.data()
            _, speaker = await loop.create_connection(
                functools.partial(Speaker, own, data), *address, **own.client_ssl
            )
            error = await speaker.lost
            if error is not None:
                raise error
            if len(speaker.got) < len(data):
                raise EOFError(f"{len(data) - len(speaker.got)} bytes did not come back")
    finally:
        server.close()


# ---- streams --------------------------------------------------------------------------------


async def mirror_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


async def ask(own: Round, address: Any, count: int) -> None:
    """Requests and answers over one connection, read in one of four ways."""
    reader, writer = await asyncio.open_connection(*address, **own.client_ssl)
    try:
        for _ in range(count):
            data = own.data() + b"\n"
            writer.write(data)
            if own.dice.random() < 0.5:
                await writer.drain()
            got = b""
            while len(got) < len(data):
                way = own.dice.randrange(3)
                left = len(data) - len(got)
                if way == 0:
                    got += await reader.readexactly(own.dice.randint(1, left))
                elif way == 1:
                    got += await reader.readexactly(left)
                elif not (piece := await reader.read(left)):
                    raise EOFError(f"{left} bytes did not come back")
                else:
                    got += piece
            assert got == data, "other bytes came back"
        if own.contexts is None and own.dice.random() < 0.5:
            writer.write_eof()
            if rest := await reader.read():
                raise AssertionError(f"{len(rest)} bytes that nobody sent")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def streams(own: Round) -> None:
    server = await asyncio.start_server(mirror_stream, HOST, 0, **own.server_ssl)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ask(own, server.sockets[0].getsockname(), 5))
    finally:
        server.close()


async def late_tls(own: Round) -> None:
    """TLS that begins on a connection that has talked already."""
    if own.contexts is None:
        return
    server_context, client_context = own.contexts

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            writer.write(await reader.readexactly(3))
            await writer.start_tls(server_context)
            await mirror_stream(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        writer.write(b"tls")
        assert await reader.readexactly(3) == b"tls"
        await writer.start_tls(client_context, server_hostname="localhost")
        for _ in range(5):
            data = own.data()
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        server.close()


# ---- sockets --------------------------------------------------------------------------------


async def sockets(own: Round) -> None:
    loop: Any = asyncio.get_running_loop()
    left, right = socket_pair()
    with left, right:
        for _ in range(8):
            data = own.data()
            sending = asyncio.ensure_future(loop.sock_sendall(left, data))
            got = bytearray()
            room = bytearray(50_000)
            while len(got) < len(data):
                if own.dice.random() < 0.5:
                    got += await loop.sock_recv(right, own.size(100_000))
                else:
                    got += room[: await loop.sock_recv_into(right, room)]
                if own.dice.random() < 0.1:  # a receive that is cancelled loses nothing
                    waiting = asyncio.ensure_future(loop.sock_recv(right, 100))
                    await asyncio.sleep(0)
                    waiting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        got += await waiting
            await sending
            assert got == data, "other bytes came"


async def accepted_sockets(own: Round) -> None:
    loop: Any = asyncio.get_running_loop()
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(8)
        listener.setblocking(False)
        for _ in range(5):
            left = socket.socket()
            left.setblocking(False)
            with left:
                accepting = asyncio.ensure_future(loop.sock_accept(listener))
                await loop.sock_connect(left, listener.getsockname())
                right, _ = await accepting
                with right:
                    await loop.sock_sendall(left, b"hello")
                    assert await loop.sock_recv(right, 100) == b"hello"


async def readers(own: Round) -> None:
    """add_reader and add_writer, by hand: the readiness may be none."""
    loop: Any = asyncio.get_running_loop()
    left, right = unix_pair()
    data = own.data()
    got = bytearray()
    sent = 0
    done = loop.create_future()

    def on_writable() -> None:
        nonlocal sent
        with contextlib.suppress(BlockingIOError):
            sent += left.send(data[sent : sent + own.size(50_000)])
        if sent == len(data):
            loop.remove_writer(left)

    def on_readable() -> None:
        with contextlib.suppress(BlockingIOError):
            got.extend(right.recv(own.size(50_000)))
        if len(got) == len(data):
            loop.remove_reader(right)
            done.set_result(None)

    with left, right:
        loop.add_writer(left, on_writable)
        loop.add_reader(right, on_readable)
        await done
        assert got == data, "other bytes came"


# ---- files ----------------------------------------------------------------------------------


async def files(own: Round) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        pieces = [own.data() for _ in range(6)]
        async with netpoll.open(path, "wb") as file:
            for piece in pieces:
                assert await file.write(piece) == len(piece)
        with open(path, "rb") as plain:
            assert plain.read() == b"".join(pieces), "another content was written"
        got = b""
        async with netpoll.open(path, "rb") as file:
            while piece := await file.read(own.size(300_000)):
                got += piece
        assert got == b"".join(pieces), "another content was read"


# ---- the server -----------------------------------------------------------------------------


def on_data(conn: netpoll.Connection) -> None:
    """Sends back what it gets, in one of three ways."""
    way = conn.available % 3
    if way == 0:
        conn.forward()
    elif way == 1:
        conn.write(conn.take())
    else:
        lease = conn.lease().retain()
        conn.writev([lease.tobytes()])
        lease.release()


async def session(conn: netpoll.Connection) -> None:
    while await conn.fill():
        conn.write(conn.take())
        await conn.drain()


def on_request(conn: netpoll.Connection) -> None:
    """From memory of the server's pool: what is large leaves without a copy where that works."""
    while size := conn.available:
        with conn.lease(min(size, 65536)) as lease:
            buffer = conn.reserve(len(lease))
            buffer.write(lease.tobytes())
            buffer.commit()
            conn.write(buffer)


async def served(own: Round) -> None:
    loop = asyncio.get_running_loop()
    handler = own.dice.choice([on_data, session, on_request])
    server = netpoll.Server(
        handler, HOST, 0, backend=own.backend, workers=own.dice.randint(1, 2), config=own.config,
        **own.server_ssl,
    )  # fmt: skip
    new_loop = server._new_loop
    server._new_loop = lambda: own.listen(new_loop())
    await loop.run_in_executor(None, server.start)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ask(own, (HOST, server.port), 5))
    finally:
        await loop.run_in_executor(None, server.close)


# ---- the scheduler --------------------------------------------------------------------------


async def scheduled(own: Round) -> None:
    """Streams on the rings of a scheduler's workers."""
    loop = asyncio.get_running_loop()

    async def talk() -> None:
        try:
            await streams(own)
        finally:
            await all_ended()

    def whole() -> None:
        with Scheduler(workers=2) as scheduler:
            each = [
                own.listen(scheduler.loop(n, backend=own.backend, config=own.config))
                for n in range(2)
            ]
            talks = [asyncio.run_coroutine_threadsafe(talk(), one) for one in each]
            futures.wait(talks, ROUND_TIMEOUT_S)
            for one in talks:
                one.result(0)

    await loop.run_in_executor(None, whole)


PROGRAMS: list[Program] = [
    protocols,
    streams,
    late_tls,
    sockets,
    accepted_sockets,
    readers,
    files,
    served,
    scheduled,
]
