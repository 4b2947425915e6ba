"""Whole runs, as short as they can be: what is measured, what is written, how it ends."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import _native, cli, primitives, registry, rounds, syscalls
from netpoll.bench.arms import ARMS, MALLOC_TUNED
from netpoll.bench.cells import Cell, Entry
from netpoll.bench.clocks import CpuTime, cpu_time
from netpoll.bench.command import EXIT_USAGE
from netpoll.bench.cores import choose_pinning
from netpoll.bench.document import document_of, read_json
from netpoll.bench.environment import describe
from netpoll.bench.errors import ServerError
from netpoll.bench.kinds.echo import EchoPlan
from netpoll.bench.loaded import Servers, Subject
from netpoll.bench.page import page
from netpoll.bench.process import Child, Server, check_arms, child_environment
from netpoll.bench.works import WorkChild, WorksPlan

from ..support import SLOWNESS
from .conftest import FLOORS, exactly, scripted

TINY = ["--rounds", "2", "--duration-s", "0.05", "--warmup-s", "0.01"]


@pytest.fixture(scope="module")
def echo_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The document and the page of one tiny real run."""
    directory = tmp_path_factory.mktemp("echo")
    json_path, html_path = directory / "echo.json", directory / "echo.html"
    arms = ["--arms", "asyncio,floor-epoll,sockets-threads,sockets-selectors,rsloop"]
    cells = ["--cells", "4x64,2x128KiB"]
    files = ["--json", str(json_path), "--html", str(html_path)]
    assert cli.main(["echo", *arms, *cells, *TINY, *files]) == 0
    return read_json(json_path), html_path


def rows_of(document: dict, cell: str) -> dict[str, dict]:
    rows = [row for row in document["rows"] if row["cell"] == cell]
    return {f"{row['arm']} {row['mode']}": row for row in rows}


# ---- echo -----------------------------------------------------------------------------------


def test_every_cell_is_measured_with_everybody(echo_files: tuple[dict, Path]) -> None:
    document, _ = echo_files
    for cell in ("4 × 64 B", "2 × 128 KiB"):
        rows = rows_of(document, cell)
        assert set(rows) == {
            "asyncio protocol",
            "asyncio streams",
            "asyncio sock",
            "sockets-threads -",
            "sockets-selectors -",
            "floor-epoll -",
        }
        for row in rows.values():
            assert row["fault"] is None
            assert row["rounds"] == 2
            assert row["requests"] >= row["connections"]
            assert 0 < row["cpu_us"]["min"] <= row["cpu_us"]["median"] <= row["cpu_us"]["max"]
            latency = row["latency_us"]
            assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.9"]
            assert latency["p99.9"] <= latency["max"] * 1.01


def test_ratios_have_their_reference(echo_files: tuple[dict, Path]) -> None:
    rows = rows_of(echo_files[0], "4 × 64 B")
    assert rows["asyncio streams"]["cpu_vs_asyncio"] == 1.0
    assert rows["floor-epoll -"]["cpu_vs_floor_epoll"] == 1.0
    assert rows["floor-epoll -"]["cpu_vs_asyncio_mode"] == "protocol"
    assert rows["asyncio sock"]["cpu_vs_floor_epoll"] > 1.2
    assert rows["asyncio sock"]["cpu_vs_floor_uring"] is None


def test_the_document_says_what_the_figures_depend_on(echo_files: tuple[dict, Path]) -> None:
    document, _ = echo_files
    environment = document["environment"]
    for key in ("kernel", "cpu_model", "python", "libc", "pinning", "netpoll_probe"):
        assert environment[key]
    assert document["arms"]["asyncio"]["malloc"] == MALLOC_TUNED
    assert document["stopped"] is None
    assert len(document["samples"]) == 2 * 2 * 6


def test_who_is_not_installed_is_skipped_and_said(echo_files: tuple[dict, Path]) -> None:
    skipped = echo_files[0]["arms"]["rsloop"]["skipped"]
    if skipped is None:
        pytest.skip("rsloop is installed here")
    assert "not installed" in skipped
    assert f"skipped: rsloop: {skipped}." in echo_files[1].read_text()


def test_rounds_begin_with_different_arms(echo_files: tuple[dict, Path]) -> None:
    assert {sample["round"] for sample in echo_files[0]["samples"]} == {0, 1}
    plan = echo_plan(("asyncio", "floor-epoll"), ("sock",), Cell(1, 1), rounds=3)
    assert plan.count == len(plan.entries) * plan.rounds
    first = {}
    for step in plan.steps():
        first.setdefault(step.round, step.subject)
    assert [first[number].entry.arm for number in range(3)] == ["asyncio", "floor-epoll", "asyncio"]


