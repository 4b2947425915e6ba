"""To asyncio, and to everybody who asks it, a session is a task."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import copy
import inspect
import io
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest

import netpoll
from tests.support import SLOWNESS, until

from .conftest import Serving, read_exactly, wait_for


def in_session(
    serving: Serving, check: Callable[..., Any], sent: bytes = b"", **options: Any
) -> Any:
    """What `await check(conn)` gives or raises within a session."""
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

    async def session(conn: netpoll.Connection) -> None:
        try:
            outcome.set_result(await check(conn))
        except BaseException as error:
            outcome.set_exception(error)

    serving(session, **options)
    client = serving.connect()
    client.sendall(sent)
    return outcome.result(20 * SLOWNESS)


# ---- what it looks like -----------------------------------------------------------------------


def test_it_has_the_interface_of_a_task(serving: Serving) -> None:
    async def check(conn: netpoll.Connection) -> None:
        session = asyncio.current_task()
        loop = asyncio.get_running_loop()
        assert session is not None
        assert isinstance(session, asyncio.Task) and isinstance(session, asyncio.Future)
        assert asyncio.isfuture(session) and not asyncio.iscoroutine(session)
        assert asyncio.ensure_future(session) is session
        assert session in asyncio.all_tasks()
        missing = [
            name
            for name in dir(asyncio.Task)
            if not name.startswith("__") and not hasattr(session, name)
        ]
        assert missing == []
        assert session.get_loop() is loop and not session.done() and not session.cancelled()
        assert inspect.iscoroutine(session.get_coro())
        assert session.get_name() == "netpoll-session"
        session.set_name(5)  # type: ignore[arg-type]
        assert session.get_name() == "5" and "5" in repr(session)
        assert (session.cancelling(), session.uncancel()) == (0, 0)
        for call in (session.result, session.exception):
            with pytest.raises(asyncio.InvalidStateError):
                call()
        for setter in (session.set_result, session.set_exception):
            with pytest.raises(RuntimeError, match="does not support"):
                setter(None)  # type: ignore[arg-type]
        for copier in (copy.copy, pickle.dumps):
            with pytest.raises(TypeError):
                copier(session)
        text = io.StringIO()
        session.print_stack(file=text)
        assert "check" in text.getvalue() and session.get_stack()

    in_session(serving, check)


def test_weak_references(serving: Serving) -> None:
    """To sessions, and to connections: they last as long as the connection."""
    kept: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    async def session(conn: netpoll.Connection) -> None:
        kept[asyncio.current_task()] = "session"
        kept[conn] = "connection"
        conn.write(b"x")
        await conn.fill()

    server = serving(session)
    client = serving.connect()
    assert client.recv(1) == b"x"
    assert sorted(kept.values()) == ["connection", "session"]
    client.close()
    wait_for(lambda: not server.stats()["connections"] and not kept)


def test_a_weak_reference_stays_with_its_connection(serving: Serving) -> None:
    """Handlers share the object that stands for a connection, unless somebody refers to it."""
    seen: weakref.WeakKeyDictionary[netpoll.Connection, bytes] = weakref.WeakKeyDictionary()

    def on_data(conn: netpoll.Connection) -> None:
        name = seen.setdefault(conn, conn.take())
        conn.skip()
        conn.write(name)

    serving(on_data)
    clients = [serving.connect() for _ in range(3)]
    for number in (0, 1, 2, 1, 0, 2):
        clients[number].sendall(b"%d" % number)
        assert clients[number].recv(10) == b"%d" % number


def test_what_waits_is_told_of_its_end(serving: Serving) -> None:
    """add_done_callback, await, gather, wait, wait_for, shield: from tasks and other sessions."""
    sessions: list[Any] = []
    got: list[Any] = []
    mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")

    async def session(conn: netpoll.Connection) -> Any:
        this = asyncio.current_task()
        sessions.append(this)
        if len(sessions) == 1:
            await conn.read_exactly(1)
            return "first"
        other = sessions[0]
        mark.set("ours")
        other.add_done_callback(lambda session: got.append((mark.get(), session.result())))
        never = got.append
        other.add_done_callback(never)
        assert other.remove_done_callback(never) == 1
        assert len(other._callbacks) == 1

        async def task() -> Any:
            return await other

        conn.write(b"x")
        shielded = asyncio.shield(other)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(other), 0.01)
        done, pending = await asyncio.wait([other], timeout=0.01)
        assert (done, pending) == (set(), {other})
        conn.write(b"x")
        got.append(await asyncio.gather(other, asyncio.create_task(task()), shielded))
        got.append((await other, other.done(), other.exception(), other in asyncio.all_tasks()))
        conn.write(b"x")
        return None

    serving(session)
    first = serving.connect()
    wait_for(lambda: sessions)
    second = serving.connect()
    assert read_exactly(second, 2) == b"xx"
    first.sendall(b"1")
    assert read_exactly(second, 1) == b"x"
    assert got == [("ours", "first"), ["first"] * 3, ("first", True, None, False)]


def test_how_a_session_has_ended(serving: Serving) -> None:
    """result(), exception() and cancelled(), when it was cancelled and when it failed."""
    ended: dict[str, Any] = {}

    async def session(conn: netpoll.Connection) -> None:
        this = asyncio.current_task()
        assert this is not None
        how = await conn.read_until(b"\n")
        this.add_done_callback(lambda session: ended.setdefault(how.decode().strip(), session))
        conn.write(b"x")
        if how == b"fail\n":
            raise LookupError("as asked")
        if how == b"cancel in the last step\n":
            this.cancel("why")
            return
        if how == b"cancel\n":
            this.cancel("why")
        await conn.fill(10)

    serving(session)
    for how in (b"fail", b"cancel", b"cancel in the last step"):
        client = serving.connect()
        client.sendall(how + b"\n")
        assert read_exactly(client, 2) in (b"", b"x")  # and then the end
    wait_for(lambda: len(ended) == 3)
    failed = ended.pop("fail")
    assert failed._state == "FINISHED" and isinstance(failed.exception(), LookupError)
    with pytest.raises(LookupError, match="as asked"):
        failed.result()
    for session_ in ended.values():
        assert session_.cancelled() and session_.done() and not session_.cancel()
        for call in (session_.result, session_.exception):
            with pytest.raises(asyncio.CancelledError, match="why"):
                call()
    assert [type(context["exception"]) for context in serving.errors] == [LookupError]
    serving.errors.clear()


# ---- cancelling -------------------------------------------------------------------------------


async def _native(conn: netpoll.Connection) -> Any:
    return await conn.fill(100)


async def _of_asyncio(conn: netpoll.Connection) -> Any:
    return await asyncio.sleep(100)


async def _shielded(conn: netpoll.Connection) -> Any:
    inner = asyncio.ensure_future(asyncio.sleep(100))
    try:
        return await asyncio.shield(inner)
    finally:
        inner.cancel()


async def _next_turn(conn: netpoll.Connection) -> None:
    while True:
        await asyncio.sleep(0)


AWAITS = [_native, _of_asyncio, _shielded, _next_turn]


@pytest.mark.parametrize("waits", AWAITS, ids=lambda waits: waits.__name__)
def test_structured_cancelling(serving: Serving, waits: Callable[..., Any]) -> None:
    """timeout(), TaskGroup, wait_for and cancel() end every kind of await, and count right."""

    async def check(conn: netpoll.Connection) -> None:
        this = asyncio.current_task()
        assert this is not None
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await waits(conn)
            assert this.cancelling() == 0 and not this._must_cancel  # type: ignore[attr-defined]
        with pytest.raises(ExceptionGroup) as failed:
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail())
                await waits(conn)
        assert failed.group_contains(LookupError) and this.cancelling() == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waits(conn), 0.01)
        asyncio.get_running_loop().call_later(0.01, this.cancel, "message")
        with pytest.raises(asyncio.CancelledError, match="message"):
            await waits(conn)
        assert this.cancelling() == 1 and this.uncancel() == 0
        this.cancel()  # before it waits
        with pytest.raises(asyncio.CancelledError):
            await waits(conn)
        this.uncancel()
        if waits is not _next_turn:  # where there is a future, it is cancelled for good
            asyncio.get_running_loop().call_later(0.01, lambda: (this.cancel(), this.uncancel()))
            with pytest.raises(asyncio.CancelledError):
                await waits(conn)
            assert this.cancelling() == 0
        conn.write(b"x")
        await conn.drain()  # and all is as before

    async def _fail() -> None:
        await asyncio.sleep(0.01)
        raise LookupError

    in_session(serving, check)


def test_a_future_that_does_not_let_itself_be_cancelled(serving: Serving) -> None:
    """The session goes on when it ends, as a task does."""

    class Stubborn(asyncio.Future[Any]):
        def cancel(self, msg: object = None) -> bool:
            return False

    async def check(conn: netpoll.Connection) -> None:
        this = asyncio.current_task()
        assert this is not None
        loop = asyncio.get_running_loop()
        future = Stubborn(loop=loop)
        loop.call_later(0.01, this.cancel)
        loop.call_later(0.03, future.set_result, 1)
        with pytest.raises(asyncio.CancelledError):
            await future
        assert future.done()

    in_session(serving, check)


# ---- what cannot be awaited -------------------------------------------------------------------


class Yields:
    """An awaitable that yields what it was given."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, None, Any]:
        return (yield self.value)


