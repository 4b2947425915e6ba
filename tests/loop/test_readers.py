"""add_reader, add_writer and their removal."""

import asyncio
import contextlib
import os
import socket
from typing import Any

import pytest

from ..support import Recorder, pair, socket_pair, unix_pair, until

pytestmark = pytest.mark.control


async def test_a_reader_is_called_as_long_as_there_is_something(loop: Any) -> None:
    """Level-triggered: what is not read is announced again."""
    left, right = unix_pair()
    seen: list[bytes] = []
    loop.add_reader(right, lambda: seen.append(right.recv(1)))
    left.send(b"abc")
    await until(lambda: len(seen) == 3)
    assert b"".join(seen) == b"abc"
    await asyncio.sleep(0.01)
    assert len(seen) == 3
    assert loop.remove_reader(right)
    assert not loop.remove_reader(right)
    left.send(b"d")
    await asyncio.sleep(0.01)
    assert len(seen) == 3
    left.close()
    right.close()


async def test_a_reader_that_reads_nothing_is_called_again(loop: Any) -> None:
    left, right = unix_pair()
    calls = 0

    def note() -> None:
        nonlocal calls
        calls += 1

    loop.add_reader(right.fileno(), note)
    left.send(b"x")
    await until(lambda: calls >= 5)
    loop.remove_reader(right.fileno())
    left.close()
    right.close()


async def test_a_second_reader_replaces_the_first(loop: Any) -> None:
    left, right = unix_pair()
    seen: list[str] = []
    loop.add_reader(right, lambda: seen.append("first"))
    loop.add_reader(right, lambda: (seen.append("second"), right.recv(10)))
    left.send(b"x")
    await until(lambda: seen)
    await asyncio.sleep(0.01)
    assert seen == ["second"]
    loop.remove_reader(right)
    left.close()
    right.close()


async def test_a_writer_is_called_while_there_is_room(loop: Any) -> None:
    left, right = unix_pair()
    calls = 0

    def note() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            loop.remove_writer(left)

    loop.add_writer(left, note)
    await until(lambda: calls == 5)
    await asyncio.sleep(0.01)
    assert calls == 5
    left.close()
    right.close()


async def test_a_writer_waits_for_room(loop: Any) -> None:
    left, right = unix_pair()
    try:
        while True:
            left.send(b"x" * 65536)
    except BlockingIOError:
        pass
    ready = loop.create_future()
    loop.add_writer(left, lambda: ready.done() or ready.set_result(None))
    await asyncio.sleep(0.01)
    assert not ready.done()
    while not ready.done():
        with contextlib.suppress(BlockingIOError):
            right.recv(1 << 20)
        await asyncio.sleep(0.001)
    loop.remove_writer(left)
    left.close()
    right.close()


async def test_reader_and_writer_on_one_fd(loop: Any) -> None:
    left, right = unix_pair()
    steps: list[str] = []

    def readable() -> None:
        steps.append(f"read {right.recv(10)!r}")
        loop.remove_reader(right)

    def writable() -> None:
        steps.append("write")
        loop.remove_writer(right)

    loop.add_reader(right, readable)
    loop.add_writer(right, writable)
    await until(lambda: "write" in steps)
    assert steps == ["write"]
    left.send(b"x")
    await until(lambda: len(steps) == 2)
    assert steps == ["write", "read b'x'"]
    left.close()
    right.close()


async def test_removal_in_the_same_turn_wins(loop: Any) -> None:
    """Two fds are ready at once; the first callback removes the other's reader."""
    pairs = [unix_pair(), unix_pair()]
    called: list[int] = []

    def first_come(mine: int, other: int) -> None:
        called.append(mine)
        loop.remove_reader(pairs[other][1])
        pairs[mine][1].recv(1)

    for left, _ in pairs:
        left.send(b"x")
    loop.add_reader(pairs[0][1], first_come, 0, 1)
    loop.add_reader(pairs[1][1], first_come, 1, 0)
    await until(lambda: called)
    await asyncio.sleep(0.01)
    assert len(called) == 1
    for left, right in pairs:
        loop.remove_reader(right)
        left.close()
        right.close()


async def test_a_reader_hears_of_hang_up_and_reset(loop: Any) -> None:
    left, right = socket_pair()
    future = loop.create_future()
    loop.add_reader(right, lambda: future.done() or future.set_result(None))
    left.close()
    await future
    assert right.recv(10) == b""
    loop.remove_reader(right)
    right.close()


