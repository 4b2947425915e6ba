"""Other people's libraries within a session of netpoll.Server: to them it is a task like any."""

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import netpoll

from ..servers import Postgres
from ..support import SLOWNESS, pattern

anyio = pytest.importorskip("anyio")


@contextlib.contextmanager
def serving(backend: str, session: Callable[[netpoll.Connection], Any]) -> Iterator[int]:
    """The port of a server in a thread; whatever its loop was told is a failure."""
    server = netpoll.Server(session, "127.0.0.1", 0, backend=backend)
    new_loop, told = server._new_loop, []

    def listened() -> Any:
        loop = new_loop()
        loop.set_exception_handler(lambda _loop, context: told.append(context))
        return loop

    server._new_loop = listened  # type: ignore[method-assign]
    with server:
        yield server.port
        assert server._threads
    assert told == []


def in_session(backend: str, check: Callable[..., Any], *arguments: Any) -> Any:
    """What `await check(conn, *arguments)` gives or raises within a session; the peer says
    nothing."""
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

    async def session(conn: netpoll.Connection) -> None:
        try:
            outcome.set_result(await check(conn, *arguments))
        except BaseException as error:
            outcome.set_exception(error)

    with serving(backend, session) as port, socket.create_connection(("127.0.0.1", port)):
        return outcome.result(30 * SLOWNESS)


# ---- anyio ------------------------------------------------------------------------------------


async def cancel_scopes(conn: netpoll.Connection) -> None:
    """They reach into awaits of the connection and of asyncio, and leave the session as it was."""
    this = asyncio.current_task()
    assert this is not None
    for wait in (conn.fill, anyio.sleep_forever):
        with anyio.move_on_after(0.02) as scope:
            await wait()
        assert scope.cancelled_caught and this.cancelling() == 0
        with pytest.raises(TimeoutError), anyio.fail_after(0.02):
            await wait()
        with anyio.CancelScope() as outer:
            outer.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            with pytest.raises(asyncio.CancelledError):
                await wait()
            with pytest.raises(asyncio.CancelledError):
                await wait()  # level-triggered: every await is refused
        assert this.cancelling() == 0
    conn.write(b"x")
    await conn.drain()


async def task_groups(conn: netpoll.Connection) -> list[str]:
    done: list[str] = []

    async def child(name: str, *, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        task_status.started(name.upper())
        await anyio.sleep(0.01)
        done.append(name)

    async def fails() -> None:
        await anyio.sleep(0.01)
        raise LookupError

    async with anyio.create_task_group() as group:
        group.start_soon(child, "a")
        assert await group.start(child, "b") == "B"
    for wait in (conn.fill, anyio.sleep_forever):
        with pytest.raises(ExceptionGroup) as failed:
            async with anyio.create_task_group() as group:
                group.start_soon(fails)
                await wait()
        assert failed.group_contains(LookupError)
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    return sorted(done)


async def threads_and_events(conn: netpoll.Connection) -> None:
    """Worker threads, calls back into the loop, events, locks, what tasks there are."""
    event, lock = anyio.Event(), anyio.Lock()

    def in_thread() -> int:
        anyio.from_thread.run_sync(event.set)
        return int(anyio.from_thread.run(number))

    async def number() -> int:
        await anyio.sleep(0)
        return 42

    assert await anyio.to_thread.run_sync(in_thread) == 42
    await event.wait()
    async with lock:
        assert lock.statistics().owner.id == anyio.get_current_task().id
    assert anyio.get_current_task().name == "netpoll-session"
    assert anyio.get_current_task() in anyio.get_running_tasks()
    assert threading.current_thread().name.startswith("netpoll-server")


async def all_blocked(conn: netpoll.Connection) -> None:
    """wait_all_tasks_blocked() from a task, while the session waits for its connection."""

    async def looks() -> None:
        await asyncio.sleep(0.01)
        await anyio.wait_all_tasks_blocked()

    looking = asyncio.create_task(looks())
    with anyio.move_on_after(0.1):
        await conn.fill()
    assert looking.done()
    await looking


async def memory_streams(conn: netpoll.Connection) -> list[int]:
    send, receive = anyio.create_memory_object_stream[int](2)

    async def produce() -> None:
        async with send:
            for n in range(20):
                await send.send(n)

    async with receive, anyio.create_task_group() as group:
        group.start_soon(produce)
        return [n async for n in receive]


@pytest.mark.parametrize(
    ("check", "result"),
    [
        (cancel_scopes, None),
        (task_groups, ["a", "b"]),
        (threads_and_events, None),
        (all_blocked, None),
        (memory_streams, list(range(20))),
    ],
    ids=["cancel_scopes", "task_groups", "threads", "all_blocked", "memory_streams"],
)
def test_anyio(backend: str, check: Callable[..., Any], result: Any) -> None:
    assert in_session(backend, check) == result


# ---- httpx ------------------------------------------------------------------------------------


def test_httpx(backend: str) -> None:
    """A proxy: the session of one server asks another one, many times and at once."""
    httpx = pytest.importorskip("httpx")

    async def origin(conn: netpoll.Connection) -> None:
        while await conn.fill():
            head = await conn.read_until(b"\r\n\r\n")
            body = pattern(int(head.split()[1][1:]))
            conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def check(conn: netpoll.Connection, port: int) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=20 * SLOWNESS) as client:
            url = f"http://127.0.0.1:{port}"
            assert (await client.get(f"{url}/100000")).content == pattern(100_000)
            answers = await asyncio.gather(*(client.get(f"{url}/{n * 999}") for n in range(20)))
            assert [len(answer.content) for answer in answers] == [n * 999 for n in range(20)]
            with pytest.raises(httpx.ConnectError):
                await client.get("http://127.0.0.1:1/")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            where = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            async with httpx.AsyncClient(trust_env=False, timeout=0.05) as client:
                with pytest.raises(httpx.ReadTimeout):
                    await client.get(where)

    with serving(backend, origin) as port:
        in_session(backend, check, port)


