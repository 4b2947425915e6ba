"""httpx and anyio: structured concurrency, streams, processes, threads and files over our loop."""

import hashlib
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

import netpoll

from ..conftest import LoopFactory
from ..support import pattern
from .conftest import Certificates

anyio = pytest.importorskip("anyio")
httpx = pytest.importorskip("httpx")
from anyio.streams.buffered import BufferedByteReceiveStream  # noqa: E402
from anyio.streams.tls import TLSListener, TLSStream  # noqa: E402

MIB = 1024 * 1024


def run(loop_factory: LoopFactory, main: Any, *arguments: Any) -> Any:
    """anyio.run with our loop: anyio closes it, the fixture looks at what is left."""
    made: list[Any] = []

    def factory() -> Any:
        made.append(loop_factory())
        return made[-1]

    result = anyio.run(
        main, *arguments, backend="asyncio", backend_options={"loop_factory": factory}
    )
    assert len(made) == 1 and isinstance(made[0], netpoll.EventLoop) and made[0].is_closed()
    return result


async def serve_http(stream: Any) -> None:
    """Enough HTTP for httpx: digests what is posted, keeps the connection."""
    async with stream:
        buffered = BufferedByteReceiveStream(stream)
        while True:
            try:
                head = await buffered.receive_until(b"\r\n\r\n", 65536)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                return
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            body = await buffered.receive_exactly(length) if length else b""
            digest = hashlib.sha256(body).hexdigest().encode()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(digest))
            await stream.send(digest)


async def post_many(url: str, count: int, verify: ssl.SSLContext | bool = True) -> None:
    limits = httpx.Limits(max_connections=16)
    client = httpx.AsyncClient(verify=verify, limits=limits, timeout=30, trust_env=False)
    async with client, anyio.create_task_group() as group:

        async def post(number: int) -> None:
            body = pattern(number * 1999, number)
            answer = await client.post(url, content=body)
            assert answer.text == hashlib.sha256(body).hexdigest()

        for number in range(count):
            group.start_soon(post, number)


async def httpx_to_anyio(server_tls: Any, client_tls: Any) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    serving = listener
    if server_tls is not None:
        serving = TLSListener(listener, server_tls, standard_compatible=False)
    async with anyio.create_task_group() as group:
        group.start_soon(serving.serve, serve_http)
        scheme = "http" if server_tls is None else "https"
        await post_many(f"{scheme}://127.0.0.1:{port}/", 100, client_tls or True)
        group.cancel_scope.cancel()
    await serving.aclose()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_httpx(loop_factory: LoopFactory, certificates: Certificates, tls: bool) -> None:
    contexts = (certificates.server(), certificates.client()) if tls else (None, None)
    run(loop_factory, httpx_to_anyio, *contexts)


async def tcp_streams() -> None:
    """A large transfer each way, half-close, and a time-out that strikes in the middle."""
    body = pattern(16 * MIB)

    async def handle(stream: Any) -> None:
        async with stream:
            digest = hashlib.sha256()
            async for chunk in stream:
                digest.update(chunk)
            await stream.send(digest.digest())

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, handle)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(body)
            await stream.send_eof()
            assert await stream.receive() == hashlib.sha256(body).digest()
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            with anyio.move_on_after(0.05) as scope:
                await stream.receive()
            assert scope.cancelled_caught
        group.cancel_scope.cancel()


def test_tcp_streams(loop_factory: LoopFactory) -> None:
    run(loop_factory, tcp_streams)


async def unix_and_udp(folder: Path) -> None:
    async def handle(stream: Any) -> None:
        async with stream:
            await stream.send(await stream.receive())

    async with (
        await anyio.create_unix_listener(folder / "socket") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, handle)
        async with await anyio.connect_unix(folder / "socket") as stream:
            await stream.send(b"over Unix")
            assert await stream.receive() == b"over Unix"
        group.cancel_scope.cancel()
    async with await anyio.create_udp_socket(local_host="127.0.0.1") as receiver:
        port = receiver.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.create_connected_udp_socket("127.0.0.1", port) as sender:
            for number in range(50):
                await sender.send(b"%d" % number)
                data, _ = await receiver.receive()
                assert data == b"%d" % number


def test_unix_and_udp(loop_factory: LoopFactory, tmp_path: Path) -> None:
    run(loop_factory, unix_and_udp, tmp_path)


async def tls_streams(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async def handle(stream: Any) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send(chunk)

    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    listener = TLSListener(plain, server_tls)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        port = plain.extra(anyio.abc.SocketAttribute.local_port)
        stream = await anyio.connect_tcp("127.0.0.1", port, ssl_context=client_tls)
        assert isinstance(stream, TLSStream)
        async with stream:
            for size in (1, 16_384, 100_000):
                await stream.send(pattern(size))
                got = b""
                while len(got) < size:
                    got += await stream.receive()
                assert got == pattern(size)
        group.cancel_scope.cancel()


def test_tls_streams(loop_factory: LoopFactory, certificates: Certificates) -> None:
    run(loop_factory, tls_streams, certificates.server(), certificates.client())


async def threads_processes_and_signals() -> None:
    assert await anyio.to_thread.run_sync(lambda: 6 * 7) == 42
    done = await anyio.run_process([sys.executable, "-c", "print(input()[::-1])"], input=b"abc\n")
    assert done.stdout == b"cba\n"
    async with await anyio.open_process([sys.executable, "-c", "import time; time.sleep(60)"]) as p:
        with anyio.move_on_after(0.05) as scope:
            await p.wait()
        assert scope.cancelled_caught
        p.kill()
        assert await p.wait() == -signal.SIGKILL
    with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
        signal.raise_signal(signal.SIGUSR1)
        async for number in signals:
            assert number == signal.SIGUSR1
            break


def test_threads_processes_and_signals(loop_factory: LoopFactory) -> None:
    run(loop_factory, threads_processes_and_signals)


async def files(path: Path) -> None:
    async with await anyio.open_file(path, "wb") as file:
        await file.write(pattern(MIB))
    assert await anyio.Path(path).read_bytes() == pattern(MIB)


def test_files(loop_factory: LoopFactory, tmp_path: Path) -> None:
    run(loop_factory, files, tmp_path / "file")
