"""The C core's files stand in an order: each calls those below it, in no circle. States of
operations are written in one place. The table of verbs stays small, with every verb filled in. No
native method only declares, and lives end in one place.

A file that calls only downwards can be read, tested and changed with what is below it alone. No
list of the order has to be kept: any order will do, as long as there is one. Includes are looked
at in test_rooms.py; they do not show this, because files that share a header may call each other.
"""

import itertools
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"

# From whom to whom, and what it uses there.
Uses = dict[str, dict[str, set[str]]]


def name_of(path: Path) -> str:
    return path.relative_to(CSRC).as_posix()


def folder_of(name: str) -> str:
    return PurePosixPath(name).parent.as_posix()


def uses_of(edges: Iterable[tuple[str, str, str]]) -> Uses:
    """Of (from, to, what); what a file uses of its own is left out."""
    uses: Uses = defaultdict(lambda: defaultdict(set))
    for source, target, what in edges:
        if source != target:
            uses[source][target].add(what)
    return uses


def circle_in(uses: Uses) -> str:
    """One circle, a line for each step with what makes it; empty: there is none."""
    try:
        TopologicalSorter({source: list(targets) for source, targets in uses.items()}).prepare()
    except CycleError as error:
        path = error.args[1][::-1]  # from a node to one that it uses
        steps = itertools.pairwise(path)
        return "\n".join(f"{a} -> {b}: {', '.join(sorted(uses[a][b]))}" for a, b in steps)
    return ""


def test_circles_are_found() -> None:
    line = [("a", "b", "f"), ("b", "c", "g"), ("a", "c", "h"), ("c", "c", "itself")]
    assert circle_in(uses_of(line)) == ""
    found = circle_in(uses_of([*line, ("c", "a", "back"), ("x", "a", "aside")]))
    assert "c -> a: back" in found.splitlines()
    assert "aside" not in found


