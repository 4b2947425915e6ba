"""connect_read_pipe and connect_write_pipe: pipes, FIFOs, sockets, terminals."""

import asyncio
import gc
import os
import pty
import socket
import tty
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from ..support import Recorder, digest, pattern, until

pytestmark = pytest.mark.control

PIPE_BYTES = 64 * 1024  # what a pipe holds unless told otherwise


class Pipe:
    """Both ends of a pipe as unbuffered file objects; what is still open is closed at the end."""

    def __init__(self) -> None:
        read_fd, write_fd = os.pipe()
        self.reading: IO[bytes] = open(read_fd, "rb", 0)
        self.writing: IO[bytes] = open(write_fd, "wb", 0)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    both = Pipe()
    yield both
    both.reading.close()
    both.writing.close()


async def connect_read(loop: Any, file: Any, kind: Any = Recorder) -> tuple[Any, Any]:
    return await loop.connect_read_pipe(kind, file)


async def connect_write(loop: Any, file: Any, kind: Any = Recorder) -> tuple[Any, Any]:
    return await loop.connect_write_pipe(kind, file)


# ---- reading ----------------------------------------------------------------------------------


@pytest.mark.control_since((3, 11, 7))
async def test_read_until_the_end(loop: Any, pipe: Pipe) -> None:
    transport, protocol = await connect_read(loop, pipe.reading)
    assert isinstance(transport, asyncio.ReadTransport)
    assert protocol.events == ["made"] and protocol.transport is transport
    assert transport.get_protocol() is protocol
    assert transport.get_extra_info("pipe") is pipe.reading
    assert transport.get_extra_info("nothing", 5) == 5
    assert transport.is_reading() and not transport.is_closing()
    os.write(pipe.writing.fileno(), b"one")
    await until(lambda: protocol.data == b"one")
    os.write(pipe.writing.fileno(), b"two")
    pipe.writing.close()
    await protocol.lost
    assert protocol.data == b"onetwo"
    assert protocol.events == ["made", "data", "eof", "lost"]
    assert protocol.error is None
    assert transport.is_closing() and not transport.is_reading()
    await asyncio.sleep(0)
    assert pipe.reading.closed


async def test_read_much(loop: Any, pipe: Pipe) -> None:
    """Small pieces, then large ones, then small ones: both ways of reading, nothing lost."""
    sent = [pattern(n, seed) for seed, n in enumerate([10] * 20 + [300_000] * 10 + [10] * 50)]
    _, protocol = await connect_read(loop, pipe.reading)
    _, writing = await connect_write(loop, pipe.writing)
    total = 0
    for number, piece in enumerate(sent):
        writing.transport.write(piece)
        total += len(piece)
        if number % 3 == 0:
            await until(lambda total=total: len(protocol.data) == total)
    writing.transport.close()
    await asyncio.gather(protocol.lost, writing.lost)
    assert digest(protocol.data) == digest(b"".join(sent))


@pytest.mark.control_since((3, 11, 7))
async def test_pause_and_resume(loop: Any, pipe: Pipe) -> None:
    transport, protocol = await connect_read(loop, pipe.reading)
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    os.write(pipe.writing.fileno(), b"late")
    await asyncio.sleep(0.02)
    assert protocol.events == ["made"]
    transport.resume_reading()
    transport.resume_reading()
    await until(lambda: protocol.data == b"late")
    pipe.writing.close()
    await protocol.lost


async def test_pause_inside_data_received(loop: Any, pipe: Pipe) -> None:
    """Bug class 9: at most what one read brought comes after the pause."""

    class Pausing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    _, protocol = await connect_read(loop, pipe.reading, Pausing)
    for number in range(1, 6):
        os.write(pipe.writing.fileno(), b"x" * 100)
        await until(lambda number=number: len(protocol.data) == 100 * number)
        os.write(pipe.writing.fileno(), b"y")
        await asyncio.sleep(0.005)
        assert len(protocol.data) == 100 * number
        os.read(pipe.reading.fileno(), 1)
        protocol.transport.resume_reading()
    protocol.transport.close()
    await protocol.lost


