"""Fields behind the body of an answer: RFC 9110 6.5, RFC 9112 7.1.2."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from netpoll import http
from tests.http.conftest import Client, HttpServing

Scope = dict[str, Any]
TAKES = b"GET / HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: te\r\n\r\n"
TAKES_NONE = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def start(trailers: bool = True, **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http.response.start",
        "status": 200,
        "headers": pairs,
        "trailers": trailers,
    }


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def trailers(*pairs: tuple[bytes, bytes], more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": pairs, "more_trailers": more}


def application(*messages: dict[str, Any]) -> Any:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        assert scope["extensions"]["http.response.trailers"] == {}
        for message in messages:
            await send(message)

    return app


def body_of(client: Client) -> bytes:
    """Of the first answer, as it was sent; the next request ends the connection."""
    client.send(LAST)
    head, _, rest = client.rest().partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    return rest.partition(b"HTTP/1.1 ")[0]


PAIRS = ((b"x-sum", b"12"), (b"server-timing", b"a;dur=1"))
IN_LINES = b"x-sum: 12\r\nserver-timing: a;dur=1\r\n\r\n"


@pytest.mark.parametrize("parts", [[b"abc"], [b"abc", b""], [b"a", b"b", b"c"]])
@pytest.mark.parametrize("at_once", [True, False])
def test_trailers_of_asgi(http_serving: HttpServing, parts: list[bytes], at_once: bool) -> None:
    messages = [body(part, number < len(parts)) for number, part in enumerate(parts, 1)]
    if at_once:
        messages.append(trailers(*PAIRS))
    else:
        messages += [trailers(PAIRS[0], more=True), trailers(PAIRS[1])]
    http_serving(application(start(), *messages), lifespan="off")
    client = http_serving.client()
    client.send(TAKES)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
    assert body_of(client) == chunks + b"0\r\n" + IN_LINES


def test_a_peer_that_has_not_asked_gets_none(http_serving: HttpServing) -> None:
    http_serving(application(start(), body(b"abc"), trailers(*PAIRS)), lifespan="off")
    client = http_serving.client()
    for _ in range(2):
        client.send(TAKES_NONE)
        answer = client.answer()
        assert (answer.body, answer.header("content-length")) == (b"abc", "3")


def test_without_chunks_there_is_no_place_for_them(http_serving: HttpServing) -> None:
    app = application(start(content_length="3"), body(b"abc"), trailers(*PAIRS))
    http_serving(app, lifespan="off")
    client = http_serving.client()
    for method in (b"GET", b"HEAD"):
        client.send(TAKES.replace(b"GET", method))
        answer = client.answer(method.decode())
        assert answer.header("content-length") == "3"
    client.send(b"GET / HTTP/1.0\r\nte: trailers\r\n\r\n")
    assert client.rest().endswith(b"\r\n\r\nabc")


def test_an_answer_to_head_has_none(http_serving: HttpServing) -> None:
    http_serving(application(start(), body(b"abc"), trailers(*PAIRS)), lifespan="off")
    client = http_serving.client()
    for _ in range(2):
        client.send(TAKES.replace(b"GET", b"HEAD"))
        answer = client.answer("HEAD")
        assert (answer.body, answer.header("content-length")) == (b"", "3")


@pytest.mark.parametrize("request_of", [TAKES, TAKES_NONE])
@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([trailers()], "comes once, behind the body"),
        ([body(b"a", True), trailers()], "comes once, behind the body"),
        ([body(b"a"), trailers(), trailers()], "comes once, behind the body"),
        ([body(b"a"), trailers((b"content-length", b"1"))], "has to be in the head"),
        ([body(b"a"), trailers((b"Set-Cookie", b"a=1"))], "has to be in the head"),
        ([body(b"a"), trailers((b"a", b"b\r\nc"))], "not a field of HTTP"),
        ([body(b"a"), trailers(("a", "b"))], "are bytes"),
    ],
)
def test_what_is_no_trailer(
    http_serving: HttpServing,
    request_of: bytes,
    messages: list[Any],
    complaint: str,
    errors_logged: pytest.LogCaptureFixture,
) -> None:
    """Whether the peer takes them or not: a mistake is told of."""
    http_serving(application(start(), *messages), lifespan="off")
    client = http_serving.client()
    client.send(request_of.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    client.rest()
    assert complaint in errors_logged.text


def test_trailers_that_were_not_promised(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    http_serving(application(start(False), body(b"abc"), trailers(*PAIRS)), lifespan="off")
    client = http_serving.client()
    client.send(TAKES)
    assert client.answer().body == b"abc"
    client.send(LAST)
    client.rest()
    assert "'trailers': True" in errors_logged.text


def test_an_answer_whose_trailers_do_not_come_is_not_complete(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    http_serving(application(start(), body(b"abc")), lifespan="off")
    client = http_serving.client()
    client.send(TAKES)
    assert client.rest().endswith(b"3\r\nabc\r\n")
    assert "before its response was complete" in errors_logged.text


def test_after_the_body_only_trailers_may_come(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    http_serving(application(start(), body(b"abc"), body(b"d")), lifespan="off")
    client = http_serving.client()
    client.send(TAKES)
    assert client.rest().endswith(b"3\r\nabc\r\n")
    assert "after the end of the response" in errors_logged.text


def test_trailers_behind_what_is_compressed(http_serving: HttpServing) -> None:
    text = b"all the same " * 1000
    app = application(start(content_type="text/plain"), body(text), trailers(*PAIRS))
    http_serving(app, lifespan="off", compression=http.Compression(min_bytes=10))
    client = http_serving.client()
    client.send(TAKES.replace(b"host", b"accept-encoding: gzip\r\nhost"))
    assert body_of(client).endswith(b"\r\n0\r\n" + IN_LINES)


class Parts:
    """A body whose sum is known at its end."""

    def __init__(self) -> None:
        self.sum = 0

    def __iter__(self) -> Iterator[bytes]:
        for number in range(5):
            self.sum += number
            yield b"%d" % number

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def trailers(self) -> dict[str, str]:
        return {"x-sum": str(self.sum)}


def at_once(request: http.Request) -> http.Response:
    return http.Response(b"01234", trailers=[("x-sum", "10")])


def in_parts(request: http.Request) -> http.Response:
    parts = Parts()
    return http.Response(iter(parts), trailers=parts.trailers)


async def awaited(request: http.Request) -> http.Response:
    parts = Parts()
    return http.Response(parts.__aiter__(), trailers=parts.trailers)


@pytest.mark.parametrize("handler", [at_once, in_parts, awaited])
def test_trailers_of_a_plain_function(http_serving: HttpServing, handler: Any) -> None:
    http_serving(handler)
    client = http_serving.client()
    client.send(TAKES_NONE)
    assert client.answer().body == b"01234"
    client.send(TAKES)
    assert body_of(client).endswith(b"4\r\n0\r\nx-sum: 10\r\n\r\n")


def test_trailers_of_a_function_that_fail(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    http_serving(lambda request: http.Response(b"abc", trailers={"vary": "*"}))
    client = http_serving.client()
    client.send(TAKES)
    assert client.rest().endswith(b"3\r\nabc\r\n")
    assert "has to be in the head" in errors_logged.text
