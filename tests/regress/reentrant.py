"""Programs at random that use, end and replace everything of a loop from wherever code of theirs
runs within a call of ours: protocols' callbacks, iterators, numbers, addresses, sockets' methods,
buffers, pieces of data, handles' parts, variables of a context, finalisers, the collector.

NETPOLL_REENTRANT_OPERATIONS (a few hundred) says how many operations each part makes,
NETPOLL_REENTRANT_SEED with which seed they begin. No byte may come out of another connection, and
every connection that was made is lost once.
"""

import asyncio
import contextlib
import contextvars
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

from netpoll import BufferPool, files
from netpoll.sched import sleep

from ..support import SLOWNESS, unix_pair
from ..tls import HOST, client_context, server_context
from .chaos import (
    EXPECTED,
    SIZES,
    THINGS,
    TRASH_MAX,
    Actor,
    Array,
    Callback,
    Chaos,
    Exporter,
    Fate,
    Number,
    Operation,
    Program,
    Socket,
    Trash,
    acting,
    is_expected,
    variable,
)

__all__ = ["PARTS", "is_expected", "play"]

OPERATIONS = int(os.environ.get("NETPOLL_REENTRANT_OPERATIONS", "400"))
SEED = int(os.environ.get("NETPOLL_REENTRANT_SEED", "1"))
ROUND_OPERATIONS = 2000
ROUND_S = 60 * SLOWNESS
CONFIGS: list[dict[str, Any]] = [
    {},
    {"sq_entries": 8, "cq_entries": 16},
    {"features_off": ("recv_multi",), "buf_count": 4, "buf_bytes": 4096},
    {"buf_count": 16, "buf_bytes": 8192},
]


# ---- connections ------------------------------------------------------------------------------


class Connection:
    """One end of a stream, TLS stream or pipe: all that it may see and say is `byte`."""

    def __init__(self, program: Program, byte: int) -> None:
        self.program, self.byte = program, byte
        self.transport: Any = None
        self.fate = Fate()
        program.fates.append(self.fate)

    @property
    def operations(self) -> list[Operation]:
        return STREAM if self.transport is not None else GENERAL

    def connection_made(self, transport: Any) -> None:
        self.fate.made += 1
        self.transport = transport
        self.program.things.append(self)
        self.program.some_operations(self, 2)

    def connection_lost(self, _exc: Any) -> None:
        self.fate.lost += 1
        self.program.some_operations(self, 2)
        self.transport = None
        if self in self.program.things:
            self.program.things.remove(self)

    def received(self, data: Any) -> None:
        if self.fate.lost or not self.fate.made:
            self.program.faults.append(f"data, made {self.fate.made} lost {self.fate.lost}")
        self.program.check(self, data)
        self.program.some_operations(self, 4)

    def buffer_updated(self, _count: int) -> None:
        """Of a buffer that another protocol gave, which has set this one then."""

    def eof_received(self) -> bool:
        self.program.some_operations(self, 2)
        return self.program.random.random() < 0.5

    def pause_writing(self) -> None:
        self.program.some_operations(self, 2)

    def resume_writing(self) -> None:
        self.program.some_operations(self, 2)


