"""Nothing grows: children, wait_for, and every transport opened, used and closed, again and again.

Memory, descriptors and counters. NETPOLL_SOAK=1 makes these the numbers of a soak (after as many
to warm up): 200 children, a million wait_fors, 500 cycles of each transport and of files; with
pytest's -s the figures are shown. Bug classes 1, 19 and 20.
"""

import asyncio
import gc
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import netpoll

from ..support import SLOWNESS, Echo, Recorder, pair, until
from ..transport import datagrams
from .test_growth import rss_bytes

pytestmark = pytest.mark.control

SOAK = os.environ.get("NETPOLL_SOAK", "0") not in ("", "0")
CYCLES = 500 if SOAK else 60
CHILDREN = 200 if SOAK else 15
WAIT_FORS = 1_000_000 if SOAK else 30_000

# What comes and goes by itself; sanitizers keep what was freed. A leak of 2 KiB for each of 500
# cycles is more.
SLACK_BYTES = (1 << 20) * (16 if SLOWNESS > 1 else 1)


COUNTERS = ("ops_live", "timers_count", "transports_count", "bufs_free")


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def counters() -> list[int]:
    """What the loop says it has; asyncio says nothing."""
    stats = getattr(asyncio.get_running_loop(), "stats", dict)()
    return [stats.get(name, 0) for name in COUNTERS]


async def nothing_grows(cycle: Callable[[], Awaitable[None]], count: int) -> None:
    """`count` cycles to warm up, `count` to be measured."""
    for _ in range(count):
        await cycle()
    gc.collect()
    await asyncio.sleep(0.01)
    counters_before = counters()
    fds_before, before, start_s = fds(), rss_bytes(), time.monotonic()
    for _ in range(count):
        await cycle()
    gc.collect()
    await until(lambda: fds() <= fds_before)
    await until(lambda: counters() == counters_before)
    grown = rss_bytes() - before
    seconds = time.monotonic() - start_s
    print(f"{count} cycles in {seconds:.1f} s: {grown / count:+.0f} bytes each, fds {fds_before}")
    assert grown < SLACK_BYTES


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


async def test_tls(loop: Any) -> None:
    from ..tls import client_context, server_context, tls_pair  # where there is trustme

    contexts = {"client": client_context(), "server": server_context()}

    async def cycle() -> None:
        client, served = await tls_pair(loop, **contexts)
        client.transport.write(b"x" * 10_000)
        await until(lambda: len(served.data) == 10_000)
        client.transport.close()
        await asyncio.gather(client.lost, served.lost)

    await nothing_grows(cycle, CYCLES)


async def test_start_tls_over_unix(loop: Any) -> None:
    from ..tls import HOST, client_context, server_context

    contexts = [client_context(), server_context()]

    async def end(sock: socket.socket, context: Any, **options: Any) -> Any:
        plain, _ = await loop.connect_accepted_socket(asyncio.Protocol, sock)
        protocol = Recorder()
        transport = await loop.start_tls(plain, protocol, context, **options)
        protocol.connection_made(transport)
        return protocol

    async def cycle() -> None:
        left, right = socket.socketpair()
        client, served = await asyncio.gather(
            end(left, contexts[0], server_hostname=HOST), end(right, contexts[1], server_side=True)
        )
        served.transport.write(b"x" * 10_000)
        await until(lambda: len(client.data) == 10_000)
        client.transport.close()
        await asyncio.gather(client.lost, served.lost)

    await nothing_grows(cycle, CYCLES)


async def test_udp(loop: Any) -> None:
    async def cycle() -> None:
        server, _ = await datagrams.bound(loop, on_datagram=datagrams.echo)
        client, protocol = await datagrams.connected(loop, server)
        for size_bytes in (10, 10, 1400, 9000):
            client.sendto(bytes(size_bytes))
        await until(lambda: len(protocol.data) == 4)
        await datagrams.closed(server, client)

    await nothing_grows(cycle, CYCLES)


@pytest.mark.netpoll_only  # asyncio does not send where the peer has no name
async def test_unix_datagrams(loop: Any) -> None:
    async def cycle() -> None:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver, protocol = await loop.create_datagram_endpoint(datagrams.Recorder, sock=left)
        sender, _ = await loop.create_datagram_endpoint(datagrams.Recorder, sock=right)
        for _ in range(4):
            sender.sendto(b"x" * 1000)
        await until(lambda: len(protocol.data) == 4)
        await datagrams.closed(receiver, sender)

    await nothing_grows(cycle, CYCLES)


@pytest.mark.parametrize("mode", ["+", "b+"])
async def test_files(loop: Any, tmp_path: Path, mode: str) -> None:
    """They run in threads on loops that are not netpoll's."""
    line: Any = b"a line\n" if "b" in mode else "a line\n"

    async def cycle() -> None:
        async with netpoll.open(tmp_path / "file", "w" + mode) as file:
            await file.write(line * 1000)
            await file.seek(0)
            assert await file.readline() == line

    await nothing_grows(cycle, CYCLES)


async def test_reads_at_an_offset(loop: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))

    async def cycle() -> None:
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CLOEXEC)
        reads = [netpoll.read_at(fd, 4096, 4096 * number) for number in range(16)]
        assert {len(block) for block in await asyncio.gather(*reads)} == {4096}
        assert await netpoll.write_at(fd, b"x" * 4096, 0) == 4096
        os.close(fd)

    await nothing_grows(cycle, CYCLES)


async def test_children_of_a_shell(loop: Any) -> None:
    async def cycle() -> None:
        process = await asyncio.create_subprocess_shell(
            "echo out; echo err >&2; exit 3",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert await process.communicate() == (b"out\n", b"err\n")
        assert process.returncode == 3

    await nothing_grows(cycle, CHILDREN)


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
        _reader, writer = await asyncio.open_connection(sock=left)
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