async def test_a_writer_hears_that_a_connect_was_refused(loop: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(address)
    future = loop.create_future()
    loop.add_writer(sock, lambda: future.done() or future.set_result(None))
    await future
    loop.remove_writer(sock)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
    sock.close()


async def test_pipes_and_eventfds(loop: Any) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    future = loop.create_future()
    loop.add_reader(read_end, lambda: future.done() or future.set_result(os.read(read_end, 10)))
    os.write(write_end, b"pipe")
    assert await future == b"pipe"
    loop.remove_reader(read_end)
    os.close(read_end)
    os.close(write_end)


async def test_the_same_number_again_is_another_file(loop: Any) -> None:
    """Bug class 4: a reader removed, its fd closed and reused at once, 300 times."""
    for number in range(300):
        left, right = unix_pair()
        future = loop.create_future()
        loop.add_reader(right, future.set_result, number)
        if number % 3 == 0:
            left.send(b"x")
        if number % 3 == 1:
            left.send(b"x")
            assert await future == number
        loop.remove_reader(right)
        left.close()
        right.close()
    left, right = unix_pair()
    calls: list[int] = []
    loop.add_reader(right, calls.append, 1)
    await asyncio.sleep(0.01)
    assert calls == []
    loop.remove_reader(right)
    left.close()
    right.close()


async def test_wrong_files(loop: Any) -> None:
    for add in (loop.add_reader, loop.add_writer):
        with pytest.raises(ValueError):
            add("not a file", print)
        with pytest.raises(ValueError):
            add(-1, print)
    assert loop.remove_reader(987) is False
    assert loop.remove_writer(987) is False
    with pytest.raises(OSError):
        loop.add_reader(987, print)


async def test_a_regular_file_is_refused(loop: Any, tmp_path: Any) -> None:
    with open(tmp_path / "file", "wb") as file, pytest.raises(PermissionError):
        loop.add_reader(file, print)


async def test_transports_keep_their_fd_to_themselves(loop: Any) -> None:
    """Bug class 5: add_reader and friends refuse the fd of a transport."""
    client, served = await pair(loop)
    fd = client.transport.get_extra_info("socket").fileno()
    for use in (loop.add_reader, loop.add_writer):
        with pytest.raises(RuntimeError, match="is used by transport"):
            use(fd, print)
    for remove in (loop.remove_reader, loop.remove_writer):
        with pytest.raises(RuntimeError, match="is used by transport"):
            remove(fd)
    client.transport.write(b"still mine")
    await until(lambda: served.data == b"still mine")
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)


async def test_a_callback_that_raises_is_reported_and_stays(
    loop: Any, errors: list[dict[str, Any]]
) -> None:
    left, right = unix_pair()

    def broken() -> None:
        right.recv(1)
        raise ZeroDivisionError

    loop.add_reader(right, broken)
    left.send(b"ab")
    await until(lambda: len(errors) == 2)
    errors.clear()
    loop.remove_reader(right)
    left.close()
    right.close()


def test_readers_left_at_close(loop: Any) -> None:
    """Their callbacks are dropped, their files stay open: they are the user's."""
    left, right = unix_pair()
    loop.add_reader(right, print)
    loop.add_writer(right, print)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    left.send(b"x")
    assert right.recv(1) == b"x"
    left.close()
    right.close()


async def test_closed_loop_refuses(loop_factory: Any, loop: Any) -> None:
    other = loop_factory()
    other.close()
    left, right = unix_pair()
    with pytest.raises(RuntimeError, match="closed"):
        other.add_reader(right, print)
    with pytest.raises(RuntimeError, match="closed"):
        other.add_writer(right, print)
    left.close()
    right.close()


async def test_a_thousand_readers(loop: Any) -> None:
    pairs = [unix_pair() for _ in range(500)]
    seen: list[int] = []

    def note(number: int) -> None:
        pairs[number][1].recv(1)
        seen.append(number)

    for number, (_, right) in enumerate(pairs):
        loop.add_reader(right, note, number)
    for left, _ in pairs:
        left.send(b"x")
    await until(lambda: len(seen) == 500)
    assert sorted(seen) == list(range(500))
    for left, right in pairs:
        loop.remove_reader(right)
        left.close()
        right.close()


async def test_recorder_is_not_disturbed_by_other_readers(loop: Any) -> None:
    left, right = unix_pair()
    loop.add_reader(right, lambda: right.recv(100))
    client, served = await pair(loop, Recorder, Recorder)
    for _ in range(50):
        left.send(b"x")
        client.transport.write(b"y")
        await asyncio.sleep(0)
    await until(lambda: len(served.data) == 50)
    loop.remove_reader(right)
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)
    left.close()
    right.close()
