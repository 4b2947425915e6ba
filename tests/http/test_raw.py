"""The raw interface: a function that gets a Request and returns a Response."""

import array
import asyncio
import gc
import gzip
import io
import json
import pathlib
import tempfile
import threading
from typing import Any

import pytest

from netpoll import http
from netpoll._native.http.wire import Wire
from netpoll._native.server.connection import Connection
from tests.http.conftest import HttpServing
from tests.server.conftest import wait_for


def test_a_function_answers(http_serving: HttpServing) -> None:
    def handler(request: http.Request) -> http.Response:
        seen = [request.method, request.path, request.query, request.target, request.version]
        seen += [request.header("X-One"), request.header("x-none", "?"), request.header("HOST")]
        return http.Response(json.dumps(seen), content_type="application/json")

    http_serving(handler)
    client = http_serving.client()
    answer = client.ask("/a%20b?c=%20d", X_One="1")
    assert answer.status == 200
    assert json.loads(answer.body) == [
        *["GET", "/a b", "c=%20d", "/a%20b?c=%20d", "1.1"],
        *["1", "?", "test"],
    ]
    assert answer.header("content-type") == "application/json"
    assert answer.header("server") == "netpoll"
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("date").endswith(" GMT")


class Data(bytes):
    """Of a program's own kind, and bytes to everybody."""


class Text(str):
    """Likewise, as templates' safe strings are."""


@pytest.mark.parametrize(
    ("returned", "body", "content_type"),
    [
        (b"bytes", b"bytes", None),
        (Data(b"data"), b"data", None),
        (Text("text"), b"text", "text/plain; charset=utf-8"),
        (http.Response(Data(b"data")), b"data", None),
        (http.Response(Text("text")), b"text", "text/plain; charset=utf-8"),
        (http.Response(b"x", headers={Text("content-type"): Data(b"a/b")}), b"x", "a/b"),
        ("caf\u00e9", "caf\u00e9".encode(), "text/plain; charset=utf-8"),
        (http.Response(b""), b"", None),
        (http.Response(bytearray(b"array")), b"array", None),
        (http.Response(memoryview(b"view")), b"view", None),
        (http.Response(b"x" * 100_000), b"x" * 100_000, None),
        (http.Response([b"a", b"", b"b"]), b"ab", None),
    ],
)
def test_what_may_be_returned(
    http_serving: HttpServing, returned: Any, body: bytes, content_type: str | None
) -> None:
    http_serving(lambda request: returned)
    client = http_serving.client()
    for _ in range(3):
        answer = client.ask()
        assert (answer.status, answer.body) == (200, body)
        assert answer.header("content-type") == content_type


def test_a_whole_body_is_there_when_a_function_is_called(http_serving: HttpServing) -> None:
    http_serving(lambda request: http.Response(request.body[::-1]))
    client = http_serving.client()
    body = bytes(range(256)) * 4096
    assert client.ask("/", "POST", b"abc").body == b"cba"
    assert client.ask("/", "POST", body).body == body[::-1]
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for byte in b"chunks of one":
        client.send(b"1;e=v\r\n%c\r\n" % byte)
    client.send(b"0\r\nx-trailer: 1\r\n\r\n")
    assert client.answer().body == b"chunks of one"[::-1]
    assert client.ask("/", "POST", b"again").body == b"niaga"


