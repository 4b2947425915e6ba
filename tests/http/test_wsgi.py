"""WSGI applications: PEP 3333."""

import gzip
import io
import itertools
import os
import pathlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from netpoll import http
from tests.http.conftest import Client, HttpServing
from tests.http.wsgi_apps import TEXT, Environ, Result, echo, hello
from tests.server.conftest import wait_for, wait_until_still


def test_it_is_chosen_by_its_two_arguments() -> None:
    class App:
        def __call__(self, environ: Environ, start_response: Any) -> list[bytes]:
            return hello(environ, start_response)

    async def asgi(scope: Any, receive: Any, send: Any) -> None: ...

    def with_default(request: Any, more: int = 0) -> None: ...

    assert http.interface_of(hello) == http.interface_of(App()) == "wsgi"
    assert http.interface_of(validator(hello)) == "wsgi"
    assert http.interface_of(asgi) == "asgi"
    assert http.interface_of(with_default) == http.interface_of(lambda request: None) == "raw"


def test_the_environ(http_serving: HttpServing, threads: int) -> None:
    seen: list[Environ] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        seen.append(environ)
        return hello(environ, start_response)

    server = http_serving(app, threads=threads, root_path="/app/")
    client = http_serving.client()
    client.send(
        b"POST /app/p%C3%A4th/%2f?q=%20 HTTP/1.1\r\nhost: test\r\nX-Two: 1\r\nx-two: 2\r\n"
        b"X_Two: bad\r\ncookie: a=1\r\ncookie: b=2\r\ncontent-type: a/b\r\n"
        b"content-length: 2\r\n\r\nok"
    )
    client.answer()
    client.send(b"OPTIONS /other HTTP/1.0\r\n\r\n")
    client.answer()
    environ, other = seen
    assert type(environ) is dict
    wanted = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/p\u00e4th//".encode().decode("latin-1"),
        "QUERY_STRING": "q=%20",
        "REQUEST_URI": "/app/p%C3%A4th/%2f?q=%20",
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "2",
        "HTTP_HOST": "test",
        "HTTP_X_TWO": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(client.sock.getsockname()[1]),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": threads > 1,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    assert {name: environ.get(name) for name in wanted} == wanted
    assert "HTTP_CONTENT_LENGTH" not in environ
    assert (other["PATH_INFO"], other["SERVER_PROTOCOL"]) == ("/other", "HTTP/1.0")
    assert "HTTP_COOKIE" not in other and "CONTENT_LENGTH" not in other


@pytest.mark.filterwarnings("error")
def test_the_validator_has_nothing_to_say(http_serving: HttpServing, threads: int) -> None:
    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        source = environ["wsgi.input"]
        start_response("200 OK", TEXT)
        body = source.readline(4) + source.read(3) + b"".join(source.readlines(10))
        return iter([body, *source])

    http_serving(validator(app), threads=threads)
    client = http_serving.client()
    body = b"one\ntwo\nthree\nfour\nfive"
    assert client.ask("/", "POST", body).body == body
    assert client.ask().body == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_any_size(http_serving: HttpServing, threads: int, chunked: bool) -> None:
    http_serving(echo, threads=threads)
    client = http_serving.client()
    for size in (0, 1, 100_000, 3_000_000):
        body = os.urandom(size)
        if chunked:
            half = size // 2
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            for piece in pieces:
                client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")
            assert client.answer().body == body
        else:
            assert client.ask("/", "POST", body).body == body


def test_the_ways_to_read_a_body(http_serving: HttpServing, threads: int) -> None:
    body = b"first\n\nthird is longer\nno end"

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        source, twin = environ["wsgi.input"], io.BytesIO(body)
        for name, args in (
            *(("read", (0,)), ("readline", (3,)), ("readline", ()), ("readline", (0,))),
            *(("read", (1,)), ("readline", (100,)), ("read", (2,)), ("readlines", (1,))),
            *(("read", (None,)), ("read", ()), ("readline", ()), ("readlines", ())),
        ):
            got, wanted = getattr(source, name)(*args), getattr(twin, name)(*args)
            assert got == wanted, (name, args, got, wanted)
        return hello(environ, start_response)

    http_serving(app, threads=threads)
    client = http_serving.client()
    assert client.ask("/", "POST", body).status == 200
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
    for i in range(len(body)):
        client.send(body[i : i + 1])
        time.sleep(0.001)
    assert client.answer().status == 200


