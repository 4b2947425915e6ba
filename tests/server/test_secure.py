"""A server with a certificate: handlers see plaintext, on both engines' terms."""

import asyncio
import contextlib
import os
import random
import socket
import ssl
import time
from pathlib import Path

import pytest

import netpoll
from tests.support import SLOWNESS, pattern, reset
from tests.tls import HOST, client_context, server_context

from . import test_torture as torture
from .conftest import Serving, read_exactly, wait_for, wait_until_still

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def connect(serving: Serving, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    context = context or client_context()
    client = context.wrap_socket(serving.connect(), server_hostname=HOST)
    serving.clients.append(client)
    return client


async def dial(server: netpoll.Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=client_context(), server_hostname=HOST
    )


def upper(conn: netpoll.Connection) -> None:
    while (line := conn.take_line()) is not None:
        conn.write(line.upper())


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_lines(serving: Serving, version: ssl.TLSVersion) -> None:
    server = serving(upper, ssl=server_context(version=version))
    clients = [connect(serving) for _ in range(5)]
    for i, client in enumerate(clients):
        client.sendall(b"hello %d\nwor" % i)
        client.sendall(b"ld\n")
    for i, client in enumerate(clients):
        assert read_exactly(client, 14) == b"HELLO %d\nWORLD\n" % i
    stats = server.stats()
    assert stats["handshakes"] == stats["connections"] == 5
    assert stats["encrypted_bytes"] == 5 * 14
    assert stats["copied_bytes"] == 0, "decrypted bytes are read in place, written ones are kept"


@pytest.mark.parametrize("engine", ["native", "ssl"])
def test_large_messages_come_back_whole(serving: Serving, engine: str, monkeypatch) -> None:
    from netpoll._native.tls.engine import choose_again

    monkeypatch.setenv("NETPOLL_TLS", engine)
    try:
        choose_again()
    except RuntimeError as error:
        pytest.skip(str(error))
    try:
        data = pattern(5 << 20)
        server = serving(lambda conn: conn.forward(conn.lease()), ssl=server_context())

        async def exchange() -> bytes:
            reader, writer = await dial(server)
            writer.write(data)
            try:
                return await reader.readexactly(len(data))
            finally:
                writer.transport.abort()

        assert asyncio.run(exchange()) == data
    finally:
        monkeypatch.undo()
        choose_again()


def test_a_session(serving: Serving) -> None:
    async def session(conn: netpoll.Connection) -> None:
        assert conn.ssl_object.version().startswith("TLS")
        while await conn.fill(4) >= 4:
            size = int.from_bytes(conn.take(4))
            body = await conn.read_exactly(size)
            await asyncio.sleep(0)
            conn.writev([size.to_bytes(4), body])
            await conn.drain()

    serving(session, ssl=server_context(), workers=2)
    clients = [connect(serving) for _ in range(4)]
    for size in (0, 1, 1000, 16384, 100_000):
        for client in clients:
            client.sendall(size.to_bytes(4) + pattern(size))
        for client in clients:
            assert read_exactly(client, 4 + size) == size.to_bytes(4) + pattern(size)


def test_leases_do_not_copy(serving: Serving) -> None:
    kept: list[netpoll.Lease] = []
    pieces: list[int] = []

    def on_data(conn: netpoll.Connection) -> None:
        with conn.peek_lease(2) as head:
            assert bytes(head) == b"he"
        pieces.append(len(conn.lease(3)))
        kept.append(conn.lease().retain())
        conn.write(kept[0])

    server = serving(on_data, ssl=server_context())
    client = connect(serving)
    client.sendall(b"hello")
    assert read_exactly(client, 2) == b"lo"
    assert pieces == [3]
    assert server.stats()["copied_bytes"] == 0
    kept.clear()


def test_what_was_written_leaves_before_the_goodbye(serving: Serving) -> None:
    data = pattern(3 << 20)

    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        conn.write(data)
        conn.close()

    server = serving(
        on_data, ssl=server_context(), limits=netpoll.ServerLimits(pending_max_bytes=8 << 20)
    )
    client = connect(serving)
    client.sendall(b"x")
    assert read_exactly(client, len(data) + 1) == data
    with contextlib.suppress(OSError):
        client.unwrap()
    wait_for(lambda: not server.stats()["connections"])


def test_the_goodbye_is_said(serving: Serving) -> None:
    async def session(conn: netpoll.Connection) -> None:
        conn.write(b"bye")

    serving(session, ssl=server_context())
    client = connect(serving)
    client.suppress_ragged_eofs = False  # an end without goodbye would raise
    assert read_exactly(client, 10) == b"bye"


def test_the_peers_goodbye_is_an_end(serving: Serving) -> None:
    seen: list[object] = []

    async def session(conn: netpoll.Connection) -> None:
        seen.append(await conn.read_until(b"\n"))
        seen.append(await conn.read_until(b"\n"))
        conn.write(b"and still heard")

    server = serving(session, ssl=server_context())
    client = connect(serving)
    client.sendall(b"line\n")
    raw = socket.socket(fileno=os.dup(client.fileno()))
    with contextlib.suppress(OSError, ssl.SSLError):
        client.unwrap()
    raw.close()
    wait_for(lambda: not server.stats()["connections"])
    assert seen == [b"line\n", b""]


def test_an_end_without_goodbye(serving: Serving) -> None:
    closed: list[BaseException | None] = []
    server = serving(upper, ssl=server_context(), on_close=lambda conn, error: closed.append(error))
    first, second = connect(serving), connect(serving)
    for client in (first, second):
        client.sendall(b"x\n")
        assert read_exactly(client, 2) == b"X\n"
    first.close()
    reset(second)
    wait_for(lambda: not server.stats()["connections"])
    assert len(closed) == 2


def test_no_tls_no_service(serving: Serving) -> None:
    hooks: list[str] = []
    server = serving(
        upper,
        ssl=server_context(),
        on_connect=lambda conn: hooks.append("connect"),
        on_close=lambda conn, error: hooks.append("close"),
    )
    plain = serving.connect()
    plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        while plain.recv(1000):
            pass
    gone = serving.connect()
    gone.sendall(b"\x16\x03")
    gone.close()
    with pytest.raises(ssl.SSLError):
        stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody
        stranger.wrap_socket(serving.connect(), server_hostname=HOST)
    wait_for(lambda: server.stats()["failed_handshakes"] == 3)
    wait_for(lambda: not server.stats()["connections"])
    assert hooks == [] and serving.errors == []
    client = connect(serving)
    client.sendall(b"fine\n")
    assert read_exactly(client, 5) == b"FINE\n"


def test_a_handshake_that_does_not_come(serving: Serving) -> None:
    server = serving(
        upper, ssl=server_context(), limits=netpoll.ServerLimits(handshake_timeout_s=0.2)
    )
    silent = serving.connect()
    before_s = time.monotonic()
    assert silent.recv(1) == b""
    assert time.monotonic() - before_s < 5 * SLOWNESS
    assert server.stats()["failed_handshakes"] == 1


def test_broken_records(serving: Serving) -> None:
    closed: list[BaseException | None] = []
    serving(upper, ssl=server_context(), on_close=lambda conn, error: closed.append(error))
    client = connect(serving)
    client.sendall(b"good\n")
    assert read_exactly(client, 5) == b"GOOD\n"
    raw = socket.socket(fileno=os.dup(client.fileno()))
    raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    wait_for(lambda: closed)
    raw.close()
    assert isinstance(closed[0], ssl.SSLError)


def test_a_slow_reader(serving: Serving) -> None:
    chunk = pattern(256 << 10)
    progress: list[int] = []

    async def session(conn: netpoll.Connection) -> None:
        for i in range(30):
            conn.write(chunk)
            await conn.drain()
            progress.append(i)

    serving(session, ssl=server_context())
    client = connect(serving)
    assert 0 < wait_until_still(lambda: len(progress)) < 30
    assert read_exactly(client, 30 * len(chunk)) == chunk * 30


def test_files_and_pool_buffers(serving: Serving, tmp_path: Path) -> None:
    data = pattern(300_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        buffer = conn.reserve(1000)
        buffer.write(b"head")
        conn.write(buffer)
        conn.cork()
        with path.open("rb") as file:
            assert conn.sendfile(file, 1000) == len(data) - 1000
        conn.write(bytearray(b"tail"))
        conn.uncork()

    server = serving(on_data, ssl=server_context())
    client = connect(serving)
    client.sendall(b"x")
    want = b"head" + data[1000:] + b"tail"
    assert read_exactly(client, len(want)) == want
    assert server.stats()["file_bytes"] == len(data) - 1000


def test_stop_while_shaking_hands(serving: Serving) -> None:
    async def session(conn: netpoll.Connection) -> None:
        await conn.fill()

    server = serving(session, ssl=server_context())
    serving.connect()
    connect(serving)
    wait_for(lambda: server.stats()["connections"] == 2)
    server.close(0.2)
    assert server.stats()["connections"] == 0


def test_a_proxy_that_ends_tls(serving: Serving) -> None:
    far = socket.create_server(("127.0.0.1", 0))
    adopted: list[netpoll.Connection] = []

    def on_connect(conn: netpoll.Connection) -> None:
        upstream = conn.adopt(socket.create_connection(far.getsockname()))
        assert upstream.ssl_object is None
        conn.state, upstream.state = upstream, conn
        adopted.append(upstream)

    def on_data(conn: netpoll.Connection) -> None:
        conn.state.forward(conn.lease())

    def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
        other, conn.state = conn.state, None
        if other is not None:
            other.close()

    serving(on_data, ssl=server_context(), on_connect=on_connect, on_close=on_close)
    client = connect(serving)
    peer, _ = far.accept()
    with far, peer:
        peer.settimeout(20)
        client.sendall(b"encrypted here")
        assert read_exactly(peer, 14) == b"encrypted here"
        peer.sendall(b"plain there")
        assert read_exactly(client, 11) == b"plain there"
        client.close()
        assert peer.recv(1) == b""
    adopted.clear()


def test_contexts_that_are_none() -> None:
    with pytest.raises(TypeError, match="SSLContext"):
        netpoll.Server(upper, "127.0.0.1", 0, ssl=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="handshake_timeout_s"):
        netpoll.ServerLimits(handshake_timeout_s=0)


async def talk(server: netpoll.Server, dice: random.Random, deadline_s: float) -> int:
    """Frames of random sizes, connection after connection; how many came back whole."""
    count = 0
    while time.monotonic() < deadline_s:
        reader, writer = await dial(server)
        frames = [torture.frame(dice) for _ in range(dice.randrange(1, 8))]
        ending = dice.choice(("close", "abort", "early"))
        writer.writelines(frames)
        for data in frames[: 1 if ending == "early" else None]:
            if dice.random() < 0.1:
                await asyncio.sleep(dice.random() * 0.02)  # a slow reader
            assert await reader.readexactly(len(data)) == data, "not what was sent"
            count += 1
        if ending == "close":
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        else:
            writer.transport.abort()
    return count


@pytest.mark.parametrize("handler", [torture.on_data, torture.session], ids=["on_data", "session"])
def test_torture(serving: Serving, handler) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    server = serving(
        handler,
        ssl=server_context(),
        workers=2,
        config=netpoll.LoopConfig(buf_count=2, buf_bytes=8192),
        limits=netpoll.ServerLimits(pending_max_bytes=256 << 10),
    )
    deadline_s = time.monotonic() + (torture.SOAK_S / 12 if torture.SOAK_S else 1.0)

    async def everybody() -> list[int]:
        clients = (talk(server, random.Random(seed + i), deadline_s) for i in range(8))
        return await asyncio.gather(*clients)

    assert all(asyncio.run(everybody()))
    wait_for(lambda: not server.stats()["connections"])
    assert all("bytes were" not in str(context["exception"]) for context in serving.errors)
    serving.errors.clear()
