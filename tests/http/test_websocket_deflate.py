"""WebSockets that are compressed, and code that runs within reading and sending."""

import struct
import zlib
from typing import Any

import pytest

from netpoll import http
from netpoll._http import deflate
from tests.http.conftest import HttpServing
from tests.http.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    RSV1,
    TEXT,
    Frame,
    Peer,
    close_frame,
    echo,
    frame,
)
from tests.server.conftest import wait_for

Scope = dict[str, Any]


# ---- compression --------------------------------------------------------------------------------

OFFER = "permessage-deflate; client_max_window_bits"


def packed(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_compression_is_off_unless_it_is_asked_for(http_serving: HttpServing) -> None:
    http_serving(echo)
    peer = Peer(http_serving.client(), Sec_WebSocket_Extensions=OFFER)
    assert peer.answer.header("sec-websocket-extensions") is None
    peer.send(frame(TEXT, packed(b"x"), FIN | RSV1))
    assert peer.closed() == (1002, b"")


def test_compressed_messages(http_serving: HttpServing) -> None:
    http_serving(echo, websocket_deflate=True)
    peer = Peer(http_serving.client(), Sec_WebSocket_Extensions=OFFER)
    agreed = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
    assert peer.answer.header("sec-websocket-extensions") == agreed
    text = "caf\u00e9 ".encode() * 100
    unpacker = zlib.decompressobj(-12)
    for _ in range(3):
        data = packed(text)
        peer.send(frame(TEXT, data[:5], RSV1) + frame(CONTINUATION, data[5:]))
        one = peer.receive()
        assert one.first == FIN | RSV1 | TEXT
        assert len(one.payload) < len(text)
        assert unpacker.decompress(one.payload + deflate.END) == text
    peer.send(frame(TEXT, b"short"))
    assert peer.receive() == Frame(FIN | TEXT, b"short")
    peer.send(frame(TEXT, packed(b"\xff"), FIN | RSV1))
    assert peer.closed() == (1007, b"")


@pytest.mark.parametrize(
    ("payload", "code"), [(packed(bytes(100_000)), 1009), (b"\xff" * 50, 1007)]
)
def test_compressed_messages_that_are_refused(
    http_serving: HttpServing, payload: bytes, code: int
) -> None:
    limits = http.HttpLimits(websocket_max_bytes=50_000)
    http_serving(echo, websocket_deflate=True, limits=limits)
    peer = Peer(http_serving.client(), Sec_WebSocket_Extensions=OFFER)
    peer.send(frame(BINARY, packed(bytes(50_000)), FIN | RSV1))
    assert peer.receive().opcode == BINARY
    peer.send(frame(BINARY, payload, FIN | RSV1))
    assert peer.closed() == (code, b"")


@pytest.mark.parametrize(("offers", "answer"), [
    ("permessage-deflate", b"permessage-deflate; server_max_window_bits=12"),
    ("x-other, permessage-deflate; server_max_window_bits=10",
     b"permessage-deflate; server_max_window_bits=10"),
    ("permessage-deflate; server_no_context_takeover; client_no_context_takeover",
     b"permessage-deflate; server_max_window_bits=12; server_no_context_takeover"),
    ('permessage-deflate; client_max_window_bits="9"',
     b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=9"),
    ("permessage-deflate; server_max_window_bits=8, permessage-deflate",
     b"permessage-deflate; server_max_window_bits=12"),
    ("permessage-deflate; server_max_window_bits", None),
    ("permessage-deflate; server_max_window_bits=16", None),
    ("permessage-deflate; server_no_context_takeover=1", None),
    ("permessage-deflate; x=1", None),
    ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
    ("x-webkit-deflate-frame", None),
])  # fmt: skip
def test_offers(offers: str, answer: bytes | None) -> None:
    agreed = deflate.agree(offers)
    assert (agreed.answer if agreed else None) == answer


def test_a_side_that_forgets_compresses_each_message_alone() -> None:
    agreed = deflate.agree("permessage-deflate; server_no_context_takeover")
    assert agreed is not None
    data = bytes(range(256)) * 2
    first, second = agreed.compress(data), agreed.compress(data)
    assert first == second
    assert first is not None
    assert zlib.decompressobj(-12).decompress(first + deflate.END) == data


def test_a_last_block_ends_a_stream_of_deflate() -> None:
    agreed = deflate.agree("permessage-deflate")
    assert agreed is not None
    packer = zlib.compressobj(wbits=-12)
    final = packer.compress(b"final") + packer.flush()
    assert agreed.decompress(final, 0) == b"final"
    assert agreed.decompress(packed(b"next"), 100) == b"next"


# ---- code that runs within ----------------------------------------------------------------------


class Meddler:
    """In the place of what compresses: it does something to the socket meanwhile."""

    answer = b"permessage-deflate"

    def __init__(self) -> None:
        self.on_send: Any = lambda: None
        self.on_receive: Any = lambda: None

    def compress(self, data: bytes) -> bytes | None:
        self.on_send()
        return None

    def decompress(self, data: bytes, max_bytes: int) -> bytes:
        self.on_receive()
        return data


def step(awaitable: Any) -> Any:
    """What it gives without waiting."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        awaitable.close()


@pytest.mark.parametrize("action", ["close", "receive", "send"])
def test_code_that_runs_while_a_message_is_read(
    http_serving: HttpServing, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    meddler = Meddler()
    monkeypatch.setattr(deflate, "agree", lambda _offers: meddler)
    got: list[Any] = []

    def receive(websocket: Any) -> None:
        message = step(anext(websocket))
        if message is not None:
            got.append(message)

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()
        meddler.on_receive = {
            "close": lambda: websocket.close(4000),
            "receive": lambda: receive(websocket),
            "send": lambda: websocket.send(b"meddled"),
        }[action]
        async for message in websocket:
            got.append(message)

    http_serving(handler, websocket_deflate=True)
    peer = Peer(http_serving.client(), Sec_WebSocket_Extensions="permessage-deflate")
    first = FIN | RSV1
    peer.send(frame(BINARY, b"one", first) + frame(BINARY, b"two", first) + close_frame(1000))
    seen = []
    while (one := peer.receive()).opcode != CLOSE:
        seen.append(one.payload)
    if action == "close":
        assert (one.payload, got) == (struct.pack("!H", 4000), [])
    else:
        assert one.payload == struct.pack("!H", 1000)
        wait_for(lambda: got == [b"one", b"two"])
    assert len(seen) == (2 if action == "send" else 0)


def test_code_that_closes_while_a_message_is_sent(
    http_serving: HttpServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    meddler = Meddler()
    monkeypatch.setattr(deflate, "agree", lambda _offers: meddler)
    ends: list[Any] = []

    async def handler(request: http.Request) -> None:
        websocket = request.websocket()
        meddler.on_send = lambda: websocket.close(4000)
        try:
            await websocket.send(b"never sent")
        except ConnectionError as error:
            ends.append(type(error))

    http_serving(handler, websocket_deflate=True)
    peer = Peer(http_serving.client(), Sec_WebSocket_Extensions="permessage-deflate")
    peer.send(close_frame(4000))
    assert peer.closed() == (4000, b"")
    assert ends == [ConnectionResetError]


def test_headers_that_end_the_handshake_while_they_are_read(http_serving: HttpServing) -> None:
    ends: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"plain"})
            return

        def headers() -> Any:
            yield b"x", b"y"
            step(send({"type": "websocket.close"}))

        try:
            await send({"type": "websocket.accept", "headers": headers()})
        except ConnectionError as error:
            ends.append(type(error))

    http_serving(app, lifespan="off")
    client = http_serving.client()
    assert Peer(client).answer.status == 403
    assert client.ask().body == b"plain"
    assert ends == [ConnectionResetError]
