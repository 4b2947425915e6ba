"""The lane's own logic, without any project: reading, comparing, going on, the table."""

import dataclasses
import json
from pathlib import Path

import pytest

from . import environment, projects, run, table
from .judge import Verdict, judge
from .projects import Exception_, Project
from .run import Result, Run, read_records

PROJECT = Project("pytest", "1.0", ("tests",))


def results(**outcomes: str) -> dict[str, Result]:
    return {name: Result(name, what, f"why {name}", loops=1) for name, what in outcomes.items()}


def verdict_of(
    expected: dict[str, Result],
    actual: dict[str, Result],
    *entries: Exception_,
    again: dict[str, list[dict[str, Result]]] | None = None,
) -> Verdict:
    """`again` are the answers to reruns, by loop, in order; the default is the same once more."""
    answers = again or {}

    def rerun(loop: str, tests: set[str]) -> dict[str, Result]:
        default = expected if loop == "asyncio" else actual
        found = answers[loop].pop(0) if answers.get(loop) else default
        return {test: found[test] for test in tests if test in found}

    return judge(PROJECT, "uring", expected, actual, entries, rerun)


def exception(*tests: str, **named: str) -> Exception_:
    return Exception_("pytest", tests, "a reason that says why", **named)  # type: ignore[arg-type]


def test_what_passes_on_both_is_passed() -> None:
    verdict = verdict_of(results(a="passed"), results(a="passed"))
    assert verdict.passed == ["a"]
    assert not verdict.is_bad


@pytest.mark.parametrize("outcome", ["failed", "hung", "crashed", "skipped"])
def test_what_only_asyncio_passes_is_worse(outcome: str) -> None:
    verdict = verdict_of(results(a="passed", b="passed"), results(a="passed", b=outcome))
    assert list(verdict.worse) == ["b"]
    assert "why b" in verdict.report()


def test_a_test_that_is_missing_is_worse() -> None:
    verdict = verdict_of(results(a="passed", b="passed"), results(a="passed"))
    assert list(verdict.worse) == ["b"]


@pytest.mark.parametrize("outcome", ["failed", "hung", "skipped"])
def test_what_asyncio_does_not_pass_is_not_asked(outcome: str) -> None:
    verdict = verdict_of(results(a="passed", b=outcome), results(a="passed", b="failed"))
    assert verdict.not_judged == ["b"]
    assert not verdict.is_bad


def test_a_failure_outside_of_tests_counts() -> None:
    """A crash at exit, a file that cannot be collected: only where asyncio has none."""
    bad = {"(exit)": Result("(exit)", "crashed", "exit code -11")}
    assert list(verdict_of(results(a="passed"), results(a="passed") | bad).worse) == ["(exit)"]
    assert not verdict_of(results(a="passed") | bad, results(a="passed") | bad).is_bad


@pytest.mark.parametrize("pass_at", [0, 1])
def test_a_failure_that_passes_when_run_again_is_flaky(pass_at: int) -> None:
    answers = [results(b="failed"), results(b="failed")]
    answers[pass_at] = results(b="passed")
    verdict = verdict_of(
        results(a="passed", b="passed"),
        results(a="passed", b="failed"),
        again={"uring": answers},
    )
    assert list(verdict.flaky) == ["b"]
    assert not verdict.is_bad


def test_a_third_failure_counts() -> None:
    answers = [results(b="failed"), results(b="failed"), results(b="passed")]
    verdict = verdict_of(
        results(a="passed", b="passed"),
        results(a="passed", b="failed"),
        again={"uring": answers},
    )
    assert list(verdict.worse) == ["b"]


def test_asyncio_has_to_pass_by_itself_too() -> None:
    verdict = verdict_of(
        results(a="passed", b="passed"),
        results(a="passed", b="failed"),
        again={"asyncio": [results(b="failed")]},
    )
    assert verdict.not_judged == ["b"]
    assert not verdict.is_bad


def test_exceptions_are_taken() -> None:
    expected = {"t[x]": Result("t[x]", "passed", loops=1), **results(a="passed")}
    actual = {"t[x]": Result("t[x]", "failed", "OSError: no"), **results(a="passed")}
    verdict = verdict_of(expected, actual, exception("t[x]", expect="OSError"))
    assert list(verdict.excepted) == ["t[x]"]
    assert not verdict.is_bad
    other = verdict_of(expected, actual, exception("t[x]", expect="KeyError"))
    assert list(other.worse) == ["t[x]"]


def test_exceptions_that_nothing_needs_are_reported() -> None:
    both = results(a="passed")
    assert "a passes" in verdict_of(both, both, exception("a")).report()
    assert "no test b" in verdict_of(both, both, exception("b")).report()
    other = dataclasses.replace(exception("a"), backends=("epoll",))
    assert not verdict_of(both, both, other).is_bad
    assert not verdict_of(both, both, dataclasses.replace(exception("a"), project="x")).is_bad


def test_a_run_without_loops_says_nothing() -> None:
    silent = {"a": Result("a", "passed", loops=0)}
    assert verdict_of(silent, silent).is_bad


def test_records_are_read_to_the_last_whole_line() -> None:
    lines = ['{"tests": ["a", "b"]}', '{"start": "a"}', json.dumps(done("a"))]
    progress = read_records([*lines, '{"start": "b"}', '{"test": "b", "outc'])
    assert progress.results == {"a": Result("a", "passed")}
    assert (progress.running, progress.end) == ("b", None)
    assert read_records([*lines, '{"end": 0}']).end == 0


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "netpoll_build", lambda: "a build")
    return tmp_path


