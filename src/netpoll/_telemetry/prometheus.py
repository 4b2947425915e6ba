"""A collector of Prometheus' client: reads what is watched when somebody scrapes it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from netpoll._telemetry.metrics import METRICS, Row
from netpoll._telemetry.packages import prometheus_client
from netpoll._telemetry.sources import Histogram, Source, Sources

__all__ = ["PrometheusCollector", "collector_in"]

_collectors: weakref.WeakKeyDictionary[Any, PrometheusCollector] = weakref.WeakKeyDictionary()


def collector_in(registry: Any) -> PrometheusCollector | None:
    """The one that was registered there."""
    return _collectors.get(registry)


class PrometheusCollector:
    """What loops, servers and schedulers count, for a registry of prometheus_client.

    sources: EventLoops, Servers and Schedulers. registry: prometheus_client.REGISTRY by default.
    They are read when the registry is, and are not kept alive by it. A server of HTTP counts its
    requests if it is added before it starts.

    Raises RuntimeError without the package prometheus_client; ValueError when the registry has a
    collector of this class: there, add() more to that one.
    """

    def __init__(self, *sources: Source, registry: Any = None) -> None:
        self._core = prometheus_client("prometheus_client.core")
        self._registry = prometheus_client().REGISTRY if registry is None else registry
        self.sources = Sources(sources)
        self._registry.register(self)
        _collectors[self._registry] = self

    def add(self, source: Source, name: str | None = None) -> None:
        """Watches one more. name: its label netpoll_source; the default is its kind, or the name of
        a scheduler."""
        self.sources.add(source, name)

    def close(self) -> None:
        """Takes it out of the registry."""
        if _collectors.get(self._registry) is self:
            del _collectors[self._registry]
            self._registry.unregister(self)

    def describe(self) -> Iterator[Any]:
        """The names, for the registry, which does not have to read anything then."""
        return families(self._core, Sources())

    def collect(self) -> Iterator[Any]:
        """The families of metrics; called by the registry."""
        return families(self._core, self.sources)


def families(core: Any, sources: Sources, beside: Sources | None = None) -> Iterator[Any]:
    """All of them, also those without a value now. core: prometheus_client.core."""
    readings = sources.read(beside)
    for row in METRICS:
        if row.kind == "histogram":
            yield histogram_family(core, row, readings.histograms.get(row, []))
        else:
            yield family(core, row, readings.values.get(row, []))


def family(core: Any, row: Row, values: list[tuple[dict[str, Any], float]]) -> Any:
    names = label_names(labels for labels, _ in values)
    is_counter = row.kind == "counter"
    kind = core.CounterMetricFamily if is_counter else core.GaugeMetricFamily
    made = kind(row.prometheus_name, row.text, labels=names.values())
    for labels, value in values:
        made.add_metric([str(labels.get(name, "")) for name in names], value)
    return made


def histogram_family(core: Any, row: Row, values: list[tuple[dict[str, Any], Histogram]]) -> Any:
    names = label_names(labels for labels, _ in values)
    made = core.HistogramMetricFamily(row.prometheus_name, row.text, labels=names.values())
    for labels, value in values:
        ends = [*map(repr, value.ends_s), "+Inf"]
        buckets = list(zip(ends, accumulate(value.counts), strict=True))
        made.add_metric([str(labels.get(name, "")) for name in names], buckets, value.sum_s)
    return made


def label_names(each: Iterable[dict[str, Any]]) -> dict[str, str]:
    """OpenTelemetry's names of the attributes that any of them has -> Prometheus' names."""
    return {name: name.replace(".", "_") for labels in each for name in labels}
