"""What programs do with tasks, in an ASGI application of netpoll.http.Server.

Its coroutine is stepped without an asyncio.Task. To everybody who asks it is one: anyio's task
groups and cancel scopes, asyncio's time-outs, context variables, threads, clients of HTTP.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from ..http.conftest import HttpServing
from ..server.conftest import check_all_is_back, wait_for

anyio = pytest.importorskip("anyio")

Body = Callable[[Any], Awaitable[Any]]
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


@pytest.fixture
def http_serving(backend: str) -> Iterator[HttpServing]:
    yield from check_all_is_back(HttpServing(backend))


def answer(serving: HttpServing, body: Body) -> tuple[int, str]:
    """What `body(receive)` returns, as a request's answer; three times on one connection."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        text = str(await body(receive))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": text.encode()})

    serving(app, lifespan="off")
    client = serving.client()
    found = {(one.status, one.body.decode()) for one in (client.ask() for _ in range(3))}
    assert len(found) == 1, found
    return found.pop()


def test_a_task_group_of_anyio(http_serving: HttpServing) -> None:
    async def body(receive: Any) -> list[int]:
        found: list[int] = []

        async def child(number: int, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
            task_status.started(number)
            await anyio.sleep(0.001 * number)
            found.append(number)

        async with anyio.create_task_group() as group:
            for number in (2, 1):
                group.start_soon(child, number)
            assert await group.start(child, 3) == 3
        return found

    assert answer(http_serving, body) == (200, "[1, 2, 3]")


def test_a_child_that_fails_cancels_the_others_and_the_request(
    http_serving: HttpServing, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def fails() -> None:
        await anyio.sleep(0.001)
        raise ZeroDivisionError

    async def sleeps() -> None:
        try:
            await anyio.sleep(100)
        finally:
            seen.append("cancelled")

    async def with_anyio(receive: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
            group.start_soon(sleeps)
            await sleeps()

    async def with_asyncio(receive: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(sleeps())
            await sleeps()

    async def caught(receive: Any) -> str:
        for body in (with_anyio, with_asyncio):
            with pytest.raises(BaseExceptionGroup) as failed:
                await body(receive)
            assert failed.group_contains(ZeroDivisionError)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # nothing of the cancellation is left
        return "caught"

    assert answer(http_serving, caught) == (200, "caught")
    assert seen == ["cancelled"] * 4 * 3
    for body in (with_anyio, with_asyncio):
        http_serving(_app_of(body), lifespan="off")
        assert http_serving.client().ask().status == 500
    assert "ZeroDivisionError" in caplog.text


def _app_of(body: Body) -> Any:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await body(receive)

    return app


def test_cancel_scopes_and_time_outs(http_serving: HttpServing) -> None:
    async def body(receive: Any) -> str:
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep(100)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await anyio.Event().wait()
        with anyio.CancelScope() as outer:
            outer.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)  # it is not cancelled
            await anyio.sleep(100)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                async with asyncio.timeout(0.001):
                    await receive_twice(receive)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.sleep(0.01)), 0.001)
        await anyio.lowlevel.checkpoint()
        return "done"

    async def receive_twice(receive: Any) -> None:
        assert (await receive())["type"] == "http.request"
        await receive()  # waits for the client to leave

    assert answer(http_serving, body) == (200, "done")


def test_it_is_one_task_all_the_time(http_serving: HttpServing) -> None:
    async def body(receive: Any) -> str:
        task = asyncio.current_task()
        assert isinstance(task, asyncio.Task)
        others = set()
        for wait in (asyncio.sleep(0), asyncio.sleep(0.001), receive(), anyio.sleep(0)):
            await wait
            assert asyncio.current_task() is task
            assert task in asyncio.all_tasks()
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                others.add(group.create_task(asyncio.sleep(0)))
        assert task not in others
        info = anyio.get_current_task()
        assert info.id == id(task)
        return str(task.cancelling())

    assert answer(http_serving, body) == (200, "0")


def test_context_variables(http_serving: HttpServing) -> None:
    async def body(receive: Any) -> str:
        assert variable.get() == "nothing"  # of the request before nothing is left
        variable.set("mine")
        seen = []

        async def child() -> None:
            seen.append(variable.get())
            variable.set("the child's")

        async with anyio.create_task_group() as group:
            group.start_soon(child)
        await asyncio.create_task(child())
        await asyncio.sleep(0.001)
        seen.append(await anyio.to_thread.run_sync(variable.get))
        seen.append(await asyncio.to_thread(variable.get))
        return " ".join([*seen, variable.get()])

    assert answer(http_serving, body) == (200, "mine mine mine mine mine")


def test_threads_and_back(http_serving: HttpServing) -> None:
    async def body(receive: Any) -> int:
        def in_thread() -> int:
            async def in_loop() -> int:
                await anyio.sleep(0)
                return 20

            return anyio.from_thread.run(in_loop) + anyio.from_thread.run_sync(lambda: 22)

        return await anyio.to_thread.run_sync(in_thread)

    assert answer(http_serving, body) == (200, "42")


def test_streams_locks_and_a_client(http_serving: HttpServing) -> None:
    httpx = pytest.importorskip("httpx")

    async def behind(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"from behind"})

    port = http_serving(behind, lifespan="off").port

    async def body(receive: Any) -> str:
        into, out = anyio.create_memory_object_stream(0)
        lock, limiter = anyio.Lock(), anyio.CapacityLimiter(1)

        async def produce() -> None:
            async with into, lock, limiter, httpx.AsyncClient() as client:
                for _ in range(2):
                    await into.send((await client.get(f"http://127.0.0.1:{port}/")).text)

        async with anyio.create_task_group() as group, out:
            group.start_soon(produce)
            return ", ".join([text async for text in out])

    assert answer(http_serving, body) == (200, "from behind, from behind")


def test_a_client_that_leaves_ends_a_task_group(http_serving: HttpServing) -> None:
    """As frameworks do it: a child listens for the disconnect and cancels the others."""
    seen: list[str] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            try:
                await anyio.sleep(100)
            except BaseException as error:
                seen.append(type(error).__name__)
                raise
        seen.append("over")

    http_serving(app, lifespan="off")
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    anyio.run(anyio.sleep, 0.05)
    client.close()
    wait_for(lambda: seen == ["CancelledError", "over"])
