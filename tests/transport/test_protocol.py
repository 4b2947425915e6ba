"""What a protocol sees: Protocol and BufferedProtocol, order of events, extra info, switching."""

import asyncio
import gc
import socket
import weakref
from typing import Any

import pytest

from ..support import (
    BufferedRecorder,
    Recorder,
    digest,
    pair,
    pattern,
    until,
)

pytestmark = pytest.mark.control

KINDS = pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])


async def close_both(client: Any, served: Any) -> None:
    client.transport.close()
    served.transport.close()
    await asyncio.gather(client.lost, served.lost)


@KINDS
async def test_events_in_order(loop: Any, kind: Any) -> None:
    client, served = await pair(loop, kind, kind)
    client.transport.write(b"hello")
    await until(lambda: served.data == b"hello")
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)
    assert client.events == ["made", "lost"]
    assert served.events == ["made", "data", "eof", "lost"]
    assert client.error is None and served.error is None


async def test_data_received_gets_bytes(loop: Any) -> None:
    kinds: list[type] = []

    class Typed(Recorder):
        def data_received(self, data: bytes) -> None:
            kinds.append(type(data))
            super().data_received(data)

    client, served = await pair(loop, Recorder, Typed)
    client.transport.write(b"x" * 10)
    await until(lambda: len(served.data) == 10)
    client.transport.write(pattern(300_000))
    await until(lambda: len(served.data) == 300_010)
    assert set(kinds) == {bytes}
    await close_both(client, served)


@KINDS
async def test_what_was_sent_before_the_close_arrives_whole(loop: Any, kind: Any) -> None:
    client, served = await pair(loop, kind, kind)
    data = pattern(2 << 20)
    client.transport.write(data)
    client.transport.close()
    await served.lost
    assert digest(served.data) == digest(data)
    assert served.events == ["made", "data", "eof", "lost"]
    await client.lost


@KINDS
async def test_messages_keep_their_order(loop: Any, kind: Any) -> None:
    client, served = await pair(loop, kind, kind)
    expected = bytearray()
    for number in range(2000):
        message = b"%d;" % number
        client.transport.write(message)
        expected += message
        if number % 17 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(served.data) == len(expected))
    assert served.data == expected
    await close_both(client, served)


@pytest.mark.parametrize("size_bytes", [1, 7, 64, 4096, 65536, 1 << 20])
async def test_buffers_of_every_size(loop: Any, size_bytes: int) -> None:
    """BufferedProtocol straight into the caller's buffer, whatever its size."""
    client, served = await pair(loop, Recorder, lambda: BufferedRecorder(size_bytes))
    data = pattern(min(size_bytes * 200, 4 << 20))
    client.transport.write(data)
    await until(lambda: len(served.data) == len(data))
    assert digest(served.data) == digest(data)
    assert all(isinstance(hint, int) for hint in served.hints)
    await close_both(client, served)


