"""The scheduler benchmark: a short run of everything, its document, its page, its ends."""

import json
from pathlib import Path

import pytest

from netpoll.bench import cli, sched, schedworks
from netpoll.bench.process import ServerError


def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_path, page = tmp_path / "sched.json", tmp_path / "sched.html"
    args = ["sched", "--scale", "0.02", "--rounds", "1", "--arms", "netpoll-1,netpoll-2,asyncio"]
    assert cli.main([*args, "--json", str(json_path), "--html", str(page)]) == 0
    document = json.loads(json_path.read_text())
    rows = {(row["workload"], row["arm"]): row for row in document["rows"]}
    assert {work for work, _ in rows} == set(schedworks.WORKS)
    assert ("post", "netpoll-2") not in rows, "it is measured with one worker"
    for row in rows.values():
        assert row["ns"]["median"] > 0 and row["rounds"] == 1
    assert rows["post", "asyncio"]["vs_control"] == 1
    assert ("heavy", "inline") not in rows, "this arm was not asked for"
    assert rows["post", "netpoll-1"]["vs_control"] < 1
    assert "netpoll-2" in page.read_text()
    assert "netpoll-2" in capsys.readouterr().out
    assert cli.main(["show", str(json_path)]) == 0


def test_an_arm_that_dies_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(child: sched.SchedChild) -> dict[str, float]:
        raise ServerError("it was killed by signal 11")

    monkeypatch.setattr(sched.SchedChild, "round", die)
    run = sched.run_sched(sched.SchedPlan(("asyncio",), ("post",), 2, 0.001))
    assert run.faults == {"asyncio": "it was killed by signal 11"}
    assert sched.sched_rows(run)[0]["fault"] == "it was killed by signal 11"


def test_an_arm_that_is_missing_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sched.SchedChild, "round", lambda child: {"unavailable": "not installed"})
    run = sched.run_sched(sched.SchedPlan(("uvloop",), ("post",), 2, 0.001))
    assert run.skipped == {"uvloop": "not installed"} and not run.faults
    assert sched.arm_facts(run)["uvloop"]["skipped"] == "not installed"


@pytest.mark.parametrize(
    ("args", "words"),
    [(["--arms", "gossip"], "no arm 'gossip'"), (["--works", "gossip"], "no workload 'gossip'")],
)
def test_wrong_usage(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["sched", *args])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
