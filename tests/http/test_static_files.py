"""netpoll.http.StaticFiles: names, validators, ranges, encoded twins; as a function and in ASGI."""

import asyncio
import email.parser
import errno
import gzip
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from netpoll import http
from netpoll._http import conditions, media, negotiate
from netpoll._native.http.served_file import FileCache
from tests.http.conftest import Answer, Client, HttpServing

LARGE = bytes(range(256)) * 4096  # 1 MiB: by sendfile(2)
OLD_S = 1_000_000_000


def put(path: pathlib.Path, data: bytes, changed_s: float = OLD_S) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (changed_s, changed_s))
    return path


@pytest.fixture
def site(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "site"
    put(root / "index.html", b"<p>home")
    put(root / "a.txt", b"0123456789")
    put(root / "large.bin", LARGE)
    put(root / "docs/index.html", b"<p>docs")
    put(root / "empty/none.txt", b"")
    put(root / ".secret", b"secret")
    put(root / ".well-known/acme", b"token")
    put(tmp_path / "outside.txt", b"outside")
    return root


@pytest.fixture(params=["function", "asgi"])
def serve(request: pytest.FixtureRequest, http_serving: HttpServing) -> Callable[..., Client]:
    def start(site: pathlib.Path, **options: Any) -> Client:
        files = http.StaticFiles(site, **options)
        http_serving(files.answer if request.param == "function" else files)
        return http_serving.client()

    return start


def test_a_file(serve: Any, site: pathlib.Path) -> None:
    client = serve(site, cache_control="max-age=60", headers=[("X-More", "1")])
    answer = client.ask("/a.txt?version=1")
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.header("content-length") == "10"
    assert answer.header("last-modified") == "Sun, 09 Sep 2001 01:46:40 GMT"
    assert answer.header("accept-ranges") == "bytes"
    assert answer.header("cache-control") == "max-age=60"
    assert answer.header("x-more") == "1"
    assert (answer.header("etag") or "").startswith('"')
    head = client.ask("/a.txt", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.header("content-length") == "10"
    assert client.ask("/a.txt", "POST", b"x").header("allow") == "GET, HEAD"


def test_large_files_and_pipelining(serve: Any, site: pathlib.Path) -> None:
    client = serve(site)
    for _ in range(2):
        assert client.ask("/large.bin").body == LARGE
    assert client.ask("/large.bin", "HEAD").header("content-length") == str(len(LARGE))
    client.send(b"GET /large.bin HTTP/1.1\r\nhost: a\r\n\r\nGET /a.txt HTTP/1.1\r\nhost: a\r\n\r\n")
    assert client.answer().body == LARGE
    assert client.answer().body == b"0123456789"


def test_index_files_and_the_slash_of_directories(serve: Any, site: pathlib.Path) -> None:
    client = serve(site)
    assert client.ask("/").body == b"<p>home"
    assert client.ask("/docs/").body == b"<p>docs"
    moved = client.ask("/docs?a=b")
    assert (moved.status, moved.header("location")) == (301, "./docs/?a=b")
    for path in ("/empty", "/empty/", "/a.txt/", "/missing/"):
        assert client.ask(path).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../outside.txt",
        "/%2e%2e/outside.txt",
        "/%2E./outside.txt",
        "/docs/../../outside.txt",
        "/docs/..%2f..%2foutside.txt",
        "/docs%2findex.html",
        "/docs/%2Findex.html",
        "//outside.txt",
        "/docs//index.html",
        "/./a.txt",
        "/a.txt%00",
        "/a.txt%00.html",
        "/%00/",
        "/.secret",
        "/docs/.well-known/acme",
        "/link.txt",
        "/way/outside.txt",
        "/absolute.txt",
        "/pipe",
        "/missing",
        "/a.txt/b",
        "/" + "n" * 300,
        "/%ff%fe",
        "/%ed%a0%80",
        "//evil.example/%2e%2e",
    ],
)
def test_names_that_lead_nowhere(serve: Any, site: pathlib.Path, path: str) -> None:
    (site / "link.txt").symlink_to("../outside.txt")
    (site / "way").symlink_to("..")
    (site / "absolute.txt").symlink_to(site.parent / "outside.txt")
    os.mkfifo(site / "pipe")
    client = serve(site)
    assert client.ask(path).status == 404
    assert client.ask("/a.txt").status == 200


