"""A coroutine per connection."""

import asyncio
import contextlib
import contextvars
import threading

import pytest

import netpoll
from tests.support import pattern, reset

from .conftest import Serving, read_exactly, wait_for, wait_until_still


def test_awaiting_bytes(serving: Serving) -> None:
    async def session(conn: netpoll.Connection) -> None:
        assert await conn.read_exactly(3) == b"abc"
        assert await conn.read_until(b"\n") == b"line\n"
        assert await conn.fill(4) >= 4
        conn.forward(conn.lease(4))
        await conn.drain()
        assert await conn.fill() == 0  # the end
        assert conn.at_eof
        conn.write(b"bye")

    serving(session)
    client = serving.connect()
    for part in (b"a", b"bcli", b"ne\nwx", b"yz"):
        client.sendall(part)
    assert read_exactly(client, 4) == b"wxyz"
    client.shutdown(1)
    assert read_exactly(client, 100) == b"bye"


def test_the_server_speaks_first(serving: Serving) -> None:
    async def session(conn: netpoll.Connection) -> None:
        conn.write(b"220 ready\n")
        conn.write(await conn.read_until(b"\n"))

    serving(session)
    client = serving.connect()
    assert read_exactly(client, 10) == b"220 ready\n"
    client.sendall(b"helo\n")
    assert read_exactly(client, 100) == b"helo\n"


def test_asyncio_works_in_a_session(serving: Serving) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    timed_out = threading.Event()

    async def twice(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    async def session(conn: netpoll.Connection) -> None:
        variable.set(1)
        await asyncio.sleep(0.01)
        assert variable.get() == 1
        assert await asyncio.gather(twice(1), twice(2)) == [2, 4]
        async with asyncio.TaskGroup() as group:
            task = group.create_task(twice(21))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await conn.read_exactly(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 0.01)
        timed_out.set()
        data = await asyncio.create_task(_read(conn))
        conn.write(b"%d %s" % (task.result(), data))

    async def _read(conn: netpoll.Connection) -> bytes:
        return await conn.read_exactly(4)

    serving(session)
    client = serving.connect()
    client.settimeout(5)
    assert timed_out.wait(10)
    client.sendall(b"data")
    assert read_exactly(client, 100) == b"42 data"


def test_a_stream_that_ends_early(serving: Serving) -> None:
    seen: list[object] = []

    async def session(conn: netpoll.Connection) -> None:
        try:
            await conn.read_exactly(10)
        except asyncio.IncompleteReadError as error:
            seen.append((error.partial, error.expected))
        seen.append(await conn.read_until(b"\n"))

    serving(session)
    client = serving.connect()
    client.sendall(b"abc")
    client.close()
    wait_for(lambda: len(seen) == 2)
    assert seen == [(b"abc", 10), b""]


def test_a_reset_is_raised_where_the_session_waits(serving: Serving) -> None:
    seen: list[BaseException] = []

    async def session(conn: netpoll.Connection) -> None:
        conn.write(await conn.read_exactly(1))
        try:
            await conn.fill()
        except ConnectionResetError as error:
            seen.append(error)
            raise

    server = serving(session)
    client = serving.connect()
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    reset(client)
    wait_for(lambda: not server.stats()["sessions"] and seen)


def test_a_separator_that_does_not_come(serving: Serving) -> None:
    seen: list[type] = []

    async def session(conn: netpoll.Connection) -> None:
        try:
            await conn.read_until(b"\n")
        except asyncio.LimitOverrunError as error:
            seen.append(type(error))
        with pytest.raises(ValueError, match="unread_max_bytes"):
            await conn.read_exactly(1 << 20)

    serving(session, limits=netpoll.ServerLimits(unread_max_bytes=1000))
    client = serving.connect()
    client.sendall(b"x" * 5000)
    wait_for(lambda: seen)
    assert seen == [asyncio.LimitOverrunError]


def test_a_session_that_does_not_read_pauses_its_peer(serving: Serving) -> None:
    data = pattern(6 << 20)

    async def session(conn: netpoll.Connection) -> None:
        await conn.fill()
        await asyncio.sleep(0.2)
        assert conn.available < 4 << 20
        total = 0
        while await conn.fill():
            total += conn.skip()
        conn.write(b"%d" % total)

    serving(session, limits=netpoll.ServerLimits(unread_max_bytes=1 << 16))
    client = serving.connect()
    client.sendall(data)
    client.shutdown(1)
    assert read_exactly(client, 100) == b"%d" % len(data)


def test_drain_waits_for_a_slow_reader(serving: Serving) -> None:
    progress: list[int] = []
    chunk = pattern(256 << 10)

    async def session(conn: netpoll.Connection) -> None:
        for i in range(40):
            conn.write(chunk)
            await conn.drain()
            progress.append(i)

    serving(session)
    client = serving.connect()
    assert 0 < wait_until_still(lambda: len(progress)) < 40
    assert read_exactly(client, 40 * len(chunk)) == chunk * 40
    wait_for(lambda: len(progress) == 40)


def test_an_exception_closes_one_connection_and_is_told(serving: Serving) -> None:
    async def session(conn: netpoll.Connection) -> None:
        if await conn.read_exactly(1) == b"!":
            raise RuntimeError("on purpose")
        conn.write(b"fine")

    server = serving(session)
    bad, good = serving.connect(), serving.connect()
    bad.sendall(b"!")
    with contextlib.suppress(ConnectionResetError):
        assert bad.recv(10) == b""
    good.sendall(b".")
    assert read_exactly(good, 4) == b"fine"
    assert [str(c["exception"]) for c in serving.errors] == ["on purpose"]
    serving.errors.clear()
    assert server.stats()["handler_errors"] == 1


def test_two_readers_at_once_are_refused(serving: Serving) -> None:
    seen: list[str] = []

    async def session(conn: netpoll.Connection) -> None:
        first = asyncio.create_task(_fill(conn))
        await asyncio.sleep(0)
        try:
            await conn.fill()
        except RuntimeError as error:
            seen.append(str(error))
        await first
        conn.write(b"ok")

    async def _fill(conn: netpoll.Connection) -> int:
        return await conn.fill()

    serving(session)
    client = serving.connect()
    wait_for(lambda: seen)
    client.sendall(b"x")
    assert read_exactly(client, 2) == b"ok"
    assert "in progress" in seen[0]


async def test_inside_a_running_loop(loop, backend: str) -> None:
    async def session(conn: netpoll.Connection) -> None:
        assert conn.loop is loop
        await asyncio.sleep(0)
        while line := await conn.read_until(b"\n"):
            conn.write(line.upper())

    async with netpoll.Server(session, "127.0.0.1", 0) as server:
        with pytest.raises(RuntimeError, match="aclose"):
            server.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"hello\nworld\n")
        assert await reader.readexactly(12) == b"HELLO\nWORLD\n"
        writer.close()
        await writer.wait_closed()
    assert server.stats()["connections"] == 0
