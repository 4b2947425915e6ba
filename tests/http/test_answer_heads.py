"""What the head of an answer says: of lengths that are not known, of the connection, once."""

import contextvars
import http.client
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from netpoll import http as nhttp
from tests.http.conftest import HttpServing

POST = b"POST %s HTTP/1.1\r\nhost: a\r\n"


async def empty(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """As a framework that drops the body of an answer to HEAD, or to a condition."""
    status = int(scope["path"][1:])
    fields = [(b"content-length", b"77")] if scope["query_string"] else []
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize("interface", ["asgi", "raw"])
def test_an_empty_answer_to_head_has_no_length(http_serving: HttpServing, interface: str) -> None:
    """RFC 9110 8.6: it would be the length that GET has, or the 200 that a 304 stands for."""

    def handler(request: nhttp.Request) -> nhttp.Response:
        headers = {"content-length": "77"} if request.query else {}
        return nhttp.Response(b"", int(request.path[1:]), headers)

    http_serving(empty if interface == "asgi" else handler, lifespan="off")
    client = http_serving.client()
    for path in ("/200", "/206", "/304", "/404"):
        assert client.ask(path, "HEAD").header("content-length") is None, path
        assert client.ask(path + "?known", "HEAD").header("content-length") == "77", path
    assert client.ask("/200").header("content-length") == "0"
    assert client.ask("/304").header("content-length") is None


def test_an_answer_before_its_requests_body_closes_and_says_so(http_serving: HttpServing) -> None:
    """RFC 9112 9.6, and RFC 9110 10.1.1 of a client that waits to be asked for the body."""
    http_serving(empty, lifespan="off")
    for rest in (
        b"content-length: 5\r\n\r\n",
        b"content-length: 5\r\n\r\nabc",
        b"content-length: 5\r\nexpect: 100-continue\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"transfer-encoding: chunked\r\n\r\nx",
    ):
        client = http_serving.client()
        client.send(POST % b"/401" + rest)
        answer = client.answer()
        assert (answer.status, answer.header("connection")) == (401, "close"), rest
        assert client.rest() == b""


def test_an_answer_in_parts_says_so_too(http_serving: HttpServing) -> None:
    """As frameworks send all of them whose middleware looks at answers."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        fields = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 401, "headers": fields})
        await send({"type": "http.response.body", "body": b"no", "more_body": True})
        await send({"type": "http.response.body"})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(POST % b"/" + b"content-length: 5\r\n\r\nabc")
    answer = client.answer()
    assert (answer.body, answer.header("connection")) == (b"no", "close")
    client = http_serving.client()
    client.send(POST % b"/" + b"content-length: 5\r\n\r\nabcde")
    assert client.answer().header("connection") is None


def test_an_answer_before_a_body_that_is_here_goes_on(http_serving: HttpServing) -> None:
    http_serving(empty, lifespan="off")
    client = http_serving.client()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in b"x" * 300)
    for rest in (
        b"content-length: 5\r\n\r\nabcde",
        b"content-length: 5\r\nexpect: 100-continue\r\n\r\nabcde",
        b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\nx-a: b\r\n\r\n",
    ):
        client.send(POST % b"/401" + rest + POST % b"/402" + b"content-length: 0\r\n\r\n")
        assert client.answer().header("connection") is None, rest
        assert client.answer().status == 402


def test_a_pool_of_connections_does_not_keep_one_that_closes(http_serving: HttpServing) -> None:
    server = http_serving(empty, lifespan="off")
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    client.putrequest("POST", "/401")
    client.putheader("content-length", "5")
    client.endheaders()
    assert client.getresponse().will_close
    client.close()


def test_a_stream_that_begins_before_the_body_was_asked_for_closes(
    http_serving: HttpServing,
) -> None:
    """No 100 (Continue) will come behind its head."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"early", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(POST % b"/" + b"content-length: 5\r\nexpect: 100-continue\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer.header("connection")) == (b"early", "close")
    assert client.rest() == b""


def test_fields_that_are_there_once(http_serving: HttpServing) -> None:
    def handler(request: nhttp.Request) -> nhttp.Response:
        return nhttp.Response("<p>", headers={"Content-Type": "text/html"})

    http_serving(handler, headers=[("Server", "ours"), ("Date", "now")])
    answer = http_serving.client().ask()
    for name, value in (("server", "ours"), ("date", "now"), ("content-type", "text/html")):
        assert [said for key, said in answer.headers if key.lower() == name] == [value]


def test_each_call_of_a_function_has_a_context_of_its_own(http_serving: HttpServing) -> None:
    count: contextvars.ContextVar[int] = contextvars.ContextVar("count", default=0)

    def handler(request: nhttp.Request) -> Any:
        count.set(count.get() + 1)
        if request.path == "/parts":
            return nhttp.Response(str(count.get()).encode() for _ in range(2))
        return str(count.get())

    http_serving(handler)
    client = http_serving.client()
    assert [client.ask().body for _ in range(3)] == [b"1"] * 3
    assert [client.ask("/", "POST", b"x").body for _ in range(2)] == [b"1"] * 2
    assert client.ask("/parts").body == b"11", "what it returns goes on in the same one"


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 1000


async def endless_later() -> AsyncIterator[bytes]:
    for part in endless():
        yield part


class Closes(io.BytesIO):
    def __iter__(self) -> "Closes":
        raise AssertionError("nobody reads it")

    def read(self, *args: Any) -> bytes:
        raise AssertionError("nobody reads it")


def test_parts_that_nobody_sees_are_not_made(http_serving: HttpServing) -> None:
    """They may have no end, and the server would serve nobody else."""
    file = Closes()

    def handler(request: nhttp.Request) -> nhttp.Response:
        body = {"/file": file, "/later": endless_later()}.get(request.path, endless())
        return nhttp.Response(body, 304 if request.path == "/304" else 200)

    async def later(request: nhttp.Request) -> nhttp.Response:
        return handler(request)

    for one in (handler, later):
        http_serving(one)
        client = http_serving.client()
        for path in ("/", "/file") if one is handler else ("/", "/file", "/later"):
            assert client.ask(path, "HEAD").status == 200
        assert client.ask("/304").status == 304
        assert file.closed


def test_who_sends_without_an_end_to_nobody_leaves_others_their_turn(
    http_serving: HttpServing,
) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        while scope["path"] == "/endless":
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        await send({"type": "http.response.body"})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    assert client.ask("/endless", "HEAD").status == 200
    for _ in range(3):
        assert http_serving.client().ask().status == 200
    client.close()