def echo_plan(arms: tuple[str, ...], modes: tuple[str, ...], cell: Cell, **others) -> EchoPlan:
    fields = {"rounds": 2, "duration_s": 0.03, "warmup_s": 0.01} | others
    return EchoPlan(arms=arms, modes=modes, cells=(cell,), pinning=choose_pinning(), **fields)


def run_echo(plan: EchoPlan) -> rounds.Run:
    return rounds.run_plan(plan, registry.all_kinds()["echo"].measuring)


@contextlib.contextmanager
def liar() -> Iterator[SimpleNamespace]:
    """Stands in for a server process, and answers wrongly."""

    def lie(client) -> None:
        while data := exactly(client, 64):
            client.sendall(data[::-1])

    with scripted(lie, 2) as address:
        yield SimpleNamespace(address=address, has_ended=lambda within_s: False, kill=lambda: None)


def test_a_liar_gets_a_sentence_and_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = echo_plan(("asyncio", "floor-epoll"), ("protocol",), Cell(2, 64))
    with liar() as server:
        honest = Servers.server

        def chosen(self, subject):
            return server if subject.entry.arm == "asyncio" else honest(self, subject)

        monkeypatch.setattr(Servers, "server", chosen)
        run = run_echo(plan)
    subject = Subject(Cell(2, 64), Entry("asyncio", "protocol"))
    assert "other bytes" in run.faults[subject]
    assert subject not in run.samples
    assert len(run.samples[Subject(Cell(2, 64), Entry("floor-epoll", "-"))]) == 2
    checked = {"asyncio": {}, "floor-epoll": {}}
    kind = registry.all_kinds()["echo"]
    text = page(document_of(kind, run, checked, describe(plan.pinning), []))
    assert "the server answered other bytes" in text
    assert "4 × 64" not in text


def test_the_time_limit_holds() -> None:
    plan = echo_plan(("floor-epoll",), (), Cell(1, 64), rounds=1000, fresh=False, limit_s=1.0)
    start = time.monotonic()
    run = run_echo(plan)
    assert time.monotonic() - start < 1.0 + 3 * SLOWNESS
    assert "time limit" in run.stopped
    assert run.samples


