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
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import netpoll

from ..conftest import open_fds
from ..support import SLOWNESS, is_netpoll, make_loop
from .in_flight import KINDS, Keeps, Prepare, sock_recv, timer, transport
from .test_growth import rss_bytes

# Enough for objects and descriptors, which are counted. NETPOLL_CYCLES=200 lets memory speak, too.
CYCLES_COUNT = int(os.environ.get("NETPOLL_CYCLES", "20"))
WATCHES_MEMORY = CYCLES_COUNT >= 200  # with fewer, what warming up takes hides a leak
OURS = (
    "EventLoop",
    "StreamTransport",
    "DatagramTransport",
    "ReadPipeTransport",
    "Worker",
    "Lease",
    "Connection",
    "BufferPool",
    "Buffer",
    "Owner",
)
# What the loops may leave in the heap, which others have used before: one leaked loop is more than
# 30 KiB.
SLACK_BYTES = CYCLES_COUNT * 15 * 1024 * (8 if SLOWNESS > 1 else 1)


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
    deadline = time.monotonic() + 2 * SLOWNESS
    while any(ref() is not None for ref in made) and time.monotonic() < deadline:
        time.sleep(0.01)  # a thread that works for one of them comes to its end
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
    assert rss_bytes() - memory_bytes < SLACK_BYTES or not WATCHES_MEMORY
    unclosed = [text for text in caught if "unclosed event loop" in text]
    assert len(unclosed) == (0 if closes else CYCLES_COUNT)
    assert count_ours() <= ours_count


@pytest.mark.control
@pytest.mark.parametrize("has_come", [False, True])
def test_a_loop_dropped_in_another_thread(backend: str, has_come: bool) -> None:
    """It ran here; the collector meets it elsewhere."""
    gc.collect()
    fds, ours_count = open_fds(), count_ours()
    made: list[Any] = []

    def drop() -> None:
        gc.collect()

    with quiet():
        for _ in range(20):
            loop = make_loop(backend)
            a, b = socket.socketpair()
            a.setblocking(False)
            b.setblocking(False)
            if not has_come:
                loop.kept = (sock_recv(loop, a, b), timer(loop, a, b), transport(loop, b, a))
            else:  # the ring, which that thread takes over, has one event, that nobody saw
                loop.kept = loop.create_task(loop.sock_recv(a, 10))
                loop.call_soon(b.send, b"x")
                loop.call_soon(loop.stop)
                loop.run_forever()
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
    assert count_ours() <= ours_count


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
        buffer.write(conn.take())
        conn.write(buffer)

    def keeps(conn: Any) -> None:
        conn.state = (conn, conn.peek_lease().retain())
        conn.forward()

    chosen = {"plain": plain, "session": session, "reserves": reserves, "keeps": keeps}[handler]

    def one() -> Any:
        config = netpoll.LoopConfig()
        started = netpoll.Server(chosen, "127.0.0.1", 0, backend=backend, config=config).start()
        with socket.create_connection(("127.0.0.1", started.port), timeout=10) as client:
            client.sendall(b"hello")
            assert client.recv(10) == b"hello"
        started.close(0.5)
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
