"""What those who watch a server ask it for: its counters, as a page for Prometheus.

docs/observing.md has their names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from netpoll._telemetry.packages import prometheus_client
from netpoll._telemetry.prometheus import collector_in, families
from netpoll._telemetry.sources import Source, Sources

__all__ = ["Metrics"]


class Metrics:
    """A page in the format that Prometheus asks for. server: whose counters it shows, besides what
    the program has registered with the client. RuntimeError without the client's package."""

    def __init__(self, server: Source) -> None:
        self._server = server
        self._sources = Sources()
        self._core = prometheus_client("prometheus_client.core")
        self._exposition = prometheus_client("prometheus_client.exposition")
        client = prometheus_client()
        self._beside = client.REGISTRY
        self._registry = client.CollectorRegistry(auto_describe=False)
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # of the application's own metrics
            multiprocess = prometheus_client("prometheus_client.multiprocess")
            multiprocess.MultiProcessCollector(self._registry)
        self._is_multiprocess = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._registry.register(self)

    def page(self, accept: str | None) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        self._sources.add(self._server)
        encode, kind = self._exposition.choose_encoder(accept or "")
        body: bytes = encode(self._registry)
        return 200, [(b"content-type", kind.encode()), (b"cache-control", b"no-store")], body

    def collect(self) -> Iterator[Any]:
        """The families; a PrometheusCollector of the program is not asked, but has its sources in
        them, for a page has each name once."""
        other = collector_in(self._beside)
        ours = list(families(self._core, self._sources, other.sources if other else None))
        yield from ours
        if self._is_multiprocess:
            return
        names = {one.name for one in ours}
        for family in self._beside.collect():
            if family.name not in names:
                yield family
