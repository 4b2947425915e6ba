"""TLS: handshakes that fail, and connections that become TLS later."""

import asyncio
import contextlib
import datetime
import gc
import os
import ssl
import sys
import weakref
from typing import Any

import pytest

from ..support import Echo, Recorder, listener, pair, until
from ..tls import (
    HOST,
    OTHER,
    Peer,
    authority,
    client_context,
    end,
    server_context,
    serving,
    tls_pair,
)

pytestmark = pytest.mark.control


class Watched(Recorder):
    """Counts the connections that got as far as a protocol's connection_made."""

    made_count = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        Watched.made_count += 1


@pytest.fixture(autouse=True)
def none_made() -> None:
    Watched.made_count = 0


@contextlib.asynccontextmanager
async def plain_server(answer: Any):
    """The address of a server that treats each connection as `answer(reader, writer)` does."""

    tasks = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
        await asyncio.gather(*tasks)
    finally:
        server.close()


async def connect(loop: Any, address: Any, **options: Any) -> Any:
    options.setdefault("ssl", client_context())
    options.setdefault("server_hostname", HOST)
    _, protocol = await loop.create_connection(Watched, *address, **options)
    return protocol


# ---- verification -----------------------------------------------------------------------------


async def test_an_unknown_authority_is_refused(loop: Any) -> None:
    async with serving(loop, Echo, server_context(valid=False)) as address:
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            await connect(loop, address)
    assert caught.value.verify_code in (18, 19, 20)
    assert "certificate verify failed" in str(caught.value)
    assert not Watched.made_count


async def test_another_name_is_refused(loop: Any) -> None:
    async with serving(loop, Echo, server_context(OTHER)) as address:
        with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)hostname mismatch"):
            await connect(loop, address)
    assert not Watched.made_count


@pytest.mark.netpoll_only  # asyncio: in later releases only
@pytest.mark.parametrize("how", ["start_tls", "create_connection"])
async def test_a_refused_connection_is_freed_without_the_garbage_collector(
    loop: Any, how: str
) -> None:
    if how == "create_connection" and sys.version_info < (3, 14, 10):
        pytest.skip("create_connection's own frame, which is asyncio's, keeps the exception")

    async def refused(address: Any) -> weakref.ref[Any]:
        context = client_context()
        kept = weakref.ref(context)
        try:  # pytest.raises() would keep the exception
            if how == "start_tls":
                transport, protocol = await loop.create_connection(asyncio.Protocol, *address)
                kept = weakref.ref(transport)
                await loop.start_tls(transport, protocol, context, server_hostname=HOST)
            else:
                await loop.create_connection(
                    asyncio.Protocol, *address, ssl=context, server_hostname=HOST
                )
        except ssl.SSLCertVerificationError:
            return kept
        raise AssertionError("was not refused")

    async with serving(loop, Echo, server_context(valid=False)) as address:
        gc.collect()
        gc.disable()
        try:
            kept = await refused(address)
            await until(lambda: kept() is None)
        finally:
            gc.enable()


