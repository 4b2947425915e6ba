"""benchmarks/gate: rounds are put together, verdicts are made, and what is worse is a failure."""

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("scipy")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gate"


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("gate", str(SCRIPT))
    spec = importlib.util.spec_from_loader("gate", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules["gate"] = module  # where its dataclasses look for their module
    loader.exec_module(module)
    return module


def document(figures: dict[str, list[float]]) -> dict[str, Any]:
    rows = [
        {
            "workload": name,
            "arm": "netpoll",
            "mode": "-",
            "rounds": len(values),
            "ns_by_round": list(values),
        }
        for name, values in figures.items()
    ]
    return {"schema": "netpoll.bench.micro/1", "rows": rows}


STEADY = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2]


def trees(gate: ModuleType, old: dict[str, list[float]], new: dict[str, list[float]]) -> list[Any]:
    found = []
    for name, figures in (("old", old), ("new", new)):
        found.append(gate.Tree(name, name * 10, {"micro": document(figures)}))
    return found


def test_rounds_are_put_together(gate: ModuleType) -> None:
    whole = None
    for value in (1.0, 2.0, 3.0):
        whole = gate.add(whole, document({"a": [value], "b": [10 * value]}))
    assert [row["ns_by_round"] for row in whole["rows"]] == [[1, 2, 3], [10, 20, 30]]
    assert [row["rounds"] for row in whole["rows"]] == [3, 3]
    more = gate.add(whole, document({"a": [], "c": [1.0]}))
    assert {row["workload"]: row["rounds"] for row in more["rows"]} == {"a": 3, "b": 3, "c": 1}
    late = gate.add(document({"a": []}), document({"a": [5.0]}))
    assert [row["ns_by_round"] for row in late["rows"]] == [[5.0]]


def test_what_fails_now_is_told(gate: ModuleType) -> None:
    old, new = trees(gate, {"a": STEADY, "b": STEADY, "c": []}, {"a": STEADY, "b": [], "c": []})
    for row in new.documents["micro"]["rows"]:
        row["fault"] = "it hangs"
    assert gate.lost(old, new) == ["micro: b, netpoll: it hangs"]


def test_what_is_worse_is_found(gate: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    old = {"same": STEADY, "slower": STEADY, "a bit": STEADY, "faster": STEADY, "gone": STEADY}
    new = {
        "same": STEADY[::-1],
        "slower": [1.2 * value for value in STEADY],
        "a bit": [1.04 * value for value in STEADY],
        "faster": [0.8 * value for value in STEADY],
        "new": STEADY,
    }
    rows = gate.verdicts(*trees(gate, old, new), level_percent=1.0)
    assert [row["workload"] for row in rows] == ["slower", "a bit", "same", "faster"]
    assert [row["verdict"] for row in rows] == ["worse", "worse", "equal", "better"]
    assert [row["workload"] for row in gate.report(rows, 5.0, shown=2)] == ["slower"]
    said = capsys.readouterr().out
    assert "WORSE by 20.0 %" in said
    assert "1 of 4 rows are worse by more than 5 %" in said
    assert "faster" in said  # what is better is shown in any case
    assert len(gate.report(rows, 3.0, shown=2)) == 2


def test_noise_is_not_worse(gate: ModuleType) -> None:
    wild = [100.0, 300.0, 120.0, 280.0, 90.0, 200.0]
    rows = gate.verdicts(
        *trees(gate, {"a": wild}, {"a": [1.1 * value for value in wild]}), level_percent=1.0
    )
    assert not gate.report(rows, 5.0, shown=5)


def test_rows_of_the_suites(gate: ModuleType) -> None:
    names = (
        *("test_primitive[asyncio-call_soon]", "test_primitive[netpoll-epoll-call_soon]"),
        *("test_received_bytes[uring-take]", "test_a_group", "test_work[post-threads-1]"),
    )
    said = {"benchmarks": [{"name": n, "extra_info": {"ns_per_operation": 7.5}} for n in names]}
    said["benchmarks"].append({"name": "test_without", "extra_info": {}})
    rows = gate.suite_rows(said)
    assert [row["workload"] for row in rows] == [names[1], names[2], names[3]]
    assert all(row["ns_by_round"] == [7.5] for row in rows)


def test_the_two_take_turns(gate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def measured(tree: Any, what: str, quick: bool, folder: Path) -> dict[str, Any]:
        order.append((tree.name, what))
        return document({"a": [1.0]})

    monkeypatch.setattr(gate, "measured", measured)
    both = [gate.Tree(name, name) for name in ("old", "new")]
    gate.measure_all(both, ("micro",), 3, quick=True)
    assert [name for name, _ in order] == ["old", "new", "new", "old", "old", "new"]
    assert [tree.documents["micro"]["rows"][0]["rounds"] for tree in both] == [3, 3]


def test_the_command(
    gate: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of it, with trees that need neither a checkout nor a build."""
    factors = {"old": 1.0, "new": 1.5}
    counts: dict[str, int] = {}

    def measured(tree: Any, what: str, quick: bool, folder: Path) -> dict[str, Any]:
        number = counts[tree.name] = counts.get(tree.name, -1) + 1
        return document({"a": [factors[tree.name] * STEADY[number]]})

    removed = []
    monkeypatch.setattr(gate, "WORK", tmp_path / "gate")
    monkeypatch.setattr(gate, "measured", measured)
    monkeypatch.setattr(gate, "commit_of", lambda name: name * 10)
    monkeypatch.setattr(gate.Tree, "make", lambda tree: None)
    monkeypatch.setattr(gate.Tree, "remove", lambda tree: removed.append(tree.name))
    result = tmp_path / "verdicts.json"
    words = ["old", "new", "--what", "micro", "--json", str(result)]
    assert gate.main([*words, "--clean"]) == 1
    assert removed == ["old", "new"]
    (row,) = json.loads(result.read_text())["rows"]
    assert (row["verdict"], row["bench"]) == ("worse", "micro")
    assert row["ratio"] == pytest.approx(1.5)
    for other, code in (("60", 0), ("40", 1)):
        counts.clear()
        assert gate.main([*words, "--worse", other]) == code
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["no-such-commit", "HEAD"], "git rev-parse"),
        (["HEAD"], "required: NEW"),
        (["HEAD", "HEAD", "--what", "nothing"], "there is no nothing"),
    ],
)
def test_wrong_usage(words: list[str], sentence: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert sentence in done.stdout + done.stderr


def test_a_commit_has_its_whole_name(gate: ModuleType) -> None:
    assert len(gate.commit_of("HEAD")) == 40
