"""uvicorn's command line with `--loop netpoll:new_event_loop`, unchanged, under load."""

import asyncio
import hashlib
import json
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..support import pattern
from .conftest import Certificates
from .programs import Program, python, python_env, running

pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

MIB = 1024 * 1024
LISTENING = r"Uvicorn running on (?:\w+://[\d.]+:(\d+)|unix socket)"


@contextmanager
def uvicorn(backend: str, *options: str) -> Iterator[tuple[Program, int]]:
    """A server and its port (0 when it listens on a Unix socket)."""
    command = python("-m", "uvicorn", "tests.integration.asgi_app:app")
    command += ["--loop", "netpoll:new_event_loop", "--port", "0", *options]
    with running(command, python_env(backend)) as program:
        port = program.wait_for(LISTENING)[0]
        yield program, int(port or 0)


async def stop(program: Program, sig: int = signal.SIGTERM) -> int:
    """Its exit code. Our loop runs meanwhile: a TLS server waits for its clients' goodbyes."""
    return await asyncio.to_thread(program.stop, sig)


async def stopped_well(program: Program, sig: int = signal.SIGINT) -> None:
    """It ends by itself, without complaints; after SIGINT its loop is closed, with nothing left.

    After SIGTERM uvicorn cleans up and then ends itself with that signal, its loop not closed.
    """
    assert await stop(program, sig) == (0 if sig == signal.SIGINT else -sig), program.output()
    assert ("are zero" in program.output()) == (sig == signal.SIGINT), program.output()
    program.clean()


async def whoami(client: Any, url: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.get(f"{url}/loop")).json()
    return answer


async def talk(client: Any, url: str, backend: str) -> None:
    """Every route, many at once, contents checked."""
    assert await whoami(client, url) | {"pid": 0} == {
        "module": "netpoll.loop",
        "backend": backend,
        "pid": 0,
    }

    async def once(number: int) -> None:
        body = pattern(number * 997, number)
        posted = await client.post(f"{url}/checksum", content=body)
        assert posted.text == hashlib.sha256(body).hexdigest()
        count = number * 1009
        got = await client.get(f"{url}/bytes", params={"count": count})
        assert got.content == pattern(count)
        assert (await client.get(f"{url}/nothing")).status_code == 404

    await asyncio.gather(*(once(number) for number in range(64)))
    body = pattern(24 * MIB)
    posted = await client.post(f"{url}/checksum", content=body)
    assert posted.text == hashlib.sha256(body).hexdigest()
    got = await client.get(f"{url}/bytes", params={"count": 24 * MIB})
    assert hashlib.sha256(got.content).digest() == hashlib.sha256(pattern(24 * MIB)).digest()


def a_client(**options: Any) -> Any:
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
    return httpx.AsyncClient(timeout=30, limits=limits, trust_env=False, **options)


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_http(loop: Any, backend: str, http: str) -> None:
    pytest.importorskip(http)
    with uvicorn(backend, "--http", http) as (program, port):
        async with a_client() as client:
            await talk(client, f"http://127.0.0.1:{port}", backend)
        await stopped_well(program)


async def test_tls(loop: Any, backend: str, certificates: Certificates) -> None:
    options = ("--ssl-keyfile", str(certificates.key), "--ssl-certfile", str(certificates.cert))
    with uvicorn(backend, *options) as (program, port):
        async with a_client(verify=certificates.client()) as client:
            await talk(client, f"https://127.0.0.1:{port}", backend)
        await stopped_well(program)


async def test_unix_socket(loop: Any, backend: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with uvicorn(backend, "--uds", path) as (program, _):
        async with a_client(transport=httpx.AsyncHTTPTransport(uds=path)) as client:
            await talk(client, "http://server", backend)
        await stopped_well(program)


async def test_workers(loop: Any, backend: str) -> None:
    """Both workers serve, each on its own loop, and both end well."""
    with uvicorn(backend, "--workers", "2") as (program, port):
        program.wait_for("Application startup complete", 2)
        pids = set()
        for _ in range(200):
            async with a_client() as client:
                who = await whoami(client, f"http://127.0.0.1:{port}")
            assert who["backend"] == backend
            pids.add(who["pid"])
            if len(pids) == 2:
                break
        assert len(pids) == 2, "one of two workers never accepted a connection"
        assert await stop(program) == 0
        # The supervisor, which has no loop, forgets the socket that its workers share.
        program.clean(but=r"ResourceWarning: (unclosed <socket.socket|Enable tracemalloc).*")


@pytest.mark.parametrize("implementation", ["websockets", "wsproto"])
async def test_websocket(loop: Any, backend: str, implementation: str) -> None:
    pytest.importorskip(implementation)
    connect = pytest.importorskip("websockets.asyncio.client").connect
    with uvicorn(backend, "--ws", implementation) as (program, port):

        async def chat(number: int) -> None:
            async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as connection:
                for size in (1, 125, 126, 65_535, 65_536, 300_000):
                    message = pattern(size, number)
                    await connection.send(message)
                    assert await connection.recv() == message
                await connection.send("text, too")
                assert await connection.recv() == "text, too"

        await asyncio.gather(*(chat(number) for number in range(16)))
        await stopped_well(program)


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_raw_sockets(loop: Any, backend: str, http: str) -> None:
    """Pipelined requests, requests in pieces, and peers that go away at every point."""
    pytest.importorskip(http)
    request = b"GET /loop HTTP/1.1\r\nHost: x\r\n\r\n"
    with uvicorn(backend, "--http", http) as (program, port):
        address = ("127.0.0.1", port)
        for cut in range(0, len(request), 3):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request[:cut])
            if cut % 2:
                await writer.drain()
                writer.transport.abort()
                continue
            await asyncio.sleep(0.002)
            writer.write(request[cut:] + request * 9)
            for _ in range(10):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                assert json.loads(await reader.readexactly(length))["backend"] == backend
            writer.close()
            await writer.wait_closed()
        await stopped_well(program)


async def test_errors_stay_with_their_request(loop: Any, backend: str) -> None:
    with uvicorn(backend) as (program, port):
        url = f"http://127.0.0.1:{port}"
        async with a_client() as client:
            answers = await asyncio.gather(
                *(client.get(f"{url}/{path}") for path in ("fail", "loop") * 10)
            )
            assert [a.status_code for a in answers] == [500, 200] * 10
        assert await stop(program, signal.SIGINT) == 0
        assert program.output().count("ValueError: asked for") == 10
        assert "are zero" in program.output()


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
async def test_stops_with_idle_connections(loop: Any, backend: str, sig: signal.Signals) -> None:
    """A server that still has keep-alive connections ends all the same."""
    with uvicorn(backend) as (program, port):
        socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        try:
            for sock in socks:
                sock.sendall(b"GET /loop HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200 OK" in sock.recv(4096)
            await stopped_well(program, sig)
        finally:
            for sock in socks:
                sock.close()


async def test_tls_refuses_who_does_not_know_us(
    loop: Any, backend: str, certificates: Certificates
) -> None:
    options = ("--ssl-keyfile", str(certificates.key), "--ssl-certfile", str(certificates.cert))
    with uvicorn(backend, *options) as (program, port):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
        async with a_client(verify=certificates.client()) as client:
            assert (await whoami(client, f"https://127.0.0.1:{port}"))["backend"] == backend
        await stopped_well(program)
