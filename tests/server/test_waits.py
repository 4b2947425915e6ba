"""Who waits is told: whatever held it up, and whatever somebody else's handler did meanwhile."""

import asyncio
import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll import ServerLimits
from tests.support import pattern, until
from tests.tls import HOST, client_context, server_context

from .conftest import Serving, read_exactly, wait_for

# What the kernel may keep of an answer, many times over.
MUCH_BYTES = 24 << 20


# ---- what came while nothing was to be received ------------------------------------------------


def _choked(conn: netpoll.Connection, then: Callable[..., None]) -> None:
    conn.write(bytes(MUCH_BYTES))


def _paused(conn: netpoll.Connection, then: Callable[..., None]) -> None:
    conn.pause_reading()
    then(conn.resume_reading)


def _retaining(conn: netpoll.Connection, then: Callable[..., None]) -> None:
    then(conn.lease().retain().release)


@pytest.mark.parametrize("holds", [_choked, _paused, _retaining], ids=lambda holds: holds.__name__)
@pytest.mark.parametrize("is_native", [True, False], ids=["native", "task"])
def test_a_session_gets_what_came_while_it_was_held_up(
    serving: Serving, holds: Callable[..., None], is_native: bool
) -> None:
    """Nothing more comes when the hold is over, so nothing but its end can wake the session
    (bug class 9)."""
    releases: list[Callable[..., None]] = []
    loops: list[Any] = []

    async def session(conn: netpoll.Connection) -> None:
        loops.append(conn.loop)
        await conn.fill(2000)
        holds(conn, releases.append)
        conn.take()
        if is_native:
            await conn.fill()
        else:
            await asyncio.create_task(_fill(conn))
        conn.write(conn.take().swapcase())

    async def _fill(conn: netpoll.Connection) -> None:
        await conn.fill()

    server = serving(session, limits=ServerLimits(retained_max_bytes=1000))
    client = serving.connect()
    client.sendall(bytes(2000))
    wait_for(lambda: releases or server.stats()["sent_bytes"])
    client.sendall(b"next")
    wait_for(lambda: server.stats()["recv_bytes"] == 2004 or holds is _paused)
    time.sleep(0.02)
    for release in releases:
        loops[0].call_soon_threadsafe(release)
    if holds is _choked:
        assert len(read_exactly(client, MUCH_BYTES)) == MUCH_BYTES
    assert read_exactly(client, 4) == b"NEXT"


def test_an_end_in_a_pause_waits_for_the_answer(serving: Serving) -> None:
    """The end came in the same batch as the request, and closed the connection (bug class 85)."""

    def on_data(conn: netpoll.Connection) -> None:
        conn.take()
        conn.pause_reading()
        conn.loop.call_later(0.005, answer, conn)

    def answer(conn: netpoll.Connection) -> None:
        conn.write(b"answer")
        conn.resume_reading()

    server = serving(on_data)
    for _ in range(100):
        with serving.connect() as client:
            client.sendall(b"q")
            client.shutdown(socket.SHUT_WR)
            assert read_exactly(client, 100) == b"answer"
    wait_for(lambda: not server.stats()["connections"])


# ---- what is written in one go -----------------------------------------------------------------


@pytest.mark.parametrize("is_session", [True, False], ids=["session", "on_data"])
def test_a_send_that_has_ended_does_not_count_as_unsent(serving: Serving, is_session: bool) -> None:
    """The end of a quiet send stands behind the next request in the batch: the peer does read
    (bug class 70)."""
    part, count = bytes(20_000), 9

    def answer(conn: netpoll.Connection) -> None:
        for _ in range(count):
            conn.write(part)

    async def session(conn: netpoll.Connection) -> None:
        while await conn.read_until(b"\n"):
            answer(conn)

    def on_data(conn: netpoll.Connection) -> None:
        while conn.take_line():
            answer(conn)

    limits = ServerLimits(pending_max_bytes=65536)
    server = serving(session if is_session else on_data, limits=limits)
    client = serving.connect()
    for _ in range(20):
        client.sendall(b"go\n")
        assert len(read_exactly(client, count * len(part))) == count * len(part)
    assert server.stats()["full_closed"] == 0


def test_who_really_does_not_read_is_found_out(serving: Serving) -> None:
    part = bytes(1 << 15)

    def on_data(conn: netpoll.Connection) -> None:
        if conn.take() == b"one":
            conn.write(part)
            return
        with pytest.raises(BufferError, match="wait to be sent"):
            for _ in range(MUCH_BYTES // len(part)):
                conn.write(part)

    server = serving(on_data, limits=ServerLimits(pending_max_bytes=65536))
    client = serving.connect()
    client.sendall(b"one")
    wait_for(lambda: server.stats()["recv_bytes"] == 3)
    client.sendall(b"many")
    wait_for(lambda: server.stats()["full_closed"] == 1)


# ---- what is received in many pieces -------------------------------------------------------------


@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "tls"])
def test_what_comes_byte_by_byte_is_kept_in_few_pieces(serving: Serving, is_secure: bool) -> None:
    """A piece for each byte took some 60 bytes of memory, and each search went through all of them
    (bug class 67)."""
    count = 3000
    pieces: list[int] = []
    received = threading.Semaphore(0)

    async def session(conn: netpoll.Connection) -> None:
        while conn.available < count:
            await conn.fill(conn.available + 1)
            received.release()
        with conn.peek_lease() as lease:
            pieces.append(lease.pieces_count)
        conn.write(await conn.read_exactly(count))

    options = {"ssl": server_context()} if is_secure else {}
    serving(session, **options)
    client = serving.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if is_secure:
        client = client_context().wrap_socket(client, server_hostname=HOST)
        serving.clients.append(client)
    sent = pattern(count)
    for i in range(count):
        client.sendall(sent[i : i + 1])
        assert received.acquire(timeout=20)
    assert read_exactly(client, count) == sent
    assert pieces[0] <= 20


