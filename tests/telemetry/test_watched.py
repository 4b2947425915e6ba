"""Those who watch: alert rules, a dashboard, and a real Prometheus that scrapes a busy program."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll import http, telemetry
from netpoll._telemetry.metrics import METRICS
from tests.server.conftest import wait_for

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES, RULE_TESTS = DEPLOY / "alerts.yml", Path(__file__).parent / "alerts_test.yml"
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
NAME = re.compile(r"\b(?:netpoll_(?:loop|server|http|scheduler|pool)|http_server)_[a-z_]+")

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: netpoll
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus)")
    return found


def expressions() -> list[str]:
    """Of the dashboard, as Prometheus gets them."""
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    for variable, value in (("$__rate_interval", "1m"), ("$job", ".*"), ("$instance", ".*")):
        found = [expr.replace(variable, value) for expr in found]
    return found


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what",
    [("check", "rules", RULES), ("test", "rules", RULE_TESTS)],
    ids=["they are rules", "they fire"],
)
def test_rules(what: tuple[Any, ...]) -> None:
    done = subprocess.run(
        [program("promtool"), *map(str, what)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_the_configuration() -> None:
    """With the rules where it looks for them."""
    command = [program("promtool"), "check", "config", str(DEPLOY / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "alerts.yml" in done.stdout


def test_each_rule_has_a_test() -> None:
    """One in which it fires."""
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    fire = re.findall(r"alertname: (\w+)\n +exp_alerts:\n", RULE_TESTS.read_text())
    assert len(alerts) > 4 and sorted(alerts) == sorted(fire)


def test_each_rule_is_documented() -> None:
    page = (ROOT / "docs" / "observing.md").read_text()
    documented = re.findall(r"^\| (Netpoll\w+) \|", page, re.MULTILINE)
    assert documented == re.findall(r"- alert: (\w+)", RULES.read_text())


def test_only_metrics_that_there_are() -> None:
    names = {row.prometheus_name + "_total" * (row.kind == "counter") for row in METRICS}
    for row in METRICS:
        if row.kind == "histogram":
            names |= {f"{row.prometheus_name}_{part}" for part in ("bucket", "count", "sum")}
    used = NAME.findall(" ".join([RULES.read_text(), *expressions()]))
    assert len(set(used)) > 25
    assert set(used) - names == set()


def test_the_dashboard_is_laid_out() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, two in combinations(places, 2):
        beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]


# ---- a real Prometheus --------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Prometheus:
    """A server of Debian's package that scrapes one port."""

    def __init__(self, folder: Path, target: int) -> None:
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(rules=RULES, port=target))
        self.port = free_port()
        command = [program("prometheus"), f"--config.file={config}"]
        command += [f"--storage.tsdb.path={folder}", f"--web.listen-address=127.0.0.1:{self.port}"]
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def get(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[Any]:
        found: list[Any] = self.get("query", query=expr)["result"]
        return found

    def is_up(self) -> bool:
        try:
            return [one["value"][1] for one in self.query("up")] == ["1"]
        except OSError:
            return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


class Load:
    """Requests, one after another, until the end."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._port = port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as sock:
            while not self._ended.is_set():
                path = "fail" if self.count % 4 == 0 else ""
                sock.sendall(f"GET /{path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
                assert sock.recv(4096).startswith(b"HTTP/1.1 ")
                self.count += 1
                time.sleep(0.001)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def answer(request: http.Request) -> http.Response:
    return http.Response("hello", 503 if request.path == "/fail" else 200)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Prometheus, Load]]:
    client = pytest.importorskip("prometheus_client", reason="needs netpoll[prometheus]")
    program("prometheus")
    server = http.Server(answer, "127.0.0.1", 0, workers=2, metrics_path="/metrics")
    with netpoll.Scheduler(2, name="tasks") as scheduler, server:
        collector = telemetry.PrometheusCollector(scheduler, registry=client.REGISTRY)
        load, prometheus = Load(server.port), Prometheus(tmp_path, server.port)
        try:
            yield prometheus, load
        finally:
            prometheus.close()
            load.close()
            collector.close()


def test_a_busy_program_is_scraped(watched: tuple[Prometheus, Load]) -> None:
    prometheus, load = watched
    wait_for(prometheus.is_up)
    count = "http_server_request_duration_seconds_count"
    seen: list[float] = []

    def has_grown() -> bool:
        rows = prometheus.query(f'sum({count}{{http_response_status_code="503"}})')
        seen.extend(float(row["value"][1]) for row in rows)
        return len(set(seen)) > 3

    wait_for(has_grown)
    assert seen == sorted(seen) and seen[-1] <= load.count
    [share] = prometheus.query(
        f'sum(rate({count}{{error_type!=""}}[30s])) / sum(rate({count}{{job="netpoll"}}[30s]))'
    )
    assert 0.1 < float(share["value"][1]) <= 0.3  # one in four, and what scrapes is a request
    [lag] = prometheus.query("max(netpoll_loop_lag_seconds)")
    assert 0 <= float(lag["value"][1]) < 5
    [tasks] = prometheus.query('netpoll_scheduler_tasks{netpoll_source="tasks"}')
    assert tasks["value"][1] == "0"
    for expr in expressions():  # what is no expression is answered with 400
        prometheus.query(expr)
    [group] = prometheus.get("rules")["groups"]
    wait_for(lambda: not bad_rules(prometheus))
    assert len(group["rules"]) > 4


def bad_rules(prometheus: Prometheus) -> list[Any]:
    [group] = prometheus.get("rules")["groups"]
    return [rule for rule in group["rules"] if rule["health"] != "ok"]
