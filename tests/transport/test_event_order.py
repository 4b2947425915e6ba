"""What comes in which turn, of all kinds of transports: docs/turn.md. Bug classes 47 to 49."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from ..support import unix_pair

pytestmark = pytest.mark.control

Order = list[str]


class Noted(asyncio.Protocol):
    """Notes its calls in a list, where callbacks of the test note theirs."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.order.append(f"data {len(data)}")

    def eof_received(self) -> bool:
        self.order.append("eof")
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self.order.append("lost")


class NotedBuffered(asyncio.BufferedProtocol):
    def __init__(self, order: Order) -> None:
        self.order = order
        self.buffer = bytearray(1000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.order.append(f"data {nbytes}")


class NotedDatagrams(Noted, asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, address: Any) -> None:
        self.order.append(f"data {len(data)}")


def datagram_pair() -> tuple[socket.socket, socket.socket]:
    """Connected to each other, and with names: asyncio cannot send to a peer that has none."""
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    right = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (left, right):
        end.setblocking(False)
        end.bind(b"")
    left.connect(right.getsockname())
    right.connect(left.getsockname())
    return left, right


class Case:
    """One transport and its other side."""

    def __init__(self, transport: Any, other: Any) -> None:
        self.transport, self.other = transport, other

    def send(self, data: bytes) -> None:
        os.write(self.other.fileno(), data)

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.other.fileno(), 1 << 20):
                pass

    async def close(self) -> None:
        self.transport.close()
        await asyncio.sleep(0.01)
        self.other.close()


async def reading(loop: Any, kind: str, order: Order) -> Case:
    """A transport that reads."""
    if kind == "pipe":
        read_fd, write_fd = os.pipe()
        file = os.fdopen(read_fd, "rb", 0)
        transport, _ = await loop.connect_read_pipe(lambda: Noted(order), file)
        return Case(transport, os.fdopen(write_fd, "wb", 0))
    own, other = (datagram_pair if kind == "datagram" else unix_pair)()
    return await connected(loop, kind, order, own, other)


async def connected(loop: Any, kind: str, order: Order, own: Any, other: Any) -> Case:
    if kind == "datagram":
        transport, _ = await loop.create_datagram_endpoint(lambda: NotedDatagrams(order), sock=own)
    else:
        protocol = NotedBuffered if kind == "buffered" else Noted
        transport, _ = await loop.create_connection(lambda: protocol(order), sock=own)
    return Case(transport, other)


async def turns(loop: Any, order: Order, steps: list[Callable[[], Any]]) -> None:
    """One step in each turn, from the next one on, with a line for each."""
    done = loop.create_future()
    left = list(steps)

    def turn() -> None:
        order.append("turn")
        if not left:
            done.set_result(None)
            return
        loop.call_soon(turn)
        left.pop(0)()

    loop.call_soon(turn)
    await done


def nothing() -> None:
    pass


READING = pytest.mark.parametrize("kind", ["stream", "buffered", "pipe", "datagram"])


@READING
async def test_a_pause_that_ends_in_the_same_turn(loop: Any, kind: str) -> None:
    """It takes the call away; the next turn's poll finds the bytes again."""
    order: Order = []
    case = await reading(loop, kind, order)

    def pause_and_resume() -> None:
        case.transport.pause_reading()
        case.transport.resume_reading()

    await turns(loop, order, [lambda: case.send(b"x"), *[pause_and_resume] * 3, nothing, nothing])
    assert order == ["turn"] * 5 + ["data 1"] + ["turn"] * 2
    await case.close()


@READING
async def test_what_waited_for_the_end_of_a_pause(loop: Any, kind: str) -> None:
    """It comes with the batch of the turn after, not with its callbacks."""
    order: Order = []
    case = await reading(loop, kind, order)

    def pause() -> None:
        case.transport.pause_reading()
        loop.call_soon(nothing)

    def resume() -> None:
        case.transport.resume_reading()
        loop.call_soon(order.append, "posted")

    steps = [lambda: case.send(b"x"), pause, nothing, resume, nothing, nothing]
    await turns(loop, order, steps)
    assert order == ["turn"] * 4 + ["turn", "posted", "data 1", "turn", "turn"]
    await case.close()


async def test_what_came_before_and_within_a_pause_is_one(loop: Any) -> None:
    order: Order = []
    case = await reading(loop, "stream", order)
    steps = [
        lambda: case.send(b"x"),
        case.transport.pause_reading,
        lambda: case.send(b"yy"),
        case.transport.resume_reading,
        nothing,
        nothing,
    ]
    await turns(loop, order, steps)
    assert order == ["turn"] * 5 + ["data 3"] + ["turn"] * 2
    await case.close()


async def test_reading_goes_on_after_resuming_in_resume_writing(loop: Any) -> None:
    """An endpoint that its protocol resumes from another of its calls."""
    order: Order = []
    own, other = datagram_pair()
    case = await connected(loop, "datagram", order, own, other)
    protocol = case.transport.get_protocol()
    protocol.pause_writing = case.transport.pause_reading
    protocol.resume_writing = case.transport.resume_reading
    for _ in range(100):
        case.transport.sendto(bytes(4000))
    await asyncio.sleep(0.01)
    assert not case.transport.is_reading()
    case.send(b"x")
    while not case.transport.is_reading():
        case.drain()
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert order == ["data 1"]
    await case.close()


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_datagram_between_the_end_and_connection_lost(loop: Any, how: str) -> None:
    """A connected endpoint without an address of its own still sends, as on asyncio."""
    order: Order = []
    own, other = datagram_pair()
    case = await connected(loop, "datagram", order, own, other)
    getattr(case.transport, how)()
    case.transport.sendto(b"late")
    assert other.recv(10) == b"late"
    await asyncio.sleep(0.01)
    assert order == ["lost"]
    other.close()


def fill(fd: int, size: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, bytes(size))


@pytest.mark.parametrize("kind", ["stream", "pipe", "datagram"])
async def test_connection_lost_comes_with_the_last_byte(loop: Any, kind: str) -> None:
    """Of a transport that was closed while the other side did not take what was written."""
    order: Order = []
    if kind == "pipe":
        read_fd, write_fd = os.pipe()
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        fill(write_fd, 4096)
        transport, _ = await loop.connect_write_pipe(
            lambda: Noted(order), os.fdopen(write_fd, "wb", 0)
        )
        case = Case(transport, os.fdopen(read_fd, "rb", 0))
    else:
        own, other = (datagram_pair if kind == "datagram" else unix_pair)()
        fill(own.fileno(), 4000)
        case = await connected(loop, kind, order, own, other)
    write = case.transport.sendto if kind == "datagram" else case.transport.write

    def write_and_close() -> None:
        write(bytes(5000))
        case.transport.close()

    await turns(loop, order, [write_and_close, nothing, case.drain, nothing, nothing])
    assert order == ["turn"] * 4 + ["lost"] + ["turn"] * 2
    case.other.close()
