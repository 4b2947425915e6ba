"""write and writelines: what they take, what they keep, what they do when it is too late."""

import array
import asyncio
import logging
import mmap
import random
from typing import Any

import pytest

from ..support import Recorder, digest, pair, pattern, reset, until

pytestmark = pytest.mark.control


async def close_both(client: Any, served: Any) -> None:
    client.transport.abort()
    served.transport.abort()
    await asyncio.gather(client.lost, served.lost)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_write_takes_buffers(loop: Any, kind: Any) -> None:
    client, served = await pair(loop)
    client.transport.write(kind(b"hello"))
    client.transport.write(kind(b""))
    client.transport.writelines([kind(b", "), kind(b""), kind(b"world")])
    await until(lambda: served.data == b"hello, world")
    await close_both(client, served)


async def test_write_refuses_what_is_no_buffer(loop: Any) -> None:
    client, served = await pair(loop)
    for wrong in ("text", 12, None, [b"x"]):
        with pytest.raises(TypeError):
            client.transport.write(wrong)
    client.transport.write(b"fine")
    await until(lambda: served.data == b"fine")
    await close_both(client, served)


async def test_writelines_refuses_what_is_no_buffer(loop: Any) -> None:
    client, served = await pair(loop)
    with pytest.raises(TypeError):
        client.transport.writelines([b"x", "text"])
    with pytest.raises(TypeError):
        client.transport.writelines(12)
    await close_both(client, served)


@pytest.mark.netpoll_only
@pytest.mark.parametrize("how", ["write", "writelines"])
@pytest.mark.parametrize("size_bytes", [100, 100_000, 32 << 20])
async def test_a_buffer_changed_after_write(loop: Any, how: str, size_bytes: int) -> None:
    """Bug class 12: what is written is what it was at the time of the call.

    asyncio keeps the caller's own memory since 3.12, and sends what it has become.
    """
    client, served = await pair(loop)
    served.transport.pause_reading()
    original = pattern(size_bytes)
    buffer = bytearray(original)
    view = memoryview(buffer)
    if how == "write":
        client.transport.write(buffer)
        client.transport.write(view)
    else:
        client.transport.writelines([buffer, view])
    buffer[:] = bytes(size_bytes)
    view.release()
    buffer.clear()  # raises BufferError if the transport still holds it
    served.transport.resume_reading()
    await until(lambda: len(served.data) == 2 * size_bytes)
    assert digest(served.data) == digest(original + original)
    await close_both(client, served)


@pytest.mark.netpoll_only
async def test_other_mutable_memory_changed_after_write(loop: Any) -> None:
    """Bug class 12: arrays and anonymous maps behind a memoryview, read-only views of them too."""
    client, served = await pair(loop)
    served.transport.pause_reading()
    memory = mmap.mmap(-1, 8 << 20)
    memory[:] = pattern(8 << 20)
    numbers = array.array("Q", range(1000))
    expected = bytes(memory) + numbers.tobytes() + bytes(memory)
    with memoryview(memory) as view, memoryview(numbers) as words, view.toreadonly() as fixed:
        client.transport.write(view)
        client.transport.write(words)
        client.transport.write(fixed)
    memory[:] = bytes(8 << 20)
    for index in range(1000):
        numbers[index] = 0
    memory.close()
    served.transport.resume_reading()
    await until(lambda: len(served.data) == len(expected))
    assert digest(served.data) == digest(expected)
    await close_both(client, served)


@pytest.mark.netpoll_only
async def test_strided_views_are_refused_or_written_in_their_order(loop: Any) -> None:
    """asyncio finds out in send() and breaks the connection."""
    client, served = await pair(loop)
    try:
        client.transport.write(memoryview(b"a.b.c.")[::2])
    except (BufferError, TypeError, ValueError):
        client.transport.write(b"abc")
    await until(lambda: served.data == b"abc")
    await close_both(client, served)


