"""What a server adds to answers, and what it writes down of them: the access log."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netpoll import http
from tests.http.conftest import HttpServing
from tests.server.conftest import wait_for


def test_headers_of_each_answer(http_serving: HttpServing) -> None:
    http_serving(lambda request: b"x" * 10, headers=[("X-One", "1"), ("x-two", "\u00e9")])
    client = http_serving.client()
    for method in ("GET", "HEAD"):
        answer = client.ask("/", method)
        assert (answer.header("x-one"), answer.header("x-two")) == ("1", "\u00e9")
    for headers in ([("x y", "1")], [("x", "1\r\ny: 2")], [("Content-Length", "1")]):
        with pytest.raises(ValueError, match=r"\w"):
            http.Server(hello, "127.0.0.1", 0, headers=headers).start()


def hello(request: http.Request) -> bytes:
    return b"hello"


def test_what_is_logged(http_serving: HttpServing, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    results: dict[str, Callable[[], Any]] = {
        "/body": lambda: b"12345",
        "/large": lambda: b"x" * 100_000,
        "/parts": lambda: http.Response([b"a", b"bc"], 201),
        "/file": lambda: http.Response(tmp_path / "file"),
        "/fails": lambda: 1 / 0,
    }
    log = io.StringIO()
    server = http_serving(lambda request: results[request.path](), access_log=log)
    client = http_serving.client()
    for path in ("/body", "/large", "/parts", "/file"):
        client.ask(path)
    client.ask("/body", "HEAD")
    client.ask("/body?query", "POST", b"abc")
    wait_for(lambda: log.getvalue().count("\n") == 6)
    client.ask("/fails")
    server.stop()
    lines = [line.partition("] ")[2] for line in log.getvalue().splitlines()]
    assert lines == [
        '"GET /body HTTP/1.1" 200 5',
        '"GET /large HTTP/1.1" 200 100000',
        '"GET /parts HTTP/1.1" 201 3',
        '"GET /file HTTP/1.1" 200 5000',
        '"HEAD /body HTTP/1.1" 200 0',
        '"POST /body?query HTTP/1.1" 200 5',
        '"GET /fails HTTP/1.1" 500 21',
    ]
    assert all(line.startswith("127.0.0.1 - - [") for line in log.getvalue().splitlines())
