"""An HTTP/1.1 server for ASGI and WSGI applications and for plain functions.

    from netpoll import http

    def handler(request):
        return http.Response("hello\\n")

    with http.Server(handler, "127.0.0.1", 8000) as server:
        ...

Requests are read where they arrived, and an answer leaves in one piece with those of all other
connections that have one in the same turn: see netpoll.Server, whose connections these are.
docs/http.md has the whole of it, docs/http-strictness.md what is refused.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import socket
import ssl as _ssl
import time
from asyncio import events
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TextIO, Unpack

from netpoll._former import FormerLimits, limits_of
from netpoll._http import deflate
from netpoll._http.access import FORMS, AccessLog
from netpoll._http.equipment import Compression, Equipment
from netpoll._http.lifespan import Lifespan, LifespanError, lifespan_end_s
from netpoll._http.pool import ThreadPool
from netpoll._http.static_files import StaticFiles
from netpoll._http.tls_facts import TlsFacts
from netpoll._native.http.asgi import AsgiApplication
from netpoll._native.http.protocol import HttpProtocol
from netpoll._native.http.raw import RawApplication, Request, Response
from netpoll._native.http.raw_websocket import WebSocket
from netpoll._native.http.request_limits import check_request_limits
from netpoll._native.http.websocket import SocketRules
from netpoll._native.http.wire import Application
from netpoll._native.http.wsgi import WsgiApplication
from netpoll._native.server.networks import Networks
from netpoll.config import LoopConfig, ServerLimits, check_limits
from netpoll.loop import EventLoop
from netpoll.server import Server as _StreamServer

if TYPE_CHECKING:  # of the stub alone
    from netpoll._native.http.meter import _Reading

__all__ = [
    "Compression",
    "HttpLimits",
    "LifespanError",
    "Request",
    "Response",
    "Server",
    "StaticFiles",
    "WebSocket",
]

INTERFACES = ("auto", "raw", "asgi", "wsgi")
LIFESPANS = ("auto", "on", "off")
THREADS_DEFAULT_COUNT = 8
# What threads of WSGI applications have to end when their connections are over.
THREADS_END_S = 1.0
LIFESPAN_END_S = lifespan_end_s()

log = logging.getLogger("netpoll.http")


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What a request and a WebSocket may be, and how long they may take. None: without a limit; the
    first three have one, of at most 2**30.

    line_max_bytes: of the request line (414). head_max_bytes, fields_max_count: of the head, and of
        the trailers (431). body_max_bytes: of the body (413).
    head_timeout_s: from the first byte of a head to its last (408); of a connection's first head,
        from the connection's beginning. keep_alive_timeout_s: between two requests; longer than
        that of the proxies in front, which would else send a request into a connection that closes.
        stall_timeout_s: in which a peer has to send something of a body that is waited for (408),
        or to take something of its answer.
    websocket_max_bytes: of a message, before it is kept (1009). websocket_ping_interval_s: of
        silence, before we ping; None: never. websocket_ping_timeout_s: in which anything has to
        come then.
    connections_served_max_count: of each worker; the first request of one more is answered with
        503, and its connection closes.
    connections_max_count, backlog_max_count, handshake_timeout_s: as of netpoll.ServerLimits; above
        the first one accepting pauses.
    """

    line_max_bytes: int = 16 * 1024
    head_max_bytes: int = 64 * 1024
    fields_max_count: int = 100
    body_max_bytes: int | None = None
    head_timeout_s: float | None = 15.0
    keep_alive_timeout_s: float | None = 75.0
    stall_timeout_s: float | None = 60.0
    websocket_max_bytes: int | None = 16 * 1024 * 1024
    websocket_ping_interval_s: float | None = 20.0
    websocket_ping_timeout_s: float | None = 20.0
    connections_served_max_count: int | None = None
    connections_max_count: int | None = None
    backlog_max_count: int = 4096
    handshake_timeout_s: float = 15.0

    def __post_init__(self) -> None:
        check_limits(self)
        check_request_limits(self._of_reader())

    def _of_reader(self) -> dict[str, int]:
        """Those that the reader of requests keeps."""
        names = ("line_max_bytes", "head_max_bytes", "fields_max_count", "body_max_bytes")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _of_server(self) -> ServerLimits:
        """Those that the server of connections keeps. A transport of HTTP is asked before it is
        written to, so nothing ends because much is unsent."""
        return ServerLimits(
            connections_max_count=self.connections_max_count,
            backlog_max_count=self.backlog_max_count,
            pending_max_bytes=1 << 24,
            when_full="raise",
            idle_timeout_s=self.keep_alive_timeout_s,
            handshake_timeout_s=self.handshake_timeout_s,
        )

    def _of_sockets(self, deflates: bool) -> SocketRules:
        return SocketRules(
            self.websocket_max_bytes,
            self.websocket_ping_interval_s,
            self.websocket_ping_timeout_s,
            deflate.agree if deflates else None,
        )


