"""ASGI applications: https://asgi.readthedocs.io/en/latest/specs/www.html."""

import asyncio
import contextvars
import pathlib
import signal
import socket
import struct
import threading
import time
from typing import Any

import pytest

from netpoll import http
from netpoll._http import lifespan
from tests.http.conftest import HttpServing
from tests.server.conftest import wait_for

Scope = dict[str, Any]


async def respond(send: Any, body: bytes, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


def test_the_scope(http_serving: HttpServing) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await respond(send, b"ok")

    server = http_serving(app, lifespan="off", root_path="/mounted")
    client = http_serving.client()
    client.ask("/p%C3%A4th/%2f?q=%20", "PUT", X_Twice="1", Accept="*/*")
    client.ask("/", "OPTIONS")
    scope = scopes[0]
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert (scope["http_version"], scope["method"], scope["scheme"]) == ("1.1", "PUT", "http")
    assert scope["path"] == "/mounted/p\u00e4th//"  # what a proxy has taken off is there again
    assert scope["raw_path"] == b"/mounted/p%C3%A4th/%2f"
    assert (scope["query_string"], scope["root_path"]) == (b"q=%20", "/mounted")
    assert scope["headers"] == [(b"host", b"test"), (b"x-twice", b"1"), (b"accept", b"*/*")]
    assert scope["client"] == client.sock.getsockname()[:2]
    assert scope["server"] == ("127.0.0.1", server.port)
    assert "http.response.pathsend" in scope["extensions"]
    assert "state" not in scope
    assert scopes[1]["client"] == scope["client"]
    for name in ("asgi", "extensions", "headers"):
        assert scopes[1][name] is not scope[name]


@pytest.mark.parametrize(
    ("root_path", "target", "path", "raw_path"),
    [
        ("/a/b/", "/c", "/a/b/c", b"/a/b/c"),
        ("/a/b", "/", "/a/b/", b"/a/b/"),
        ("/a/b", "/a/b", "/a/b", b"/a/b"),  # the proxy has left it
        ("/a/b", "/a/b/c", "/a/b/c", b"/a/b/c"),
        ("/a/b", "/a/bc", "/a/b/a/bc", b"/a/b/a/bc"),
        ("/caf\u00e9", "/c%2fd", "/caf\u00e9/c/d", b"/caf%C3%A9/c%2fd"),
        ("/a", "*", "*", b"*"),
        ("/", "/c", "/c", b"/c"),
    ],
)
def test_the_path_has_the_root_path_in_it(
    http_serving: HttpServing, root_path: str, target: str, path: str, raw_path: bytes
) -> None:
    """WSGI's PATH_INFO is ASGI's path without the root path, says ASGI."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await respond(send, b"ok")

    http_serving(app, lifespan="off", root_path=root_path)
    http_serving.client().ask(target, "OPTIONS")
    (scope,) = scopes
    assert scope["root_path"] == root_path.rstrip("/")
    assert (scope["path"], scope["raw_path"]) == (path, raw_path)


def test_bodies_in_both_directions(http_serving: HttpServing) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        more = True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    body = bytes(range(256)) * 256
    for _ in range(3):
        answer = client.ask("/", "POST", body)
        assert answer.body == body
        assert client.ask().body == b""


def test_receive_after_the_body_waits_for_the_disconnect(http_serving: HttpServing) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(await receive())
        seen.append(await receive())
        try:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x"})
        except OSError as error:
            seen.append(type(error).__name__)

    http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    wait_for(lambda: len(seen) == 1)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_for(lambda: len(seen) == 3)
    assert seen[0] == {"type": "http.request", "body": b"", "more_body": False}
    assert seen[1:] == [{"type": "http.disconnect"}, "ConnectionResetError"]


def wrapped(error: BaseException, times: int) -> BaseException:
    """Raised from one that was raised from one, and so on: a program's loop, that must not be a
    recursion of ours (bug class 95)."""
    for _ in range(times):
        outer = LookupError("the client has gone")
        outer.__cause__ = error
        error = outer
    return error


@pytest.mark.parametrize(
    "raises",
    [
        None,
        "its own",
        "a group",
        "a mixed group",
        "another",
        "a ring",
        "a long chain",
        "many groups",
    ],
)
def test_an_application_that_ends_because_its_client_has_gone_has_not_failed(
    http_serving: HttpServing, raises: str | None, errors_logged: pytest.LogCaptureFixture
) -> None:
    """Frameworks turn what send() raises into an exception of their own."""
    ended: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
                await asyncio.sleep(0)
        except OSError as error:
            if raises == "a group":
                raise ExceptionGroup("of tasks", [error, error]) from None
            if raises == "a mixed group":
                raise ExceptionGroup("of tasks", [error, LookupError("something else")]) from None
            if raises == "its own":
                raise LookupError("the client has gone") from None  # its context is still known
            if raises == "a long chain":
                raise LookupError("the client has gone") from wrapped(error, 100_000)
            if raises == "many groups":
                for _ in range(1000):
                    error = ExceptionGroup("of tasks", [error])
                raise error from None
            if raises is None:
                raise
        finally:
            ended.append("")
        if raises == "a ring":
            one, two = KeyError("one"), KeyError("two")
            one.__cause__, two.__cause__ = two, one
            raise one
        raise LookupError("something else")

    server = http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert client.file.read(12) == b"HTTP/1.1 200"
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_for(lambda: ended)
    server.close()
    expected = int(raises in ("a mixed group", "another", "a ring", "many groups"))
    assert errors_logged.text.count("ASGI application failed") == expected


def test_after_its_response_an_application_receives_a_disconnect(
    http_serving: HttpServing,
) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await respond(send, b"x")
        seen.append((await receive())["type"])

    http_serving(app, lifespan="off")
    client = http_serving.client()
    assert client.ask().body == b"x"
    assert client.ask().body == b"x"
    wait_for(lambda: seen == ["http.disconnect"] * 2)


def test_a_receive_that_is_cancelled_loses_nothing(http_serving: HttpServing) -> None:
    tries: list[int] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        parts = []
        while True:
            try:
                async with asyncio.timeout(0.005):
                    message = await receive()
            except TimeoutError:
                tries.append(1)
                continue
            parts.append(message["body"])
            if not message["more_body"]:
                break
        await respond(send, b"".join(parts))

    http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
    wait_for(lambda: len(tries) >= 3)
    client.send(b"def")
    assert client.answer().body == b"abcdef"


def test_a_slow_reader_holds_the_application_back(http_serving: HttpServing) -> None:
    sent: list[int] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        for _ in range(400):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent.append(65536)
        await send({"type": "http.response.body"})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    wait_for(lambda: len(sent) > 3)
    counts = []

    def is_still() -> bool:
        counts.append(len(sent))
        return len(counts) > 50 and len(set(counts[-50:])) == 1

    wait_for(is_still)
    assert len(sent) < 400
    answer = client.answer()
    assert len(answer.body) == 400 * 65536


@pytest.mark.parametrize("messages", [
    [{"type": "http.response.body", "body": b"x"}],
    [{"type": "http.response.start", "status": 200}] * 2,
    [{"type": "http.response.unknown"}],
    [{"type": "http.response.start", "status": 200, "headers": [("a", "b")]},
     {"type": "http.response.body"}],
    [{"type": "http.response.start", "status": 20}, {"type": "http.response.body"}],
    [{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\nc")]},
     {"type": "http.response.body"}],
    [{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]},
     {"type": "http.response.body", "body": b"four"}],
    [],
    [{"type": "http.response.start", "status": 200}],
])  # fmt: skip
def test_what_cannot_be_answered_is_500(
    http_serving: HttpServing, messages: list[Any], errors_logged: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    http_serving(app, lifespan="off")
    client = http_serving.client()
    answer = client.ask()
    assert answer.status == 500
    assert client.rest() == b""
    assert "the ASGI application" in errors_logged.text


@pytest.mark.parametrize(
    ("length", "parts"),
    [(10, [b"abc"]), (3, [b"abc", b"d"]), (None, [b"abc"])],
)
def test_an_answer_that_is_not_complete_does_not_look_complete(
    http_serving: HttpServing,
    length: int | None,
    parts: list[bytes],
    errors_logged: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(length).encode())] if length is not None else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        raise ZeroDivisionError

    http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2)
    text = client.rest()
    assert text.count(b"HTTP/1.1 ") == 1
    assert not text.endswith(b"0\r\n\r\n")
    assert "ASGI application failed" in errors_logged.text


def test_each_request_has_a_context_of_its_own(http_serving: HttpServing) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        before = variable.get()
        variable.set(before + 1)
        await asyncio.sleep(0)
        await respond(send, str((before, variable.get())).encode())

    http_serving(app, lifespan="off")
    client = http_serving.client()
    assert [client.ask().body for _ in range(3)] == [b"(0, 1)"] * 3


def test_a_request_is_a_task(http_serving: HttpServing) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        me = asyncio.current_task()
        assert isinstance(me, asyncio.Task)
        await asyncio.sleep(0)
        assert me in asyncio.all_tasks()
        async with asyncio.TaskGroup() as group:
            one = group.create_task(asyncio.sleep(0.001, 1))
            two = group.create_task(asyncio.sleep(0.002, 2))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(10)
        me.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)
        assert me.uncancel() == 0
        await respond(send, str(one.result() + two.result()).encode())

    http_serving(app, lifespan="off")
    assert http_serving.client().ask().body == b"3"


def test_lifespan_state_is_in_each_scope(http_serving: HttpServing) -> None:
    steps: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            scope["state"]["word"] = "from startup"
            steps.append("startup")
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            steps.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        word = scope["state"]["word"]
        scope["state"]["word"] = "changed"
        await respond(send, word.encode())

    server = http_serving(app)
    client = http_serving.client()
    assert [client.ask().body for _ in range(2)] == [b"from startup"] * 2
    assert steps == ["startup"]
    server.close()
    assert steps == ["startup", "shutdown"]


def test_an_application_that_cannot_start(http_serving: HttpServing) -> None:
    async def fails(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(http.LifespanError, match="no database"):
        http_serving(fails)

    async def has_none(scope: Scope, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await respond(send, b"ok")

    with pytest.raises(http.LifespanError, match="has no lifespan"):
        http_serving(has_none, lifespan="on")
    http_serving.servers.clear()
    http_serving(has_none, lifespan="auto")
    assert http_serving.client().ask().body == b"ok"


def test_files(http_serving: HttpServing, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 20_000)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        if scope["path"] == "/path":
            await send({"type": "http.response.pathsend", "path": str(path)})
            return
        with path.open("rb") as file:
            kind = "http.response.zerocopysend"
            await send({"type": kind, "file": file, "offset": 5, "count": 10, "more_body": True})
            await send({"type": "http.response.body", "body": b"|", "more_body": True})
            await send({"type": kind, "file": file, "offset": 199_990})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    for _ in range(2):
        answer = client.ask("/path")
        assert answer.body == path.read_bytes()
        assert answer.header("content-length") == "200000"
        assert client.ask("/parts").body == b"5678901234|0123456789"


def test_a_file_is_sent_from_its_position_and_left_behind_what_was_sent(
    http_serving: HttpServing, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789abcdef")
    positions: list[int] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        with path.open("rb", buffering=0) as file:
            kind = "http.response.zerocopysend"
            file.seek(2)
            for message in (
                {"count": 3, "more_body": True},
                {"offset": 0, "count": 1, "more_body": True},  # by offset: the position stays
                {"count": 4, "more_body": True},
                {},
            ):
                await send({"type": kind, "file": file, **message})
                positions.append(file.tell())

    http_serving(app, lifespan="off")
    assert http_serving.client().ask().body == b"234" + b"0" + b"5678" + b"9abcdef"
    assert positions == [5, 5, 9, 16]


def test_what_a_cancelled_receive_leaves_is_no_wait(http_serving: HttpServing) -> None:
    """Nobody waits for the body any more, so that it does not come is nobody's fault."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    while (await receive())["more_body"]:
                        pass
        await asyncio.sleep(3.5)
        await respond(send, b"in its own time")

    http_serving(app, lifespan="off", limits=http.HttpLimits(stall_timeout_s=1))
    client = http_serving.client()
    client.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"in its own time")


