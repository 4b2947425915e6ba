"""Ends that end: of workers, servers, loops and child processes, orderly or not."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll._native.server import ends
from tests.conftest import open_fds
from tests.support import SLOWNESS, run_child, until

from .conftest import Serving, wait_for


def echo(conn: netpoll.Connection) -> None:
    conn.forward()


def ended(client: socket.socket) -> bool:
    """The client sees the end: of the stream, or by a reset."""
    try:
        return client.recv(100) == b""
    except ConnectionError:
        return True


def server_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("netpoll-server")]


# ---- a worker's thread that ends by itself ----------------------------------------------------


def _exits(conn: netpoll.Connection) -> None:
    sys.exit(3)


def _is_interrupted(conn: netpoll.Connection) -> None:
    raise KeyboardInterrupt


async def _session_exits(conn: netpoll.Connection) -> None:
    await conn.fill()
    sys.exit(3)


def _callback_exits(conn: netpoll.Connection) -> None:
    conn.loop.call_soon(sys.exit, 3)


def _stops_the_loop(conn: netpoll.Connection) -> None:
    conn.loop.stop()


async def _task_exits(conn: netpoll.Connection) -> None:
    async def task() -> None:
        await conn.fill()
        sys.exit(3)

    kept.append(asyncio.create_task(task()))
    await asyncio.sleep(100)


kept: list[Any] = []

FAILURES: list[tuple[Callable[..., Any], type[BaseException]]] = [
    (_exits, SystemExit),
    (_is_interrupted, KeyboardInterrupt),
    (_session_exits, SystemExit),
    (_callback_exits, SystemExit),
    (_task_exits, SystemExit),
    (_stops_the_loop, RuntimeError),
]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("handler", "error"), FAILURES, ids=[handler.__name__.strip("_") for handler, _ in FAILURES]
)
def test_a_worker_that_ends_stops_the_server(
    serving: Serving, handler: Callable[..., Any], error: type[BaseException], workers: int
) -> None:
    """The listener closes, every client sees its end, the exception is told once and raised by
    close(), which may be called again."""
    server = serving(handler, workers=workers)
    port = server.port
    clients = [serving.connect() for _ in range(7)]
    wait_for(lambda: server.stats()["connections"] == 7)
    clients[0].send(b"x")
    assert ended(clients[0])
    wait_for(lambda: "failed" in repr(server))
    stopping = time.monotonic()
    with pytest.raises(error):
        server.close(0.1)
    assert time.monotonic() - stopping < 3 * SLOWNESS
    assert all(ended(client) for client in clients)
    assert server.sockets == () and server.port == port and server_threads() == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    kept.clear()
    gc.collect()
    serving.errors[:] = [context for context in serving.errors if "future" not in context]
    told = [context for context in serving.errors if isinstance(context["exception"], error)]
    assert len(told) == 1 and "the server stops" in told[0]["message"]
    serving.errors[:] = [context for context in serving.errors if context not in told]
    server.close()


def test_a_loop_that_fails(serving: Serving) -> None:
    """Its next system call is refused: as good as any other failure of a worker."""
    server = serving(echo, workers=2)
    client = serving.connect()
    client.send(b"x")
    assert client.recv(1) == b"x"
    loop = server._threads[0].loop

    def fail() -> None:
        raise MemoryError("of the loop")

    loop._at_close.append((fail, fail))  # it cannot even be closed in an orderly way
    loop.call_soon_threadsafe(sys.exit, "failed")
    with contextlib.suppress(ConnectionError):
        assert client.recv(1) == b""
    with pytest.raises(SystemExit):
        server.close(0.1)
    assert {type(context["exception"]) for context in serving.errors} == {SystemExit, MemoryError}
    serving.errors.clear()


def test_a_handler_ends_the_program(backend: str) -> None:
    """serve() raises what a handler did: sys.exit() in it ends the program with its code."""

    def program() -> None:
        import socket
        import sys
        import threading

        import netpoll

        def ready(server: netpoll.Server) -> None:
            client = socket.create_connection(("127.0.0.1", server.port))
            threading.Thread(target=client.sendall, args=(b"x",)).start()

        netpoll.serve(lambda conn: sys.exit(7), "127.0.0.1", 0, ready=ready, backend=BACKEND)

    done = run_child(backend, program)
    assert done.returncode == 7, done.stderr


# ---- close(), wherever it is called -----------------------------------------------------------


def test_close_in_a_handler_is_refused(serving: Serving) -> None:
    seen: list[str] = []

    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        try:
            server.close()
        except RuntimeError as error:
            seen.append(str(error))
        conn.loop.create_task(server.aclose(0.5))  # what the sentence says

    server = serving(on_data)
    client = serving.connect()
    client.send(b"x")
    assert ended(client)
    assert len(seen) == 1 and "aclose" in seen[0]
    server.close()
    assert server_threads() == []


def test_close_in_another_thread_of_a_session(serving: Serving) -> None:
    async def session(conn: netpoll.Connection) -> None:
        await conn.fill()
        await asyncio.to_thread(server.close, 0.1)

    server = serving(session)
    client = serving.connect()
    client.send(b"x")
    assert ended(client)
    server.close()
    assert server_threads() == []


def test_aclose_in_a_session(backend: str) -> None:
    """Awaiting it is refused, starting it is right: inside a loop, and in a thread."""
    seen: list[str] = []

    async def session(conn: netpoll.Connection) -> None:
        with pytest.raises(RuntimeError, match="create_task") as refused:
            await server.aclose()
        seen.append(str(refused.value))
        stopping.append(conn.loop.create_task(server.aclose()))

    async def main() -> None:
        nonlocal server
        async with asyncio.timeout(20 * SLOWNESS):
            server = netpoll.Server(session, "127.0.0.1", 0).start()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            assert await reader.read() == b""
            writer.close()
            await stopping.pop()
            assert "closed" in repr(server)

    stopping: list[asyncio.Task[None]] = []
    server: Any = None
    netpoll.run(main(), backend=backend)
    server = netpoll.Server(session, "127.0.0.1", 0, backend=backend).start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(10 * SLOWNESS)
        assert ended(client)
    server.close()
    assert len(seen) == 2 and server_threads() == []


def test_closes_of_several_threads(serving: Serving) -> None:
    """All return when it is over, and the shortest grace counts."""

    async def session(conn: netpoll.Connection) -> None:
        await asyncio.sleep(1000)

    server = serving(session, workers=2)
    client = serving.connect()
    wait_for(lambda: server.stats()["sessions"])
    states: list[str] = []

    def stop(grace_s: float) -> None:
        server.close(grace_s)
        states.append(repr(server))

    threads = [threading.Thread(target=stop, args=(grace_s,)) for grace_s in (60, 60, 0.1)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join(20 * SLOWNESS)
    assert len(states) == 3 and all("closed" in state for state in states)
    assert ended(client)


def test_an_interrupted_close_can_be_called_again(serving: Serving, monkeypatch: Any) -> None:
    async def session(conn: netpoll.Connection) -> None:
        await asyncio.sleep(1000)

    server = serving(session)
    serving.connect()
    wait_for(lambda: server.stats()["sessions"])

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("netpoll.server.time.sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            server.close(60)
    server.close(0.05)
    assert server_threads() == []


def test_a_handler_that_blocks_does_not_block_close(serving: Serving) -> None:
    """Its thread is left behind, and told of."""
    begun, goes_on = threading.Event(), threading.Event()

    def on_data(conn: netpoll.Connection) -> None:
        begun.set()
        goes_on.wait(60)

    server = serving(on_data)
    port = server.port
    client = serving.connect()
    client.send(b"x")
    assert begun.wait(10)
    server.close(0.1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert "left behind" in str(serving.errors.pop()["exception"])
    goes_on.set()
    assert ended(client)
    wait_for(lambda: not server_threads())
    serving.servers.clear()  # its counters are from when it was left


def test_tasks_of_handlers_end_with_the_server(serving: Serving) -> None:
    """They are cancelled, as by asyncio.run(), and may await in their finally blocks."""
    seen: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            seen.append("ended")

    def on_data(conn: netpoll.Connection) -> None:
        kept.append(conn.loop.create_task(background()))
        conn.forward()

    server = serving(on_data)
    client = serving.connect()
    client.send(b"x")
    assert client.recv(1) == b"x"
    server.close()
    assert seen == ["ended"]
    kept.clear()


def test_on_close_that_fails_does_not_keep_the_others_open(serving: Serving) -> None:
    closed: list[Any] = []

    def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
        closed.append(error)
        raise SystemExit(4) if len(closed) == 2 else LookupError

    async def session(conn: netpoll.Connection) -> None:
        await asyncio.sleep(1000)

    server = serving(session, on_close=on_close)
    clients = [serving.connect() for _ in range(4)]
    wait_for(lambda: server.stats()["sessions"] == 4)
    server.close(0.1)
    assert len(closed) == 4 and server.stats()["connections"] == 0
    assert all(ended(client) for client in clients)
    serving.errors.clear()


@pytest.mark.parametrize("is_inside", [False, True], ids=["threads", "inside"])
def test_on_close_that_exits_while_idle_connections_are_closed(
    backend: str, serving: Serving, is_inside: bool
) -> None:
    """The others are closed, and the server is down (bug class 34)."""
    closed: list[Any] = []

    def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
        closed.append(error)
        sys.exit(3)

    async def inside(server: netpoll.Server) -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, c: told.append(c))
        async with server:
            clients = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
            await until(lambda: server.stats()["connections"] == 3)
        for reader, writer in clients:
            assert await reader.read() == b""
            writer.close()
        assert [type(context["exception"]) for context in told] == [SystemExit]

    if is_inside:
        netpoll.run(
            inside(netpoll.Server(echo, "127.0.0.1", 0, on_close=on_close)), backend=backend
        )
    else:
        server = serving(echo, on_close=on_close)
        clients = [serving.connect() for _ in range(3)]
        wait_for(lambda: server.stats()["connections"] == 3)
        server.close(5)
        assert all(ended(client) for client in clients)
        assert server_threads() == []
        serving.errors.clear()
    assert closed == [None] * 3


async def test_the_sockets_of_a_server_that_was_never_started(backend: str, loop: Any) -> None:
    for way in ("close", "aclose"):
        sock = socket.create_server(("127.0.0.1", 0))
        server = netpoll.Server(echo, sockets=[sock], backend=backend)
        ended = getattr(server, way)()
        if ended is not None:
            await ended
        assert sock.fileno() == -1
        with pytest.raises(RuntimeError):
            server.start()


def test_a_signals_handler_closes_what_is_being_closed(serving: Serving) -> None:
    """It interrupts close() in the same thread, which holds the lock (bug class 33)."""

    async def session(conn: netpoll.Connection) -> None:
        await asyncio.sleep(1000)

    server = serving(session)
    serving.connect()
    wait_for(lambda: server.stats()["sessions"])
    handlers: list[str] = []

    def close(signum: int, frame: Any) -> None:
        server.close(0.05)
        handlers.append(repr(server))

    before = signal.signal(signal.SIGALRM, close)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        server.close(60)  # the shorter grace counts
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ["closing" in said for said in handlers] == [True]
    assert server_threads() == []


@pytest.mark.parametrize("kind", ["netpoll", "asyncio"])
def test_aclose_in_another_loop(backend: str, kind: str) -> None:
    """The loop that it runs inside does the work; the other one waits (bug class 15)."""
    servers: list[netpoll.Server] = []
    begun, may_go = threading.Event(), threading.Event()

    async def serve() -> None:
        servers.append(netpoll.Server(echo, "127.0.0.1", 0).start())
        begun.set()
        await asyncio.to_thread(may_go.wait, 20 * SLOWNESS)

    async def elsewhere() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", servers[0].port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await servers[0].aclose(0.05)
        assert "closed" in repr(servers[0])
        writer.close()
        return await reader.read()

    thread = threading.Thread(target=netpoll.run, args=(serve(),), kwargs={"backend": backend})
    thread.start()
    assert begun.wait(20 * SLOWNESS)
    try:
        run = netpoll.run if kind == "netpoll" else asyncio.run
        assert run(elsewhere()) == b""
    finally:
        may_go.set()
        thread.join()


def test_a_step_of_a_threads_end_that_fails(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are taken: the loop is closed all the same (bug class 34)."""

    def fail(worker: Any) -> None:
        raise LookupError("a step")

    monkeypatch.setattr(ends, "end_connections", fail)
    server = serving(lambda conn: conn.forward())
    loop = server._loops()[0]
    server.close()
    assert loop.is_closed()
    assert "a step" in str(serving.errors)
    serving.errors.clear()