@pytest.mark.control_since((3, 11, 7))
async def test_paused_from_the_start(loop: Any, pipe: Pipe) -> None:
    class Paused(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    os.write(pipe.writing.fileno(), b"x")
    transport, protocol = await connect_read(loop, pipe.reading, Paused)
    await asyncio.sleep(0.01)
    assert protocol.events == ["made"]
    transport.resume_reading()
    await until(lambda: protocol.data == b"x")
    transport.close()
    await protocol.lost


async def test_close_stops_reading(loop: Any, pipe: Pipe) -> None:
    class Closing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            os.write(pipe.writing.fileno(), b"y")
            self.transport.close()
            self.transport.close()

    _, protocol = await connect_read(loop, pipe.reading, Closing)
    os.write(pipe.writing.fileno(), b"x")
    await protocol.lost
    assert (protocol.data, protocol.events) == (b"x", ["made", "data", "lost"])


def test_the_descriptor_is_closed_with_connection_lost(loop: Any, pipe: Pipe) -> None:
    """Whoever was told that the connection is lost may look at the other end."""

    async def main() -> None:
        _, writing = await connect_write(loop, pipe.writing)
        writing.transport.close()
        await writing.lost

    loop.run_until_complete(main())
    assert os.read(pipe.reading.fileno(), 1) == b""  # would wait as long as anybody could write


async def test_exceptions_of_the_protocol_do_not_end_the_reading(
    loop: Any, errors: list[dict[str, Any]], pipe: Pipe
) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data == b"bad":
                raise ZeroDivisionError

    transport, protocol = await connect_read(loop, pipe.reading, Failing)
    os.write(pipe.writing.fileno(), b"bad")
    await until(lambda: errors)
    os.write(pipe.writing.fileno(), b"good")
    await until(lambda: protocol.data == b"badgood")
    assert [type(context["exception"]) for context in errors] == [ZeroDivisionError]
    errors.clear()
    transport.close()
    await protocol.lost


async def test_streams_over_a_pipe(loop: Any, pipe: Pipe) -> None:
    reader = asyncio.StreamReader(limit=1000, loop=loop)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), pipe.reading
    )
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, pipe.writing
    )
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    writer.write(b"line\nrest")
    await writer.drain()
    assert await reader.readline() == b"line\n"
    assert await reader.readexactly(4) == b"rest"
    task = asyncio.ensure_future(reader.readexactly(500_000))
    data = pattern(500_000)
    writer.write(data)
    await writer.drain()
    assert digest(await task) == digest(data)
    writer.close()
    assert await reader.read() == b""


async def test_a_stream_that_nobody_reads_stops_the_writer(loop: Any, pipe: Pipe) -> None:
    """Flow control end to end: reader's limit, pipe, writer's watermark."""
    reader = asyncio.StreamReader(limit=1000, loop=loop)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader, loop=loop), pipe.reading
    )
    transport, protocol = await connect_write(loop, pipe.writing)
    transport.set_write_buffer_limits(high=1000)
    data = pattern(3_000_000)
    transport.write(data)
    assert protocol.events[-1] == "pause"
    await asyncio.sleep(0.05)
    assert transport.get_write_buffer_size() > 2_000_000
    transport.close()
    assert digest(await reader.read()) == digest(data)
    await protocol.lost


# ---- writing ----------------------------------------------------------------------------------


async def test_a_write_leaves_at_once(loop: Any, pipe: Pipe) -> None:
    transport, protocol = await connect_write(loop, pipe.writing)
    assert isinstance(transport, asyncio.WriteTransport)
    assert transport.get_extra_info("pipe") is pipe.writing
    assert transport.can_write_eof()
    transport.write(b"now")
    transport.write(b"")
    assert os.read(pipe.reading.fileno(), 100) == b"now"
    transport.writelines([b"one", bytearray(b"two"), memoryview(b"three")])
    assert os.read(pipe.reading.fileno(), 100) == b"onetwothree"
    assert transport.get_write_buffer_size() == 0
    transport.write_eof()
    await protocol.lost
    assert protocol.events == ["made", "lost"] and protocol.error is None


async def test_flow_control(loop: Any, pipe: Pipe) -> None:
    transport, protocol = await connect_write(loop, pipe.writing)
    transport.set_write_buffer_limits(high=100_000, low=10_000)
    assert transport.get_write_buffer_limits() == (10_000, 100_000)
    data = pattern(PIPE_BYTES + 50_000)
    transport.write(data)
    assert transport.get_write_buffer_size() == 50_000
    assert protocol.events == ["made"]
    more = pattern(100_000, 2)
    transport.write(more)
    assert protocol.events == ["made", "pause"]
    got = bytearray()
    while len(got) < len(data + more):
        got += os.read(pipe.reading.fileno(), 1 << 20)
        await until(
            lambda got=got: (
                transport.get_write_buffer_size() == 0 or len(got) + PIPE_BYTES < len(data + more)
            )
        )
        await asyncio.sleep(0.001)
    await until(lambda: protocol.events == ["made", "pause", "resume"])
    assert digest(got) == digest(data + more)
    transport.close()
    await protocol.lost