def test_fields_that_end_their_own_answer(http_serving: HttpServing) -> None:
    """An iterator, a conversion and a buffer are the application's code, and may do all it may."""
    seen: list[Any] = []

    class Ending:
        """Answers when it is asked for the first time."""

        def __init__(self, send: Any, value: Any) -> None:
            self.send, self.value = send, value

        def ask(self) -> Any:
            send, self.send = self.send, None
            if send is not None:
                send({"type": "http.response.start", "status": 200}) if send_start else None
                send({"type": "http.response.body", "body": b"inner"})
            return self.value

        def __iter__(self) -> Any:
            return iter(self.ask())

        def __bytes__(self) -> bytes:
            return bytes(self.ask())

    send_start = False

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        nonlocal send_start
        kind = scope["path"]
        send_start = kind == "/hint"
        try:
            if kind == "/hint":
                await send({"type": "http.response.early_hint", "links": [Ending(send, b"</a>")]})
                raise ConnectionResetError  # there is no answer any more that has hints
            fields = Ending(send, [(b"a", b"b")]) if kind == "/fields" else []
            body = Ending(send, b"outer") if kind == "/body" else b"outer"
            await send({"type": "http.response.start", "status": 200, "headers": fields})
            await send({"type": "http.response.body", "body": body})
        except ConnectionResetError:
            seen.append(kind)

    http_serving(app, lifespan="off")
    client = http_serving.client()
    for path in ("/fields", "/body", "/hint"):
        client.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"inner")
        assert seen[-1] == path
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    text = client.rest()
    assert text.count(b"HTTP/1.1 ") == 1
    assert text.endswith(b"outer")