class Scripted(Run):
    """Instead of pytest: the records of each attempt, and its exit code."""

    attempts: list[tuple[list[dict[str, object]], int | None]]

    def _one_pytest(self, *_: object) -> bool:
        before = len(self._progress().results)
        records, code = self.attempts.pop(0)
        with open(self.folder / "records.jsonl", "a") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        return self._judge_exit(before, code, "== b\nTimeout (0:00:30)!")


def done(test: str) -> dict[str, object]:
    return {"test": test, "outcome": "passed"}


def test_a_hang_costs_only_its_own_test(stored: Path) -> None:
    again = Scripted(PROJECT, "uring")
    again.attempts = [
        ([{"tests": ["a", "b", "c"]}, {"start": "a"}, done("a"), {"start": "b"}], 1),
        ([{"tests": ["c"]}, {"start": "c"}, done("c"), {"end": 0}], 0),
    ]
    found = {test: result.outcome for test, result in again.results().items()}
    assert found == {"a": "passed", "b": "hung", "c": "passed"}


def test_a_run_that_was_broken_off_goes_on(stored: Path) -> None:
    first = Scripted(PROJECT, "uring")
    (first.folder / "records.jsonl").write_text(json.dumps(done("a")) + "\n")
    second = Scripted(PROJECT, "uring")
    second.attempts = [([{"tests": ["b"]}, {"start": "b"}, done("b"), {"end": 0}], 0)]
    assert set(second.results()) == {"a", "b"}
    third = Scripted(PROJECT, "uring")
    third.attempts = []
    assert set(third.results()) == {"a", "b"}  # finished: nothing runs


def test_results_of_another_build_are_forgotten(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loop in ("uring", "asyncio"):
        old = Scripted(PROJECT, loop)
        old.attempts = [([done("a"), {"end": 0}], 0)]
        assert set(old.results()) == {"a"}
    monkeypatch.setattr(run, "netpoll_build", lambda: "another build")
    new = Scripted(PROJECT, "uring")
    assert not new._progress().results
    assert Scripted(PROJECT, "asyncio")._is_finished()  # the control has nothing to do with it
    changed = dataclasses.replace(PROJECT, version="2.0")
    assert not Scripted(changed, "asyncio")._is_finished()


def test_a_crash_at_exit_is_a_result(stored: Path) -> None:
    last = Scripted(PROJECT, "uring")
    last.attempts = [([done("a"), {"end": 0}], -11)]
    assert last.results()["(exit)"].outcome == "crashed"


def test_a_run_that_is_too_long_ends(stored: Path) -> None:
    last = Scripted(PROJECT, "uring")
    last.attempts = [([done("a"), {"start": "b"}], None)]
    assert last.results()["b"].outcome == "hung"


def test_the_lists_are_in_order() -> None:
    """Every entry is read, every exception is of a project, and there are few of them."""
    known = projects.projects()
    assert len(known) >= 15
    entries = projects.exceptions()
    assert {entry.project for entry in entries} <= set(known)
    assert sum(len(entry.tests) for entry in entries) <= 10


def test_wrong_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.toml"
    for text in ('tests = ["a"]\nproject = "p"', 'tests = ["a"]\nproject = "p"\nreason = "no"'):
        path.write_text(f"[[exception]]\n{text}\n")
        with pytest.raises(SystemExit):
            projects.exceptions(path)
        projects.exceptions.cache_clear()
    path.write_text('[p]\nversion = "1"\nargumentz = []\n')
    with pytest.raises(SystemExit):
        projects.projects(path)
    projects.exceptions.cache_clear()
    projects.projects.cache_clear()


def test_the_table_goes_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "installed_version", lambda project: project.version)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    verdicts = {
        "anyio": [Verdict("anyio", "uring", passed=["a", "b"]), Verdict("anyio", "epoll", ["a"])]
    }
    table.write(verdicts, page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert f"| anyio | {projects.projects()['anyio'].version} | 2 | 2 | 1 | 0 | 0 |" in text
    table.write({"tornado": [Verdict("tornado", "uring", ["a"])]}, page)  # the other row stays
    text = page.read_text()
    assert "| anyio |" in text and "| total |  | 3 | 3 | 1 | 0 | 0 |" in text
    page.write_text("no marks")
    with pytest.raises(SystemExit):
        table.write(verdicts, page)


def test_only_what_is_kept_is_copied(tmp_path: Path) -> None:
    """The package itself stays behind: what is installed is tested. pytest finds its settings."""
    root = tmp_path / "root"
    (root / "tests").mkdir(parents=True)
    (root / "tests" / "test_a.py").touch()
    (root / "package").mkdir()
    (root / "pyproject.toml").write_text("[project]\n")
    environment._keep(PROJECT, root, tmp_path / "work")
    found = {str(path.relative_to(tmp_path / "work")) for path in (tmp_path / "work").rglob("*")}
    assert found == {
        *("tests", "tests/test_a.py", "pyproject.toml"),
        *("pytest.ini", "suite_setup.py"),
    }
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    environment._keep(PROJECT, root, tmp_path / "other")
    assert not (tmp_path / "other" / "pytest.ini").exists()
