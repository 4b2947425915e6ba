"""TLS: what a connection is, and the data that goes through it. On both engines."""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..support import (
    BufferedRecorder,
    Echo,
    Recorder,
    child_output,
    digest,
    is_netpoll,
    pattern,
    until,
)
from ..tls import (
    HOST,
    OTHER,
    Peer,
    client_context,
    end,
    server_context,
    serving,
    tls_pair,
)

pytestmark = pytest.mark.control

VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
APPLICATION_DATA = 23


@pytest.fixture(autouse=True, params=["native", "ssl"])
def engine(request: pytest.FixtureRequest, backend: str, monkeypatch: Any) -> Any:
    """Each test on both of netpoll's engines; asyncio has one."""
    if not is_netpoll(backend):
        if request.param == "ssl":
            pytest.skip("the control has one engine")
        yield "asyncio"
        return
    from netpoll._native.tls.engine import choose_again

    monkeypatch.setenv("NETPOLL_TLS", request.param)
    choose_again()
    yield request.param
    monkeypatch.undo()
    choose_again()


# ---- what it is -------------------------------------------------------------------------------


@VERSIONS
async def test_what_is_known_about_a_connection(loop: Any, version: Any) -> None:
    server, client = server_context(version=version), client_context()
    connected, served = await tls_pair(loop, server=server, client=client)
    ours, theirs = connected.transport, served.transport
    assert ours.get_extra_info("sslcontext") is client
    assert theirs.get_extra_info("sslcontext") is server
    for transport in (ours, theirs):
        name, protocol, bits = transport.get_extra_info("cipher")
        assert name.startswith(("TLS_", "ECDHE")) and bits >= 128
        assert protocol == ("TLSv1.2" if version == ssl.TLSVersion.TLSv1_2 else "TLSv1.3")
        assert transport.get_extra_info("ssl_object").version() == protocol
        assert transport.get_extra_info("compression", "none") is None
        assert isinstance(transport, asyncio.Transport)
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()
    assert ours.get_extra_info("peercert")["subjectAltName"] == (("DNS", HOST),)
    assert theirs.get_extra_info("peercert") is None
    assert ours.get_extra_info("peername") == theirs.get_extra_info("sockname")
    assert ours.get_extra_info("socket").fileno() >= 0
    assert ours.get_extra_info("nothing", 5) == 5
    await end(connected, served)


