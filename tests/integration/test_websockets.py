"""The websockets library, server and client."""

import asyncio
from typing import Any

import pytest

from ..support import pattern
from .conftest import Certificates

pytest.importorskip("websockets")
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

SIZES = (0, 1, 125, 126, 65_535, 65_536, 700_000)


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


def address(server: Any, scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_echo(loop: Any, certificates: Certificates, tls: bool, compression: Any) -> None:
    server_tls, client_tls = (certificates.server(), certificates.client()) if tls else (None, None)
    options = {"compression": compression, "max_size": None}
    async with serve(echo, "127.0.0.1", 0, ssl=server_tls, **options) as server:
        url = address(server, "wss" if tls else "ws")

        async def chat(number: int) -> None:
            async with connect(url, ssl=client_tls, proxy=None, **options) as connection:
                for size in SIZES:
                    await connection.send(pattern(size, number))
                    assert await connection.recv() == pattern(size, number)
                await connection.send("text")
                assert await connection.recv() == "text"
                assert await (await connection.ping()) >= 0

        await asyncio.gather(*(chat(number) for number in range(24)))


async def test_many_small_messages(loop: Any) -> None:
    """In both directions at once, in order."""
    async with serve(echo, "127.0.0.1", 0) as server:
        async with connect(address(server), proxy=None) as connection:

            async def send() -> None:
                for number in range(5000):
                    await connection.send(str(number))

            sender = asyncio.ensure_future(send())
            received = [await connection.recv() for _ in range(5000)]
            await sender
            assert received == [str(number) for number in range(5000)]


async def test_slow_reader(loop: Any) -> None:
    """A server that sends more than anybody takes is held back, and nothing is lost."""
    sent = 0

    async def flood(connection: Any) -> None:
        nonlocal sent
        for number in range(300):
            await connection.send(pattern(50_000, number))
            sent += 1

    async with serve(flood, "127.0.0.1", 0, compression=None) as server:
        async with connect(address(server), proxy=None, compression=None) as connection:
            await asyncio.sleep(0.3)
            assert sent < 300
            for number in range(300):
                assert await connection.recv() == pattern(50_000, number)


async def test_how_it_ends(loop: Any) -> None:
    async def bye(connection: Any) -> None:
        if await connection.recv() == "close":
            await connection.close(4000, "enough")
        else:
            connection.transport.abort()

    async with serve(bye, "127.0.0.1", 0) as server:
        async with connect(address(server), proxy=None) as connection:
            await connection.send("close")
            with pytest.raises(ConnectionClosedError) as closed:
                await connection.recv()
            assert closed.value.rcvd.code == 4000
        async with connect(address(server), proxy=None) as connection:
            await connection.send("abort")
            with pytest.raises(ConnectionClosedError):
                await connection.recv()


async def test_server_closes_under_clients(loop: Any) -> None:
    async with serve(echo, "127.0.0.1", 0) as server:
        clients = [await connect(address(server), proxy=None) for _ in range(20)]
        server.close()
        for client in clients:
            with pytest.raises(ConnectionClosedOK):
                await client.recv()
            await client.close()
