"""Too little of everything: 8-entry submission queue, 16 completions, 2 buffers of 256 bytes.

Bug classes 8 (ENOBUFS), 10 (completion queue overflow) and 11 (submission queue full).
"""

import asyncio
import socket
from typing import Any

import pytest

from ..support import BufferedRecorder, Echo, Recorder, digest, pair, pattern, stream_pair, until

pytestmark = pytest.mark.control

TINY = {"sq_entries": 8, "cq_entries": 16, "buf_count": 2, "buf_bytes": 256}


@pytest.fixture
def loop(loop_factory: Any) -> Any:
    """A loop with too little of everything."""
    return loop_factory(**TINY)


async def test_five_hundred_connections(loop: Any) -> None:
    """Everybody is served, nothing is lost, and the buffers come back (conservation)."""
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
    address = server.sockets[0].getsockname()
    clients = []
    for _ in range(500):
        sock = socket.create_connection(address)
        sock.setblocking(False)
        clients.append(sock)
    for turn in range(3):
        for number, sock in enumerate(clients):
            sock.send(b"%d:%d;" % (turn, number) * 20)
        for number, sock in enumerate(clients):
            expected = b"%d:%d;" % (turn, number) * 20
            got = b""
            while len(got) < len(expected):
                got += await loop.sock_recv(sock, 4096)
            assert got == expected
    for sock in clients:
        sock.close()
    server.close()
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
async def test_bulk_through_two_buffers(loop: Any, kind: Any) -> None:
    client, served = await pair(loop, Recorder, kind)
    data = pattern(4 << 20)
    client.transport.write(data)
    client.transport.close()
    await asyncio.wait_for(asyncio.gather(client.lost, served.lost), 25)
    assert digest(served.data) == digest(data)


async def test_slow_readers_do_not_starve_the_rest(loop: Any) -> None:
    """50 paused connections with data waiting; the others go on as if they were alone."""
    paused = [await pair(loop) for _ in range(50)]
    lively = [await pair(loop) for _ in range(10)]
    for client, served in paused:
        served.transport.pause_reading()
        client.transport.write(bytes(10_000))
    for turn in range(50):
        for client, _ in lively:
            client.transport.write(b"%03d" % turn)
        await until(lambda turn=turn: all(len(s.data) == 3 * (turn + 1) for _, s in lively))
    assert all(not served.data for _, served in paused)
    for _, served in paused:
        served.transport.resume_reading()
    await until(lambda: all(len(served.data) == 10_000 for _, served in paused))
    for client, _ in paused + lively:
        client.transport.close()
    await asyncio.gather(*(served.lost for _, served in paused + lively))


async def test_streams_that_nobody_reads(loop: Any) -> None:
    """StreamReaders at their limits hold no shared buffer hostage."""
    stuck = [await stream_pair(loop, limit=100) for _ in range(30)]
    for (_, writer), _ in stuck:
        writer.write(bytes(5000))
    (reader, writer), (_, other) = await stream_pair(loop)
    for number in range(100):
        other.write(b"%d\n" % number)
        assert await reader.readline() == b"%d\n" % number
    for (_, left), (blocked, right) in stuck:
        assert len(await blocked.readexactly(5000)) == 5000
        left.close()
        right.close()
    writer.close()
    other.close()
    await asyncio.sleep(0.02)


async def test_more_writes_in_a_turn_than_the_queue_holds(loop: Any) -> None:
    """Bug class 11: 100 connections write in one turn, the queue holds 8."""
    pairs = [await pair(loop) for _ in range(100)]
    for turn in range(10):
        for client, served in pairs:
            client.transport.write(b"to the server")
            served.transport.write(b"to the client")
        await until(
            lambda turn=turn: all(
                len(end.data) == 13 * (turn + 1) for both in pairs for end in both
            )
        )
    for client, served in pairs:
        client.transport.abort()
        served.transport.abort()
    await asyncio.gather(*(end.lost for both in pairs for end in both))


async def test_more_completions_at_once_than_the_queue_holds(loop: Any) -> None:
    """Bug class 10: 300 sockets become readable while the loop is away; 16 completions fit."""
    pairs = [socket.socketpair() for _ in range(300)]
    for _, right in pairs:
        right.setblocking(False)
    tasks = [asyncio.ensure_future(loop.sock_recv(right, 10)) for _, right in pairs]
    await asyncio.sleep(0.01)
    for left, _ in pairs:
        left.send(b"x")
    assert await asyncio.gather(*tasks) == [b"x"] * 300
    for left, right in pairs:
        left.close()
        right.close()


async def test_timers_and_callbacks_keep_their_bound_under_a_flood(loop: Any) -> None:
    """Bug class 10: traffic that never stops leaves timers and call_soon their turns."""
    pairs = [await pair(loop, Echo, Echo) for _ in range(20)]
    for client, _ in pairs:
        client.transport.write(b"x" * 100)  # bounces for ever
    for _ in range(50):
        start_s = loop.time()
        await asyncio.sleep(0.001)
        assert loop.time() - start_s < 2.0
    for client, served in pairs:
        client.transport.abort()
        served.transport.abort()
    await asyncio.sleep(0.05)


async def test_cancelled_operations_by_the_hundred(loop: Any) -> None:
    """Bug classes 2 and 11: more cancels in a turn than the queue holds."""
    for _ in range(5):
        pairs = [socket.socketpair() for _ in range(100)]
        for _, right in pairs:
            right.setblocking(False)
        tasks = [asyncio.ensure_future(loop.sock_recv(right, 10)) for _, right in pairs]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for left, right in pairs:
            left.send(b"later")
            got = b""
            while len(got) < 5:  # a message may end with its buffer
                got += await loop.sock_recv(right, 10)
            assert got == b"later"
            left.close()
            right.close()


@pytest.mark.netpoll_only
async def test_the_shortages_really_happened(backend: str, loop: Any) -> None:
    """Proof that the tests above run the hard paths: the counters moved."""
    pairs = [await pair(loop) for _ in range(60)]
    for _ in range(5):
        for client, _ in pairs:
            client.transport.write(bytes(5000))
        await asyncio.sleep(0.01)
    await until(lambda: all(len(served.data) == 25_000 for _, served in pairs))
    stats = loop.stats()
    if backend == "uring":
        assert stats["sq_full"] > 0
        assert stats["enobufs"] > 0
        assert stats["bufs_total"] == 2
    for client, served in pairs:
        client.transport.abort()
        served.transport.abort()
    await asyncio.gather(*(end.lost for both in pairs for end in both))


@pytest.mark.netpoll_only
@pytest.mark.parametrize("buf_count", [1, 2, 8])
@pytest.mark.parametrize("buf_bytes", [64, 4096])
def test_rings_of_every_small_size(loop_factory: Any, buf_count: int, buf_bytes: int) -> None:
    loop = loop_factory(sq_entries=8, cq_entries=16, buf_count=buf_count, buf_bytes=buf_bytes)

    async def main() -> None:
        pairs = [await pair(loop) for _ in range(20)]
        data = pattern(50_000)
        for client, _ in pairs:
            client.transport.write(data)
        await until(lambda: all(len(served.data) == 50_000 for _, served in pairs))
        assert all(served.data == data for _, served in pairs)
        for client, served in pairs:
            client.transport.close()
        await asyncio.gather(*(end.lost for both in pairs for end in both))

    loop.run_until_complete(main())
