"""The parts without a server: cells, statistics, options, sentences."""

import argparse
import json
import random
import re
import select
import signal
from pathlib import Path

import pytest

from netpoll.bench import cli, command, syscalls
from netpoll.bench.arms import ARMS, DEFAULT_ARMS, PEER_ARMS
from netpoll.bench.cells import (
    SCENARIOS,
    Cell,
    Entry,
    chosen_cells,
    entries,
    grid,
    parse_cell,
    parse_size,
    size_text,
)
from netpoll.bench.errors import ArmUnavailable, UsageError
from netpoll.bench.registry import all_kinds
from netpoll.bench.rounds import rotated
from netpoll.bench.stats import Spread, merge, paired_ratio, percentile_ns
from netpoll.bench.watch import INTERRUPTED, Watch

# ---- cells ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("64", 64),
        ("1k", 1024),
        ("1KiB", 1024),
        ("64 kib", 65536),
        ("1MiB", 1 << 20),
        ("2m", 2 << 20),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5k", "1GiB", "x", "64KB/s", "65MiB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a size|out of range"):
        parse_size(text)


@pytest.mark.parametrize("size_bytes", [1, 64, 1000, 1024, 65536, 1 << 20, 3 << 20])
def test_a_size_is_written_as_it_is_read(size_bytes: int) -> None:
    assert parse_size(size_text(size_bytes).removesuffix(" B")) == size_bytes


def test_cells() -> None:
    assert parse_cell("16x64KiB") == Cell(16, 65536)
    assert str(parse_cell("4X1MiB")) == "4 × 1 MiB"
    for text in ("64", "x64", "64x", "0x64", "axb"):
        with pytest.raises(ValueError):
            parse_cell(text)


def test_the_matrix_is_every_size_with_every_number_of_connections() -> None:
    assert len(SCENARIOS["matrix"]) == 12
    assert grid((64, 1024), (1, 2)) == (Cell(1, 64), Cell(1, 1024), Cell(2, 64), Cell(2, 1024))


def test_entries_are_loops_in_modes_and_the_others_once() -> None:
    found = entries(("floor-epoll", "asyncio", "uvloop"), ("protocol", "sock"))
    assert found == [
        Entry("asyncio", "protocol"),
        Entry("uvloop", "protocol"),
        Entry("asyncio", "sock"),
        Entry("uvloop", "sock"),
        Entry("floor-epoll", "-"),
    ]


def test_rotation_keeps_everybody_and_changes_who_begins() -> None:
    found = entries(DEFAULT_ARMS, ("protocol",))
    turns = [rotated(found, by) for by in range(len(found))]
    assert all(sorted(map(str, turn)) == sorted(map(str, found)) for turn in turns)
    assert len({turn[0] for turn in turns}) == len(found)
    assert rotated([], 3) == []


# ---- statistics -----------------------------------------------------------------------------


def test_percentiles_are_those_of_the_sorted_values() -> None:
    chance = random.Random(2)
    values = sorted(chance.randrange(1, 100_000) for _ in range(5000))
    histogram = merge([[(value, 1) for value in values[::2]], [(v, 1) for v in values[1::2]]])
    for percent in (0.1, 25.0, 50.0, 90.0, 99.0, 99.9, 100.0):
        at = percentile_ns(histogram, percent)
        not_above = sum(value <= at for value in values)
        below = sum(value < at for value in values)
        assert below < len(values) * percent / 100 + 1e-6 <= not_above + 1e-3


def test_percentiles_of_little() -> None:
    assert percentile_ns([(7, 1)], 50) == percentile_ns([(7, 1)], 99.9) == 7
    assert percentile_ns([(1, 99), (9, 1)], 99) == 1
    assert percentile_ns([(1, 99), (9, 1)], 99.9) == 9
    with pytest.raises(ValueError, match="no requests"):
        percentile_ns([], 50)


def test_a_spread() -> None:
    spread = Spread.of([4.0, 5.0, 9.0])
    assert (spread.median, spread.min, spread.max, spread.count) == (5.0, 4.0, 9.0, 3)
    assert spread.percent == 50.0
    assert Spread.of([0.0]).percent == 0.0
    with pytest.raises(ValueError):
        Spread.of([])


def test_paired_ratios_forget_what_slows_everybody() -> None:
    drift = {0: 1.0, 1: 3.0, 2: 1.4}
    slow = {r: 8.0 * d for r, d in drift.items()}
    fast = {r: 4.0 * d for r, d in drift.items()}
    assert paired_ratio(fast, slow) == 0.5
    assert paired_ratio(fast, {1: slow[1]}) == 0.5
    assert paired_ratio(fast, {}) is None


# ---- system calls ---------------------------------------------------------------------------


def test_perf_output_is_read() -> None:
    text = (
        "# started on Mon\n\n14,,syscalls:sys_enter_io_uring_enter,1477904,100.00,,\n"
        "109,,raw_syscalls:sys_enter,1477904,100.00,,\n"
    )
    assert syscalls.parse_perf(text) == {"io_uring_enter": 14, "all": 109}
    assert syscalls.parse_perf("<not supported>,,raw_syscalls:sys_enter,0,100.00,,\n") == {}


