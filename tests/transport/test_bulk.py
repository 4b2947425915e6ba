"""Large transfers, checksummed, both directions, slow readers: every mode, every size."""

import asyncio
import threading
from typing import Any

import pytest

from ..support import (
    BufferedRecorder,
    Digest,
    Recorder,
    digest,
    pair,
    pattern,
    socket_pair,
    stream_pair,
    until,
)

pytestmark = pytest.mark.control

SIZES = pytest.mark.parametrize("size_bytes", [1 << 20, 4 << 20, 32 << 20])


@SIZES
@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
async def test_protocols_both_directions(loop: Any, size_bytes: int, kind: Any) -> None:
    client, served = await pair(loop, kind, lambda: kind())
    there, back = pattern(size_bytes, 1), pattern(size_bytes, 2)
    client.transport.write(there)
    served.transport.write(back)
    await until(lambda: len(served.data) == len(client.data) == size_bytes, 20)
    assert digest(served.data) == digest(there) and digest(client.data) == digest(back)
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)


@SIZES
async def test_streams_both_directions(loop: Any, size_bytes: int) -> None:
    (reader, writer), (other_reader, other) = await stream_pair(loop)
    there, back = pattern(size_bytes, 1), pattern(size_bytes, 2)

    async def send(to: asyncio.StreamWriter, data: bytes) -> None:
        for start in range(0, len(data), 100_000):
            to.write(data[start : start + 100_000])
            await to.drain()
        to.write_eof()

    _, _, got_back, got_there = await asyncio.gather(
        send(writer, there), send(other, back), reader.read(), other_reader.read()
    )
    assert digest(got_there) == digest(there) and digest(got_back) == digest(back)
    for each in (writer, other):
        each.close()
        await each.wait_closed()


@SIZES
async def test_sockets_both_directions(loop: Any, size_bytes: int) -> None:
    left, right = socket_pair()
    there, back = pattern(size_bytes, 1), pattern(size_bytes, 2)

    async def take(sock: Any, into: bool) -> str:
        hashed, left_bytes = Digest(), size_bytes
        buffer = bytearray(300_000)
        while left_bytes:
            if into:
                count = await loop.sock_recv_into(sock, buffer)
                hashed.update(memoryview(buffer)[:count])
            else:
                data = await loop.sock_recv(sock, 300_000)
                count = len(data)
                hashed.update(data)
            left_bytes -= count
        return str(hashed)

    results = await asyncio.gather(
        loop.sock_sendall(left, there), loop.sock_sendall(right, back), take(left, True),
        take(right, False),
    )  # fmt: skip
    assert results[2] == digest(back) and results[3] == digest(there)
    left.close()
    right.close()


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
async def test_a_slow_reader(loop: Any, kind: Any) -> None:
    """The reader pauses after every piece; the writer obeys its watermarks."""

    class Slow(kind):  # type: ignore[misc,valid-type]
        def rest(self) -> None:
            self.transport.pause_reading()
            loop.call_later(0.0005, self.transport.resume_reading)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.rest()

        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.rest()

    client, served = await pair(loop, Recorder, lambda: Slow(*([65536] * (kind is not Recorder))))
    data = pattern(8 << 20)
    client.transport.write(data)
    client.transport.close()
    await asyncio.wait_for(asyncio.gather(client.lost, served.lost), 25)
    assert digest(served.data) == digest(data)


async def test_a_slow_stream_reader(loop: Any) -> None:
    (reader, writer), (_, other) = await stream_pair(loop)
    data = pattern(4 << 20)

    async def send() -> None:
        for start in range(0, len(data), 10_007):
            other.write(data[start : start + 10_007])
            await other.drain()
        other.close()

    sending = asyncio.ensure_future(send())
    got = bytearray()
    while chunk := await reader.read(50_000):
        got += chunk
        await asyncio.sleep(0.0005)
    await sending
    assert digest(got) == digest(data)
    writer.close()
    await writer.wait_closed()


async def test_many_connections_move_much_at_once(loop: Any) -> None:
    """16 connections × 2 MiB in both directions, interleaved."""
    pairs = [await pair(loop, Recorder, BufferedRecorder) for _ in range(16)]
    data = [pattern(2 << 20, number) for number in range(16)]
    for number, (client, served) in enumerate(pairs):
        client.transport.write(data[number])
        served.transport.write(data[-1 - number])
    await until(lambda: all(len(end.data) == 2 << 20 for both in pairs for end in both), 25)
    for number, (client, served) in enumerate(pairs):
        assert digest(served.data) == digest(data[number])
        assert digest(client.data) == digest(data[-1 - number])
        client.transport.close()
    await asyncio.gather(*(end.lost for both in pairs for end in both))


async def test_messages_that_grow_and_shrink(loop: Any) -> None:
    """A connection changes from small messages to bulk and back: nothing lost at the seams."""
    client, served = await pair(loop)
    expected = Digest()
    total = 0
    for number in range(120):
        size = (10, 100_000, 1000, 1_000_000, 1)[number % 5]
        message = pattern(size, number)
        expected.update(message)
        total += size
        client.transport.write(message)
        if number % 4:
            await until(lambda total=total: len(served.data) == total)
    await until(lambda: len(served.data) == total)
    assert digest(served.data) == str(expected)
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)


async def test_bulk_against_a_blocking_peer(loop: Any) -> None:
    """The other end is an ordinary blocking socket in a thread."""
    left, right = socket_pair()
    right.setblocking(True)
    data = pattern(8 << 20)
    results: list[str] = []

    def peer() -> None:
        hashed, left_bytes = Digest(), len(data)
        while left_bytes:
            chunk = right.recv(65536)
            hashed.update(chunk)
            left_bytes -= len(chunk)
        right.sendall(data)
        right.close()
        results.append(str(hashed))

    thread = threading.Thread(target=peer)
    thread.start()
    transport, protocol = await loop.create_connection(Recorder, sock=left)
    transport.write(data)
    await protocol.lost
    thread.join()
    assert results == [digest(data)] and digest(protocol.data) == digest(data)


@pytest.mark.netpoll_only
async def test_small_messages_do_not_wait_for_bulk(loop: Any) -> None:
    """STYLE 4: a budget per connection and turn; a chatty neighbour still gets its turns."""
    bulk_client, bulk_served = await pair(loop)
    chat_client, chat_served = await pair(loop)

    class EchoBack(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    echo = EchoBack()
    echo.connection_made(chat_served.transport)
    chat_served.transport.set_protocol(echo)
    bulk_client.transport.write(bytes(64 << 20))
    rounds = 0
    while len(bulk_served.data) < 64 << 20:
        count = len(chat_client.data)
        chat_client.transport.write(b"x")
        await until(lambda count=count: len(chat_client.data) > count)
        rounds += 1
    assert rounds >= 8, f"{rounds} rounds while 64 MiB went by"
    bulk_client.transport.close()
    chat_client.transport.close()
    await asyncio.gather(bulk_client.lost, bulk_served.lost, chat_client.lost, echo.lost)