class Server(_StreamServer):
    """Serves an application over HTTP/1.1, in threads of its own or inside a running netpoll loop.

    app: an ASGI 3 application; a WSGI application; or a function that gets a Request and returns a
        Response, bytes or a str; `async def`, or a plain one, which must not block.
    interface: "asgi", "wsgi" or "raw" insist on one; "auto" looks at the number of arguments.
    host, port, unix, sockets, ssl, workers, reuse_port, backend, config: as for netpoll.Server.
    limits: see HttpLimits.
    lifespan: "auto", "on" or "off", of ASGI applications: see https://asgi.readthedocs.io. One for
        each worker's loop.
    root_path: where a proxy in front has mounted the application: of ASGI's scope, and WSGI's
        SCRIPT_NAME. The proxy may take it off the path, or leave it there.
    threads: how many a WSGI application gets at most, in all workers together; they are made when
        they are needed. 0: it runs in the workers' own threads, and must not block.
    forwarded_from: addresses and networks of proxies, with commas between them, or "*". Their
        X-Forwarded-For and X-Forwarded-Proto say who the client is, and which scheme it has used.
    server_header: the value of the answers' field Server; "" for none.
    websocket_deflate: compress the messages of WebSockets whose peers can (permessage-deflate).
    headers: more of each answer, pairs of str.
    access_log: the path of a file, or a text file, that gets a line for each request, about once a
        second. access_log_format: "common", "combined" or "json".
    compression: how answers are compressed for clients that accept it; None: not.
    health_path: of a page that answers 200 as long as the server serves. metrics_path: of a page
        with counters for Prometheus; needs `pip install netpoll[prometheus]`.
    request_id_header: a field that gives each request a name: taken from the client if it is sane,
        else made; for the application to read, and in the answer.

    An application that fails before it has answered is answered for with 500; one that fails within
    its answer loses the connection. The logger "netpoll.http" has the traceback.

    Raises what netpoll.Server raises; LifespanError at start when the application says that it
    cannot serve.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        host: str | None = None,
        port: int | None = None,
        *,
        interface: str = "auto",
        unix: str | os.PathLike[str] | None = None,
        sockets: Iterable[socket.socket] | None = None,
        ssl: _ssl.SSLContext | None = None,
        workers: int = 1,
        reuse_port: bool = False,
        limits: HttpLimits | None = None,
        lifespan: str = "auto",
        root_path: str = "",
        threads: int = THREADS_DEFAULT_COUNT,
        forwarded_from: str | None = None,
        server_header: str = "netpoll",
        websocket_deflate: bool = False,
        headers: Iterable[tuple[str, str]] = (),
        access_log: str | os.PathLike[str] | TextIO | None = None,
        access_log_format: str = "common",
        compression: Compression | None = None,
        health_path: str | None = None,
        metrics_path: str | None = None,
        request_id_header: str | None = None,
        backend: str = "auto",
        config: LoopConfig | None = None,
        **former: Unpack[FormerLimits],
    ) -> None:
        _check(app, threads)
        _check_word("interface", interface, INTERFACES)
        _check_word("lifespan", lifespan, LIFESPANS)
        _check_word("access_log_format", access_log_format, FORMS)
        self._app = app
        self._interface = interface_of(app) if interface == "auto" else interface
        self._http_limits = limits_of(HttpLimits, limits, former)
        self._lifespan_mode = lifespan if self._interface == "asgi" else "off"
        self._lifespans: dict[EventLoop, Lifespan] = {}
        self._scheme = "http" if ssl is None else "https"
        self._root_path = root_path
        self._pool_of_threads = ThreadPool(threads) if threads else None
        self._wsgi: dict[EventLoop, WsgiApplication] = {}
        self._protocols: list[HttpProtocol] = []
        self._multithread = threads > 1 or workers > 1
        self._multiprocess = False
        self._proxies = Networks(forwarded_from) if forwarded_from is not None else None
        self._server_header = server_header
        self._websocket_deflate = websocket_deflate
        self._fields = [_field_of(*header) for header in headers]
        self._access_log = AccessLog(access_log) if access_log else None
        self._access_log_format = access_log_format
        self._equipment = Equipment(
            self, report, compression, health_path, metrics_path, request_id_header
        )
        super().__init__(
            app,
            host,
            port,
            unix=unix,
            sockets=sockets,
            ssl=ssl,
            workers=workers,
            reuse_port=reuse_port,
            limits=self._http_limits._of_server(),
            backend=backend,
            config=config,
        )
        self._is_session = False
        self._program_end_s = lifespan_end_s()

    def _handler_of(self, loop: EventLoop) -> HttpProtocol:
        limits = self._http_limits
        rules = limits._of_sockets(self._websocket_deflate)
        application: Application
        if self._interface == "raw":
            application = RawApplication(self._app, is_async(self._app), report, rules)
        elif self._interface == "wsgi":
            application = self._wsgi[loop] = WsgiApplication(
                self._app,
                loop,
                self._pool_of_threads.crew if self._pool_of_threads is not None else None,
                self._scheme,
                self._root_path,
                self._multithread,
                self._multiprocess,
                report,
            )
        else:
            lifespan = self._lifespans.get(loop)
            state = lifespan.state if lifespan is not None else None
            application = AsgiApplication(
                self._app,
                state,
                self._scheme,
                self._root_path,
                report,
                rules,
                TlsFacts().of if self._scheme == "https" else None,
            )
        protocol = HttpProtocol(
            self._equipment.around(application),
            limits._of_reader(),
            self._server_header,
            limits.head_timeout_s,
            limits.stall_timeout_s,
            self._fields,
            self._access_log.write if self._access_log is not None else None,
            self._access_log_format,
        )
        if limits.connections_served_max_count is not None:
            protocol.serve_at_most(limits.connections_served_max_count)
        if self._proxies is not None:
            protocol.believe(self._proxies)
        self._equipment.equip(protocol)
        self._protocols.append(protocol)
        return protocol

    @property
    def requests(self) -> int:
        """How many requests were read until now."""
        return sum(protocol.requests for protocol in self._protocols)

    def _measure(self) -> None:
        """Requests are counted from the start on."""
        self._equipment.is_measured = True

    def _meter_readings(self) -> list[_Reading]:
        return self._equipment.readings()

    def own_page(self, request: Request) -> Response:
        """A handler that answers health_path and metrics_path of this server, for another one that
        shows them on a port of its own."""
        page = self._equipment.page(request.path, request.header("accept"))
        return Response(b"Not Found", 404) if page is None else Response(page[2], page[0], page[1])

    def start(self) -> Self:
        """As netpoll.Server.start(). Inside a running loop an ASGI application with a lifespan has
        to be waited for: there, `await astart()` or `async with`."""
        running = events._get_running_loop()
        if (
            isinstance(running, EventLoop)
            and self._workers_count == 1
            and self._lifespan_mode != "off"
            and running not in self._lifespans
        ):
            raise RuntimeError(
                "this server runs inside a loop and its application has a lifespan: use "
                "'await server.astart()' or 'async with server', or pass lifespan='off'"
            )
        if self._access_log is not None:
            self._access_log.open()
        try:
            return super().start()
        except BaseException:
            if self._access_log is not None:
                self._access_log.close()
            raise

    def reopen_access_log(self) -> None:
        """Goes on in a new file of the same name: the old one was renamed. In any thread. Raises
        OSError when there can be none; the old file is written on then."""
        if self._access_log is not None:
            self._access_log.reopen()

    async def astart(self) -> Self:
        """start(), inside a running netpoll loop."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, EventLoop) and self._workers_count == 1:
            await self._open_lifespan(loop)
            try:
                return self.start()
            except BaseException:
                if loop in self._lifespans:
                    await self._lifespans.pop(loop).shutdown()
                raise
        return self.start()

    async def aclose(self, *args: Any, **kwargs: Any) -> None:
        await super().aclose(*args, **kwargs)
        pool, until_s = self._pool_of_threads, time.monotonic() + THREADS_END_S
        while pool is not None and pool.threads and time.monotonic() < until_s:
            await asyncio.sleep(0.002)
        loop = asyncio.get_running_loop()
        lifespan = self._lifespans.pop(loop, None) if isinstance(loop, EventLoop) else None
        if lifespan is not None:
            await lifespan.shutdown()

    async def __aenter__(self) -> Self:
        return await self.astart()

    async def _open_lifespan(self, loop: EventLoop) -> None:
        if self._lifespan_mode != "off":
            lifespan = Lifespan(self._app, self._lifespan_mode)
            await lifespan.startup()
            self._lifespans[loop] = lifespan

    def _thread_begins(self, loop: EventLoop) -> None:
        loop.run_until_complete(self._open_lifespan(loop))

    def _ended(self) -> None:
        super()._ended()
        for protocol in self._protocols:
            protocol.flush_lines()
        if self._access_log is not None:
            self._access_log.close()
        self._equipment.close()
        for application in self._wsgi.values():  # of the loop that it runs inside
            application.close()
        self._wsgi.clear()
        pool = self._pool_of_threads
        if pool is None:
            return
        pool.close()
        if self._inside is None and not pool.join(time.monotonic() + THREADS_END_S):
            count = len(pool.threads)
            log.error("a WSGI application blocks %d threads: they are left behind", count)

    def _thread_ends(self, loop: EventLoop) -> None:
        if loop in self._wsgi:
            self._wsgi.pop(loop).close()
        lifespan = self._lifespans.pop(loop, None)
        if lifespan is not None:
            loop.run_until_complete(lifespan.shutdown())