def _itself() -> Any:
    return asyncio.current_task()


def _foreign() -> Any:
    loop = asyncio.new_event_loop()
    loop.close()
    return asyncio.Future(loop=loop)


def _future_without_from() -> Any:
    return Yields(asyncio.get_running_loop().create_future())


def _generator() -> Any:
    return Yields(x for x in ())


def _number() -> Any:
    return Yields(42)


def _liar() -> Any:
    class Liar(asyncio.Future[Any]):
        def add_done_callback(self, *args: Any, **options: Any) -> None:
            raise LookupError("this future takes no callbacks")

    return Liar(loop=asyncio.get_running_loop())


BAD_AWAITS = [
    (_itself, RuntimeError, "cannot await on itself"),
    (_foreign, RuntimeError, "attached to a different loop"),
    (_future_without_from, RuntimeError, "yield was used instead of yield from"),
    (_generator, RuntimeError, "yield was used instead of yield from for generator"),
    (_number, RuntimeError, "bad yield: 42"),
    (_liar, LookupError, "takes no callbacks"),
]


@pytest.mark.parametrize(
    ("make", "error", "message"), BAD_AWAITS, ids=[case[0].__name__ for case in BAD_AWAITS]
)
def test_a_bad_await_is_raised_where_it_stands(
    serving: Serving, make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    """The coroutine may handle it, and goes on; other turns run meanwhile."""

    async def check(conn: netpoll.Connection) -> bytes:
        thread = threading.current_thread()
        with pytest.raises(error, match=message):
            await make()
        assert threading.current_thread() is thread
        return await conn.read_exactly(2)

    assert in_session(serving, check, b"ok") == b"ok"


def test_a_future_of_another_loop_that_runs(serving: Serving) -> None:
    """Neither is the session resumed in the other thread, nor is its connection left open."""
    other = netpoll.new_event_loop(serving.backend)
    runner = threading.Thread(target=other.run_forever)
    runner.start()
    seen: list[Any] = []

    async def session(conn: netpoll.Connection) -> None:
        future = other.create_future()
        other.call_soon_threadsafe(other.call_later, 0.02, future.set_result, 5)
        try:
            await future
        finally:
            seen.append(threading.current_thread().name)

    server = serving(session)
    client = serving.connect()
    assert client.recv(1) == b""
    assert seen == ["netpoll-server-0"]
    assert "attached to a different loop" in str(serving.errors.pop()["exception"])
    wait_for(lambda: not server.stats()["sessions"])
    other.call_soon_threadsafe(other.stop)
    runner.join()
    other.close()


def test_the_exception_of_a_future_is_raised_at_the_yield(serving: Serving) -> None:
    """An awaitable need not ask the future for its result itself."""

    async def check(conn: netpoll.Connection) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        future._asyncio_future_blocking = True
        loop.call_later(0.01, future.set_exception, LookupError("of the future"))
        with pytest.raises(LookupError, match="of the future"):
            await Yields(future)

    in_session(serving, check)


# ---- leases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [_native, _of_asyncio], ids=["native", "asyncio"])
def test_too_much_kept_over_an_await(serving: Serving, waits: Callable[..., Any]) -> None:
    """The session is told where it waits, each time, until it keeps less."""

    async def check(conn: netpoll.Connection) -> bytes:
        await conn.fill(50_000)
        first, second = conn.lease(5_000), conn.lease(45_000)
        for _ in range(3):
            with pytest.raises(BufferError, match=r"50000 bytes .* retained_max_bytes is 10000"):
                await waits(conn)
        assert bytes(second) == b"a" * 45_000  # it is still the session's
        second.release()
        await asyncio.sleep(0)
        conn.write(b"x")
        await conn.drain()
        first.release()
        return await conn.read_exactly(1)

    limits = netpoll.ServerLimits(retained_max_bytes=10_000)
    assert in_session(serving, check, b"a" * 50_000 + b"b", limits=limits) == b"b"


# ---- tasks within it --------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("way", ["factory", "eager_start"])
def test_eager_tasks(serving: Serving, way: str) -> None:
    """They run within the session's step, are the current task meanwhile, and may await bytes of
    the session's connection."""

    async def eager(conn: netpoll.Connection) -> bytes:
        assert asyncio.current_task() is not session_of[conn]
        data = await conn.read_exactly(3)
        assert asyncio.current_task() is not session_of[conn]
        return data

    async def at_once() -> str:
        return "at once"

    session_of: dict[Any, Any] = {}

    async def check(conn: netpoll.Connection) -> None:
        this = session_of[conn] = asyncio.current_task()
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"loop": loop, "eager_start": True}
        if way == "factory":
            loop.set_task_factory(asyncio.eager_task_factory)
        make = asyncio.create_task if way == "factory" else asyncio.Task
        if way == "factory":
            options = {}
        try:
            done = make(at_once(), **options)
            assert done.done() and asyncio.current_task() is this
            task = make(eager(conn), **options)
            assert asyncio.current_task() is this and not task.done()
            conn.write(b"now")
            await conn.drain()
            assert await task == b"abc"
            late = make(eager(conn), **options)
            await asyncio.sleep(0.01)
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            conn.write(b"end")
            assert await conn.read_exactly(1) == b"d"
        finally:
            loop.set_task_factory(None)

    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

    async def session(conn: netpoll.Connection) -> None:
        try:
            outcome.set_result(await check(conn))
        except BaseException as error:
            outcome.set_exception(error)

    serving(session)
    client = serving.connect()
    assert read_exactly(client, 3) == b"now"
    client.sendall(b"ab")
    client.sendall(b"c")
    assert read_exactly(client, 3) == b"end"
    client.sendall(b"d")
    outcome.result(20 * SLOWNESS)