async def test_unix_sockets(loop: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    server = await loop.create_unix_server(Echo, path, ssl=server_context())
    _, client = await loop.create_unix_connection(
        Recorder, path, ssl=client_context(), server_hostname=HOST
    )
    client.transport.write(b"hello")
    await until(lambda: client.data == b"hello")
    await end(client)
    server.close()


async def test_alpn(loop: Any) -> None:
    server, client = server_context(), client_context()
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1"])
    connected, served = await tls_pair(loop, server=server, client=client)
    for protocol in (connected, served):
        sslobj = protocol.transport.get_extra_info("ssl_object")
        assert sslobj.selected_alpn_protocol() == "http/1.1"
    await end(connected, served)


async def test_sni_callback_swaps_the_context(loop: Any) -> None:
    """The client asks for another name and is given that one's certificate."""
    first, second = server_context(HOST), server_context(OTHER)
    asked = []

    def choose(sslobj: Any, name: str | None, context: ssl.SSLContext) -> None:
        asked.append(name)
        assert context is first
        if name == OTHER:
            sslobj.context = second

    first.sni_callback = choose
    for name in (OTHER, HOST):
        connected, served = await tls_pair(loop, server=first, server_hostname=name)
        names = connected.transport.get_extra_info("peercert")["subjectAltName"]
        assert names == (("DNS", name),)
        served.transport.write(b"after the swap")
        await until(lambda p=connected: p.data == b"after the swap")
        await end(connected, served)
    assert asked == [OTHER, HOST]


@VERSIONS
async def test_client_certificates(loop: Any, version: Any) -> None:
    server = server_context(ask_client=True, version=version)
    client = client_context(certificate_of=OTHER)
    connected, served = await tls_pair(loop, server=server, client=client)
    names = served.transport.get_extra_info("peercert")["subjectAltName"]
    assert names == (("DNS", OTHER),)
    await end(connected, served)


async def test_sessions_are_resumed(loop: Any) -> None:
    """The second handshake of a peer that kept its session is a short one."""
    context = client_context()
    reused = []

    class Served(Echo):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            reused.append(transport.get_extra_info("ssl_object").session_reused)

    session = None
    async with serving(loop, Served) as address:
        for _ in range(3):
            peer = await Peer.connect(address)
            await peer.handshake(context, session)
            await peer.send(b"x")
            assert await peer.recv(1) == b"x"
            session = peer.tls.session
            assert session.has_ticket
            await peer.close()
    assert reused == [False, True, True]


async def test_a_message_callback_is_called_and_harmless(loop: Any) -> None:
    """_msg_callback is private, but debuggers use it; its presence excludes the native engine."""
    messages: list[Any] = []
    context = client_context()
    context._msg_callback = lambda *message: messages.append(message)  # type: ignore[attr-defined]
    connected, served = await tls_pair(loop, client=context)
    connected.transport.write(b"seen")
    await until(lambda: served.data == b"seen")
    assert len(messages) > 5
    await end(connected, served)


# ---- data -------------------------------------------------------------------------------------


class ViewRecorder(BufferedRecorder):
    """asyncio's TLS slices the buffer: of a bytearray that would be a copy."""

    def get_buffer(self, sizehint: int) -> Any:
        return memoryview(super().get_buffer(sizehint))


@VERSIONS
@pytest.mark.parametrize("kind", [Recorder, ViewRecorder])
async def test_much_both_ways(loop: Any, kind: Any, version: Any) -> None:
    """Checksums of 3 MiB each way, in pieces of odd sizes, with a buffer of 4 KiB or none."""
    connected, served = await tls_pair(loop, kind, kind, server=server_context(version=version))
    for seed, (source, target) in enumerate(((connected, served), (served, connected))):
        data = pattern(3 << 20, seed)
        at = 0
        for step in (1, 100, 16384, 16385, 70000, 1 << 20, len(data)):
            source.transport.write(data[at : at + step])
            at += step
        await until(lambda t=target: len(t.data) >= 3 << 20)
        assert digest(target.data) == digest(data)
    await end(connected, served)


async def test_many_small_writes(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    pieces = [bytes([n % 256]) * (n % 50) for n in range(3000)]
    for n, piece in enumerate(pieces):
        connected.transport.write(piece)
        if n % 500 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(served.data) == sum(map(len, pieces)))
    assert bytes(served.data) == b"".join(pieces)
    await end(connected, served)


@pytest.mark.netpoll_only
async def test_the_writes_of_a_turn_are_one_record(loop: Any) -> None:
    class Talker(Echo):
        def data_received(self, data: bytes) -> None:
            for n in range(100):
                self.transport.write(bytes([n]) * 20)

    async with serving(loop, Talker) as address:
        peer = await Peer.connect(address)
        await peer.handshake()
        await peer.send(b"go")
        peer.received.clear()
        assert await peer.recv(2000) == b"".join(bytes([n]) * 20 for n in range(100))
        # The session tickets of TLS 1.3 look like data from outside.
        assert [size for kind, size in peer.records if kind == APPLICATION_DATA and size > 1500]
        assert len(peer.records) <= 3
        await peer.close()


async def test_what_changes_after_write_is_sent_as_it_was(loop: Any) -> None:
    """Bug class 12."""
    connected, served = await tls_pair(loop)
    data = bytearray(b"a" * 1000)
    connected.transport.write(data)
    connected.transport.write(memoryview(data)[:500])
    data[:] = b"b" * 1000
    connected.transport.writelines([b"one", bytearray(b"two"), memoryview(b"three"), b""])
    connected.transport.writelines([])
    await until(lambda: len(served.data) >= 1511)
    assert bytes(served.data) == b"a" * 1500 + b"onetwothree"
    with pytest.raises(TypeError, match="bytes-like"):
        connected.transport.write("text")
    await end(connected, served)


async def test_records_arrive_in_pieces(loop: Any) -> None:
    """A byte at a time, then two records and a half at once."""
    async with serving(loop, Echo) as address:
        peer = await Peer.connect(address)
        await peer.handshake()
        for byte in peer.ciphertext(b"slowly"):
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        assert await peer.recv(6) == b"slowly"
        data = peer.ciphertext(b"x" * 40_000)
        peer.writer.write(data[:36_000])
        got = await peer.recv(32_768)
        peer.writer.write(data[36_000:])
        assert got + await peer.recv(40_000 - 32_768) == b"x" * 40_000
        await peer.close()


async def test_streams(loop: Any) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_context(), limit=1 << 21)
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(),
        ssl=client_context(),
        server_hostname=HOST,
        limit=1 << 21,
    )
    for line in (b"short\n", pattern(1 << 20).replace(b"\n", b" ") + b"\n"):
        writer.write(line)
        await writer.drain()
        assert await reader.readline() == line
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    server.close()


