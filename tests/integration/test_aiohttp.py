"""aiohttp's server and client on one loop: plain, TLS, WebSockets, large bodies, broken peers."""

import asyncio
import contextlib
import hashlib
import io
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ..support import pattern
from .conftest import Certificates
from .programs import free_port, python, python_env, running

aiohttp = pytest.importorskip("aiohttp")
from aiohttp import web  # noqa: E402

MIB = 1024 * 1024
LARGE_BYTES = 48 * MIB


async def checksum(request: Any) -> Any:
    digest = hashlib.sha256()
    async for chunk in request.content.iter_any():
        digest.update(chunk)
    return web.Response(text=digest.hexdigest())


async def stream(request: Any) -> Any:
    body = memoryview(pattern(int(request.query["count"])))
    response = web.StreamResponse()
    await response.prepare(request)
    for start in range(0, len(body), 100_000):
        await response.write(body[start : start + 100_000])
    await response.write_eof()
    return response


async def echo(request: Any) -> Any:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


def application() -> Any:
    app = web.Application(client_max_size=LARGE_BYTES * 2)
    app.router.add_post("/checksum", checksum)
    app.router.add_get("/stream", stream)
    app.router.add_get("/echo", echo)
    return app


@contextlib.asynccontextmanager
async def serving(ssl_context: Any = None) -> AsyncIterator[str]:
    """A server on this loop; its address without the scheme."""
    runner = web.AppRunner(application(), shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


async def goodbye() -> None:
    """TLS connections of a closed ClientSession need a moment: aiohttp says so itself."""
    await asyncio.sleep(0.25)


async def talk(session: Any, url: str) -> None:
    async def once(number: int) -> None:
        body = pattern(number * 1013, number)
        async with session.post(f"{url}/checksum", data=body) as answer:
            assert await answer.text() == hashlib.sha256(body).hexdigest()
        async with session.get(f"{url}/stream", params={"count": number * 777}) as answer:
            assert await answer.read() == pattern(number * 777)

    await asyncio.gather(*(once(number) for number in range(100)))


async def test_many_requests(loop: Any) -> None:
    async with serving() as address, aiohttp.ClientSession() as session:
        await talk(session, f"http://{address}")


async def test_tls(loop: Any, certificates: Certificates) -> None:
    async with serving(certificates.server()) as address:
        connector = aiohttp.TCPConnector(ssl=certificates.client(), limit=16)
        async with aiohttp.ClientSession(connector=connector) as session:
            await talk(session, f"https://{address}")
        await goodbye()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_large_bodies(loop: Any, certificates: Certificates, tls: bool) -> None:
    body = pattern(LARGE_BYTES)
    expected = hashlib.sha256(body).hexdigest()
    scheme = "https" if tls else "http"
    async with serving(certificates.server() if tls else None) as address:
        connector = aiohttp.TCPConnector(ssl=certificates.client())
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"{scheme}://{address}"
            async with session.post(f"{url}/checksum", data=io.BytesIO(body)) as answer:
                assert await answer.text() == expected
            digest = hashlib.sha256()
            async with session.get(f"{url}/stream", params={"count": LARGE_BYTES}) as answer:
                async for chunk in answer.content.iter_chunked(70_000):
                    digest.update(chunk)
            assert digest.hexdigest() == expected
        await goodbye()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_websockets(loop: Any, certificates: Certificates, tls: bool) -> None:
    async with serving(certificates.server() if tls else None) as address:
        connector = aiohttp.TCPConnector(ssl=certificates.client())
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"{'wss' if tls else 'ws'}://{address}/echo"

            async def chat(number: int) -> None:
                async with session.ws_connect(url) as socket:
                    for size in (0, 1, 125, 126, 65_536, 400_000):
                        await socket.send_bytes(pattern(size, number))
                        assert await socket.receive_bytes() == pattern(size, number)
                    await socket.send_str("Grüße")
                    assert await socket.receive_str() == "Grüße"

            await asyncio.gather(*(chat(number) for number in range(20)))
        await goodbye()


async def test_clients_that_go_away(loop: Any) -> None:
    """In the middle of an upload and of a download; the server goes on serving the others."""
    async with serving() as address, aiohttp.ClientSession() as session:
        host, port = address.split(":")
        for _ in range(20):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /checksum HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc")
            await writer.drain()
            writer.transport.abort()
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /stream?count=9000000 HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.read(1)
            writer.transport.abort()
        async with session.get(f"http://{address}/stream", params={"count": 5}) as answer:
            assert await answer.read() == pattern(5)


async def test_cancelled_requests(loop: Any) -> None:
    """A request given up at any moment neither leaks nor harms the next one."""
    async with serving() as address, aiohttp.ClientSession() as session:
        url = f"http://{address}/stream"

        async def fetch() -> bytes:
            async with session.get(url, params={"count": 300_000}) as answer:
                content: bytes = await answer.read()
                return content

        for step in range(25):
            task = asyncio.ensure_future(fetch())
            await asyncio.sleep(step * 0.0005)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert await fetch() == pattern(300_000)


async def test_time_outs(loop: Any) -> None:
    async def silence(reader: Any, writer: Any) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    timeout = aiohttp.ClientTimeout(total=0.1)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        with pytest.raises(asyncio.TimeoutError):
            await session.get(f"http://127.0.0.1:{port}/")
    server.close()
    await server.wait_closed()


PROGRAM = """
import sys
from aiohttp import web
import netpoll

async def hello(request):
    return web.Response(text=netpoll.EventLoop.__name__ + " " + request.loop.backend)

async def started(app):
    print("started", flush=True)

app = web.Application()
app.router.add_get("/", hello)
app.on_startup.append(started)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), loop=netpoll.new_event_loop())
"""


async def test_run_app(loop: Any, backend: str) -> None:
    """`web.run_app(loop=...)` as a program of its own, ended by a signal."""
    port = free_port()
    with running(python("-c", PROGRAM, str(port)), python_env(backend)) as program:
        program.wait_for("Running on http")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/") as answer,
        ):
            assert await answer.text() == f"EventLoop {backend}"
        assert await asyncio.to_thread(program.stop, signal.SIGTERM) == 0
        program.clean(but=r".*DeprecationWarning.*")
