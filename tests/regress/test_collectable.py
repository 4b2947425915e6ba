"""Dropped with work in flight: loops, transports, servers and what belongs to them are collected.

As asyncio does it: a ResourceWarning for what was not closed, then everything is given back, the
descriptors and the kernel's operations first. Each kind of work makes a reference cycle with its
loop, through something that only native code sees. Bug classes 1 and 19.
"""

import asyncio
import contextlib
import gc
import os
import socket
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import netpoll

from ..conftest import open_fds
from ..support import SLOWNESS, is_netpoll, make_loop
from .test_growth import rss_bytes

CYCLES_COUNT = 200
OURS = ("EventLoop", "StreamTransport", "DatagramTransport", "ReadPipeTransport", "Worker", "Lease",
        "Connection", "BufferPool", "Buffer", "Owner")
# What CYCLES_COUNT loops may leave in the heap, which others have used before: one leaked loop is
# more than 30 KiB.
SLACK_BYTES = CYCLES_COUNT * 15 * 1024 * (8 if SLOWNESS > 1 else 1)

Prepare = Callable[[Any, "socket.socket", "socket.socket"], Any]
KINDS: dict[str, tuple[Prepare, bool]] = {}  # and whether asyncio has it


def kind(prepare: Prepare) -> Prepare:
    KINDS[prepare.__name__] = (prepare, True)
    return prepare


def netpolls(prepare: Prepare) -> Prepare:
    KINDS[prepare.__name__] = (prepare, False)
    return prepare