def test_links_within_and_hidden_names(serve: Any, site: pathlib.Path) -> None:
    (site / "inside.txt").symlink_to("a.txt")
    client = serve(site)
    assert client.ask("/inside.txt").body == b"0123456789"
    assert client.ask("/.well-known/acme").body == b"token"
    assert client.ask("/.secret").status == 404


def test_what_can_be_allowed(http_serving: HttpServing, site: pathlib.Path) -> None:
    (site / "link.txt").symlink_to(site.parent / "outside.txt")
    files = http.StaticFiles(site, follow_symlinks=True, dotfiles=True, types={".txt": "text/x"})
    http_serving(files.answer)
    client = http_serving.client()
    assert client.ask("/link.txt").body == b"outside"
    assert client.ask("/.secret").body == b"secret"
    assert client.ask("/a.txt").header("content-type") == "text/x"
    assert client.ask("/../outside.txt").status == 404


def test_without_openat2(site: pathlib.Path) -> None:
    """An old kernel, or a filter: what was opened is asked where it is."""
    (site / "link.txt").symlink_to("../outside.txt")
    (site / "inside.txt").symlink_to("a.txt")
    for by_kernel in (True, False):
        cache = FileCache(by_kernel)
        assert cache.find(f"{site}/inside.txt", str(site)).data == b"0123456789"
        with pytest.raises(PermissionError) as caught:
            cache.find(f"{site}/link.txt", str(site))
        assert caught.value.errno == errno.EXDEV


def test_a_mount(http_serving: HttpServing, site: pathlib.Path) -> None:
    files = http.StaticFiles(site, prefix="/static/")
    http_serving(lambda request: files.answer(request))
    client = http_serving.client()
    assert client.ask("/static/a.txt").body == b"0123456789"
    assert client.ask("/static/").body == b"<p>home"
    for path in ("/a.txt", "/staticx/a.txt", "/static"):
        assert client.ask(path).status == 404


def test_a_mount_in_a_framework(http_serving: HttpServing, site: pathlib.Path) -> None:
    routing = pytest.importorskip("starlette.routing")
    applications = pytest.importorskip("starlette.applications")
    files = http.StaticFiles(site)
    http_serving(applications.Starlette(routes=[routing.Mount("/static", app=files)]))
    client = http_serving.client()
    assert client.ask("/static/a.txt").body == b"0123456789"
    assert client.ask("/static/large.bin").body == LARGE
    assert client.ask("/static/docs").header("location") == "./docs/"
    assert client.ask("/static/..%2foutside.txt").status == 404


