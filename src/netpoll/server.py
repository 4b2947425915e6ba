"""An embedded server: connections in C structs, handlers in Python, one io_uring per worker.

    import netpoll

    def on_data(conn):
        conn.forward()                  # what has arrived goes straight back

    with netpoll.Server(on_data, "127.0.0.1", 8000) as server:
        ...

docs/server.md has the whole of it, docs/leases.md who owns the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import socket
import ssl as _ssl
import threading
from asyncio import events
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

from netpoll._buffers import BufferPool
from netpoll._connection import Connection
from netpoll._listener import Listener
from netpoll._secure import SecureWorker
from netpoll._server import Worker
from netpoll.config import BufferConfig, LoopConfig
from netpoll.loop import EventLoop

__all__ = ["Server", "serve"]

Handler = Callable[[Connection], Any]

LOOP_STATS = ("enters", "submissions", "enobufs", "ops_live", "zc_bytes")
GRACE_DEFAULT_S = 5.0
HANDSHAKE_DEFAULT_S = 60.0
START_TIMEOUT_S = 30.0


class _Thread:
    """A worker with a thread and a loop of its own."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.loop: EventLoop | None = None
        self.worker: Worker | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self.thread.start()
        self.ready.wait(START_TIMEOUT_S)
        if self.error is not None:
            self.thread.join()
            raise self.error

    def _run(self) -> None:
        try:
            self.loop = self.server._new_loop()
            self.worker = self.server._new_worker(self.loop)
            self.loop.call_soon(self.worker._start)
            self.loop.call_soon(self.ready.set)
        except BaseException as exc:
            self.error = exc
            self.ready.set()
            return
        try:
            self.loop.run_forever()
        finally:
            self.worker._end()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Runs function(*args) in the worker's thread; returns what it returns."""
        done = threading.Event()
        result: list[Any] = []

        def run() -> None:
            try:
                result.append(function(*args))
            except BaseException as exc:
                result.extend((None, exc))
            done.set()

        self.loop.call_soon_threadsafe(run)
        done.wait()
        if len(result) > 1:
            raise result[1]
        return result[0]

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


