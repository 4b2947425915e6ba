"""The event loop: asyncio's interface over the native turn of _core.

What happens once per loop or connection is asyncio's own code, inherited: resolving names, happy
eyeballs, executors, servers, signals. So it behaves as the running Python documents it.

What happens once per event is native. Callbacks and timers are in _core. The rest is in folders of
_native: transports of streams, datagrams and pipes (transport/), TLS (tls/), socket calls and
readiness (loop/).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import signal
import socket
import ssl
import sys
import threading
import warnings
import weakref
from asyncio import base_events, constants, events, format_helpers
from collections.abc import Callable, Coroutine, MutableMapping
from typing import IO, Any, NoReturn, TypeVar, TypeVarTuple, Unpack

from netpoll import _core
from netpoll._aio.host import Host
from netpoll._aio.names import getaddrinfo, getnameinfo
from netpoll._aio.processes import ExitWatch, start_process
from netpoll._aio.selector_view import FD_MAX, SelectorView, check_pollable, file_number
from netpoll._aio.watchdog import Watchdog
from netpoll._native.loop import (
    calls,
    collect,  # noqa: F401 - tells the garbage collector of what loops refer to
)
from netpoll._native.loop import sock as native_sock
from netpoll._native.loop.counters import read_counters
from netpoll._native.loop.sendfile import send_file
from netpoll._native.loop.watcher import add_watcher, remove_watcher
from netpoll._native.tls.transport import make_layer
from netpoll._native.transport.acceptor import Acceptor
from netpoll._native.transport.address import DatagramMemory
from netpoll._native.transport.datagram import make_datagram_transport
from netpoll._native.transport.pipe import (
    ReadPipeTransport,
    WritePipeTransport,
    make_read_transport,
    make_write_transport,
)
from netpoll._native.transport.stream import StreamTransport, make_transport
from netpoll._telemetry.shown import show
from netpoll.config import LoopConfig
from netpoll.errors import BackendUnavailableError
from netpoll.probe import choose_again, choose_backend
from netpoll.stats import LoopStats
from netpoll.tls import start_tls

_Args = TypeVarTuple("_Args")
_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)
_Waiter = asyncio.Future[None] | None
_Extra = dict[str, Any] | None

URING_NEEDS = frozenset({"defer_taskrun", "buf_ring"})

__all__ = ["EventLoop", "install", "new_event_loop", "run"]


class EventLoop(Host):
    """An asyncio event loop on io_uring or epoll.

    backend: "auto" takes io_uring where it works, and epoll elsewhere. "uring" and "epoll" take
        that one and no other. The environment variable NETPOLL_BACKEND stands in for "auto".
    config: capacities, see LoopConfig.

    A loop may be made in any thread, and is run by one thread at a time. Raises
    BackendUnavailableError when "uring" is not available, ValueError for an unknown backend.

    The attribute `backend` is "uring" or "epoll"; stats() gives the counters.
    """

    def __init__(self, backend: str = "auto", config: LoopConfig | None = None) -> None:
        self._closed = True  # until there is something to close
        config = config or LoopConfig()
        self._slow_callback_ms = config.slow_callback_ms
        name, self.backend_reason = choose_backend(backend)
        if name == "uring" and (missing := URING_NEEDS.intersection(config.features_off)):
            raise BackendUnavailableError(
                errno.EOPNOTSUPP,
                f"the uring backend cannot do without {', '.join(sorted(missing))}; leave it out "
                "of features_off, or use the epoll backend",
            )
        try:
            self._open_backend(name, config)
        except OSError as exc:
            name, self.backend_reason = choose_again(backend, exc)
            self._open_backend(name, config)
        self._closed = False
        # Not SelectorEventLoop's own __init__: there is no selector.
        base_events.BaseEventLoop.__init__(self)
        self._selector = SelectorView(self)
        self._internal_fds = 1  # the wake-up eventfd
        # asyncio's own transports on this loop.
        self._transports: MutableMapping[int, asyncio.Transport] = weakref.WeakValueDictionary()
        # The objects that add_reader and add_writer were given, by number: found when closed, too.
        self._reader_files = {}
        self._writer_files = {}
        self._signal_handlers: dict[int, Any] = {}
        self._unix_server_sockets: dict[socket.socket, int] = {}
        self._acceptors: dict[int, Acceptor] = {}
        self._child_watches: set[ExitWatch] = set()
        self._datagram_memory: DatagramMemory | None = None  # with the first of them
        # What ends with the loop, its servers: a call before operations end, and one after that.
        self._at_close: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._ssock: socket.socket | None = None
        self._csock: socket.socket | None = None
        show(self)

    def __repr__(self) -> str:
        return (
            f"<netpoll.{type(self).__name__} backend={self.backend} running={self.is_running()} "
            f"closed={self.is_closed()} debug={self.get_debug()}>"
        )

    # -- running --------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Runs until stop(). Raises RuntimeError when a loop runs in this thread already."""
        self._check_closed()
        self._check_running()
        try:
            self._enable()
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                raise
            raise OSError(
                errno.EBUSY,
                "this event loop has operations in flight that must not be started twice, such as "
                "file writes: let it run in the thread it ran in until they are done",
            ) from None
        hooks = sys.get_asyncgen_hooks()
        watchdog = None
        self._set_coroutine_origin_tracking(self._debug)
        try:
            self._running_in(threading.get_ident())
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook,
                finalizer=self._asyncgen_finalizer_hook,
            )
            events._set_running_loop(self)
            self._watch_signals()
            is_patched = self._run_once != super()._run_once
            if self._slow_callback_ms:
                watchdog = Watchdog(self, self._slow_callback_ms, is_patched)
            if is_patched:
                self._run_patched_turns()
            else:
                self._run_turns()
        finally:
            if watchdog is not None:
                watchdog.stop()
            self._stopping = False
            self._running_in(None)
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)
            if self._ssock is not None:
                self._remove_reader(self._ssock.fileno())

    @property
    def _nest_patched(self) -> NoReturn:
        """Looked for by nest_asyncio and its kind, when they are about to patch this class."""
        if hasattr(asyncio, "_nest_patched"):
            raise RuntimeError(_core.NO_NESTING)
        raise AttributeError("_nest_patched")

    def close(self) -> None:
        """Ends every operation and frees the ring. Raises RuntimeError while running."""
        if self.is_running() or self._in_turn:
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        # The last one first. One that fails does not keep the others from being done.
        with contextlib.ExitStack() as steps:
            steps.callback(self._forget_files)
            for _, after in list(self._at_close):
                steps.callback(after)
            steps.callback(self._close_native)
            steps.callback(setattr, self, "_closed", True)  # whatever the next one did
            steps.callback(super().close)  # signal handlers, the wake-up pipe, the executor
            steps.callback(self._unhook_signals)
            for watch in list(self._child_watches):
                steps.callback(watch.stop)
            for acceptor in list(self._acceptors.values()):
                steps.callback(acceptor.end)
            for before, _ in list(self._at_close):
                steps.callback(before)

    def _unhook_signals(self) -> None:
        """The interpreter writes their numbers to a socket, which asyncio closes before it gives
        the handlers back: another file may have its number by then."""
        if self._signal_handlers:
            with contextlib.suppress(ValueError):  # not the main thread: asyncio says so
                signal.set_wakeup_fd(-1)

    def stats(self) -> LoopStats:
        """Counters of this loop, as a dict; after close() the last values."""
        return read_counters(self)

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """asyncio's; in a forked child the threads are the parent's, and not waited for."""
        if self._is_inherited:
            self._executor_shutdown_called = True
            return
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        except RuntimeError:
            # There is no thread to wait in: the interpreter waits for them at its end.
            if self._default_executor is None:
                raise
            self._default_executor.shutdown(wait=False)

    def _forget_files(self) -> None:
        self._acceptors.clear()
        self._at_close.clear()
        self._reader_files.clear()
        self._writer_files.clear()
        self._datagram_memory = None
        self._internal_fds = 0

    def _callback_failed(
        self,
        handle: asyncio.Handle,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        exc: BaseException,
    ) -> None:
        source = format_helpers._format_callback_source(callback, args)
        context = {
            "message": f"Exception in callback {source}",
            "exception": exc,
            "handle": handle,
        }
        if traceback := getattr(handle, "_source_traceback", None):
            context["source_traceback"] = traceback
        self.call_exception_handler(context)

    def _callback_slow(self, handle: asyncio.Handle, taken_s: float) -> None:
        what = base_events._format_handle(handle)  # type: ignore[attr-defined]  # undocumented
        # By asyncio's name for it, which tests replace.
        logger = base_events.logger  # type: ignore[attr-defined]  # undocumented
        logger.warning("Executing %s took %.3f seconds", what, taken_s)

    # -- signals --------------------------------------------------------------------------------

    def _make_self_pipe(self) -> socket.socket:
        """The end that signal.set_wakeup_fd() writes to."""
        if self._csock is None:
            self._ssock, self._csock = socket.socketpair()
            self._ssock.setblocking(False)
            self._csock.setblocking(False)
        return self._csock

    def _close_self_pipe(self) -> None:
        if self._ssock is not None and self._csock is not None:
            self._ssock.close()
            self._csock.close()
            self._ssock = self._csock = None

    def add_signal_handler(
        self, sig: int, callback: Callable[[Unpack[_Args]], object], *args: *_Args
    ) -> None:
        """Calls callback(*args) in the loop when the signal arrives. Main thread only.

        While there is a handler, the loop uses signal.set_wakeup_fd(), as on asyncio. Without
        handlers it is the program's. Ctrl-C does not need it: the signal interrupts the wait of
        the loop, and Python's own handlers run between turns.
        """
        self._check_closed()
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "Python takes signals in the main thread only, and this is another one. A server's "
                "workers have threads of their own: set handlers before it starts, or end with it "
                "(an ASGI application by its lifespan)"
            )
        wake_end = self._make_self_pipe()
        super().add_signal_handler(sig, callback, *args)
        signal.set_wakeup_fd(wake_end.fileno(), warn_on_full_buffer=False)
        if self._thread_id == threading.get_ident():
            self._watch_signals()
        elif self.is_running():
            self.call_soon_threadsafe(self._watch_signals)

    def _watch_signals(self) -> None:
        """Only while running, and with handlers: what is in flight keeps its loop alive."""
        if (
            self._ssock is not None
            and self._ssock.fileno() not in self._readers
            and not self._is_inherited
        ):
            self._add_watcher(self._ssock.fileno(), False, self._read_from_self, None, True)

    def _add_callback_signalsafe(self, handle: asyncio.Handle) -> None:
        self.call_soon(handle._run)

    # -- readers and writers --------------------------------------------------------------------

    def _ensure_fd_no_transport(self, fd: Any) -> None:
        number = file_number(fd)  # -1 of a socket that is closed: its watchers may be removed
        transport = self._fd_transport(number) if 0 <= number <= FD_MAX else None
        if transport is None:
            transport = self._transports.get(number)
            if transport is None or transport.is_closing():
                return
        elif transport.is_closing() or transport._lent:
            return
        raise RuntimeError(f"File descriptor {fd!r} is used by transport {transport!r}")

    _add_watcher = add_watcher
    _remove_watcher = remove_watcher

    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        return self._watch(fd, False, callback, args)

    def _add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        return self._watch(fd, True, callback, args)

    def _watch(
        self, fd: Any, is_writer: bool, callback: Callable[..., object], args: tuple[Any, ...]
    ) -> asyncio.Handle:
        number = self._watched_number(fd)
        watchers = self._writers if is_writer else self._readers
        if file_number(fd) < 0:
            if number not in watchers:  # it is closed, and watched for the other direction
                raise OSError(errno.EBADF, f"Bad file descriptor ({fd!r})")
        elif self.backend == "uring" and not self._closed:
            check_pollable(number)  # a ring polls anything; what epoll refuses is refused here, too
        if self._acceptors and not is_writer:
            acceptor = self._acceptors.pop(number, None)
            if acceptor is not None:  # a program that accepts by itself from here on
                acceptor.end()
        handle = self._add_watcher(number, is_writer, callback, args)
        if not isinstance(fd, int):
            (self._writer_files if is_writer else self._reader_files)[number] = fd
        return handle

    def _watched_number(self, fd: Any) -> int:
        """The number of fd; that of a closed object as long as it is watched, as in `selectors`."""
        number = file_number(fd)
        if number >= 0:
            return number
        for files in (self._reader_files, self._writer_files):
            for watched, file in files.items():
                if file is fd:
                    return watched
        raise ValueError(f"Invalid file descriptor: {number}")

    def _remove_reader(self, fd: Any) -> bool:
        if self._closed:
            return False
        number = self._watched_number(fd)
        acceptor = self._acceptors.pop(number, None)
        if acceptor is not None:
            acceptor.end()
            return True
        self._reader_files.pop(number, None)
        return number <= FD_MAX and self._remove_watcher(number, False)

    def _remove_writer(self, fd: Any) -> bool:
        if self._closed:
            return False
        number = self._watched_number(fd)
        self._writer_files.pop(number, None)
        return number <= FD_MAX and self._remove_watcher(number, True)

    # -- socket calls ---------------------------------------------------------------------------

    sock_recv = native_sock.sock_recv  # type: ignore[assignment]  # its `n` has two names there
    sock_recv_into = native_sock.sock_recv_into
    sock_recvfrom = native_sock.sock_recvfrom
    sock_recvfrom_into = native_sock.sock_recvfrom_into
    sock_sendall = native_sock.sock_sendall
    sock_sendto = native_sock.sock_sendto
    sock_accept = native_sock.sock_accept
    _connect_resolved = native_sock.connect_resolved

    getaddrinfo = getaddrinfo
    getnameinfo = getnameinfo

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connects; a host name is resolved first."""
        base_events._check_ssl_socket(sock)  # type: ignore[attr-defined]  # undocumented
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            resolved = await self._ensure_resolved(
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            address = resolved[0][4]
        await self._connect_resolved(sock, address)

    # -- transports and servers -----------------------------------------------------------------

    # Called by asyncio's own code.

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: _Waiter = None,
        *,
        extra: _Extra = None,
        server: asyncio.Server | None = None,
        context: contextvars.Context | None = None,
    ) -> StreamTransport:
        self._ensure_fd_no_transport(sock)
        return self._make_transport(context, sock, protocol, waiter, extra, server)

    def _make_transport(self, context: contextvars.Context | None, *args: Any) -> StreamTransport:
        """A transport whose protocol runs in a copy of context (Python 3.15), or of ours."""
        if context is None:
            return make_transport(self, *args)
        return context.copy().run(make_transport, self, *args)

    def _make_read_pipe_transport(
        self,
        pipe: IO[Any],
        protocol: asyncio.BaseProtocol,
        waiter: _Waiter = None,
        extra: _Extra = None,
    ) -> ReadPipeTransport:
        return make_read_transport(self, pipe, protocol, waiter, extra)

    def _make_write_pipe_transport(
        self,
        pipe: IO[Any],
        protocol: asyncio.BaseProtocol,
        waiter: _Waiter = None,
        extra: _Extra = None,
    ) -> WritePipeTransport:
        return make_write_transport(self, pipe, protocol, waiter, extra)

    _make_subprocess_transport = start_process

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], _Protocol],
        local_addr: tuple[str, int] | str | None = None,
        remote_addr: tuple[str, int] | str | None = None,
        *,
        sock: socket.socket | None = None,
        **options: Any,
    ) -> tuple[asyncio.DatagramTransport, _Protocol]:
        """asyncio's, and `sock` may be a raw socket on every Python (asyncio: from 3.12 on).

        Returns the transport and its protocol. Raises what asyncio raises: OSError, and ValueError
        or TypeError for arguments that make no sense together.
        """
        if sock is None or sock.type != socket.SOCK_RAW or local_addr or remote_addr or options:
            return await super().create_datagram_endpoint(
                protocol_factory, local_addr, remote_addr, sock=sock, **options
            )
        sock.setblocking(False)
        protocol = protocol_factory()
        waiter = self.create_future()
        transport = self._make_datagram_transport(sock, protocol, None, waiter)
        try:
            await waiter
        except BaseException:
            transport.close()
            del waiter  # it holds the exception, whose traceback holds this frame
            raise
        return transport, protocol

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: _Waiter = None,
        extra: _Extra = None,
    ) -> asyncio.DatagramTransport:
        self._ensure_fd_no_transport(sock)
        if self._datagram_memory is None:
            self._datagram_memory = DatagramMemory()
        return make_datagram_transport(
            self, self._datagram_memory, sock, protocol, address, waiter, extra
        )

    async def _create_connection_transport(
        self, sock: socket.socket, *args: Any, **kwargs: Any
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        number = sock.fileno()
        try:
            return await super()._create_connection_transport(sock, *args, **kwargs)
        except BaseException:
            # The transport closes the number later; until then the caller's object must not, and
            # must not stand for whatever has the number afterwards.
            # (In tests the caller's object may be a mock, whose number is none.)
            transport = self._fd_transport(number) if isinstance(number, int) else None
            if isinstance(transport, StreamTransport):
                transport._detach_socket()
            raise

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: IO[bytes], offset: int, count: int | None
    ) -> int:
        return await send_file(self, sock, file, offset, count)

    async def _sendfile_native(
        self, transp: StreamTransport, file: IO[bytes], offset: int, count: int | None
    ) -> int:
        reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        try:
            return await self.sock_sendfile(transp._socket(), file, offset, count, fallback=False)
        finally:
            transp._reset_empty_waiter()
            if reading:
                transp.resume_reading()

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext | None,
        waiter: _Waiter = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: _Extra = None,
        server: asyncio.Server | None = None,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: contextvars.Context | None = None,
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(rawsock)
        layer = make_layer(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        transport = layer._app_transport
        self._make_transport(context, rawsock, layer, None, extra, server)
        return transport

    start_tls = start_tls

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: ssl.SSLContext | None = None,
        server: asyncio.Server | None = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float | None = constants.SSL_SHUTDOWN_TIMEOUT,
        context: contextvars.Context | None = None,
    ) -> None:
        fd = file_number(sock)
        options = None
        if sslcontext is not None:
            options = {
                "sslcontext": sslcontext,
                "ssl_handshake_timeout": ssl_handshake_timeout,
                "ssl_shutdown_timeout": ssl_shutdown_timeout,
            }
        self._acceptors[fd] = Acceptor(self, sock, protocol_factory, server, options, backlog)


calls.own_calls(EventLoop)


def new_event_loop(backend: str = "auto", config: LoopConfig | None = None) -> EventLoop:
    """A new EventLoop. Fits wherever a loop factory is asked for (asyncio.Runner, uvicorn)."""
    return EventLoop(backend, config)


def run(
    main: Coroutine[Any, Any, Any],
    *,
    debug: bool | None = None,
    backend: str = "auto",
    loop_factory: Callable[[], EventLoop] | None = None,
) -> Any:
    """asyncio.run on a netpoll loop: runs main, cancels what is left, closes the loop.

    loop_factory makes the loop, where the program chooses more than its backend: a LoopConfig, or a
    subclass. The argument backend is then not used.

    Returns what main returns. Raises RuntimeError when a loop is running in this thread, TypeError
    when loop_factory makes another library's loop.
    """
    if events._get_running_loop() is not None:
        raise RuntimeError("netpoll.run() cannot be called from a running event loop")

    def factory() -> EventLoop:
        loop = new_event_loop(backend) if loop_factory is None else loop_factory()
        if isinstance(loop, EventLoop):
            return loop
        loop.close()
        raise TypeError("netpoll.run() uses a non-netpoll event loop; asyncio.run() takes those")

    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        return runner.run(main)


def install() -> None:
    """Makes netpoll's the loop that asyncio.run and asyncio.new_event_loop make.

    For programs whose call of asyncio.run you cannot change; elsewhere use netpoll.run. Raises
    RuntimeError on Pythons without event loop policies (3.16 and later).
    """
    if EventLoopPolicy is None:
        raise RuntimeError(
            "this Python has no event loop policies; use netpoll.run(main()) or "
            "asyncio.run(main(), loop_factory=netpoll.new_event_loop)"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # policies, from Python 3.14 on
        asyncio.set_event_loop_policy(EventLoopPolicy())


def _policy_class() -> type | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        base = getattr(asyncio, "DefaultEventLoopPolicy", None)
        if base is None or not hasattr(asyncio, "set_event_loop_policy"):
            return None

        class EventLoopPolicy(base):  # type: ignore[misc, valid-type]  # found at run time
            """asyncio's default policy, with netpoll's loops."""

            def _loop_factory(self) -> EventLoop:
                return new_event_loop()

    EventLoopPolicy.__module__ = "netpoll"
    EventLoopPolicy.__qualname__ = "EventLoopPolicy"
    return EventLoopPolicy


EventLoopPolicy = _policy_class()