def test_strace_output_is_read() -> None:
    text = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           1       600           sendto
 30.00    0.000300           1       300       100 recvfrom
 10.00    0.000100          10        10           io_uring_enter
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           1       910       100 total
"""
    assert syscalls.parse_strace(text) == {"io_uring_enter": 10, "all": 910}


# ---- arms -----------------------------------------------------------------------------------


def test_peers_take_part_only_when_asked() -> None:
    assert set(DEFAULT_ARMS) | set(PEER_ARMS) == set(ARMS)
    assert not set(DEFAULT_ARMS) & set(PEER_ARMS)


def test_an_arm_that_is_not_there_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arm = ARMS["uvloop"].__class__("ghost", "loop", "", module="ghost_loop", distribution="ghost")
    with pytest.raises(ArmUnavailable, match=r"not installed \(pip install ghost\)"):
        arm.new_loop()
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ghost_loop.py").write_text("raise OSError('its library is broken')")
    with pytest.raises(ArmUnavailable, match="import failed: its library is broken"):
        arm.new_loop()


# ---- options --------------------------------------------------------------------------------


def parsed(*args: str) -> argparse.Namespace:
    return cli.parser().parse_args(args)


def test_lists_are_read() -> None:
    options = parsed("echo", "--arms", "uvloop, asyncio,uvloop", "--modes", "sock")
    assert options.arms == ("uvloop", "asyncio")
    assert options.modes == ("sock",)
    assert all_kinds()["echo"].chosen_arms(options) == ("uvloop", "asyncio")
    assert chosen_cells(options) == SCENARIOS["matrix"]


def test_cells_come_from_one_place() -> None:
    assert chosen_cells(parsed("echo", "--quick")) == SCENARIOS["quick"]
    assert chosen_cells(parsed("echo", "--cells", "1x1")) == (Cell(1, 1),)
    grid_cells = chosen_cells(parsed("echo", "--sizes", "64", "--connections", "1,2"))
    assert grid_cells == (Cell(1, 64), Cell(2, 64))
    with pytest.raises(UsageError, match="--scenario and --cells both"):
        chosen_cells(parsed("echo", "--scenario", "bulk", "--cells", "1x1"))


def test_peers_are_added() -> None:
    arms = all_kinds()["echo"].chosen_arms(parsed("echo", "--arms", "rloop", "--peers"))
    assert arms == ("rloop", *(name for name in PEER_ARMS if name != "rloop"))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["echo", "--arms", "nobody"], "no arm 'nobody'"),
        (["echo", "--arms", ","], "at least one arm"),
        (["echo", "--modes", "loud"], "no mode 'loud'"),
        (["echo", "--sizes", "1GiB"], "is not a size"),
        (["echo", "--connections", "many"], "not a number of connections"),
        (["echo", "--rounds", "0"], "not a number from 1"),
        (["echo", "--duration-s", "nan"], "not a number from 0.01"),
        (["echo", "--scenario", "huge"], "invalid choice"),
        (["micro", "--workloads", "gossip"], "no workload 'gossip'"),
        (["idle", "--connections", "1000000"], "not a number from 1"),
        (["dance"], "invalid choice"),
        ([], "required"),
    ],
)
def test_wrong_options_end_in_a_sentence(
    args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(args)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["echo", "--scenario", "bulk", "--sizes", "64"], "give one of them"),
        (["echo", "--arms", "floor-epoll", "--server-cpu", "4000"], "CPU 4000 is not available"),
        (["micro", "--arms", "floor-epoll"], "is not an event loop"),
        (["show", "no/such/file.json"], "cannot use no/such/file.json: No such file"),
    ],
)
def test_options_that_cannot_be_met_end_in_a_sentence(
    args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    assert cli.main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("netpoll bench: ")
    assert sentence in error


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "NEEDED", ("rich", "no_such_package"))
    assert cli.main(["echo", "--quick"]) == 2
    assert "needs no_such_package: pip install 'netpoll[bench]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}"),
        json.dumps({"schema": "netpoll.bench.echo/99"}),
        json.dumps({"schema": "netpoll.bench.relay/1"}),
    ],
)
def test_files_that_are_no_results_are_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    path = tmp_path / "result.json"
    path.write_text(content)
    assert cli.main(["show", str(path)]) == 2
    assert "cannot show" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for name in (*all_kinds(), "show"):
        assert re.search(rf"^ +{name}\b", text, re.MULTILINE), name


# ---- how a run ends early -------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_insists(signum: int) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(KeyboardInterrupt), Watch() as watch:
        assert watch.why_stop(1e9) is None
        signal.raise_signal(signum)
        assert watch.why_stop(0) == INTERRUPTED
        assert select.select([watch.fd], [], [], 0)[0] == [watch.fd]
        signal.raise_signal(signum)
    assert signal.getsignal(signum) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_no_step_begins_that_would_end_too_late() -> None:
    with Watch(limit_s=60) as watch:
        assert watch.why_stop(30) is None
        assert watch.why_stop(61) == "the time limit of 60 s"