# ---- inside a loop ----------------------------------------------------------------------------


async def _waits(conn: netpoll.Connection) -> None:
    while await conn.fill():
        conn.forward()


async def _waits_for_asyncio(conn: netpoll.Connection) -> None:
    await asyncio.sleep(1000)


async def _goes_on(conn: netpoll.Connection) -> None:
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await conn.fill(1000)


HANDLERS: list[Callable[..., Any]] = [echo, _waits, _waits_for_asyncio, _goes_on]
WAYS = ["run", "close", "exception", "cancelled aclose"]
# A task that does not let itself be cancelled keeps asyncio.run() for ever.
ENDS = [(h, way) for h in HANDLERS for way in WAYS if h is not _goes_on or way == "close"]


@pytest.fixture
def nothing_left() -> Iterator[None]:
    before = open_fds()
    yield
    wait_for(lambda: set(open_fds()) <= set(before))


@pytest.mark.parametrize(
    ("handler", "way"), ENDS, ids=[f"{h.__name__.strip('_')}-{way}" for h, way in ENDS]
)
def test_a_loop_that_ends_with_a_server_inside(
    backend: str, handler: Callable[..., Any], way: str, nothing_left: None
) -> None:
    """The result is main's, on_close is called, the client sees the end, nothing stays open."""
    closed: list[Any] = []
    clients: list[socket.socket] = []
    servers: list[netpoll.Server] = []

    def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
        closed.append(error)

    async def main() -> str:
        server = netpoll.Server(handler, "127.0.0.1", 0, on_close=on_close).start()
        servers.append(server)
        for _ in range(3):
            clients.append(socket.create_connection(("127.0.0.1", server.port)))
        await until(lambda: server.stats()["connections"] == 3)
        if way == "exception":
            raise LookupError("of main")
        if way == "cancelled aclose":
            if handler is echo:
                for client in clients:
                    client.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.aclose(60), 0.05)
            assert "closed" in repr(server) and server.sockets == ()
        return "the result"

    if way == "close":
        loop = netpoll.new_event_loop(backend)
        assert loop.run_until_complete(main()) == "the result"
        loop.close()
        loop.close()
        assert loop.is_closed()
    elif way == "exception":
        with pytest.raises(LookupError, match="of main"):
            netpoll.run(main(), backend=backend)
    else:
        assert netpoll.run(main(), backend=backend) == "the result"
    assert "closed" in repr(servers[0]) and servers[0].sockets == ()
    servers[0].close()
    assert len(closed) == 3
    for client in clients:
        if client.fileno() >= 0:
            client.settimeout(5 * SLOWNESS)
            assert ended(client)
            client.close()


