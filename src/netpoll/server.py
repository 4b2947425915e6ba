"""An embedded server: connections in C structs, handlers in Python, one io_uring per worker.

    import netpoll

    def on_data(conn):
        conn.forward()                  # what has arrived goes straight back

    with netpoll.Server(on_data, "127.0.0.1", 8000) as server:
        ...

docs/server.md explains it. docs/leases.md says who owns received bytes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import math
import os
import signal
import socket
import ssl as _ssl
import threading
import time
from asyncio import events
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

from netpoll._former import FormerLimits, limits_of, method_of
from netpoll._native.memory.pool import BufferPool
from netpoll._native.server import (
    collect,  # noqa: F401 - tells the garbage collector of connections
    ends,
)
from netpoll._native.server.connection import Connection
from netpoll._native.server.listener import Listener
from netpoll._native.server.seats import Seats
from netpoll._native.server.secure import SecureWorker
from netpoll._native.server.worker import Worker
from netpoll._server.listening import UnixFile, inet_sockets, unix_socket
from netpoll._server.signals import Signals
from netpoll._server.worker_thread import (
    ABORT_TIMEOUT_S,
    GRACE_DEFAULT_S,
    THREAD_TIMEOUT_S,
    WorkerThread,
    take_each,
    tell,
)
from netpoll._telemetry.shown import show
from netpoll.config import BufferConfig, LoopConfig, ServerLimits
from netpoll.loop import EventLoop
from netpoll.stats import ServerStats, ServerWorkerStats

__all__ = ["Server", "serve"]

Handler = Callable[[Connection], Any]


def _summed(
    workers: list[dict[str, Any]], listeners: list[Listener], backend: str | None
) -> ServerStats:
    """workers: what each counts, and its loop; a name that both have is the worker's."""
    names = ServerWorkerStats.__annotations__
    each = [{name: one.get(name, 0) for name in names} for one in workers]
    total: dict[str, Any] = {name: sum(one[name] for one in each) for name in names}
    total["accept_pauses"] = sum(one.paused_count for one in listeners)
    return cast(ServerStats, total | {"backend": backend, "workers": each})


