"""What an application of ASGI may be, beside an `async def`; and what it may not say."""

import asyncio
import contextvars
import pathlib
import time
from typing import Any

import pytest

from tests.http.conftest import HttpServing
from tests.http.test_asgi import Scope, respond
from tests.server.conftest import wait_for

COUNT: contextvars.ContextVar[int] = contextvars.ContextVar("count", default=0)


async def answer(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    else:
        await respond(send, str(COUNT.get()).encode())


class Wrapped:
    """Middleware whose call runs code."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []

    def __call__(self, scope: Scope, receive: Any, send: Any) -> Any:
        self.tasks.append(asyncio.current_task())
        COUNT.set(COUNT.get() + 1)
        return answer(scope, receive, send)


UPGRADE = {
    "Connection": "upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}


def test_code_that_runs_in_the_call_has_the_requests_context(http_serving: HttpServing) -> None:
    app = Wrapped()
    http_serving(app, interface="asgi", lifespan="off")
    client = http_serving.client()
    assert [client.ask().body for _ in range(3)] == [b"1"] * 3
    assert client.ask("/", **UPGRADE).status == 403
    assert client.ask().body == b"1"
    assert None not in app.tasks and len(set(map(id, app.tasks))) > 1


class Later:
    """Awaitable, and nothing else."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __await__(self) -> Any:
        return answer(*self.args).__await__()


def as_a_task(scope: Scope, receive: Any, send: Any) -> Any:
    return asyncio.ensure_future(answer(scope, receive, send))


@pytest.mark.parametrize("app", [Later, as_a_task, Wrapped(), answer])
def test_any_awaitable_will_do(http_serving: HttpServing, app: Any) -> None:
    http_serving(app, interface="asgi", lifespan="off")
    client = http_serving.client()
    for _ in range(2):
        assert client.ask().status == 200
        assert client.ask("/", **UPGRADE).status == 403


def test_what_is_no_awaitable_fails(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture
) -> None:
    http_serving(lambda scope, receive, send: None, interface="asgi", lifespan="off")
    assert http_serving.client().ask().status == 500
    assert "NoneType" in errors_logged.text


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("said", [{"count": -1}, {"offset": -1}, {"offset": -9, "count": 4}])
def test_a_part_of_a_file_is_not_negative(
    http_serving: HttpServing,
    tmp_path: pathlib.Path,
    errors_logged: pytest.LogCaptureFixture,
    said: dict[str, int],
    more: bool,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        with path.open("rb") as file:
            message = {"type": "http.response.zerocopysend", "file": file, "more_body": more}
            await send(message | said)

    http_serving(app, lifespan="off")
    answer = http_serving.client().ask()
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert "must not be negative" in errors_logged.text


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_any_number_of_tasks_may_send(http_serving: HttpServing, is_cancelled: bool) -> None:
    """As one that sends events, and one that keeps the connection alive. The client is slow."""
    part = b"x" * 100_000
    sent: list[int] = []

    async def send_parts(send: Any, number: int) -> None:
        for _ in range(20):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            sent.append(number)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send_parts(send, number)) for number in range(4)]
            if is_cancelled:
                await asyncio.sleep(0.05)
                for task in tasks[:3]:  # one of them waits for the connection
                    task.cancel()
        await send({"type": "http.response.body"})

    http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    time.sleep(0.2)
    body = client.answer().body
    assert len(body) % len(part) == 0
    assert sent.count(3) == 20
    if not is_cancelled:
        assert len(body) == 80 * len(part) and len(sent) == 80
    assert client.ask("/", "GET").status == 200


@pytest.mark.parametrize("path", ["/", "/begun"])
def test_an_application_that_hears_of_the_end_may_return(
    http_serving: HttpServing, errors_logged: pytest.LogCaptureFixture, path: str
) -> None:
    """As a stream of events does when its client closes: that is no failure."""
    ended: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"event", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.append(scope["path"])

    server = http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n" % path.encode())
    time.sleep(0.05)
    client.sock.shutdown(1)
    wait_for(lambda: ended)
    client.close()
    server.close()
    assert errors_logged.text == ""


def test_tasks_that_wait_to_send_hear_that_the_client_has_gone(http_serving: HttpServing) -> None:
    ends: list[BaseException | None] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        message = {"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True}

        async def send_on() -> None:
            while True:
                await send(message)

        await send({"type": "http.response.start", "status": 200})
        tasks = [asyncio.ensure_future(send_on()) for _ in range(3)]
        await asyncio.wait(tasks)
        ends.extend(task.exception() for task in tasks)

    http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    time.sleep(0.2)
    client.close()
    wait_for(lambda: len(ends) == 3)
    assert all(isinstance(end, ConnectionResetError) for end in ends)