# ---- Starlette --------------------------------------------------------------------------------


def _starlette_app() -> Any:
    applications = pytest.importorskip("starlette.applications")
    concurrency = pytest.importorskip("starlette.concurrency")
    responses = pytest.importorskip("starlette.responses")
    routing = pytest.importorskip("starlette.routing")

    async def echo(request: Any) -> Any:
        return responses.Response(await request.body(), headers={"x-path": request.url.path})

    def in_thread(request: Any) -> Any:
        return responses.PlainTextResponse(threading.current_thread().name)

    async def stream(request: Any) -> Any:
        async def chunks() -> Any:
            for n in range(5):
                await asyncio.sleep(0)
                yield b"%d," % n

        async def afterwards() -> None:
            await concurrency.run_in_threadpool(ran.append, "task")

        background = pytest.importorskip("starlette.background")
        task = background.BackgroundTask(afterwards)
        return responses.StreamingResponse(chunks(), background=task)

    ran: list[str] = []
    app = applications.Starlette(
        routes=[
            routing.Route("/echo", echo, methods=["POST"]),
            routing.Route("/thread", in_thread),
            routing.Route("/stream", stream),
            routing.Route("/ran", lambda request: responses.JSONResponse(ran)),
        ]
    )
    base = pytest.importorskip("starlette.middleware.base")

    async def tag(request: Any, call_next: Any) -> Any:  # runs the rest in an anyio task group
        response = await call_next(request)
        response.headers["x-tag"] = "yes"
        return response

    app.add_middleware(base.BaseHTTPMiddleware, dispatch=tag)
    return app


async def _asgi(app: Any, conn: netpoll.Connection) -> None:
    """One ASGI call for each request of a connection."""
    while await conn.fill():
        lines = (await conn.read_until(b"\r\n\r\n")).split(b"\r\n")
        method, path, _ = lines[0].decode().split()
        headers = [(k.lower(), v.strip()) for k, v in (x.split(b":", 1) for x in lines[1:] if x)]
        body = await conn.read_exactly(int(dict(headers).get(b"content-length", 0)))
        asked: list[bool] = []

        async def receive(body: bytes = body, asked: list[bool] = asked) -> dict[str, Any]:
            if asked:
                await asyncio.sleep(3600)  # the peer stays
            asked.append(True)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                fields = [*message["headers"], (b"transfer-encoding", b"chunked")]
                fields = [pair for pair in fields if pair[0] != b"content-length"]
                conn.write(b"HTTP/1.1 %d OK\r\n" % message["status"])
                conn.write(b"".join(b"%s: %s\r\n" % pair for pair in fields) + b"\r\n")
                return
            data = message.get("body", b"")
            if data:
                conn.write(b"%x\r\n%s\r\n" % (len(data), data))
            if not message.get("more_body"):
                conn.write(b"0\r\n\r\n")
            await conn.drain()

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers,
            "scheme": "http", "server": ("127.0.0.1", 0), "client": conn.peername,
        }  # fmt: skip
        await app(scope, receive, send)


def test_starlette(backend: str) -> None:
    """Its handlers, threads, streams, middleware and background tasks, in a session each."""
    httpx = pytest.importorskip("httpx")
    app = _starlette_app()

    async def session(conn: netpoll.Connection) -> None:
        await _asgi(app, conn)

    with serving(backend, session) as port:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, trust_env=False, timeout=20 * SLOWNESS) as client:
            answer = client.post("/echo", content=pattern(50_000))
            assert answer.content == pattern(50_000)
            assert (answer.headers["x-path"], answer.headers["x-tag"]) == ("/echo", "yes")
            assert "AnyIO worker" in client.get("/thread").text
            assert client.get("/stream").text == "0,1,2,3,4,"
            assert client.get("/ran").json() == ["task"]
            assert client.get("/nowhere").status_code == 404


# ---- asyncpg ----------------------------------------------------------------------------------


def test_asyncpg(backend: str, postgres: Postgres) -> None:
    """A pool, a transaction, a cursor, and a query that is given up."""
    asyncpg = pytest.importorskip("asyncpg")

    async def check(conn: netpoll.Connection) -> None:
        pool = await asyncpg.create_pool(
            host=str(postgres.folder), port=postgres.port, user=postgres.user, min_size=1,
            max_size=4, database="postgres",
        )  # fmt: skip
        async with pool:
            assert await pool.fetchval("SELECT 1 + 1") == 2
            many = [pool.fetchval("SELECT $1::int", n) for n in range(20)]
            assert await asyncio.gather(*many) == list(range(20))
            async with pool.acquire() as connection, connection.transaction():
                rows = [row[0] async for row in connection.cursor("SELECT generate_series(1, 99)")]
                assert rows == list(range(1, 100))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await pool.execute("SELECT pg_sleep(30)")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await pool.execute("SELECT 1 / 0")
            assert await pool.fetchval("SELECT 3") == 3
        conn.write(b"x")
        await conn.drain()

    in_session(backend, check)
