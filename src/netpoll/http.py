"""An HTTP/1.1 server for ASGI applications and for plain functions.

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
from asyncio import events
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from netpoll._http import deflate
from netpoll._http.lifespan import Lifespan, LifespanError
from netpoll._http.static_files import StaticFiles
from netpoll._native.http.asgi import AsgiApplication
from netpoll._native.http.raw import RawApplication, Request, Response
from netpoll._native.http.raw_websocket import WebSocket
from netpoll._native.http.websocket import SocketRules
from netpoll._native.http.wire import Application, HttpProtocol
from netpoll.config import LoopConfig, ServerLimits, check_limits
from netpoll.loop import EventLoop
from netpoll.server import Server as _StreamServer

__all__ = [
    "HttpLimits",
    "LifespanError",
    "Request",
    "Response",
    "Server",
    "StaticFiles",
    "WebSocket",
]

INTERFACES = ("auto", "raw", "asgi")
LIFESPANS = ("auto", "on", "off")

log = logging.getLogger("netpoll.http")


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What a request and a WebSocket may be, and how long they may take. None: without a limit.

    line_max_bytes: of the request line (414). head_max_bytes, fields_max_count: of the head, and of
        the trailers (431). body_max_bytes: of the body (413).
    head_timeout_s: from the first byte of a head to its last (408); of a connection's first head,
        from the connection's beginning. keep_alive_timeout_s: between two requests; longer than
        that of the proxies in front, which would else send a request into a connection that closes.
        stall_timeout_s: in which a peer has to send something of a body that is waited for (408),
        or to take something of its answer.
    websocket_max_bytes: of a message, before it is kept (1009). websocket_ping_interval_s: between
        our pings; None: none. websocket_ping_timeout_s: in which a ping has to be answered.
    connections_max_count, backlog_max_count, handshake_timeout_s: as of netpoll.ServerLimits.
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
    connections_max_count: int | None = None
    backlog_max_count: int = 4096
    handshake_timeout_s: float = 15.0

    def __post_init__(self) -> None:
        check_limits(self)

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

    app: an ASGI 3 application, or a function that gets a Request and returns a Response, bytes or a
        str; `async def`, or a plain one, which must not block.
    interface: "asgi" or "raw" insist on one; "auto" looks at the number of arguments.
    host, port, unix, sockets, ssl, workers, reuse_port, backend, config: as for netpoll.Server.
    limits: see HttpLimits.
    lifespan: "auto", "on" or "off", of ASGI applications: see https://asgi.readthedocs.io. One for
        each worker's loop.
    root_path: of ASGI's scope: where a proxy in front has mounted the application.
    server_header: the value of the answers' field Server; "" for none.
    websocket_deflate: compress the messages of WebSockets whose peers can (permessage-deflate).

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
        server_header: str = "netpoll",
        websocket_deflate: bool = False,
        backend: str = "auto",
        config: LoopConfig | None = None,
    ) -> None:
        if not callable(app):
            raise TypeError("app must be an ASGI application or a function of a request")
        if interface not in INTERFACES:
            raise ValueError(f"interface must be one of {', '.join(INTERFACES)}, not {interface!r}")
        if lifespan not in LIFESPANS:
            raise ValueError(f"lifespan must be one of {', '.join(LIFESPANS)}, not {lifespan!r}")
        self._app = app
        self._interface = interface_of(app) if interface == "auto" else interface
        self._http_limits = limits or HttpLimits()
        self._lifespan_mode = lifespan if self._interface == "asgi" else "off"
        self._lifespans: dict[EventLoop, Lifespan] = {}
        self._scheme = "http" if ssl is None else "https"
        self._root_path = root_path
        self._server_header = server_header
        self._websocket_deflate = websocket_deflate
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

    def _handler_of(self, loop: EventLoop) -> HttpProtocol:
        limits = self._http_limits
        rules = limits._of_sockets(self._websocket_deflate)
        application: Application
        if self._interface == "raw":
            application = RawApplication(self._app, is_async(self._app), report, rules)
        else:
            lifespan = self._lifespans.get(loop)
            state = lifespan.state if lifespan is not None else None
            application = AsgiApplication(
                self._app, state, self._scheme, self._root_path, report, rules
            )
        return HttpProtocol(
            application,
            limits._of_reader(),
            self._server_header,
            limits.head_timeout_s,
            limits.stall_timeout_s,
        )

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
        return super().start()

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

    async def astop(self, *args: Any, **kwargs: Any) -> None:
        await super().astop(*args, **kwargs)
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

    def _thread_ends(self, loop: EventLoop) -> None:
        lifespan = self._lifespans.pop(loop, None)
        if lifespan is not None:
            loop.run_until_complete(lifespan.shutdown())


def report(message: str, error: BaseException | None) -> None:
    log.error(message, exc_info=error)


def is_async(app: Callable[..., Any]) -> bool:
    """Calling it gives a coroutine."""
    call = app if inspect.isroutine(app) else getattr(app, "__call__", app)  # noqa: B004
    return inspect.iscoroutinefunction(inspect.unwrap(app)) or inspect.iscoroutinefunction(call)


def interface_of(app: Callable[..., Any]) -> str:
    """By the arguments: ASGI has (scope, receive, send), a handler has (request)."""
    try:
        inspect.signature(app).bind(None, None, None)
    except TypeError:
        return "raw"
    except ValueError:  # a signature that cannot be read
        pass
    return "asgi"
