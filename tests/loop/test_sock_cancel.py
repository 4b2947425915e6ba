"""sock_* calls cancelled at every moment: nothing lost, nothing doubled, no fd and no op left.

Bug classes 1, 2, 3 and 4. The leak checks after each test (conftest) are half of each test.
"""

import asyncio
import random
import socket
from typing import Any

import pytest

from ..support import digest, listener, pattern, socket_pair, unix_pair

pytestmark = pytest.mark.control


async def cancelled(task: asyncio.Task[Any]) -> bool:
    """Cancels; True when the task ended cancelled, False when it was quicker."""
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def settled(loop: Any) -> None:
    """Lets whatever is on its way arrive.

    A result that is there while its task was not yet resumed is lost by a cancel in just that
    moment: that is how asyncio's tasks are made. Tests cancel before or after that moment.
    """
    await asyncio.sleep(0.002)


async def test_cancel_recv_keeps_the_data(loop: Any) -> None:
    """The data may arrive before, with or after the cancel: it goes to the next reader."""
    left, right = socket_pair()
    chosen = random.Random(3)
    sent, got = bytearray(), bytearray()
    for number in range(500):
        task = asyncio.ensure_future(loop.sock_recv(right, 1000))
        for _ in range(chosen.randrange(3)):
            await asyncio.sleep(0)
        message = b"<%d>" % number
        if chosen.random() < 0.5:
            left.send(message)
            sent += message
        if chosen.random() < 0.5:
            await settled(loop)
        if not await cancelled(task):
            got += task.result()
    left.close()
    while data := await loop.sock_recv(right, 1000):
        got += data
    assert got == sent
    right.close()


async def test_cancel_recv_into_does_not_write_afterwards(loop: Any) -> None:
    """After the cancel the buffer is the caller's again: nobody writes to it."""
    left, right = socket_pair()
    for _ in range(200):
        buffer = bytearray(100)
        task = asyncio.ensure_future(loop.sock_recv_into(right, buffer))
        await asyncio.sleep(0)
        was_cancelled = await cancelled(task)
        assert was_cancelled
        buffer.clear()  # would raise BufferError if somebody still held it
        left.send(b"later")
        await asyncio.sleep(0)
        assert await loop.sock_recv(right, 100) == b"later"
        assert buffer == b""
    left.close()
    right.close()


async def test_cancel_accept_loses_no_connection(loop: Any) -> None:
    """Bug class 3: success after cancel must not leak an fd, nor swallow a connection."""
    server = listener(512)
    chosen = random.Random(5)
    clients: list[socket.socket] = []
    accepted: list[socket.socket] = []
    for _ in range(200):
        task = asyncio.ensure_future(loop.sock_accept(server))
        for _ in range(chosen.randrange(2)):
            await asyncio.sleep(0)
        if chosen.random() < 0.5:
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            clients.append(client)
        if chosen.random() < 0.5:
            await settled(loop)
        if not await cancelled(task):
            accepted.append(task.result()[0])
    while len(accepted) < len(clients):
        accepted.append((await loop.sock_accept(server))[0])
    assert {s.getpeername() for s in accepted} == {s.getsockname() for s in clients}
    for sock in (server, *clients, *accepted):
        sock.close()


async def test_cancel_sendall_sends_a_prefix(loop: Any) -> None:
    """What arrives is a prefix of the message, and memory is the caller's again."""
    left, right = socket_pair()
    data = bytearray(pattern(8 << 20))
    for _ in range(10):
        task = asyncio.ensure_future(loop.sock_sendall(left, data))
        await asyncio.sleep(0.001)
        assert await cancelled(task)
    data.extend(b"resizable")  # a held buffer would raise BufferError
    del data[-9:]
    left.close()
    got = bytearray()
    while chunk := await loop.sock_recv(right, 1 << 20):
        got += chunk
    right.close()
    position, rounds = 0, 0
    while position < len(got):
        length = 0
        low, high = 1, min(len(data), len(got) - position)
        while low <= high:  # the longest prefix of data that stands at position
            middle = (low + high) // 2
            if got[position : position + middle] == data[:middle]:
                length, low = middle, middle + 1
            else:
                high = middle - 1
        assert length > 0, f"garbage at {position} of {len(got)}"
        position += length
        rounds += 1
    assert rounds <= 10


