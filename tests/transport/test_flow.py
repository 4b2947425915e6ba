"""Flow control: watermarks, pause_writing and resume_writing, pause_reading and resume_reading."""

import asyncio
from typing import Any

import pytest

from ..support import BufferedRecorder, Recorder, digest, pair, pattern, until

pytestmark = pytest.mark.control

KINDS = pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])


async def close_both(client: Any, served: Any) -> None:
    client.transport.abort()
    served.transport.abort()
    await asyncio.gather(client.lost, served.lost)


async def test_watermarks(loop: Any) -> None:
    client, served = await pair(loop)
    transport = client.transport
    low, high = transport.get_write_buffer_limits()
    assert (low, high) == (16 * 1024, 64 * 1024)
    transport.set_write_buffer_limits(high=1000)
    assert transport.get_write_buffer_limits() == (250, 1000)
    transport.set_write_buffer_limits(low=10)
    assert transport.get_write_buffer_limits() == (10, 40)
    transport.set_write_buffer_limits(high=100, low=100)
    assert transport.get_write_buffer_limits() == (100, 100)
    transport.set_write_buffer_limits(high=0)
    assert transport.get_write_buffer_limits() == (0, 0)
    transport.set_write_buffer_limits()
    assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    for wrong in ({"high": 5, "low": 10}, {"low": -1}, {"high": -1}):
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(**wrong)
    await close_both(client, served)


async def test_pause_and_resume_writing(loop: Any) -> None:
    """Called once each, at the high mark and at the low mark; the buffer's size is honest."""
    client, served = await pair(loop)
    served.transport.pause_reading()
    transport = client.transport
    assert transport.get_write_buffer_size() == 0
    total = 0
    while "pause" not in client.events:
        transport.write(bytes(65536))
        total += 65536
        await asyncio.sleep(0)
        assert total < 1 << 28
    assert transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]
    transport.write(bytes(65536))
    total += 65536
    await asyncio.sleep(0.02)
    assert client.events == ["made", "pause"]
    served.transport.resume_reading()
    await until(lambda: "resume" in client.events)
    assert transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[0]
    await until(lambda: len(served.data) == total)
    assert client.events == ["made", "pause", "resume"]
    assert transport.get_write_buffer_size() == 0
    await close_both(client, served)


async def test_a_write_above_the_mark_pauses_at_once(loop: Any) -> None:
    """pause_writing() comes inside write(), as in asyncio, when the kernel does not take it."""
    client, served = await pair(loop)
    served.transport.pause_reading()
    client.transport.write(bytes(32 << 20))
    assert client.events == ["made", "pause"]
    assert client.transport.get_write_buffer_size() > 0
    served.transport.resume_reading()
    await until(lambda: "resume" in client.events)
    await until(lambda: len(served.data) == 32 << 20)
    await close_both(client, served)


async def test_limits_of_zero(loop: Any) -> None:
    """high=0: paused whenever anything waits, resumed when nothing does."""
    client, served = await pair(loop)
    client.transport.set_write_buffer_limits(0)
    for _ in range(3):
        client.transport.write(bytes(16 << 20))
        assert client.events[-1] == "pause"
        await until(lambda: client.events[-1] == "resume")
        assert client.transport.get_write_buffer_size() == 0
    await until(lambda: len(served.data) == 48 << 20)
    await close_both(client, served)


async def test_lowering_the_limits_while_paused(loop: Any) -> None:
    client, served = await pair(loop)
    served.transport.pause_reading()
    client.transport.set_write_buffer_limits(high=64 << 20)
    client.transport.write(bytes(32 << 20))
    await asyncio.sleep(0.01)
    assert "pause" not in client.events
    client.transport.set_write_buffer_limits(high=1 << 20)
    await until(lambda: "pause" in client.events)
    served.transport.resume_reading()
    await until(lambda: "resume" in client.events)
    await close_both(client, served)


@pytest.mark.parametrize("where", ["pause_writing", "resume_writing"])
async def test_flow_callbacks_that_raise_are_reported(
    loop: Any, where: str, errors: list[dict[str, Any]]
) -> None:
    class Broken(Recorder):
        pass

    def broken(self: Recorder) -> None:
        self.events.append(where)
        raise ZeroDivisionError(where)

    setattr(Broken, where, broken)
    client, served = await pair(loop, Broken, Recorder)
    client.transport.write(bytes(32 << 20))
    await until(lambda: errors)
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
    assert errors[0]["transport"] is client.transport
    await until(lambda: len(served.data) == 32 << 20)
    assert len(errors) == 1
    errors.clear()
    await close_both(client, served)


