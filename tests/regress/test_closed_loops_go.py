"""A loop that was used, closed and forgotten is gone at once, without the garbage collector.

tornado's own tests ask it, and so does every program that makes many loops or switches the
collector off. Found by them: a closed loop held itself, a child process its watch and the watch it.
"""

import asyncio
import gc
import os
import signal
import socket
import weakref
from collections.abc import Awaitable, Callable

import pytest

from ..support import make_loop

pytestmark = pytest.mark.control


async def nothing() -> None:
    pass


async def timers_and_futures() -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(100, print)
    loop.call_soon_threadsafe(int)
    future = loop.create_future()
    loop.call_soon(future.set_result, 1)
    await asyncio.wait_for(future, 10)


async def executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, int)


async def streams() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"x")
    assert await reader.read() == b"x"
    writer.close()
    await writer.wait_closed()
    server.close()
    await asyncio.sleep(0.02)


async def datagrams() -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    transport.close()
    await asyncio.sleep(0.01)


async def watched_and_signals() -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        loop.add_reader(left, print)
        loop.remove_reader(left)
        right.send(b"x")
        assert await loop.sock_recv(left, 1) == b"x"


async def child_with_output() -> None:
    process = await asyncio.create_subprocess_exec("echo", stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b"\n"
    await asyncio.sleep(0.01)


async def child() -> None:
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
    await asyncio.sleep(0.01)


async def read_pipe() -> None:
    read_fd, write_fd = os.pipe()
    file = open(read_fd, "rb", 0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(asyncio.Protocol, file)
    os.close(write_fd)
    await asyncio.sleep(0.02)
    transport.close()
    await asyncio.sleep(0.01)


MEMBERS = [
    nothing,
    timers_and_futures,
    executor,
    streams,
    datagrams,
    watched_and_signals,
    child_with_output,
    child,
    read_pipe,
]


def used_and_closed(
    backend: str, use: Callable[[], Awaitable[None]], debug: bool
) -> weakref.ref[asyncio.AbstractEventLoop]:
    loop = make_loop(backend)
    loop.set_debug(debug)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(use())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return weakref.ref(loop)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("use", MEMBERS)
def test_a_closed_loop_is_no_cycle(
    backend: str, use: Callable[[], Awaitable[None]], debug: bool
) -> None:
    used_and_closed(backend, use, debug)  # what is made once, is made now
    gc.collect()
    gc.disable()
    try:
        loop = used_and_closed(backend, use, debug)()
        assert loop is None, gc.get_referrers(loop)
    finally:
        gc.enable()


def test_a_closed_loop_still_makes_futures(backend: str) -> None:
    """As asyncio's does; what was made leads to the loop, but not the loop to itself."""
    loop = make_loop(backend)
    loop.close()
    future = loop.create_future()
    assert future.get_loop() is loop