# ---- calls ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """(file, file, name): the first uses what the second defines. Unoptimised, so that no call
    is lost by being inlined."""
    compiler, nm = shutil.which("cc"), shutil.which("nm")
    assert compiler and nm, "a C compiler built this; where is it now?"
    folder = tmp_path_factory.mktemp("objects")
    defined: dict[str, str] = {}
    wanted: list[tuple[str, str]] = []
    for path in sorted(CSRC.rglob("*.c")):
        target = folder / f"{path.stem}.o"
        flags = ["-std=gnu11", "-O0", "-fPIC", f"-I{CSRC}"]
        subprocess.run([compiler, *flags, "-c", str(path), "-o", str(target)], check=True)
        listing = subprocess.run([nm, str(target)], capture_output=True, text=True, check=True)
        for line in listing.stdout.splitlines():
            *_, kind, symbol = line.split()
            if kind == "U":
                wanted.append((name_of(path), symbol))
            elif kind in "TDBRC":
                assert symbol not in defined, f"{symbol}: {defined[symbol]} and {name_of(path)}"
                defined[symbol] = name_of(path)
    found = [(user, defined[symbol], symbol) for user, symbol in wanted if symbol in defined]
    assert len(found) > 100, "nm's listing is not understood any more"
    return found


def test_c_files_call_in_one_direction(calls: list[tuple[str, str, str]]) -> None:
    circle = circle_in(uses_of(calls))
    assert not circle, f"these files call each other in a circle:\n{circle}"


def test_c_folders_call_in_one_direction(calls: list[tuple[str, str, str]]) -> None:
    circle = circle_in(uses_of((folder_of(a), folder_of(b), name) for a, b, name in calls))
    assert not circle, f"these folders call each other in a circle:\n{circle}"


# ---- states ---------------------------------------------------------------------------------


def test_states_of_operations_are_written_in_one_place() -> None:
    """By the functions of np_op.h that assert its drawing (tasks have theirs in np_task.c, as an
    atomic that is not assigned)."""
    writing = re.compile(r"(?:->|\.)\s*state\s*(?:[-+|&^]?=)(?!=)")
    writers = {name_of(p) for p in CSRC.rglob("*.[ch]") if writing.search(p.read_text())}
    assert writers == {"io/np_op.c", "io/np_op.h"}


# ---- verbs ----------------------------------------------------------------------------------

VERBS_MAX_COUNT = 12
TABLES = {"np_epoll_ops": "io/np_epoll.c", "np_uring_ops": "io/uring/np_uring.c"}


def body_of(text: str, beginning: str) -> str:
    """From `beginning` to the brace that ends it in the first column."""
    assert text.count(beginning) == 1, beginning
    return text.split(beginning)[1].split("\n};", maxsplit=1)[0]


@pytest.fixture(scope="module")
def verbs() -> list[str]:
    body = body_of((CSRC / "io/np_backend.h").read_text(), "struct np_backend_ops {")
    return re.findall(r"\(\*(\w+)\)\(struct np_backend", body)


def test_the_table_of_verbs_is_small(verbs: list[str]) -> None:
    """A verb is what the two backends do differently. What they do alike is a field of
    np_backend_head or a function on it (docs/decisions/twelve-verbs.md)."""
    assert "turn" in verbs, "the table is not understood any more"
    assert len(verbs) == len(set(verbs)) <= VERBS_MAX_COUNT, verbs


def test_every_verb_is_documented(verbs: list[str]) -> None:
    body = body_of((CSRC / "io/np_backend.h").read_text(), "struct np_backend_ops {")
    documented = re.findall(r"\*/\n    \w+ \(\*(\w+)\)", body)
    assert documented == verbs


@pytest.mark.parametrize("table", TABLES)
def test_a_backend_has_exactly_these_verbs(verbs: list[str], table: str) -> None:
    text = (CSRC / TABLES[table]).read_text()
    body = body_of(text, f"const struct np_backend_ops {table} = {{")
    filled = re.findall(r"^    \.(\w+) = (\w+),", body, re.MULTILINE)
    assert [name for name, _ in filled] == verbs
    assert len({function for _, function in filled}) == len(verbs), "a function for each verb"


def test_cython_sees_exactly_these_verbs(verbs: list[str]) -> None:
    pxd = CSRC.parent / "src/netpoll/_native/c.pxd"
    body = pxd.read_text().split("    struct np_backend_ops:\n")[1].split("\n\n")[0]
    assert re.findall(r"^        \w+ \(\*(\w+)\)\(np_backend ", body, re.MULTILINE) == verbs


# ---- the native layer -----------------------------------------------------------------------

NATIVE = CSRC.parent / "src" / "netpoll"


def native_files() -> list[Path]:
    found = [*NATIVE.glob("*.pyx"), *(NATIVE / "_native").rglob("*.pyx")]
    assert len(found) > 30
    return sorted(found)


def test_every_native_method_has_a_body() -> None:
    """A method that only declares what another file has cuts one class in two. What a program may
    not call is refused with a sentence."""
    declares = re.compile(r"raise NotImplementedError(?:\(\))?\s*$", re.MULTILINE)
    assert declares.search("        raise NotImplementedError\n")
    found = [path.name for path in native_files() if declares.search(path.read_text())]
    assert not found


def test_the_steps_of_a_life_are_taken_in_one_place() -> None:
    """csrc/base/np_life.h draws the life; who else sets one of its bits has another way to end."""
    step = re.compile(r"np_life\(|(?:\||&)= ~?NP_(?:CLOSING|LOST|GONE)\b")
    found = {path.name for path in native_files() if step.search(path.read_text())}
    assert found == {
        "endpoint.pyx",  # transports
        "pipe.pyx",  # the end of a pipe is read: no more is
        "host.pyx",  # connections of the server
        "secure.pyx",  # and they have to say goodbye first
    }
