"""Processes on the same listening sockets: their seats, and a server that makes room for others."""

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

import netpoll
from netpoll import http
from netpoll._native.server.seats import Seats
from tests.support import SLOWNESS

from .conftest import Serving, read_exactly, wait_for


def echo(conn: netpoll.Connection) -> None:
    conn.forward()


@pytest.fixture
def sharing(serving: Serving) -> Callable[..., netpoll.Server]:
    """Starts a server that shares its sockets: sharing(seats, handler, **options)."""

    def start(seats: Seats, handler: Any = echo, **options: Any) -> netpoll.Server:
        new_server = serving.new_server

        def make(*args: Any, **kwargs: Any) -> netpoll.Server:
            server = new_server(*args, **kwargs)
            server._seats = seats
            return server

        serving.new_server = make  # type: ignore[method-assign]
        return serving(handler, **options)

    return start


def test_seats() -> None:
    seats = Seats(3)
    assert seats.count == 3
    seats.beat(time.monotonic())  # nobody's
    seats.take(2)
    seats.beat(time.monotonic() - 5.0)
    assert 5.0 <= seats.silence_s(2) < 5.0 + 10 * SLOWNESS
    assert seats.silence_s(1) > seats.silence_s(2)
    seats.leave(2)
    for index in (-1, 3):
        for method in (seats.take, seats.leave, seats.silence_s):
            with pytest.raises(IndexError):
                method(index)
    for count in (0, 1 << 20):
        with pytest.raises(ValueError):
            Seats(count)


def test_a_server_on_shared_sockets(sharing: Any, serving: Serving) -> None:
    seats = Seats(2)
    seats.take(0)
    sharing(seats, workers=2)
    clients = [serving.connect() for _ in range(30)]
    for i, client in enumerate(clients):
        client.sendall(b"%03d" % i)
    assert [read_exactly(client, 3) for client in clients] == [b"%03d" % i for i in range(30)]


def test_connections_beyond_the_limit_wait(sharing: Any, serving: Serving) -> None:
    seats = Seats(1)
    seats.take(0)
    server = sharing(seats, limits=netpoll.ServerLimits(connections_max_count=2))
    clients = [serving.connect() for _ in range(6)]
    for client in clients:
        client.sendall(b"x")
    for i, client in enumerate(clients):
        assert client.recv(1) == b"x", i
        client.close()
    assert server.stats()["accept_pauses"] > 0


def test_what_another_process_has_taken(sharing: Any, serving: Serving) -> None:
    """The poll tells both, and one of them finds nobody."""
    seats = Seats(1)
    seats.take(0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sharing(seats, sockets=[listener.dup()])
        listener.settimeout(0.0)
        served = taken = 0
        for _ in range(200):
            client = socket.create_connection(("127.0.0.1", port))
            client.settimeout(20 * SLOWNESS)
            try:
                other, _ = listener.accept()
            except BlockingIOError:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
                served += 1
            else:
                other.close()
                taken += 1
            client.close()
        assert served + taken == 200


def test_a_server_that_drains_accepts_no_more(sharing: Any, serving: Serving) -> None:
    seats = Seats(1)
    seats.take(0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = sharing(seats, sockets=[listener.dup()])
        client = serving.connect()
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        server._drain(time.monotonic() + 10 * SLOWNESS)
        late = socket.create_connection(listener.getsockname())
        serving.clients.append(late)
        assert listener.accept()[0].fileno() >= 0, "the next process has it"
        client.sendall(b"y")
        assert client.recv(1) == b"y", "who is here is served on"
        assert not all(worker.is_empty for worker in server._live_workers())
        client.close()
        wait_for(lambda: all(worker.is_empty for worker in server._live_workers()))


def ask(client: socket.socket) -> bytes:
    client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1000)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = head.partition(b"\r\n\r\n")[2]
    read_exactly(client, length - len(body))
    return head


def test_a_http_connection_goes_with_its_next_answer(backend: str) -> None:
    with http.Server(lambda request: b"hello", "127.0.0.1", 0, backend=backend) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        for client in clients:
            client.settimeout(20 * SLOWNESS)
            assert b"connection: close" not in ask(client)
        server._drain(time.monotonic() + 10 * SLOWNESS)
        time.sleep(0.1)
        for client in clients:
            # Idle as it was, it is there still, and says goodbye before it goes.
            assert b"connection: close" in ask(client)
            assert client.recv(1) == b""
            client.close()
        wait_for(lambda: all(worker.is_empty for worker in server._live_workers()))