class Server:
    """Serves connections with a handler, in threads of its own or inside a running netpoll loop.

    handler: a plain function on_data(conn), called when bytes are there, which must not block; or
        an `async def session(conn)`: one coroutine per connection, which closes when it returns.
    host, port: where to listen; host None is every address, port 0 a free one (see `port`).
    unix: the path of a Unix socket instead. sockets: listening sockets instead, the server's now.
    ssl: the server's ssl.SSLContext: what is accepted speaks TLS, and handlers see plaintext. A
        connection whose handshake takes longer than handshake_timeout_s ends.
    workers: so many threads with a ring each; connections go to the least loaded one. With 1,
        start() within a running netpoll loop serves inside that loop.
    backlog: connections that the kernel keeps until they are accepted.
    reuse_port: SO_REUSEPORT, to share the port with other processes.
    idle_timeout_s: a connection that makes no progress for so long ends: nothing read by the
        handler, nothing taken by the peer. None: never.
    max_connections: accepting pauses while there are so many.
    max_pending_bytes: unsent bytes of one connection. Above, it is not read from until half is
        gone; who writes even so, beyond twice as much, gets BufferError, and with
        when_full="close" (else "raise") the connection ends.
    on_connect(conn), on_close(conn, error): called at both ends; error is None or why.
    backend: "auto", "uring" or "epoll". buffers: the pool that Connection.reserve() takes from,
        made when it is first used. config: capacities of the workers' loops, see LoopConfig.
    max_unread_bytes: of one connection: a session pauses its peer there, an on_data handler that
        leaves more unread loses the connection.
    max_retained_bytes: of one connection's retained leases: above, its reading pauses; twice as
        many are refused.

    Raises OSError when an address cannot be had (start), ValueError and TypeError for arguments
    that make no sense. start, stop: the thread that made it.
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
        backlog: int = 4096,
        reuse_port: bool = False,
        handshake_timeout_s: float = HANDSHAKE_DEFAULT_S,
        idle_timeout_s: float | None = None,
        max_connections: int | None = None,
        max_pending_bytes: int = 1 << 20,
        when_full: str = "close",
        on_connect: Handler | None = None,
        on_close: Callable[[Connection, BaseException | None], Any] | None = None,
        backend: str = "auto",
        buffers: BufferConfig | None = None,
        max_unread_bytes: int = 1 << 20,
        max_retained_bytes: int = 1 << 20,
        config: LoopConfig | None = None,
    ) -> None:
        limits = {
            "workers": workers,
            "max_pending_bytes": max_pending_bytes,
            "max_connections": 1 if max_connections is None else max_connections,
            "max_unread_bytes": max_unread_bytes,
            "max_retained_bytes": max_retained_bytes,
        }
        _check(handler, (port, unix, sockets), when_full, limits)
        _check_times(idle_timeout_s, ssl, handshake_timeout_s)
        self._handler = handler
        self._is_session = _is_coroutine_function(handler)
        self._address = (host, port) if port is not None else None
        self._unix = os.fspath(unix) if unix is not None else None
        self._given = list(sockets) if sockets is not None else None
        self._workers_count = workers
        self._backlog = backlog
        self._reuse_port = reuse_port
        self._max_connections = max_connections or 0
        self._hooks = (on_connect, on_close)
        self._backend = backend
        self._buffers = buffers or BufferConfig()
        self._config = config or LoopConfig()
        self._options = {
            "idle_timeout_s": idle_timeout_s,
            "max_pending_bytes": max_pending_bytes,
            "max_unread_bytes": max_unread_bytes,
            "max_retained_bytes": max_retained_bytes,
            "when_full": when_full,
            "pool": self._make_pool,
            "ended": self._connection_ended,
            "ssl": ssl,
            "handshake_timeout_s": handshake_timeout_s,
        }
        self._pool: BufferPool | None = None
        self._pool_lock = threading.Lock()
        self._threads: list[_Thread] = []
        self._inside: EventLoop | None = None
        self._workers: list[Worker] = []
        self._listeners: list[Listener] = []
        self._sockets: list[socket.socket] = []
        self._state = "new"
        self._last_stats: dict[str, Any] = {}

    # ---- what it is ---------------------------------------------------------------------------

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; empty before start and after stop."""
        return tuple(self._sockets)

    @property
    def port(self) -> int:
        """The port that it listens on. RuntimeError when it does not run, or has none (Unix)."""
        for sock in self._sockets:
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                return sock.getsockname()[1]
        raise RuntimeError("the server does not listen on a port now")

    def stats(self) -> dict[str, Any]:
        """Counters, summed over the workers; `workers` has each worker's own.

        connections, sessions, flows: now. recv_bytes, sent_bytes, file_bytes: through the sockets.
        zc_bytes: what the kernel reported as sent without a copy; kernel_copied_bytes: the rest of
        sent_bytes. copied_bytes: in user space, because they could still change, or had to be
        joined or kept; shed_bytes: moved out of receive buffers to free these. enters: system calls
        of the loops that wait or submit. With ssl: handshakes, failed_handshakes, encrypted_bytes.
        """
        if not self._workers:
            return dict(self._last_stats)
        each = []
        for worker, loop in zip(self._workers, self._loops(), strict=True):
            loop_stats = loop.stats()
            one = worker.stats() | {name: loop_stats[name] for name in LOOP_STATS}
            one["kernel_copied_bytes"] = max(one["sent_bytes"] - one["zc_bytes"], 0)
            each.append(one)
        total: dict[str, Any] = {name: sum(one[name] for one in each) for name in each[0]}
        total["accept_pauses"] = sum(one.paused_count for one in self._listeners)
        total["backend"] = self._loops()[0].backend
        total["workers"] = each
        return total

    def _loops(self) -> list[EventLoop]:
        return [self._inside] if self._inside else [thread.loop for thread in self._threads]

    def __repr__(self) -> str:
        where = ", ".join(str(sock.getsockname()) for sock in self._sockets) or "nowhere"
        return f"<netpoll.Server {self._state}, listens on {where}>"

    # ---- start --------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listens and serves; returns when it does. RuntimeError when it was started before."""
        if self._state != "new":
            raise RuntimeError("a server is started once; make another one")
        running = events._get_running_loop()
        self._sockets = self._open_sockets()
        try:
            if isinstance(running, EventLoop) and self._workers_count == 1:
                self._start_inside(running)
            else:
                self._start_threads()
        except BaseException:
            self._close_sockets()
            self._state = "stopped"
            raise
        self._state = "running"
        return self

    def _start_inside(self, loop: EventLoop) -> None:
        self._inside = loop
        worker = self._new_worker(loop)
        worker._start()
        self._workers = [worker]
        self._listen(loop)

    def _start_threads(self) -> None:
        try:
            for i in range(self._workers_count):
                thread = _Thread(self, f"netpoll-server-{i}")
                self._threads.append(thread)
                thread.start()
        except BaseException:
            for thread in self._threads:
                if thread.error is None:
                    thread.stop()
            raise
        self._workers = [thread.worker for thread in self._threads]
        self._threads[0].call(self._listen, self._threads[0].loop)

    def _listen(self, loop: EventLoop) -> None:
        for sock in self._sockets:
            told = self._out_of_descriptors
            listener = Listener(loop, sock, self._workers, self._max_connections, told)
            self._listeners.append(listener)
            listener.start()

    def _out_of_descriptors(self, error: OSError) -> None:
        self._loops()[0].call_exception_handler(
            {
                "message": "netpoll.Server: accepting pauses until descriptors are free; raise the "
                "limit (ulimit -n) or set max_connections",
                "exception": error,
            }
        )

    def _new_loop(self) -> EventLoop:
        return EventLoop(self._backend, self._config)

    def _new_worker(self, loop: EventLoop) -> Worker:
        kind = Worker if self._options["ssl"] is None else SecureWorker
        return kind(loop, self._handler, self._is_session, *self._hooks, self._options)

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
            if listener.is_waiting:
                loop = self._loops()[0]
                with contextlib.suppress(RuntimeError):  # closed
                    loop.call_soon_threadsafe(listener.connection_ended)

    def _open_sockets(self) -> list[socket.socket]:
        if self._given is not None:
            made = self._given
        elif self._unix is not None:
            made = [_unix_socket(self._unix)]
        else:
            made = _inet_sockets(*self._address, self._reuse_port)
        for sock in made:
            sock.listen(self._backlog)
            sock.setblocking(False)
        return made

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        if self._unix is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._unix)

    # ---- stop ---------------------------------------------------------------------------------

    def stop(self, grace_s: float = GRACE_DEFAULT_S) -> None:
        """Stops accepting, lets handlers finish for grace_s seconds, then aborts what is left.

        Blocks until all is over. Within a running loop that it serves in: use `await astop()`.
        May be called again.
        """
        if self._inside is not None and self._state == "running":
            raise RuntimeError("this server runs inside a loop: use 'await server.astop()'")
        if self._begin_stop():
            first = self._threads[0]
            first.call(self._stop_listening)
            for thread in self._threads:
                thread.call(thread.worker._begin_stop)
            for step in self._stop_steps(grace_s):
                threading.Event().wait(step)
            self._ended()

    async def astop(self, grace_s: float = GRACE_DEFAULT_S) -> None:
        """stop(), awaited: the loop goes on meanwhile."""
        if self._inside is None:
            await asyncio.get_running_loop().run_in_executor(None, self.stop, grace_s)
        elif self._begin_stop():
            self._stop_listening()
            self._workers[0]._begin_stop()
            for step in self._stop_steps(grace_s):
                await asyncio.sleep(step)
            self._workers[0]._end()
            self._ended()

    def _begin_stop(self) -> bool:
        was_running = self._state == "running"
        self._state = "stopping" if was_running else "stopped"
        return was_running

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.stop()

    def _stop_steps(self, grace_s: float) -> Iterable[float]:
        """Pauses, in seconds, until every connection is over: the grace, then the abort."""
        clock = self._loops()[0]
        deadline_s = clock.time() + grace_s
        pause_s = 0.001
        aborted = False
        while not all(worker.is_empty for worker in self._workers):
            if clock.time() >= deadline_s:
                if aborted:
                    return  # sessions that do not end: they go with their loop
                aborted = True
                deadline_s = clock.time() + 1.0
                self._abort_all()
            yield pause_s
            pause_s = min(pause_s * 1.5, 0.05)

    def _abort_all(self) -> None:
        if self._inside is not None:
            self._workers[0]._abort_all()
        for thread in self._threads:
            thread.call(thread.worker._abort_all)

    def _ended(self) -> None:
        self._last_stats = self.stats()
        self._close_sockets()
        for thread in self._threads:
            thread.stop()
        if self._pool is not None:
            if self._inside is not None:
                self._pool.detach(self._inside)
            with contextlib.suppress(BufferError):  # somebody keeps a Buffer: the last one frees it
                self._pool.close()
        self._workers = []
        self._state = "stopped"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.astop()


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

    ready(server) is called when it listens; options are those of Server.
    """
    server = Server(handler, host, port, **options)
    # Not an Event: a signal that comes while its lock is being taken deadlocks or is lost.
    asked, ask = socket.socketpair()
    ask.setblocking(False)
    before = {
        number: signal.signal(number, lambda signum, frame: None)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    wakeup_before = signal.set_wakeup_fd(ask.fileno(), warn_on_full_buffer=False)
    try:
        server.start()
        if ready is not None:
            ready(server)
        while True:
            numbers = asked.recv(64)
            if wakeup_before != -1:  # somebody else's, who is to hear of signals as before
                with contextlib.suppress(OSError):
                    os.write(wakeup_before, numbers)
            if {signal.SIGINT, signal.SIGTERM} & set(numbers):
                break
    finally:
        signal.set_wakeup_fd(wakeup_before, warn_on_full_buffer=False)
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
        asked.close()
        ask.close()
        server.stop(grace_s)


def _check(
    handler: Handler,
    ways: tuple[object, ...],
    when_full: str,
    limits: dict[str, int],
) -> None:
    """Raises TypeError or ValueError for arguments of Server that make no sense."""
    if not callable(handler):
        raise TypeError("handler must be a function on_data(conn) or an async def session(conn)")
    if sum(way is not None for way in ways) != 1:
        raise ValueError("say where to listen in one way: host and port, unix, or sockets")
    if when_full not in ("close", "raise"):
        raise ValueError("when_full is 'close' or 'raise'")
    for name, limit in limits.items():
        if limit < 1:
            raise ValueError(f"{name} must be at least 1")


def _check_times(idle_timeout_s: float | None, context: object, handshake_timeout_s: float) -> None:
    """The same, of time-outs and TLS."""
    if idle_timeout_s is not None and not idle_timeout_s > 0:
        raise ValueError("idle_timeout_s must be positive, or None")
    if context is not None and not isinstance(context, _ssl.SSLContext):
        raise TypeError(f"ssl is an ssl.SSLContext with a certificate, not {context!r}")
    if not handshake_timeout_s > 0:
        raise ValueError("handshake_timeout_s must be positive")


def _is_coroutine_function(handler: Handler) -> bool:
    call = handler if inspect.isroutine(handler) else getattr(handler, "__call__", handler)
    return inspect.iscoroutinefunction(inspect.unwrap(handler)) or inspect.iscoroutinefunction(call)


def _unix_socket(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    return sock


def _inet_sockets(host: str | None, port: int, reuse_port: bool) -> list[socket.socket]:
    """A bound socket for each address of host; with port 0 all get the same free one."""
    found = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    )
    made: list[socket.socket] = []
    try:
        for family, kind, proto, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, proto)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(made) > 1:
                address = (address[0], made[0].getsockname()[1], *address[2:])
            sock.bind(address)
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return made
