"""What a running program shows of itself: to Prometheus and to `netpoll top`.

    from netpoll import telemetry

    telemetry.PrometheusCollector(server, scheduler)

Nothing here runs, and nothing is counted beyond stats(), before one of these is made. The packages
that they need are imported then. docs/observing.md has the names of all metrics.
"""

from __future__ import annotations

from netpoll._telemetry.prometheus import PrometheusCollector
from netpoll._telemetry.window import Window

__all__ = ["PrometheusCollector", "Window"]