async def test_what_was_written_cannot_be_changed(loop: Any, pipe: Pipe) -> None:
    """Bug class 12."""
    transport, protocol = await connect_write(loop, pipe.writing)
    _, reading = await connect_read(loop, pipe.reading)
    reading.transport.pause_reading()
    data = bytearray(pattern(200_000))
    expected = digest(data)
    transport.write(data)
    data[:] = bytes(len(data))
    reading.transport.resume_reading()
    transport.close()
    await asyncio.gather(protocol.lost, reading.lost)
    assert digest(reading.data) == expected


async def test_many_pieces(loop: Any, pipe: Pipe) -> None:
    """Bug class 18: far more pieces than one system call takes."""
    transport, protocol = await connect_write(loop, pipe.writing)
    _, reading = await connect_read(loop, pipe.reading)
    pieces = [pattern(1 + n % 97, n) for n in range(5000)]
    transport.writelines(pieces)
    for piece in pieces:
        transport.write(piece)
    transport.close()
    await asyncio.gather(protocol.lost, reading.lost)
    assert digest(reading.data) == digest(b"".join(pieces * 2))


async def test_close_sends_what_was_written(loop: Any, pipe: Pipe) -> None:
    transport, protocol = await connect_write(loop, pipe.writing)
    data = pattern(1_000_000)
    transport.write(data)
    transport.close()
    transport.write(b"after the end")
    await asyncio.sleep(0.01)
    assert protocol.events[-1] != "lost" and transport.is_closing()
    _, reading = await connect_read(loop, pipe.reading)
    await asyncio.gather(protocol.lost, reading.lost)
    assert digest(reading.data) == digest(data)


async def test_abort_drops_what_was_not_sent(loop: Any, pipe: Pipe) -> None:
    transport, protocol = await connect_write(loop, pipe.writing)
    transport.write(bytes(1_000_000))
    transport.abort()
    await protocol.lost
    assert protocol.error is None
    await asyncio.sleep(0)
    assert len(pipe.reading.read()) == PIPE_BYTES


async def test_abort_after_close(loop: Any, pipe: Pipe) -> None:
    """Bug class 6."""
    transport, protocol = await connect_write(loop, pipe.writing)
    transport.write(bytes(1_000_000))
    transport.close()
    transport.abort()
    await protocol.lost


async def test_the_reader_goes_away(loop: Any, pipe: Pipe) -> None:
    _, protocol = await connect_write(loop, pipe.writing)
    pipe.reading.close()
    await protocol.lost
    assert protocol.error is None
    assert protocol.events == ["made", "lost"]


async def test_the_reader_goes_away_with_bytes_unsent(loop: Any, pipe: Pipe) -> None:
    transport, protocol = await connect_write(loop, pipe.writing)
    transport.write(bytes(1_000_000))
    pipe.reading.close()
    await protocol.lost
    assert isinstance(protocol.error, BrokenPipeError)
    assert transport.get_write_buffer_size() == 0


