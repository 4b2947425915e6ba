"""Python code that runs within a native call and ends, or uses, the object of that call.

An iterator, a number's __index__ or __float__, a comparison, the buffer protocol, a finaliser, the
collector, a method that somebody has overridden, an audit hook: each of them may close, abort,
write, read, cancel. Whoever goes on after it looks again. Here are transports, place by place, and
programs at random (reentrant.py). Other places are in test_reentrancy_of_loops.py, the server's own
in tests/server/test_reentrant.py.
"""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..support import SLOWNESS, BufferedRecorder, Recorder, child_output, pair, unix_pair, until
from ..tls import HOST, client_context, server_context, tls_pair
from . import reentrant
from .acting import Number, Trash, TrashBytes

# ---- datagrams --------------------------------------------------------------------------------


class Packets(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.errors: list[Exception] = []
        self.lost = 0

    def datagram_received(self, data: bytes, _addr: Any) -> None:
        self.got.append(data)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost += 1


async def endpoints(loop: Any) -> tuple[Any, Packets, Any, Packets]:
    left, one = await loop.create_datagram_endpoint(Packets, local_addr=("127.0.0.1", 0))
    right, two = await loop.create_datagram_endpoint(Packets, local_addr=("127.0.0.1", 0))
    return left, one, right, two


@pytest.mark.parametrize("end", ["abort", "close"])
@pytest.mark.parametrize("fails", [False, True])
async def test_an_address_that_ends_its_transport(
    loop: Any, errors: list[Any], end: str, fails: bool
) -> None:
    """What was queued is given back once: each piece has the references that it had before."""
    left, one, right, _ = await endpoints(loop)
    host, port = right.get_extra_info("sockname")
    pieces = [b"%d" % number * 100 for number in range(20)]
    before = [sys.getrefcount(piece) for piece in pieces]

    def act() -> None:
        getattr(left, end)()
        if fails:
            raise ZeroDivisionError

    left.sendto(pieces[0], (host, Number(act, port)))
    for piece in pieces[1:]:
        left.sendto(piece, (host, Number(lambda: port, port)))
    await until(lambda: one.lost)
    assert one.lost == 1
    del piece
    assert [sys.getrefcount(piece) for piece in pieces] == before
    right.close()
    await asyncio.sleep(0.01)
    errors.clear()


async def test_an_address_that_sends(loop: Any) -> None:
    """The queue grows while its first entry is on its way."""
    left, one, right, two = await endpoints(loop)
    host, port = right.get_extra_info("sockname")

    def act() -> None:
        for number in range(100):
            left.sendto(b"%d" % number, (host, port))

    left.sendto(b"first", (host, Number(act, port)))
    await until(lambda: len(two.got) == 101)
    assert two.got == [b"first", *(b"%d" % number for number in range(100))]
    left.close()
    right.close()
    await until(lambda: one.lost and two.lost)


async def test_an_error_handler_that_ends_its_transport(loop: Any) -> None:
    class Ender(Packets):
        def error_received(self, exc: Exception) -> None:
            super().error_received(exc)
            transport.abort()

    transport, protocol = await loop.create_datagram_endpoint(
        Ender, local_addr=("127.0.0.1", 0), allow_broadcast=False
    )
    for _ in range(5):
        transport.sendto(b"x", ("255.255.255.255", 9))
    await until(lambda: protocol.lost)
    assert len(protocol.errors) == 1


async def test_an_address_that_compares_and_ends(loop: Any) -> None:
    class Address(tuple[Any, ...]):
        __slots__ = ()

        def __ne__(self, other: object) -> bool:
            left.abort()
            return False

        __hash__ = None  # type: ignore[assignment]

    right, two = await loop.create_datagram_endpoint(Packets, local_addr=("127.0.0.1", 0))
    name = right.get_extra_info("sockname")
    left, one = await loop.create_datagram_endpoint(Packets, remote_addr=name)
    left.sendto(b"x", Address(name))
    await until(lambda: one.lost)
    right.close()
    await until(lambda: two.lost)


# ---- streams ----------------------------------------------------------------------------------

ENDS: dict[str, Callable[[Any], Any]] = {
    "abort": lambda transport: transport.abort(),
    "close": lambda transport: transport.close(),
    "write_eof": lambda transport: transport.can_write_eof() and transport.write_eof(),
    "write": lambda transport: transport.write(b"z" * 200000),
    "protocol": lambda transport: transport.set_protocol(asyncio.Protocol()),
    "limits": lambda transport: transport.set_write_buffer_limits(0),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", ["tcp", "tls", "pipe"])
async def test_an_iterator_that_ends_its_transport(
    loop: Any, errors: list[Any], kind: str, end: str
) -> None:
    reading = None
    if kind == "pipe":
        reading, writing = os.pipe()
        transport, _ = await loop.connect_write_pipe(asyncio.Protocol, open(writing, "wb"))
    else:
        left, right = await (pair(loop) if kind == "tcp" else tls_pair(loop))
        transport = left.transport

    def pieces() -> Iterator[bytes]:
        for number in range(100):
            yield b"x" * 1000
            if number == 50:
                ENDS[end](transport)

    with contextlib.suppress(RuntimeError):
        transport.writelines(pieces())
    await asyncio.sleep(0.01)
    transport.abort()
    await asyncio.sleep(0.05)
    if reading is not None:
        os.close(reading)
    else:
        right.transport.abort()
        await right.lost
    assert transport._sock_fd == -1 if kind == "tcp" else True
    errors.clear()


@pytest.mark.parametrize("end", ["abort", "close", "write"])
async def test_a_piece_that_ends_its_transport_when_it_has_left(loop: Any, end: str) -> None:
    left, right = await pair(loop)
    ended = 0

    def act() -> None:
        nonlocal ended
        ended += 1
        ENDS[end](left.transport)

    for _ in range(200):
        piece = TrashBytes(b"x" * 500)
        piece.act = act
        left.transport.write(piece)
    del piece
    await until(lambda: ended)
    await asyncio.sleep(0.05)
    left.transport.abort()
    right.transport.abort()
    await left.lost
    await right.lost


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("where", ["get_buffer", "buffer_updated"])
@pytest.mark.parametrize("end", ENDS)
async def test_a_buffered_protocol_that_ends_its_transport(
    loop: Any, errors: list[Any], where: str, end: str, tls: bool
) -> None:
    class Ender(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> bytearray:
            if where == "get_buffer" and len(self.data) > 10:
                ENDS[end](self.transport)
            return super().get_buffer(sizehint)

        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            if where == "buffer_updated":
                ENDS[end](self.transport)

    left, right = await (tls_pair if tls else pair)(loop, right=Ender)
    for _ in range(3):
        left.transport.write(b"x" * 30000)
        await asyncio.sleep(0.005)
    left.transport.abort()
    await left.lost
    right.transport.abort()
    await asyncio.sleep(0.02)
    errors.clear()


async def test_limits_that_end_the_transport(loop: Any) -> None:
    left, right = await pair(loop)

    class Limit:
        def __floor__(self) -> int:
            left.transport.abort()
            return 5

        def __ge__(self, other: object) -> bool:
            left.transport.write(b"x" * 100000)
            return True

        __le__ = __gt__ = __lt__ = __ge__

    with contextlib.suppress(TypeError):
        left.transport.set_write_buffer_limits(Limit(), Limit())
    left.transport.abort()
    await left.lost
    right.transport.abort()
    await right.lost


async def test_a_finaliser_takes_the_stream_reader_away(loop: Any) -> None:
    """In the middle of what feeds it: its memory stays until that has ended."""
    for _ in range(5):
        left, right = unix_pair()
        reader, writer = await asyncio.open_connection(sock=left)
        read = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0)
        transport = writer.transport
        thresholds = gc.get_threshold()

        def act(transport: Any = transport) -> None:
            transport.set_protocol(asyncio.Protocol())

        cycle: Any = Trash(act)
        cycle.me = cycle
        del cycle, reader, writer
        right.send(b"x")
        gc.set_threshold(1)
        try:
            await asyncio.sleep(0.01)
        finally:
            gc.set_threshold(*thresholds)
        read.cancel()
        transport.abort()
        right.close()
        await asyncio.sleep(0.01)


def _hooked() -> None:
    """An audit hook asks for the very socket that is being made, or ends the connection."""
    import asyncio
    import gc
    import os
    import socket
    import sys

    acts = []  # type: ignore[var-annotated]

    def hook(name, args):
        if name == "socket.__new__" and acts:
            acts.pop()()

    sys.addaudithook(hook)
    loop = new_loop()  # type: ignore[name-defined]

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        while not loop._fd_transports():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        (served,) = loop._fd_transports()
        fd = served._sock_fd
        acts.append(lambda: served.get_extra_info("socket"))
        served.get_extra_info("socket")
        assert not acts
        gc.collect()
        os.fstat(fd)
        served.write(b"hello")
        client.settimeout(5)
        await asyncio.sleep(0.01)
        assert client.recv(10) == b"hello"
        served.abort()
        client.close()
        client = socket.create_connection(server.sockets[0].getsockname())
        while not loop._fd_transports():
            await asyncio.sleep(0.001)
        (served,) = loop._fd_transports()
        acts.append(served.abort)
        served.get_extra_info("socket")
        await asyncio.sleep(0.01)
        assert served._sock_fd == -1
        client.close()
        server.close()

    loop.run_until_complete(main())
    loop.close()
    print("fine")


def test_an_audit_hook_uses_the_socket_that_is_made(backend: str) -> None:
    assert child_output(backend, _hooked) == "fine\n"


def _refused() -> None:
    """An audit hook refuses the socket of a TLS connection that was accepted: nothing is left."""
    import asyncio
    import os
    import socket
    import ssl
    import sys

    refuses = False

    def hook(name, args):
        if name == "socket.__new__" and refuses:
            raise PermissionError("no")

    sys.addaudithook(hook)
    loop = new_loop()  # type: ignore[name-defined]
    told = []
    loop.set_exception_handler(lambda _loop, context: told.append(context))

    async def main():
        nonlocal refuses
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context)
        client = socket.socket()
        before = len(os.listdir("/proc/self/fd"))
        refuses = True
        client.connect(server.sockets[0].getsockname())
        while not told:
            await asyncio.sleep(0.001)
        refuses = False
        assert len(os.listdir("/proc/self/fd")) == before
        client.close()
        server.close()

    loop.run_until_complete(main())
    loop.close()
    print("fine")


def test_an_audit_hook_refuses_an_accepted_socket(backend: str) -> None:
    assert child_output(backend, _refused) == "fine\n"


def test_a_connection_whose_making_is_interrupted_is_closed_once(loop: Any) -> None:
    """Its number may be another's when its socket object goes."""
    kept: list[Any] = []

    class Interrupter(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            kept.append(transport.get_extra_info("socket"))
            raise KeyboardInterrupt

    server = loop.run_until_complete(loop.create_server(Interrupter, "127.0.0.1", 0))
    with socket.create_connection(server.sockets[0].getsockname()):
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.sleep(10))
        mine = [os.dup(0) for _ in range(20)]
        kept.clear()
        gc.collect()
        for fd in mine:
            os.close(fd)  # OSError if somebody else has
    server.close()
    loop.run_until_complete(asyncio.sleep(0.01))


# ---- TLS --------------------------------------------------------------------------------------


async def test_tls_is_lost_while_it_is_fed(loop: Any) -> None:
    """The layer goes with its last reference in the middle of what it does with the bytes."""

    class Loser(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            transport, self.transport = self.transport, None
            layer = transport._ssl_protocol
            below = layer._transport
            layer.connection_lost(None)
            below.set_protocol(asyncio.Protocol())
            belows.append(below)

    belows: list[Any] = []
    left, right = await tls_pair(loop, right=Loser)
    left.transport.write(b"x" * 100)
    await until(lambda: belows)
    left.transport.abort()
    await left.lost
    belows[0].abort()
    await right.lost
    await asyncio.sleep(0.01)


async def test_a_tls_connection_is_lost_with_pieces_that_write(loop: Any) -> None:
    """What has not been encrypted is dropped, and some of it writes when it goes."""
    left, right = await tls_pair(loop)
    layer = left.transport._ssl_protocol
    transport, below = left.transport, layer._transport
    right.transport.pause_reading()
    await asyncio.sleep(0.01)

    def act() -> None:
        transport.write(b"z" * 100000)

    for _ in range(100):
        piece = TrashBytes(b"x" * 100001)
        piece.act = act
        transport.write(piece)
        piece = TrashBytes(b"y" * 10)
        piece.act = act
        transport.write(piece)
    del piece
    layer.connection_lost(None)
    below.abort()
    right.transport.abort()
    await left.lost
    await right.lost
    await asyncio.sleep(0.01)


class Odd:
    """An SSL object of somebody's own: gives more than it is asked for, keeps what it gets."""

    def __init__(self, inner: Any, kept: list[Any], kind: str) -> None:
        self.inner, self.kept, self.kind = inner, kept, kind

    def read(self, size: int) -> bytes:
        data: bytes = self.inner.read(size)
        return data * 1000 if self.kind == "read" else data

    def write(self, data: Any) -> int:
        self.kept.append(data)
        took: int = self.inner.write(data)
        return {"more": took + 1, "less": -took}.get(self.kind, took)

    def __getattr__(self, name: str) -> Any:
        if name == "_sslobj":
            raise AttributeError
        return getattr(self.inner, name)


@pytest.mark.parametrize("kind", ["keep", "read", "more", "less"])
async def test_an_odd_ssl_object(loop: Any, errors: list[Any], kind: str) -> None:
    kept: list[Any] = []

    class Context(ssl.SSLContext):
        def wrap_bio(self, *args: Any, **options: Any) -> Any:
            return Odd(super().wrap_bio(*args, **options), kept, kind)

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    left, right = await tls_pair(loop, left=lambda: BufferedRecorder(100), client=context)
    left.transport.write(b"x" * 1000)
    right.transport.write(b"y" * 1000)
    await asyncio.sleep(0.05)
    if kind == "keep":
        assert bytes(kept[-1]) == b"x" * 1000
        assert left.data == b"y" * 1000
    else:
        assert left.events[-1] == "lost"
        assert isinstance(left.error, ValueError)
    left.transport.abort()
    right.transport.abort()
    await left.lost
    await right.lost
    assert kind == "keep" or errors
    errors.clear()


@pytest.mark.parametrize("end", ["abort", "close", "lost", "pause"])
async def test_an_sni_callback_that_ends_the_connection(
    loop: Any, errors: list[Any], end: str
) -> None:
    layers: list[Any] = []
    context = server_context()

    def act(_sslobj: Any, _name: Any, _context: Any) -> None:
        for transport in loop._fd_transports():
            layer = transport.get_protocol()
            if getattr(layer, "_sslcontext", None) is context and layer not in layers:
                layers.append(layer)
                if end == "lost":
                    layer.connection_lost(None)
                elif end == "pause":
                    layer._app_transport.pause_reading()
                    layer._app_transport.write(b"early" * 10000)
                else:
                    getattr(layer._app_transport, end)()

    context.sni_callback = act
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context)
    host, port = server.sockets[0].getsockname()
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        _, protocol = await asyncio.wait_for(
            loop.create_connection(
                Recorder, host, port, ssl=client_context(), server_hostname=HOST
            ),
            0.3 * SLOWNESS,
        )
        protocol.transport.abort()
    server.close()
    for transport in loop._fd_transports():
        transport.abort()
    await asyncio.sleep(0.02)
    assert layers
    errors.clear()


# ---- programs at random -----------------------------------------------------------------------


@pytest.mark.parametrize("part", reentrant.PARTS)
def test_programs_at_random(loop_factory: Any, errors: list[Any], part: str) -> None:
    thresholds = gc.get_threshold()
    gc.set_threshold(200, 5, 5)
    try:
        reentrant.play(loop_factory, part)
    finally:
        gc.set_threshold(*thresholds)
    strange = [context for context in errors if not reentrant.is_expected(context)]
    errors.clear()
    assert not strange
