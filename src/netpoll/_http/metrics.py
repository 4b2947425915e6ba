"""What those who watch a server ask it for: its health, and its counters for Prometheus.

The counters are kept by the workers (netpoll._native.http.meter) and gathered when somebody asks.
docs/http-deployment.md has their names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, Literal

from netpoll._native.http.meter import Meter
from netpoll.stats import ServerStats

__all__ = ["Metrics"]

MISSING = (
    "metrics need the package prometheus_client: pip install 'netpoll[metrics]', or without it "
    "pass metrics_path=None"
)
MODULES = [
    "prometheus_client",
    "prometheus_client.core",
    "prometheus_client.exposition",
    "prometheus_client.multiprocess",
]
Counted = Literal["recv_bytes", "accepted", "idle_closed", "enters"]
# netpoll.Server.stats() -> (name, what it is)
TOTALS: dict[Counted, tuple[str, str]] = {
    "recv_bytes": ("netpoll_received_bytes", "Bytes received from clients."),
    "accepted": ("netpoll_connections_accepted", "Connections accepted."),
    "idle_closed": ("netpoll_connections_idle_closed", "Connections closed between requests."),
    "enters": ("netpoll_loop_enters", "System calls of the loops that wait or submit."),
}


class Metrics:
    """A page in the format that Prometheus asks for, and a collector for a registry of its client.

    stats: netpoll.Server.stats. meters: the workers' counters.
    """

    def __init__(
        self, stats: Callable[[], ServerStats], meters: Callable[[], Iterable[Meter]]
    ) -> None:
        try:
            client, core, exposition, multiprocess = map(import_module, MODULES)
        except ImportError as error:
            raise RuntimeError(MISSING) from error
        self._stats = stats
        self._meters = meters
        self._core = core
        self._exposition = exposition
        self._registry = client.CollectorRegistry(auto_describe=False)
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # of the application's own metrics
            multiprocess.MultiProcessCollector(self._registry)
        else:
            self._registry.register(Passing(client.REGISTRY))
        self._registry.register(self)

    def page(self, accept: str | None) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Also what the program itself has registered with the client."""
        encode, kind = self._exposition.choose_encoder(accept or "")
        body: bytes = encode(self._registry)
        return 200, [(b"content-type", kind.encode()), (b"cache-control", b"no-store")], body

    def collect(self) -> Iterator[Any]:
        """The families of the server's own metrics."""
        counter, gauge = self._core.CounterMetricFamily, self._core.GaugeMetricFamily
        readings = [meter.read() for meter in self._meters()]
        stats = self._stats()
        answers = counter(
            "netpoll_http_requests", "Requests answered.", labels=("method", "status")
        )
        for labels, count in summed(one["answers"] for one in readings).items():
            answers.add_metric(labels, count)
        yield answers
        refused = counter(
            "netpoll_http_refused", "Requests that have a fault.", labels=("reason", "status")
        )
        for labels, count in summed(one["refused"] for one in readings).items():
            refused.add_metric(labels, count)
        yield refused
        in_flight = sum(one["in_flight"] for one in readings)
        yield gauge("netpoll_http_in_flight", "Requests being answered now.", value=in_flight)
        stalled = sum(one["stalled"] for one in readings)
        yield counter("netpoll_http_stalled", "Answers given up: not taken in time.", value=stalled)
        yield self._durations(readings)
        for name, (family, text) in TOTALS.items():
            yield counter(family, text, value=stats[name])
        sent, connections = stats["sent_bytes"], stats["connections"]
        yield counter("netpoll_sent_bytes", "Bytes sent to clients.", value=sent)
        yield gauge("netpoll_connections", "Connections open now.", value=connections)
        yield gauge("netpoll_workers", "Workers of this server.", value=len(readings))
        lag = gauge("netpoll_loop_lag_seconds", "How late the last tick was.", labels=("worker",))
        for i, one in enumerate(readings):
            lag.add_metric([str(i)], one["lag_s"])
        yield lag

    def _durations(self, readings: list[Any]) -> Any:
        family = self._core.HistogramMetricFamily(
            "netpoll_http_duration_seconds", "From the head of a request to the end of its answer."
        )
        if not readings:
            return family
        buckets, count = [], 0
        for i, (end_s, _) in enumerate(readings[0]["durations"]):
            count += sum(one["durations"][i][1] for one in readings)
            buckets.append((str(end_s), count))
        count += sum(one["durations_more"] for one in readings)
        family.add_metric(
            [], [*buckets, ("+Inf", count)], sum(one["duration_s"] for one in readings)
        )
        return family


class Passing:
    """What another registry has collected."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Any]:
        yield from self._registry.collect()


def summed(tables: Iterable[dict[tuple[str, str], int]]) -> dict[tuple[str, str], int]:
    total: dict[tuple[str, str], int] = {}
    for table in tables:
        for key, count in table.items():
            total[key] = total.get(key, 0) + count
    return total