def test_a_lifespan_ends_in_bounded_time(
    http_serving: HttpServing,
    monkeypatch: pytest.MonkeyPatch,
    errors_logged: pytest.LogCaptureFixture,
) -> None:
    """Whatever the application does instead of ending: its cancellation it hears, and may drop."""
    monkeypatch.setattr(lifespan, "SHUTDOWN_TIMEOUT_S", 0.2)
    monkeypatch.setattr(lifespan, "END_TIMEOUT_S", 0.2)
    seen: list[str] = []

    def app_that(says_it_is_over: bool) -> Any:
        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            if says_it_is_over:
                await send({"type": "lifespan.shutdown.complete"})
            while True:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    seen.append("cancelled")
                    if len(seen) % 2 == 0:
                        raise

        return app

    for says_it_is_over in (False, True):
        server = http_serving(app_that(says_it_is_over))
        began_s = time.monotonic()
        server.close()
        assert time.monotonic() - began_s < 10
    assert seen == ["cancelled"] * 4  # once by the bound, once by the end of its loop
    assert errors_logged.text.count("did not shut down within") == 1


def test_early_hints(http_serving: HttpServing) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        links = [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]
        await send({"type": "http.response.early_hint", "links": links})
        await respond(send, b"ok")

    http_serving(app, lifespan="off")
    client = http_serving.client()
    hints = client.ask()
    assert hints.status == 103
    assert [value for name, value in hints.headers if name == "link"] == [
        "</a.css>; rel=preload",
        "</b.js>; rel=preload",
    ]
    assert client.answer().body == b"ok"