def test_other_servers_of_asgi(site: pathlib.Path) -> None:
    """Without extensions, a large file is read in pieces."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is received")

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/large.bin",
        "query_string": b"",
        "headers": [(b"range", b"bytes=1-1000000")],
    }
    asyncio.run(http.StaticFiles(site)(scope, receive, send))
    assert sent[0]["status"] == 206
    assert b"".join(message.get("body", b"") for message in sent[1:]) == LARGE[1:1000001]
    assert not sent[-1].get("more_body", False)


# ---- validators -----------------------------------------------------------------------------


def test_conditions(serve: Any, site: pathlib.Path) -> None:
    client = serve(site, cache_control="no-cache")
    first = client.ask("/a.txt")
    etag, date = first.header("etag") or "", first.header("last-modified") or ""
    later, earlier = "Sun, 09 Sep 2001 01:46:41 GMT", "Sun, 09 Sep 2001 01:46:39 GMT"
    cases: list[tuple[dict[str, str], int]] = [
        ({"if-none-match": etag}, 304),
        ({"if-none-match": f'"x", W/{etag}'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": '"x"'}, 200),
        ({"if-none-match": '"x"', "if-modified-since": date}, 200),
        ({"if-modified-since": date}, 304),
        ({"if-modified-since": later}, 304),
        ({"if-modified-since": earlier}, 200),
        ({"if-modified-since": "yesterday"}, 200),
        ({"if-match": etag}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": '"x"'}, 412),
        ({"if-match": f"W/{etag}"}, 412),
        ({"if-unmodified-since": date}, 200),
        ({"if-unmodified-since": earlier}, 412),
        ({"if-match": etag, "if-unmodified-since": earlier}, 200),
        ({"if-match": etag, "if-none-match": etag}, 304),
    ]
    for headers, status in cases:
        assert client.ask("/a.txt", **headers).status == status, headers
    same = client.ask("/a.txt", **{"if-none-match": etag})
    assert (same.header("etag"), same.header("cache-control")) == (etag, "no-cache")
    assert same.header("content-length") is None
    assert same.header("content-type") is None


def test_a_change_is_seen_at_once(serve: Any, site: pathlib.Path) -> None:
    client = serve(site)
    seen = set()
    for i in range(4):
        body = bytes([65 + i]) * 100
        if i % 2:
            put(site / "b.txt", body, OLD_S + i)  # in place
        else:
            put(site / "new", body, OLD_S + i).rename(site / "b.txt")
        for _ in range(2):
            answer = client.ask("/b.txt")
            assert answer.body == body
        seen.add(answer.header("etag"))
    assert len(seen) == 4
    (site / "b.txt").unlink()
    assert client.ask("/b.txt").status == 404


def test_a_young_file_is_not_kept(site: pathlib.Path) -> None:
    """The clock of a file system may be too coarse for two changes; an old file is kept."""
    cache = FileCache()
    young = cache.find(str(site / "a.txt"))  # its inode was made just now
    assert (young.data, cache.kept_bytes) == (b"0123456789", 0)
    deadline = time.monotonic() + 20
    while cache.kept_bytes == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
        kept = cache.find(str(site / "a.txt"))
    assert cache.kept_bytes == 10
    assert cache.find(str(site / "a.txt")) is kept
    put(site / "a.txt", b"!" * 10, OLD_S)  # with the same size and time
    assert cache.find(str(site / "a.txt")).data == b"!" * 10
    assert cache.kept_bytes == 0


def test_what_is_kept_is_bounded(tmp_path: pathlib.Path) -> None:
    cache = FileCache()
    for i in range(200):
        put(tmp_path / str(i), bytes(100_000))
    time.sleep(2.1)  # now they are old enough
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and cache.kept_bytes < 10_000_000:
        for i in range(200):
            assert cache.find(str(tmp_path / str(i))).size == 100_000
    assert 10_000_000 < cache.kept_bytes <= 16 * 1024 * 1024


# ---- ranges ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ("bytes=0-3", (0, 4)),
        ("bytes=4-", (4, 6)),
        ("bytes=-3", (7, 3)),
        ("bytes=8-100", (8, 2)),
        ("bytes=-100", (0, 10)),
        ("BYTES = 0-0", (0, 1)),
        ("bytes=2-2, 50-", (2, 1)),
    ],
)
def test_one_range(serve: Any, site: pathlib.Path, wanted: str, part: tuple[int, int]) -> None:
    client = serve(site)
    answer = client.ask("/a.txt", range=wanted)
    offset, size = part
    assert (answer.status, answer.body) == (206, b"0123456789"[offset : offset + size])
    assert answer.header("content-range") == f"bytes {offset}-{offset + size - 1}/10"
    assert answer.header("content-length") == str(size)
    assert answer.header("content-type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        ("bytes=10-", 416),
        ("bytes=-0", 416),
        ("bytes=100-200, 300-", 416),
        ("bytes=", 200),
        ("bytes=-", 200),
        ("bytes=3-1", 200),
        ("bytes=a-b", 200),
        ("bytes=1-2x", 200),
        ("lines=1-2", 200),
        ("bytes=0-9,0-9", 200),  # more than there is
        ("bytes=" + ",".join("0-0" for _ in range(17)), 200),
        ("bytes=" + "9" * 100 + "-", 200),
    ],
)
def test_ranges_that_are_none(serve: Any, site: pathlib.Path, wanted: str, status: int) -> None:
    client = serve(site)
    answer = client.ask("/a.txt", range=wanted)
    assert answer.status == status
    if status == 416:
        assert answer.header("content-range") == "bytes */10"
    else:
        assert answer.body == b"0123456789"


def parts_of(answer: Answer) -> list[tuple[str, bytes]]:
    """Read by the standard library's reader of MIME."""
    kind = answer.header("content-type") or ""
    assert kind.startswith("multipart/byteranges; boundary=")
    message = email.parser.BytesParser().parsebytes(
        f"content-type: {kind}\r\n\r\n".encode() + answer.body
    )
    assert message.is_multipart()
    parts = message.get_payload()
    assert isinstance(parts, list)
    found = []
    for part in parts:
        assert not isinstance(part, str)
        found.append((str(part["content-range"]), part.get_payload(decode=True)))
    return found