@kind
def nothing(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return None


@kind
def future(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.create_future()


@kind
def callback(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.call_soon(print, loop, a)


@kind
def callback_that_has_run(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    handle = loop.call_soon(id, loop)
    loop.run_until_complete(asyncio.sleep(0))
    return handle


@kind
def callback_of_another_thread(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.call_soon_threadsafe(print, loop)


@kind
def timer(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.call_later(3600, loop.stop)


@kind
def timers_some_cancelled(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    handles = [loop.call_later(3600 + i, print, loop, i) for i in range(4)]
    handles[1].cancel()
    handles[2].cancel()
    return handles


@kind
def debug_mode(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    loop.set_debug(True)
    return [loop.call_soon(print, loop), loop.call_later(3600, print, loop)]


@kind
def reader_and_writer(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    loop.add_reader(a, print, loop)
    loop.add_writer(b, loop.stop)


@kind
def reader_that_fires(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    loop.add_reader(a, lambda: loop)
    b.send(b"x")
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_soon(loop.stop)


@kind
def reader_replaced_and_removed(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    loop.add_reader(a, print, loop)
    loop.add_reader(a, print, loop, 2)
    loop.add_writer(a, print, loop)
    loop.remove_writer(a)


def task_of(loop: Any, coro: Any) -> Any:
    task = loop.create_task(coro)
    loop.run_until_complete(asyncio.sleep(0))
    return task


@kind
def sleep(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return task_of(loop, asyncio.sleep(3600))


@kind
def wait_for(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def waits() -> None:
        await asyncio.wait_for(asyncio.Event().wait(), 3600)

    return task_of(loop, waits())


@kind
def sock_recv(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    task_of(loop, loop.sock_recv(a, 10))


@kind
def sock_recv_into(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return task_of(loop, loop.sock_recv_into(a, bytearray(10)))


@kind
def sock_sendall(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    task_of(loop, loop.sock_sendall(a, bytes(1 << 19)))


@kind
def sock_accept(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    task_of(loop, loop.sock_accept(listener))
    return listener


class Keeps(asyncio.Protocol):
    """A protocol that refers to its transport, as most do."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport


@kind
def server(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.run_until_complete(loop.create_server(Keeps, "127.0.0.1", 0))


@kind
def server_with_a_connection(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def main() -> Any:
        serving = await loop.create_server(Keeps, "127.0.0.1", 0)
        client = await loop.create_connection(Keeps, *serving.sockets[0].getsockname())
        await asyncio.sleep(0.01)
        return serving, client

    return loop.run_until_complete(main())


@kind
def transport(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return loop.run_until_complete(loop.create_connection(Keeps, sock=a.dup()))


@kind
def transport_paused(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    made = loop.run_until_complete(loop.create_connection(Keeps, sock=a.dup()))
    made[0].pause_reading()
    b.send(b"x")
    loop.run_until_complete(asyncio.sleep(0))
    return made


@kind
def transport_that_writes(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    made = loop.run_until_complete(loop.create_connection(Keeps, sock=a.dup()))
    made[0].write(bytes(1 << 19))
    loop.run_until_complete(asyncio.sleep(0))
    made[0].write(b"and more")
    return made


@kind
def stream(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def main() -> Any:
        reader, writer = await asyncio.open_connection(sock=a.dup())
        writer.write(b"x")
        waiting = loop.create_task(reader.readline())
        await asyncio.sleep(0)
        return reader, writer, waiting

    return loop.run_until_complete(main())


@kind
def datagrams(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    made = loop.run_until_complete(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    )
    made[0].sendto(b"x", made[0].get_extra_info("sockname"))
    return made


@kind
def pipes(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    read_fd, write_fd = os.pipe()
    reading = loop.connect_read_pipe(Keeps, os.fdopen(read_fd, "rb", 0))
    writing = loop.connect_write_pipe(Keeps, os.fdopen(write_fd, "wb", 0))
    made = loop.run_until_complete(reading), loop.run_until_complete(writing)
    made[0][0].pause_reading()
    made[1][0].write(bytes(1 << 18))
    return made


@kind
def async_generator(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def numbers() -> Any:
        yield loop
        yield 2

    async def main() -> Any:
        generator = numbers()
        await anext(generator)
        return generator

    return loop.run_until_complete(main())


@netpolls
def file(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def main() -> Any:
        opened = await netpoll.open("/proc/self/statm")
        await opened.read(1)
        return opened

    return loop.run_until_complete(main())


@netpolls
def pool(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    class Owner(netpoll.BufferPool):
        pass

    made = Owner(1 << 18, classes=(4096, 1 << 16), hugepages="off")
    made.attach(loop)
    made.loop, made.filled = loop, made.reserve(100)
    return made


def served(loop: Any, handler: Any, **options: Any) -> Any:
    """A server inside the loop, with one connection that has sent something."""

    async def main() -> Any:
        inside = netpoll.Server(handler, "127.0.0.1", 0, **options).start()
        client = socket.create_connection(("127.0.0.1", inside.port))
        client.sendall(b"hello")
        await asyncio.sleep(0.02)
        return inside, client

    return loop.run_until_complete(main())


@netpolls
def server_plain(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    return served(loop, lambda conn: conn.forward())


@netpolls
def server_face_kept(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    def on_data(conn: Any) -> None:
        conn.state = [conn, loop, conn.peek()]
        conn.write(conn.read())

    return served(loop, on_data)


@netpolls
def server_lease_retained(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    def on_data(conn: Any) -> None:
        conn.state = conn.next().retain()
        conn.write(b"ok")

    return served(loop, on_data)


@netpolls
def server_view_of_a_lease(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    def on_data(conn: Any) -> None:
        lease = conn.next()
        conn.state = [memoryview(lease), lease.pieces()]
        conn.write(b"ok")

    return served(loop, on_data)


@netpolls
def server_buffer(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    def on_data(conn: Any) -> None:
        conn.state = [conn.reserve(100), conn.reserve(200)]
        conn.state[1].write(conn.read())
        conn.write(conn.state[1])

    return served(loop, on_data)


@netpolls
def server_session(loop: Any, a: socket.socket, b: socket.socket) -> Any:
    async def session(conn: Any) -> None:
        conn.state = asyncio.current_task()
        while await conn.fill(100):
            conn.forward()

    return served(loop, session)


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """The texts of ResourceWarnings; what coroutines say when they are thrown away is dropped.

    Not the warnings themselves, which keep what they warn of.
    """
    caught: list[str] = []

    def show(message: Any, category: Any, *_: Any) -> None:
        if category is ResourceWarning:
            caught.append(str(message))

    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            yield caught
    finally:
        sys.unraisablehook = hook


def count_ours() -> int:
    """Objects of ours that are alive, those that other tests keep among them."""
    return sum(type(found).__name__ in OURS for found in gc.get_objects())


def cycles(backend: str, prepare: Prepare, count: int, closes: bool) -> list[Any]:
    """Makes and drops `count` loops, with work in flight. Weak references to them."""
    made = []
    for _ in range(count):
        loop = make_loop(backend)
        loop.set_exception_handler(lambda _loop, _context: None)
        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        loop.kept = prepare(loop, a, b)
        a.close()
        b.close()
        if closes:
            loop.close()
        made.append(weakref.ref(loop))
        del loop, a, b
        if len(made) % 50 == 0:
            gc.collect()
    gc.collect()
    gc.collect()
    return made


@pytest.mark.parametrize("closes", [False, True], ids=["dropped", "closed"])
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.control
def test_a_loop_is_collected(backend: str, name: str, closes: bool) -> None:
    prepare, has_asyncio = KINDS[name]
    if not is_netpoll(backend) and not has_asyncio:
        pytest.skip("asyncio has nothing of the kind")
    with quiet():
        cycles(backend, prepare, CYCLES_COUNT // 4, closes)
    fds, memory_bytes, ours_count = open_fds(), rss_bytes(), count_ours()
    with quiet() as caught:
        made = cycles(backend, prepare, CYCLES_COUNT, closes)
    assert sum(ref() is not None for ref in made) == 0
    assert len(open_fds()) <= len(fds)
    assert rss_bytes() - memory_bytes < SLACK_BYTES
    unclosed = [text for text in caught if "unclosed event loop" in text]
    assert len(unclosed) == (0 if closes else CYCLES_COUNT)
    assert count_ours() <= ours_count


@pytest.mark.control
def test_a_loop_dropped_in_another_thread(backend: str) -> None:
    """It ran here; the collector meets it elsewhere."""
    fds = open_fds()
    made: list[Any] = []

    def drop() -> None:
        gc.collect()

    with quiet():
        for _ in range(20):
            loop = make_loop(backend)
            a, b = socket.socketpair()
            a.setblocking(False)
            loop.kept = (sock_recv(loop, a, b), timer(loop, a, b), transport(loop, b, a))
            loop.set_exception_handler(lambda _loop, _context: None)
            made.append(weakref.ref(loop))
            a.close()
            b.close()
            del loop, a, b
            thread = threading.Thread(target=drop)
            thread.start()
            thread.join()
    assert sum(ref() is not None for ref in made) == 0
    assert len(open_fds()) == len(fds)


@pytest.mark.control
@pytest.mark.parametrize("kept", ["nothing", "stream", "paused", "paused_stream"])
async def test_a_transport_is_forgotten_as_on_asyncio(loop: Any, kept: str) -> None:
    """One that reads is its loop's; one that does not is collected, with a warning."""
    gc.collect()
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    fds = open_fds()
    with quiet() as caught:
        for _ in range(20):
            if kept.endswith("stream"):
                reader, writer = await asyncio.open_connection(*address)
                if kept == "paused_stream":
                    writer.transport.pause_reading()
                del reader, writer
            else:
                made = await loop.create_connection(Keeps, *address)
                if kept == "paused":
                    made[0].pause_reading()
                del made
        for _ in range(3):
            await asyncio.sleep(0.01)
            gc.collect()
    # From Python 3.11.5 on the StreamWriter closes its transport, and warns in its stead.
    unclosed = [text for text in caught if "transport" in text or "<StreamWriter" in text]
    expected = 0 if kept == "nothing" else 20
    assert len(unclosed) == expected
    assert len(open_fds()) == len(fds) + 20 - expected
    if not expected:
        for found in gc.get_objects():
            if isinstance(found, Keeps) and found.transport.get_extra_info("peername") == address:
                found.transport.abort()
        await asyncio.sleep(0.05)
    listener.close()


@pytest.mark.parametrize("handler", ["plain", "session", "reserves", "keeps"])
def test_a_server_is_collected(backend: str, handler: str) -> None:
    """Served with threads, and stopped: nothing of it stays."""

    def plain(conn: Any) -> None:
        conn.forward()

    async def session(conn: Any) -> None:
        while await conn.fill():
            conn.forward()

    def reserves(conn: Any) -> None:
        buffer = conn.reserve(100)
        buffer.write(conn.read())
        conn.write(buffer)

    def keeps(conn: Any) -> None:
        conn.state = (conn, conn.peek().retain())
        conn.forward()

    chosen = {"plain": plain, "session": session, "reserves": reserves, "keeps": keeps}[handler]

    def one() -> Any:
        config = netpoll.LoopConfig()
        started = netpoll.Server(chosen, "127.0.0.1", 0, backend=backend, config=config).start()
        with socket.create_connection(("127.0.0.1", started.port), timeout=10) as client:
            client.sendall(b"hello")
            assert client.recv(10) == b"hello"
        started.stop(0.5)
        return weakref.ref(started)

    def ours() -> list[str]:
        return sorted(type(o).__name__ for o in gc.get_objects() if type(o).__name__ in OURS)

    one()
    gc.collect()
    before, fds = ours(), open_fds()
    made = [one() for _ in range(20)]
    gc.collect()
    gc.collect()
    assert sum(ref() is not None for ref in made) == 0
    assert ours() == before
    assert len(open_fds()) == len(fds)
