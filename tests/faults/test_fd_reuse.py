"""File descriptor numbers that are closed and come back at once. Bug classes 3, 4 and 5."""

import asyncio
import os
import random
import socket
from typing import Any

import pytest

from ..support import Echo, Recorder, pair, reset, unix_pair, until

pytestmark = pytest.mark.control


async def test_storm(loop: Any) -> None:
    """Connections come and go in every way while others talk: each hears only its own peer."""
    chosen = random.Random(17)
    steady = [await pair(loop) for _ in range(5)]
    numbers: set[int] = set()
    for number in range(400):
        client, served = await pair(loop)
        numbers.add(client.transport.get_extra_info("socket").fileno())
        message = b"<%d>" % number
        client.transport.write(message)
        if number % 2:
            await until(lambda s=served: s.data)
            assert served.data == message
        for end in chosen.sample((client, served), 2):
            getattr(end.transport, chosen.choice(("close", "abort", "write_eof")))()
        client.transport.close()
        served.transport.close()
        if number % 10 == 0:
            for a, b in steady:
                a.transport.write(b"steady")
                b.transport.write(b"steady")
        if number % 3 == 0:
            await asyncio.gather(client.lost, served.lost)
        assert served.data in (b"", message)
    await until(lambda: all(len(end.data) == 6 * 40 for both in steady for end in both))
    assert len(numbers) < 200, "the numbers were not reused: the test proves nothing"
    for both in steady:
        for end in both:
            assert end.data == b"steady" * 40
            end.transport.abort()
    await asyncio.gather(*(end.lost for both in steady for end in both))


async def test_raw_numbers_between_calls(loop: Any) -> None:
    """Bug class 5: a probe fd takes the number that was just freed; nobody closes it."""
    for how in ("close", "abort"):
        for _ in range(50):
            client, served = await pair(loop)
            sock = client.transport.get_extra_info("socket")
            number = sock.fileno()
            getattr(client.transport, how)()
            await client.lost
            await until(lambda s=sock: s.fileno() == -1)
            probe = os.open("/dev/null", os.O_RDONLY)
            if probe != number:
                os.dup2(probe, number)
                os.close(probe)
                probe = number
            served.transport.abort()
            await served.lost
            await asyncio.sleep(0)
            os.fstat(probe)  # raises when somebody closed it
            os.close(probe)


async def test_failed_connects_close_once(loop: Any) -> None:
    """Bug class 5 on the error path of create_connection."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
        for _ in range(50):
            with pytest.raises(ConnectionRefusedError):
                await loop.create_connection(Recorder, *address)
            probes = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
            await asyncio.sleep(0)
            for probe in probes:
                os.fstat(probe)
                os.close(probe)


async def test_a_given_socket_is_detached_or_closed_once(loop: Any) -> None:
    """Bug class 5: the Python socket that was handed over never closes a stranger's fd."""
    for _ in range(50):
        left, right = socket.socketpair()
        number = left.fileno()
        transport, protocol = await loop.create_connection(Recorder, sock=left)
        transport.abort()
        await protocol.lost
        await until(lambda s=left: s.fileno() == -1)
        probe = os.open("/dev/null", os.O_RDONLY)
        os.dup2(probe, number) if probe != number else None
        del left, transport, protocol
        await asyncio.sleep(0)
        os.fstat(number)
        os.close(number)
        if probe != number:
            os.close(probe)
        right.close()


async def test_cancelled_connects_close_once(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=256)
    address = server.sockets[0].getsockname()
    for number in range(150):
        task = asyncio.ensure_future(loop.create_connection(Recorder, *address))
        for _ in range(number % 8):
            await asyncio.sleep(0)
        task.cancel()
        probes = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
        await asyncio.wait([task])
        if not task.cancelled():
            transport, protocol = task.result()
            transport.abort()
            await protocol.lost
        await asyncio.sleep(0)
        for probe in probes:
            os.fstat(probe)
            os.close(probe)
    server.close()
    await asyncio.sleep(0.02)


async def test_old_reads_do_not_eat_new_data(loop: Any) -> None:
    """Bug class 4: a read was pending on a number whose socket is closed and replaced."""
    for number in range(200):
        left, right = unix_pair()
        task = asyncio.ensure_future(loop.sock_recv(right, 100))
        await asyncio.sleep(0)
        task.cancel()
        fd = right.fileno()
        right.close()
        left.close()
        await asyncio.wait([task])  # the socket is held until the call has ended
        new_left, new_right = unix_pair()
        assert fd in (new_left.fileno(), new_right.fileno())
        new_left.send(b"%d" % number)
        await asyncio.sleep(0)
        assert await loop.sock_recv(new_right, 100) == b"%d" % number
        new_left.close()
        new_right.close()


async def test_watchers_of_reused_numbers(loop: Any) -> None:
    """Bug class 4 for add_reader: the old callback never runs for the new file."""
    stale: list[int] = []
    for number in range(200):
        left, right = unix_pair()
        loop.add_reader(right, stale.append, number)
        loop.remove_reader(right)
        left.send(b"x")
        left.close()
        right.close()
        left, right = unix_pair()
        future = loop.create_future()
        loop.add_reader(right, lambda f=future: f.done() or f.set_result(None))
        left.send(b"y")
        await future
        loop.remove_reader(right)
        left.close()
        right.close()
    assert stale == []


async def test_accept_storm_with_resets(loop: Any) -> None:
    """Clients that reset before, while and after they are accepted."""
    made = lost = 0

    class Counting(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            nonlocal made
            made += 1

        def connection_lost(self, exc: BaseException | None) -> None:
            nonlocal lost
            lost += 1

    server = await loop.create_server(Counting, "127.0.0.1", 0, backlog=512)
    address = server.sockets[0].getsockname()
    for number in range(300):
        sock = socket.create_connection(address)
        if number % 3 == 0:
            await asyncio.sleep(0)
        (reset if number % 2 else socket.socket.close)(sock)
        if number % 7 == 0:
            await asyncio.sleep(0.001)
    await until(lambda: made == lost and made > 250)
    server.close()
    await asyncio.sleep(0.01)
