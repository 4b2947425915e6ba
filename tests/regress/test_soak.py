"""Nothing grows: children, wait_for, and every transport opened, used and closed, again and again.

Memory, descriptors and counters. NETPOLL_SOAK=1 makes these the numbers of a soak: 200 children
after as many, a million wait_fors, 500 cycles of each transport. Bug classes 1, 19 and 20.
"""

import asyncio
import gc
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ..support import SLOWNESS, Echo, Recorder, pair, until
from .test_growth import rss_bytes

pytestmark = pytest.mark.control

SOAK = os.environ.get("NETPOLL_SOAK", "0") not in ("", "0")
CYCLES = 500 if SOAK else 60
CHILDREN = 200 if SOAK else 15
WAIT_FORS = 1_000_000 if SOAK else 30_000

# What comes and goes by itself; sanitizers keep what was freed. A leak of 2 KiB for each of 500
# cycles is more.
SLACK_BYTES = (1 << 20) * (16 if SLOWNESS > 1 else 1)


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


async def nothing_grows(cycle: Callable[[], Awaitable[None]], count: int) -> None:
    """`count` cycles to warm up, `count` to be measured."""
    for _ in range(count):
        await cycle()
    gc.collect()
    await asyncio.sleep(0.01)
    fds_before, before = fds(), rss_bytes()
    for _ in range(count):
        await cycle()
    gc.collect()
    await until(lambda: fds() <= fds_before)
    assert rss_bytes() - before < SLACK_BYTES


async def test_children(loop: Any) -> None:
    async def cycle() -> None:
        process = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate(b"x" * 10_000)
        assert (len(out), process.returncode) == (10_000, 0)

    await nothing_grows(cycle, CHILDREN)


async def test_children_that_are_killed(loop: Any) -> None:
    async def cycle() -> None:
        transport, _ = await loop.subprocess_exec(asyncio.SubprocessProtocol, "sleep", "1000")
        transport.close()
        await transport._wait()

    await nothing_grows(cycle, CHILDREN)


async def test_wait_for(loop: Any) -> None:
    async def ready() -> None:
        pass

    async def cycle() -> None:
        for _ in range(1000):
            await asyncio.wait_for(ready(), 3600)

    await nothing_grows(cycle, WAIT_FORS // 2000)


async def test_wait_for_that_is_cancelled(loop: Any) -> None:
    async def cycle() -> None:
        for _ in range(100):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(loop.create_future(), 0)

    await nothing_grows(cycle, WAIT_FORS // 10_000)


async def test_tcp(loop: Any) -> None:
    async def cycle() -> None:
        client, served = await pair(loop)
        client.transport.write(b"x" * 10_000)
        await until(lambda: len(served.data) == 10_000)
        client.transport.close()
        await asyncio.gather(client.lost, served.lost)

    await nothing_grows(cycle, CYCLES)


async def test_unix(loop: Any, tmp_path: Path) -> None:
    server = await loop.create_unix_server(Echo, tmp_path / "socket")

    async def cycle() -> None:
        transport, protocol = await loop.create_unix_connection(Recorder, tmp_path / "socket")
        transport.write(b"x" * 10_000)
        await until(lambda: len(protocol.data) == 10_000)
        transport.close()
        await protocol.lost

    await nothing_grows(cycle, CYCLES)
    server.close()


async def test_pipes(loop: Any) -> None:
    async def cycle() -> None:
        read_fd, write_fd = os.pipe()
        _, reading = await loop.connect_read_pipe(Recorder, open(read_fd, "rb", 0))
        _, writing = await loop.connect_write_pipe(Recorder, open(write_fd, "wb", 0))
        writing.transport.write(b"x" * 100_000)
        writing.transport.close()
        await asyncio.gather(reading.lost, writing.lost)
        assert len(reading.data) == 100_000

    await nothing_grows(cycle, CYCLES)


async def test_pipes_that_are_aborted(loop: Any) -> None:
    async def cycle() -> None:
        read_fd, write_fd = os.pipe()
        _, reading = await loop.connect_read_pipe(Recorder, open(read_fd, "rb", 0))
        _, writing = await loop.connect_write_pipe(Recorder, open(write_fd, "wb", 0))
        reading.transport.pause_reading()
        writing.transport.write(b"x" * 100_000)
        await asyncio.sleep(0)
        writing.transport.abort()
        reading.transport.close()
        await asyncio.gather(reading.lost, writing.lost)

    await nothing_grows(cycle, CYCLES)


async def test_streams_over_sockets(loop: Any) -> None:
    async def cycle() -> None:
        left, right = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=left)
        far_reader, far_writer = await asyncio.open_connection(sock=right)
        writer.write(b"x" * 10_000 + b"\n")
        assert len(await far_reader.readline()) == 10_001
        for end in (writer, far_writer):
            end.close()
            await end.wait_closed()

    await nothing_grows(cycle, CYCLES)


async def test_sendfile(loop: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))

    async def cycle() -> None:
        client, served = await pair(loop)
        with open(tmp_path / "file", "rb") as file:
            assert await loop.sendfile(client.transport, file) == 100_000
        client.transport.close()
        await asyncio.gather(client.lost, served.lost)
        assert len(served.data) == 100_000

    await nothing_grows(cycle, CYCLES)
