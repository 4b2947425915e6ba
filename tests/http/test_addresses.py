"""Who talks with whom: `scope["client"]`, `scope["server"]` and `request.client`."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netpoll import http

from .conftest import Client, HttpServing

# More than a worker has words for at a time (ADDRESSES_KNOWN_MAX_COUNT).
HOSTS_COUNT = 1100


class Asked:
    """An ASGI application that keeps what it was told."""

    def __init__(self) -> None:
        self.ends: list[tuple[Any, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.ends.append((scope["client"], scope["server"]))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ok"})


def connected(family: int, name: Any, source: Any = None) -> Client:
    sock = socket.socket(family)
    sock.settimeout(20)
    if source is not None:
        sock.bind(source)
    sock.connect(name)
    return Client(sock)


def test_connections_that_share_a_place(http_serving: HttpServing) -> None:
    """One after another: each has its own port."""
    app = Asked()
    server = http_serving(app, lifespan="off")
    names = []
    for _ in range(5):
        client = connected(socket.AF_INET, ("127.0.0.1", server.port))
        names.append(client.sock.getsockname())
        client.ask()
        client.ask()
        client.close()
    assert app.ends == [(name, ("127.0.0.1", server.port)) for name in names for _ in range(2)]


def test_more_hosts_than_are_remembered(http_serving: HttpServing) -> None:
    app = Asked()
    server = http_serving(app, lifespan="off")
    names = []
    for number in range(HOSTS_COUNT):
        source = (f"127.1.{number >> 8}.{number & 255}", 0)
        client = connected(socket.AF_INET, ("127.0.0.1", server.port), source)
        names.append(client.sock.getsockname())
        client.ask()
        client.close()
    assert [client for client, _ in app.ends] == names
    assert {end for _, end in app.ends} == {("127.0.0.1", server.port)}


def test_ipv6(http_serving: HttpServing) -> None:
    app = Asked()
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"IPv6: {error}")
    with listener:
        http_serving(app, sockets=[listener], lifespan="off")
        client = connected(socket.AF_INET6, listener.getsockname())
        client.ask()
        name = client.sock.getsockname()
        assert app.ends == [(name[:2], listener.getsockname()[:2])]
        client.close()


@pytest.mark.parametrize("make_name", [str, lambda path: b"\0" + bytes(path)], ids=["path", "name"])
def test_unix(http_serving: HttpServing, tmp_path: Path, make_name: Callable[[Path], Any]) -> None:
    app = Asked()
    name = make_name(tmp_path / "socket")
    http_serving(app, unix=name, lifespan="off")
    client = connected(socket.AF_UNIX, name)
    client.ask()
    assert app.ends == [(None, (name, None))]
    client.close()


def test_a_handler_sees_its_client(http_serving: HttpServing) -> None:
    """As long as its request is not answered."""
    requests: list[http.Request] = []
    seen = []

    def handler(request: http.Request) -> bytes:
        requests.append(request)
        seen.append([one.client for one in requests])
        return b"ok"

    http_serving(handler)
    client = http_serving.client()
    client.ask()
    client.ask()
    name = client.sock.getsockname()
    client.close()
    assert seen == [[name], [None, name]]


def test_a_path_that_is_not_utf8(http_serving: HttpServing) -> None:
    """Both kinds of application see the same."""
    http_serving(lambda request: request.path)
    client = http_serving.client()
    assert client.ask("/a%FFb%C3%A4%2").body == "/a\ufffdb\u00e4%2".encode()
    client.close()
