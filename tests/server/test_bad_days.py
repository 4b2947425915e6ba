"""Slow readers, slowloris, resets, too many of everything, stopping under load."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import threading
import time

import pytest

import netpoll
from netpoll import LoopConfig
from tests.support import SLOWNESS, pattern, reset

from .conftest import Serving, read_exactly, wait_for


def echo(conn: netpoll.Connection) -> None:
    conn.forward(conn.lease())


def test_a_peer_that_does_not_read_is_not_read_from(serving: Serving) -> None:
    server = serving(echo, limits=netpoll.ServerLimits(pending_max_bytes=256 << 10))
    client = serving.connect()
    data = pattern(64 << 20)
    sent = threading.Event()
    sender = threading.Thread(target=lambda: (client.sendall(data), sent.set()))
    sender.start()
    assert not sent.wait(0.3), "the server took 64 MiB that nobody reads"
    other = serving.connect()
    other.sendall(b"still served")
    assert read_exactly(other, 12) == b"still served"
    assert read_exactly(client, len(data)) == data
    sender.join()
    assert server.stats()["connections"] == 2


@pytest.mark.parametrize("when_full", ["close", "raise"])
def test_writing_on_to_a_peer_that_does_not_read(serving: Serving, when_full: str) -> None:
    caught: list[BufferError] = []
    closed: list[BaseException | None] = []
    chunk = bytes(1 << 20)

    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        try:
            for _ in range(100):
                conn.write(chunk)
        except BufferError as error:
            caught.append(error)

    server = serving(
        on_data,
        limits=netpoll.ServerLimits(pending_max_bytes=1 << 20, when_full=when_full),
        on_close=lambda conn, error: closed.append(error),
    )
    client = serving.connect()
    client.sendall(b"x")
    wait_for(lambda: caught)
    assert "does not read" in str(caught[0])
    if when_full == "close":
        wait_for(lambda: closed)
        assert isinstance(closed[0], BufferError)
        assert server.stats()["full_closed"] == 1
    else:
        assert server.stats()["connections"] == 1


def test_no_progress_ends_a_connection(serving: Serving) -> None:
    closed: list[BaseException | None] = []

    def on_data(conn: netpoll.Connection) -> None:  # a request ends with a newline
        if (line := conn.take_line()) is not None:
            conn.write(line)

    server = serving(
        on_data,
        limits=netpoll.ServerLimits(idle_timeout_s=0.4 * SLOWNESS),
        on_close=lambda conn, error: closed.append(error),
    )
    silent, slowloris, busy = (serving.connect() for _ in range(3))
    deadline_s = time.monotonic() + 1.2 * SLOWNESS
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError):
            slowloris.sendall(b"x")
        busy.sendall(b"ping\n")
        assert read_exactly(busy, 5) == b"ping\n"
        time.sleep(0.05)
    assert silent.recv(1) == b""
    assert [type(error) for error in closed] == [TimeoutError, TimeoutError]
    assert server.stats()["idle_closed"] == 2
    assert server.stats()["connections"] == 1


def test_resets_in_the_middle_of_sending(serving: Serving) -> None:
    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        conn.write(bytes(4 << 20))

    server = serving(on_data)
    for _ in range(20):
        client = serving.connect()
        client.sendall(b"x")
        client.recv(1000)
        reset(client)
    wait_for(lambda: not server.stats()["connections"])
    assert server.stats()["flows"] == 0


def test_a_handler_that_fails_loses_its_connection_only(serving: Serving) -> None:
    closed: list[BaseException | None] = []

    def on_data(conn: netpoll.Connection) -> None:
        if conn.take() == b"bad":
            raise ZeroDivisionError("on purpose")
        conn.write(b"good")

    serving(on_data, on_close=lambda conn, error: closed.append(error))
    good, bad = serving.connect(), serving.connect()
    bad.sendall(b"bad")
    wait_for(lambda: closed)
    good.sendall(b"good")
    assert read_exactly(good, 4) == b"good"
    assert isinstance(closed[0], ZeroDivisionError)
    assert [type(c["exception"]) for c in serving.errors] == [ZeroDivisionError]
    serving.errors.clear()


def test_hooks_that_fail(serving: Serving) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError("on purpose")

    server = serving(echo, on_connect=fail, on_close=fail)
    client = serving.connect()
    assert client.recv(1) == b""
    wait_for(lambda: len(serving.errors) == 2)
    serving.errors.clear()
    wait_for(lambda: not server.stats()["connections"])


def test_too_much_left_unread(serving: Serving) -> None:
    closed: list[BaseException | None] = []
    serving(
        lambda conn: None,
        limits=netpoll.ServerLimits(unread_max_bytes=10_000),
        on_close=lambda conn, error: closed.append(error),
    )
    client = serving.connect()
    client.sendall(bytes(100_000))
    wait_for(lambda: closed)
    assert isinstance(closed[0], BufferError)


def test_a_thousand_connects_at_once(serving: Serving) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(1000, (hard - 100) // 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * count + 100), hard))
    try:
        server = serving(echo)
        clients = []
        for _ in range(count):
            client = socket.socket()
            client.setblocking(False)
            assert client.connect_ex(("127.0.0.1", server.port)) in (0, errno.EINPROGRESS)
            clients.append(client)
        wait_for(lambda: server.stats()["connections"] == count)
        for client in clients:
            client.setblocking(True)
            client.sendall(b"x")
        for client in clients:
            assert client.recv(1) == b"x"
            client.close()
        wait_for(lambda: server.stats()["connections"] == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_out_of_descriptors(serving: Serving) -> None:
    server = serving(echo)
    first = serving.connect()
    first.sendall(b"x")
    assert first.recv(1) == b"x"
    clients = [socket.socket() for _ in range(4)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        for client in clients:
            client.settimeout(20)
            client.connect(("127.0.0.1", server.port))  # the backlog takes it
        wait_for(lambda: server.stats()["accept_pauses"])
        first.sendall(b"y")
        assert first.recv(1) == b"y"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    first.close()  # its end lets accepting go on at once
    for client in clients:
        client.sendall(b"z")
        assert client.recv(1) == b"z"
        client.close()
    assert len(serving.errors) == 1, "told once"
    serving.errors.clear()


def test_the_number_of_connections_is_limited(serving: Serving) -> None:
    most: list[int] = []

    def on_data(conn: netpoll.Connection) -> None:
        most.append(server.stats()["connections"])
        conn.forward()

    server = serving(on_data, limits=netpoll.ServerLimits(connections_max_count=3))
    clients = [serving.connect() for _ in range(10)]
    for client in clients:
        client.sendall(b"x")
    for client in clients:
        assert client.recv(1) == b"x"
        client.close()
    assert max(most) <= 3
    assert server.stats()["accept_pauses"] >= 1


@pytest.mark.parametrize("buf_count", [1, 2, 8])
def test_few_small_buffers(serving: Serving, buf_count: int) -> None:
    def lines(conn: netpoll.Connection) -> None:
        while (lease := conn.lease_until(b"\n")) is not None:
            conn.forward(lease)

    serving(lines, config=LoopConfig(buf_count=buf_count, buf_bytes=4096))
    clients = [serving.connect() for _ in range(12)]
    lengths = [n * 37 % 900 for n in range(12)]
    data = [b"".join(b"%06d %s\n" % (k, b"x" * n) for k in range(200)) for n in lengths]
    senders = [
        threading.Thread(target=client.sendall, args=(part,))
        for client, part in zip(clients, data, strict=True)
    ]
    for sender in senders:
        sender.start()
    for client, part in zip(clients, data, strict=True):
        assert read_exactly(client, len(part)) == part
    for sender in senders:
        sender.join()


def test_pool_exhausted_is_an_error_of_reserve(serving: Serving) -> None:
    seen: list[str] = []

    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        kept = []
        try:
            while True:
                kept.append(conn.reserve(4096))
        except netpoll.PoolExhaustedError as error:
            seen.append(str(error))
        kept[0].write(b"one")
        conn.write(kept[0])
        for buffer in kept[1:]:
            buffer.release()

    buffers = netpoll.BufferConfig(size_bytes=16384, classes=(4096,), hugepages="off")
    serving(on_data, buffers=buffers)
    client = serving.connect()
    for _ in range(3):
        client.sendall(b"x")
        assert read_exactly(client, 3) == b"one"
    assert len(seen) == 3


def test_stop_lets_handlers_finish(serving: Serving) -> None:
    begun = threading.Event()

    async def session(conn: netpoll.Connection) -> None:
        await conn.fill()
        begun.set()
        await asyncio.sleep(0.2)
        conn.write(b"finished")

    server = serving(session)
    client = serving.connect()
    client.sendall(b"x")
    assert begun.wait(10)
    server.close(5)
    assert read_exactly(client, 100) == b"finished"
    assert server.stats()["connections"] == 0
    with pytest.raises(RuntimeError):
        server.start()


def test_stop_aborts_what_does_not_finish(serving: Serving) -> None:
    closed: list[BaseException | None] = []

    async def session(conn: netpoll.Connection) -> None:
        while True:
            await conn.fill(1 << 19)

    server = serving(session, on_close=lambda conn, error: closed.append(error))
    serving.connect()
    wait_for(lambda: server.stats()["sessions"])
    before_s = time.monotonic()
    server.close(0.1)
    assert time.monotonic() - before_s < 5 * SLOWNESS
    assert len(closed) == 1


def test_stop_under_load(serving: Serving) -> None:
    server = serving(echo, workers=2)
    stop = threading.Event()

    def load() -> None:
        try:
            client = socket.create_connection(("127.0.0.1", server.port))
            with client:
                client.settimeout(10)
                while not stop.is_set():
                    client.sendall(bytes(10_000))
                    if not read_exactly(client, 10_000):
                        return
        except OSError:
            pass

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: server.stats()["recv_bytes"] > 1 << 20)
    server.close(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert server.stats()["connections"] == 0


def test_who_leaves_bytes_unread_does_not_starve_the_others(serving: Serving) -> None:
    def on_data(conn: netpoll.Connection) -> None:
        with conn.peek_lease(1) as first:
            is_kept = bytes(first) == b"k"
        if not is_kept and conn.take().endswith(b"!"):
            conn.write(b"heard")

    server = serving(on_data, config=LoopConfig(buf_count=1, buf_bytes=4096))
    keeper, other = serving.connect(), serving.connect(5)
    keeper.sendall(b"k" * 2000)
    wait_for(lambda: server.stats()["recv_bytes"] == 2000)
    other.sendall(b"o" * 2096)  # the rest of the only buffer, and nothing to answer
    wait_for(lambda: server.stats()["recv_bytes"] == 4096)
    other.sendall(b"!")
    assert read_exactly(other, 5) == b"heard"
