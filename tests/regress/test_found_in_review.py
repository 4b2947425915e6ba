"""Defects that a review of the native layer found; each with asyncio as the control."""

import asyncio
import contextvars
import gc
import os
import weakref
from typing import Any

import pytest

from ..support import unix_pair, until

pytestmark = pytest.mark.control


async def test_a_reader_that_closes_its_own_fd(loop: Any) -> None:
    """The watcher cannot be armed again; the loop must survive that."""
    left, right = unix_pair()
    fd = right.detach()
    calls: list[int] = []

    def close() -> None:
        calls.append(1)
        os.close(fd)

    loop.add_reader(fd, close)
    left.send(b"x")
    await until(lambda: bool(calls))
    await asyncio.sleep(0.02)
    loop.remove_reader(fd)
    left.close()
    assert calls == [1]


@pytest.mark.netpoll_only
def test_what_was_written_leaves_when_the_loop_stops(loop: Any) -> None:
    """More pieces than one operation carries, and no turn after them."""

    async def write(count: int) -> Any:
        left, right = unix_pair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
        for number in range(count):
            transport.write(b"%c" % (number % 256))
        return transport, right

    for count in (1, 64, 65, 1000):
        transport, right = loop.run_until_complete(write(count))
        assert len(right.recv(65536)) == count
        transport.abort()
        loop.run_until_complete(asyncio.sleep(0.01))
        right.close()


async def test_a_pending_read_keeps_its_reader(loop: Any) -> None:
    """Nobody else refers to the StreamReader; the end of the stream must reach the read."""
    left, right = unix_pair()
    reader, writer = await asyncio.open_connection(sock=left)
    read = asyncio.ensure_future(reader.read(100))
    del reader
    await asyncio.sleep(0)
    gc.collect()
    right.close()
    assert await asyncio.wait_for(read, 5) == b""
    writer.close()
    await asyncio.sleep(0.02)


async def test_a_read_that_is_awaited_twice(loop: Any) -> None:
    """The second await fails, the first one is not disturbed."""
    left, right = unix_pair()
    reader, writer = await asyncio.open_connection(sock=left)
    read = reader.read(100)

    async def wait() -> Any:
        return await read

    first = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await wait()
    right.send(b"hello")
    assert await asyncio.wait_for(first, 5) == b"hello"
    writer.close()
    right.close()
    await asyncio.sleep(0.02)


@pytest.mark.netpoll_only  # asyncio keeps cancelled timers until there are many
async def test_cancelled_handles_are_not_kept_by_their_context(loop: Any) -> None:
    """A context variable's value that holds a cancelled timer: a cycle through the handle."""
    var: contextvars.ContextVar[Any] = contextvars.ContextVar("var")

    class Request:
        timer: Any = None

    alive: list[weakref.ref] = []

    async def serve() -> None:
        request = Request()
        alive.append(weakref.ref(request))
        var.set(request)
        request.timer = loop.call_later(60, print)
        request.timer.cancel()

    for _ in range(20):
        await asyncio.ensure_future(serve())
    gc.collect()
    # The last one's context may still be the running callback's.
    assert sum(ref() is not None for ref in alive) <= 1


@pytest.mark.netpoll_only  # asyncio leaves the connection open
async def test_a_factory_that_raises_closes_its_connection_alone(loop: Any, errors: Any) -> None:
    """Nothing is left of it: no transport, no descriptor; the next connection is served."""
    made: list[int] = []

    def factory() -> asyncio.Protocol:
        made.append(1)
        if len(made) == 1:
            raise ValueError("not this one")
        return asyncio.Protocol()

    loop.set_debug(True)  # only then asyncio reports it
    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    assert await asyncio.wait_for(reader.read(10), 5) == b""
    writer.close()
    _, writer = await asyncio.open_connection(*address)
    await until(lambda: len(made) == 2)
    writer.close()
    await asyncio.sleep(0.05)
    server.close()
    loop.set_debug(False)
    assert [str(error["exception"]) for error in errors] == ["not this one"]
    errors.clear()