class Server:
    """Serves connections with a handler, in threads of its own or inside a running netpoll loop.

    handler: a plain function on_data(conn), called when bytes are there, which must not block; or
        an `async def session(conn)`: one coroutine per connection, which closes when it returns.
    host, port: where to listen. host None or "" is every address; port 0 is a free port (see
        `port`).
    unix: instead of them, the path of a Unix socket, or an abstract name.
    sockets: instead of them, listening sockets. They belong to the server from then on.
    ssl: an ssl.SSLContext with the server's certificate. Connections then speak TLS, and handlers
        see plaintext.
    workers: how many threads, each with a ring of its own. A new connection goes to the least
        loaded one. With 1, start() within a running netpoll loop serves inside that loop.
    reuse_port: SO_REUSEPORT, to share the port with other processes.
    on_connect(conn), on_close(conn, error): called when a connection begins and when it ends; error
        is None, or the reason.
    backend: "auto", "uring" or "epoll".
    buffers: the pool that Connection.reserve() takes from. It is made when it is first used.
    limits: what it keeps for its connections, and for how long, see ServerLimits.
    config: capacities of the workers' loops, see LoopConfig.

    A worker's thread that ends by itself (SystemExit in a handler, a loop that fails) takes the
    server with it: the loop's exception handler is told, the other workers stop with grace, and
    close() raises what it was. In a child process that was forked the server is not the child's:
    there, close() closes the copies of its descriptors and touches nothing else.

    Raises ValueError and TypeError for arguments that make no sense; start() raises OSError when an
    address is not available. start and close may be called in any thread but the workers' own.
    """

    def __init__(
        self,
        handler: Handler,
        host: str | None = None,
        port: int | None = None,
        *,
        unix: str | os.PathLike[str] | None = None,
        sockets: Iterable[socket.socket] | None = None,
        ssl: _ssl.SSLContext | None = None,
        workers: int = 1,
        reuse_port: bool = False,
        on_connect: Handler | None = None,
        on_close: Callable[[Connection, BaseException | None], Any] | None = None,
        limits: ServerLimits | None = None,
        backend: str = "auto",
        buffers: BufferConfig | None = None,
        config: LoopConfig | None = None,
        **former: Unpack[FormerLimits],
    ) -> None:
        _check(handler, (port, unix, sockets), workers, ssl)
        self._handler = handler
        self._is_session = _is_coroutine_function(handler)
        self._address = (host, port) if port is not None else None
        self._unix = os.fspath(unix) if unix is not None else None
        self._unix_file: UnixFile | None = None
        self._given = list(sockets) if sockets is not None else None
        self._workers_count = workers
        self._reuse_port = reuse_port
        self._limits = limits_of(ServerLimits, limits, former)
        self._hooks = (on_connect, on_close)
        self._backend = backend
        self._buffers = buffers or BufferConfig()
        self._config = config or LoopConfig()
        self._options = {
            "limits": self._limits,
            "pool": self._make_pool,
            "ended": self._connection_ended,
            "ssl": ssl,
            "proxies": None,
        }
        self._pool: BufferPool | None = None
        self._pool_lock = threading.Lock()
        self._threads: list[WorkerThread] = []
        self._inside: EventLoop | None = None
        self._workers: list[Worker] = []
        self._listeners: list[Listener] = []
        self._sockets: list[socket.socket] = []
        self._seats: Seats | None = None  # of the processes that accept on them, too
        self._begin_state()

    def _begin_state(self) -> None:
        self._state = "new"
        self._is_down = False  # nothing is left to be stopped
        self._pid = os.getpid()
        self._stop_lock = threading.RLock()
        self._is_stopping = False  # by who has that lock
        self._deadline_s = math.inf  # of the grace, in time.monotonic()
        self._failure_lock = threading.Lock()
        self._failure: BaseException | None = None  # what ended a worker's thread
        self._is_failure_raised = False
        self._last_port = 0
        self._on_failure: Callable[[], Any] | None = None
        self._is_given_up: Callable[[], bool] = lambda: False  # asked while it starts
        self._program_end_s = 0.0  # that _thread_ends may take
        self._hurry_s = math.inf  # until then threads are waited for: it was closed twice
        self._last_stats = _summed([], [], None)

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            return method_of(self, name, {"stop": "close", "astop": "aclose"})

    # ---- what it is ---------------------------------------------------------------------------

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; empty before start and after close."""
        return tuple(self._sockets)

    @property
    def port(self) -> int:
        """The port that it listens on, or did before it failed. RuntimeError when it does not run,
        or has none (Unix)."""
        for sock in self._sockets:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):  # closed
                    return int(sock.getsockname()[1])
        if self._state == "failed" and self._last_port:
            return self._last_port
        raise RuntimeError("the server does not listen on a port now")

    def stats(self) -> ServerStats:
        """Counters, as a dict: summed over the workers, and of each; afterwards the last values."""
        workers = self._workers  # which a close() in another thread empties
        if self._is_down or not workers:
            return self._last_stats.copy()
        pairs = zip(self._loops(), workers, strict=True)
        each = [{**loop.stats(), **worker.stats()} for loop, worker in pairs]
        return _summed(each, self._listeners, self._loops()[0].backend)

    def _loops(self) -> list[EventLoop]:
        if self._inside is not None:
            return [self._inside]
        return [thread.loop for thread in self._threads if thread.loop is not None]

    def __repr__(self) -> str:
        names = []
        for sock in self._sockets:
            with contextlib.suppress(OSError):  # a worker's thread may close it meanwhile
                names.append(str(sock.getsockname()))
        where = ", ".join(names) or "nowhere"
        return f"<netpoll.Server {self._state}, listens on {where}>"

    # ---- start --------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listens and serves; returns when it does. RuntimeError when it was started before."""
        if self._state != "new":
            raise RuntimeError("a server is started once; make another one")
        show(self)
        running = events._get_running_loop()
        self._pid = os.getpid()
        try:
            self._open_sockets()
            if isinstance(running, EventLoop) and self._workers_count == 1:
                self._start_inside(running)
            else:
                self._start_threads()
        except BaseException:
            self._is_down = True
            self._close_sockets()
            self._state = "closed"
            raise
        if self._state == "new":  # else a thread has failed already
            self._state = "running"
        return self

    def _start_inside(self, loop: EventLoop) -> None:
        self._inside = loop
        worker = self._new_worker(loop)
        worker._start()
        self._workers = [worker]
        try:
            self._listen(loop)
        except BaseException:
            take_each(loop, [self._stop_listening, worker._end])
            raise
        loop._at_close.append((self._loop_closes, self._loop_closed))

    def _start_threads(self) -> None:
        try:
            for i in range(self._workers_count):
                thread = WorkerThread(self, f"netpoll-server-{i}")
                self._threads.append(thread)
                thread.start()
            self._workers = [one.worker for one in self._threads if one.worker is not None]
            self._threads[0].call(self._listen, self._threads[0].loop)
        except BaseException:
            for thread in self._threads:
                if thread.worker is not None:
                    thread.stop(time.monotonic() + THREAD_TIMEOUT_S)
            # What the system had no thread for never ran.
            self._threads = [one for one in self._threads if one.thread.ident is not None]
            raise

    def _listen(self, loop: EventLoop) -> None:
        for sock in self._sockets:
            told = self._out_of_descriptors
            most = self._limits.connections_max_count or 0
            listener = Listener(loop, sock, self._workers, most, told, self._seats)
            self._listeners.append(listener)
            listener.start()

    def _out_of_descriptors(self, error: OSError) -> None:
        self._loops()[0].call_exception_handler(
            {
                "message": "netpoll.Server: accepting pauses until descriptors are free; raise the "
                "limit (ulimit -n) or set connections_max_count",
                "exception": error,
            }
        )

    def _new_loop(self) -> EventLoop:
        return EventLoop(self._backend, self._config)

    def _new_worker(self, loop: EventLoop) -> Worker:
        kind = Worker if self._options["ssl"] is None else SecureWorker
        handler = self._handler_of(loop)
        return kind(loop, handler, self._is_session, *self._hooks, self._options)

    # What a server of a protocol says otherwise (netpoll.http).

    def _handler_of(self, loop: EventLoop) -> Any:
        """What a worker calls, or its Protocol."""
        return self._handler

    def _thread_begins(self, loop: EventLoop) -> None:
        """In a worker's thread, before its loop serves."""

    def _thread_ends(self, loop: EventLoop) -> None:
        """In a worker's thread, after its last connection."""

    def _make_pool(self, loop: EventLoop) -> BufferPool:
        """The pool of all workers, made when the first asks for it. In the thread of `loop`."""
        with self._pool_lock:
            if self._pool is None:
                config = self._buffers
                self._pool = BufferPool(config.size_bytes, config.classes, config.hugepages)
        self._pool.attach(loop)
        return self._pool

    def _connection_ended(self) -> None:
        """In a worker's thread. Who waits for a place, or for a descriptor, has a chance now."""
        for listener in self._listeners:
            listener.publish()
            if listener.is_waiting:
                loop = self._loops()[0]
                with contextlib.suppress(RuntimeError):  # closed
                    loop.call_soon_threadsafe(listener.connection_ended)

    def _open_sockets(self) -> None:
        if self._given is not None:
            self._sockets = self._given
        elif self._unix is not None:
            sock, self._unix_file = unix_socket(self._unix)
            self._sockets = [sock]
        else:
            assert self._address is not None  # _check() has seen to it
            self._sockets = inet_sockets(*self._address, self._reuse_port)
        for sock in self._sockets:
            sock.listen(self._limits.backlog_max_count)
            sock.setblocking(False)

    def _close_sockets(self) -> None:
        if self._unix_file is not None:
            self._unix_file.remove()
            self._unix_file = None
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    # ---- stop ---------------------------------------------------------------------------------

    def close(self, grace_s: float = GRACE_DEFAULT_S) -> None:
        """Stops accepting, lets handlers finish for grace_s seconds, then aborts what is left.

        Blocks until all is over; a thread that a handler blocks is left behind, and told of.
        May be called again, and in a signal's handler, too: what it interrupts goes on, for no
        longer than the shorter grace. RuntimeError in a handler, which it would wait for, and for a
        server that runs inside a loop: there, `await aclose()`. What ended a worker's thread by
        itself is raised here, once, when all is over.
        """
        if self._pid != os.getpid():
            return self._forget()
        if self._inside is not None:
            if self._state in ("running", "closing"):
                raise RuntimeError("this server runs inside a loop: use 'await server.aclose()'")
            return None
        if any(thread.thread is threading.current_thread() for thread in self._threads):
            raise RuntimeError(
                "close() in a handler would wait for that handler: call it in another thread, or "
                "use conn.loop.create_task(server.aclose())"
            )
        if not self._stop_threads(grace_s):
            return None
        for thread in self._threads:
            thread.thread.join(0.5)  # the one that has stopped the others
        if self._failure is not None and not self._is_failure_raised:
            self._is_failure_raised = True
            raise self._failure
        return None

    def _stop_threads(self, grace_s: float) -> bool:
        """False: a signal's handler has called it within itself; who was interrupted goes on."""
        # Two may stop it at once: the shorter grace counts for both.
        if self._state == "closing":
            self._hurry_s = min(self._hurry_s, time.monotonic() + grace_s + THREAD_TIMEOUT_S)
        self._deadline_s = min(self._deadline_s, time.monotonic() + grace_s)
        with self._stop_lock:
            if self._is_stopping:
                return False
            self._is_stopping = True
            try:
                if not self._is_down:
                    self._take_down()
            finally:
                self._is_stopping = False
        return True

    def _take_down(self) -> None:
        if self._state in ("new", "running"):
            self._state = "closing" if self._threads else "closed"
        if self._threads:
            self._stop_accepting(self._patience_s())
            for thread in self._threads:
                if thread.worker is not None:
                    begin = partial(thread.call, thread.worker._begin_stop)
                    take_each(thread.loop, [partial(begin, until_s=self._patience_s())])
            for step in self._stop_steps():
                time.sleep(step)
            self._join_threads()
        for sock in self._given or ():  # also of one that was never started
            sock.close()
        self._is_down = True

    def _drain(self, until_s: float) -> None:
        """Of one that has threads: accepts no more, and lets connections leave in their own time.
        The other processes on the same sockets serve in its place. close() follows."""
        self._stop_accepting(until_s)
        for thread in self._threads:
            if thread.worker is not None:
                thread.call(thread.worker._begin_drain, until_s=until_s)

    def _patience_s(self) -> float:
        """Until when a worker's thread is waited for."""
        return max(self._deadline_s + THREAD_TIMEOUT_S, time.monotonic() + 0.5)

    def _stop_accepting(self, until_s: float) -> None:
        first = self._threads[0]
        if first.is_over:
            self._stop_listening()
        else:
            first.call(self._stop_listening, until_s=until_s)
        for sock in self._sockets:
            if sock.fileno() >= 0 and self._seats is None:
                # That thread is blocked: nobody is accepted even so.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _join_threads(self) -> None:
        for thread in self._threads:
            if not thread.stop(self._patience_s()):
                error = TimeoutError(f"{thread.thread.name} is blocked and was left behind")
                tell(thread.loop, "a handler does not return", error)
        self._ended()
        self._workers = []

    async def aclose(self, grace_s: float = GRACE_DEFAULT_S) -> None:
        """close(), awaited: the loop goes on meanwhile.

        RuntimeError in a session of this server, which it would wait for: there,
        `conn.loop.create_task(server.aclose())`.
        """
        if self._pid != os.getpid():
            return self._forget()
        if self._workers and ends.is_session_of(asyncio.current_task(), self._workers):
            raise RuntimeError(
                "'await aclose()' in a session would wait for that session: use "
                "conn.loop.create_task(server.aclose())"
            )
        if self._inside is None:
            await asyncio.get_running_loop().run_in_executor(None, self.close, grace_s)
            return None
        if asyncio.get_running_loop() is not self._inside:
            return await self._close_from_elsewhere(self._inside, grace_s)
        self._deadline_s = min(self._deadline_s, time.monotonic() + grace_s)
        if self._state == "running":
            self._state = "closing"
            try:
                self._stop_listening()
                take_each(self._inside, [self._workers[0]._begin_stop])
                for step in self._stop_steps():
                    await asyncio.sleep(step)
            finally:  # if it was cancelled, what is left ends now
                self._end_inside()
        while not self._is_down:  # another aclose() is at it
            await asyncio.sleep(0.005)
        return None

    async def _close_from_elsewhere(self, inside: EventLoop, grace_s: float) -> None:
        """In another loop than the one that it runs inside, and whose its connections are."""
        ending: concurrent.futures.Future[None] | None = None
        while not self._is_down and (ending is None or not ending.done()):
            if not inside.is_running():
                raise RuntimeError("the loop that this server runs inside does not run now")
            if ending is None:
                ending = asyncio.run_coroutine_threadsafe(self.aclose(grace_s), inside)
            await asyncio.sleep(0.005)
        if ending is not None and ending.done():
            ending.result()

    def _end_inside(self) -> None:
        loop, worker = self._inside, self._workers[0]
        assert loop is not None
        steps: list[Callable[[], Any]] = [self._stop_listening]
        if not worker.is_empty:
            steps.append(worker._abort_all)
        take_each(loop, [*steps, worker._end, self._ended])
        if worker.is_empty:  # else its sessions end with the loop
            loop._at_close.remove((self._loop_closes, self._loop_closed))
            self._workers = []
        self._is_down = True

    def _loop_closes(self) -> None:
        """The loop that it runs inside is being closed: everything ends now."""
        if self._pid != os.getpid():
            return self._forget()
        for worker in self._workers:
            take_each(self._inside, [partial(ends.end_connections, worker), worker._end])
        if not self._is_down:
            take_each(self._inside, [self._stop_listening, self._ended])
            self._is_down = True
        return None

    def _loop_closed(self) -> None:
        if self._pid == os.getpid():
            take_each(self._inside, [partial(ends.close_rest, worker) for worker in self._workers])
        self._workers = []

    def _stop_listening(self) -> None:
        take_each(self._loops()[0], [listener.stop for listener in self._listeners])

    def _stop_steps(self) -> Iterable[float]:
        """Pauses, in seconds, until every connection is over: the grace, then the abort."""
        pause_s = 0.001
        aborted_s = math.inf
        while not all(worker.is_empty for worker in self._live_workers()):
            now_s = time.monotonic()
            if now_s >= aborted_s + ABORT_TIMEOUT_S:
                return  # sessions that do not end: they go with their loop
            if now_s >= self._deadline_s and aborted_s == math.inf:
                aborted_s = now_s
                self._abort_all()
            yield pause_s
            pause_s = min(pause_s * 1.5, 0.05)

    def _live_workers(self) -> list[Worker]:
        if self._inside is not None:
            return self._workers
        return [t.worker for t in self._threads if t.worker is not None and not t.is_over]

    def _abort_all(self) -> None:
        if self._inside is not None:
            take_each(self._inside, [self._workers[0]._abort_all])
        for thread in self._threads:
            if thread.worker is not None:
                abort = partial(thread.call, thread.worker._abort_all, until_s=self._patience_s())
                take_each(thread.loop, [abort])

    def _ended(self) -> None:
        self._last_stats = self.stats()
        self._close_sockets()
        if self._pool is not None:
            if self._inside is not None:
                self._pool.detach(self._inside)
            with contextlib.suppress(BufferError):  # somebody keeps a Buffer: the last one frees it
                self._pool.close()
        if self._state != "failed":
            self._state = "closed"

    def _thread_failed(self, thread: WorkerThread) -> None:
        """In a worker's thread that ends: clients are not let wait for nobody."""
        with contextlib.suppress(RuntimeError, OSError):
            self._last_port = self.port
        with self._failure_lock:
            if self._failure is None:
                self._failure = thread.error
        if self._state in ("new", "running"):
            self._state = "failed"
        tell(thread.loop, "a worker's thread has ended, so the server stops", thread.error)
        if self._on_failure is not None:
            self._on_failure()
        if thread is self._threads[0]:
            self._stop_listening()

    def _forget(self) -> None:
        """In a child process: the parent's sockets, threads and files stay as they are."""
        for worker in self._workers:
            ends.forget(worker)
        self._unix_file = None
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        self._workers = []
        self._state = "closed"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def serve(
    handler: Handler,
    host: str | None = None,
    port: int | None = None,
    *,
    grace_s: float = GRACE_DEFAULT_S,
    ready: Callable[[Server], Any] | None = None,
    **options: Any,
) -> None:
    """Runs a Server until SIGINT or SIGTERM, then stops it with grace. Main thread only.

    ready(server) is called when it listens; options are those of Server. Raises what ended a
    worker's thread by itself: SystemExit of a handler, say.
    """
    server = Server(handler, host, port, **options)
    # Not an Event: a signal that comes while its lock is being taken deadlocks or is lost.
    signals = Signals((signal.SIGINT, signal.SIGTERM))
    server._on_failure = signals.wake
    try:
        server.start()
        if ready is not None:
            ready(server)
        while not {signal.SIGINT, signal.SIGTERM, 0}.intersection(signals.wait()):
            pass  # another one, or a handler of the program has run; 0: a worker has failed
    finally:
        signals.close()
        server._on_failure = None
        server.close(grace_s)


def _check(handler: Handler, ways: tuple[object, ...], workers: int, context: object) -> None:
    """Raises TypeError or ValueError for arguments of Server that make no sense."""
    if not callable(handler):
        raise TypeError("handler must be a function on_data(conn) or an async def session(conn)")
    if sum(way is not None for way in ways) != 1:
        raise ValueError("say where to listen in one way: host and port, unix, or sockets")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if context is not None and not isinstance(context, _ssl.SSLContext):
        raise TypeError(f"ssl must be an ssl.SSLContext with a certificate, not {context!r}")


def _is_coroutine_function(handler: Handler) -> bool:
    call = handler
    if not inspect.isroutine(handler):
        call = getattr(handler, "__call__", handler)  # noqa: B004 - not whether, but which
    return inspect.iscoroutinefunction(inspect.unwrap(handler)) or inspect.iscoroutinefunction(call)
