"""What is refused, on real sockets: the status, the sentence, and that nothing more is read.

tests/c/test_http1.c and tests/c/test_http_body.c read every row over every cut; here a server
answers.
"""

import socket

import pytest

from netpoll import http
from tests.http.conftest import HttpServing

HEAD = b"GET / HTTP/1.1\r\nhost: a\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"

REFUSED = {
    "length and coding": (
        POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "length twice": (POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", 400),
    "length list": (POST + b"content-length: 3, 3\r\n\r\nabc", 400),
    "length signed": (POST + b"content-length: +3\r\n\r\nabc", 400),
    "length negative": (POST + b"content-length: -3\r\n\r\nabc", 400),
    "length overflow": (POST + b"content-length: 99999999999999999999\r\n\r\n", 400),
    "length hex": (POST + b"content-length: 0x3\r\n\r\nabc", 400),
    "coding unknown": (POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "coding not last": (POST + b"transfer-encoding: chunked, gzip\r\n\r\n", 400),
    "coding twice": (POST + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "coding xchunked": (POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "coding in 1.0": (
        b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "bare cr": (b"GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n", 400),
    "bare lf": (b"GET / HTTP/1.1\nhost: a\n\n", 400),
    "nul": (HEAD + b"x: a\0b\r\n\r\n", 400),
    "obs-fold": (HEAD + b"x: a\r\n b\r\n\r\n", 400),
    "space before colon": (HEAD + b"x : a\r\n\r\n", 400),
    "empty name": (HEAD + b": a\r\n\r\n", 400),
    "bad name": (HEAD + b"x(y): a\r\n\r\n", 400),
    "no colon": (HEAD + b"xyz\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "host twice": (HEAD + b"host: a\r\n\r\n", 400),
    "host invalid": (b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
    "host empty": (b"GET / HTTP/1.1\r\nhost:\r\n\r\n", 400),
    "host other": (b"GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "target control": (b"GET /\x01 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "target space": (b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "target fragment": (b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    "two empty lines": (b"\r\n\r\n" + HEAD + b"\r\n", 400),
    "version": (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "long line": (b"GET /" + b"a" * 17000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
    "large head": (HEAD + b"".join(b"x-%d: %s\r\n" % (i, b"v" * 1000) for i in range(70)), 431),
    "many fields": (HEAD + b"".join(b"x-%d: v\r\n" % i for i in range(101)) + b"\r\n", 431),
    "chunk sign": (CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk 0x": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk underscore": (CHUNKED + b"1_0\r\n", 400),
    "chunk digits": (CHUNKED + b"0" * 17 + b"3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk bare lf": (CHUNKED + b"3\nabc\r\n0\r\n\r\n", 400),
    "chunk end": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    "chunk waste": (CHUNKED + b"1\r\na\r\n" * 8000, 413),
    "trailer length": (CHUNKED + b"0\r\ncontent-length: 3\r\n\r\n", 400),
    "trailer host": (CHUNKED + b"0\r\nhost: b\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_and_nothing_more_is_read(http_serving: HttpServing, name: str) -> None:
    request, status = REFUSED[name]
    seen: list[str] = []

    async def handler(request: http.Request) -> bytes:
        seen.append(request.target)
        return await request.read()

    http_serving(handler)
    client = http_serving.client()
    try:
        client.send(request + b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
    except ConnectionError:
        pytest.fail("the connection was reset before the answer")
    text = client.rest()
    assert text.startswith(b"HTTP/1.1 %d " % status)
    assert text.count(b"\r\ndate: ") == 1
    assert "/smuggled" not in seen


def test_a_fault_is_told_before_the_connection_closes(http_serving: HttpServing) -> None:
    http_serving(lambda request: b"")
    for request, status in REFUSED.values():
        if len(request) > 10_000:
            continue
        client = http_serving.client()
        client.send(request)
        client.sock.shutdown(socket.SHUT_WR)
        text = client.rest()
        assert text.startswith(b"HTTP/1.1 %d " % status), request
        assert b"\r\nconnection: close\r\n" in text
        head, _, body = text.partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(body) in head
        client.close()


def test_answers_before_a_fault_are_sent(http_serving: HttpServing) -> None:
    http_serving(lambda request: request.target)
    client = http_serving.client()
    client.send(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\nGET\r\n")
    assert client.answer().body == b"/1"
    assert client.answer().body == b"/2"
    assert client.answer().status == 400
    assert client.rest() == b""


def test_the_limit_of_a_body(http_serving: HttpServing) -> None:
    http_serving(lambda request: request.body, limits=http.HttpLimits(body_max_bytes=10))
    client = http_serving.client()
    assert client.ask("/", "POST", b"x" * 10).body == b"x" * 10
    assert client.ask("/", "POST", b"x" * 11).status == 413
    client = http_serving.client()
    client.send(CHUNKED + b"6\r\nabcdef\r\n6\r\nabcdef\r\n")
    assert client.answer().status == 413
    assert client.rest() == b""


def test_what_is_not_refused(http_serving: HttpServing) -> None:
    http_serving(lambda request: request.method)
    client = http_serving.client()
    for text in (
        b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        b"M-SEARCH / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: [::1]:80\r\nx_y: \xe4\r\n\r\n",
        CHUNKED.replace(b"chunked", b"Chunked") + b'3;a;b="c d"\r\nabc\r\n0\r\nx: y\r\n\r\n',
    ):
        client.send(text)
        assert client.answer().status == 200, text
