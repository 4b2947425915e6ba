"""WebSockets of both kinds of applications: handshakes, ends, limits and time."""

import asyncio
import struct
import threading
import zlib
from typing import Any

import pytest

from netpoll import http
from netpoll._http import deflate
from tests.http.conftest import HttpServing
from tests.http.frames import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    KEY,
    PING,
    PONG,
    RSV1,
    TEXT,
    Frame,
    Peer,
    close_frame,
    frame,
)
from tests.server.conftest import wait_for

Scope = dict[str, Any]


async def echo(request: http.Request) -> None:
    websocket = request.websocket()
    async for message in websocket:
        await websocket.send(message)


def lost(peer: Peer) -> bool:
    """The stream ends without a close frame."""
    with pytest.raises(ConnectionResetError):
        while peer.receive():
            pass
    return True


# ---- the handshake ------------------------------------------------------------------------------


def test_the_answer_to_a_handshake(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> None:
        assert request.subprotocols == ["chat", "superchat", "v2"]
        websocket = request.websocket("v2", headers={"X-One": "1"})
        assert websocket.subprotocol == "v2"
        await websocket.close(4000, "done")

    http_serving(handler)
    client = http_serving.client()
    peer = Peer(client, Sec_WebSocket_Protocol="chat, superchat,v2")
    assert peer.answer.status == 101
    assert peer.answer.header("sec-websocket-accept") == ACCEPT
    assert peer.answer.header("sec-websocket-protocol") == "v2"
    assert peer.answer.header("x-one") == "1"
    assert peer.answer.header("upgrade") == "websocket"
    assert peer.answer.header("connection") == "upgrade"
    assert peer.answer.header("content-length") is None
    assert peer.answer.header("transfer-encoding") is None
    assert peer.answer.header("sec-websocket-extensions") is None
    assert peer.receive() == Frame(FIN | CLOSE, struct.pack("!H", 4000) + b"done")
    peer.send(close_frame(4000))
    assert client.rest() == b""


@pytest.mark.parametrize(("fields", "status"), [
    ({"Sec_WebSocket_Version": "8"}, 426),
    ({"Sec_WebSocket_Version": None}, 426),
    ({"Sec_WebSocket_Key": None}, 400),
    ({"Sec_WebSocket_Key": "short=="}, 400),
    ({"Sec_WebSocket_Key": f"{KEY}\r\nsec-websocket-key: {KEY}"}, 400),
])  # fmt: skip
@pytest.mark.parametrize("interface", ["raw", "asgi"])
def test_handshakes_with_a_fault(
    http_serving: HttpServing,
    fields: dict[str, str | None],
    status: int,
    interface: str,
    errors_logged: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        raise AssertionError("it is not called")

    http_serving(echo if interface == "raw" else app, lifespan="off")
    client = http_serving.client()
    for _ in range(2):  # the connection goes on
        peer = Peer(client, **fields)
        assert peer.answer.status == status
        if status == 426:
            assert peer.answer.header("sec-websocket-version") == "13"
            assert peer.answer.header("upgrade") == "websocket"
            assert peer.answer.header("connection") == "upgrade"
    assert errors_logged.text == ""


def test_a_handler_may_answer_instead(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> http.Response:
        assert request.is_websocket == (request.path == "/socket")
        if not request.is_websocket:
            with pytest.raises(ValueError, match="does not ask"):
                request.websocket()
        return http.Response(b"no", status=403)

    http_serving(handler)
    client = http_serving.client()
    assert Peer(client, "/socket").answer.status == 403
    assert client.ask("/").status == 403


def test_a_plain_function_has_no_websocket(http_serving: HttpServing) -> None:
    def handler(request: http.Request) -> str:
        with pytest.raises(RuntimeError, match="async def"):
            request.websocket()
        return "plain"

    http_serving(handler)
    assert Peer(http_serving.client()).answer.body == b"plain"


@pytest.mark.parametrize("headers", [
    [("Connection", "close")], [(b"sec-websocket-accept", b"x")], [("upgrade", "h2c")],
    [("x", "a\nb")], [("", "x")],
])  # fmt: skip
def test_headers_that_cannot_be_sent(
    http_serving: HttpServing, headers: Any, errors_logged: pytest.LogCaptureFixture
) -> None:
    async def handler(request: http.Request) -> None:
        request.websocket(headers=headers)

    http_serving(handler)
    client = http_serving.client()
    answer = Peer(client).answer
    assert answer.status == 500
    assert answer.header("upgrade") is None
    assert client.rest() == b""
    assert "ValueError" in errors_logged.text


def test_frames_that_come_with_the_handshake_wait_for_it(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> None:
        if request.path == "/late":
            await asyncio.sleep(0.05)
        await echo(request)

    http_serving(handler)
    for path in ("/", "/late"):
        client = http_serving.client()
        head = f"GET {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        head += f"sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
        client.send(head.encode() + frame(TEXT, b"at once"))
        assert client.answer().status == 101
        peer = Peer.__new__(Peer)
        peer.client = client
        assert peer.receive() == Frame(FIN | TEXT, b"at once")


# ---- ASGI ---------------------------------------------------------------------------------------


def test_the_messages_of_asgi(http_serving: HttpServing) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope)
        seen.append(await receive())
        headers = [(b"x-one", b"1")]
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": headers})
        while True:
            message = await receive()
            seen.append(message)
            if message["type"] == "websocket.disconnect":
                break
            await send(message | {"type": "websocket.send"})
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            seen.append(type(error))

    server = http_serving(app, lifespan="off", root_path="/mounted")
    client = http_serving.client()
    peer = Peer(client, "/caf%C3%A9?q=1", Sec_WebSocket_Protocol="a,b")
    assert peer.answer.header("sec-websocket-protocol") == "b"
    assert peer.answer.header("x-one") == "1"
    peer.send(frame(TEXT, "caf\u00e9".encode()) + frame(BINARY, b"\x00\xff"))
    assert peer.receive() == Frame(FIN | TEXT, "caf\u00e9".encode())
    assert peer.receive() == Frame(FIN | BINARY, b"\x00\xff")
    peer.send(close_frame(3001, b"enough"))
    assert peer.closed() == (3001, b"")
    wait_for(lambda: len(seen) == 6)
    scope = seen[0]
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert (scope["http_version"], scope["scheme"]) == ("1.1", "ws")
    assert (scope["path"], scope["raw_path"]) == ("/mounted/caf\u00e9", b"/mounted/caf%C3%A9")
    assert (scope["query_string"], scope["root_path"]) == (b"q=1", "/mounted")
    assert scope["subprotocols"] == ["a", "b"]
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert scope["server"] == ("127.0.0.1", server.port)
    assert (b"sec-websocket-version", b"13") in scope["headers"]
    assert "method" not in scope
    assert "state" not in scope
    assert seen[1:] == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "caf\u00e9"},
        {"type": "websocket.receive", "bytes": b"\x00\xff"},
        {"type": "websocket.disconnect", "code": 3001, "reason": "enough"},
        ConnectionResetError,
    ]


@pytest.mark.parametrize(
    ("end", "code"), [(b"", 1006), (close_frame(), 1005)], ids=["no frame", "no code"]
)
def test_the_codes_of_ends_without_one(http_serving: HttpServing, end: bytes, code: int) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(await receive())
        seen.append(await receive())
        await send({"type": "websocket.close"})  # of no use, and no fault

    http_serving(app, lifespan="off")
    client = http_serving.client()
    peer = Peer(client)
    peer.send(end)
    if end:
        assert peer.closed() == (None, b"")
    client.close()
    wait_for(lambda: len(seen) == 2)
    assert seen == [{"type": "websocket.disconnect", "code": code, "reason": ""}] * 2


def test_a_client_that_goes_before_it_is_accepted(http_serving: HttpServing) -> None:
    seen: list[Any] = []
    begun = threading.Event()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        begun.set()
        seen.append(await receive())
        try:
            await send({"type": "websocket.accept"})
        except OSError as error:
            seen.append(type(error))

    http_serving(app, lifespan="off")
    client = http_serving.client()
    fields = f"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: {KEY}\r\n"
    client.send(f"GET / HTTP/1.1\r\nhost: x\r\n{fields}sec-websocket-version: 13\r\n\r\n".encode())
    assert begun.wait(10)
    client.close()
    wait_for(lambda: len(seen) == 2)
    assert seen[0] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert seen[1] is ConnectionResetError


def test_a_denial(http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"plain"})
            return
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/close":
            await send({"type": "websocket.close", "code": 4000})
        else:
            kind = "websocket.http.response"
            headers = [(b"x-why", b"not today")]
            await send({"type": f"{kind}.start", "status": 401, "headers": headers})
            if scope["path"] == "/parts":
                await send({"type": f"{kind}.body", "body": b"not ", "more_body": True})
            await send({"type": f"{kind}.body", "body": b"you"})
        seen.append(await receive())
        with pytest.raises(RuntimeError):
            await send({"type": "websocket.accept"})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    answer = Peer(client, "/close").answer
    assert (answer.status, answer.body) == (403, b"")
    answer = Peer(client, "/whole").answer
    assert (answer.status, answer.body, answer.header("x-why")) == (401, b"you", "not today")
    answer = Peer(client, "/parts").answer
    assert (answer.status, answer.body) == (401, b"not you")
    assert answer.header("transfer-encoding") == "chunked"
    assert client.ask().body == b"plain"
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}] * 3
    http_serving.servers[-1].close()
    assert errors_logged.text == ""