def test_several_ranges(serve: Any, site: pathlib.Path) -> None:
    client = serve(site)
    answer = client.ask("/a.txt", range="bytes=0-1, 4-5, 90-99, -2")
    assert answer.status == 206
    assert parts_of(answer) == [
        ("bytes 0-1/10", b"01"),
        ("bytes 4-5/10", b"45"),
        ("bytes 8-9/10", b"89"),
    ]
    text = LARGE.replace(b"\r", b"-").replace(b"\n", b"-")  # MIME would mend its line ends
    put(site / "large.bin", text)
    large = client.ask("/large.bin", range="bytes=1-300000,500000-500009")
    assert [len(data) for _, data in parts_of(large)] == [300000, 10]
    assert text[1:300001] in large.body
    assert client.ask("/a.txt", "HEAD", range="bytes=0-1").status == 200


def test_if_range(serve: Any, site: pathlib.Path) -> None:
    client = serve(site)
    first = client.ask("/a.txt")
    etag, date = first.header("etag") or "", first.header("last-modified") or ""
    for condition, status in [
        (etag, 206),
        (f"W/{etag}", 200),
        ('"x"', 200),
        (date, 206),
        ("Sun, 09 Sep 2001 01:46:41 GMT", 200),
        ("nonsense", 200),
    ]:
        answer = client.ask("/a.txt", range="bytes=0-1", **{"if-range": condition})
        assert answer.status == status, condition
    put(site / "young.txt", b"0123", int(time.time()))
    date = client.ask("/young.txt").header("last-modified") or ""
    young = client.ask("/young.txt", range="bytes=0-1", **{"if-range": date})
    assert young.status == 200  # it may change again within this second


# ---- twins ----------------------------------------------------------------------------------