async def test_sendfile_falls_back(loop: Any, tmp_path: Path) -> None:
    """loop.sendfile reads and encrypts; fallback=False is refused."""
    (tmp_path / "f").write_bytes(pattern(300_000))
    connected, served = await tls_pair(loop)
    with open(tmp_path / "f", "rb") as file:
        with pytest.raises((RuntimeError, asyncio.SendfileNotAvailableError)):
            await loop.sendfile(connected.transport, file, fallback=False)
        assert await loop.sendfile(connected.transport, file) == 300_000
    await until(lambda: len(served.data) == 300_000)
    assert digest(served.data) == digest(pattern(300_000))
    await end(connected, served)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
async def test_renegotiation_is_refused_by_openssl(loop: Any) -> None:
    """A TLS 1.2 client that asks for it is told no_renegotiation; others live on."""
    context = server_context(version=ssl.TLSVersion.TLSv1_2)
    async with serving(loop, Echo, context) as (host, port):
        connect = f"{host}:{port}"
        client = await loop.run_in_executor(
            None,
            lambda: subprocess.run(
                ["openssl", "s_client", "-connect", connect, "-tls1_2", "-quiet", "-no_ign_eof"],
                input=b"R\n",
                capture_output=True,
                timeout=20,
                check=False,
            ),
        )
        output = client.stdout + client.stderr
        assert b"RENEGOTIATING" in output and b"no renegotiation" in output
        _, other = await loop.create_connection(
            Recorder, host, port, ssl=client_context(), server_hostname=HOST
        )
        other.transport.write(b"still here")
        await until(lambda: other.data == b"still here")
        await end(other)


# ---- the engines ------------------------------------------------------------------------------


@pytest.mark.netpoll_only
def test_the_engine_is_named(engine: str, loop: Any) -> None:
    from netpoll import tls

    name, reason = tls.engine()
    assert name == engine
    assert ssl.OPENSSL_VERSION in reason if engine == "native" else "NETPOLL_TLS" in reason


@pytest.mark.netpoll_only
async def test_kernel_tls_is_reported(loop: Any) -> None:
    """The connection says what it does, the module what this machine could do."""
    from netpoll import tls

    connected, served = await tls_pair(loop)
    assert connected.transport.get_extra_info("ktls", "unknown") is False
    offered, reason = tls.ktls()
    ulps = Path("/proc/sys/net/ipv4/tcp_available_ulp").read_text().split()
    assert offered == (hasattr(ssl, "OP_ENABLE_KTLS") and "tls" in ulps)
    assert "tls" in reason or "OP_ENABLE_KTLS" in reason
    await end(connected, served)


@pytest.mark.netpoll_only
def test_an_unknown_engine_is_an_error(backend: str) -> None:
    def body() -> None:
        import os

        os.environ["NETPOLL_TLS"] = "fast"
        from netpoll import tls

        try:
            tls.engine()
        except ValueError as error:
            print(error)

    assert "NETPOLL_TLS is 'fast'" in child_output(backend, body)


@pytest.mark.netpoll_only
class Proxy:
    """In the place of an SSLObject's native part: keeps what it is given, gives what it wants."""

    def __init__(self, inner: Any, kept: list[Any]) -> None:
        self._inner, self._kept = inner, kept
        self.write_answer: int | None = None
        self.read_answer: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: Any) -> int:
        self._kept.append((data, memoryview(data), bytes(data)))
        return self._inner.write(data) if self.write_answer is None else self.write_answer

    def read(self, *arguments: Any) -> Any:
        data = self._inner.read(*arguments)
        return data if self.read_answer is None else self.read_answer