async def test_writing_in_resume_writing(
    backend: str, loop: Any, errors: list[dict[str, Any]]
) -> None:
    """The usual producer: writes until paused, goes on when resumed."""

    class Producer(Recorder):
        left = 200
        paused = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.produce()

        def produce(self) -> None:
            while self.left and not self.paused:
                self.left -= 1
                self.transport.write(pattern(65536, self.left))
            if not self.left:
                self.transport.close()

        def pause_writing(self) -> None:
            self.paused = True

        def resume_writing(self) -> None:
            self.paused = False
            self.produce()

    client, served = await pair(loop, Producer, Recorder)
    await asyncio.gather(client.lost, served.lost)
    expected = b"".join(pattern(65536, left) for left in reversed(range(200)))
    assert digest(served.data) == digest(expected)
    if backend == "asyncio":  # closes twice when close() is called in resume_writing()
        errors.clear()


@KINDS
async def test_pause_reading_stops_the_data(loop: Any, kind: Any) -> None:
    """Bug class 9: nothing after the pause, nothing lost."""
    client, served = await pair(loop, Recorder, kind)
    transport = served.transport
    assert transport.is_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    transport.pause_reading()  # twice is harmless
    client.transport.write(b"x" * 1000)
    await asyncio.sleep(0.03)
    assert served.data == b""
    transport.resume_reading()
    assert transport.is_reading()
    transport.resume_reading()
    await until(lambda: len(served.data) == 1000)
    await close_both(client, served)


@KINDS
@pytest.mark.parametrize("resume", ["later", "in the same callback"])
async def test_pause_inside_the_callback(loop: Any, kind: Any, resume: str) -> None:
    """Bug class 9: the pause counts from the moment of the call."""
    calls_while_paused = 0

    class Pausing(kind):  # type: ignore[misc,valid-type]
        def note(self) -> None:
            nonlocal calls_while_paused
            calls_while_paused += not self.transport.is_reading()
            self.transport.pause_reading()
            if resume == "later":
                loop.call_soon(self.transport.resume_reading)
            else:
                self.transport.resume_reading()

        def data_received(self, data: bytes) -> None:
            self.note()
            super().data_received(data)

        def buffer_updated(self, nbytes: int) -> None:
            self.note()
            super().buffer_updated(nbytes)

    client, served = await pair(loop, Recorder, Pausing)
    data = pattern(1 << 20)
    for start in range(0, len(data), 10_000):
        client.transport.write(data[start : start + 10_000])
        if start % 3 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(served.data) == len(data))
    assert digest(served.data) == digest(data)
    assert calls_while_paused == 0
    await close_both(client, served)


@KINDS
async def test_a_paused_reader_bounds_what_is_taken(loop: Any, kind: Any) -> None:
    """A paused connection pushes back: the sender stalls, memory does not grow."""
    client, served = await pair(loop, Recorder, kind)
    served.transport.pause_reading()
    taken = 0
    for _ in range(2000):
        client.transport.write(bytes(65536))
        taken += 65536
        await asyncio.sleep(0)
        if client.transport.get_write_buffer_size() > 1 << 20:
            break
    else:
        raise AssertionError(f"{taken} bytes went into a paused connection")
    assert served.data == b""
    served.transport.resume_reading()
    await until(lambda: len(served.data) == taken)
    await close_both(client, served)


@pytest.mark.control_since((3, 11, 7))
@KINDS
async def test_pause_before_the_first_byte(loop: Any, kind: Any) -> None:
    """pause_reading() in connection_made: data that is there already waits."""

    class Shy(kind):  # type: ignore[misc,valid-type]
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.pause_reading()

    class Eager(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"at once")

    client, served = await pair(loop, Eager, Shy)
    await asyncio.sleep(0.02)
    assert served.data == b"" and served.events == ["made"]
    served.transport.resume_reading()
    await until(lambda: served.data == b"at once")
    await close_both(client, served)


async def test_a_paused_connection_does_not_see_the_end(loop: Any) -> None:
    """EOF waits behind the pause, in its order."""
    client, served = await pair(loop)
    served.transport.pause_reading()
    client.transport.write(b"last words")
    client.transport.close()
    await client.lost
    await asyncio.sleep(0.02)
    assert served.events == ["made"]
    served.transport.resume_reading()
    await served.lost
    assert served.events == ["made", "data", "eof", "lost"]
    assert served.data == b"last words"


async def test_pause_and_resume_a_thousand_times(loop: Any) -> None:
    """Bug classes 2 and 9: pause, resume, data, in every order."""
    client, served = await pair(loop)
    expected = 0
    for number in range(1000):
        served.transport.pause_reading()
        if number % 2:
            client.transport.write(b"ab")
            expected += 2
        if number % 3 == 0:
            await asyncio.sleep(0)
        served.transport.resume_reading()
        if number % 5 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(served.data) == expected)
    await close_both(client, served)


async def test_pausing_a_closed_transport(loop: Any) -> None:
    client, served = await pair(loop)
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)
    client.transport.pause_reading()
    client.transport.resume_reading()
    assert not client.transport.is_reading()
