"""What it costs to read a request: heads of real programs, bodies, escaped paths."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from netpoll._native.http.parser import RequestParser, unquote

from .costs import cpu_ns, record

COUNT = 2_000

BROWSER = (
    b"GET /assets/app.js?v=3 HTTP/1.1\r\nHost: www.example.org\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="124", "Not-A.Brand";v="99"\r\nsec-ch-ua-mobile: ?0\r\n'
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/124.0.0.0 Safari/537.36\r\nAccept: */*\r\nSec-Fetch-Site: same-origin\r\n"
    b"Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\nReferer: https://www.example.org/\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"
)
REQUESTS = {
    "wrk": b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
    "curl": b"GET /a HTTP/1.1\r\nHost: a.org\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
    "browser": BROWSER,
    "post": b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 256\r\n\r\n" + b"x" * 256,
    "chunked": (
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"40\r\n" + b"x" * 64 + b"\r\n") * 4
        + b"0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request(name: str, benchmark: BenchmarkFixture) -> None:
    parser, request = RequestParser(), REQUESTS[name]

    def work() -> None:
        for _ in range(COUNT):
            parser.feed(request)

    assert [event[0] for event in parser.feed(request)][-1] == "end"
    record(benchmark, "a request, read", lambda: cpu_ns(work, COUNT))


def test_a_pipeline(benchmark: BenchmarkFixture) -> None:
    """Sixteen requests in one piece."""
    parser, requests = RequestParser(), REQUESTS["wrk"] * 16

    def work() -> None:
        for _ in range(COUNT // 16):
            parser.feed(requests)

    record(benchmark, "a request, read", lambda: cpu_ns(work, COUNT))


@pytest.mark.parametrize("path", [b"/assets/app.js", b"/a%20b/%C3%A4%C3%B6", b"/" + b"%41" * 100])
def test_an_escaped_path(path: bytes, benchmark: BenchmarkFixture) -> None:
    def work() -> None:
        for _ in range(COUNT):
            unquote(path)

    record(benchmark, "a path, unquoted", lambda: cpu_ns(work, COUNT))
