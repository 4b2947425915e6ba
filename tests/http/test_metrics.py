"""Health, metrics and the names of requests: what those who run a server ask for."""

import asyncio
import pathlib
import re
import socket
import struct
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from netpoll import http
from tests.http.conftest import Client, HttpServing
from tests.server.conftest import wait_for


def hello(request: http.Request) -> http.Response:
    return http.Response("hello")


# ---- health ---------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["raw", "asgi"])
def test_health(http_serving: HttpServing, interface: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"hello"})

    http_serving(hello if interface == "raw" else app, lifespan="off", health_path="/healthz")
    client = http_serving.client()
    answer = client.ask("/healthz?verbose")
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer.header("cache-control") == "no-store"
    assert client.ask("/healthz", "HEAD").header("content-length") == "3"
    assert client.ask("/healthz", "POST", b"x").status == 405
    for path in ("/", "/healthz/", "/health"):
        assert client.ask(path).body == b"hello"


def test_no_pages_without_options(http_serving: HttpServing) -> None:
    http_serving(hello)
    client = http_serving.client()
    assert client.ask("/healthz").body == client.ask("/metrics").body == b"hello"


# ---- metrics --------------------------------------------------------------------------------


def metrics_of(client: Client, path: str = "/metrics") -> dict[str, float]:
    answer = client.ask(path)
    assert answer.status == 200
    assert "text/plain" in (answer.header("content-type") or "")
    found = {}
    for line in answer.body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


@pytest.fixture
def prometheus() -> Any:
    return pytest.importorskip("prometheus_client")


def test_metrics(http_serving: HttpServing, prometheus: Any) -> None:
    async def handler(request: http.Request) -> http.Response:
        if request.path == "/fail":
            raise ValueError("failed")
        return http.Response("x", int(request.path[1:] or 200))

    server = http_serving(handler, metrics_path="/metrics", workers=2)
    for path in ("/", "/", "/404", "/503"):
        assert http_serving.client().ask(path).status == int(path[1:] or 200)
    http_serving.client().ask("/", "POST", b"body")
    http_serving.client().ask("/", "FROBNICATE")
    http_serving.client().ask("/fail")
    bad = http_serving.client()
    bad.send(b"GET / HTTP/1.1\r\n\r\n")
    assert bad.answer().status == 400
    found = metrics_of(http_serving.client())
    counts = {key: found[name] for name in found if (key := ended_key(name)) is not None}
    assert counts == {
        ("GET", "200", ""): 2,
        ("GET", "404", ""): 1,
        ("GET", "503", "503"): 1,
        ("GET", "500", "500"): 1,
        ("POST", "200", ""): 1,
        ("_OTHER", "200", ""): 1,
    }
    assert sum_of(found, "netpoll_http_refused_total", 'error_type="host_missing"') == 1
    assert sum_of(found, "http_server_active_requests") == 1  # this one
    assert sum_of(found, "http_server_request_duration_seconds_bucket", 'le="+Inf"') == 7
    assert 0 < sum_of(found, "http_server_request_duration_seconds_sum") < 60
    assert sum_of(found, "netpoll_server_connections") >= 1
    assert sum_of(found, "netpoll_server_connections_accepted_total") == 9
    assert sum_of(found, "netpoll_server_io_bytes_total", 'direction="receive"') > 7 * 30
    assert sum_of(found, "netpoll_server_io_bytes_total", 'direction="transmit"') > 7 * 30
    assert sum_of(found, "netpoll_server_connections_closed_total") == 0
    assert sum_of(found, "netpoll_loop_enters_total") > 0
    assert sum_of(found, "netpoll_server_workers") == 2
    assert len([name for name in found if name.startswith("netpoll_loop_lag_seconds")]) == 2
    assert sum_of(found, "netpoll_http_stalled_total") == 0
    assert server.stats()["accepted"] == 9


def sum_of(found: dict[str, float], name: str, label: str = "") -> float:
    """Of all series of a name, or those with a label."""
    values = [v for key, v in found.items() if key.partition("{")[0] == name and label in key]
    assert values, f"there is no {name} with {label!r}"
    return sum(values)


def ended_key(name: str) -> tuple[str, str, str] | None:
    """Of the number of requests: method, status, error."""
    if not name.startswith("http_server_request_duration_seconds_count"):
        return None
    labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
    status = labels.get("http_response_status_code", "")
    return labels["http_request_method"], status, labels.get("error_type", "")


def test_the_names_are_documented(http_serving: HttpServing, prometheus: Any) -> None:
    page = (pathlib.Path(__file__).parents[2] / "docs" / "observing.md").read_text()
    http_serving(hello, metrics_path="/metrics")
    client = http_serving.client()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.answer()
    names = {re.split(r"[{ ]", name)[0] for name in metrics_of(http_serving.client())}
    ours = {
        re.sub(r"_(bucket|sum|count|created)$", "", name)
        for name in names
        if name.startswith(("netpoll_", "http_"))
    }
    assert len(ours) > 30
    assert {name for name in ours if f"| `{name}` |" not in page} == set()


def test_an_application_has_metrics_of_its_own(http_serving: HttpServing, prometheus: Any) -> None:
    registry_name = "netpoll_test_of_an_application"
    mine = prometheus.Counter(registry_name, "Of the application.")
    try:
        mine.inc(3)
        http_serving(hello, metrics_path="/metrics")
        assert metrics_of(http_serving.client())[f"{registry_name}_total"] == 3
    finally:
        prometheus.REGISTRY.unregister(mine)