def _check(app: object, threads: int) -> None:
    if not callable(app):
        raise TypeError("app must be an ASGI or WSGI application, or a function of a request")
    if threads < 0:
        raise ValueError("threads must not be negative")


def _field_of(name: str, value: str) -> tuple[bytes, bytes]:
    return name.lower().encode("latin-1"), value.encode("latin-1")


def _check_word(name: str, word: str, words: Iterable[str]) -> None:
    if word not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}, not {word!r}")


def report(message: str, error: BaseException | None) -> None:
    log.error(message, exc_info=error)


def is_async(app: Callable[..., Any]) -> bool:
    """Calling it gives a coroutine."""
    call = app if inspect.isroutine(app) else getattr(app, "__call__", app)  # noqa: B004
    return inspect.iscoroutinefunction(inspect.unwrap(app)) or inspect.iscoroutinefunction(call)


def interface_of(app: Callable[..., Any]) -> str:
    """By the arguments: ASGI has (scope, receive, send), WSGI (environ, start_response), a handler
    (request). What takes any number of them is WSGI, or ASGI if it is `async def`."""
    try:
        takes = inspect.signature(app)
    except ValueError:  # it cannot be read
        return "asgi"
    one, two, three = (_may_bind(takes, count) for count in (1, 2, 3))
    if three and (not two or is_async(app)):
        return "asgi"
    return "wsgi" if two and (three or not one) else "raw"


def _may_bind(takes: inspect.Signature, count: int) -> bool:
    try:
        takes.bind(*[None] * count)
    except TypeError:
        return False
    return True
