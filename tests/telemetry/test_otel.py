"""OpenTelemetry: an OTLP receiver gets metrics and spans, as the official exporters send them."""

import asyncio
import contextlib
import gzip
import sys
import threading
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll import http, telemetry
from netpoll._telemetry.metrics import METRICS
from tests.server.conftest import wait_for

pytest.importorskip("opentelemetry.sdk", reason="needs netpoll[otel]")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs netpoll[otel]")

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
    OTLPMetricExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KINDS = {"/v1/metrics": ExportMetricsServiceRequest, "/v1/traces": ExportTraceServiceRequest}


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiving)
        self.messages: dict[str, list[Any]] = {path: [] for path in KINDS}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def metrics(self) -> dict[str, Any]:
        """The last export's, by name."""
        last = self.messages["/v1/metrics"][-1]
        return {
            metric.name: metric
            for resource in last.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def spans(self) -> list[Any]:
        return [
            span
            for message in self.messages["/v1/traces"]
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Receiving(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.headers["content-type"] == "application/x-protobuf"
        self.server.messages[self.path].append(KINDS[self.path].FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def tracers(receiver: Receiver) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{receiver.url}/v1/traces")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def values(message: Any) -> dict[str, Any]:
    """Attributes of a point or a span."""
    found = {one.key: one.value for one in message.attributes}
    return {key: getattr(value, value.WhichOneof("value")) for key, value in found.items()}


def ask(server: http.Server, path: str = "/", **headers: str) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


# ---- metrics ------------------------------------------------------------------------------------


def answer(request: http.Request) -> http.Response:
    return http.Response("hello", 503 if request.path == "/fail" else 200)


def test_metrics(receiver: Receiver, backend: str) -> None:
    server = http.Server(answer, "127.0.0.1", 0, workers=2, backend=backend)
    with netpoll.Scheduler(2, name="tasks") as scheduler:
        metrics = telemetry.OtelMetrics(server)
        metrics.add(scheduler)
        sent = metrics.exporter(OTLPMetricExporter(f"{receiver.url}/v1/metrics"))
        provider = MeterProvider(
            [PeriodicExportingMetricReader(sent, float("inf"))], shutdown_on_exit=False
        )
        metrics.observe(provider)
        with server:
            for path in ("/", "/", "/fail"):
                ask(server, path)
            scheduler.spawn(int).result(10)
            wait_for(lambda: sum(m["active"] for m in server._meter_readings()) == 0)
            assert provider.force_flush(20_000)
        provider.shutdown()
    found = receiver.metrics()
    rows = {row.name: row for row in METRICS}
    assert set(found) <= set(rows)
    missing = set(rows) - set(found)
    assert all(name.startswith(("netpoll.pool.", "netpoll.http.refused")) for name in missing)
    for name, metric in found.items():
        assert (metric.unit, metric.description) == (rows[name].unit, rows[name].text)
        assert metric.WhichOneof("data") == form_of(rows[name].kind)
        assert metric.sum.is_monotonic == (rows[name].kind == "counter")
    accepted = found["netpoll.server.connections.accepted"].sum.data_points
    assert sum(point.as_int for point in accepted) == 3
    assert {values(point)["netpoll.worker"] for point in accepted} == {0, 1}
    durations = found["http.server.request.duration"].histogram.data_points
    counts = {values(one)["http.response.status_code"]: one.count for one in durations}
    assert counts == {200: 2, 503: 1}
    for point in durations:
        assert sum(point.bucket_counts) == point.count and 0 < point.sum < 60
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    waits = found["netpoll.scheduler.wait"].histogram.data_points
    assert sum(point.count for point in waits) == 1
    assert not waits[0].HasField("sum")


def form_of(kind: str) -> str:
    return {"counter": "sum", "updown": "sum"}.get(kind, kind)


# ---- spans --------------------------------------------------------------------------------------


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/raise":
        raise ValueError("it fails")
    status = 503 if scope["path"] == "/fail" else 200
    await send({"type": "http.response.start", "status": status})
    await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": seen_trace()})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/raise":
        raise ValueError("it fails")
    failed = environ["PATH_INFO"] == "/fail"
    start_response("503 Service Unavailable" if failed else "200 OK", [])
    return [seen_trace()]


def function(request: http.Request) -> http.Response:
    if request.path == "/raise":
        raise ValueError("it fails")
    return http.Response(seen_trace(), 503 if request.path == "/fail" else 200)


async def coroutine(request: http.Request) -> http.Response:
    await asyncio.sleep(0)
    return function(request)


def seen_trace() -> bytes:
    """Of the current span."""
    trace_id: int = trace.get_current_span().get_span_context().trace_id
    return f"{trace_id:032x}".encode()


@pytest.mark.parametrize("app", [asgi, wsgi, function, coroutine], ids=lambda app: app.__name__)
def test_a_span_for_each_request(
    app: Callable[..., Any], receiver: Receiver, tracers: TracerProvider, caplog: Any
) -> None:
    whole = telemetry.traced(app, route=lambda request: "/{name}", tracer_provider=tracers)
    assert http.interface_of(whole) == http.interface_of(app)
    with http.Server(whole, "127.0.0.1", 0, lifespan="off") as server:
        url = f"http://127.0.0.1:{server.port}/ok?a=1"
        parent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "user-agent": "test/1"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=parent)) as answered:
            assert answered.read() == TRACE.encode()
        assert ask(server, "/fail") == 503
        assert ask(server, "/raise") == 500
        wait_for(lambda: len(receiver.spans()) == 3)
    # Of WSGI a span may end when its client has gone on already.
    spans = {values(span)["url.path"]: span for span in receiver.spans()}
    done, failed, raised = (spans[path] for path in ("/ok", "/fail", "/raise"))
    assert (done.trace_id.hex(), done.parent_span_id.hex()) == (TRACE, PARENT)
    assert (done.name, done.kind) == ("GET /{name}", done.SPAN_KIND_SERVER)
    wanted = {
        "http.request.method": "GET",
        "http.route": "/{name}",
        "http.response.status_code": 200,
        "url.path": "/ok",
        "url.query": "a=1",
        "user_agent.original": "test/1",
        "server.address": "127.0.0.1",
        "server.port": server._last_port or values(done)["server.port"],
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
    }
    assert wanted.items() <= values(done).items()
    assert done.status.code == done.status.STATUS_CODE_UNSET
    assert values(failed)["error.type"] == "503" and not failed.parent_span_id
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert values(raised)["error.type"] == "ValueError"
    assert "http.response.status_code" not in values(raised)
    assert raised.status.code == raised.status.STATUS_CODE_ERROR
    assert [event.name for event in raised.events] == ["exception"]


def test_the_route_of_a_framework(receiver: Receiver, tracers: TracerProvider) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = types.SimpleNamespace(path="/items/{number}")
        await asgi(scope, receive, send)

    whole = telemetry.traced(app, tracer_provider=tracers)
    with http.Server(whole, "127.0.0.1", 0, lifespan="off") as server:
        assert ask(server, "/items/7") == 200
        wait_for(lambda: len(receiver.spans()) == 1)
    [span] = receiver.spans()
    assert (span.name, values(span)["http.route"]) == ("GET /items/{number}", "/items/{number}")


def test_what_a_wsgi_application_returns(
    receiver: Receiver, tracers: TracerProvider, tmp_path: Path
) -> None:
    """A file is the server's own to send; parts are made within the span, and closed."""
    (tmp_path / "file").write_bytes(b"of a file")
    closed: list[bytes] = []

    def parts() -> Iterator[bytes]:
        try:
            yield seen_trace()
        finally:
            closed.append(seen_trace())

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/file":
            return environ["wsgi.file_wrapper"]((tmp_path / "file").open("rb"))
        return parts()

    whole = telemetry.traced(app, tracer_provider=tracers)
    with http.Server(whole, "127.0.0.1", 0) as server:
        bodies = []
        for path in ("/file", "/parts"):
            url = f"http://127.0.0.1:{server.port}{path}"
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answered:
                bodies.append(answered.read())
        wait_for(lambda: len(receiver.spans()) == 2)
    assert bodies == [b"of a file", TRACE.encode()]
    assert len(closed) == 1
    assert {span.trace_id.hex() for span in receiver.spans()} == {TRACE}


def test_a_method_that_nobody_knows(receiver: Receiver, tracers: TracerProvider) -> None:
    whole = telemetry.traced(function, tracer_provider=tracers)
    with http.Server(whole, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.port}/"
        request = urllib.request.Request(url, method="FROBNICATE")
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request).close()
        wait_for(lambda: len(receiver.spans()) == 1)
    [span] = receiver.spans()
    assert span.name == "HTTP"
    assert values(span)["http.request.method"] == "_OTHER"
    assert values(span)["http.request.method_original"] == "FROBNICATE"


def test_tasks_of_a_scheduler_are_within_it(receiver: Receiver, tracers: TracerProvider) -> None:
    """By every way into it, and by groups of tasks within it."""
    seen: dict[str, bytes] = {}

    async def group() -> bytes:
        async with netpoll.TaskGroup() as tasks:
            inner = tasks.spawn(seen_trace)
        return await inner

    async def handler(request: http.Request) -> http.Response:
        posted = threading.Event()
        loop = asyncio.get_running_loop()
        scheduler.post(lambda: (seen.update(post=seen_trace()), posted.set()))
        seen["spawn"] = await asyncio.wrap_future(executor.submit(seen_trace))
        seen["group"] = await loop.run_in_executor(None, scheduler.spawn(group).result)
        await loop.run_in_executor(None, posted.wait, 10)
        return http.Response("done")

    whole = telemetry.traced(handler, tracer_provider=tracers)
    with netpoll.Scheduler(2) as scheduler, http.Server(whole, "127.0.0.1", 0) as server:
        executor = scheduler.as_executor()
        assert ask(server, traceparent=f"00-{TRACE}-{PARENT}-01") == 200
    assert seen == dict.fromkeys(("post", "spawn", "group"), TRACE.encode())


# ---- without the packages -----------------------------------------------------------------------


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is there; what needs them says so."""
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(RuntimeError, match=r"pip install 'netpoll\[otel\]'"):
        telemetry.OtelMetrics()
    with pytest.raises(RuntimeError, match=r"pip install 'netpoll\[otel\]'"):
        telemetry.traced(function)
