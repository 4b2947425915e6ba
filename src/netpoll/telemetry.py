"""What a running program shows of itself: to Prometheus, to OpenTelemetry and to `netpoll top`.

    from netpoll import telemetry

    telemetry.PrometheusCollector(server, scheduler)

Nothing here runs, and nothing is counted beyond stats(), before one of these is made. The packages
that they need are imported then. docs/observing.md has the names of all metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netpoll import http
from netpoll._telemetry import spans
from netpoll._telemetry.otel import OtelMetrics
from netpoll._telemetry.prometheus import PrometheusCollector
from netpoll._telemetry.window import Window

__all__ = ["OtelMetrics", "PrometheusCollector", "Window", "traced"]


def traced(
    app: Callable[..., Any],
    *,
    interface: str = "auto",
    route: Callable[[Any], str | None] | None = None,
    tracer_provider: Any = None,
) -> Callable[..., Any]:
    """The application, with a span of OpenTelemetry for each request.

    app, interface: as for http.Server, which takes what this returns. A request's `traceparent`
        says whose child its span is; what the application starts is within the span.
    route: told an ASGI scope, a WSGI environ or a Request that was answered: the pattern that its
        path has matched, for the span's name and http.route. Where an ASGI framework leaves it in
        the scope, it is found without.
    tracer_provider: the default is the program's own.

    A function that returns its body in parts, and a WebSocket, are not waited for. Raises
    RuntimeError without the packages of OpenTelemetry.
    """
    if interface == "auto":
        interface = http.interface_of(app)
    return spans.traced(app, interface, http.is_async(app), route, tracer_provider)