async def test_writelines_of_five_thousand_buffers(loop: Any) -> None:
    """Bug class 18: IOV_MAX is 1024."""
    client, served = await pair(loop)
    chunks = [b"%d," % number for number in range(5000)]
    client.transport.writelines(chunks)
    client.transport.writelines(iter(chunks))
    client.transport.writelines([])
    await until(lambda: len(served.data) == 2 * sum(map(len, chunks)))
    assert served.data == b"".join(chunks) * 2
    await close_both(client, served)


async def test_many_large_chunks_to_a_slow_reader(loop: Any) -> None:
    """Bug class 18: partial sends at every boundary."""
    client, served = await pair(loop)
    chosen = random.Random(11)
    expected = bytearray()
    for number in range(400):
        size = chosen.choice((1, 3, 100, 4095, 4096, 4097, 65535, 65536, 65537, 200_001))
        chunks = [pattern(size, number), b"|"]
        client.transport.writelines(chunks) if number % 2 else client.transport.write(
            b"".join(chunks)
        )
        expected += b"".join(chunks)
        if number % 50 == 0:
            served.transport.pause_reading()
            await asyncio.sleep(0.002)
            served.transport.resume_reading()
    await until(lambda: len(served.data) == len(expected), 20)
    assert digest(served.data) == digest(expected)
    await close_both(client, served)


async def test_ten_thousand_small_writes_in_one_turn(loop: Any) -> None:
    client, served = await pair(loop)
    for number in range(10_000):
        client.transport.write(number.to_bytes(4, "big"))
    expected = b"".join(number.to_bytes(4, "big") for number in range(10_000))
    await until(lambda: len(served.data) == len(expected))
    assert served.data == expected
    await close_both(client, served)


async def test_a_write_leaves_without_waiting_for_the_handler(loop: Any) -> None:
    """What was written goes out by the end of the turn."""
    client, served = await pair(loop)
    client.transport.write(b"x")
    for _ in range(20):
        await asyncio.sleep(0)
    await until(lambda: served.data == b"x", 1)
    await close_both(client, served)


async def test_writes_after_close_are_dropped_with_a_word(
    loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client, served = await pair(loop)
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)
    with caplog.at_level(logging.WARNING, "asyncio"):
        for _ in range(10):
            client.transport.write(b"too late")
    assert served.data == b""
    assert client.events == ["made", "lost"]


async def test_writes_into_a_reset_connection(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The peer is gone: connection_lost once with the error; later writes are harmless."""
    from ..support import listener

    sock = listener()
    connecting = asyncio.ensure_future(loop.create_connection(Recorder, *sock.getsockname()))
    accepted, _ = await loop.sock_accept(sock)
    transport, protocol = await connecting
    transport.write(b"x" * 1000)
    await asyncio.sleep(0.005)
    reset(accepted)
    await protocol.lost
    assert isinstance(protocol.error, (ConnectionResetError, BrokenPipeError))
    with caplog.at_level(logging.WARNING, "asyncio"):
        for _ in range(20):
            transport.write(b"y")
            await asyncio.sleep(0)
    assert protocol.events == ["made", "lost"]
    sock.close()


async def test_write_inside_connection_made(loop: Any) -> None:
    class Greeter(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"welcome ")
            transport.writelines([b"to ", b"you"])

    client, served = await pair(loop, Recorder, Greeter)
    await until(lambda: client.data == b"welcome to you")
    await close_both(client, served)


async def test_write_from_a_timer_and_another_task(loop: Any) -> None:
    client, served = await pair(loop)

    async def writer(name: bytes) -> None:
        for _ in range(100):
            client.transport.write(name * 10)
            await asyncio.sleep(0)

    loop.call_later(0.001, client.transport.write, b"t" * 10)
    await asyncio.gather(writer(b"a"), writer(b"b"))
    await until(lambda: len(served.data) == 2010)
    blocks = [bytes(served.data[start : start + 10]) for start in range(0, 2010, 10)]
    assert sorted(blocks) == sorted([b"a" * 10] * 100 + [b"b" * 10] * 100 + [b"t" * 10])
    await close_both(client, served)