def test_a_coroutine_stepped_by_hand(serving: Serving) -> None:
    """Who steps a coroutine within a session gets a future that it can wait for."""

    async def check(conn: netpoll.Connection) -> bytes:
        step = conn.read_exactly(3).__await__()
        waiter = step.send(None)
        assert asyncio.isfuture(waiter) and not waiter.done()
        assert waiter.get_loop() is asyncio.get_running_loop()
        woken = asyncio.Event()
        waiter._asyncio_future_blocking = False
        waiter.add_done_callback(lambda _: woken.set(), context=contextvars.copy_context())
        conn.write(b"now")
        await woken.wait()
        with pytest.raises(StopIteration) as stopped:
            step.send(None)
        return bytes(stopped.value.value)

    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

    async def session(conn: netpoll.Connection) -> None:
        try:
            outcome.set_result(await check(conn))
        except BaseException as error:
            outcome.set_exception(error)

    serving(session)
    client = serving.connect()
    assert read_exactly(client, 3) == b"now"
    client.sendall(b"abc")
    assert outcome.result(20 * SLOWNESS) == b"abc"


def test_what_it_waits_for(serving: Serving) -> None:
    """_fut_waiter, as anyio's wait_all_tasks_blocked and _deliver_cancellation read it."""
    seen: list[Any] = []

    async def check(conn: netpoll.Connection) -> None:
        this: Any = asyncio.current_task()

        def look() -> None:
            seen.append(this._fut_waiter is not None and not this._fut_waiter.done())

        loop = asyncio.get_running_loop()
        assert this._fut_waiter is None
        for waits in (_native, _of_asyncio):
            loop.call_later(0.005, look)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    await waits(conn)

    in_session(serving, check)
    assert seen == [True, True]


def test_coroutines_of_every_make(serving: Serving) -> None:
    """A handler may give a generator-based coroutine, too."""

    @types.coroutine
    def old_style(conn: netpoll.Connection) -> Generator[Any, None, None]:
        data = yield from conn.read_exactly(2).__await__()
        conn.write(data)

    async def session(conn: netpoll.Connection) -> None:
        await old_style(conn)

    serving(session)
    client = serving.connect()
    client.sendall(b"hi")
    assert read_exactly(client, 10) == b"hi"


# ---- the loop that it runs in -----------------------------------------------------------------


def test_run_cancels_sessions_that_are_left(backend: str) -> None:
    """As asyncio.run() does with what is in all_tasks(): their finally blocks may still await."""
    seen: list[str] = []

    async def session(conn: netpoll.Connection) -> None:
        seen.append("begun")
        try:
            await conn.fill()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            seen.append("cancelled")
            raise

    async def main() -> str:
        server = netpoll.Server(session, "127.0.0.1", 0).start()
        connection = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: seen)
        kept.append(connection)
        assert len(asyncio.all_tasks()) == 2
        return "the result"

    kept: list[Any] = []
    assert netpoll.run(main(), backend=backend) == "the result"
    assert seen == ["begun", "cancelled"]