def test_encoded_twins(serve: Any, site: pathlib.Path) -> None:
    packed = gzip.compress(b"0123456789")
    put(site / "a.txt.gz", packed)
    put(site / "a.txt.br", b"br" * 10)
    put(site / "docs/index.html.gz", b"stale", OLD_S - 10)
    client = serve(site)
    plain = client.ask("/a.txt")
    assert (plain.header("vary"), plain.body) == ("accept-encoding", b"0123456789")
    zipped = client.ask("/a.txt", accept_encoding="gzip, deflate")
    assert (zipped.header("content-encoding"), zipped.body) == ("gzip", packed)
    assert zipped.header("content-type") == "text/plain; charset=utf-8"
    assert zipped.header("vary") == "accept-encoding"
    assert zipped.header("etag") not in (None, plain.header("etag"))
    assert client.ask("/a.txt", accept_encoding="gzip, br").header("content-encoding") == "br"
    assert client.ask("/a.txt", accept_encoding="br;q=0, *").header("content-encoding") == "gzip"
    part = client.ask("/a.txt", range="bytes=0-3", accept_encoding="gzip")
    assert (part.status, part.body) == (206, packed[:4])
    page = client.ask("/docs/", accept_encoding="gzip")
    assert (page.header("content-encoding"), page.header("vary")) == (None, None)
    etag = zipped.header("etag") or ""
    again = client.ask("/a.txt", accept_encoding="gzip", **{"if-none-match": etag})
    assert (again.status, again.header("vary")) == (304, "accept-encoding")
    assert client.ask("/a.txt", **{"if-none-match": etag}).status == 200


def test_a_twin_that_comes_and_goes(serve: Any, site: pathlib.Path) -> None:
    client = serve(site)
    assert client.ask("/a.txt", accept_encoding="gzip").header("content-encoding") is None
    put(site / "a.txt.gz", b"zipped")
    assert ask_until(client, "gzip").body == b"zipped"
    (site / "a.txt.gz").unlink()
    assert ask_until(client, None).body == b"0123456789"


def ask_until(client: Client, coding: str | None) -> Answer:
    """Twins are looked for once a second."""
    deadline = time.monotonic() + 20
    while True:
        answer = client.ask("/a.txt", accept_encoding="gzip")
        if answer.status == 200 and answer.header("content-encoding") == coding:
            return answer
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- single values --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, br", "br"),
        ("gzip;q=1.0, br;q=0.5", "gzip"),
        ("gzip ; q=0.8 , br;q=0.80", "br"),
        ("*", "br"),
        ("*;q=0", None),
        ("br;q=0, *;q=0.1", "gzip"),
        ("identity", None),
        ("identity;q=0.5, gzip;q=0.2", None),
        ("identity;q=0, gzip", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("gzip;q=x", None),
        ("gzip;q=1.5", None),
        ("gzip;q=0.1234", None),
        ("gzip;q=\u00b9", None),
        (",,gzip;;", "gzip"),
        ("compress", None),
    ],
)
def test_accept_encoding(accepted: str | None, coding: str | None) -> None:
    negotiate.best_coding.cache_clear()
    assert negotiate.best_coding(accepted, ("br", "gzip")) == coding


def test_media_types() -> None:
    assert media.media_type("a.HTML", {}) == "text/html; charset=utf-8"
    assert media.media_type("a.tar.gz", {}) == "application/gzip"
    assert media.media_type("app.js", {}) == "text/javascript; charset=utf-8"
    assert media.media_type("a.wasm", {}) == "application/wasm"
    assert media.media_type("noending", {}) == "application/octet-stream"
    assert media.media_type(".html", {}) == "application/octet-stream"
    assert media.media_type("a.x", {".x": "text/x"}) == "text/x"


def test_dates() -> None:
    for text in (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ):
        assert conditions.second_of(text) == 784111777, text
    ahead = time.gmtime().tm_year + 49
    late = conditions.second_of(f"Monday, 01-Jan-{ahead % 100:02} 00:00:00 GMT")
    assert late is not None and time.gmtime(late).tm_year == ahead
    for text in ("", "Sun, 06 Nov 0000 08:49:37 GMT", "Sun, 06 Abc 1994 08:49:37 GMT", "784111777"):
        assert conditions.second_of(text) is None


def test_wrong_arguments(site: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="precompressed"):
        http.StaticFiles(site, precompressed=["deflate"])
    with pytest.raises(ValueError, match="prefix"):
        http.StaticFiles(site, prefix="static")
