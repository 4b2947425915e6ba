"""The open loop: a rate is kept, nothing is omitted; curves, tables, the log of HdrHistogram."""

import json
import socket
import time
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import _native, cli, hdr, openloop
from netpoll.bench.errors import ServerError
from netpoll.bench.openloop import CURVE_PERCENTS, Pace
from netpoll.bench.page import page
from netpoll.bench.stats import Sample, percentile_ns

from .conftest import exactly, scripted

SIZE = 64


def echo(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while len(data := exactly(client, SIZE)) == SIZE:
        client.sendall(data)


# ---- the load ---------------------------------------------------------------------------------


def test_a_rate_is_kept() -> None:
    with scripted(echo, 4) as address, _native.Load(address, 4, SIZE) as load:
        result = load.run(0.4, 200)
        assert 78 <= result["requests_all"] <= 80  # each that was due in the window, and no more
        assert sum(count for _, count in result["histogram"]) == result["requests_all"]
        assert load.run(0)["requests_all"] == 4  # and a closed loop afterwards


def test_a_pause_makes_late_what_was_due_meanwhile() -> None:
    """One long answer delays those behind it, which a closed loop does not see."""
    pause_s = 0.2

    def sleepy(client: socket.socket) -> None:
        first = True
        while len(data := exactly(client, SIZE)) == SIZE:
            if first:
                time.sleep(pause_s)
            first = False
            client.sendall(data)

    def late(result: dict) -> int:
        return sum(n for top_ns, n in result["histogram"] if top_ns > pause_s / 4 * 1e9)

    with scripted(sleepy) as address, _native.Load(address, 1, SIZE) as load:
        result = load.run(0.4, 100)
    assert late(result) >= 10
    assert 38 <= result["requests_all"] <= 40
    with scripted(sleepy) as address, _native.Load(address, 1, SIZE) as load:
        closed = load.run(0.4)
    assert late(closed) < closed["requests_all"] / 10


def test_a_server_that_falls_silent_is_a_fault() -> None:
    def half(client: socket.socket) -> None:
        client.sendall(exactly(client, SIZE))
        exactly(client, SIZE)
        exactly(client, SIZE)

    with scripted(half) as address, _native.Load(address, 1, SIZE, stall_s=0.2) as load:
        with pytest.raises(_native.LoadError, match="stopped answering"):
            load.run(5, 50)


# ---- the pace ---------------------------------------------------------------------------------


def sample(requests: int) -> Sample:
    return Sample(0, requests, requests, 0, 10**9, 10**9, 1, 1, 0, 1, None, 5, [(5, requests)])


def paced(pace: Pace, requests: int = 1000) -> tuple[Sample, list[float]]:
    rates: list[float] = []

    def run(rate_per_s: float) -> dict:
        rates.append(rate_per_s)
        return {
            "requests": 7,
            "window_ns": 10**9,
            "latency_max_ns": 9,
            "histogram": [(9, 7)],
        }

    return openloop.with_paced(sample(requests), pace, run), rates


def test_the_windows_of_a_pace() -> None:
    plain, rates = paced(Pace())
    assert (plain, rates) == (sample(1000), [])
    half, rates = paced(Pace(percent=50))
    assert rates == [500]
    assert half.histogram == [(9, 7)]
    assert half.requests == 1000  # the rate is that of the closed loop
    _, rates = paced(Pace(percent=50, rate_per_s=300))
    assert rates == [300]
    curve, rates = paced(Pace(curve=(10.0, 90.0)))
    assert rates == [100, 900]
    assert curve.histogram == [(5, 1000)]
    assert [each.percent for each in curve.offered] == [10, 90]
    assert Pace(percent=50, curve=(10.0, 90.0)).windows == 3
    _, rates = paced(Pace(percent=50), requests=0)
    assert rates == []


def test_who_cannot_keep_up_has_no_latency() -> None:
    with pytest.raises(ServerError, match="answers 1000 requests per second, not 2000"):
        paced(Pace(rate_per_s=2000))


def test_the_footnote_says_what_latencies_are_of() -> None:
    for pace, words in (
        (Pace(), "a saturated server"),
        (Pace(percent=50), "50 % of each server"),
        (Pace(percent=50, rate_per_s=300), "at 300 requests per second"),
    ):
        assert words in openloop.footnote(pace.facts())


# ---- the command ------------------------------------------------------------------------------

SHORT = ["--quick", "--rounds", "2", "--duration-s", "0.1", "--warmup-s", "0.01", "--curve"]


@pytest.fixture(scope="module")
def curve(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The document of a tiny run of echo with a curve."""
    folder = tmp_path_factory.mktemp("curve")
    files = ["--json", str(folder / "r.json"), "--html", str(folder / "r.html")]
    arms = ["--arms", "asyncio,floor-epoll", "--modes", "protocol", "--cells", "4x64"]
    assert cli.main(["echo", *arms, *SHORT, *files]) == 0
    document: dict = json.loads((folder / "r.json").read_text())
    return document


def test_a_curve_has_a_point_for_each_load(curve: dict) -> None:
    assert {row["arm"] for row in curve["rows"]} == {"asyncio", "floor-epoll"}
    for row in curve["rows"]:
        assert [each["percent"] for each in row["offered"]] == list(CURVE_PERCENTS)
        for each in row["offered"]:
            assert each["rate_per_s"]["count"] == 2
            assert 0 < each["latency_us"]["p50"] <= each["latency_us"]["p99"]
            assert sum(count for _, count in each["histogram_ns"]) > 0


def test_a_curve_is_drawn(curve: dict) -> None:
    text = page(curve)
    assert 'id="offered"' in text
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    (chart,) = (each for each in data["charts"] if each["id"] == "offered")
    p99 = {row["arm"]: row["points"] for row in chart["rows"] if row["where"]["latency"] == "p99"}
    for row in curve["rows"]:
        expected = [[each["percent"], each["latency_us"]["p99"]] for each in row["offered"]]
        assert p99[row["arm"]] == expected
    table = next(openloop.curve_table(curve["rows"], lambda row: row["arm"]))
    assert len(table.head) == 1 + len(CURVE_PERCENTS)
    assert 'id="offered"' not in page(without_curve(curve))


def without_curve(document: dict) -> dict:
    rows = [{k: v for k, v in row.items() if k != "offered"} for row in document["rows"]]
    return document | {"rows": rows}


def test_http_has_a_curve_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")]
    options = ["--arms", "floor", "--works", "hello", "--connections", "4", *SHORT, *files]
    assert cli.main(["http", *options, "--rate", "20"]) == 0
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["settings"]["rate_per_s"] == 20
    assert document["settings"]["paced_percent"] == 0
    assert len(document["rows"][0]["offered"]) == len(CURVE_PERCENTS)
    said = capsys.readouterr().out
    assert "20 requests per second" in said
    assert "latency by offered load" in said


# ---- HdrHistogram -----------------------------------------------------------------------------


def test_the_log_is_one_of_hdrhistogram(curve: dict, tmp_path: Path) -> None:
    pytest.importorskip("hdrh")
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader

    path = tmp_path / "echo.hlog"
    hdr.write_log(path, curve)
    reader = HistogramLogReader(str(path), HdrHistogram(1, hdr.HIGHEST_NS, hdr.DIGITS))
    read = {}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        read[histogram.get_tag()] = histogram
    asyncio = "4x64B/asyncio/protocol"
    assert {asyncio, f"{asyncio}@10%", f"{asyncio}@90%", "4x64B/floor-epoll"} <= set(read)
    (row,) = (row for row in curve["rows"] if row["arm"] == "asyncio")
    assert read[asyncio].get_total_count() == row["requests"]
    p99_us = read[asyncio].get_value_at_percentile(99) / 1e3
    # It rounds the place of a percentile, which here is the first one that is high enough.
    next_lower = percentile_ns(row["histogram_ns"], 99 - 100 / row["requests"]) / 1e3
    assert 0.99 * next_lower <= p99_us <= 1.01 * row["latency_us"]["p99"]


def test_without_the_library_the_log_is_refused_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hdr.importlib.util, "find_spec", lambda name: None if name == "hdrh" else 1)
    assert cli.main(["echo", "--arms", "floor-epoll", "--hdr", "x.hlog", "--no-files"]) == 2
    assert "pip install 'netpoll[bench-more]'" in capsys.readouterr().err