def proxying(context: ssl.SSLContext, made: list[Proxy], kept: list[Any]) -> ssl.SSLContext:
    class Proxied(ssl.SSLObject):
        @classmethod
        def _create(cls, *args: Any, **kwargs: Any) -> Any:
            self = super()._create(*args, **kwargs)  # type: ignore[misc]
            made.append(Proxy(self._sslobj, kept))
            self._sslobj = made[-1]
            return self

    context.sslobject_class = Proxied
    return context


async def test_what_an_ssl_object_keeps_is_its_own(loop: Any) -> None:
    """Pieces that a custom sslobject_class has kept, and views of them, stay as they were."""
    kept: list[Any] = []
    context = proxying(client_context(), [], kept)
    client, served = await tls_pair(loop, right=Echo, client=context)
    for number in range(20):
        client.transport.write(pattern(5000 + number))
        client.transport.write(bytearray(pattern(100)))
        await asyncio.sleep(0)
    await until(lambda: len(client.data) == sum(5100 + n for n in range(20)))
    await end(client)
    served.transport.abort()
    await asyncio.sleep(0.01)
    assert kept
    for data, view, before in kept:
        assert view == before
        if is_netpoll(loop):
            assert data == before


@pytest.mark.netpoll_only
@pytest.mark.parametrize(
    ("attribute", "answer"),
    [("write_answer", 1 << 30), ("write_answer", -2), ("read_answer", b"x" * (1 << 20))],
)
@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
async def test_an_ssl_object_that_counts_wrong(
    loop: Any, kind: Any, attribute: str, answer: Any
) -> None:
    """More than it was asked for would be written over other memory: the connection fails."""
    made: list[Proxy] = []
    context = proxying(client_context(), made, [])
    loop.set_exception_handler(lambda _loop, _context: None)
    client, served = await tls_pair(loop, kind, Echo, client=context)
    client.transport.write(b"hello")
    await asyncio.sleep(0.02)
    setattr(made[-1], attribute, answer)
    with contextlib.suppress(ValueError):
        client.transport.write(b"more")
    await asyncio.wait_for(client.lost, 10)
    assert isinstance(client.error, ValueError) and "has returned" in str(client.error)
    served.transport.abort()
    await asyncio.sleep(0.01)


async def test_a_wrapped_context_is_followed(loop: Any) -> None:
    """Wrappers (truststore's, say) hand wrap_bio to a context of their own."""

    class Wrapper(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
            return inner.wrap_bio(*args, **kwargs)

    inner = client_context()
    connected, served = await tls_pair(loop, client=Wrapper(ssl.PROTOCOL_TLS_CLIENT))
    connected.transport.write(b"through")
    await until(lambda: served.data == b"through")
    await end(connected, served)


async def test_the_ssl_object_outlives_its_connection(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    sslobj = connected.transport.get_extra_info("ssl_object")
    transport = connected.transport
    await end(connected, served)
    assert transport.get_extra_info("ssl_object") is sslobj
    assert transport.get_extra_info("peercert")["subjectAltName"] == (("DNS", HOST),)
    connected.transport = served.transport = transport = None
    assert sslobj.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        sslobj.read(10)  # nothing is left to read from, and nothing crashes
    sslobj.write(b"into the void")


def test_blocking_clients_are_served(loop: Any) -> None:
    """The ssl module's own blocking socket on the other end."""

    def client(address: Any) -> bytes:
        with socket.create_connection(address) as sock:
            with client_context().wrap_socket(sock, server_hostname=HOST) as tls:
                tls.sendall(b"x" * 100_000)
                data = b""
                while len(data) < 100_000:
                    data += tls.recv(65536)
                return data

    async def main() -> bytes:
        async with serving(loop, Echo) as address:
            return await loop.run_in_executor(None, client, address)

    assert loop.run_until_complete(main()) == b"x" * 100_000


@pytest.mark.netpoll_only
async def test_an_idle_connection_holds_little(loop: Any, engine: str) -> None:
    """User memory of 100 idle connections, both ends: asyncio has 512 KiB for each pair."""

    def rss_kib() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    pairs = [await tls_pair(loop) for _ in range(20)]
    before = rss_kib()
    pairs += [await tls_pair(loop) for _ in range(100)]
    for connected, _ in pairs:
        connected.transport.write(b"x" * 1000)
    await until(lambda: all(len(served.data) == 1000 for _, served in pairs))
    used_kib = (rss_kib() - before) / 100
    assert used_kib < 160, f"{used_kib} KiB for each pair"
    await end(*(protocol for both in pairs for protocol in both))