def test_a_session_that_ignores_its_end(backend: str, nothing_left: None) -> None:
    """It awaits within GeneratorExit: that is told, and everything else is closed."""
    told: list[Any] = []

    async def session(conn: netpoll.Connection) -> None:
        try:
            await conn.fill()
        finally:
            await asyncio.sleep(0)

    async def main() -> None:
        server = netpoll.Server(session, "127.0.0.1", 0).start()
        clients.extend(socket.create_connection(("127.0.0.1", server.port)) for _ in range(2))
        await until(lambda: server.stats()["sessions"] == 2)

    clients: list[socket.socket] = []
    loop = netpoll.new_event_loop(backend)
    loop.set_exception_handler(lambda _loop, context: told.append(str(context["exception"])))
    loop.run_until_complete(main())
    loop.close()
    assert told == ["coroutine ignored GeneratorExit"] * 2
    for client in clients:
        assert ended(client)
        client.close()


def test_a_step_of_close_that_fails(backend: str, nothing_left: None) -> None:
    """The others are taken, and the exception is raised."""
    loop = netpoll.new_event_loop(backend)
    loop.run_until_complete(asyncio.sleep(0))

    def fail() -> None:
        raise LookupError("a step")

    loop._at_close += [(fail, fail), (fail, fail)]
    with pytest.raises(LookupError, match="a step"):
        loop.close()
    assert loop.is_closed() and loop.stats()["ops_live"] == 0
    loop.close()