def test_ctrl_c_ends_the_children_and_writes_what_there_is(tmp_path: Path) -> None:
    json_path = tmp_path / "echo.json"
    command = [sys.executable, "-m", "netpoll.bench", "echo", "--arms", "floor-epoll"]
    command += ["--cells", "4x64", "--rounds", "1000", "--duration-s", "0.05"]
    command += ["--json", str(json_path), "--html", str(tmp_path / "echo.html")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
    with process:
        for line in process.stdout:
            if line.startswith("round 3 "):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(20 * SLOWNESS) == 130
    document = read_json(json_path)
    assert document["stopped"] == "interrupted"
    assert document["rows"][0]["rounds"] >= 2
    assert "not complete: interrupted" in rest
    for group in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            parent = group.read_text().rpartition(")")[2].split()[1]
            assert parent != str(process.pid)


def test_ctrl_c_in_the_middle_of_a_long_window(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "netpoll.bench", "echo", "--arms", "floor-epoll"]
    command += ["--cells", "4x64", "--duration-s", "600", "--no-files"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
    with process:
        for line in process.stdout:
            if line.startswith("round 1 "):
                break
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        assert process.wait(20 * SLOWNESS) == 130


def test_a_result_that_cannot_be_written_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["echo", "--arms", "floor-epoll", "--cells", "1x64", *TINY, "--json", "/proc/no/such"]
    assert cli.main(args) == 2
    assert "cannot write the result" in capsys.readouterr().err


def test_nobody_can_run(capsys: pytest.CaptureFixture[str]) -> None:
    if "unavailable" not in check_arms([ARMS["zuvloop"]])["zuvloop"]:
        pytest.skip("zuvloop is installed here")
    assert cli.main(["echo", "--arms", "zuvloop", "--quick"]) == 2
    assert "none of the arms can run here" in capsys.readouterr().err


# ---- the page -------------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself(echo_files: tuple[dict, Path]) -> None:
    text = echo_files[1].read_text()
    assert re.findall(r"""(?:src|href)\s*=\s*["']?(?!data:)[\w/.:]+""", text) == []
    assert "@import" not in text
    for word in ("2 × 128 KiB", "sockets-threads", "MALLOC_MMAP_THRESHOLD_", "Method"):
        assert word in text


def test_the_page_escapes_what_it_shows(echo_files: tuple[dict, Path]) -> None:
    document = json.loads(json.dumps(echo_files[0]))
    document["environment"]["cpu_model"] = "<script>alert(1)</script>"
    document["rows"][0]["arm"] = "</script><b>"
    text = page(document)
    assert "<script>alert" not in text
    assert "</script><b>" not in text


def test_a_saved_result_is_shown_again(
    echo_files: tuple[dict, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document, html_path = echo_files
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(document))
    again = tmp_path / "again.html"
    assert cli.main(["show", str(saved), "--html", str(again)]) == 0
    assert again.read_text() == html_path.read_text()
    assert "floor-epoll" in capsys.readouterr().out


# What the page's script asks of a browser; what it draws is told as JSON.
BROWSER_STUB = """
const page = require("fs").readFileSync(process.argv[2], "utf8");
const inside = (start, end) => page.split(start)[1].split(end)[0];
const end = "</script>";
const texts = { data: inside('id="data">', end), plotly: inside('id="plotly">', end) };
const drawn = {}, pressed = {};
const figures = {}, element = id => figures[id] ??= { hidden: null };
globalThis.Plotly = { react: (place, traces) => { drawn[place.id] = traces; } };
globalThis.getComputedStyle = () => ({ getPropertyValue: () => "#000000" });
globalThis.matchMedia = () => ({ addEventListener() {} });
const button = (key, value) => ({
  dataset: { value }, listeners: {},
  setAttribute(name, on) { pressed[`${key} ${value}`] = on; },
  addEventListener(name, listener) { this.listeners[name] = listener; },
  dispatchEvent(event) { this.listeners[event.type](); },
});
const rows = [...page.matchAll(/class="choices" data-key="(\\w+)">(.*?)<\\/div>/g)];
const groups = rows.map(([, key, html]) => {
  const buttons = [...html.matchAll(/data-value="([^"]*)"/g)].map(m => button(key, m[1]));
  return { dataset: { key }, querySelectorAll: () => buttons, buttons };
});
globalThis.document = {
  documentElement: { dataset: {} }, head: { append() {} }, createElement: () => ({}),
  getElementById: id => id in texts ? { textContent: texts[id] }
    : { id, closest: () => element(id) },
  querySelectorAll: what => what === ".choices" ? groups : [],
};
eval(page.slice(page.lastIndexOf("<script>") + 8, page.lastIndexOf("</script>")));
setTimeout(() => {
  const first = JSON.parse(JSON.stringify({ drawn, figures, pressed }));
  groups[0].buttons.at(-1).listeners.click();
  console.log(JSON.stringify({
    charts: document.documentElement.dataset.charts, first, last: { drawn, figures, pressed } }));
}, 300);
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here")
def test_the_script_draws_what_is_chosen(echo_files: tuple[dict, Path], tmp_path: Path) -> None:
    """The script alone, without a browser: which charts it draws, of whom, and with which bars."""
    stub = tmp_path / "stub.js"
    stub.write_text(BROWSER_STUB)
    done = subprocess.run(
        ["node", str(stub), str(echo_files[1])], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["charts"] == "drawn"
    rows = {
        row["arm"]: row
        for row in echo_files[0]["rows"]
        if row["cell"] == "4 × 64 B" and row["mode"] in ("protocol", "-")
    }
    first = said["first"]
    bars = first["drawn"]["cpu"][0]
    assert bars["y"] == sorted(rows, key=lambda arm: rows[arm]["cpu_us"]["median"])
    kernel, user = (trace["x"] for trace in first["drawn"]["cpu"][:2])
    lengths = list(map(sum, zip(kernel, user, strict=True)))
    assert lengths == pytest.approx([rows[arm]["cpu_us"]["median"] for arm in bars["y"]])
    assert {curve["name"] for curve in first["drawn"]["latency"]} == set(rows)
    assert first["figures"]["rate"]["hidden"] is False
    assert first["figures"]["rate-bulk"]["hidden"] is True
    assert first["pressed"]["cell 4 × 64 B"] is True
    last = said["last"]  # a click later: the cell with large messages
    assert last["pressed"] == first["pressed"] | {"cell 4 × 64 B": False, "cell 2 × 128 KiB": True}
    assert last["figures"]["rate"]["hidden"] is True
    assert last["figures"]["rate-bulk"]["hidden"] is False


# ---- micro and idle -------------------------------------------------------------------------


@pytest.mark.parametrize("name", primitives.WORKLOADS)
def test_every_workload_runs(name: str, loop_factory) -> None:
    assert primitives.run_workload(loop_factory(), primitives.WORKLOADS[name], 1000) > 0


def test_micro(tmp_path: Path) -> None:
    json_path = tmp_path / "micro.json"
    args = ["--arms", "asyncio", "--workloads", "call_soon,sleep_zero", "--scale", "0.02"]
    files = ["--json", str(json_path), "--html", str(tmp_path / "micro.html")]
    assert cli.main(["micro", *args, "--rounds", "2", *files]) == 0
    rows = {row["workload"]: row for row in read_json(json_path)["rows"]}
    assert set(rows) == {"call_soon", "sleep_zero"}
    for row in rows.values():
        assert row["rounds"] == 2
        assert row["ns"]["median"] > 0
        assert row["vs_asyncio"] == 1.0


def test_files(tmp_path: Path) -> None:
    json_path, html_path = tmp_path / "files.json", tmp_path / "files.html"
    args = ["files", "--arms", "netpoll-epoll,pread", "--scale", "0.02", "--rounds", "2"]
    args += ["--directory", str(tmp_path), "--json", str(json_path), "--html", str(html_path)]
    assert cli.main(args) == 0
    document = json.loads(json_path.read_text())
    assert {row["workload"] for row in document["rows"]} == {"random", "at", "lines", "whole"}
    for row in document["rows"]:
        assert len(row["ns_by_round"]) == row["rounds"] == 2
        assert all(ns > 0 for ns in row["ns_by_round"])
    assert "Reading files" in html_path.read_text()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # it tidies up
    assert cli.main(["show", str(json_path)]) == 0
    assert cli.main(["files", "--directory", str(tmp_path / "missing")]) == EXIT_USAGE


def test_a_loop_that_dies_in_micro_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(self) -> dict:
        os.kill(self.pid, signal.SIGKILL)
        return self.answer(10 * SLOWNESS)

    monkeypatch.setattr(WorkChild, "round", die)
    plan = WorksPlan(
        arms=("asyncio",),
        pinning=choose_pinning(),
        rounds=2,
        operations=("call_soon",),
        scale=0.01,
        round_s=0.1,
    )
    run = rounds.run_plan(plan, registry.all_kinds()["micro"].measuring)
    assert run.faults == {"asyncio": "it was killed by signal 9"}
    assert run.samples == {}


def test_idle(tmp_path: Path) -> None:
    json_path = tmp_path / "idle.json"
    args = ["--arms", "asyncio,floor-epoll", "--connections", "1500", "--rounds", "1"]
    files = ["--json", str(json_path), "--html", str(tmp_path / "idle.html")]
    assert cli.main(["idle", *args, *files]) == 0
    rows = {row["arm"]: row for row in read_json(json_path)["rows"]}
    assert 1000 < rows["asyncio"]["bytes"]["median"] < 30_000 * SLOWNESS
    assert rows["floor-epoll"]["bytes"]["median"] < rows["asyncio"]["bytes"]["median"]


@pytest.mark.parametrize("work", ["accept", "proxy", "broadcast", "bursts"])
def test_relay(work: str, tmp_path: Path) -> None:
    json_path, html_path = tmp_path / "relay.json", tmp_path / "relay.html"
    args = [work, "--arms", "server-epoll,asyncio", "--rounds", "1"]
    assert cli.main([*args, "--json", str(json_path), "--html", str(html_path)]) == 0
    rows = read_json(json_path)["rows"]
    assert [row["arm"] for row in rows] == ["server-epoll", "asyncio"]
    assert all(row["rounds"] == 1 and row["ns"]["median"] > 0 for row in rows)
    assert cli.main(["show", str(json_path)]) == 0


# ---- children and clocks --------------------------------------------------------------------


def test_the_cpu_clock_of_a_child_is_its_own() -> None:
    work = (
        "import json, resource, sys, time\n"
        "while time.process_time() < 0.3: sum(range(10000))\n"
        "u = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(json.dumps({'s': u.ru_utime + u.ru_stime}), flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        spent_s = json.loads(process.stdout.readline())["s"]
        time.sleep(0.1)
        from_outside = cpu_time(process.pid)
        after = cpu_time(process.pid)
        assert abs(from_outside.total_ns / 1e9 - spent_s) < 0.05
        assert (after - from_outside).total_ns < 50_000_000  # it only waits now
        assert from_outside.user_ns > from_outside.system_ns
        process.stdin.close()
        process.wait()
    with pytest.raises(OSError):
        cpu_time(process.pid)


def test_user_and_system_add_up() -> None:
    difference = CpuTime(1000, 30, 10) - CpuTime(0, 0, 0)
    assert (difference.user_ns, difference.system_ns) == (750, 250)
    nothing_seen = CpuTime(1000, 8, 8) - CpuTime(900, 8, 8)
    assert nothing_seen == CpuTime(100, 0, 100)


def test_servers_are_pinned_and_have_their_settings() -> None:
    pinning = choose_pinning()
    with Server(ARMS["asyncio"], "protocol", cpu=pinning.server_cpu, malloc="asyncio") as server:
        assert os.sched_getaffinity(server.pid) == {pinning.server_cpu}
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
        for name, value in MALLOC_TUNED.items():
            assert f"{name}={value}".encode() in environment
    assert server.process.returncode == -signal.SIGKILL


def test_what_would_change_the_figures_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    monkeypatch.setenv("NETPOLL_BACKEND", "epoll")
    environment = child_environment(ARMS["asyncio"], "none")
    assert "PYTHONASYNCIODEBUG" not in environment
    assert "NETPOLL_BACKEND" not in environment
    assert not set(MALLOC_TUNED) & set(environment)
    assert not set(MALLOC_TUNED) & set(child_environment(ARMS["uvloop"], "asyncio"))
    assert set(MALLOC_TUNED) <= set(child_environment(ARMS["uvloop"], "all"))


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(ServerError, match=r"exit code 2.*has the modes"):
        Server(ARMS["floor-epoll"], "protocol", cpu=None)
    with Child(["-m", "netpoll.bench.no_such_module"], dict(os.environ), None) as child:
        with pytest.raises(ServerError, match="No module named"):
            child.answer()


def test_pinning_takes_what_it_is_given() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    same = choose_pinning(allowed[0], allowed[0])
    assert same.shared
    assert "one core only" in same.sentence()
    if len(allowed) > 1:
        assert not choose_pinning().shared
        assert choose_pinning(server_cpu=allowed[0]).load_cpu != allowed[0]
        assert choose_pinning(load_cpu=allowed[-1]).server_cpu != allowed[-1]


@pytest.mark.parametrize("mode", ["protocol", "streams", "sock"])
@pytest.mark.parametrize("name", ["netpoll-uring", "netpoll-epoll", "asyncio", "uvloop"])
@pytest.mark.parametrize("listen", ["tcp", "unix"])
def test_loop_servers_echo(name: str, mode: str, listen: str, tmp_path: Path) -> None:
    where = "tcp" if listen == "tcp" else str(tmp_path / "echo")
    try:
        server = Server(ARMS[name], mode, cpu=None, listen=where)
    except ServerError as error:
        if name in ("asyncio", "netpoll-epoll"):
            raise
        pytest.skip(str(error))
    with server:
        for connections, size_bytes in ((20, 64), (4, 300_000)):
            with _native.Load(server.address, connections, size_bytes) as load:
                assert load.run(0.03)["requests_all"] >= connections


# ---- system calls ---------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["perf", "strace"])
def test_system_calls_are_counted_from_outside(tool: str) -> None:
    counter = syscalls.SyscallCounter(tool)
    if shutil.which(tool) is None or syscalls.SyscallCounter.find() is None:
        pytest.skip(f"{tool} is not there, or not allowed")
    with Server(ARMS["floor-epoll"], "-", cpu=None) as server:
        with _native.Load(server.address, 4, 64) as load:
            load.run(0)
            try:
                with counter.attached(server.pid) as counts:
                    requests = load.run(0.1)["requests_all"]
            except OSError as error:
                pytest.skip(str(error))
    # recv and send, and a share of an epoll_wait
    assert 2.0 <= counts["all"] / requests < 3.5
    assert counts["io_uring_enter"] == 0


@pytest.mark.skipif("uring" not in FLOORS, reason="io_uring is refused here")
def test_the_run_itself_counts_system_calls(tmp_path: Path) -> None:
    if syscalls.SyscallCounter.find() is None:
        pytest.skip("neither perf nor strace can count here")
    json_path = tmp_path / "echo.json"
    args = ["--arms", "floor-uring", "--cells", "64x64", *TINY, "--syscalls"]
    files = ["--json", str(json_path), "--html", str(tmp_path / "e.html")]
    assert cli.main(["echo", *args, *files]) == 0
    calls = read_json(json_path)["rows"][0]["syscalls_per_request"]
    assert 0 < calls["io_uring_enter"] < 1
    assert calls["io_uring_enter"] <= calls["all"] < 1.1
