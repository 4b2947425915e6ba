"""WebSockets that are too large, too fast, too slow or silent."""

import asyncio
import struct
import threading
import time
import tracemalloc
from typing import Any

import pytest

from netpoll import http
from tests.http.conftest import HttpServing
from tests.http.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    Frame,
    Peer,
    close_frame,
    echo,
    frame,
)
from tests.server.conftest import wait_for, wait_until_still

Scope = dict[str, Any]


# ---- limits and backpressure --------------------------------------------------------------------


@pytest.mark.parametrize("data", [
    frame(BINARY, bytes(1001)),
    frame(BINARY, bytes(1001))[:8],  # its head is enough
    frame(BINARY, bytes(600), 0) + frame(CONTINUATION, bytes(401), 0),
], ids=["whole", "head", "fragments"])  # fmt: skip
def test_a_message_that_is_too_large(http_serving: HttpServing, data: bytes) -> None:
    http_serving(echo, limits=http.HttpLimits(websocket_max_bytes=1000))
    peer = Peer(http_serving.client())
    peer.send(frame(BINARY, bytes(1000)))
    assert len(peer.receive().payload) == 1000
    peer.send(data)
    assert peer.closed() == (1009, b"")


def test_without_a_limit(http_serving: HttpServing) -> None:
    http_serving(echo, limits=http.HttpLimits(websocket_max_bytes=None))
    peer = Peer(http_serving.client())
    peer.send(frame(BINARY, bytes(17 << 20)))
    assert len(peer.receive().payload) == 17 << 20


def test_a_fast_sender_is_held_back(http_serving: HttpServing) -> None:
    go_on = threading.Event()
    total: list[int] = []

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()
        while not go_on.is_set():
            await asyncio.sleep(0.005)
        async for message in websocket:
            total.append(len(message))

    http_serving(handler)
    client = http_serving.client()
    peer = Peer(client)
    count, size = 2000, 32_768
    sent: list[int] = []

    def send_all() -> None:
        for _ in range(count):
            peer.send(frame(BINARY, bytes(size)))
            sent.append(size)
        peer.send(close_frame(1000))

    thread = threading.Thread(target=send_all)
    thread.start()
    assert wait_until_still(lambda: len(sent)) < count
    go_on.set()
    thread.join(20)
    assert peer.closed() == (1000, b"")
    wait_for(lambda: sum(total) == count * size)


def test_a_burst_of_small_messages_is_received_whole(http_serving: HttpServing) -> None:
    got: list[Any] = []

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()
        await asyncio.sleep(0.05)
        async for message in websocket:
            got.append(message)

    http_serving(handler)
    client = http_serving.client()
    peer = Peer(client)
    peer.send(b"".join(frame(TEXT, b"%d" % number) for number in range(1000)))
    client.close()  # the end stands behind all of them
    wait_for(lambda: len(got) == 1000)
    assert got == [str(number) for number in range(1000)]


def test_a_slow_reader_holds_all_senders_back(http_serving: HttpServing) -> None:
    sent: list[int] = []

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()

        async def send_many(number: int) -> None:
            for _ in range(100):
                await websocket.send(bytes([number]) * 65536)
                sent.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(send_many(number))

    http_serving(handler)
    peer = Peer(http_serving.client())
    counts: list[int] = []

    def is_still() -> bool:
        counts.append(len(sent))
        return len(counts) > 50 and len(set(counts[-50:])) == 1

    wait_for(is_still)
    assert len(sent) < 400
    seen = [0] * 4
    for _ in range(400):
        payload = peer.receive().payload
        assert payload == payload[:1] * 65536
        seen[payload[0]] += 1
    assert seen == [100] * 4
    assert peer.receive().payload == struct.pack("!H", 1000)


def test_senders_that_wait_hear_of_the_end(http_serving: HttpServing) -> None:
    ends: list[Any] = []

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()

        async def send_on() -> None:
            try:
                while True:
                    await websocket.send(bytes(65536))
            except ConnectionError as error:
                ends.append(type(error))

        await asyncio.gather(*(send_on() for _ in range(3)))

    http_serving(handler)
    client = http_serving.client()
    peer = Peer(client)
    peer.receive()
    client.close()
    wait_for(lambda: len(ends) == 3)


def test_senders_that_are_cancelled_let_the_others_go_on(http_serving: HttpServing) -> None:
    """The one that waits for the connection, some that wait for that one, and one just woken."""
    counts: list[int] = []
    go_on = threading.Event()

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()

        async def send_on(number: int) -> None:
            for _ in range(60):
                await websocket.send(bytes([number]) * 65536)
            counts.append(number)

        tasks = [asyncio.ensure_future(send_on(number)) for number in range(6)]
        await asyncio.sleep(0.2)
        for number in (3, 4, 0, 1):
            tasks[number].cancel()
            await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    http_serving(handler)
    peer = Peer(http_serving.client())
    assert go_on.wait(10)
    seen = [0] * 6
    while (one := peer.receive()).opcode != CLOSE:
        if one.opcode == BINARY:
            seen[one.payload[0]] += 1
    assert sorted(counts) == [2, 5]
    assert (seen[2], seen[5]) == (60, 60)


