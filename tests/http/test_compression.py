"""Compressed answers: which, how, in all interfaces; streams that stay live; large bodies."""

import asyncio
import gzip
import importlib.util
import pathlib
import threading
import time
import zlib
from typing import Any

import pytest

from netpoll import http
from tests.http.conftest import Answer, HttpServing
from tests.server.conftest import wait_for

TEXT = b"All work and no play makes Jack a dull boy. " * 100
HTML = [("content-type", "text/html; charset=utf-8")]
ALL = http.Compression(codings=("gzip",))


def decoded(answer: Answer) -> bytes:
    coding = answer.header("content-encoding")
    if coding == "br":
        return pytest.importorskip("brotli").decompress(answer.body)  # type: ignore[no-any-return]
    if coding == "zstd":
        stream = pytest.importorskip("zstandard").ZstdDecompressor().decompressobj()
        return stream.decompress(answer.body)  # type: ignore[no-any-return]
    return gzip.decompress(answer.body) if coding == "gzip" else answer.body


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_each_coding(http_serving: HttpServing, coding: str) -> None:
    package = {"br": "brotli", "zstd": "zstandard"}.get(coding, "zlib")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")

    async def handler(request: http.Request) -> http.Response:
        if request.path == "/whole":
            return http.Response(TEXT, headers=HTML)
        return http.Response([TEXT[:1000], TEXT[1000:]], headers=HTML)

    http_serving(handler, compression=http.Compression(codings=(coding,)))
    client = http_serving.client()
    for path in ("/whole", "/parts", "/whole"):
        answer = client.ask(path, accept_encoding=coding)
        assert answer.header("content-encoding") == coding
        assert answer.header("vary") == "accept-encoding"
        assert decoded(answer) == TEXT
        assert len(answer.body) < len(TEXT) / 4
        assert (answer.header("content-length") is not None) == (path == "/whole")
        plain = client.ask(path)
        assert (plain.body, plain.header("content-encoding")) == (TEXT, None)
        assert plain.header("vary") == "accept-encoding"


def test_off_is_the_default(http_serving: HttpServing) -> None:
    http_serving(lambda request: http.Response(TEXT, headers=HTML))
    answer = http_serving.client().ask(accept_encoding="gzip")
    assert (answer.body, answer.header("vary")) == (TEXT, None)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, [("content-type", "image/png")], TEXT),
        (200, [("content-type", "application/octet-stream")], TEXT),
        (200, [], TEXT),
        (200, HTML, b"short"),
        (200, [*HTML, ("Content-Encoding", "br")], TEXT),
        (200, [*HTML, ("cache-control", "public, No-Transform")], TEXT),
        (206, [*HTML, ("content-range", "bytes 0-9/10")], TEXT),
        (200, [*HTML, ("content-range", "bytes 0-9/10")], TEXT),
        (204, HTML, b""),
    ],
)
def test_what_is_sent_as_it_is(
    http_serving: HttpServing, status: int, headers: Any, body: bytes
) -> None:
    http_serving(lambda request: http.Response(body, status, headers), compression=ALL)
    answer = http_serving.client().ask(accept_encoding="gzip")
    assert (answer.status, answer.body) == (status, body)
    assert answer.header("content-encoding") in (None, "br")
    assert answer.header("vary") is None


def test_fields_of_a_compressed_answer(http_serving: HttpServing) -> None:
    headers = [*HTML, ("ETag", '"1"'), ("Accept-Ranges", "bytes"), ("Vary", "Cookie")]

    def handler(request: http.Request) -> http.Response:
        if request.header("if-none-match") is not None:
            return http.Response(b"", 304, [("etag", '"1"')])
        return http.Response(TEXT, headers=headers)

    http_serving(handler, compression=ALL)
    client = http_serving.client()
    answer = client.ask(accept_encoding="gzip")
    assert answer.header("etag") == 'W/"1"'
    assert answer.header("accept-ranges") is None
    assert [value for name, value in answer.headers if name.lower() == "vary"] == [
        "Cookie",
        "accept-encoding",
    ]
    plain = client.ask()
    assert (plain.header("etag"), plain.header("accept-ranges")) == ('"1"', "bytes")
    same = client.ask(accept_encoding="gzip", **{"if-none-match": 'W/"1"'})
    assert (same.status, same.header("etag")) == (304, 'W/"1"')
    assert client.ask(**{"if-none-match": '"1"'}).header("etag") == '"1"'


def test_head_says_what_get_would(http_serving: HttpServing) -> None:
    http_serving(lambda request: http.Response(TEXT, headers=HTML), compression=ALL)
    client = http_serving.client()
    answer = client.ask("/", "HEAD", accept_encoding="gzip")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("content-encoding") == "gzip"
    assert answer.header("content-length") is None  # to know it, all would be compressed
    assert answer.header("vary") == "accept-encoding"
    assert decoded(client.ask(accept_encoding="gzip")) == TEXT