def test_a_body_is_streamed_and_asked_for(http_serving: HttpServing) -> None:
    def app(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield from environ["wsgi.input"]

    http_serving(app)
    client = http_serving.client()
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 8\r\n\r\n")
    assert client.answer().status == 100
    client.send(b"one\n")
    head = b"".join(iter(client.file.readline, b"\r\n"))
    assert b"transfer-encoding: chunked" in head
    assert client.file.readline() == b"4\r\n"
    assert client.file.read(6) == b"one\n\r\n"
    client.send(b"two\n")
    assert client.file.read(14) == b"4\r\ntwo\n\r\n0\r\n\r\n"
    assert client.ask("/", "POST", b"again").body == b"again"


def test_a_body_that_ends_early(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    errors: list[BaseException] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        try:
            return echo(environ, start_response)
        except OSError as exc:
            errors.append(exc)
            raise

    http_serving(app)
    client = http_serving.client()
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\nabc")
    client.sock.shutdown(socket.SHUT_WR)
    client.rest()
    wait_for(lambda: errors)
    assert isinstance(errors[0], ConnectionResetError)
    assert errors_logged.records == []


def test_a_client_that_resets_within_its_body(http_serving: HttpServing, threads: int) -> None:
    errors: list[BaseException] = []
    called: list[bool] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        called.append(True)
        try:
            return echo(environ, start_response)
        except OSError as exc:
            errors.append(exc)
            raise

    http_serving(app, threads=threads)
    client = http_serving.client()
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\nabc")
    if threads:
        wait_for(lambda: called)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    if threads:
        wait_for(lambda: errors)
        assert isinstance(errors[0], ConnectionResetError)
    assert http_serving.client().ask("/", "POST", b"next").body == b"next"
    assert len(called) == (2 if threads else 1)  # inline it is called with the whole body


def test_a_body_that_nobody_reads_is_not_read_ahead(http_serving: HttpServing) -> None:
    gate = threading.Event()

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        gate.wait(20)
        start_response("200 OK", TEXT)
        return [b"%d" % len(environ["wsgi.input"].read())]

    server = http_serving(app)
    client = http_serving.client()
    body = b"x" * 50_000_000
    sender = threading.Thread(target=client.send, args=(body,))
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
    sender.start()
    assert 0 < wait_until_still(lambda: server.stats()["recv_bytes"]) < 20_000_000
    gate.set()
    assert client.answer().body == b"50000000"
    sender.join()


def test_a_body_that_is_too_large(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture, threads: int
) -> None:
    results: list[Any] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        try:
            results.append(environ["wsgi.input"].read())
        except OSError as exc:
            results.append(exc)
            raise
        return hello(environ, start_response)

    server = http_serving(app, threads=threads, limits=http.HttpLimits(body_max_bytes=10))
    client = http_serving.client()
    first = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n"
    client.send(first)
    wait_for(lambda: server.stats()["recv_bytes"] == len(first))
    client.send(b"8\r\n12345678\r\n0\r\n\r\n")
    assert client.answer().status == 413
    if threads:
        wait_for(lambda: results)
        assert isinstance(results[0], ConnectionResetError)
    assert errors_logged.records == []


def test_where_a_request_goes(http_serving: HttpServing, threads: int) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)
        names = ("PATH_INFO", "SCRIPT_NAME", "QUERY_STRING", "HTTP_HOST")
        return [repr([environ[name] for name in names]).encode()]

    http_serving(app, threads=threads, root_path="/app")
    client = http_serving.client()
    for target, wanted in {
        "/": ["/", "/app", "", "test"],
        "/app": ["", "/app", "", "test"],
        "/app/?": ["/", "/app", "", "test"],
        "/application": ["/application", "/app", "", "test"],
        "http://test/app/x?y=1?2": ["/x", "/app", "y=1?2", "test"],
        "//two//slashes": ["//two//slashes", "/app", "", "test"],
    }.items():
        assert client.ask(target).body.decode() == repr(wanted), target
    assert client.ask("*", "OPTIONS").body.decode() == repr(["*", "/app", "", "test"])


def test_a_unix_socket_has_names_too(http_serving: HttpServing, tmp_path: pathlib.Path) -> None:
    seen: list[Environ] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        seen.append(environ)
        return hello(environ, start_response)

    path = str(tmp_path / "socket")
    with http.Server(validator(app), unix=path, backend=http_serving.backend):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        client = Client(sock)
        assert client.ask().body == b"hello"
        client.close()
    names = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT")
    assert [seen[0][name] for name in names] == ["", "", "localhost", "80"]


# ---- answers ----------------------------------------------------------------------------------


class Data(bytes):
    pass


class Text(str):
    pass


class Header(tuple[str, str]):
    def __new__(cls, name: str, value: str) -> "Header":
        return super().__new__(cls, (Text(name), Text(value)))


def test_how_an_answer_is_framed(http_serving: HttpServing, threads: int) -> None:
    results: dict[str, tuple[list[tuple[str, str]], Callable[[], Any]]] = {
        "/one": ([], lambda: [b"one"]),
        "/two": ([], lambda: (b"one", b"two")),
        "/none": ([], list),
        "/parts": ([], lambda: iter([b"", b"one", b"", b"two"])),
        "/told": ([("Content-Length", "3")], lambda: Result([b"one", b""])),
        "/empty": ([], lambda: iter([])),
        "/kind": ([Header("X-Kind", "a")], lambda: [Data(b"ki"), Data(b"nd")]),
        "/kinds": ([], lambda: iter([Data(b"ki"), Data(b"nd")])),
    }

    def app(environ: Environ, start_response: Any) -> Any:
        headers, make = results[environ["PATH_INFO"]]
        start_response(Text("200 Fine"), headers)
        return make()

    http_serving(app, threads=threads)
    client = http_serving.client()
    wanted = {
        "/one": ("3", b"one"),
        "/two": ("6", b"onetwo"),
        "/none": ("0", b""),
        "/parts": (None, b"onetwo"),
        "/told": ("3", b"one"),
        "/empty": ("0", b""),
        "/kind": ("4", b"kind"),
        "/kinds": (None, b"kind"),
    }
    for path, (length, body) in wanted.items():
        answer = client.ask(path)
        assert (answer.status, answer.header("content-length"), answer.body) == (200, length, body)
        head = client.ask(path, "HEAD")
        assert head.body == b""
        assert head.header("content-length") == (length if body else None)
    assert client.ask("/parts").header("transfer-encoding") == "chunked"


def test_a_status_without_a_body(http_serving: HttpServing, threads: int) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        start_response(environ["QUERY_STRING"] + " X", [])
        return [b""]

    http_serving(app, threads=threads)
    client = http_serving.client()
    for status in (204, 304):
        answer = client.ask(f"/?{status}")
        assert (answer.status, answer.header("content-length")) == (status, None)


def test_what_nobody_takes_is_not_made(http_serving: HttpServing, threads: int) -> None:
    results: list[Result] = []

    def app(environ: Environ, start_response: Any) -> Result:
        start_response("304 X" if environ["PATH_INFO"] == "/304" else "200 OK", TEXT)
        results.append(Result(itertools.repeat(b"x")))
        return results[-1]

    http_serving(app, threads=threads)
    client = http_serving.client()
    assert client.ask("/", "HEAD").status == 200
    assert client.ask("/304").status == 304
    wait_for(lambda: [result.closed for result in results] == [1, 1])


def test_write_comes_before_the_result(http_serving: HttpServing, threads: int) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("201 Created", TEXT)
        write(b"a")
        write(b"b")
        return [b"c", b"d"]

    http_serving(app, threads=threads)
    client = http_serving.client()
    for _ in range(2):
        answer = client.ask()
        assert (answer.status, answer.body) == (201, b"abcd")


def test_an_error_page_replaces_what_was_not_sent(http_serving: HttpServing, threads: int) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)
        try:
            raise KeyError("x")
        except KeyError:
            start_response("503 Sorry", [("Retry-After", "1")], sys.exc_info())
        return [b"sorry"]

    http_serving(app, threads=threads)
    answer = http_serving.client().ask()
    assert (answer.status, answer.header("retry-after"), answer.body) == (503, "1", b"sorry")