def test_a_send_that_nobody_awaits_is_bounded(http_serving: HttpServing) -> None:
    counts: list[int] = []

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()
        with pytest.raises(BufferError):
            for number in range(100):
                websocket.send(bytes(1 << 20))
                counts.append(number)

    http_serving(handler)
    peer = Peer(http_serving.client())
    wait_for(lambda: len(counts) > 30)
    while (one := peer.receive()).opcode != CLOSE:
        assert len(one.payload) == 1 << 20
    assert 32 < len(counts) < 60
    assert one.payload == struct.pack("!H", 1000)


@pytest.mark.parametrize("size", [0, 1, 2, 40])
def test_small_parts_take_little_more_than_their_bytes(
    http_serving: HttpServing, size: int
) -> None:
    http_serving(echo)
    peer = Peer(http_serving.client())
    part = frame(CONTINUATION, b"x" * size, 0)
    tracemalloc.start()
    try:
        peer.send(frame(TEXT, b"begun", 0))
        before_bytes = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            peer.send(part * 1000)
        peer.send(frame(PING))
        assert peer.receive().opcode == PONG
        taken_bytes = tracemalloc.get_traced_memory()[0] - before_bytes
    finally:
        tracemalloc.stop()
    assert taken_bytes < size * 100_000 * 1.3 + 200_000
    peer.send(frame(CONTINUATION, b"y" * 5000, 0) + frame(CONTINUATION, b"z", 0))
    peer.send(frame(CONTINUATION, b""))
    assert peer.receive().payload == b"begun" + b"x" * size * 100_000 + b"y" * 5000 + b"z"


def test_what_is_under_way_does_not_hide_the_close_frame(http_serving: HttpServing) -> None:
    """Closed with bytes unread, the kernel would send a reset, which drops what it has."""
    http_serving(echo)
    peer = Peer(http_serving.client())
    peer.send(frame(3) + bytes(4 << 20))
    assert peer.closed() == (1002, b"")


# ---- time ---------------------------------------------------------------------------------------


def test_pings_that_are_answered_keep_it_open(http_serving: HttpServing) -> None:
    limits = http.HttpLimits(websocket_ping_interval_s=1, websocket_ping_timeout_s=1)
    http_serving(echo, limits=limits)
    peer = Peer(http_serving.client())
    for _ in range(3):
        one = peer.receive()
        assert one.opcode == PING
        peer.send(frame(PONG, one.payload))
    peer.send(frame(TEXT, b"here"))
    assert peer.receive() == Frame(FIN | TEXT, b"here")


def test_pings_that_are_not_answered_end_it(http_serving: HttpServing) -> None:
    ends: list[int] = []

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()
        async for _ in websocket:
            pass
        ends.append(websocket.close_code)

    limits = http.HttpLimits(websocket_ping_interval_s=1, websocket_ping_timeout_s=1)
    http_serving(handler, limits=limits)
    peer = Peer(http_serving.client())
    assert peer.receive().opcode == PING
    assert peer.closed() == (1011, b"no answer to a ping")
    wait_for(lambda: ends == [1006])


def test_who_sends_is_not_pinged(http_serving: HttpServing) -> None:
    long = http.HttpLimits(websocket_ping_interval_s=1e12, websocket_ping_timeout_s=1e300)
    http_serving(echo, limits=long)
    http_serving(echo, limits=http.HttpLimits(websocket_ping_interval_s=2))
    peer = Peer(http_serving.client())
    for _ in range(12):
        peer.send(frame(TEXT, b"here"))
        assert peer.receive() == Frame(FIN | TEXT, b"here")
        time.sleep(0.3)
    assert peer.receive().opcode == PING


def test_a_stop_closes_with_1001(http_serving: HttpServing) -> None:
    ends: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        ends.append(await receive())

    server = http_serving(app, lifespan="off")
    peers = [Peer(http_serving.client()) for _ in range(3)]
    stopping = threading.Thread(target=server.close, args=(10.0,))
    stopping.start()
    for peer in peers:
        assert peer.receive() == Frame(FIN | CLOSE, struct.pack("!H", 1001))
        peer.send(close_frame(1001))
        assert peer.client.rest() == b""
        peer.client.close()
    stopping.join(8)
    assert not stopping.is_alive()
    assert ends == [{"type": "websocket.disconnect", "code": 1001, "reason": ""}] * 3
