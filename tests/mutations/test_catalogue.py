"""The list of mutations fits the source as it is now; what tries them can be believed."""

import os
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from . import cli, run
from .catalogue import (
    BEGIN,
    END,
    PAGE,
    Catalogue,
    Mutation,
    classes_of_page,
    faults,
    read,
    table,
    with_table,
)
from .run import KILLED, SKIPPED, SURVIVED, UNBUILT, UNSOUND, Done, Outcome

GOOD = Mutation(
    "good",
    1,
    "a guard",
    "tests/mutations/run.py",
    "TEST_TIMEOUT_S = 240",
    "TEST_TIMEOUT_S = 0",
    ("tests/mutations/test_catalogue.py::test_the_list_is_right",),
)


def test_the_list_is_right() -> None:
    """Each old text is there once, each test exists, each class has a mutation or a reason."""
    numbers = classes_of_page()
    assert [number for number, count in Counter(numbers).items() if count > 1] == []
    assert list(faults(read(), numbers)) == []


def test_the_page_has_its_table() -> None:
    page = PAGE.read_text()
    expected = with_table(page, table(read(), classes_of_page()))
    assert page == expected, "run python -m tests.mutations --table"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"file": "csrc/np_gone.c"}, "there is no csrc/np_gone.c"),
        ({"old": "no such text"}, "its old text occurs 0 times in tests/mutations/run.py"),
        ({"old": "\n\n"}, "times in tests/mutations/run.py"),
        ({"new": GOOD.old}, "it changes nothing"),
        ({"tests": ()}, "no test is named"),
        ({"tests": ("tests/test_gone.py::test_x",)}, "there is no tests/test_gone.py"),
        ({"tests": ("tests/test_docs.py::test_gone[x]",)}, "has no test 'test_gone'"),
        ({"tests": ("tests/c/test_op.c::not_there",)}, "has no test 'not_there'"),
        ({"number": 1000}, "there is no class 1000"),
    ],
)
def test_what_is_wrong_with_a_mutation(change: dict[str, object], fault: str | None) -> None:
    changed = replace(GOOD, **change)  # type: ignore[arg-type]
    found = list(faults(Catalogue((changed,), {}), [GOOD.number]))
    assert any(fault in sentence for sentence in found) if fault else found == []


def test_what_is_wrong_with_a_list() -> None:
    both = Catalogue((GOOD, GOOD), {1: "why", 3: "why"})
    assert list(faults(both, [1, 2])) == [
        "good: 2 mutations have this name",
        "a reason is given for class 3, which is not there",
        "class 1 has a mutation and a reason why it has none",
        "class 2 has neither a mutation nor a reason why it has none",
    ]


