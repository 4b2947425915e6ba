"""Instruments of OpenTelemetry that read what is watched when a reader collects.

OpenTelemetry has no instrument for a histogram that somebody else has counted. So the exporter gets
these from here, beside what the instruments give: see OtelMetrics.exporter().
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from netpoll._telemetry.metrics import METRICS, Row
from netpoll._telemetry.packages import opentelemetry
from netpoll._telemetry.sources import Histogram, Readings, Source, Sources

__all__ = ["OtelMetrics"]

SCOPE = "netpoll"
# The callbacks of one collection share a reading.
FRESH_S = 0.5


class OtelMetrics:
    """What loops, servers and schedulers count, for OpenTelemetry.

    sources: EventLoops, Servers and Schedulers; they are not kept alive by it. A server of HTTP
    counts its requests if it is added before it starts.

    Raises RuntimeError without the packages of OpenTelemetry.
    """

    def __init__(self, *sources: Source) -> None:
        self._api = opentelemetry("metrics")
        self.sources = Sources(sources)
        self._began_ns = time.time_ns()
        self._lock = threading.Lock()
        self._readings = Readings()
        self._taken_s = float("-inf")

    def add(self, source: Source, name: str | None = None) -> None:
        """Watches one more. name: its attribute netpoll.source; the default is its kind, or the
        name of a scheduler."""
        self.sources.add(source, name)

    def observe(self, provider: Any = None) -> None:
        """Makes the instruments. provider: a MeterProvider; the default is the program's own. Once
        for each."""
        meter = self._api.get_meter(SCOPE, meter_provider=provider)
        makers = {
            "counter": meter.create_observable_counter,
            "updown": meter.create_observable_up_down_counter,
            "gauge": meter.create_observable_gauge,
        }
        for row in METRICS:
            if row.kind != "histogram":
                make = makers[row.kind]
                make(row.name, [self._observer(row)], unit=row.unit, description=row.text)

    def exporter(self, exporter: Any) -> Any:
        """The same exporter, which sends histograms of requests and of tasks as well: for the
        reader. They are cumulative."""
        export = opentelemetry("sdk.metrics.export")
        scope = opentelemetry("sdk.util.instrumentation").InstrumentationScope(SCOPE)
        return exporter_class(export)(exporter, lambda: self._scope_metrics(export, scope))

    def _observer(self, row: Row) -> Callable[[Any], Iterable[Any]]:
        observation = self._api.Observation

        def observe(options: Any) -> Iterable[Any]:
            values = self._fresh().values.get(row, [])
            return [observation(value, labels) for labels, value in values]

        return observe

    def _fresh(self) -> Readings:
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._taken_s > FRESH_S:
                self._readings, self._taken_s = self.sources.read(), now_s
            return self._readings

    def _scope_metrics(self, export: Any, scope: Any) -> Any:
        now_ns = time.time_ns()
        metrics = []
        for row, values in self._fresh().histograms.items():
            points = [
                self._point(export, labels, histogram, now_ns) for labels, histogram in values
            ]
            data = export.Histogram(points, export.AggregationTemporality.CUMULATIVE)
            metrics.append(export.Metric(row.name, row.text, row.unit, data))
        return export.ScopeMetrics(scope, metrics, "")

    def _point(self, export: Any, labels: Any, histogram: Histogram, now_ns: int) -> Any:
        return export.HistogramDataPoint(
            attributes=labels,
            start_time_unix_nano=self._began_ns,
            time_unix_nano=now_ns,
            count=sum(histogram.counts),
            sum=histogram.sum_s,
            bucket_counts=histogram.counts,
            explicit_bounds=histogram.ends_s,
            min=None,
            max=None,
        )


def exporter_class(export: Any) -> Any:
    """Made when it is asked for: its base class is the package's."""

    class Exporter(export.MetricExporter):  # type: ignore[misc]  # of a package without types here
        """Another exporter, with more to send."""

        def __init__(self, exporter: Any, more: Callable[[], Any]) -> None:
            super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
            self._exporter = exporter
            self._more = more

        def export(self, metrics_data: Any, timeout_millis: float = 10_000, **kwargs: Any) -> Any:
            first, *others = metrics_data.resource_metrics
            scopes = [*first.scope_metrics, self._more()]
            with_more = export.ResourceMetrics(first.resource, scopes, first.schema_url)
            data = export.MetricsData([with_more, *others])
            return self._exporter.export(data, timeout_millis, **kwargs)

        def force_flush(self, timeout_millis: float = 10_000) -> Any:
            return self._exporter.force_flush(timeout_millis)

        def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
            self._exporter.shutdown(timeout_millis, **kwargs)

    return Exporter