async def test_writes_to_nobody_are_logged_but_not_each(
    loop: Any, pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    transport, protocol = await connect_write(loop, pipe.writing)
    pipe.reading.close()
    transport.write(b"x")
    await protocol.lost
    assert protocol.error is None or isinstance(protocol.error, BrokenPipeError)
    for _ in range(5):
        transport.write(b"x")
    count = len(caplog.records)
    transport.write(b"x")
    assert len(caplog.records) >= max(count, 1)


async def test_wrong_data(loop: Any, pipe: Pipe) -> None:
    transport, protocol = await connect_write(loop, pipe.writing)
    with pytest.raises((TypeError, AssertionError)):  # asyncio asserts
        transport.write("text")
    with pytest.raises(ValueError, match="must be >="):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.close()
    await protocol.lost


# ---- other things than pipes -------------------------------------------------------------------


async def test_regular_files_are_refused(loop: Any, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        with pytest.raises(ValueError, match="pipes"):
            await connect_write(loop, file)
    with open(tmp_path / "file", "rb") as file:
        with pytest.raises(ValueError, match="pipes"):
            await connect_read(loop, file)
        assert file.read() == b""  # still the user's


async def test_named_pipes(loop: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    # A FIFO opened for both never waits for its other side.
    keep = os.open(tmp_path / "fifo", os.O_RDWR)
    _, reading = await connect_read(loop, open(tmp_path / "fifo", "rb", 0))
    _, writing = await connect_write(loop, open(tmp_path / "fifo", "wb", 0))
    os.close(keep)
    writing.transport.write(b"through")
    writing.transport.close()
    await asyncio.gather(reading.lost, writing.lost)
    assert reading.data == b"through"


async def test_sockets_one_way(loop: Any) -> None:
    left, right = socket.socketpair()
    _, reading = await connect_read(loop, left)
    _, writing = await connect_write(loop, right)
    writing.transport.write(b"through")
    await until(lambda: reading.data == b"through")
    reading.transport.close()
    await asyncio.gather(reading.lost, writing.lost)


@pytest.mark.netpoll_only
async def test_one_socket_for_both_directions(loop: Any) -> None:
    """What inetd and ssh give a program: each transport closes, and meets, only its own."""
    mine, peer = socket.socketpair()
    _, reading = await connect_read(loop, mine)
    _, writing = await connect_write(loop, mine)
    peer.sendall(b"question")
    await until(lambda: reading.data == b"question")
    assert not writing.transport.is_closing()  # being spoken to is not the end of writing
    writing.transport.write(b"answer")
    assert peer.recv(100) == b"answer"
    writing.transport.close()
    await writing.lost
    peer.sendall(b", again")
    await until(lambda: reading.data == b"question, again")
    peer.close()
    await reading.lost


async def test_terminal(loop: Any) -> None:
    controller, terminal = pty.openpty()
    tty.setraw(terminal)
    _, reading = await connect_read(loop, open(controller, "rb", 0))
    _, writing = await connect_write(loop, open(terminal, "wb", 0))
    writing.transport.write(b"typed")
    await until(lambda: reading.data == b"typed")
    writing.transport.close()
    await asyncio.gather(writing.lost, reading.lost)
    assert isinstance(reading.error, OSError)  # EIO: how a terminal tells its end


@pytest.mark.netpoll_only
async def test_devices_that_cannot_be_polled(loop: Any) -> None:
    """epoll refuses /dev/null; a program whose stdin it is must still see the end."""
    _, reading = await connect_read(loop, open("/dev/null", "rb", 0))
    await reading.lost
    assert (reading.events, reading.error) == (["made", "eof", "lost"], None)
    _, writing = await connect_write(loop, open("/dev/null", "wb", 0))
    writing.transport.write(bytes(10_000_000))
    assert writing.transport.get_write_buffer_size() == 0
    writing.transport.close()
    await writing.lost


# ---- the end ----------------------------------------------------------------------------------


async def test_cancelled_while_connecting(loop: Any, pipe: Pipe) -> None:
    task = asyncio.ensure_future(connect_read(loop, pipe.reading))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: pipe.reading.closed)


@pytest.mark.netpoll_only
def test_left_open_when_the_loop_closes(loop_factory: Any, pipe: Pipe) -> None:
    """Reading and writing, with an operation in flight each: the kernel lets go of both."""
    loop = loop_factory()

    async def main() -> tuple[Any, Any]:
        reading, _ = await connect_read(loop, pipe.reading)
        writing, _ = await connect_write(loop, pipe.writing)
        reading.pause_reading()
        writing.write(bytes(1_000_000))
        await asyncio.sleep(0.01)
        return reading, writing

    reading, writing = loop.run_until_complete(main())
    loop.close()
    assert "open" in repr(reading) and "open" in repr(writing)
    with pytest.raises(RuntimeError, match="closed"):
        reading.close()
    assert pipe.reading.closed
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del writing
        gc.collect()  # it and its protocol know each other
    assert pipe.writing.closed


@pytest.mark.netpoll_only
async def test_a_number_that_is_used_again(loop: Any) -> None:
    """Bug classes 4 and 5: a closed pipe's number, given out at once, is only its new owner's."""
    for _ in range(100):
        first, second = Pipe(), Pipe()
        transport, protocol = await connect_read(loop, first.reading)
        transport.close()
        await protocol.lost
        again, fresh = await connect_read(loop, second.reading)
        os.write(second.writing.fileno(), b"mine")
        await until(lambda fresh=fresh: fresh.data == b"mine")
        again.close()
        await fresh.lost
        first.writing.close()
        second.writing.close()


async def test_a_pipe_that_the_program_gave_up(loop: Any) -> None:
    """asyncio's own tests close the pipe and set _pipe to None: nobody closes it again."""
    read_fd, write_fd = os.pipe()
    read_end, write_end = open(read_fd, "rb", 0), open(write_fd, "wb", 0)
    transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, write_end)
    write_end.close()
    transport._pipe = None
    number = os.dup(read_end.fileno())  # perhaps the same number
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        del transport
        gc.collect()
    assert os.fstat(number)
    os.close(number)
    read_end.close()