def failing(path: str, start_response: Any) -> Any:
    if path == "/raise":
        raise KeyError("before")
    if path == "/silent":
        return [b"no start_response"]
    if path == "/twice":
        start_response("200 OK", TEXT)
    start_response("200 OK" if path != "/status" else "fine", TEXT)
    if path == "/str":
        return ["text"]
    if path == "/field":
        start_response("200 OK", [("X", "a\r\nb: c")], (None, None, None))
    return [b"x"]


@pytest.mark.parametrize("path", ["/raise", "/silent", "/twice", "/status", "/str", "/field"])
def test_what_fails_before_the_head_is_answered(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture, threads: int, path: str
) -> None:
    http_serving(lambda environ, start: failing(environ["PATH_INFO"], start), threads=threads)
    client = http_serving.client()
    answer = client.ask(path)
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert client.rest() == b""
    assert [record.message for record in errors_logged.records] == ["the WSGI application failed"]


def test_what_fails_later_ends_the_connection(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture, threads: int
) -> None:
    results = []

    def parts(start_response: Any) -> Iterator[bytes]:
        yield b"first"
        try:
            raise KeyError("later")
        except KeyError:
            start_response("500 Late", [], sys.exc_info())

    def app(environ: Environ, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/short":
            start_response("200 OK", [("Content-Length", "10")])
            results.append(Result([b"abc"]))
        elif environ["PATH_INFO"] == "/long":
            start_response("200 OK", [("Content-Length", "2")])
            results.append(Result([b"ab", b"c"]))
        else:
            start_response("200 OK", TEXT)
            results.append(Result(parts(start_response)))
        return results[-1]

    http_serving(app, threads=threads)
    for path, end in (("/raise", b"5\r\nfirst\r\n"), ("/short", b"abc"), ("/long", b"ab")):
        client = http_serving.client()
        client.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        if path == "/long":
            assert client.answer().body == b"ab"
        else:
            assert client.rest().endswith(end)
        wait_for(lambda: results[-1].closed == 1)
    wait_for(lambda: len(errors_logged.records) == 3)


def test_errors_of_connections_of_its_own_are_told(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture, threads: int
) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        raise ConnectionRefusedError("the database")

    http_serving(app, threads=threads)
    assert http_serving.client().ask().status == 500
    assert len(errors_logged.records) == 1


def test_an_answer_to_http_1_0(http_serving: HttpServing, threads: int) -> None:
    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        return iter([b"one", b"two"])

    http_serving(app, threads=threads)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    answer = client.answer()
    assert (answer.header("connection"), answer.body) == ("close", b"onetwo")


def test_one_large_answer(http_serving: HttpServing, threads: int) -> None:
    body = os.urandom(1 << 20) * 60

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)
        return [body]

    http_serving(app, threads=threads)
    client = http_serving.client()
    assert client.ask().body == body
    assert client.ask("/", "HEAD").header("content-length") == str(len(body))