async def test_an_expired_certificate_is_refused(loop: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    authority().issue_cert(HOST, not_after=past).configure_cert(context)
    async with serving(loop, Echo, context) as address:
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            await connect(loop, address)


async def test_ssl_true_verifies(loop: Any) -> None:
    """The ssl module's default context: it does not know the tests' authority."""
    async with serving(loop, Echo) as address:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(loop, address, ssl=True)


async def test_a_server_that_wants_a_certificate_gets_one_or_refuses(loop: Any) -> None:
    context = server_context(ask_client=True, version=ssl.TLSVersion.TLSv1_2)
    async with serving(loop, Watched, context) as address:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(loop, address)
    assert not Watched.made_count


@pytest.mark.netpoll_only
async def test_the_peer_is_told_why(loop: Any) -> None:
    """The alert leaves before the connection is broken off; asyncio only breaks it off."""
    told = []

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        peer.tls = server_context(valid=False, version=ssl.TLSVersion.TLSv1_2).wrap_bio(
            peer.incoming, peer.outgoing, server_side=True
        )
        try:
            await peer.drive(peer.tls.do_handshake)
        except ssl.SSLError as error:
            told.append(error.reason)

    async with plain_server(server) as address:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(loop, address)
        await until(lambda: told)
    assert told == ["TLSV1_ALERT_UNKNOWN_CA"]


# ---- handshakes that do not happen ------------------------------------------------------------


async def test_silent_client(loop: Any) -> None:
    """The server ends it after ssl_handshake_timeout, and nobody above hears of it."""
    async with serving(loop, Watched, ssl_handshake_timeout=0.05) as address:
        reader, writer = await asyncio.open_connection(*address)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    assert not Watched.made_count


async def test_silent_server(loop: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with plain_server(silent) as address:
        with pytest.raises(ConnectionAbortedError, match=r"longer than 0\.05 seconds"):
            await connect(loop, address, ssl_handshake_timeout=0.05)
    assert not Watched.made_count


async def test_server_that_dies_in_the_handshake(loop: Any) -> None:
    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)

    async with plain_server(dies) as address:
        with pytest.raises(ConnectionError):
            await connect(loop, address)
    assert not Watched.made_count


async def test_client_that_dies_in_the_handshake(loop: Any) -> None:
    async with serving(loop, Watched) as address:
        for how in ("close", "abort"):
            peer = await Peer.connect(address)
            peer.tls = client_context().wrap_bio(peer.incoming, peer.outgoing, server_hostname=HOST)
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            peer.writer.write(peer.outgoing.read()[:50])
            await peer.writer.drain()
            getattr(peer.writer.transport, how)()
        await asyncio.sleep(0.05)
    assert not Watched.made_count


async def test_garbage_instead_of_a_handshake(loop: Any) -> None:
    """The connection ends; the exception handler is not bothered; others are served."""
    async with serving(loop, Echo) as address:
        for garbage in (b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100, os.urandom(5000)):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(garbage)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        client = await connect(loop, address)
        client.transport.write(b"fine")
        await until(lambda: client.data == b"fine")
        await end(client)


async def test_garbage_from_the_server(loop: Any) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read()

    async with plain_server(garbage) as address:
        with pytest.raises(ssl.SSLError) as caught:
            await connect(loop, address)
    assert caught.value.reason == "WRONG_VERSION_NUMBER"


async def test_no_version_in_common(loop: Any) -> None:
    old, new = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    async with serving(loop, Watched, server_context(version=new)) as address:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(loop, address, ssl=client_context(version=old))
    assert not Watched.made_count


async def test_cancelled_in_the_handshake(loop: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with plain_server(silent) as address:
        for _ in range(5):
            task = loop.create_task(connect(loop, address))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert not Watched.made_count


async def test_timeouts_must_be_positive(loop: Any) -> None:
    async with serving(loop, Echo) as address:
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            with pytest.raises(ValueError, match=f"{name} should be a positive number, got 0"):
                await connect(loop, address, **{name: 0})


async def test_a_server_needs_a_context(loop: Any) -> None:
    sock = listener()
    with pytest.raises(TypeError):
        await loop.create_server(Echo, sock=sock, ssl=True)
    sock.close()


# ---- start_tls --------------------------------------------------------------------------------


async def upgrade(loop: Any, client: Any, served: Any, **options: Any) -> None:
    """Both ends of a connection become TLS."""
    client.transport, served.transport = await asyncio.gather(
        loop.start_tls(client.transport, client, client_context(), server_hostname=HOST, **options),
        loop.start_tls(served.transport, served, server_context(), server_side=True, **options),
    )


async def test_start_tls(loop: Any) -> None:
    client, served = await pair(loop)
    client.transport.write(b"plain")
    await until(lambda: served.data == b"plain")
    await upgrade(loop, client, served)
    assert client.events == ["made"]  # no second time
    client.transport.write(b" and " + b"x" * 100_000)
    served.transport.write(b"back")
    await until(lambda: client.data == b"back" and len(served.data) == 100_010)
    assert client.transport.get_extra_info("cipher")
    assert client.transport.get_extra_info("peername") is not None
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)
    assert client.error is None and served.error is None


async def test_tls_in_tls(loop: Any) -> None:
    """start_tls over TLS: an HTTPS proxy's tunnel."""
    client, served = await tls_pair(loop)
    await upgrade(loop, client, served)
    data = b"twice" * 100_000
    client.transport.write(data)
    served.transport.write(data)
    await until(lambda: client.data == data and served.data == data)
    inner = client.transport.get_extra_info("ssl_object")
    assert inner.version() == "TLSv1.3"
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)


async def test_start_tls_that_fails(loop: Any) -> None:
    client, served = await pair(loop)
    outcomes = await asyncio.gather(
        loop.start_tls(client.transport, client, client_context(), server_hostname=HOST),
        loop.start_tls(served.transport, served, server_context(valid=False), server_side=True),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], ssl.SSLCertVerificationError)
    await asyncio.gather(client.lost)
    served.transport.abort()
    if isinstance(outcomes[1], asyncio.Transport):  # TLS 1.3: it had finished before the verdict
        outcomes[1].abort()
    await asyncio.wait_for(served.lost, 10)


async def test_start_tls_refuses_what_it_cannot_do(loop: Any) -> None:
    client, served = await pair(loop)
    with pytest.raises(TypeError, match="sslcontext is expected to be"):
        await loop.start_tls(client.transport, client, None)
    with pytest.raises(TypeError, match="is not supported by start_tls"):
        await loop.start_tls(asyncio.Transport(), client, client_context())
    with pytest.raises(ValueError, match="ssl_handshake_timeout"):
        await loop.start_tls(client.transport, client, client_context(), ssl_handshake_timeout=-1)
    await end(client, served)


async def stream_conversation(loop: Any, early: bool) -> None:
    """SMTP's STARTTLS in small. `early`: the client does not wait for the go-ahead."""
    outcome = loop.create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert await reader.readline() == b"STARTTLS\n"
            if early:
                await asyncio.sleep(0.05)  # the handshake's first message is in the buffer
            else:
                writer.write(b"go\n")
            await writer.start_tls(server_context())
            line = await reader.readline()
            writer.write(line.upper())
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            outcome.set_result(line)
        except Exception as error:
            outcome.set_exception(error)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"STARTTLS\n")
    if not early:
        assert await reader.readline() == b"go\n"
    await writer.start_tls(client_context(), server_hostname=HOST)
    writer.write(b"secret\n")
    await writer.drain()
    assert await reader.readline() == b"SECRET\n"
    assert await reader.read() == b""
    assert await outcome == b"secret\n"
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_streams_start_tls(loop: Any) -> None:
    await stream_conversation(loop, early=False)


@pytest.mark.netpoll_only
async def test_streams_start_tls_when_the_handshake_came_early(loop: Any) -> None:
    """asyncio before 3.13.10 leaves it in the reader and waits for ever."""
    await stream_conversation(loop, early=True)


@pytest.mark.netpoll_only
async def test_plaintext_is_not_taken_for_what_came_through_tls(loop: Any) -> None:
    """CVE-2011-0411 and its kin: a line slipped in behind the server's go-ahead."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"go\nslipped in\n")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.start_tls(server_context())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.readline() == b"go\n"
    with pytest.raises(ssl.SSLError):
        await writer.start_tls(client_context(), server_hostname=HOST)
    writer.close()
    server.close()
    await asyncio.sleep(0.05)