class Plain(Connection, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.received(data)


class Buffered(Connection, asyncio.BufferedProtocol):
    buffer = bytearray()

    def get_buffer(self, _hint: int) -> Any:
        self.program.some_operations(self, 1)
        size = self.program.random.choice([0, 10, 5000, 5000, 70000])
        self.buffer = bytearray(size)
        if sys.version_info >= (3, 12) and self.program.random.random() < 0.3:
            return Exporter(self.program, self, self.buffer)
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        self.received(self.buffer[:count])


class Follower(Plain):
    """Takes a connection over from another protocol: nobody has made it to this one."""

    def __init__(self, program: Program, before: Connection) -> None:
        super().__init__(program, before.byte)
        self.transport, self.fate = before.transport, before.fate
        program.things.append(self)
        if before in program.things:
            program.things.remove(before)


class BufferedFollower(Follower, Buffered):
    pass


def a_protocol(program: Program, byte: int) -> Callable[[], Any]:
    return lambda: program.random.choice([Plain, Plain, Buffered])(program, byte)


async def make_streams(program: Program) -> None:
    left, right = unix_pair()
    byte = next(program.bytes)
    for sock in (left, right):
        mine = acting(sock, program, None)
        if program.random.random() < 0.25:
            reader, writer = await asyncio.open_connection(sock=mine, limit=2000)
            program.things.append(Stream(program, byte, reader, writer))
        else:
            await program.loop.create_connection(a_protocol(program, byte), sock=mine)


async def make_tls(program: Program) -> None:
    left, right = unix_pair()
    byte = next(program.bytes)
    server = server_context()
    if program.random.random() < 0.3:
        server.sni_callback = lambda *_args: program.some_operations(None, 2)
    client = client_context()
    timeouts = {"ssl_handshake_timeout": 2 * SLOWNESS, "ssl_shutdown_timeout": 0.1 * SLOWNESS}
    await asyncio.gather(
        program.loop.connect_accepted_socket(
            a_protocol(program, byte), acting(left, program, None), ssl=server, **timeouts
        ),
        program.loop.create_connection(
            a_protocol(program, byte),
            sock=acting(right, program, None),
            ssl=client,
            server_hostname=HOST,
            **timeouts,
        ),
        return_exceptions=True,
    )


async def make_pipes(program: Program) -> None:
    reading, writing = os.pipe()
    byte = next(program.bytes)
    protocol = Plain(program, byte), Plain(program, byte)
    await program.loop.connect_read_pipe(lambda: protocol[0], open(reading, "rb", buffering=0))
    await program.loop.connect_write_pipe(lambda: protocol[1], open(writing, "wb", buffering=0))


class Stream:
    """asyncio's streams. A read that waits keeps its number of bytes to itself."""

    def __init__(self, program: Program, byte: int, reader: Any, writer: Any) -> None:
        self.program, self.byte, self.reader, self.writer = program, byte, reader, writer
        self.transport = writer.transport
        self.fate = Fate()
        self.operations = [*STREAM, *[read_stream] * 8, *[feed_stream] * 2]

    async def read(self, what: Any) -> None:
        self.program.check(self, await what)


def read_stream(program: Program, stream: Stream) -> None:
    reader, size = stream.reader, program.random.choice([1, 500, 5000, 70000])
    kind = program.random.randrange(5)
    if kind == 0:
        what = reader.readexactly(size)
    elif kind == 1:
        what = reader.readuntil(b"\0")
    elif kind == 2:
        what = stream.writer.drain()
        return None if type(what).__name__ == "Ready" else program.start(what)
    else:
        what = reader.read(size)
    program.start(stream.read(what))
    return None


def feed_stream(program: Program, stream: Stream) -> None:
    kind = program.random.randrange(5)
    if kind == 0 and not stream.reader._eof:
        stream.reader.feed_data(program.data(stream))
    elif kind == 1:
        len(stream.reader._buffer)
    elif kind == 2:
        stream.reader.set_exception(Chaos())
    elif kind == 3:
        stream.reader._limit = program.random.choice([1, 1000, 1 << 70])
    else:
        if stream.transport.is_closing():
            return
        protocol = Plain(program, stream.byte)
        protocol.transport, protocol.fate = stream.transport, stream.fate
        stream.fate.made = 1
        stream.transport.set_protocol(protocol)


def write(program: Program, own: Any) -> None:
    getattr(own.transport, "write", len)(program.data(own))


def writelines(program: Program, own: Any) -> None:
    getattr(own.transport, "writelines", list)(program.pieces(own))


def limits(program: Program, own: Any) -> None:
    high = program.random.choice([None, 0, 1, 5000, 10**6])
    if not hasattr(own.transport, "set_write_buffer_limits"):
        return
    own.transport.set_write_buffer_limits(high, 0 if high is not None else None)


def look(program: Program, own: Any) -> None:
    repr(own.transport), own.transport.is_closing()
    getattr(own.transport, "get_write_buffer_size", bool)()
    for name in ("socket", "peername", "sockname", "ssl_object", "cipher", "pipe"):
        own.transport.get_extra_info(name)
    _ = own.transport._extra if hasattr(own.transport, "_extra") else None


def follow(program: Program, own: Any) -> None:
    if isinstance(own, Connection) and own.fate.made and not own.fate.lost:
        kind = program.random.choice([Follower, BufferedFollower])
        own.transport.set_protocol(kind(program, own))


def call(name: str) -> Operation:
    return lambda _program, own: getattr(own.transport, name, bool)()


STREAM: list[Operation] = [
    *[write] * 8,
    *[writelines] * 4,
    *[call("pause_reading")] * 2,
    *[call("resume_reading")] * 5,
    *[look] * 2,
    limits,
    follow,
    call("write_eof"),
    call("close"),
    call("abort"),
]


# ---- datagrams --------------------------------------------------------------------------------


class Packets(asyncio.DatagramProtocol):
    def __init__(self, program: Program) -> None:
        self.program = program
        self.fate = Fate()
        program.fates.append(self.fate)
        self.transport: Any = None
        self.byte = next(program.bytes)
        self.operations = [*DATAGRAM]

    def connection_made(self, transport: Any) -> None:
        self.fate.made += 1
        self.transport = transport
        self.name = transport.get_extra_info("sockname")
        self.program.things.append(self)
        self.program.some_operations(self, 2)

    def connection_lost(self, _exc: Any) -> None:
        self.fate.lost += 1
        self.program.some_operations(self, 2)
        self.program.things.remove(self)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.fate.lost or not self.fate.made or len(set(data)) > 1:
            self.program.faults.append(f"{set(data)} from {addr}: lost {self.fate.lost}")
        self.program.some_operations(self, 4)

    def error_received(self, _exc: Any) -> None:
        self.program.some_operations(self, 2)

    def pause_writing(self) -> None:
        self.program.some_operations(self, 2)

    resume_writing = pause_writing


async def make_datagrams(program: Program) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    mine = acting(sock, program, None)
    await program.loop.create_datagram_endpoint(lambda: Packets(program), sock=mine)


def send_datagram(program: Program, own: Any) -> None:
    others = [thing for thing in program.things if isinstance(thing, Packets)]
    if not others:
        return
    host, port = program.random.choice(others).name
    address: Any = (host, port)
    if program.random.random() < 0.3:
        address = (host, Number(program, own, port))
    elif program.random.random() < 0.2:
        address = ("localhost", port)
    data = bytes([own.byte]) * program.random.choice(SIZES[:4])
    kind = program.random.randrange(4)
    for _ in range(program.random.choice([1, 1, 3, 70])):
        own.transport.sendto(Array(program, own, data) if kind == 0 else data, address)


DATAGRAM: list[Operation] = [
    *[send_datagram] * 10,
    call("pause_reading"),
    *[call("resume_reading")] * 3,
    limits,
    lambda program, own: (repr(own.transport), own.transport.get_write_buffer_size()),
    call("close"),
    call("abort"),
]


# ---- sock_*, add_reader -----------------------------------------------------------------------


class Raw:
    """A socket of its own, for the loop's sock_* calls and readers."""

    def __init__(self, program: Program, sock: Socket, byte: int) -> None:
        self.sock, self.byte = sock, byte
        self.operations = RAW
        sock.actor = Actor(program, self)
        program.things.append(self)

    def end(self) -> None:
        self.sock.actor = None
        self.sock.close()


async def make_sockets(program: Program) -> None:
    kind = socket.SOCK_STREAM if program.random.random() < 0.7 else socket.SOCK_DGRAM
    byte = next(program.bytes)
    for sock in socket.socketpair(socket.AF_UNIX, kind):
        Raw(program, acting(sock, program, None), byte)


def sock_call(program: Program, own: Raw) -> None:
    loop, sock, random_ = program.loop, own.sock, program.random
    memory: Any = bytearray(random_.choice(SIZES))
    if sys.version_info >= (3, 12) and random_.random() < 0.3:
        memory = Exporter(program, own, memory)
    data = bytes([own.byte]) * random_.choice(SIZES)

    async def receive() -> None:
        got = await loop.sock_recv(sock, random_.choice([0, 10, 5000, 70000]))
        program.check(own, got)

    async def receive_into() -> None:
        await loop.sock_recv_into(sock, memory)

    async def resize() -> None:
        call = loop.sock_recv_into(sock, memory)
        with contextlib.suppress(StopIteration, *EXPECTED):
            call.send(None)
        if isinstance(memory, bytearray):
            with contextlib.suppress(BufferError):
                memory.extend(b"x" * 100000)
        program.operation(own)
        call.close()

    async def send() -> None:
        await loop.sock_sendall(sock, random_.choice([data, bytearray(data), memory]))

    if isinstance(memory, bytearray):
        memory[:] = bytes([own.byte]) * len(memory)
    else:
        memory.value[:] = bytes([own.byte]) * len(memory.value)
    makers = [receive, receive, receive_into, resize, send, send]
    makers += [lambda: loop.sock_recvfrom(sock, 100)]
    program.start(random_.choice(makers)())


def cancel_one(program: Program, _own: Any) -> None:
    if program.tasks:
        program.random.choice(list(program.tasks)).cancel()


def watch(program: Program, own: Raw) -> None:
    callback = Callback(program, own)
    kind = program.random.choice(["add_reader", "add_writer"])
    if program.random.random() < 0.5:
        getattr(program.loop, kind.replace("add", "remove"))(own.sock)
    else:
        getattr(program.loop, kind)(own.sock, callback, Trash(program, own), callback)


def end_socket(program: Program, own: Raw) -> None:
    program.loop.remove_reader(own.sock)
    program.loop.remove_writer(own.sock)
    own.sock.close()
    if own in program.things:
        program.things.remove(own)


RAW: list[Operation] = [*[sock_call] * 12, *[watch] * 4, *[cancel_one] * 2, end_socket]


# ---- files ------------------------------------------------------------------------------------


class File:
    def __init__(self, program: Program, file: Any, byte: int) -> None:
        self.file, self.byte = file, byte
        self.operations = FILE
        program.things.append(self)


async def make_files(program: Program) -> None:
    byte = next(program.bytes)
    path = os.path.join(program.directory.name, str(byte))
    mode = program.random.choice(["w+b", "w+b", "r+b" if os.path.exists(path) else "w+b"])
    file = await files.open(path, mode, buffering=program.random.choice([-1, 0, 100]))
    File(program, file, byte)


def file_call(program: Program, own: File) -> None:
    random_, file = program.random, own.file

    async def read() -> None:
        data = await file.read(random_.choice([1, 100, 100000]))
        program.check(own, data.replace(b"\0", b""))  # what write_at() leaves out

    async def read_into() -> None:
        memory = bytearray(random_.choice(SIZES))
        with contextlib.suppress(BufferError):
            program.operation(own)
        got = await file.readinto(memory)
        program.check(own, memory[:got].replace(b"\0", b""))

    async def seek() -> None:
        await file.seek(0)

    async def at() -> None:
        fd = file.fileno()
        await files.write_at(fd, bytes([own.byte]) * 100, 5000)
        await files.read_at(fd, 100, 0)
        await files.readinto_at(fd, bytearray(100), 0)

    async def close() -> None:
        if random_.random() < 0.1:
            await file.close()
            if own in program.things:
                program.things.remove(own)

    async def write_one() -> None:
        await file.write(program.data(own))

    async def write_many() -> None:
        await file.writelines(program.pieces(own))

    makers = [read, read_into, seek, at, close, write_one, write_many, file.flush, file.truncate]
    program.start(random_.choice(makers)())


FILE: list[Operation] = [*[file_call] * 6, cancel_one]


# ---- the scheduler, the raw ring, memory ------------------------------------------------------


class Anything:
    """What needs no object of its own: tasks, timers, entries of the ring, pools."""

    byte = 1

    def __init__(self, operations: list[Operation]) -> None:
        self.operations = operations
        self.pool: Any = None
        self.buffers: list[Any] = []


def spawn(program: Program, own: Any) -> None:
    """In a context without the variable: CPython's own set() does not bear it that the value
    which it replaces sets the variable when it goes."""
    contextvars.Context().run(spawn_here, program, own)


def spawn_here(program: Program, own: Any) -> None:
    scheduler, random_ = program.scheduler, program.random

    def plain(*_args: Any) -> Any:
        program.some_operations(own, 3)
        return random_.choice([None, [1], Trash(program, own)])

    async def coroutine(*_args: Any) -> None:
        for _ in range(random_.randrange(4)):
            program.some_operations(own, 2)
            if program.handles and random_.random() < 0.5:
                await random_.choice(program.handles)
            else:
                await sleep(random_.choice([0, 1]))

    variable.set(Trash(program, own) if random_.random() < 0.5 else None)
    target = random_.choice([plain, coroutine])
    if random_.random() < 0.3:
        scheduler.post(plain, Trash(program, own), priority=Number(program, own, 2))
        return
    task = scheduler.spawn(target, Trash(program, own), priority=Number(program, own, 1))
    task.add_done_callback(Callback(program, own))
    program.handles.append(task)
    del program.handles[:-20]


def use_task(program: Program, own: Any) -> None:
    if not program.handles:
        return
    task = program.random.choice(program.handles)
    kind = program.random.randrange(6)
    if kind == 0:
        task.cancel()
    elif kind == 1:
        task.add_done_callback(Callback(program, own))
    elif kind == 2:
        task.remove_done_callback(Callback(program, own))
    elif kind == 3:
        task.set_priority(Number(program, own, program.random.randrange(4)))
    elif kind == 4 and task.done():
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()
    repr(task)


def step(program: Program, _own: Any = None) -> None:
    """As in a thread of its own: tasks wait for each other, not for the loop's futures."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        program.scheduler.step()
    finally:
        asyncio._set_running_loop(loop)


def schedule(program: Program, own: Any) -> None:
    if program.trash_count > TRASH_MAX:
        return  # each makes others
    loop, random_ = program.loop, program.random
    trash, callback = Trash(program, own), Callback(program, own)
    kind = random_.randrange(5)
    if kind == 0:
        handle = loop.call_soon(callback, trash)
    elif kind == 1:
        handle = loop.call_later(Number(program, own, random_.choice([0, 0.001, 1])), callback)
    elif kind == 2:
        handle = loop.call_at(Number(program, own, 0), callback, trash, callback)
    elif kind == 3:
        context = contextvars.copy_context()
        context.run(variable.set, trash)
        handle = loop.call_soon_threadsafe(callback, context=context)
    else:
        for scheduled in loop._scheduled[:3]:
            repr(scheduled), scheduled == scheduled
            if type(scheduled._callback) is Callback:
                scheduled.cancel()
        return
    repr(handle), handle == handle
    if random_.random() < 0.4:
        handle.cancel()


def misuse(program: Program, _own: Any) -> None:
    loop = program.loop
    kind = program.random.randrange(5)
    if kind == 0:
        loop.close()
    elif kind == 1:
        loop._run_once()
    elif kind == 2:
        loop.stats(), loop._ready, loop._scheduled, loop._fd_transports()
    elif kind == 3:
        loop.run_until_complete(loop.create_future())
    else:
        loop._close_native()


def submit(program: Program, own: Any) -> None:
    if program.loop.backend != "uring":
        return
    from netpoll import uring
    from netpoll.uring import ffi, lib

    random_, keep = program.random, [Trash(program, own)]
    kind = random_.randrange(4)
    entries = [uring.sqe() for _ in range(3)]
    if kind == 0:
        for entry in entries:
            lib.io_uring_prep_nop(entry)
        program.entries = uring.submit_linked(entries, keep)
    elif kind == 1:
        when = ffi.new("struct __kernel_timespec *")
        when.tv_nsec = random_.choice([1000, 10**9 - 1])
        lib.io_uring_prep_timeout(entries[0], when, 0, 0)
        program.entries = [uring.submit(entries[0], [when, keep])]
    elif kind == 2:
        fd = os.eventfd(1)
        lib.io_uring_prep_poll_multishot(entries[0], fd, 1)
        try:
            program.entries = [uring.submit(entries[0], keep)]
        finally:
            os.close(fd)
    for operation in program.entries:
        if random_.random() < 0.4:
            operation.cancel()
        elif operation.in_flight:
            program.start(await_entry(operation))


async def await_entry(operation: Any) -> None:
    try:
        async with asyncio.timeout(0.01):
            await operation
    finally:
        operation.cancel()


def use_pool(program: Program, own: Any) -> None:
    random_ = program.random
    kind = random_.randrange(7)
    if own.pool is None:
        own.pool = BufferPool(1 << 21, hugepages="off")
    elif kind == 0:
        own.pool.close()
        own.pool = None
    elif kind == 1:
        own.pool.attach(program.loop)
    elif kind == 2:
        own.pool.detach(program.loop)
    elif kind == 3 and own.buffers:
        own.buffers.pop().release()
    elif kind == 4:
        own.pool.stats()
    else:
        buffer = own.pool.reserve(random_.choice([1, 4096, 60000]))
        own.buffers.append(buffer)
        view = memoryview(buffer)
        program.operation(own)
        view[0] = 1
        view.release()
        buffer.write(program.data(own))


def litter(program: Program, own: Any) -> None:
    if program.trash_count > TRASH_MAX:
        return
    for _ in range(5):
        trash = Trash(program, own)
        trash.value = trash


GENERAL: list[Operation] = [*[litter] * 4, *[schedule] * 4, cancel_one, misuse]

MAKERS: dict[str, Callable[[Program], Any]] = {
    "streams": make_streams,
    "tls": make_tls,
    "datagrams": make_datagrams,
    "pipes": make_pipes,
    "sockets": make_sockets,
    "files": make_files,
}
OTHERS: dict[str, list[Operation]] = {
    "scheduler": [*[spawn] * 4, *[use_task] * 4, *[step] * 4],
    "timers": GENERAL,
    "ring": [*[submit] * 4, cancel_one],
    "pools": [use_pool],
}
PARTS = [*MAKERS, *OTHERS, "all"]


# ---- a life -----------------------------------------------------------------------------------


async def live(program: Program) -> None:
    makers = [MAKERS[name] for name in MAKERS if program.part in (name, "all")]
    for name, operations in OTHERS.items():
        if program.part in (name, "all"):
            program.things.append(Anything(operations))
    deadline_s = time.monotonic() + ROUND_S
    while program.count < program.limit and not program.faults and time.monotonic() < deadline_s:
        if makers and len(program.things) < THINGS:
            with contextlib.suppress(*EXPECTED, ssl.SSLError):
                await asyncio.wait_for(program.random.choice(makers)(program), 5 * SLOWNESS)
        for _ in range(5):
            program.operation()
        with contextlib.suppress(*EXPECTED):
            step(program)
        await asyncio.sleep(program.random.choice([0, 0, 0, 0.001]))


async def end(program: Program) -> None:
    """Calmly: nothing acts any more."""
    program.is_calm = True
    variable.set(None)
    program.scheduler.close(cancel=True)
    program.handles.clear()
    loop = program.loop
    for task in list(program.tasks):
        task.cancel()
    if program.tasks:
        await asyncio.wait(list(program.tasks), timeout=10 * SLOWNESS)
    for remove, fds in ((loop.remove_reader, loop._readers), (loop.remove_writer, loop._writers)):
        for fd in [*fds]:
            with contextlib.suppress(RuntimeError):  # the number is a transport's by now
                remove(fd)
    for thing in program.things:
        if isinstance(thing, Raw):
            thing.end()
        elif isinstance(thing, File):
            with contextlib.suppress(*EXPECTED):
                await thing.file.close()
        elif isinstance(thing, Anything):
            for buffer in thing.buffers:
                buffer.release()
            if thing.pool is not None:
                thing.pool.close()
    for transport in loop._fd_transports():
        transport.abort()
    for _ in range(5):
        await asyncio.sleep(0)
    program.things.clear()
    for handle in loop._scheduled:
        handle.cancel()
    program.directory.cleanup()


def play(loop_factory: Any, part: str) -> None:
    done, seed = 0, SEED
    while done < OPERATIONS:
        loop = loop_factory(**CONFIGS[seed % len(CONFIGS)])
        program = Program(loop, part, seed, min(ROUND_OPERATIONS, OPERATIONS - done), GENERAL)
        try:
            loop.run_until_complete(live(program))
        finally:
            loop.run_until_complete(end(program))
        assert not program.faults, f"seed {seed}: {program.faults}"
        odd = [(fate.made, fate.lost) for fate in program.fates if fate.made != fate.lost]
        assert not odd, f"seed {seed}: made and lost {odd}"
        assert program.count, f"seed {seed}: nothing happened"
        done += program.count
        seed += 1
        loop_factory.errors[:] = [c for c in loop_factory.errors if not is_expected(c)]
        if loop_factory.errors:
            return
        loop.close()