@pytest.mark.parametrize("messages", [
    [],
    [{"type": "websocket.send", "text": "early"}],
    [{"type": "websocket.http.response.body", "body": b"x"}],
    [{"type": "websocket.http.response.start", "status": 403}, {"type": "websocket.accept"}],
    [{"type": "websocket.http.response.start", "status": 403}],
    [{"type": "http.response.start", "status": 200}],
    [{"type": "websocket.accept", "headers": [(b"upgrade", b"x")]}],
])  # fmt: skip
def test_handshakes_that_an_application_fails_to_answer(
    http_serving: HttpServing, messages: list[Any], errors_logged: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    http_serving(app, lifespan="off")
    client = http_serving.client()
    assert Peer(client).answer.status == 500
    assert client.rest() == b""
    assert "the ASGI application" in errors_logged.text


@pytest.mark.parametrize("message", [
    {"type": "websocket.accept"},
    {"type": "websocket.send"},
    {"type": "websocket.send", "bytes": "text"},
    {"type": "websocket.send", "text": 5},
    {"type": "websocket.send", "text": "\ud800"},
    {"type": "websocket.close", "code": 1005},
    {"type": "websocket.close", "code": 1000, "reason": "x" * 124},
    {"type": "websocket.http.response.start", "status": 403},
])  # fmt: skip
def test_an_application_that_fails_closes_with_1011(
    http_serving: HttpServing, message: Any, errors_logged: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "good"})
        await send(message)

    http_serving(app, lifespan="off")
    client = http_serving.client()
    peer = Peer(client)
    assert peer.receive() == Frame(FIN | TEXT, b"good")
    assert peer.receive() == Frame(FIN | CLOSE, struct.pack("!H", 1011))
    peer.send(close_frame(1011))
    assert client.rest() == b""
    assert "the ASGI application failed" in errors_logged.text