# ---- SystemExit in somebody else's handler -------------------------------------------------------


def test_what_others_wrote_leaves_after_a_handler_has_exited(backend: str) -> None:
    """Of one turn, in the queue for its end: the first writes, the second exits (bug class 34)."""
    conns: list[netpoll.Connection] = []

    def on_data(conn: netpoll.Connection) -> None:
        if conn.state == "armed":
            raise SystemExit(3)
        conns.append(conn)
        if len(conns) == 1:
            conn.take()
            return
        conn.state = "armed"
        conn.pause_reading()
        conn.loop.call_soon(both, conn)

    def both(conn: netpoll.Connection) -> None:
        conns[0].write(b"answer")
        conn.resume_reading()

    async def start(server: netpoll.Server) -> None:
        server.start()

    loop = netpoll.EventLoop(backend)
    server = netpoll.Server(on_data, "127.0.0.1", 0)
    loop.run_until_complete(start(server))
    first, second = (socket.create_connection(("127.0.0.1", server.port)) for _ in range(2))
    first.sendall(b"1")
    loop.run_until_complete(until(lambda: conns))
    second.sendall(b"2")
    with pytest.raises(SystemExit):
        loop.run_until_complete(asyncio.sleep(20))
    loop.run_until_complete(server.aclose(20))
    first.settimeout(20)
    assert read_exactly(first, 100) == b"answer"
    loop.close()
    for client in (first, second):
        client.close()


# ---- a share of the turn -------------------------------------------------------------------------


async def test_a_file_has_a_share_of_each_turn(loop: Any, backend: str, tmp_path: Path) -> None:
    """A peer that reads as fast as it is sent to got all of it in one turn (bug class 84)."""
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 48 << 20)
    pending: list[int] = []

    def on_data(conn: netpoll.Connection) -> None:
        conn.take()
        with path.open("rb") as file:
            conn.sendfile(file)
        watch(conn)

    def watch(conn: netpoll.Connection) -> None:
        pending.append(conn.pending)
        if pending[-1]:
            conn.loop.call_soon(watch, conn)

    def read_all() -> int:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(b"x")
            return len(read_exactly(client, 48 << 20))

    async with netpoll.Server(on_data, "127.0.0.1", 0) as server:
        assert await asyncio.to_thread(read_all) == 48 << 20
    steps = [before - after for before, after in itertools.pairwise(pending)]
    assert sum(steps) == 48 << 20
    assert max(steps) <= 1 << 20


async def test_a_session_that_cancels_itself_leaves_time_to_others(loop: Any, backend: str) -> None:
    rounds = [0]

    async def session(conn: netpoll.Connection) -> None:
        this = asyncio.current_task()
        assert this is not None
        while await conn.fill() and conn.take() == b"x":
            for _ in range(100_000):
                this.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await conn.fill()
                this.uncancel()
                rounds[0] += 1

    async with netpoll.Server(session, "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"x")
        await until(lambda: rounds[0])
        assert rounds[0] < 100_000
        writer.close()
        await server.aclose(0)


# ---- ends --------------------------------------------------------------------------------------


def test_a_connection_error_of_another_connection_is_told(serving: Serving) -> None:
    """A session is quiet only about its own client's leaving (bug class 63)."""
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))

    async def session(conn: netpoll.Connection) -> None:
        await conn.fill()
        await asyncio.open_connection(*nobody.getsockname())

    server = serving(session)
    client = serving.connect()
    client.sendall(b"x")
    with contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""
    wait_for(lambda: serving.errors)
    nobody.close()
    (context,) = serving.errors
    serving.errors.clear()
    assert isinstance(context["exception"], ConnectionRefusedError)
    assert server.stats()["handler_errors"] == 1


def test_the_end_of_its_own_connection_is_not(serving: Serving) -> None:
    ended = threading.Semaphore(0)

    async def writes(conn: netpoll.Connection) -> None:
        try:
            while True:
                conn.write(bytes(1000))
                await asyncio.sleep(0)
        finally:
            ended.release()

    async def closes(conn: netpoll.Connection) -> None:
        await conn.fill()
        conn.close()
        ended.release()
        conn.write(b"more")

    for session in (writes, closes):
        server = serving(session)
        client = serving.connect()
        client.sendall(b"x")
        if session is writes:
            client.close()
        assert ended.acquire(timeout=20)
        wait_for(lambda server=server: not server.stats()["sessions"])
    assert not serving.errors


@pytest.mark.parametrize("way", ["read_until", "lease_until"])
def test_a_separator_of_nothing_is_refused(serving: Serving, way: str) -> None:
    """As asyncio's readuntil() does: there would be no end to the wait (bug class 33)."""
    said: list[str] = []

    async def session(conn: netpoll.Connection) -> None:
        try:
            found: Any = getattr(conn, way)(b"")
            await found
        except ValueError as error:
            said.append(str(error))

    serving(session)
    client = serving.connect()
    assert client.recv(1) == b""
    assert said == ["Separator should be at least one-byte string"]
