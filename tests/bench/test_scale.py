"""`bench scale`: axes, slopes, what can be had here, and a run."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import _native, axes, cli
from netpoll.bench.arms import ARMS
from netpoll.bench.axes import AXES, server_cpus, why_no_connections
from netpoll.bench.cores import Pinning, choose_pinning
from netpoll.bench.kinds.scale import PointLoad, can
from netpoll.bench.process import Server
from netpoll.bench.stats import Fit

from .conftest import FLOORS, floor

# ---- slopes -----------------------------------------------------------------------------------


def test_a_line_through_points() -> None:
    fit = Fit.of([(0, 1), (1, 3), (2, 5)])
    assert fit
    assert (fit.slope, fit.start, fit.r2) == pytest.approx((2, 1, 1))
    noisy = Fit.of([(0, 0), (1, 3), (2, 0), (3, 3)])
    assert noisy and 0 < noisy.r2 < 0.5
    flat = Fit.of([(1, 7), (2, 7)])
    assert flat and (flat.slope, flat.r2) == (0, 1)
    assert Fit.of([(1, 2)]) is Fit.of([(1, 2), (1, 3)]) is Fit.of([]) is None


def test_slopes_of_the_axes() -> None:
    growing = [(10.0**n, 5 * 1.1**n) for n in range(1, 5)]
    slope = AXES["connections"].slope([(1, 300.0), *growing])  # a lone one has no part in it
    assert slope and slope.value == pytest.approx(1.1)
    assert slope.text == "×1.10 per tenfold"
    slope = AXES["size"].slope([(64, 5.0 + 64 / 1024 * 0.5), (65536, 5.0 + 64 * 0.5)])
    assert slope and slope.text == "+0.5 µs per KiB"
    slope = AXES["workers"].slope([(1, 4.0), (2, 2.0), (4, 1.0)])
    assert slope and slope.text == "×0.50 per doubling"
    slope = AXES["load"].slope([(10, 9.0), (90, 5.0)])
    assert slope and slope.text == "-0.5 µs per 10 % of the load"
    assert AXES["load"].slope([(10, 9.0)]) is None


def test_points_differ_in_one_thing() -> None:
    usual = {"connections": 64, "size_bytes": 64, "workers": 1, "percent": 0}
    for axis in AXES.values():
        point = axis.point(axis.values[-1])
        changed = {name for name, value in usual.items() if getattr(point, name) != value}
        assert (
            changed
            == {
                "connections": {"connections"},
                "size": {"size_bytes"},
                "workers": {"connections", "workers"},
                "load": {"percent"},
            }[axis.name]
        )
        names = {str(axis.point(value)) for value in axis.values}
        assert len(names) == len(axis.values)


# ---- what can be had --------------------------------------------------------------------------


def test_limits_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "raise_fd_limit", lambda wanted: min(wanted, 20_000))
    assert why_no_connections(10) is None
    assert why_no_connections(19_900) == "a process may have 20000 open files"
    monkeypatch.setattr(axes, "raise_fd_limit", lambda wanted: wanted)
    monkeypatch.setattr(axes, "_available_bytes", lambda: 1 << 20)
    assert why_no_connections(1_000) == "they need 15 MiB of memory, and 1 are free"


def test_workers_have_the_cores_beside_the_load() -> None:
    pinning = choose_pinning()
    cpus = server_cpus(pinning)
    assert (pinning.load_cpu in cpus) == pinning.shared
    assert server_cpus(Pinning(0, -1)) >= cpus
    assert can("server-epoll", AXES["workers"].point(2))
    assert not can("asyncio", AXES["workers"].point(2))
    assert can("asyncio", AXES["size"].point(64))


def test_many_connections_come_from_more_addresses() -> None:
    """Those beyond the ports of one address; asked of a server that looks at its peers."""
    count = 20_001
    if reason := why_no_connections(2 * count):  # both ends are in this process
        pytest.skip(reason)
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        peers = set()
        listener.setblocking(False)
        accepted = []

        def accept() -> None:
            listener.settimeout(20)
            for _ in range(count):
                sock, peer = listener.accept()
                accepted.append(sock)
                peers.add(peer[0])

        thread = threading.Thread(target=accept)
        thread.start()
        with _native.Load(listener.getsockname(), count, 64, reset_on_close=True):
            thread.join()
    for sock in accepted:
        sock.close()
    assert peers == {"127.0.0.1", "127.0.0.2"}


def test_a_server_with_workers() -> None:
    with Server(ARMS["server-epoll"], "on_data", cpu=None, workers=2) as server:
        threads = Path(f"/proc/{server.pid}/task")
        with _native.Load(server.address, 8, 64) as load:
            assert load.run(0.1)["requests"] > 0
            # The worker threads of the server, beside the loop that it was started in.
            assert len(list(threads.iterdir())) >= 3


def test_a_part_of_the_full_rate() -> None:
    point = AXES["load"].point(50)
    with floor(FLOORS["epoll"]) as address, _native.Load(address, 64, 64) as load:
        paced = PointLoad(load, point, 0.2)
        full = paced.run(0.05)
        assert paced.rate_per_s == pytest.approx(full["requests"] / full["window_ns"] * 5e8)
        # With room for a window that ends late; unpaced it is twice as much.
        assert paced.run(0.2)["requests_all"] <= paced.rate_per_s * 0.2 * 1.1


# ---- the command ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    folder = tmp_path_factory.mktemp("scale")
    files = ["--json", str(folder / "s.json"), "--html", str(folder / "s.html")]
    words = ["--rounds", "1", "--duration-s", "0.1", "--warmup-s", "0.02", "--sizes", "64,64KiB"]
    words += ["--max-connections", "100", "--workers", "1,2", "--loads", "30,60"]
    assert cli.main(["scale", "--arms", "server-epoll,floor-epoll", *words, *files]) == 0
    return json.loads((folder / "s.json").read_text()), str(folder), folder / "s.html"


def test_every_axis_has_rows_and_slopes(run: tuple[dict[str, Any], str, Path]) -> None:
    document = run[0]
    assert document["settings"]["axes"] == list(AXES)
    assert document["settings"]["skipped"] == {}
    found = {(row["axis"], row["value"], row["arm"]) for row in document["rows"]}
    assert ("connections", 100, "floor-epoll") in found
    assert ("workers", 2, "server-epoll") in found
    assert ("workers", 2, "floor-epoll") not in found
    assert len(found) == len(document["rows"]) == 3 * 2 + 2 * 2 + 2 + 2 * 2
    assert all(row["rounds"] == 1 and row["cpu_us"]["median"] > 0 for row in document["rows"])
    slopes = {(slope["axis"], slope["arm"]): slope for slope in document["slopes"]}
    assert len(slopes) == 7
    assert slopes["size", "floor-epoll"]["value"] > 0
    assert slopes["size", "floor-epoll"]["text"].endswith("µs per KiB")


def test_the_curves_are_on_the_page(run: tuple[dict[str, Any], str, Path]) -> None:
    text = run[2].read_text()
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    charts = {chart["id"]: chart for chart in data["charts"]}
    assert set(charts) == {f"{kind}-{axis}" for kind in ("scale", "each") for axis in AXES}
    assert charts["scale-connections"]["is_log_x"] and not charts["scale-load"]["is_log_x"]
    quantities = {row["where"]["quantity"] for row in charts["scale-size"]["rows"]}
    assert quantities == {"cost", "p99", "rate"}
    assert "per tenfold" in text and "per doubling" in text


def test_what_is_skipped_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("netpoll.bench.kinds.scale.why_no_connections", lambda count: "no files")
    words = ["scale", "--no-files", "--arms", "floor-epoll", "--axes", "connections"]
    assert cli.main(words) == 2
    assert "connections 10: no files" in capsys.readouterr().err
