"""Certificates, contexts and TLS peers for the tests. The certificates are trustme's."""

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from .support import Recorder, until

trustme = pytest.importorskip("trustme", reason="certificates for the tests need trustme")

HOST = "localhost"
OTHER = "other.example"


@functools.cache
def authority() -> Any:
    return trustme.CA()


@functools.cache
def certificate(name: str, valid: bool = True) -> Any:
    """A server's certificate for `name`; `valid`: signed by the authority that clients trust."""
    return (authority() if valid else trustme.CA()).issue_cert(name)


def server_context(
    name: str = HOST, *, valid: bool = True, ask_client: bool = False, **versions: Any
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate(name, valid).configure_cert(context)
    if ask_client:
        authority().configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return only(context, **versions)


def client_context(*, certificate_of: str | None = None, **versions: Any) -> ssl.SSLContext:
    """A client's, with the ssl module's defaults; it trusts `authority` and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if certificate_of is not None:
        certificate(certificate_of).configure_cert(context)
    return only(context, **versions)


def only(context: ssl.SSLContext, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


async def tls_pair(
    loop: Any,
    left: Callable[[], Any] = Recorder,
    right: Callable[[], Any] = Recorder,
    *,
    server: ssl.SSLContext | None = None,
    client: ssl.SSLContext | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Two protocols with TLS over TCP between them: (client's, server's). No listener is left.

    `options` are create_connection's; ssl_shutdown_timeout and ssl_handshake_timeout go to both.
    """
    accepted: asyncio.Future[Any] = loop.create_future()

    def factory() -> Any:
        protocol = right()
        accepted.set_result(protocol)
        return protocol

    timeouts = {key: value for key, value in options.items() if key.endswith("_timeout")}
    listening = await loop.create_server(
        factory, "127.0.0.1", 0, ssl=server or server_context(), **timeouts
    )
    options.setdefault("server_hostname", HOST)
    try:
        _, connected = await loop.create_connection(
            left, *listening.sockets[0].getsockname(), ssl=client or client_context(), **options
        )
        served = await accepted
        await until(lambda: getattr(served, "transport", None) is not None)
    finally:
        listening.close()
    return connected, served


async def end(*protocols: Any) -> None:
    """Aborts connections and waits until they are lost."""
    for protocol in protocols:
        protocol.transport.abort()
    await asyncio.gather(*(protocol.lost for protocol in protocols))


@contextlib.asynccontextmanager
async def serving(loop: Any, factory: Callable[[], Any], context: Any = None, **options: Any):
    """The address of a TLS server for as long as it is entered."""
    server = await loop.create_server(
        factory, "127.0.0.1", 0, ssl=context or server_context(), **options
    )
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


class Peer:
    """A TLS client by hand, over plain streams: it sees records and can do what no client should.

    `received` is the ciphertext that came, `records` its division into (type, length) pairs.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.received = bytearray()
        self.tls: Any = None

    @classmethod
    async def connect(cls, address: Any) -> "Peer":
        return cls(*await asyncio.open_connection(*address))

    async def handshake(
        self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None
    ) -> None:
        self.tls = (context or client_context()).wrap_bio(
            self.incoming, self.outgoing, server_hostname=HOST, session=session
        )
        await self.drive(self.tls.do_handshake)

    async def drive(self, call: Callable[[], Any]) -> Any:
        """`call`, with what it sends sent and what it needs received."""
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.receive()
            else:
                await self.flush()
                return result

    async def flush(self) -> None:
        if self.outgoing.pending:
            self.writer.write(self.outgoing.read())
            await self.writer.drain()

    async def receive(self) -> None:
        """More ciphertext; ConnectionResetError at the end of the stream."""
        data = await self.reader.read(65536)
        if not data:
            raise ConnectionResetError("the stream ended")
        self.received += data
        self.incoming.write(data)

    async def send(self, data: bytes) -> None:
        await self.drive(lambda: self.tls.write(data))

    async def recv(self, size_bytes: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < size_bytes:
            piece = await self.drive(lambda: self.tls.read(size_bytes - len(data)))
            assert piece, f"close_notify after {len(data)} of {size_bytes} bytes"
            data += piece
        return data

    async def recv_end(self) -> bytes:
        """All until the server's close_notify."""
        data = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):  # what it is after our own
            while piece := await self.drive(lambda: self.tls.read(65536)):
                data += piece
        return data

    def ciphertext(self, data: bytes) -> bytes:
        """`data` as records, to be sent by hand."""
        self.tls.write(data)
        return self.outgoing.read()

    def say_goodbye(self) -> None:
        """close_notify; does not wait for the other one's."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.writer.write(self.outgoing.read())

    @property
    def records(self) -> list[tuple[int, int]]:
        found, at = [], 0
        while at + 5 <= len(self.received):
            size = int.from_bytes(self.received[at + 3 : at + 5], "big")
            found.append((self.received[at], size))
            at += 5 + size
        return found

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
