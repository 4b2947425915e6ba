"""Who the client is when a proxy says so: X-Forwarded-For and -Proto, from whom they count."""

import http.client
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from netpoll import http as netpoll_http
from netpoll._native.server.networks import Networks
from tests.support import SLOWNESS

OURS = "127.0.0.0/8,10.0.0.0/8,2001:db8::/32"


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    seen = repr((scope["client"], scope["scheme"])).encode()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": seen})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    client = (environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"] or -1))
    return [repr((client, environ["wsgi.url_scheme"])).encode()]


def raw(request: netpoll_http.Request) -> bytes:
    return repr(request.client).encode()


def ask(port: int, fields: Iterable[tuple[str, str]]) -> Any:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20 * SLOWNESS)
    try:
        client.putrequest("GET", "/")
        for name, value in fields:
            client.putheader(name, value)
        client.endheaders()
        return eval(client.getresponse().read())
    finally:
        client.close()


def said(value: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-For", value)]


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        (said("1.2.3.4"), ("1.2.3.4", 0)),
        (said("6.6.6.6, 1.2.3.4, 10.0.0.7"), ("1.2.3.4", 0)),
        (said("1.2.3.4:81, 10.0.0.7"), ("1.2.3.4", 81)),
        (said("[2001:db9::1]:82, 2001:db8::5"), ("2001:db9::1", 82)),
        (said("2001:DB9:0::1"), ("2001:db9::1", 0)),
        (said("10.0.0.9, 10.0.0.7"), ("10.0.0.9", 0)),
        (said("6.6.6.6, unknown, 10.0.0.7"), ("unknown", 0)),
        (said("6.6.6.6") + said("1.2.3.4, 10.0.0.7"), ("1.2.3.4", 0)),
        (said("1.2.3.4") + said("10.0.0.1"), ("1.2.3.4", 0)),
        (said("10.0.0.2") + said("10.0.0.1"), ("10.0.0.2", 0)),
    ],
)
def test_the_client(backend: str, fields: list[tuple[str, str]], client: tuple[str, int]) -> None:
    for app in (asgi, wsgi, raw):
        with netpoll_http.Server(
            app, "127.0.0.1", 0, backend=backend, forwarded_from=OURS
        ) as server:
            found = ask(server.port, fields)
            assert (found if app is raw else found[0]) == client


@pytest.mark.parametrize("fields", [[], said(""), said(" , "), [("Forwarded", "for=1.2.3.4")]])
def test_nobody_says_it(backend: str, fields: list[tuple[str, str]]) -> None:
    with netpoll_http.Server(asgi, "127.0.0.1", 0, backend=backend, forwarded_from=OURS) as server:
        client, scheme = ask(server.port, fields)
        assert client[0] == "127.0.0.1" and client[1] > 0 and scheme == "http"


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("https", "https"), ("HTTPS ", "https"), ("wss", "https"), ("http", "http"), ("x", "http")],
)
def test_the_scheme(backend: str, value: str, scheme: str) -> None:
    for app in (asgi, wsgi):
        with netpoll_http.Server(
            app, "127.0.0.1", 0, backend=backend, forwarded_from="*"
        ) as server:
            assert ask(server.port, [("X-Forwarded-Proto", value)])[1] == scheme


def test_the_access_log_has_the_client(backend: str) -> None:
    log = io.StringIO()
    with netpoll_http.Server(
        asgi, "127.0.0.1", 0, backend=backend, forwarded_from="*", access_log=log
    ) as server:
        ask(server.port, said("1.2.3.4"))
    assert log.getvalue().startswith("1.2.3.4 - - [")


@pytest.mark.parametrize("forwarded_from", [None, "", "10.0.0.0/8", "127.0.0.2,::1"])
def test_whose_word_does_not_count(backend: str, forwarded_from: str | None) -> None:
    with netpoll_http.Server(
        asgi, "127.0.0.1", 0, backend=backend, forwarded_from=forwarded_from
    ) as server:
        client, scheme = ask(server.port, [*said("1.2.3.4"), ("X-Forwarded-Proto", "https")])
        assert client[0] == "127.0.0.1" and scheme == "http"


def test_the_peer_of_a_unix_socket_is_trusted(tmp_path: Path, backend: str) -> None:
    import socket

    path = str(tmp_path / "sock")
    with netpoll_http.Server(asgi, unix=path, backend=backend, forwarded_from="10.0.0.1"):
        client = http.client.HTTPConnection("test")
        client.sock = socket.socket(socket.AF_UNIX)
        client.sock.connect(path)
        client.request("GET", "/", headers={"X-Forwarded-For": "1.2.3.4"})
        assert eval(client.getresponse().read())[0] == ("1.2.3.4", 0)
        client.close()


def test_networks() -> None:
    for words in ("10.0.0.1/8", "words", "1.2.3.4/33", "1.2.3.4 5.6.7.8"):
        with pytest.raises(ValueError):
            Networks(words)
    Networks(" 10.0.0.0/8, ::1,* ,")