def test_a_file_of_mutations_is_read(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text(
        textwrap.dedent("""
            [[mutation]]
            name = "good"
            class = 1
            guard = "a guard"
            file = "tests/mutations/run.py"
            old = 'TEST_TIMEOUT_S = 240'
            new = 'TEST_TIMEOUT_S = 0'
            tests = ["tests/mutations/test_catalogue.py::test_the_list_is_right"]

            [[unseen]]
            class = 7
            reason = "nobody can"
        """)
    )
    assert read([path]) == Catalogue((GOOD,), {7: "nobody can"})
    content = table(read([path]), [7, 1])
    assert content.splitlines()[2:] == ["| 1 | a guard | `good` |", "| 7 | none: nobody can | |"]
    assert with_table(f"a\n{BEGIN}old\n{END}b\n", content) == f"a\n{BEGIN}\n{content}\n{END}b\n"


# ---- trying -----------------------------------------------------------------------------------


class Rig:
    """A tree with one file, where commands do nothing but say how they have ended."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tree = folder / "tree"
        monkeypatch.setattr(run, "TREE", self.tree)
        monkeypatch.setattr(run, "WORK", folder)
        monkeypatch.setattr(run, "call", self.call)
        self.ends: list[Done] = []
        self.seen: list[str] = []

    def file(self, name: str, text: str = "") -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (1000, 1000))
        return path

    def call(self, command: list[str], timeout_s: int, **more: str) -> Done:
        self.seen.append(" ".join(command))
        return self.ends.pop(0)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


PASSES, FAILS = Done(0, "3 passed in 1 s"), Done(1, "1 failed")


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([PASSES, FAILS], KILLED),
        ([PASSES, Done(None, "")], KILLED),
        ([PASSES, Done(-11, "")], KILLED),
        ([PASSES, PASSES], SURVIVED),
        ([PASSES, Done(4, "not found")], UNBUILT),
        ([FAILS], UNSOUND),
        ([Done(4, "not found")], UNSOUND),
        ([Done(0, "2 skipped")], SKIPPED),
    ],
)
def test_verdicts(rig: Rig, ends: list[Done], verdict: str) -> None:
    """A mutation counts as seen only by tests that pass without it."""
    source = rig.file(GOOD.file, GOOD.old)
    rig.ends = list(ends)
    assert run.try_out(GOOD).verdict == verdict
    assert (source.read_text(), source.stat().st_mtime, rig.ends) == (GOOD.old, 1000, [])


def test_a_mutation_that_does_not_build(rig: Rig) -> None:
    mutation = replace(GOOD, file="src/netpoll/_native/numbers.pyx")
    rig.file(mutation.file, mutation.old)
    rig.ends = [PASSES, Done(1, "error")]
    assert run.try_out(mutation).verdict == UNBUILT


def test_what_was_built_goes_back_too(rig: Rig) -> None:
    names = [
        "src/netpoll/_native/numbers.cpython-311-x86_64-linux-gnu.so",
        "build/release/lib.x/netpoll/_native/numbers.cpython-311-x86_64-linux-gnu.so",
        "build/release/cython-3/src/netpoll/_native/numbers.c",
    ]
    built = [rig.file(name, "built") for name in names]
    other = rig.file("src/netpoll/_native/other/numbers.x.so", "other")
    mutation = replace(GOOD, file="src/netpoll/_native/numbers.pyx")
    source = rig.file(mutation.file, mutation.old)
    with run.applied(mutation, is_built=True):
        assert source.read_text() == mutation.new
        assert set(run.products(mutation)) == set(built)
        for path in [*built, other]:
            path.write_text("mutated")
    for path in [*built, source]:
        assert "mutated" not in path.read_text()
        assert path.stat().st_mtime == 1000
    assert other.read_text() == "mutated"


def test_modules_are_built_together(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "BUILT", run.WORK / "built")
    names = {"a": "handle", "b": "numbers", "c": "handle"}
    mutations = [
        replace(GOOD, name=name, file=f"src/netpoll/_native/{module}.pyx")
        for name, module in names.items()
    ]
    python = replace(GOOD, name="d")
    rounds = list(run.rounds([*mutations, python]))
    assert [[one.name for one in one_round] for one_round in rounds] == [["d"], ["a", "b"], ["c"]]
    for one in mutations:
        rig.file(one.file, one.old)
        rig.file(one.file.replace(".pyx", ".x.so"), "built")

    def build() -> Done:
        for module in ("handle", "numbers"):
            source = rig.tree / f"src/netpoll/_native/{module}.pyx"
            source.with_suffix(".x.so").write_text(
                "mutated" if GOOD.new in source.read_text() else ""
            )
        return Done(0, "")

    monkeypatch.setattr(run, "build_extensions", build)
    run.build_together(rounds[1])
    assert [run.extension_of(one).read_text() for one in mutations] == ["built"] * 3
    for one in rounds[1]:
        with run.applied(one, is_built=True):
            assert run.put_built(one).status == 0
            assert run.extension_of(one).read_text() == "mutated"
        assert run.extension_of(one).read_text() == "built"


def test_objects_of_c_tests_are_made_again(rig: Rig) -> None:
    kept = rig.file("build/c-tests/asan/np_iov.o")
    gone = [rig.file(f"build/c-tests/asan/{name}") for name in ("np_op.o", "test_op")]
    mutation = replace(GOOD, file="csrc/io/np_op.c", tests=("tests/c/test_op.c::a",))
    rig.file(mutation.file, mutation.old)
    rig.ends = [Done(0, ""), PASSES, Done(0, ""), FAILS]
    assert run.try_out(mutation).verdict == KILLED
    assert kept.exists() and not any(path.exists() for path in gone)
    assert [command.split()[0] for command in rig.seen[::2]] == ["make", "make"]


def test_results_are_kept_as_long_as_nothing_changes(rig: Rig) -> None:
    path = run.WORK / "results.json"
    cli.Results(path).keep(GOOD, Outcome(KILLED, "seen"), 1.0)
    results = cli.Results(path)
    assert results.find(GOOD) == Outcome(KILLED, "seen")
    assert results.find(replace(GOOD, new="TEST_TIMEOUT_S = 1")) is None
    results.keep(GOOD, Outcome(SURVIVED), 1.0)
    assert cli.Results(path).find(GOOD) is None


def test_one_run_at_a_time(rig: Rig) -> None:
    with run.alone(), pytest.raises(SystemExit, match="another run"), run.alone():
        pass


def test_names_that_are_not_there() -> None:
    everything = Catalogue((GOOD, replace(GOOD, name="other", number=2)), {})
    assert cli.chosen(everything, [], None) == list(everything.mutations)
    assert [one.name for one in cli.chosen(everything, [], 2)] == ["other"]
    with pytest.raises(SystemExit, match="no mutation has this name: gone"):
        cli.chosen(everything, ["good", "gone"], None)