async def test_cancel_connect(loop: Any) -> None:
    """Bug class 7: connects that are cancelled leave sockets that can be closed."""
    server = listener(512)
    for number in range(100):
        sock = socket.socket()
        sock.setblocking(False)
        task = asyncio.ensure_future(loop.sock_connect(sock, server.getsockname()))
        for _ in range(number % 3):
            await asyncio.sleep(0)
        await cancelled(task)
        assert sock.fileno() >= 0
        sock.close()
    server.close()


async def test_cancel_a_connect_that_hangs(loop: Any) -> None:
    """A listener whose backlog is full never answers."""
    server = listener(0)
    crowd = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(server.getsockname())
        crowd.append(sock)
    await asyncio.sleep(0.01)
    sock = socket.socket()
    sock.setblocking(False)
    task = asyncio.ensure_future(loop.sock_connect(sock, server.getsockname()))
    await asyncio.sleep(0.02)
    assert not task.done()
    assert await cancelled(task)
    for one in (sock, server, *crowd):
        one.close()


async def test_cancel_datagram_calls(loop: Any) -> None:
    left, right = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (left, right):
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    for number in range(100):
        buffer = bytearray(10)
        waiting = (
            loop.sock_recvfrom(right, 100)
            if number % 2
            else loop.sock_recvfrom_into(right, buffer)
        )
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        assert await cancelled(task)
        buffer.clear()
        await loop.sock_sendto(left, b"%d" % number, right.getsockname())
        data, address = await loop.sock_recvfrom(right, 100)
        assert (data, address) == (b"%d" % number, left.getsockname())
    left.close()
    right.close()


async def test_the_task_is_dropped_while_the_kernel_works(loop: Any) -> None:
    """Bug class 1: nobody waits any more, the buffer's last reference goes."""
    for _ in range(200):
        left, right = unix_pair()
        task = asyncio.ensure_future(loop.sock_recv_into(right, bytearray(65536)))
        await asyncio.sleep(0)
        task.cancel()
        del task
        left.send(b"x" * 1000)
        left.close()
        right.close()
        await asyncio.sleep(0)


async def test_close_the_socket_under_a_cancelled_call(loop: Any) -> None:
    """Bug class 4: the number is reused at once; the newcomer's data is its own."""
    for number in range(300):
        left, right = unix_pair()
        task = asyncio.ensure_future(loop.sock_recv(right, 100))
        await asyncio.sleep(0)
        task.cancel()
        right.close()
        left.close()
        left, right = unix_pair()
        left.send(b"%d" % number)
        assert await loop.sock_recv(right, 100) == b"%d" % number
        await asyncio.wait([task])
        assert task.cancelled()
        left.close()
        right.close()


async def test_timeouts_in_a_loop(loop: Any) -> None:
    """The usual program: read with a time-out, over and over, while data trickles in."""
    left, right = socket_pair()
    data = pattern(20_000)

    async def trickle() -> None:
        for start in range(0, len(data), 100):
            await loop.sock_sendall(left, data[start : start + 100])
            await asyncio.sleep(0.0005)
        left.close()

    sending = asyncio.ensure_future(trickle())
    got = bytearray()
    while True:
        try:
            chunk = await asyncio.wait_for(loop.sock_recv(right, 1000), 0.0006)
        except asyncio.TimeoutError:
            continue
        if not chunk:
            break
        got += chunk
    await sending
    # Until 3.12, wait_for could swallow a result that came with the time-out; the rest of the
    # loop is judged by what cancel() above shows.
    assert got == data or len(got) < len(data)
    right.close()


async def test_a_loop_closed_over_pending_calls(loop: Any, loop_factory: Any) -> None:
    """Every kind of call pending, tasks never finished: close() gets everything back."""
    other = loop_factory()
    left, right = unix_pair()
    full_left, full_right = unix_pair()
    server = listener()
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", 0))
    datagram.setblocking(False)

    def run() -> None:
        async def main() -> None:
            calls = [
                other.sock_recv(right, 10),
                other.sock_sendall(full_left, bytes(8 << 20)),
                other.sock_accept(server),
                other.sock_recvfrom(datagram, 10),
            ]
            tasks.extend(asyncio.ensure_future(call) for call in calls)
            await asyncio.sleep(0.01)

        other.run_until_complete(main())
        for task in tasks:
            task.cancel()
        other.run_until_complete(asyncio.wait(tasks))
        other.close()

    tasks: list[asyncio.Task[Any]] = []
    await asyncio.to_thread(run)
    assert all(task.cancelled() for task in tasks)
    for sock in (left, right, full_left, full_right, server, datagram):
        sock.close()
    assert digest(b"") == digest(bytearray())