# ---- fork -------------------------------------------------------------------------------------


def _in_child(function: Callable[[], Any]) -> int:
    """The exit status of a forked child that calls function; it hangs: -SIGKILL."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            os._exit(1)
    deadline_s = time.monotonic() + 10 * SLOWNESS
    while time.monotonic() < deadline_s:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_in_a_child_the_server_is_not_the_childs(
    serving: Serving, tmp_path: Path, where: str
) -> None:
    """close() returns at once there and leaves the parent's sockets, files and clients alone; what
    the child keeps open does not keep the parent's clients."""
    path = str(tmp_path / "socket")
    server = serving(echo, **({"unix": path} if where == "unix" else {}), workers=2)

    def connect() -> socket.socket:
        if where == "tcp":
            return serving.connect()
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10 * SLOWNESS)
        client.connect(path)
        serving.clients.append(client)
        return client

    first = connect()
    first.send(b"1")
    assert first.recv(1) == b"1"

    def child() -> None:
        fds = set(open_fds())
        server.close()
        server.close()
        server.__exit__()
        assert server.sockets == () and "closed" in repr(server)
        assert len(fds - set(open_fds())) >= 2  # a listening socket, and a connection

    assert _in_child(child) == 0
    for client in (first, connect()):
        client.send(b"2")
        assert client.recv(1) == b"2"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_in_a_handler(serving: Serving) -> None:
    """The child's copy of the worker's thread ends; the parent's serves on."""
    children: list[int] = []

    def on_data(conn: netpoll.Connection) -> None:
        if conn.take() == b"fork":
            pid = os.fork()
            if pid == 0:
                server.close()
                os._exit(5)
            children.append(pid)
        conn.write(b"x")

    server = serving(on_data)
    client = serving.connect()
    for word in (b"fork", b"more"):
        client.send(word)
        assert client.recv(1) == b"x"
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 5


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_inside_a_loop(backend: str) -> None:
    """The child stops its copy of the server; the parent's serves on, and its path stays."""

    def program() -> None:
        import asyncio
        import os

        import netpoll

        async def main() -> None:
            path = f"/tmp/netpoll-test-{os.getpid()}.sock"
            server = netpoll.Server(lambda conn: conn.forward(), unix=path).start()
            pid = os.fork()
            if pid == 0:
                await server.aclose()
                os._exit(5)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()
            await server.aclose()
            assert not os.path.exists(path)

        netpoll.run(main(), backend=BACKEND)
        print("right")

    done = run_child(backend, program)
    assert done.stdout == "right\n", done.stderr