def test_a_server_inside_a_running_loop(backend: str) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await respond(send, b"inside")

    import netpoll

    async def main() -> bytes:
        async with http.Server(app, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            text = await reader.read()
            writer.close()
            return text

    with asyncio.Runner(loop_factory=lambda: netpoll.new_event_loop(backend)) as runner:
        assert runner.run(main()).endswith(b"inside")


def test_the_end_is_seen_behind_the_next_request(http_serving: HttpServing) -> None:
    """Who waits for http.disconnect hears of it, too, when the peer has sent more before."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        assert not (await receive())["more_body"]
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        seen.append((await receive())["type"])

    server = http_serving(app, lifespan="off")
    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    # The last are more than is read ahead. With what the kernel keeps at least it is enough: else
    # the end waits at the peer, behind its data, and nobody here can know of it.
    for number, behind in enumerate((b"", b"G", request * 100, request * 4000), 1):
        client = http_serving.client()
        client.send(request + behind)
        assert client.file.read(12) == b"HTTP/1.1 200"
        client.close()
        wait_for(lambda count=number: seen == ["http.disconnect"] * count)
    wait_for(lambda: server.stats()["connections"] == 0)


def test_another_thread_is_refused(http_serving: HttpServing) -> None:
    """It would write into a connection while that one's own thread does."""
    refused: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        def elsewhere() -> None:
            for act in (
                lambda: send({"type": "http.response.start", "status": 201}),
                lambda: send({"type": "http.response.body", "body": b"elsewhere"}),
                lambda: receive().send(None),
                lambda: asyncio.run(receive()),
            ):
                try:
                    act()
                except RuntimeError as exc:
                    refused.append(str(exc))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        await respond(send, b"here")

    http_serving(app, lifespan="off")
    answer = http_serving.client().ask()
    assert (answer.status, answer.body) == (200, b"here")
    assert len(refused) == 4
    assert all("belongs to another thread" in text for text in refused)


@pytest.mark.parametrize("body", [5, "text", [b"parts"]])
def test_a_body_is_bytes(http_serving: HttpServing, body: Any) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        with pytest.raises(TypeError):
            await respond(send, body)
        await send({"type": "http.response.body", "body": bytearray(b"right")})

    http_serving(app, lifespan="off")
    assert http_serving.client().ask().body == b"right"


def test_signals_are_for_the_main_thread(http_serving: HttpServing) -> None:
    """A worker's loop is in another one: it is said what can be done instead."""
    said: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        with pytest.raises(RuntimeError) as caught:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
        said.append(str(caught.value))
        await respond(send, b"ok")

    http_serving(app, lifespan="off")
    assert http_serving.client().ask().body == b"ok"
    assert "in the main thread only" in said[0]
    assert "by its lifespan" in said[0]
