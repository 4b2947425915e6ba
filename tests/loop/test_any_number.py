"""Numbers of any kind and size where asyncio takes them: limits, watermarks, sizes, times."""

import asyncio
import math
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from .. import tls

pytestmark = pytest.mark.control

HUGE = (2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**70, 10**400, sys.maxsize * 2)
LIMITS = (*HUGE, 1e9, 1e30, math.inf, math.nan, Fraction(10**30), Decimal("Infinity"), True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A stream to an echo server; both ends have the options."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0, **options)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), **options)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("limit", [limit for limit in LIMITS if limit is not True], ids=str)
async def test_stream_limits(loop: Any, limit: Any) -> None:
    async with connected(limit=limit) as (reader, writer):
        writer.write(b"hi\n" + b"x" * 200_000 + b"\n" + b"y" * 10)
        assert await reader.readline() == b"hi\n"
        assert len(await reader.readuntil(b"\n")) == 200_001
        assert await reader.readexactly(10) == b"y" * 10
        assert reader._limit is limit


@pytest.mark.parametrize("limit", [1, 1.5, Fraction(7, 4), Decimal("1.2"), True])
async def test_small_limits_are_compared_as_they_are(loop: Any, limit: Any) -> None:
    """A line of one byte is within all of these, one of two bytes is beyond."""
    async with connected(limit=limit) as (reader, writer):
        writer.write(b"a\n")
        assert await reader.readline() == b"a\n"
        writer.write(b"ab\n")
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()


async def test_a_limit_that_is_changed_later(loop: Any) -> None:
    """Programs do that: subprocess streams take no limit of their own everywhere."""
    async with connected() as (reader, writer):
        reader._limit = 4
        writer.write(b"1234\n12345\n")
        assert await reader.readline() == b"1234\n"
        with pytest.raises(ValueError, match="limit"):
            await reader.readline()
        reader._limit = math.inf
        writer.write(b"z" * 200_000 + b"\n")
        assert len(await reader.readline()) == 200_001


@pytest.mark.parametrize("limit", [math.inf, 2**64])
async def test_limits_of_a_childs_streams(loop: Any, limit: Any) -> None:
    child = await asyncio.create_subprocess_exec("echo", "hi", stdout=-1, limit=limit)
    assert await child.stdout.readline() == b"hi\n"
    await child.wait()


@pytest.mark.parametrize("wrong", [0, -1, 0.0, -0.5, -math.inf])
async def test_wrong_limits(loop: Any, wrong: Any) -> None:
    with pytest.raises(ValueError):
        asyncio.StreamReader(limit=wrong)


async def transport_of(kind: str) -> Any:
    loop = asyncio.get_running_loop()
    if kind == "datagram":
        made = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
        return made[0]
    if kind == "pipe":
        read_end, write_end = os.pipe()
        os.close(read_end)
        file = open(write_end, "wb", 0)
        return (await loop.connect_write_pipe(asyncio.BaseProtocol, file))[0]
    return None


@pytest.mark.parametrize("high", [*LIMITS, 0.0, 0.5, 1.5], ids=str)
@pytest.mark.parametrize("kind", ["stream", "tls", "datagram", "pipe"])
async def test_watermarks(loop: Any, kind: str, high: Any) -> None:
    """high // 4 of infinity is not a number, and that is no watermark: on asyncio, too."""

    def check(transport: Any) -> None:
        if high in (math.inf, Decimal("Infinity")) or high != high:
            with pytest.raises(ValueError):
                transport.set_write_buffer_limits(math.inf)
            if high == high:
                transport.set_write_buffer_limits(high, low=0)
            return
        transport.set_write_buffer_limits(high)
        transport.set_write_buffer_limits(high, low=0)
        transport.set_write_buffer_limits(low=high)
        low, top = transport.get_write_buffer_limits()
        assert top >= low >= 0

    transport = await transport_of(kind)
    if transport is not None:
        check(transport)
        transport.close()
        await asyncio.sleep(0.01)
        return
    if kind == "tls":
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=tls.server_context())
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=tls.client_context(), server_hostname="localhost"
        )
        check(writer.transport)
        writer.write(b"x" * 100_000)
        assert len(await reader.readexactly(100_000)) == 100_000
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return
    async with connected() as (reader, writer):
        check(writer.transport)
        writer.write(b"x" * 100_000)
        assert len(await reader.readexactly(100_000)) == 100_000


@pytest.mark.parametrize("wrong", [(-1, None), (1, 2), (None, -1), (-0.5, None), (math.nan, 0)])
async def test_wrong_watermarks(loop: Any, wrong: Any) -> None:
    async with connected() as (_, writer):
        with pytest.raises(ValueError, match="must be >="):
            writer.transport.set_write_buffer_limits(*wrong)


@pytest.mark.parametrize("size", HUGE, ids=str)
async def test_reads_of_more_than_there_can_be(loop: Any, size: int) -> None:
    async with connected() as (reader, writer):
        writer.write(b"abc")
        assert await reader.read(size) == b"abc"
        writer.write(b"def")
        writer.write_eof()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(size)
        assert (caught.value.partial, caught.value.expected) == (b"def", size)


@pytest.mark.parametrize("delay", [0, -1, -(2**80), -math.inf, 0.0, Fraction(1, 1000), True - 1])
async def test_delays_that_are_over(loop: Any, delay: Any) -> None:
    for call, base in ((loop.call_later, 0), (loop.call_at, loop.time())):
        future = loop.create_future()
        call(base + delay, future.set_result, "ran")
        assert await future == "ran"


@pytest.mark.parametrize("delay", [2**31, 2**53, 2**63, 2**64, 2**80, 1e30, math.inf])
async def test_delays_without_end(loop: Any, delay: Any) -> None:
    for call in (loop.call_later, loop.call_at):
        timer = call(delay, print, "never")
        await asyncio.sleep(0.01)
        assert timer.when() >= delay
        timer.cancel()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.wait_for(loop.create_future(), delay), 0.01)


async def test_a_delay_that_is_no_number_holds_nothing_up(loop: Any) -> None:
    loop.call_later(math.nan, int)
    await asyncio.sleep(0.01)
    await asyncio.wait_for(asyncio.sleep(0.01), 5)


@pytest.mark.parametrize("wrong", ["1", None, [], b"1"])
async def test_delays_that_are_none(loop: Any, wrong: Any) -> None:
    with pytest.raises(TypeError):
        loop.call_later(wrong, print)


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("seconds", [2**64, 2**80, 1e30, math.inf, Fraction(10), True], ids=str)
async def test_timeouts_of_tls(loop: Any, name: str, seconds: Any) -> None:
    server = await asyncio.start_server(
        echo, "127.0.0.1", 0, ssl=tls.server_context(), **{name: seconds}
    )
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=tls.client_context(),
        server_hostname="localhost", **{name: seconds},
    )  # fmt: skip
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("count", [1, 2**31, 2**40, 2**62])
async def test_sendfile_counts(loop: Any, tmp_path: Any, count: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    left, right = socket.socketpair()
    left.setblocking(False)
    with path.open("rb") as file:
        assert await loop.sock_sendfile(left, file, 0, count) == min(count, 10)
    left.close()
    right.close()
