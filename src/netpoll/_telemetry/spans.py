"""A span for each request: an application in another one, which begins and ends spans around it.

The context of the caller comes by `traceparent`. While the application runs, the span is the
current one of its context; tasks that it starts, in its loop or in a Scheduler, are within it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from netpoll._telemetry.packages import opentelemetry

__all__ = ["Route", "traced"]

SCOPE = "netpoll"
METHODS = {
    *("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY")
}
# Told a scope, an environ or a Request: the pattern that its path has matched.
Route = Callable[[Any], str | None]


def traced(
    app: Callable[..., Any],
    interface: str,
    is_async: bool,
    route: Route | None,
    provider: Any,
) -> Callable[..., Any]:
    spans = Spans(route, provider)
    if interface == "asgi":
        return around_asgi(app, spans)
    if interface == "wsgi":
        return around_wsgi(app, spans)
    return around_coroutine(app, spans) if is_async else around_function(app, spans)


class Spans:
    """Begins and ends them. route: of a request, when it has been answered."""

    def __init__(self, route: Route | None, provider: Any) -> None:
        self._trace = opentelemetry("trace")
        self._extract = opentelemetry("propagate").extract
        self._tracer = self._trace.get_tracer(SCOPE, tracer_provider=provider)
        self._route = route

    def begin(self, method: str, path: str, headers: dict[str, str], **more: Any) -> Any:
        known = method if method in METHODS else "_OTHER"
        attributes = {"http.request.method": known, "url.path": path}
        if known != method:
            attributes["http.request.method_original"] = method
        if "user-agent" in headers:
            attributes["user_agent.original"] = headers["user-agent"]
        if "host" in headers:
            name, colon, port = headers["host"].rpartition(":")
            is_port = bool(colon) and port.isdigit()
            attributes["server.address"] = name if is_port else headers["host"]
            if is_port:
                more["server.port"] = int(port)
        return self._tracer.start_span(
            known if known == method else "HTTP",
            context=self._extract(headers),
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes | {key: value for key, value in more.items() if value},
        )

    def within(self, span: Any) -> Any:
        """The span is current; an exception is written into it, and goes on."""
        return self._trace.use_span(span, end_on_exit=False)

    def answered(self, span: Any, status: int) -> None:
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_attribute("error.type", str(status))
            span.set_status(self._trace.StatusCode.ERROR)

    def failed(self, span: Any, error: BaseException) -> None:
        span.set_attribute("error.type", type(error).__qualname__)

    def end(self, span: Any, request: Any, method: str, found: str | None = None) -> None:
        """found: the route that a framework has found."""
        route = self._route(request) if self._route is not None else found
        if route is not None:
            span.set_attribute("http.route", route)
            span.update_name(f"{method if method in METHODS else 'HTTP'} {route}")
        span.end()


def around_asgi(app: Callable[..., Awaitable[None]], spans: Spans) -> Callable[..., Any]:
    @functools.wraps(app, updated=())
    async def traced_app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        method, client = scope["method"], scope.get("client")
        span = spans.begin(
            method,
            scope["path"],
            {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]},
            **{
                "url.scheme": scope["scheme"],
                "url.query": scope["query_string"].decode("latin-1"),
                "network.protocol.version": scope["http_version"],
                "client.address": client[0] if client else None,
            },
        )

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                spans.answered(span, message["status"])
            await send(message)

        try:
            with spans.within(span):
                await app(scope, receive, sending)
        except BaseException as error:
            spans.failed(span, error)
            raise
        finally:
            # Starlette and its kind put it there when they have found it.
            found = getattr(scope.get("route"), "path", None)
            spans.end(span, scope, method, found)
        return None

    return traced_app


def around_wsgi(app: Callable[..., Any], spans: Spans) -> Callable[..., Any]:
    @functools.wraps(app, updated=())
    def traced_app(environ: Any, start_response: Any) -> Any:
        span = spans.begin(
            environ["REQUEST_METHOD"],
            environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
            {
                key[5:].replace("_", "-").lower(): value
                for key, value in environ.items()
                if key.startswith("HTTP_")
            },
            **{
                "url.scheme": environ["wsgi.url_scheme"],
                "url.query": environ.get("QUERY_STRING", ""),
                "network.protocol.version": environ["SERVER_PROTOCOL"].rpartition("/")[2],
                "client.address": environ.get("REMOTE_ADDR"),
            },
        )

        def starting(status: str, headers: Any, exc_info: Any = None) -> Any:
            spans.answered(span, int(status.split(" ", 1)[0]))
            return start_response(status, headers, exc_info)

        try:
            with spans.within(span):
                parts = app(environ, starting)
        except BaseException as error:
            spans.failed(span, error)
            spans.end(span, environ, environ["REQUEST_METHOD"])
            raise
        if isinstance(parts, environ.get("wsgi.file_wrapper", ())):
            spans.end(span, environ, environ["REQUEST_METHOD"])  # the server sends it on its own
            return parts
        kind = SizedParts if hasattr(parts, "__len__") else Parts
        return kind(parts, spans, span, environ)

    return traced_app


class Parts:
    """What a WSGI application returns; the span ends when it is closed."""

    def __init__(self, parts: Any, spans: Spans, span: Any, environ: Any) -> None:
        self._parts = parts
        self._spans = spans
        self._span = span
        self._environ = environ

    def __iter__(self) -> Iterator[bytes]:
        parts = iter(self._parts)
        while True:
            try:
                with self._spans.within(self._span):
                    part = next(parts, None)
            except BaseException as error:
                self._spans.failed(self._span, error)
                raise
            if part is None:
                return
            yield part

    def close(self) -> None:
        try:
            if hasattr(self._parts, "close"):
                self._parts.close()
        finally:
            self._spans.end(self._span, self._environ, self._environ["REQUEST_METHOD"])


class SizedParts(Parts):
    """Of a list: a single part needs no chunks."""

    def __len__(self) -> int:
        return len(self._parts)


def begin_raw(spans: Spans, request: Any) -> Any:
    return spans.begin(
        request.method,
        request.path,
        {name.lower(): value for name, value in request.headers},
        **{
            "url.query": request.query,
            "network.protocol.version": request.version,
            "client.address": request.client[0] if isinstance(request.client, tuple) else None,
        },
    )


@contextlib.contextmanager
def span_of(spans: Spans, request: Any) -> Iterator[Callable[[Any], Any]]:
    """The span of a function's request, from here on. Gives what takes the answer."""
    span = begin_raw(spans, request)

    def answered(answer: Any) -> Any:
        spans.answered(span, getattr(answer, "status", 200))
        return answer

    try:
        with spans.within(span):
            yield answered
    except BaseException as error:
        spans.failed(span, error)
        raise
    finally:
        spans.end(span, request, request.method)


def around_function(app: Callable[[Any], Any], spans: Spans) -> Callable[..., Any]:
    @functools.wraps(app, updated=())
    def traced_app(request: Any) -> Any:
        with span_of(spans, request) as answered:
            return answered(app(request))

    return traced_app


def around_coroutine(
    app: Callable[[Any], Awaitable[Any]], spans: Spans
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(app, updated=())
    async def traced_app(request: Any) -> Any:
        with span_of(spans, request) as answered:
            return answered(await app(request))

    return traced_app