def test_after_its_own_close_an_application_receives_the_end(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4001, "reason": "over"})
        seen.append(await receive())
        with pytest.raises(RuntimeError):
            await send({"type": "websocket.send", "text": "late"})
        with pytest.raises(RuntimeError):
            await send({"type": "websocket.close"})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    peer = Peer(client)
    assert peer.receive().payload == struct.pack("!H", 4001) + b"over"
    peer.send(frame(TEXT, b"dropped") + frame(PING) + close_frame(4001))
    assert client.rest() == b""
    assert seen == [{"type": "websocket.disconnect", "code": 4001, "reason": "over"}]
    http_serving.servers[-1].close()
    assert errors_logged.text == ""


# ---- plain functions ----------------------------------------------------------------------------


def test_the_ends_of_a_handler(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    ends: list[Any] = []

    async def handler(request: http.Request) -> str:
        websocket = request.websocket()
        assert not websocket.closed
        async for message in websocket:
            if message == "fail":
                raise ZeroDivisionError
            if message == "return":
                return "what it returns is not sent"
        ends.append((websocket.closed, websocket.close_code, websocket.close_reason))
        with pytest.raises(ConnectionResetError):
            await websocket.send("late")
        await websocket.close()
        return ""

    http_serving(handler)
    for message, code in ((b"return", 1000), (b"fail", 1011)):
        client = http_serving.client()
        peer = Peer(client)
        peer.send(frame(TEXT, message))
        assert peer.receive().payload == struct.pack("!H", code)
        peer.send(close_frame(code))
        assert client.rest() == b""
    assert errors_logged.text.count("the handler failed") == 1
    peer = Peer(http_serving.client())
    peer.send(close_frame(4999, "caf\u00e9".encode()))
    assert peer.closed() == (4999, b"")
    wait_for(lambda: ends == [(True, 4999, "caf\u00e9")])


def test_what_cannot_be_sent(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> None:
        websocket = request.websocket()
        for wrong in (5, None, ["x"]):
            with pytest.raises(TypeError):
                websocket.send(wrong)
        with pytest.raises(UnicodeEncodeError):
            websocket.send("\ud800")
        for code in (999, 1005, 1006, 5000):
            with pytest.raises(ValueError, match="not a close code"):
                websocket.close(code)
        with pytest.raises(ValueError, match="123"):
            websocket.close(1000, "\u00e9" * 62)
        await websocket.send(bytearray(b"array"))
        await websocket.send(memoryview(b"view"))

    http_serving(handler)
    peer = Peer(http_serving.client())
    assert [peer.receive() for _ in range(2)] == [
        Frame(FIN | BINARY, b"array"),
        Frame(FIN | BINARY, b"view"),
    ]
    assert peer.receive().payload == struct.pack("!H", 1000)


def test_a_receive_that_is_cancelled_loses_nothing(http_serving: HttpServing) -> None:
    async def handler(request: http.Request) -> None:
        websocket = request.websocket()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(websocket)
        waiting = asyncio.ensure_future(anext(websocket))
        await asyncio.sleep(0)
        waiting.cancel()
        await websocket.send("now")
        assert await anext(websocket) == "kept"
        await websocket.send("end")

    http_serving(handler)
    peer = Peer(http_serving.client())
    assert peer.receive() == Frame(FIN | TEXT, b"now")
    peer.send(frame(TEXT, b"kept"))
    assert peer.receive() == Frame(FIN | TEXT, b"end")


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
    counts: list[int] = []

    def is_still() -> bool:
        counts.append(len(sent))
        return len(counts) > 50 and len(set(counts[-50:])) == 1

    wait_for(is_still)
    assert len(sent) < count
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
    assert lost(peer)
    wait_for(lambda: ends == [1006])


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


def test_another_thread_is_refused(http_serving: HttpServing) -> None:
    refused: list[str] = []

    def attempt(*acts: Any) -> None:
        def elsewhere() -> None:
            for act in acts:
                try:
                    act()
                except RuntimeError as exc:
                    refused.append(str(exc))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    async def handler(request: http.Request) -> None:
        attempt(request.websocket)
        websocket = request.websocket()
        attempt(
            lambda: websocket.send("elsewhere"),
            websocket.close,
            lambda: websocket.__anext__().send(None),
        )
        await websocket.send("here")

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        attempt(lambda: send({"type": "websocket.accept"}), lambda: receive().send(None))
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "here"})

    for served, count in ((handler, 4), (app, 2)):
        refused.clear()
        http_serving(served, lifespan="off")
        assert Peer(http_serving.client()).receive().payload == b"here"
        assert len(refused) == count
        assert all("belongs to another thread" in text for text in refused)
