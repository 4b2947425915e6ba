"""Debug mode: what asyncio checks and says in it."""

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

pytestmark = pytest.mark.control


def test_debug_flag(loop: Any) -> None:
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True

    async def main() -> None:
        assert loop.get_debug()
        loop.set_debug(False)
        assert not loop.get_debug()

    loop.run_until_complete(main())


def test_debug_from_the_environment(loop_factory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    assert loop_factory().get_debug() is True
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "")
    assert loop_factory().get_debug() is False


def test_calls_from_the_wrong_thread_are_refused(loop: Any) -> None:
    """Bug class 15."""
    loop.set_debug(True)
    results: list[BaseException | None] = []

    def misuse() -> None:
        for schedule in (
            lambda: loop.call_soon(print),
            lambda: loop.call_later(60, print),
            lambda: loop.call_at(loop.time() + 60, print),
        ):
            try:
                schedule()
            except RuntimeError as error:
                results.append(error)
            else:
                results.append(None)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=misuse)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert len(results) == 3
    assert all("Non-thread-safe operation" in str(error) for error in results)


def test_callbacks_must_be_callable_and_no_coroutines(loop: Any) -> None:
    async def coroutine_function() -> None:
        pass

    loop.set_debug(True)
    for schedule in (
        loop.call_soon,
        loop.call_soon_threadsafe,
        lambda callback: loop.call_later(60, callback),
        lambda callback: loop.call_at(loop.time() + 60, callback),
        lambda callback: loop.run_in_executor(None, callback),
    ):
        with pytest.raises(TypeError, match="coroutines cannot be used"):
            schedule(coroutine_function)
        with pytest.raises(TypeError, match="a callable object was expected"):
            schedule(12)


def test_slow_callbacks_are_named(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.02

    def slow_one() -> None:
        time.sleep(0.05)

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.call_soon(slow_one)
        loop.run_until_complete(asyncio.sleep(0.001))
    messages = [record.getMessage() for record in caplog.records]
    assert any("slow_one" in text and "took" in text for text in messages), messages


def test_slow_tasks_are_named(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 0.02

    async def slow_coroutine() -> None:
        time.sleep(0.05)

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(slow_coroutine())
    messages = [record.getMessage() for record in caplog.records]
    assert any("slow_coroutine" in text for text in messages), messages


def test_slow_callback_duration_default(loop: Any) -> None:
    assert loop.slow_callback_duration == pytest.approx(0.1)


def test_handles_know_where_they_were_made(loop: Any) -> None:
    loop.set_debug(True)
    handle = loop.call_later(60, print)
    assert "test_debug.py" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


def test_handler_context_has_the_source_traceback(loop: Any, errors: list[dict[str, Any]]) -> None:
    loop.set_debug(True)
    loop.call_soon(lambda: 1 / 0)
    loop.run_until_complete(asyncio.sleep(0.001))
    frames = errors[0]["source_traceback"]
    assert any(frame.name.startswith("test_handler_context") for frame in frames)
    errors.clear()


def test_coroutine_origin_tracking_follows_debug(loop: Any) -> None:
    import sys

    loop.set_debug(True)

    async def main() -> int:
        return sys.get_coroutine_origin_tracking_depth()

    coro = main()
    assert loop.run_until_complete(coro) > 0
    assert sys.get_coroutine_origin_tracking_depth() == 0


def test_everything_still_works_in_debug_mode(loop: Any) -> None:
    loop.set_debug(True)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        await writer.drain()
        writer.close()

    async def main() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return data

    assert loop.run_until_complete(main()) == b"hello"


async def test_reprs_of_every_kind_of_transport(loop: Any) -> None:
    """They stand in error messages, so they must not fail."""
    import os
    import socket

    left, right = socket.socketpair()
    stream, _ = await loop.create_connection(asyncio.Protocol, sock=left)
    datagram, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    read_end, write_end = os.pipe()
    reading, _ = await loop.connect_read_pipe(asyncio.Protocol, open(read_end, "rb"))
    writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(write_end, "wb"))
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    for each in (stream, datagram, reading, writing, server, *server.sockets):
        assert len(repr(each)) > 10
    for transport in (stream, datagram, writing, reading):
        transport.close()
        assert "clos" in repr(transport)
    server.close()
    right.close()
    await asyncio.sleep(0.01)
    assert repr(stream) and repr(server)


def test_repr_of_a_loop(loop: Any) -> None:
    text = repr(loop)
    assert "running=False" in text and "closed=False" in text and "debug=False" in text
    loop.close()
    assert "closed=True" in repr(loop)
