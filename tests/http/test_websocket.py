"""WebSockets of both kinds of applications: handshakes, ends, limits and time."""

import asyncio
import socket
import struct
import threading
from typing import Any

import pytest

from netpoll import http
from tests.http.conftest import HttpServing
from tests.http.frames import (
    ACCEPT,
    BINARY,
    CLOSE,
    FIN,
    KEY,
    PING,
    TEXT,
    Frame,
    Peer,
    close_frame,
    echo,
    frame,
)
from tests.server.conftest import wait_for

Scope = dict[str, Any]


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
    answer = Peer(client).answer
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
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


@pytest.mark.parametrize("raises", ["as it is", "a group", "its own", "another"])
def test_a_client_that_leaves_is_not_the_applications_failure(
    http_serving: HttpServing, raises: str, errors_logged: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": "here"})
                await asyncio.sleep(0.001)
        except OSError as error:
            if raises == "a group":
                raise ExceptionGroup("of tasks", [error]) from None
            if raises == "its own":
                raise LookupError("the client has gone") from error
            if raises == "as it is":
                raise
        finally:
            ended.append("")
        raise LookupError("something else")

    server = http_serving(app, lifespan="off")
    peer = Peer(http_serving.client())
    assert peer.receive() == Frame(FIN | TEXT, b"here")
    peer.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.client.close()
    wait_for(lambda: ended)
    server.close()
    assert errors_logged.text.count("ASGI application failed") == int(raises == "another")