def test_close_is_called_whatever_happens(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture, threads: int
) -> None:
    class Broken(Result):
        def close(self) -> None:
            super().close()
            raise KeyError("close")

    results = [Result([b"x"]), Result([]), Broken([b"x"])]
    left = list(results)

    def app(environ: Environ, start_response: Any) -> Result:
        start_response("200 OK", TEXT)
        return left.pop(0)

    http_serving(app, threads=threads)
    client = http_serving.client()
    assert [client.ask().body for _ in results] == [b"x", b"", b"x"]
    wait_for(lambda: [result.closed for result in results] == [1, 1, 1])
    wait_for(lambda: len(errors_logged.records) == 1)
    assert "close()" in errors_logged.records[0].message


def test_requests_that_were_sent_together(http_serving: HttpServing, threads: int) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", TEXT)
        return [environ["PATH_INFO"].encode() + environ["wsgi.input"].read()]

    http_serving(app, threads=threads)
    client = http_serving.client()
    requests = [
        b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc" % i for i in range(20)
    ]
    client.send(b"".join(requests))
    for i in range(20):
        assert client.answer().body == b"/%dabc" % i


# ---- files --------------------------------------------------------------------------------------


def test_files(http_serving: HttpServing, threads: int, tmp_path: pathlib.Path) -> None:
    content = os.urandom(300_000)
    path = tmp_path / "file"
    path.write_bytes(content)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(content))
    closed: list[bool] = []

    class Watched(io.BytesIO):
        def close(self) -> None:
            closed.append(True)
            super().close()

    def app(environ: Environ, start_response: Any) -> Any:
        kind = environ["PATH_INFO"]
        start_response("200 OK", [("Content-Length", "1000")] if kind == "/told" else [])
        if kind == "/gzip":
            return environ["wsgi.file_wrapper"](gzip.open(packed))
        if kind == "/memory":
            return environ["wsgi.file_wrapper"](Watched(content))
        file = path.open("rb")
        file.seek(10)
        return environ["wsgi.file_wrapper"](file, 4096)

    server = http_serving(app, threads=threads)
    client = http_serving.client()
    answer = client.ask("/")
    assert answer.body == content[10:]
    assert answer.header("content-length") == str(len(content) - 10)
    assert client.ask("/told").body == content[10:1010]
    assert client.ask("/", "HEAD").header("content-length") == str(len(content) - 10)
    assert server.stats()["file_bytes"] == len(content) - 10 + 1000
    assert client.ask("/memory").body == content
    assert client.ask("/gzip").body == content
    wait_for(lambda: closed == [True])
