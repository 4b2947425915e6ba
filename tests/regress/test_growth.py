"""Memory, file descriptors and counters over many cycles: slope zero. Bug classes 1, 19 and 20."""

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import sys
from typing import Any

import pytest

from ..support import SLOWNESS, Echo, Recorder, pair, unix_pair

pytestmark = pytest.mark.control

LIBC = ctypes.CDLL(None)
# What may come and go by itself. A leak of 100 bytes a cycle is more; sanitizers keep freed memory.
SLACK_BYTES = (1 << 20) * (16 if SLOWNESS > 1 else 1)


def rss_bytes() -> int:
    """What this process has in memory now, without what its allocator keeps for later.

    That differs by megabytes from one look to the next, and most where blocks of hundreds of
    kilobytes come and go: a leak would drown in it.
    """
    if hasattr(LIBC, "malloc_trim"):  # glibc's
        LIBC.malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def growth_bytes(loop: Any, work: Any, rounds: int) -> int:
    """How much `rounds` further rounds of `work` add, after as many to warm up."""
    for _ in range(rounds):
        loop.run_until_complete(work())
    gc.collect()
    before = rss_bytes()
    for _ in range(rounds):
        loop.run_until_complete(work())
    gc.collect()
    return rss_bytes() - before


def test_a_hundred_thousand_wait_fors(loop: Any) -> None:
    """Bug class 19: cancelled timers leave nothing behind."""

    async def ready() -> None:
        pass

    async def work() -> None:
        for _ in range(10_000):
            await asyncio.wait_for(ready(), 3600)

    assert growth_bytes(loop, work, 5) < SLACK_BYTES
    if hasattr(loop, "stats"):
        assert loop.stats()["timers_count"] == 0


@pytest.mark.netpoll_only
def test_cancelled_timers_are_forgotten_at_once(loop: Any) -> None:
    """Bug class 19: no tombstones."""
    handles = [loop.call_later(3600, print) for _ in range(100_000)]
    assert loop.stats()["timers_count"] == 100_000
    for handle in handles:
        handle.cancel()
    assert loop.stats()["timers_count"] == 0


def test_references_of_cancelled_timers(loop: Any) -> None:
    """The callback and its arguments go with the cancel, not with the deadline."""

    class Thing:
        pass

    thing = Thing()
    before = sys.getrefcount(thing)
    handles = [loop.call_later(3600, print, thing) for _ in range(100)]
    for handle in handles:
        handle.cancel()
    assert sys.getrefcount(thing) == before


def test_five_hundred_connections_leave_nothing(loop: Any) -> None:
    """Bug class 20: memory and fds after 500 cycles are those after 250."""

    async def work() -> None:
        for _ in range(25):
            client, served = await pair(loop)
            client.transport.write(b"x" * 10_000)
            client.transport.close()
            await asyncio.gather(client.lost, served.lost)

    fds = len(os.listdir("/proc/self/fd"))
    assert growth_bytes(loop, work, 10) < SLACK_BYTES
    assert len(os.listdir("/proc/self/fd")) <= fds + 3


@pytest.mark.parametrize("end", ["close", "abort"])
def test_tls_connections_leave_nothing(loop: Any, end: str) -> None:
    """Bug class 20: contexts, sessions and BIOs go with their connections."""
    from ..tls import client_context, server_context, tls_pair  # where there is trustme

    contexts = {"client": client_context(), "server": server_context()}

    async def work() -> None:
        for _ in range(25):
            client, served = await tls_pair(loop, **contexts)
            client.transport.write(b"x" * 10_000)
            getattr(client.transport, end)()
            await asyncio.gather(client.lost, served.lost)

    fds = len(os.listdir("/proc/self/fd"))
    assert growth_bytes(loop, work, 10) < SLACK_BYTES
    assert len(os.listdir("/proc/self/fd")) <= fds + 3


def test_streams_leave_nothing(loop: Any) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        for _ in range(25):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x" * 1000 + b"\n")
            await reader.read()
            writer.close()
            await writer.wait_closed()
        server.close()

    assert growth_bytes(loop, work, 10) < SLACK_BYTES


def test_cancelled_receives_leave_nothing(loop: Any) -> None:
    """Bug class 1: 20 000 receives cancelled in flight."""
    left, right = unix_pair()

    async def work() -> None:
        for _ in range(1000):
            task = asyncio.ensure_future(loop.sock_recv(right, 65536))
            await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    assert growth_bytes(loop, work, 10) < SLACK_BYTES
    left.close()
    right.close()


def test_aborted_bulk_leaves_nothing(loop: Any) -> None:
    """Bug classes 1 and 6: connections that die with megabytes queued and half received."""

    async def work() -> None:
        for _ in range(5):
            client, served = await pair(loop)
            client.transport.write(bytes(1 << 20))
            served.transport.write(bytes(1 << 20))
            await asyncio.sleep(0)
            client.transport.abort()
            await asyncio.gather(client.lost, served.lost)

    assert growth_bytes(loop, work, 10) < 6 * SLACK_BYTES


def test_loops_leave_nothing(loop_factory: Any) -> None:
    """Fifty loops made, used and closed: memory, rings and fds are given back."""

    def cycle() -> None:
        for _ in range(10):
            loop = loop_factory()
            loop_factory.loops.clear()

            async def main(loop: Any = loop) -> None:
                client, served = await pair(loop)
                client.transport.close()
                await asyncio.gather(client.lost, served.lost)

            loop.run_until_complete(main())
            loop.close()
        gc.collect()

    for _ in range(3):
        cycle()
    before = rss_bytes()
    for _ in range(5):
        cycle()
    assert rss_bytes() - before < 2 * SLACK_BYTES


@pytest.mark.netpoll_only
def test_an_idle_connection_is_small(loop: Any) -> None:
    """1000 idle connections: user memory each, both ends in this process."""

    class Idle(asyncio.Protocol):
        __slots__ = ()

    async def main() -> int:
        made: list[Any] = []
        server = await loop.create_server(Idle, "127.0.0.1", 0, backlog=1024)
        address = server.sockets[0].getsockname()
        for _ in range(200):
            made.append(await loop.create_connection(Idle, *address))
        gc.collect()
        before = rss_bytes()
        for _ in range(1000):
            made.append(await loop.create_connection(Idle, *address))
        gc.collect()
        each = (rss_bytes() - before) // 2000
        for transport, _ in made:
            transport.abort()
        server.close()
        await asyncio.sleep(0.1)
        return each

    each = loop.run_until_complete(main())
    assert each < 2500 * SLOWNESS, f"{each} bytes for each end of an idle connection"


def test_echo_traffic_leaves_nothing(loop: Any) -> None:
    async def set_up() -> Any:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        return server, [(await loop.create_connection(Recorder, *address)) for _ in range(10)]

    server, clients = loop.run_until_complete(set_up())

    async def work() -> None:
        for _ in range(100):
            for transport, _ in clients:
                transport.write(b"x" * 500)
            await asyncio.sleep(0)
        while any(len(protocol.data) < 50_000 for _, protocol in clients):
            await asyncio.sleep(0.001)
        for _, protocol in clients:
            protocol.data.clear()

    assert growth_bytes(loop, work, 10) < SLACK_BYTES

    async def tear_down() -> None:
        for transport, protocol in clients:
            transport.close()
            await protocol.lost
        server.close()

    loop.run_until_complete(tear_down())
