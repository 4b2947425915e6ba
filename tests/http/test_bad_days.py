"""Peers and applications on their bad days: nothing hangs or leaks, the others do not notice."""

import asyncio
import random
import socket
import struct
import threading
import time
from typing import Any

import pytest

from netpoll import http
from tests import tls
from tests.http.conftest import HttpServing
from tests.server.conftest import wait_for
from tests.support import SLOWNESS

REQUEST = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"


def test_a_slow_head_is_answered_408(http_serving: HttpServing) -> None:
    http_serving(lambda request: b"", limits=http.HttpLimits(head_timeout_s=1))
    client = http_serving.client()
    assert client.ask().status == 200
    client.send(b"GET / HTTP/1.1\r\nhost:")
    assert client.answer().status == 408
    assert client.rest() == b""


def test_a_body_that_stalls_is_answered_408(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> bytes:
        return await request.read()

    for one in (handler, lambda request: request.body):
        http_serving(one, limits=http.HttpLimits(stall_timeout_s=1))
        client = http_serving.client()
        client.send(REQUEST[:-2])
        assert client.answer().status == 408
        assert client.rest() == b""


def test_an_asgi_application_hears_of_a_body_that_stalls(http_serving: HttpServing) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            seen.append(message["type"])
            if message["type"] == "http.disconnect":
                return

    http_serving(app, lifespan="off", limits=http.HttpLimits(stall_timeout_s=1))
    client = http_serving.client()
    client.send(REQUEST[:-2])
    assert client.answer().status == 408
    wait_for(lambda: seen == ["http.request", "http.disconnect"])


def test_an_answer_that_a_stalled_body_cuts_does_not_look_complete(
    http_serving: HttpServing,
) -> None:
    """Of HTTP/1.0, where the end of the connection is that of the body."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive()).get("more_body"):
            pass

    http_serving(app, lifespan="off", limits=http.HttpLimits(stall_timeout_s=1))
    client = http_serving.client()
    client.send(b"POST / HTTP/1.0\r\ncontent-length: 5\r\n\r\nab")
    with pytest.raises(ConnectionResetError):
        client.rest()


def test_a_reader_that_stalls_is_cut_off(http_serving: HttpServing) -> None:
    ended = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        except OSError:
            ended.set()

    server = http_serving(app, lifespan="off", limits=http.HttpLimits(stall_timeout_s=1))
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert ended.wait(30)
    wait_for(lambda: server.stats()["connections"] == 0)


def test_a_closing_connection_whose_peer_does_not_read_ends(http_serving: HttpServing) -> None:
    body = b"x" * (1 << 24)
    server = http_serving(lambda request: body, limits=http.HttpLimits(stall_timeout_s=1))
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    wait_for(lambda: server.stats()["connections"] == 0, 20)


def test_a_refused_body_is_told_while_it_still_comes(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> bytes:
        return await request.read()

    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    for one in (handler, lambda request: request.body):
        http_serving(one, limits=http.HttpLimits(body_max_bytes=1000))
        client = http_serving.client()
        client.send(head)
        sent = threading.Thread(target=client.send, args=(b"800\r\n%s\r\n" % (b"x" * 2048) * 2000,))
        sent.start()
        assert client.answer().status == 413
        assert client.rest() == b""
        sent.join()


def test_who_reads_behind_its_body_sees_the_answer(http_serving: HttpServing) -> None:
    """However long that takes, as long as it goes on."""
    http_serving(lambda request: b"", limits=http.HttpLimits(body_max_bytes=1000))
    client = http_serving.client()
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")
    for _ in range(50):
        client.send(b"x" * 2000)
        time.sleep(0.1)
    assert client.answer().status == 413
    assert client.rest() == b""


def test_requests_behind_a_body_are_answered(http_serving: HttpServing) -> None:
    """The body ends in a receive that has more than may wait unread behind it."""
    http_serving(lambda request: request.body)
    client = http_serving.client()
    client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n")
    wait_for(lambda: http_serving.servers[-1].stats()["recv_bytes"] > 0)
    count = 5000
    sent = threading.Thread(
        target=client.send, args=(b"0123456789" + b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * count,)
    )
    sent.start()
    assert client.answer().body == b"0123456789"
    for _ in range(count):
        assert client.answer().status == 200
    sent.join()


def test_pipelined_large_answers_stop_at_a_peer_that_does_not_read(
    http_serving: HttpServing,
) -> None:
    calls: list[int] = []
    body = b"x" * (1 << 20)

    def handler(request: http.Request) -> bytes:
        calls.append(1)
        return body

    http_serving(handler)
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 500)
    wait_for(lambda: calls)
    counts: list[int] = []

    def is_still() -> bool:
        counts.append(len(calls))
        return len(counts) > 100 and len(set(counts[-100:])) == 1

    wait_for(is_still)
    assert len(calls) < 100
    for _ in range(500):
        assert len(client.answer().body) == len(body)


def test_an_idle_connection_is_closed(http_serving: HttpServing) -> None:
    http_serving(lambda request: b"", limits=http.HttpLimits(keep_alive_timeout_s=0.2))
    client = http_serving.client()
    assert client.ask().status == 200
    assert client.rest() == b""


def test_a_connection_that_says_nothing_is_closed_as_a_slow_head_is(
    http_serving: HttpServing,
) -> None:
    """From its beginning; and without a word, for no request is there to be answered."""
    http_serving(lambda request: b"", limits=http.HttpLimits(head_timeout_s=1))
    silent, slow, good = (http_serving.client() for _ in range(3))
    assert good.ask().status == 200
    threading.Event().wait(0.7)
    slow.send(b"GET / HTTP/1.1\r\nhost:")
    began_s = time.monotonic()
    assert slow.answer().status == 408
    assert silent.rest() == b""
    # 0.3 s are left, and up to two ticks of a second.
    assert time.monotonic() - began_s < 2.5 * SLOWNESS
    assert good.ask().status == 200  # between two requests it is keep-alive's


def test_the_place_of_a_silent_connection_is_another_ones(http_serving: HttpServing) -> None:
    """What was known of one that has left says nothing about who has its place now."""
    limits = http.HttpLimits(head_timeout_s=2)
    trusted = tls.client_context()
    server = http_serving(lambda request: b"", limits=limits, ssl=tls.server_context())
    with trusted.wrap_socket(http_serving.connect(), server_hostname="localhost"):
        wait_for(lambda: server.stats()["handshakes"] == 1)
    wait_for(lambda: server.stats()["connections"] == 0)
    threading.Event().wait(1.5)
    raw = http_serving.connect()
    threading.Event().wait(1.2)  # the handshake is slow, and has still time
    with trusted.wrap_socket(raw, server_hostname="localhost") as secure:
        secure.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert secure.recv(12) == b"HTTP/1.1 200"


def test_a_tls_handshake_has_its_time(http_serving: HttpServing) -> None:
    server = http_serving(
        lambda request: b"",
        limits=http.HttpLimits(handshake_timeout_s=0.2),
        ssl=tls.server_context(),
    )
    client = http_serving.connect()
    client.sendall(b"\x16\x03\x01")
    wait_for(lambda: server.stats()["failed_handshakes"] == 1)
    wait_for(lambda: server.stats()["connections"] == 0)


def test_an_answer_may_take_longer_than_a_short_keep_alive(http_serving: HttpServing) -> None:
    """The wheel of so short a time-out turns many times a second."""

    async def handler(request: http.Request) -> bytes:
        await asyncio.sleep(0.7)
        return b"late"

    http_serving(handler, limits=http.HttpLimits(keep_alive_timeout_s=0.1))
    client = http_serving.client()
    assert client.ask().body == b"late"
    assert client.rest() == b""


def test_an_application_may_take_longer_than_keep_alive(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> bytes:
        await asyncio.sleep(3)
        return b"late"

    http_serving(handler, limits=http.HttpLimits(keep_alive_timeout_s=2.5))
    assert http_serving.client().ask().body == b"late"


@pytest.mark.parametrize("interface", ["raw", "async", "asgi"])
def test_resets_at_every_stage(http_serving: HttpServing, interface: str) -> None:
    """Some hundred clients that go away at any byte, some with a reset, while one is served."""

    def plain(request: http.Request) -> bytes:
        return request.body

    async def later(request: http.Request) -> http.Response:
        body = await request.read()
        await asyncio.sleep(0)
        return http.Response([body] * 3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        await send({"type": "http.response.start", "status": 200})
        for _ in range(3):
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    handler: Any = {"raw": plain, "async": later, "asgi": app}[interface]
    server = http_serving(handler, lifespan="off")
    good = http_serving.client()
    chance = random.Random(interface)
    expected = b"hello" * (1 if interface == "raw" else 3)
    for number in range(300):
        sock = socket.create_connection(("127.0.0.1", server.port))
        if chance.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(REQUEST * chance.randint(0, 3) + REQUEST[: chance.randrange(len(REQUEST))])
        if chance.random() < 0.3:
            sock.shutdown(socket.SHUT_WR)
        sock.close()
        if number % 20 == 0:
            assert good.ask("/", "POST", b"hello").body == expected
    good.close()
    wait_for(lambda: server.stats()["connections"] == 0)


def test_pipelining_without_reading_is_bounded(http_serving: HttpServing) -> None:
    """A peer that sends requests and takes no answer is not read from for ever."""
    body = b"x" * 10_000
    server = http_serving(lambda request: body)
    client = http_serving.client()
    client.sock.settimeout(1.0)
    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 1 << 26:
            sent += client.sock.send(request * 1000)
    assert server.stats()["connections"] == 1
    client.close()
    wait_for(lambda: server.stats()["connections"] == 0)


def test_a_flood_of_small_chunks_costs_one_event(http_serving: HttpServing) -> None:
    """All chunks of a receive are one message to the application."""
    counts: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        count = size = 0
        while True:
            message = await receive()
            count += 1
            size += len(message["body"])
            if not message["more_body"]:
                break
        counts.append(count)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": str(size).encode()})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    client.send(head + b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n")
    assert client.answer().body == b"3000"
    assert counts[0] < 100


def test_an_application_that_never_ends_is_cancelled_at_the_stop(
    http_serving: HttpServing,
) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    server = http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert client.file.read(12) == b"HTTP/1.1 200"
    server.close(0.2)
    assert seen == ["cancelled"]
    with pytest.raises((ConnectionResetError, ValueError)):
        text = client.rest()
        raise ValueError if not text.endswith(b"0\r\n\r\n") else AssertionError


def test_a_server_is_collectable(backend: str) -> None:
    import gc
    import weakref

    def once() -> Any:
        server = http.Server(lambda request: b"x", "127.0.0.1", 0, backend=backend)
        with server:
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                sock.recv(1000)
        return weakref.ref(server)

    reference = once()
    gc.collect()
    assert reference() is None
