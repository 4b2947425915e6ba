"""The scheduler benchmark: a short run of everything, its document, its page, its ends."""

import json
import os
from pathlib import Path

import pytest

from netpoll.bench import cli, registry, rounds, schedworks
from netpoll.bench.command import EXIT_OK
from netpoll.bench.cores import choose_pinning
from netpoll.bench.errors import ServerError
from netpoll.bench.process import Child
from netpoll.bench.works import WorkChild, WorksPlan


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
    def die(child: WorkChild) -> dict[str, float]:
        raise ServerError("it was killed by signal 11")

    monkeypatch.setattr(WorkChild, "round", die)
    kind = registry.all_kinds()["sched"]
    plan = WorksPlan(
        arms=("asyncio",),
        pinning=choose_pinning(),
        rounds=2,
        operations=("post",),
        scale=0.001,
        round_s=1.0,
    )
    run = rounds.run_plan(plan, kind.measuring)
    assert run.faults == {"asyncio": "it was killed by signal 11"}
    assert kind.rows(run)[0]["fault"] == "it was killed by signal 11"


def test_an_arm_that_is_missing_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {"uvloop": {"unavailable": "not installed"}}
    monkeypatch.setattr(
        "netpoll.bench.kinds.sched.check_arms", lambda arms: missing if list(arms) else {}
    )
    json_path = tmp_path / "sched.json"
    args = ["sched", "--arms", "asyncio,uvloop", "--works", "post", "--scale", "0.001"]
    files = ["--json", str(json_path), "--html", str(tmp_path / "sched.html")]
    assert cli.main([*args, "--rounds", "1", *files]) == EXIT_OK
    document = json.loads(json_path.read_text())
    assert document["arms"]["uvloop"]["skipped"] == "not installed"
    assert [row["arm"] for row in document["rows"]] == ["asyncio"]
    assert "skipped: uvloop: not installed." in capsys.readouterr().out


def test_an_arm_that_finds_out_late_says_why() -> None:
    words = ["netpoll.bench.kinds.sched", "uvloop", json.dumps({"operations": [], "scale": 0.001})]
    code = f"""if True:
        import sys
        sys.modules["uvloop"] = None  # an import that fails
        from netpoll.bench import works
        works.main({words!r})
    """
    with Child(["-c", code], dict(os.environ), None) as child:
        assert child.answer() == {"unavailable": "not installed (pip install uvloop)"}


@pytest.mark.parametrize(
    ("args", "words"),
    [(["--arms", "gossip"], "no arm 'gossip'"), (["--works", "gossip"], "no workload 'gossip'")],
)
def test_wrong_usage(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["sched", *args])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
