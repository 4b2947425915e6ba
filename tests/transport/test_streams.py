"""start_server, open_connection, StreamReader and StreamWriter over real connections."""

import asyncio
import contextlib
import os
import socket
import sys
from typing import Any
from unittest import mock

import pytest

from ..support import digest, listener, pattern, reset, stream_pair, until
from ..tls import tls_pair

pytestmark = pytest.mark.control


async def finish(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
    for writer in writers:
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_read(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    assert await reader.read(0) == b""
    other.write(b"abcdef")
    assert await reader.read(3) == b"abc"
    assert await reader.read(100) == b"def"
    other.write(b"rest")
    other.close()
    assert await reader.read() == b"rest"
    assert await reader.read() == b"" and await reader.read(10) == b""
    assert reader.at_eof()
    await finish(writer, other)


async def test_read_until_the_end_of_much(loop: Any) -> None:
    """read(-1) gathers everything, far above the limit."""
    (reader, writer), (_, other) = await stream_pair(loop)
    data = pattern(8 << 20)
    other.write(data)
    other.write_eof()
    assert digest(await reader.read()) == digest(data)
    await finish(writer, other)


async def test_readline(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    other.write(b"one\ntwo\n\nfour\nfi")
    lines = [await reader.readline() for _ in range(4)]
    assert lines == [b"one\n", b"two\n", b"\n", b"four\n"]
    waiting = asyncio.ensure_future(reader.readline())
    await asyncio.sleep(0.005)
    assert not waiting.done()
    other.write(b"ve\nlast without end")
    assert await waiting == b"five\n"
    other.close()
    assert await reader.readline() == b"last without end"
    assert await reader.readline() == b""
    await finish(writer, other)


async def test_readexactly(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    other.write(b"abc")
    waiting = asyncio.ensure_future(reader.readexactly(5))
    await asyncio.sleep(0.005)
    other.write(b"defg")
    assert await waiting == b"abcde"
    assert await reader.readexactly(0) == b""
    with pytest.raises(ValueError):
        await reader.readexactly(-1)
    other.write(b"h")
    other.close()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reader.readexactly(100)
    assert caught.value.partial == b"fgh" and caught.value.expected == 100
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reader.readexactly(1)
    assert caught.value.partial == b""
    await finish(writer, other)


@pytest.mark.parametrize("size_bytes", [65536, 65537, 1 << 20, 8 << 20])
async def test_readexactly_far_above_the_limit(loop: Any, size_bytes: int) -> None:
    (reader, writer), (_, other) = await stream_pair(loop, limit=65536)
    data = pattern(size_bytes)
    other.write(b"<" + data + b">")
    assert await reader.readexactly(1) == b"<"
    assert digest(await reader.readexactly(size_bytes)) == digest(data)
    assert await reader.readexactly(1) == b">"
    await finish(writer, other)


async def test_readuntil(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    other.write(b"key: value\r\n\r\nbody")
    assert await reader.readuntil(b": ") == b"key: "
    assert await reader.readuntil(b"\r\n\r\n") == b"value\r\n\r\n"
    waiting = asyncio.ensure_future(reader.readuntil(b"--end--"))
    for piece in (b"-", b"-e", b"nd", b"-", b"-tail"):  # the separator in five pieces
        await asyncio.sleep(0.002)
        other.write(piece)
    assert await waiting == b"body--end--"
    with pytest.raises(ValueError):
        await reader.readuntil(b"")
    other.close()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reader.readuntil(b"\n")
    assert caught.value.partial == b"tail" and caught.value.expected is None
    await finish(writer, other)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="tuples of separators are new in 3.13")
async def test_readuntil_one_of_several(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    other.write(b"a;b\nc;;d")
    assert await reader.readuntil((b"\n", b";")) == b"a;"
    assert await reader.readuntil((b"\n", b";")) == b"b\n"
    assert await reader.readuntil((b";;", b"zzz")) == b"c;;"
    await finish(writer, other)


async def test_limits(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop, limit=100)
    other.write(b"x" * 150 + b"\nshort\n")
    with pytest.raises(ValueError):  # readline() drops the line that is too long
        await reader.readline()
    assert await reader.readline() == b"short\n"
    other.write(b"y" * 150 + b"|rest|")
    await asyncio.sleep(0.01)
    with pytest.raises(asyncio.LimitOverrunError) as caught:
        await reader.readuntil(b"|")
    assert caught.value.consumed == 150  # readuntil() leaves it where it is
    assert await reader.readexactly(151) == b"y" * 150 + b"|"
    assert await reader.readuntil(b"|") == b"rest|"
    await finish(writer, other)


async def test_a_line_that_never_ends(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop, limit=1000)
    other.write(b"z" * 100_000)
    with pytest.raises(ValueError):
        await reader.readline()
    await finish(writer, other)


async def test_a_reader_holds_back_what_nobody_reads(loop: Any) -> None:
    """Bug class 8: the limit stops the sender; nothing is lost when reading goes on."""
    (reader, writer), (_, other) = await stream_pair(loop, limit=10_000)
    other.transport.set_write_buffer_limits(high=1)
    data = pattern(32 << 20)
    other.write(data)
    draining = asyncio.ensure_future(other.drain())
    await asyncio.sleep(0.05)
    assert not draining.done()
    got = bytearray()
    while len(got) < len(data):
        got += await reader.read(1 << 20)
    assert digest(got) == digest(data)
    await draining
    await finish(writer, other)


async def test_async_iteration(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    other.write(b"a\nbb\nccc")
    other.write_eof()
    assert [line async for line in reader] == [b"a\n", b"bb\n", b"ccc"]
    await finish(writer, other)


async def test_mixed_ways_of_reading(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    other.write(b"line\n12345until|readmore\n" + b"x" * 10)
    assert await reader.readline() == b"line\n"
    assert await reader.readexactly(5) == b"12345"
    assert await reader.readuntil(b"|") == b"until|"
    assert await reader.read(4) == b"read"
    assert await reader.readline() == b"more\n"
    assert await reader.readexactly(10) == b"x" * 10
    await finish(writer, other)


async def test_at_eof_only_when_everything_was_read(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    assert not reader.at_eof()
    other.write(b"x")
    other.write_eof()
    await asyncio.sleep(0.02)
    assert not reader.at_eof()
    assert await reader.read(10) == b"x"
    assert await reader.read(10) == b""
    assert reader.at_eof()
    await finish(writer, other)


async def test_only_one_task_may_read(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    first = asyncio.ensure_future(reader.read(10))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="called while another coroutine is already waiting"):
        await reader.read(10)
    with pytest.raises(RuntimeError, match="called while another coroutine is already waiting"):
        await reader.readline()
    other.write(b"for the first")
    assert await first == b"for the fi"
    assert await reader.read(10) == b"rst"
    await finish(writer, other)


@pytest.mark.parametrize("how", ["read", "readline", "readexactly", "readuntil"])
async def test_a_cancelled_read_loses_nothing(loop: Any, how: str) -> None:
    """Bug classes 1 and 2: cancelled while waiting, at any point; the bytes are still there."""
    (reader, writer), (_, other) = await stream_pair(loop)
    calls = {
        "read": lambda: reader.read(100),
        "readline": reader.readline,
        "readexactly": lambda: reader.readexactly(1000),
        "readuntil": lambda: reader.readuntil(b"|"),
    }
    for number in range(200):
        task = asyncio.ensure_future(calls[how]())
        for _ in range(number % 4):
            await asyncio.sleep(0)
        if how != "read":  # a part, not enough to end the call
            other.write(b"p")
        if number % 3 == 0:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    other.write(b"end")
    other.close()
    expected = b"end" if how == "read" else b"p" * 200 + b"end"
    assert await reader.read() == expected
    await finish(writer, other)


async def test_timeouts_while_reading(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    for _ in range(20):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.readexactly(1000), 0.001)
        other.write(b"x")
    await asyncio.sleep(0.01)
    other.close()
    assert await reader.read() == b"x" * 20
    await finish(writer, other)


async def test_drain_waits_and_is_quick_when_there_is_nothing_to_wait_for(loop: Any) -> None:
    (reader, writer), (other_reader, other) = await stream_pair(loop)
    for _ in range(100):
        writer.write(b"x")
        await writer.drain()
    writer.write(bytes(32 << 20))
    draining = asyncio.ensure_future(writer.drain())
    second = asyncio.ensure_future(writer.drain())
    await asyncio.sleep(0.02)
    assert not draining.done() and not second.done()
    counting = asyncio.ensure_future(_count(other_reader))
    await asyncio.wait_for(asyncio.gather(draining, second), 20)
    writer.close()
    assert await counting == (32 << 20) + 100
    await finish(writer, other)
    assert await reader.read() == b""


async def _count(reader: asyncio.StreamReader) -> int:
    total = 0
    while chunk := await reader.read(1 << 20):
        total += len(chunk)
    return total


async def test_a_cancelled_drain(loop: Any) -> None:
    (_, writer), (other_reader, other) = await stream_pair(loop)
    writer.write(bytes(16 << 20))
    for _ in range(10):
        task = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    writer.close()
    assert await _count(other_reader) == 16 << 20
    await finish(writer, other)


async def test_drain_raises_when_the_peer_is_gone(loop: Any) -> None:
    sock = listener()
    connecting = asyncio.ensure_future(asyncio.open_connection(*sock.getsockname()))
    accepted, _ = await loop.sock_accept(sock)
    reader, writer = await connecting
    writer.write(bytes(16 << 20))
    draining = asyncio.ensure_future(writer.drain())
    await asyncio.sleep(0.01)
    reset(accepted)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await draining
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await reader.read()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        for _ in range(10):
            writer.write(b"x")
            await writer.drain()
    await finish(writer)
    sock.close()


async def test_a_reset_ends_a_waiting_read(loop: Any) -> None:
    sock = listener()
    connecting = asyncio.ensure_future(asyncio.open_connection(*sock.getsockname()))
    accepted, _ = await loop.sock_accept(sock)
    reader, writer = await connecting
    waiting = asyncio.ensure_future(reader.readexactly(100))
    accepted.send(b"some")
    await asyncio.sleep(0.005)
    reset(accepted)
    with pytest.raises(ConnectionResetError):
        await waiting
    assert isinstance(reader.exception(), ConnectionResetError)
    await finish(writer)
    sock.close()


async def test_writer_methods(loop: Any) -> None:
    (reader, writer), (other_reader, other) = await stream_pair(loop)
    assert writer.can_write_eof()
    assert writer.get_extra_info("peername") == other.get_extra_info("sockname")
    assert isinstance(writer.transport, asyncio.Transport)
    writer.writelines([b"a", b"b", bytearray(b"c")])
    await writer.drain()
    writer.write_eof()
    assert await other_reader.read() == b"abc"
    assert not writer.is_closing()
    other.write(b"answer")
    other.close()
    assert await reader.read() == b"answer"
    writer.close()
    assert writer.is_closing()
    await writer.wait_closed()
    await writer.wait_closed()
    await finish(other)


async def test_wait_closed_before_close_and_cancelled(loop: Any) -> None:
    (_, writer), (_, other) = await stream_pair(loop)
    waiting = asyncio.ensure_future(writer.wait_closed())
    await asyncio.sleep(0.005)
    assert not waiting.done()
    writer.close()
    await asyncio.wait_for(waiting, 10)
    await finish(other)


async def test_the_reader_pauses_and_resumes_the_transport(loop: Any) -> None:
    """Small limit, small reads, large stream: every byte once."""
    (reader, writer), (_, other) = await stream_pair(loop, limit=64)
    data = pattern(300_000)
    other.write(data)
    other.write_eof()
    got = bytearray()
    while chunk := await reader.read(1000):
        got += chunk
    assert digest(got) == digest(data)
    await finish(writer, other)


@pytest.mark.skipif(
    sys.version_info < (3, 11, 7), reason="the protocol is asyncio's, and lets the connection be"
)
async def test_handlers_that_raise_close_their_connection(
    loop: Any, errors: list[dict[str, Any]]
) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"break\n":
            raise ZeroDivisionError("handler")
        writer.write(b"fine")
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    bad_reader, bad_writer = await asyncio.open_connection(*address)
    good_reader, good_writer = await asyncio.open_connection(*address)
    bad_writer.write(b"break\n")
    if sys.version_info >= (3, 12):  # before, the connection stayed open
        assert await bad_reader.read() == b""
    await until(lambda: errors)
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
    assert "transport" in errors[0]
    errors.clear()
    good_writer.write(b"go on\n")
    assert await good_reader.read() == b"fine"
    await finish(bad_writer, good_writer)
    server.close()


async def test_plain_callbacks_as_handlers(loop: Any) -> None:
    """client_connected_cb need not be a coroutine function."""
    seen: list[Any] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(reader)
        writer.write(b"hello")
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b"hello" and len(seen) == 1
    await finish(writer)
    server.close()


async def test_open_connection_on_a_given_socket(loop: Any) -> None:
    left, right = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=left)
    right.setblocking(False)
    writer.write(b"out")
    assert await loop.sock_recv(right, 10) == b"out"
    right.send(b"in\n")
    assert await reader.readline() == b"in\n"
    await finish(writer)
    right.close()


async def test_subclassed_readers_work(loop: Any) -> None:
    """A native path must not pass by what a subclass overrides."""
    fed: list[int] = []

    class Counting(asyncio.StreamReader):
        def feed_data(self, data: bytes) -> None:
            fed.append(len(data))
            super().feed_data(data)

    left, right = socket.socketpair()
    reader = Counting(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=left)
    right.send(b"x" * 1000)
    assert await reader.readexactly(1000) == b"x" * 1000
    assert sum(fed) == 1000
    transport.close()
    await asyncio.sleep(0.01)
    right.close()


async def test_subclassed_protocols_work(loop: Any) -> None:
    received: list[bytes] = []

    class Spying(asyncio.StreamReaderProtocol):
        def data_received(self, data: bytes) -> None:
            received.append(bytes(data))
            super().data_received(data)

    left, right = socket.socketpair()
    reader = asyncio.StreamReader(loop=loop)
    transport, _ = await loop.create_connection(lambda: Spying(reader, loop=loop), sock=left)
    right.send(b"spied")
    assert await reader.readexactly(5) == b"spied"
    assert b"".join(received) == b"spied"
    transport.close()
    await asyncio.sleep(0.01)
    right.close()


async def test_data_fed_by_hand(loop: Any) -> None:
    """feed_data and feed_eof are public: data from elsewhere joins the stream."""
    (reader, writer), (_, other) = await stream_pair(loop)
    reader.feed_data(b"by hand,")
    other.write(b" by wire")
    got = await reader.readexactly(16)
    assert got == b"by hand, by wire"
    reader.feed_eof()
    assert await reader.read() == b""
    await finish(writer, other)


async def test_set_exception_wakes_the_reader(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    waiting = asyncio.ensure_future(reader.readline())
    await asyncio.sleep(0.005)
    reader.set_exception(ZeroDivisionError("by hand"))
    with pytest.raises(ZeroDivisionError):
        await waiting
    await finish(writer, other)


async def test_echo_ping_pong(loop: Any) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(*address)
        for turn in range(50):
            line = b"%d.%d\n" % (number, turn)
            writer.write(line)
            assert await reader.readline() == line
        await finish(writer)

    await asyncio.gather(*(client(number) for number in range(30)))
    server.close()
    await server.wait_closed()


async def test_unix_streams(loop: Any, tmp_path: Any) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    server = await asyncio.start_unix_server(echo, str(tmp_path / "sock"))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "sock"))
    data = pattern(3 << 20)
    writer.write(data)
    writer.write_eof()
    assert digest(await reader.read()) == digest(data)
    await finish(writer)
    server.close()
    await server.wait_closed()


async def test_dropped_streams_are_closed(loop: Any) -> None:
    """Bug class 20: the last reference to a StreamWriter goes; the peer sees the end."""
    import gc
    import warnings

    (reader, writer), (other_reader, other) = await stream_pair(loop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        other.close()
        await other.wait_closed()
        del reader, writer
        gc.collect()
        await asyncio.sleep(0.01)
    del other_reader


async def plain_streams(loop: Any) -> Any:
    (reader, writer), (_, other) = await stream_pair(loop)
    return reader, writer, other


async def tls_streams(loop: Any) -> Any:
    reader = asyncio.StreamReader(loop=loop)
    client, served = await tls_pair(
        loop, left=lambda: asyncio.StreamReaderProtocol(reader, loop=loop)
    )
    writer = asyncio.StreamWriter(client._transport, client, reader, loop)
    return reader, writer, served.transport


async def pipe_streams(loop: Any) -> Any:
    reading, writing = os.pipe()
    reader = asyncio.StreamReader(loop=loop)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), open(reading, "rb", 0)
    )
    return reader, transport, open(writing, "wb", 0)


async def child_streams(loop: Any) -> Any:
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    return child.stdout, child.stdin, child.stdin


@pytest.mark.parametrize("make", [plain_streams, tls_streams, pipe_streams, child_streams])
async def test_a_feed_data_of_the_programs(loop: Any, make: Any) -> None:
    """Ciphers and meters take its place on one reader; they get what comes, and feed the first."""
    reader, writer, other = await make(loop)
    other.write(b"plain ")
    assert await reader.readexactly(6) == b"plain "
    seen = []

    def decipher(data: bytes, feed_data: Any = reader.feed_data) -> None:
        seen.append(bytes(data))
        feed_data(bytes(data).upper())

    with mock.patch.object(reader, "feed_data", decipher):
        assert reader.feed_data is decipher
        other.write(b"secret")
        assert await reader.readexactly(6) == b"SECRET"
    other.write(b" end")
    assert await reader.readexactly(4) == b" end"
    assert b"".join(seen) == b"secret"
    for end in (writer, other):
        end.close()
    assert await reader.read() == b""
    await asyncio.sleep(0.01)


async def test_a_feed_data_that_fails_ends_the_connection(
    loop: Any, errors: list[dict[str, Any]]
) -> None:
    (reader, writer), (left, other) = await stream_pair(loop)

    def fail(data: bytes) -> None:
        raise ValueError("no cipher for this")

    reader.feed_data = fail
    other.write(b"x")
    with pytest.raises(ValueError, match="no cipher"):
        await reader.read(1)
    assert await left.read() == b""
    assert [type(context["exception"]) for context in errors] == [ValueError]
    errors.clear()
    with pytest.raises(ValueError, match="no cipher"):
        await writer.wait_closed()
    await finish(other)


@pytest.mark.parametrize("name", ["read", "readline", "readexactly", "readuntil", "feed_data"])
async def test_methods_that_are_patched_in_the_class(loop: Any, name: str) -> None:
    """Of connections that are made after that: instruments and mocks do it."""
    called = []
    own = getattr(asyncio.StreamReader, name)

    def patched(self: Any, *args: Any) -> Any:
        called.append(name)
        return own(self, *args)

    with mock.patch.object(asyncio.StreamReader, name, patched):
        (reader, writer), (_, other) = await stream_pair(loop)
        other.write(b"line\n")
        ask = {"read": (5,), "readexactly": (5,), "feed_data": ()}.get(name, ())
        assert await (reader.readline() if name == "feed_data" else getattr(reader, name)(*ask))
    assert name in called
    await finish(writer, other)


@pytest.mark.parametrize("name", ["write", "drain"])
async def test_writers_that_are_patched_in_the_class(loop: Any, name: str) -> None:
    called = []
    own = getattr(asyncio.StreamWriter, name)

    def patched(self: Any, *args: Any) -> Any:
        called.append(self)
        return own(self, *args)

    with mock.patch.object(asyncio.StreamWriter, name, patched):
        (reader, writer), (_, other) = await stream_pair(loop)
        other.write(b"x")
        await other.drain()
        assert await reader.read(1) == b"x"
    assert called == [other]
    await finish(writer, other)


async def test_the_buffer_may_be_set(loop: Any) -> None:
    """Clients of devices throw away what has come, and others put something back."""
    (reader, writer), (_, other) = await stream_pair(loop)
    other.write(b"garbage")
    await until(lambda: len(reader._buffer) == 7)
    reader._buffer = bytearray()
    reader._maybe_resume_transport()
    other.write(b"answer")
    assert await reader.read(100) == b"answer"
    reader._buffer = bytearray(b"put back ") + reader._buffer
    other.write(b"and more")
    assert await reader.readexactly(17) == b"put back and more"
    await finish(writer, other)
