"""The collector for Prometheus: what is watched shows, under the names of docs/observing.md."""

import asyncio
import gc
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll import http, telemetry
from netpoll._telemetry.lag import lag_of
from netpoll._telemetry.metrics import METRICS
from tests.server.conftest import wait_for

client = pytest.importorskip("prometheus_client", reason="needs netpoll[prometheus]")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "observing.md"


@pytest.fixture
def registry() -> Any:
    return client.CollectorRegistry(auto_describe=True)


def hello(request: http.Request) -> http.Response:
    return http.Response("hello")


def ask(server: http.Server, path: str = "/") -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
        body: bytes = answer.read()
        return body


def test_the_page_has_the_table() -> None:
    """Names, units and sentences; a new metric is a row there."""
    row_form = r"^\| `([\w.]+)` \| `(\w+)` \| `([^`]+)` \| (.*) \| (.*) \|$"
    rows = re.findall(row_form, PAGE.read_text(), re.MULTILINE)
    names = [(name, prometheus, unit, text) for name, prometheus, unit, _, text in rows]
    assert names == [
        (row.name, row.prometheus_name + "_total" * (row.kind == "counter"), row.unit, row.text)
        for row in METRICS
    ]
    attributes = {name: set(re.findall(r"`([\w.]+)`", cell)) for name, _, _, cell, _ in rows}
    for row in METRICS:
        assert {key for one in row.keys.values() for key in one} <= attributes[row.name], row.name


def test_a_server_and_a_scheduler(registry: Any, backend: str) -> None:
    server = http.Server(hello, "127.0.0.1", 0, workers=2, backend=backend)
    with netpoll.Scheduler(2, name="tasks") as scheduler:
        collector = telemetry.PrometheusCollector(server, registry=registry)
        collector.add(scheduler)
        with server:
            for _ in range(3):
                ask(server)
            assert scheduler.spawn(int).result(10) == 0

            def value(name: str, **labels: str) -> Any:
                return registry.get_sample_value(name, {"netpoll_source": "server"} | labels)

            count = "http_server_request_duration_seconds_count"
            labels = {
                "http_request_method": "GET",
                "http_response_status_code": "200",
                "url_scheme": "http",
            }
            wait_for(lambda: value(count, **labels) == 3)
            accepted = "netpoll_server_connections_accepted_total"
            assert sum(value(accepted, netpoll_worker=n) for n in "01") == 3
            assert value("netpoll_server_workers") == 2
            assert value("netpoll_loop_turns_total", netpoll_worker="1") > 0
            steps = "netpoll_scheduler_steps_total"
            each = [value(steps, netpoll_source="tasks", netpoll_worker=n) for n in "01"]
            assert sum(each) == 1
            assert value("netpoll_scheduler_tasks", netpoll_source="tasks") == 0
            waits = "netpoll_scheduler_wait_seconds_bucket"
            normal = {"netpoll_source": "tasks", "netpoll_priority": "normal", "le": "+Inf"}
            assert value(waits, **normal) == 1
        collector.close()
        assert registry.get_sample_value("netpoll_server_workers", {}) is None


async def test_a_loop_that_is_held(loop: Any, registry: Any) -> None:
    """Its tick is overdue: whoever reads meanwhile sees it, and the sum has it afterwards."""
    telemetry.PrometheusCollector(loop, registry=registry)
    labels = {"netpoll_source": "loop", "netpoll_worker": "0"}

    def lag_s() -> Any:
        return registry.get_sample_value("netpoll_loop_lag_seconds", labels)

    lag_s()
    await asyncio.sleep(0.01)  # the ticks have begun
    time.sleep(0.4)
    assert lag_s() > 0.2
    await asyncio.sleep(0.01)
    assert registry.get_sample_value("netpoll_loop_late_seconds_total", labels) > 0.2
    # The ticks of the test's loop end with it: it must have no timer then.
    lag_of(loop)._asked_s = -1e9
    wait = asyncio.get_running_loop().time() + 5
    while loop.stats()["timers_count"] > 1 and loop.time() < wait:
        await asyncio.sleep(0.02)


def test_nothing_is_kept_alive(registry: Any) -> None:
    collector = telemetry.PrometheusCollector(registry=registry)
    server = netpoll.Server(print, "127.0.0.1", 0)
    collector.add(server, "first")
    with pytest.raises(ValueError, match="'first'"):
        collector.add(netpoll.Server(print, "127.0.0.1", 0), "first")
    assert registry.get_sample_value("netpoll_server_workers", {"netpoll_source": "first"}) == 0
    del server
    gc.collect()
    assert registry.get_sample_value("netpoll_server_workers", {"netpoll_source": "first"}) is None
    with pytest.raises(TypeError, match="an EventLoop, a Server or a Scheduler"):
        collector.add(registry)


def test_one_collector_for_a_registry(registry: Any) -> None:
    telemetry.PrometheusCollector(registry=registry)
    with pytest.raises(ValueError, match="netpoll_loop_turns"):
        telemetry.PrometheusCollector(registry=registry)


def test_a_page_has_the_programs_collector_in_it(backend: str) -> None:
    """Each name once, whoever else is watched."""
    server = http.Server(hello, "127.0.0.1", 0, backend=backend, metrics_path="/metrics")
    with netpoll.Scheduler(1, name="tasks") as scheduler, server:
        collector = telemetry.PrometheusCollector(server, scheduler)
        try:
            page = ask(server, "/metrics").decode()
        finally:
            collector.close()
    assert page.count("# TYPE netpoll_scheduler_tasks gauge") == 1
    assert 'netpoll_scheduler_tasks{netpoll_source="tasks"} 0.0' in page
    assert page.count('netpoll_server_workers{netpoll_source="server"} 1.0') == 1


def test_promtool_finds_nothing(backend: str) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    with http.Server(hello, "127.0.0.1", 0, backend=backend, metrics_path="/metrics") as server:
        ask(server)
        page = ask(server, "/metrics")
    done = subprocess.run([tool, "check", "metrics"], input=page, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
