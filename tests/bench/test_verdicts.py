"""Verdicts: two results against each other, a run against its own control, and `bench all`."""

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("rich")
pytest.importorskip("plotly")
pytest.importorskip("psutil")

from netpoll.bench import cli, compare, everything, verdicts
from netpoll.bench.arms import AGAIN, ARMS
from netpoll.bench.control import SPREAD_MAX_PERCENT, control_facts, sentences
from netpoll.bench.display import drawn
from netpoll.bench.document import problems, read_json
from netpoll.bench.httparms import HTTP_ARMS, UVICORN_AGAIN
from netpoll.bench.page import page
from netpoll.bench.registry import all_kinds

TINY = ["--rounds", "2", "--duration-s", "0.3", "--warmup-s", "0.01"]


def noisy(middle: float, spread: float, count: int, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [chance.uniform(middle * (1 - spread), middle * (1 + spread)) for _ in range(count)]


# ---- one verdict ------------------------------------------------------------------------------


@pytest.fixture
def scipy() -> None:
    pytest.importorskip("scipy")


@pytest.mark.usefixtures("scipy")
@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        (noisy(10, 0.01, 6), noisy(8, 0.01, 6, 2), "better"),
        (noisy(10, 0.01, 6), noisy(12, 0.01, 6, 2), "worse"),
        (noisy(10, 0.005, 8), noisy(10.05, 0.005, 8, 2), "equal"),
        (noisy(10, 0.3, 6), noisy(10.5, 0.3, 6, 2), "cannot tell"),
        ([10.0] * 5, [10.0] * 5, "equal"),
    ],
)
def test_a_verdict(before: list[float], after: list[float], word: str) -> None:
    found = verdicts.verdict(before, after)
    assert found.word == word
    assert (found.ratio < 1) == (sorted(after)[len(after) // 2] < sorted(before)[len(before) // 2])
    assert bool(found.why) == (word == "cannot tell")


@pytest.mark.usefixtures("scipy")
def test_few_rounds_never_tell() -> None:
    """Of three and three rounds chance alone makes each order once in twenty."""
    found = verdicts.verdict([10.0, 10.1, 10.2], [5.0, 5.1, 5.2])
    assert found.word == "cannot tell"
    assert found.why == "3 and 3 rounds are too few"
    assert verdicts.verdict([10.0, 10.1, 10.2, 10.3], [5.0, 5.1, 5.2, 5.3]).word == "better"


@pytest.mark.usefixtures("scipy")
def test_equal_things_are_rarely_told_apart() -> None:
    """The level is kept: of runs that differ by chance alone about one in twenty is told apart."""
    words = [
        verdicts.verdict(noisy(10, 0.2, 5, 2 * seed), noisy(10, 0.2, 5, 2 * seed + 1)).word
        for seed in range(200)
    ]
    assert words.count("better") + words.count("worse") <= 20


# ---- two documents ----------------------------------------------------------------------------


def document(factor: float = 1.0, **others: object) -> dict:
    """A result of micro with two arms; the second costs `factor` times as much as usual."""
    rows = [
        {
            "workload": "call_soon",
            "title": "call_soon",
            "arm": arm,
            "mode": "-",
            "rounds": 6,
            "fault": None,
            "ns": {"median": 100.0, "min": 99.0, "max": 101.0, "spread_percent": 1.0},
            "ns_by_round": [value * times for value in noisy(100, 0.005, 6, seed)],
            "vs_asyncio": 1.0,
        }
        for arm, times, seed in (("asyncio", 1.0, 3), ("netpoll-epoll", factor, 4))
    ]
    return {
        "schema": "netpoll.bench.micro/1",
        "started": "2026-01-01T00:00:00+0000",
        "environment": {"kernel": "6.1", "python": "3.11"},
        "settings": {"rounds": 6},
        "control": {"pairs": [], "is_trustworthy": None},
        "rows": rows,
    } | others


@pytest.mark.usefixtures("scipy")
def test_rows_are_compared_with_their_like() -> None:
    rows = verdicts.compared(document(), document(1.5))
    by_arm = {row["arm"]: row for row in rows}
    assert by_arm["asyncio"]["verdict"] == "equal"
    assert by_arm["netpoll-epoll"]["verdict"] == "worse"
    assert by_arm["netpoll-epoll"]["ratio"] == pytest.approx(1.5)
    assert by_arm["netpoll-epoll"]["quantity"] == "ns"
    assert by_arm["netpoll-epoll"]["workload"] == "call_soon"
    unmeasured = document()
    unmeasured["rows"][0] |= {"rounds": 0}
    assert [row["arm"] for row in verdicts.compared(unmeasured, document())] == ["netpoll-epoll"]


@pytest.mark.usefixtures("scipy")
def test_what_makes_them_hard_to_compare_is_said() -> None:
    other = document(environment={"kernel": "6.2", "python": "3.11"}, settings={"rounds": 3})
    other["control"] = {"pairs": [], "is_trustworthy": False}
    assert verdicts.differences(document(), other) == [
        "different kernel: 6.1 and 6.2",
        "different setting: rounds",
        "by its control the second run is not to be trusted",
    ]
    assert verdicts.differences(document(), document()) == []


@pytest.mark.usefixtures("scipy")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, result = (tmp_path / name for name in ("a.json", "b.json", "c.json"))
    old.write_text(json.dumps(document()))
    new.write_text(json.dumps(document(1.5)))
    words = ["compare", str(old), str(new)]
    html = tmp_path / "c.html"
    assert cli.main([*words, "--json", str(result), "--html", str(html)]) == 0
    assert 'id="ratios"' in html.read_text() and "careful" not in html.read_text()
    said = capsys.readouterr().out
    assert "better: 0; worse: 1; equal: 1; cannot tell: 0." in said
    written = json.loads(result.read_text())
    assert written["schema"] == compare.SCHEMA
    assert [row["verdict"] for row in written["rows"]] == ["equal", "worse"]
    assert cli.main([*words, "--fail-on-worse"]) == 1
    assert cli.main(["compare", str(new), str(old), "--fail-on-worse"]) == 0
    assert cli.main([*words, "--margin", "50", "--fail-on-worse"]) == 1  # 1.5 is on the margin
    new.write_text(json.dumps(document(schema="netpoll.bench.files/1")))
    assert cli.main(words) == 2
    assert "cannot be compared" in capsys.readouterr().err
    new.write_text(json.dumps(document(rows=[])))
    assert cli.main(words) == 2
    assert "no row was measured in both" in capsys.readouterr().err
    assert cli.main(["compare", str(old), str(tmp_path / "missing")]) == 2


@pytest.mark.usefixtures("scipy")
def test_the_worst_comes_first() -> None:
    result = compare.comparison(document(), document(1.5), 0.05, 0.03)
    table = compare.table(result)
    assert [line.head for line in table.groups[0].lines] == [
        "call_soon, netpoll-epoll",
        "call_soon, asyncio",
    ]
    assert drawn(table, wide=False).row_count == 2


def test_without_the_library_nothing_is_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verdicts.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["compare", "a.json", "b.json"]) == 2
    assert "pip install 'netpoll[bench-more]'" in capsys.readouterr().err


# ---- the control ------------------------------------------------------------------------------


def row(arm: str, values: list[float], cell: str = "64 × 64 B", mode: str = "protocol") -> dict:
    facts = {"arm": arm, "mode": mode, "cell": cell, "size_bytes": 64, "connections": 64}
    return facts | {"rounds": len(values), "cpu_us_by_round": values}


CONTROLS = {"again": "asyncio"}


@pytest.mark.parametrize(
    ("first", "again", "is_kept"),
    [
        ([10.0, 10.1, 10.2], [10.1, 10.0, 10.2], True),
        ([10.0, 10.0], [10.2, 10.2], True),  # no spread, but a difference that is none
        ([10.0, 12.0], [11.5, 13.0], True),  # a wide spread allows much
        ([10.0, 10.1, 10.2], [11.0, 11.1, 11.2], False),
        ([11.0, 11.1, 11.2], [10.0, 10.1, 10.2], False),
        ([10.0, 10.1, 14.0], [10.0, 10.1, 10.2], False),  # medians of rounds that tell nothing
        ([10.0, 10.1, 10.2], [10.0, 10.1, 14.0], False),
    ],
)
def test_the_control_keeps_to_its_spread(
    first: list[float], again: list[float], is_kept: bool
) -> None:
    facts = control_facts(CONTROLS, [row("asyncio", first), row("again", again)])
    assert facts["is_trustworthy"] is is_kept
    assert len(sentences(facts)) == (not is_kept)


def test_every_cell_has_its_own_control() -> None:
    rows = [row("asyncio", [10.0, 10.1]), row("again", [10.0, 10.1])]
    rows += [row("asyncio", [20.0, 20.1], "1 × 64 B"), row("again", [30.0, 30.1], "1 × 64 B")]
    facts = control_facts(CONTROLS, rows)
    assert [pair["is_kept"] for pair in facts["pairs"]] == [True, False]
    assert not facts["is_trustworthy"]
    (sentence,) = sentences(facts)
    assert sentence.startswith("not to be trusted: asyncio against itself is 1.50 at 1 × 64 B")


def test_a_spread_that_allows_everything_is_not_trusted() -> None:
    first, again = [10.0, 20.0, 40.0, 11.0], [10.0, 30.0, 12.0, 40.0]
    facts = control_facts(CONTROLS, [row("asyncio", first), row("again", again)])
    (pair,) = facts["pairs"]
    assert pair["is_kept"] and not pair["is_steady"]
    assert pair["spread_percent"] > SPREAD_MAX_PERCENT
    (sentence,) = sentences(facts)
    assert sentence.startswith("not to be trusted: the rounds of asyncio lie ±")
    del pair["is_steady"], pair["spread_percent"]  # written before there was a bound
    assert sentences(facts) == []


def test_no_control_no_judgement() -> None:
    one_round = [row("asyncio", [10.0]), row("again", [20.0])]
    for rows in ([], [row("asyncio", [10.0, 10.1])], one_round):
        facts = control_facts(CONTROLS, rows)
        assert facts["is_trustworthy"] is None
        assert sentences(facts) == []


def test_a_run_has_its_control_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "echo.json"
    arms = ["--arms", f"asyncio,{AGAIN}", "--modes", "protocol,sock", "--cells", "4x64"]
    files = ["--json", str(path), "--html", str(tmp_path / "echo.html")]
    assert cli.main(["echo", *arms, *TINY, *files]) == 0
    result = read_json(path)
    assert {pair["of"] for pair in result["control"]["pairs"]} == {"asyncio"}
    assert len(result["control"]["pairs"]) == 2
    for pair in result["control"]["pairs"]:
        pair |= {"ratio": 1.5, "allowed_percent": 4.0, "is_kept": False}
    said = [line for line in problems(result) if line.startswith("not to be trusted")]
    assert len(said) == 2
    assert said[0] in page(result)
    del result["control"]  # written before there was one
    assert not [line for line in problems(result) if line.startswith("not to be trusted")]


def test_the_controls_are_what_they_repeat() -> None:
    assert type(ARMS[AGAIN].new_loop) is type(ARMS["asyncio"].new_loop)
    assert ARMS[AGAIN].factory == ARMS["asyncio"].factory
    assert HTTP_ARMS[UVICORN_AGAIN].command == HTTP_ARMS["uvicorn-asyncio"].command
    for kind in all_kinds().values():
        for again, first in kind.controls.items():
            assert (again in kind.default_arms) == (
                first in kind.default_arms and again in kind.arms
            )


# ---- all of them ------------------------------------------------------------------------------


def test_all_fit_into_six_minutes() -> None:
    """However long the first ones take of what they may."""
    for part in (0.5, 1.0):
        left_s = everything.QUICK_TOTAL_S
        for count in range(sum(kind.is_in_all for kind in all_kinds().values()), 0, -1):
            limit_s = everything.quick_limit_s(left_s, count)
            assert limit_s > 15
            left_s -= part * limit_s + everything.AROUND_S
        assert left_s >= -0.01


def test_all_runs_every_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {name: all_kinds()[name] for name in ("echo", "idle", "micro")}
    alone = all_kinds()["verify"]
    ran = []

    def parse(words: list[str]) -> object:
        options = cli.parser().parse_args(words)
        options.run = run_instead
        return options

    def run_instead(options: object) -> int:
        ran.append(options)
        if len(ran) == 2:
            raise ValueError("too few open files")
        return 0

    options = cli.parser().parse_args(["all", "--quick", "--directory", str(tmp_path)])
    assert everything.run_all(kinds | {alone.name: alone}, parse, options) == 1
    in_turn = ("idle", "micro", "echo")  # that fills its time is the last one
    assert [each.json.name for each in ran] == [f"netpoll-bench-{name}.json" for name in in_turn]
    assert {each.html.parent for each in ran} == {tmp_path}
    assert all(each.quick for each in ran)
    limits_s = [each.quick_limit_s for each in ran]
    assert limits_s[0] == pytest.approx(everything.quick_limit_s(everything.QUICK_TOTAL_S, 3), 0.01)
    assert limits_s[0] < limits_s[1] < limits_s[2] < everything.QUICK_TOTAL_S  # none took any time
    said = capsys.readouterr()
    assert "too few open files" in said.err
    assert "3 benchmarks in 0 s; with failures: micro." in said.out


def test_ctrl_c_ends_all(tmp_path: Path) -> None:
    kinds = {name: all_kinds()[name] for name in ("echo", "idle")}
    ran = []

    def parse(words: list[str]) -> object:
        options = cli.parser().parse_args(words)
        options.run = lambda options: ran.append(options) or 130
        return options

    options = cli.parser().parse_args(["all", "--directory", str(tmp_path)])
    assert everything.run_all(kinds, parse, options) == 130
    assert len(ran) == 1
    assert not ran[0].quick