def test_weights(http_serving: HttpServing) -> None:
    http_serving(lambda request: http.Response(TEXT, headers=HTML), compression=ALL)
    client = http_serving.client()
    for accepted, coding in [("gzip;q=0", None), ("br", None), ("*;q=0.1", "gzip")]:
        assert client.ask(accept_encoding=accepted).header("content-encoding") == coding
    client.send(
        b"GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: br\r\naccept-encoding: gzip\r\n\r\n"
    )
    assert client.answer().header("content-encoding") == "gzip"


def test_asgi(http_serving: HttpServing) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/problem+json")]
        if scope["path"] == "/length":
            headers.append((b"content-length", str(len(TEXT)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for i in range(0, len(TEXT), 100):
            part = {"type": "http.response.body", "body": TEXT[i : i + 100], "more_body": True}
            await send(part)
        await send({"type": "http.response.body"})

    http_serving(app, lifespan="off", compression=ALL)
    client = http_serving.client()
    for path in ("/length", "/"):
        answer = client.ask(path, accept_encoding="gzip")
        assert decoded(answer) == TEXT
        assert answer.header("content-length") is None
        assert client.ask(path).body == TEXT


def test_wsgi(http_serving: HttpServing) -> None:
    """Whole, in parts, and in parts that threads compress; with the request's name."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/whole":
            return [TEXT]
        if environ["PATH_INFO"] == "/id":
            return [environ["HTTP_X_REQUEST_ID"].encode() + TEXT]
        return iter([b"first", TEXT * 500, b"behind it", TEXT * 500, b"last"])

    http_serving(app, interface="wsgi", compression=ALL, request_id_header="x-request-id")
    client = http_serving.client()
    assert decoded(client.ask("/whole", accept_encoding="gzip")) == TEXT
    wanted = b"first" + TEXT * 500 + b"behind it" + TEXT * 500 + b"last"
    for _ in range(2):
        assert decoded(client.ask("/parts", accept_encoding="gzip")) == wanted
    answer = client.ask("/id", accept_encoding="gzip", **{"x-request-id": "abc"})
    assert decoded(answer) == b"abc" + TEXT
    assert answer.header("x-request-id") == "abc"


def test_http_1_0_ends_with_the_connection(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> http.Response:
        return http.Response([TEXT], headers=HTML)

    http_serving(handler, compression=ALL)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.0\r\naccept-encoding: gzip\r\n\r\n")
    head, _, body = client.rest().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert gzip.decompress(body) == TEXT


def test_a_stream_stays_live(http_serving: HttpServing) -> None:
    """Each event can be read when it was sent, before the next one."""
    seen = threading.Semaphore(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for i in range(5):
            body = f"data: {i}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
            while not seen.acquire(blocking=False):
                await asyncio.sleep(0.001)
        await send({"type": "http.response.body"})

    http_serving(app, lifespan="off", compression=ALL)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n")
    while client.file.readline() != b"\r\n":
        pass
    stream = zlib.decompressobj(31)
    for i in range(5):
        size = int(client.file.readline(), 16)
        assert stream.decompress(client.file.read(size)) == f"data: {i}\n\n".encode()
        assert client.file.readline() == b"\r\n"
        seen.release()
    rest = int(client.file.readline(), 16)
    stream.decompress(client.file.read(rest))
    assert stream.eof
    assert client.file.readline() + client.file.readline() == b"\r\n0\r\n"


def test_large_bodies_are_compressed_in_a_thread(http_serving: HttpServing) -> None:
    """The loop goes on meanwhile; the order stays; what is pipelined behind waits."""
    large = TEXT * 1000  # 4 MB
    threads: set[str] = set()

    class Coder:
        """Of gzip, and tells where it runs."""

        def __init__(self) -> None:
            self.stream = zlib.compressobj(1, zlib.DEFLATED, 31)

        def encode(self, data: bytes) -> bytes:
            threads.add(threading.current_thread().name)
            return self.stream.compress(data) + self.stream.flush(zlib.Z_SYNC_FLUSH)

        def finish(self) -> bytes:
            return self.stream.flush()

        def whole(self, data: bytes) -> bytes:
            return self.encode(data) + self.finish()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/parts":
            for part in (b"first", large, b"behind it", large, b"last"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})
        else:
            await send({"type": "http.response.body", "body": large})

    compression = http.Compression(codings=("gzip",))
    object.__setattr__(compression, "_makers", lambda: {"gzip": Coder})
    http_serving(app, lifespan="off", compression=compression)
    client = http_serving.client()
    request = "GET {} HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n"
    client.send("".join(map(request.format, ("/parts", "/", "/parts"))).encode())
    wanted = b"first" + large + b"behind it" + large + b"last"
    for body in (wanted, large, wanted):
        answer = client.answer()
        assert gzip.decompress(answer.body) == body
        assert answer.header("transfer-encoding") == "chunked"
    assert any(name.startswith("netpoll-compress") for name in threads), threads


@pytest.mark.parametrize("when", ["client", "stop"])
def test_an_end_while_a_thread_compresses(http_serving: HttpServing, when: str) -> None:
    """Who has gone does not get what a thread still makes, and nothing fails."""
    begun, go_on = threading.Event(), threading.Event()

    class Coder:
        def encode(self, data: bytes) -> bytes:
            begun.set()
            go_on.wait(20)
            return data

        def finish(self) -> bytes:
            return b""

        def whole(self, data: bytes) -> bytes:
            return data

    def handler(request: http.Request) -> http.Response:
        return http.Response(TEXT * 100, headers=HTML)

    compression = http.Compression(codings=("gzip",))
    object.__setattr__(compression, "_makers", lambda: {"gzip": Coder})
    server = http_serving(handler, compression=compression)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n")
    assert begun.wait(20)
    if when == "client":
        client.close()
        go_on.set()
        wait_for(lambda: server.stats()["connections"] == 0)
        begun.clear()
        other = http_serving.client()
        assert other.ask(accept_encoding="gzip").body == TEXT * 100
    else:
        threading.Timer(0.3, go_on.set).start()
        server.close(0.1)
        assert len(client.rest()) < len(TEXT)  # at most the head
    time.sleep(0.05)


def test_a_coder_that_fails(http_serving: HttpServing, errors_logged: Any) -> None:
    class Coder:
        def encode(self, data: bytes) -> bytes:
            raise ValueError("no coder")

    async def handler(request: http.Request) -> http.Response:
        parts = [TEXT * 100] if request.path == "/large" else [TEXT]
        return http.Response(parts, headers=HTML)

    compression = http.Compression(codings=("gzip",))
    object.__setattr__(compression, "_makers", lambda: {"gzip": Coder})
    http_serving(handler, compression=compression)
    for path in ("/large", "/small"):
        client = http_serving.client()
        client.send(f"GET {path} HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n".encode())
        assert not client.rest().endswith(b"0\r\n\r\n")
    assert "no coder" in errors_logged.text


def test_files(http_serving: HttpServing, tmp_path: pathlib.Path) -> None:
    """Small ones are bodies like others; those that the kernel sends go as they are."""
    small, large = tmp_path / "small.txt", tmp_path / "large.txt"
    small.write_bytes(TEXT)
    large.write_bytes(TEXT * 100)

    def handler(request: http.Request) -> http.Response:
        return http.Response(tmp_path / request.path[1:], content_type="text/plain")

    http_serving(handler, compression=ALL)
    client = http_serving.client()
    assert decoded(client.ask("/small.txt", accept_encoding="gzip")) == TEXT
    answer = client.ask("/large.txt", accept_encoding="gzip")
    assert (answer.header("content-encoding"), answer.body) == (None, TEXT * 100)


def test_a_file_within_a_compressed_answer(
    http_serving: HttpServing, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes(TEXT * 1000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        with path.open("rb") as file:
            message = {"type": "http.response.zerocopysend", "file": file, "more_body": True}
            await send(message)
        await send({"type": "http.response.body", "body": b"last"})

    http_serving(app, lifespan="off", compression=ALL)
    client = http_serving.client()
    for _ in range(2):
        answer = client.ask(accept_encoding="gzip")
        assert decoded(answer) == b"first" + TEXT * 1000 + b"last"


def test_wrong_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="codings"):
        http.Compression(codings=("deflate",))
    with pytest.raises(ValueError, match="min_bytes"):
        http.Compression(min_bytes=-1)
    monkeypatch.setitem(__import__("sys").modules, "brotli", None)
    with pytest.raises(RuntimeError, match=r"netpoll\[http\]"):
        http.Compression(codings=("br",))._makers()
    assert "gzip" in http.Compression()._makers()
    assert "br" not in http.Compression()._makers()


@pytest.mark.parametrize(
    ("media_type", "suits"),
    [
        (b"text/plain", True),
        (b"TEXT/HTML; charset=utf-8", True),
        (b"application/json", True),
        (b"application/problem+json", True),
        (b"image/svg+xml", True),
        (b"image/png", False),
        (b"application/zip", False),
        (b"nonsense", False),
        (b"", False),
    ],
)
def test_media_types(media_type: bytes, suits: bool) -> None:
    assert http.Compression()._suits(media_type) is suits
