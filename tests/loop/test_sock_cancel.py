"""sock_* calls cancelled at every moment: nothing lost, nothing doubled, no fd and no op left.

Bug classes 1, 2, 3 and 4. The leak checks after each test (conftest) are half of each test.
"""

import asyncio
import random
import socket
from typing import Any

import pytest

from ..support import Recorder, digest, listener, pattern, socket_pair, unix_pair, until

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


async def read_through(loop: Any, sock: socket.socket, how: str, size_bytes: int) -> bytes:
    """size_bytes from the socket by another door than sock_recv; they are there, or never come."""
    got = bytearray()
    while len(got) < size_bytes:
        if how == "sock_recv":
            got += await loop.sock_recv(sock, 100)
        elif how == "sock_recv_into":
            buffer = bytearray(100)
            got += buffer[: await loop.sock_recv_into(sock, buffer)]
        elif how == "sock_recvfrom":
            got += (await loop.sock_recvfrom(sock, 100))[0]
        elif how == "socket":
            got += sock.recv(100)
        elif how == "add_reader":
            readable = loop.create_future()
            loop.add_reader(sock, lambda f=readable: f.done() or f.set_result(None))
            await readable
            loop.remove_reader(sock)
            got += sock.recv(100)
    return bytes(got)


@pytest.mark.parametrize(
    "how", ["sock_recv", "sock_recv_into", "sock_recvfrom", "socket", "add_reader"]
)
@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_what_a_cancelled_recv_leaves_is_anybodys(loop: Any, how: str, turns: int) -> None:
    """Bug class 3: data that arrives together with the cancel stays in the socket."""
    left, right = unix_pair()
    left.send(b"warm up")
    await loop.sock_recv(right, 100)
    for number in range(50):
        task = asyncio.ensure_future(loop.sock_recv(right, 100))
        for _ in range(turns):
            await asyncio.sleep(0)
        left.send(b"%d;" % number)
        assert await cancelled(task)
        expected = b"%d;" % number
        got = await asyncio.wait_for(read_through(loop, right, how, len(expected)), 5)
        assert got == expected
    left.close()
    right.close()


async def test_a_transport_gets_what_a_cancelled_recv_left(loop: Any) -> None:
    """Bug class 3: sock_recv with a time-out, then create_connection(sock=...)."""
    for _ in range(20):
        left, right = unix_pair()
        left.send(b"warm up")
        await loop.sock_recv(right, 100)
        task = asyncio.ensure_future(loop.sock_recv(right, 100))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        left.send(b"for the transport")
        assert await cancelled(task)
        transport, protocol = await loop.create_connection(Recorder, sock=right)
        await until(lambda p=protocol: p.data == b"for the transport", 5)
        transport.abort()
        await protocol.lost
        left.close()


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_the_next_recv_starts_before_the_cancelled_one_has_ended(
    loop: Any, turns: int
) -> None:
    """Bug class 2: the first one's bytes may be on their way when the second one begins."""
    left, right = unix_pair()
    left.send(b"warm up")
    await loop.sock_recv(right, 100)
    for number in range(50):
        task = asyncio.ensure_future(loop.sock_recv(right, 100))
        for _ in range(turns):
            await asyncio.sleep(0)
        left.send(b"1")
        task.cancel()
        await asyncio.sleep(0)
        left.send(b"2")
        got = await loop.sock_recv(right, 100)
        if len(got) < 2:
            got += await asyncio.wait_for(loop.sock_recv(right, 100), 5)
        assert got == b"12", number
        await asyncio.wait([task])
    left.close()
    right.close()


async def test_cancelled_receives_keep_the_order(loop: Any) -> None:
    """Bug class 2: cancelled and begun anew while a stream comes in; with random naps."""
    for seed in range(40):
        chosen = random.Random(seed)
        left, right = unix_pair()
        data = pattern(10_000, seed)

        async def trickle(left: Any = left, chosen: Any = chosen, data: bytes = data) -> None:
            for start in range(0, len(data), 100):
                left.send(data[start : start + 100])
                await asyncio.sleep(chosen.choice((0, 0, 0.0002)))
            left.close()

        sending = asyncio.ensure_future(trickle())
        got = bytearray()
        ended = False
        while not ended:
            task = asyncio.ensure_future(loop.sock_recv(right, 1000))
            for _ in range(chosen.randrange(4)):
                await asyncio.sleep(0)
            if task.done() or chosen.random() < 0.3:
                chunk = await task
                got += chunk
                ended = not chunk
            else:
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    got += task.result()
        await sending
        right.close()
        position = 0  # asyncio may lose pieces of 100 (see settled()), none may do more harm
        for start in range(0, len(got), 100):
            position = data.find(got[start : start + 100], position)
            assert position >= 0, f"seed {seed}: out of order from byte {start}"


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
            loop.sock_recvfrom(right, 100) if number % 2 else loop.sock_recvfrom_into(right, buffer)
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
        except TimeoutError:
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