def test_open_metrics(http_serving: HttpServing, prometheus: Any) -> None:
    http_serving(hello, metrics_path="/metrics")
    answer = http_serving.client().ask("/metrics", accept="application/openmetrics-text")
    assert (answer.header("content-type") or "").startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_requests_in_flight(http_serving: HttpServing, prometheus: Any) -> None:
    """However they end, none is left over."""
    go_on = threading.Event()

    async def handler(request: http.Request) -> http.Response:
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        return http.Response("done")

    server = http_serving(handler, metrics_path="/metrics")
    waiting, leaving = http_serving.client(), http_serving.client()
    broken = http_serving.client()
    for client in (waiting, leaving):
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    broken.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    watcher = http_serving.client()
    wait_for(lambda: sum_of(metrics_of(watcher), "http_server_active_requests") == 4)
    for client in (leaving, broken):  # with a reset: who only ends its side may still read
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    wait_for(lambda: server.stats()["connections"] == 2)
    go_on.set()
    assert waiting.answer().body == b"done"
    wait_for(lambda: sum_of(metrics_of(watcher), "http_server_active_requests") == 1)
    found = metrics_of(watcher)
    count = "http_server_request_duration_seconds_count"
    assert sum_of(found, count, 'error_type="no_answer"') == 2


def test_pages_on_a_port_of_their_own(
    http_serving: HttpServing, backend: str, prometheus: Any
) -> None:
    server = http_serving(hello, health_path="/healthz", metrics_path="/metrics")
    with http.Server(server.own_page, "127.0.0.1", 0, backend=backend) as own:
        where = f"http://127.0.0.1:{own.port}"
        with urllib.request.urlopen(f"{where}/healthz", timeout=20) as answer:
            assert answer.read() == b"ok\n"
        with urllib.request.urlopen(f"{where}/metrics", timeout=20) as answer:
            assert b"http_server_active_requests" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{where}/", timeout=20)


def test_a_page_that_fails(http_serving: HttpServing, errors_logged: Any, prometheus: Any) -> None:
    class Bad:
        def collect(self) -> Any:
            raise ValueError("no collector")

    bad = Bad()
    http_serving(hello, metrics_path="/metrics")
    prometheus.REGISTRY._collector_to_names[bad] = []
    try:
        client = http_serving.client()
        assert client.ask("/metrics").status == 500
        assert client.ask("/").body == b"hello"
    finally:
        del prometheus.REGISTRY._collector_to_names[bad]
    assert "no collector" in errors_logged.text


def test_metrics_without_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(RuntimeError, match=r"netpoll\[prometheus\]"):
        http.Server(hello, "127.0.0.1", 0, metrics_path="/metrics")


@pytest.mark.parametrize("option", ["health_path", "metrics_path"])
def test_a_path_begins_with_a_slash(option: str, prometheus: Any) -> None:
    with pytest.raises(ValueError, match=option):
        http.Server(hello, "127.0.0.1", 0, **{option: "health"})  # type: ignore[arg-type]


# ---- names of requests ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-Request-ID", "Correlation-Id"])
def test_request_ids(http_serving: HttpServing, name: str) -> None:
    seen = []

    def handler(request: http.Request) -> http.Response:
        seen.append(request.id)
        return http.Response("x")

    http_serving(handler, request_id_header=name)
    client = http_serving.client()
    taken = client.ask(**{name: "abc-1.2_3~/+=:@Z"})
    assert taken.header(name) == "abc-1.2_3~/+=:@Z" == seen[-1]
    made = set()
    for sent in ({}, {name: ""}, {name: "a b"}, {name: 'a"b'}, {name: "x" * 129}, {name: "\u00e9"}):
        answer = client.ask(**sent)
        made.add(answer.header(name))
        assert seen[-1] == answer.header(name)
    client.send(f"GET / HTTP/1.1\r\nhost: a\r\n{name}: a\r\n{name}: b\r\n\r\n".encode())
    made.add(client.answer().header(name))
    assert len(made) == 7
    assert all(re.fullmatch("[0-9a-f]{32}", str(one)) for one in made)
    assert client.ask(**{name.lower(): "x" * 128}).header(name) == "x" * 128


def test_request_ids_in_asgi(http_serving: HttpServing) -> None:
    """In the scope's headers, once; the trace of others is not touched."""
    headers = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers.append(scope["headers"])
        fields = [(b"X-Request-Id", b"mine")] if scope["path"] == "/mine" else []
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body"})

    http_serving(app, lifespan="off", request_id_header="x-request-id")
    client = http_serving.client()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = client.ask(**{"x-request-id": "not sane", "traceparent": trace, "tracestate": "a=b"})
    ids = [value for name, value in headers[-1] if name == b"x-request-id"]
    assert ids == [(answer.header("x-request-id") or "").encode()]
    assert (b"traceparent", trace.encode()) in headers[-1]
    assert (b"tracestate", b"a=b") in headers[-1]
    assert answer.header("traceparent") is None
    own = client.ask("/mine")
    assert [value for name, value in own.headers if name.lower() == "x-request-id"] == ["mine"]


def test_no_request_ids_without_the_option(http_serving: HttpServing) -> None:
    seen = []

    def handler(request: http.Request) -> http.Response:
        seen.append((request.id, request.header("x-request-id")))
        return http.Response("x")

    http_serving(handler)
    answer = http_serving.client().ask(**{"x-request-id": "abc"})
    assert (answer.header("x-request-id"), seen) == (None, [(None, "abc")])


def test_a_name_that_is_none() -> None:
    with pytest.raises(ValueError, match="not a name of a field"):
        http.Server(hello, "127.0.0.1", 0, request_id_header="x request")
