"""The reader of requests as an object: its events, its ends, its limits. What it reads and refuses
is tested in C (tests/c/test_http1.c, tests/c/test_http_body.c)."""

import random
import sys
from urllib.parse import unquote_to_bytes

import pytest

from netpoll import http
from netpoll._native.http.parser import RequestParser, unquote

from .conftest import HttpServing

POST = (
    b"POST /a%20b?c HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n"
)


def test_events_come_with_what_completes_them() -> None:
    parser = RequestParser()
    assert parser.feed(POST[:20]) == []
    (kind, head), data = parser.feed(POST[20:])
    assert kind == "head"
    assert head == {
        "method": b"POST",
        "target": b"/a%20b?c",
        "authority": b"a",
        "path": b"/a b",
        "query": b"c",
        "minor": 1,
        "fields": [
            (b"Host", b"a"),
            (b"Expect", b"100-continue"),
            (b"Transfer-Encoding", b"chunked"),
        ],
        "content_length": None,
        "chunked": True,
        "keep_alive": True,
        "expects": True,
        "upgrades": False,
        "websocket": False,
    }
    assert data == ("data", b"abcde")  # all chunks of a receive are one event
    assert parser.feed(b"") == []
    events = parser.feed(b"0\r\n\r\nGET / HTTP/1.0\r\n\r\n")
    assert [event[0] for event in events] == ["end", "head", "end"]


def test_many_small_chunks_are_one_event() -> None:
    parser = RequestParser()
    parser.feed(POST)
    assert parser.feed(b"1\r\nx\r\n" * 1000) == [("data", b"x" * 1000)]


def test_a_fault_is_final() -> None:
    parser = RequestParser()
    parser.feed(POST)
    fault = ("fault", "CHUNK_SIZE", 400, "RFC 9112 7.1")
    (event,) = parser.feed(b"x\r\n")
    assert event[:4] == fault
    assert parser.feed(b"GET / HTTP/1.0\r\n\r\n") == [event]
    assert parser.feed(b"") == [event]


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"line_max_bytes": 20}, "LINE_LONG"),
        ({"head_max_bytes": 60}, "HEAD_LARGE"),
        ({"fields_max_count": 2}, "FIELDS_MANY"),
        ({"body_max_bytes": 4}, "BODY_LARGE"),
    ],
)
def test_limits_are_those_that_were_given(limits: dict[str, int], name: str) -> None:
    assert RequestParser(**limits).feed(POST)[-1][1] == name


@pytest.mark.parametrize("name", ["line_max_bytes", "head_max_bytes", "fields_max_count"])
@pytest.mark.parametrize("limit", [0, -1, (1 << 30) + 1, (1 << 32) - 1, 1 << 70])
def test_limits_are_numbers_that_can_be_counted_to(name: str, limit: int) -> None:
    for kind in (RequestParser, http.HttpLimits):
        with pytest.raises(ValueError, match=f"{name} (must be|is at most)"):
            kind(**{name: limit})


def test_a_body_may_be_of_any_size() -> None:
    head = b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (1 << 62)
    assert RequestParser(body_max_bytes=1 << 70).feed(head)[-1][0] == "head"


def test_a_time_may_be_any(http_serving: HttpServing) -> None:
    for time_s in (1e-9, 1e300):
        limits = http.HttpLimits(
            head_timeout_s=time_s, stall_timeout_s=time_s, keep_alive_timeout_s=max(time_s, 9)
        )
        http_serving(lambda request: b"answer", limits=limits)
        assert http_serving.client().ask().body == b"answer"


def test_bytes_are_let_go() -> None:
    parser = RequestParser()
    parts = [bytes(bytearray(part)) for part in (POST[:30], POST[30:], b"0\r\n\r\nGET", b" ( ")]
    before = [sys.getrefcount(part) for part in parts]
    for i in range(len(parts)):
        parser.feed(parts[i])
    assert [sys.getrefcount(part) for part in parts] == before


def test_percent_signs_are_decoded_as_urllib_does() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        path = bytes(rng.choice(b"%%%0123456789abcdefABCDEFgz/\xc3") for _ in range(12))
        assert unquote(path) == unquote_to_bytes(path)
