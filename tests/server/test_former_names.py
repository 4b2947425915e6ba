"""Programs that use the names of before 0.1 go on, and are told: netpoll._former."""

import warnings
from typing import Any

import pytest

import netpoll
from netpoll import http

from .conftest import Serving


def test_a_server_of_before(backend: str, serving: Serving) -> None:
    """As programs wrote it: limits as arguments, read(), stop()."""
    made: Any = netpoll.Server
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        server = made(
            lambda conn: conn.write(conn.read()[::-1]),
            "127.0.0.1",
            0,
            backend=backend,
            max_connections=5,
            max_retained_bytes=10_000,
        )
        server.start()
        serving.servers.append(server)
        client = serving.connect()
        client.sendall(b"abc")
        assert client.recv(10) == b"cba"
        client.close()
        server.stop(1)
    texts = [str(one.message) for one in said if one.category is DeprecationWarning]
    now = "limits=ServerLimits(connections_max_count=..., retained_max_bytes=...)"
    assert texts == [
        f"limits of a server are given as {now}",
        "Connection.read() is take() now",
        "Server.stop() is close() now",
    ]


def test_a_server_of_http_takes_them_too(backend: str) -> None:
    made: Any = http.Server
    with pytest.warns(
        DeprecationWarning, match=r"HttpLimits\(connections_max_count=\.\.\., "
    ) as said:
        server = made(lambda request: b"", "127.0.0.1", 0, max_connections=5, backlog=7)
    assert said[0].filename == __file__
    assert server._limits.connections_max_count == 5
    assert server._limits.backlog_max_count == 7
    for wrong in ({"when_full": "close"}, {"colour": "red"}):
        with pytest.raises(TypeError, match="got an unexpected keyword argument"):
            made(lambda request: b"", "127.0.0.1", 0, **wrong)
    with pytest.raises(TypeError, match="its limits in one place"):
        made(lambda request: b"", "127.0.0.1", 0, limits=http.HttpLimits(), backlog=7)


def test_what_reading_was_called(serving: Serving) -> None:
    seen = []

    def handler(conn: Any) -> None:
        with conn.peek(2) as lease, conn.next(1) as first:
            seen.append((bytes(lease), bytes(first)))
        with conn.until(b",") as lease:
            seen.append(bytes(lease))
        seen.append(conn.readline())
        conn.write(b"done")

    with pytest.warns(DeprecationWarning):
        serving(handler)
        client = serving.connect()
        client.sendall(b"abc,line\n")
        assert client.recv(10) == b"done"
    assert seen == [(b"ab", b"a"), b"bc,", b"line\n"]


async def test_a_server_inside_a_loop(loop: Any) -> None:
    server: Any = netpoll.Server(lambda conn: None, "127.0.0.1", 0).start()
    with pytest.warns(DeprecationWarning, match="astop"):
        await server.astop(0)


def test_a_scheduler() -> None:
    scheduler: Any = netpoll.Scheduler(workers=1)
    with pytest.warns(DeprecationWarning, match="shutdown"):
        scheduler.shutdown()


def test_names_that_never_were() -> None:
    made: Any = netpoll.Server
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_connexions'"):
        made(print, "127.0.0.1", 0, max_connexions=5)
    with pytest.raises(TypeError, match="in one place"):
        made(print, "127.0.0.1", 0, limits=netpoll.ServerLimits(), backlog=5)
    with pytest.raises(AttributeError, match="'Server' object has no attribute 'halt'"):
        made(print, "127.0.0.1", 0).halt()