async def test_get_buffer_may_return_a_memoryview_of_a_part(loop: Any) -> None:
    class Part(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> Any:
            return memoryview(self.buffer)[10:20]

        def buffer_updated(self, nbytes: int) -> None:
            assert 0 < nbytes <= 10
            self.data += self.buffer[10 : 10 + nbytes]
            assert self.buffer[:10] == bytes(10) and self.buffer[20:] == bytes(4076)

    client, served = await pair(loop, Recorder, Part)
    client.transport.write(pattern(1000))
    await until(lambda: len(served.data) == 1000)
    assert served.data == pattern(1000)
    await close_both(client, served)


async def test_the_buffer_may_change_between_calls(loop: Any) -> None:
    """Bug class 1: nobody holds the old buffer when buffer_updated has returned."""

    class Fresh(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> Any:
            self.buffer = bytearray(1000)
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.buffer[:nbytes]
            self.buffer.clear()  # raises BufferError if somebody still holds it

    client, served = await pair(loop, Recorder, Fresh)
    data = pattern(300_000)
    client.transport.write(data)
    await until(lambda: len(served.data) == len(data))
    assert digest(served.data) == digest(data)
    await close_both(client, served)


@pytest.mark.parametrize("wrong", ["empty", "raises", "read-only"])
async def test_a_bad_get_buffer_closes_its_connection(
    loop: Any, wrong: str, errors: list[dict[str, Any]]
) -> None:
    class Bad(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> Any:
            if wrong == "raises":
                raise ZeroDivisionError("no buffer today")
            return bytearray() if wrong == "empty" else b"read only"

    client, served = await pair(loop, Recorder, Bad)
    client.transport.write(b"x")
    await asyncio.gather(client.lost, served.lost)
    assert served.error is not None
    assert len(errors) == 1 and errors[0]["transport"] is served.transport
    errors.clear()


async def test_set_protocol(loop: Any) -> None:
    client, served = await pair(loop)
    client.transport.write(b"one")
    await until(lambda: served.data == b"one")
    second = Recorder()
    second.connection_made(served.transport)
    served.transport.set_protocol(second)
    assert served.transport.get_protocol() is second
    client.transport.write(b"two")
    await until(lambda: second.data == b"two")
    client.transport.close()
    await second.lost
    assert served.data == b"one" and served.events == ["made", "data"]
    await client.lost


async def test_switching_between_protocol_kinds(loop: Any) -> None:
    """Plain to buffered and back, in the middle of the stream, inside data_received."""
    received = bytearray()

    class Plain(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            received.extend(data)
            self.transport.set_protocol(Buffered(self.transport))

    class Buffered(asyncio.BufferedProtocol):
        def __init__(self, transport: Any) -> None:
            self.transport = transport
            self.memory = bytearray(333)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.memory

        def buffer_updated(self, nbytes: int) -> None:
            received.extend(self.memory[:nbytes])
            plain = Plain()
            plain.connection_made(self.transport)
            self.transport.set_protocol(plain)

    client, served = await pair(loop, Recorder, Plain)
    data = pattern(500_000)
    client.transport.write(data)
    await until(lambda: len(received) == len(data))
    assert digest(received) == digest(data)
    client.transport.close()
    await client.lost
    await until(lambda: served.transport.is_closing())


async def test_extra_info(loop: Any) -> None:
    client, served = await pair(loop)
    for end, other in ((client, served), (served, client)):
        transport = end.transport
        sock = transport.get_extra_info("socket")
        assert sock.type == socket.SOCK_STREAM and sock.family == socket.AF_INET
        assert transport.get_extra_info("sockname") == sock.getsockname()
        assert transport.get_extra_info("peername") == sock.getpeername()
        peer = other.transport.get_extra_info("sockname")
        assert transport.get_extra_info("peername") == peer
        assert transport.get_extra_info("nothing") is None
        assert transport.get_extra_info("nothing", 5) == 5
        assert sock.fileno() >= 0
        assert not hasattr(sock, "close") and not hasattr(sock, "recv")
    await close_both(client, served)
    # The names are still known after the close.
    assert len(client.transport.get_extra_info("peername")) == 2


async def test_repr_and_is_closing(loop: Any) -> None:
    client, served = await pair(loop)
    assert not client.transport.is_closing()
    assert "ransport" in repr(client.transport)
    client.transport.close()
    assert client.transport.is_closing()
    assert "clos" in repr(client.transport)
    await asyncio.gather(client.lost, served.lost)
    assert repr(client.transport)


async def test_transports_and_protocols_are_freed(loop: Any) -> None:
    """Bug class 20: no reference is left when the connection is over."""

    class Weak(Recorder):
        pass

    client, served = await pair(loop, Weak, Weak)
    refs = [weakref.ref(client), weakref.ref(served)]
    client.transport.write(b"x" * 100_000)
    await until(lambda: len(served.data) == 100_000)
    await close_both(client, served)
    client.transport = served.transport = None
    del client, served
    await asyncio.sleep(0.005)
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


async def test_unreferenced_connections_live_on(loop: Any) -> None:
    """Bug class 1: the loop keeps a connection that nobody else refers to."""
    answers: list[bytes] = []

    class Quiet(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            answers.append(data)
            self.transport.write(data.upper())

    server = await loop.create_server(Quiet, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    client.setblocking(False)
    await asyncio.sleep(0.02)
    server.close()
    gc.collect()
    await loop.sock_sendall(client, b"hello")
    assert await loop.sock_recv(client, 100) == b"HELLO"
    client.close()


@KINDS
async def test_loop_reads_and_writes_while_the_handler_writes(loop: Any, kind: Any) -> None:
    """Echo of much, both ends busy: no deadlock, no mix-up."""

    class EchoBack(kind):  # type: ignore[misc,valid-type]
        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

        def buffer_updated(self, nbytes: int) -> None:
            self.transport.write(bytes(self.buffer[:nbytes]))

    client, served = await pair(loop, kind, EchoBack)
    data = pattern(3 << 20)
    client.transport.write(data)
    await until(lambda: len(client.data) == len(data))
    assert digest(client.data) == digest(data)
    await close_both(client, served)


async def test_urgent_number_of_connections(loop: Any) -> None:
    """200 connections speaking at once, each hears its own."""
    pairs = [await pair(loop) for _ in range(200)]
    for number, (client, served) in enumerate(pairs):
        client.transport.write(b"c%d" % number)
        served.transport.write(b"s%d" % number)
    await until(lambda: all(c.data and s.data for c, s in pairs))
    for number, (client, served) in enumerate(pairs):
        assert served.data == b"c%d" % number and client.data == b"s%d" % number
    for client, served in pairs:
        client.transport.close()
    await asyncio.gather(*(end.lost for both in pairs for end in both))