def test_an_async_function_reads_as_it_likes(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> http.Response:
        if request.path == "/parts":
            parts = [part async for part in request]
            return http.Response(b"".join(parts))
        if request.path == "/some":
            total = 0
            while part := await request.read_some():
                total += len(part)
                await asyncio.sleep(0)
            return http.Response(str(total))
        await asyncio.sleep(0.001)
        return http.Response(await request.read())

    http_serving(handler)
    client = http_serving.client()
    body = b"0123456789" * 30_000
    assert client.ask("/parts", "POST", body).body == body
    assert client.ask("/some", "POST", body).body == b"300000"
    assert client.ask("/all", "POST", body).body == body
    assert client.ask("/parts").body == b""
    assert client.ask("/all").body == b""


def test_an_async_iterable_is_sent_as_it_comes(http_serving: HttpServing) -> None:
    async def parts() -> Any:
        for number in range(5):
            yield b"part %d\n" % number
            await asyncio.sleep(0)

    async def handler(request: http.Request) -> http.Response:
        return http.Response(parts())

    http_serving(handler)
    client = http_serving.client()
    answer = client.ask()
    assert answer.body == b"".join(b"part %d\n" % number for number in range(5))
    assert answer.header("transfer-encoding") == "chunked"
    client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    text = client.rest()
    assert b"transfer-encoding" not in text
    assert text.endswith(b"\r\n\r\n" + answer.body)


def test_a_file_is_sent(http_serving: HttpServing, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 800)

    def handler(request: http.Request) -> http.Response:
        if request.path == "/path":
            return http.Response(path)
        file = path.open("rb")
        file.seek(100)
        return http.Response(file, content_type="application/octet-stream")

    http_serving(handler)
    client = http_serving.client()
    assert client.ask("/path").body == path.read_bytes()
    for _ in range(2):
        answer = client.ask()
        assert answer.body == path.read_bytes()[100:]
        assert answer.header("content-length") == str(256 * 800 - 100)


@pytest.mark.parametrize("is_async", [False, True])
def test_files_that_are_not_what_their_descriptor_has(
    http_serving: HttpServing, tmp_path: pathlib.Path, is_async: bool
) -> None:
    """What read() gives is sent: unpacked, or out of memory. They are closed all the same."""
    content = bytes(range(256)) * 800
    path = tmp_path / "packed"
    path.write_bytes(gzip.compress(content))
    files: list[Any] = []

    def handler(request: http.Request) -> http.Response:
        files.append(gzip.open(path) if request.path == "/packed" else io.BytesIO(content))
        return http.Response(files[-1])

    async def async_handler(request: http.Request) -> http.Response:
        return handler(request)

    http_serving(async_handler if is_async else handler)
    client = http_serving.client()
    for target in ("/packed", "/memory", "/packed"):
        assert client.ask(target).body == content
    assert [file.closed for file in files] == [True] * 3


def test_head_has_the_length_and_no_body(http_serving: HttpServing) -> None:
    http_serving(lambda request: http.Response(b"four"))
    client = http_serving.client()
    answer = client.ask(method="HEAD")
    assert (answer.header("content-length"), answer.body) == ("4", b"")
    assert client.ask().body == b"four"


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body(http_serving: HttpServing, status: int) -> None:
    http_serving(lambda request: http.Response(b"ignored", status=status))
    client = http_serving.client()
    for _ in range(2):
        answer = client.ask()
        assert (answer.status, answer.body) == (status, b"")


@pytest.mark.parametrize(
    "headers",
    [
        [("x-a", "b\r\nset-cookie: c")],
        [("x-a\r\nb", "c")],
        [("x a", "b")],
        [("", "b")],
        [("x-a", "nul\0")],
        [("content-length", "5")],
        [("content-length", "-1")],
        [("content-length", "4"), ("content-length", "4")],
    ],
)
def test_a_field_that_would_be_another_is_refused(
    http_serving: HttpServing,
    headers: list[tuple[str, str]],
    errors_logged: pytest.LogCaptureFixture,
) -> None:
    http_serving(lambda request: http.Response(b"four", headers=headers))
    client = http_serving.client()
    answer = client.ask()
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert client.rest() == b""
    assert "the handler failed" in errors_logged.text


class Twofaced:
    """A field that is another one the second time that it is looked at."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> Any:
        self.count += 1
        return iter((b"x", b"1" * (1 if self.count == 1 else 100_000)))


def test_fields_are_looked_at_once(http_serving: HttpServing) -> None:
    def handler(request: http.Request) -> http.Response:
        response = http.Response(b"ok")
        response.headers = [Twofaced(), iter((b"y", b"2"))]
        return response

    http_serving(handler)
    answer = http_serving.client().ask()
    assert (answer.status, answer.header("x"), answer.header("y")) == (200, "1", "2")


def test_parts_are_counted_in_bytes(http_serving: HttpServing) -> None:
    parts = [memoryview(b"abcdefgh").cast("I"), array.array("H", [1, 2]), b"", bytearray(b"end")]
    expected = b"".join(bytes(memoryview(part).cast("B")) for part in parts)
    http_serving(lambda request: http.Response(list(parts)))
    client = http_serving.client()
    for _ in range(2):
        assert client.ask().body == expected


@pytest.mark.parametrize("status", [100, 101, 103, 99, 1000])
def test_a_status_that_is_no_answer(
    http_serving: HttpServing, status: int, errors_logged: pytest.LogCaptureFixture
) -> None:
    http_serving(lambda request: http.Response(b"", status=status))
    assert http_serving.client().ask().status == 500
    assert "the status of an answer" in errors_logged.text


def test_keep_alive_of_http_1_0_is_said(http_serving: HttpServing) -> None:
    http_serving(lambda request: b"ok")
    client = http_serving.client()
    for _ in range(2):
        client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        assert client.answer().header("connection") == "keep-alive"
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.answer().header("connection") == "close"
    assert client.rest() == b""


def test_an_answer_of_http_1_0_that_fails_ends_with_a_reset(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    def parts() -> Any:
        yield b"first"
        raise ZeroDivisionError

    http_serving(lambda request: http.Response(parts()))
    client = http_serving.client()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        client.rest()


def test_a_read_that_is_cancelled_loses_nothing(http_serving: HttpServing) -> None:
    tries: list[int] = []

    async def handler(request: http.Request) -> bytes:
        while True:
            try:
                return await asyncio.wait_for(request.read(), 0.005)
            except TimeoutError:
                tries.append(1)

    http_serving(handler)
    client = http_serving.client()
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
    wait_for(lambda: len(tries) > 2)
    client.send(b"def")
    assert client.answer().body == b"abcdef"


def test_a_body_has_one_reader_at_a_time(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> bytes:
        first = asyncio.ensure_future(request.read())
        await asyncio.sleep(0)
        for second in (request.read, request.read_some, request.__anext__):
            with pytest.raises(RuntimeError, match="another task is reading"):
                await second()
        body = await first
        assert await request.read() == body
        assert await request.read_some() == b""
        return body

    http_serving(handler)
    client = http_serving.client()
    for _ in range(2):
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
        threading.Event().wait(0.05)
        client.send(b"def")
        assert client.answer().body == b"abcdef"


def test_a_handler_that_fails_is_answered_for(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    async def fails(request: http.Request) -> http.Response:
        await asyncio.sleep(0)
        raise ZeroDivisionError("mine")

    def fails_at_once(request: http.Request) -> http.Response:
        raise ZeroDivisionError("mine")

    for handler in (fails, fails_at_once):
        errors_logged.clear()
        http_serving(handler)
        client = http_serving.client()
        assert client.ask().status == 500
        assert client.rest() == b""
        assert "ZeroDivisionError: mine" in errors_logged.text


@pytest.mark.parametrize("error", [ConnectionRefusedError, ConnectionResetError, BrokenPipeError])
def test_errors_of_connections_of_its_own_are_answered_for(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    async def handler(request: http.Request) -> http.Response:
        await asyncio.sleep(0)
        raise error("no database")

    http_serving(handler)
    client = http_serving.client()
    assert client.ask().status == 500
    assert client.rest() == b""
    assert f"{error.__name__}: no database" in errors_logged.text


def test_a_handler_that_is_cancelled_is_answered_for(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    async def handler(request: http.Request) -> http.Response:
        raise asyncio.CancelledError

    http_serving(handler)
    assert http_serving.client().ask().status == 500
    assert errors_logged.text == ""


def test_a_handler_whose_client_has_gone_has_not_failed(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    async def handler(request: http.Request) -> http.Response:
        try:
            return http.Response(await request.read())
        except ConnectionError as error:
            raise LookupError("a framework's own") from error
        finally:
            ended.append(request.path)

    http_serving(handler)
    for goes in (lambda sock: sock.shutdown(1), lambda sock: None):
        client = http_serving.client()
        client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
        goes(client.sock)
        client.close()
    wait_for(lambda: len(ended) == 2)
    assert errors_logged.text == ""


@pytest.mark.parametrize("wrong", [None, 5, {"a": 1}])
def test_what_is_no_answer_is_an_error(
    http_serving: HttpServing, wrong: Any, errors_logged: pytest.LogCaptureFixture
) -> None:
    async def later(request: http.Request) -> Any:
        return wrong

    for handler in (later, lambda request: wrong):
        http_serving(handler)
        assert http_serving.client().ask().status == 500
        assert "a handler returns a Response" in errors_logged.text


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", ["file", "memory", "wrapped", "number"])
def test_a_body_that_cannot_be_sent_fails_before_the_head(
    http_serving: HttpServing,
    tmp_path: pathlib.Path,
    kind: str,
    is_async: bool,
    errors_logged: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "text"
    path.write_text("text")
    body: Any = 5
    if kind == "file":
        body = path.open()
    elif kind == "memory":
        body = io.StringIO("text")
    elif kind == "wrapped":
        body = tempfile.NamedTemporaryFile("w+")

    def handler(request: http.Request) -> http.Response:
        return http.Response(body)

    async def async_handler(request: http.Request) -> http.Response:
        return handler(request)

    http_serving(async_handler if is_async else handler)
    answer = http_serving.client().ask()
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    word = "the body of an answer is" if kind == "number" else "open it in binary mode"
    assert word in errors_logged.text
    if kind != "number":
        body.close()


def test_pipelined_requests_are_answered_in_order(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> http.Response:
        if request.query == "slow":
            await asyncio.sleep(0.01)
        return http.Response(request.target)

    http_serving(handler)
    client = http_serving.client()
    targets = [f"/{number}?{'slow' if number % 3 == 0 else ''}" for number in range(50)]
    client.send(b"".join(f"GET {t} HTTP/1.1\r\nhost: x\r\n\r\n".encode() for t in targets))
    assert [client.answer().body.decode() for _ in targets] == targets


def test_a_request_that_comes_byte_by_byte(http_serving: HttpServing) -> None:
    http_serving(lambda request: http.Response(request.target.encode() + request.body))
    client = http_serving.client()
    text = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"
    for _ in range(2):
        for at in range(len(text)):
            client.send(text[at : at + 1])
        assert client.answer().body == b"/xhello"


def test_expect_is_answered_when_the_body_is_wanted(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> http.Response:
        if request.path == "/no":
            return http.Response(b"not wanted", status=403)
        return http.Response(await request.read())

    http_serving(handler)
    client = http_serving.client()
    head = b"POST %s HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    client.send(head % b"/yes")
    assert client.answer().status == 100
    client.send(b"hello")
    assert client.answer().body == b"hello"
    client.send(head % b"/no")
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (403, "close")
    assert client.rest() == b""  # the body might come or not: what follows cannot be read


def test_half_closed_clients_get_their_answer(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> http.Response:
        await asyncio.sleep(0.02)
        return http.Response(b"still here")

    http_serving(handler)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    client.sock.shutdown(1)
    assert client.rest().endswith(b"still here")


def test_a_stop_answers_what_is_being_answered(http_serving: HttpServing) -> None:
    begun = threading.Event()

    async def handler(request: http.Request) -> http.Response:
        begun.set()
        await asyncio.sleep(0.1)
        return http.Response(b"done")

    server = http_serving(handler)
    idle, busy = http_serving.client(), http_serving.client()
    idle_answer = threading.Thread(target=idle.ask)
    idle_answer.start()
    idle_answer.join()
    begun.clear()
    busy.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    begun.wait(10)
    server.close(5.0)
    assert busy.rest().endswith(b"connection: close\r\n\r\ndone")
    assert idle.rest() == b""


def test_between_requests_a_connection_has_no_object(http_serving: HttpServing) -> None:
    def count() -> int:
        gc.collect()
        return sum(type(one) in (Wire, Connection) for one in gc.get_objects())

    before = count()
    http_serving(lambda request: http.Response(b"x"))
    clients = [http_serving.client() for _ in range(20)]
    for client in clients:
        assert client.ask().body == b"x"

    wait_for(lambda: count() <= before + 2)  # a spare one of each


def test_another_thread_is_refused(http_serving: HttpServing) -> None:
    """It would read a connection while that one's own thread does; the head is the request's."""
    refused: list[str] = []

    async def handler(request: http.Request) -> http.Response:
        def elsewhere() -> None:
            for act in (
                lambda: request.read().send(None),
                lambda: asyncio.run(request.read_some()),
                lambda: request.client,
            ):
                try:
                    act()
                except RuntimeError as exc:
                    refused.append(str(exc))
            assert ("content-length", "4") in request.headers

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return http.Response(await request.read())

    http_serving(handler)
    assert http_serving.client().ask("/", "POST", b"body").body == b"body"
    assert len(refused) == 3
    assert all("belongs to another thread" in text for text in refused)
