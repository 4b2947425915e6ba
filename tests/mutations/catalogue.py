"""The list of mutations: which guard, of which class of bugs, seen by which tests.

*.toml beside this file have it. A mutation replaces one piece of text, `old`, which its file has
once, by another, `new`, so that a guard is gone; each of `tests` alone is enough to see that:
pytest's node ids, or `tests/c/test_op.c::a_test_in_it`. A class of which no test can see the guard
has an `unseen` with the reason.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "bug-classes.md"
BEGIN, END = "<!-- mutations -->\n", "<!-- end of mutations -->\n"


@dataclass(frozen=True)
class Mutation:
    name: str
    number: int
    guard: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def is_native(self) -> bool:
        return self.file.endswith((".c", ".h"))


@dataclass(frozen=True)
class Catalogue:
    mutations: tuple[Mutation, ...]
    unseen: dict[int, str]

    def classes(self) -> set[int]:
        return {one.number for one in self.mutations}


def read(paths: Iterable[Path] | None = None) -> Catalogue:
    mutations, unseen = [], {}
    for path in sorted(Path(__file__).parent.glob("*.toml")) if paths is None else paths:
        document = tomllib.loads(path.read_text())
        for entry in document.get("mutation", []):
            entry["number"], entry["tests"] = entry.pop("class"), tuple(entry["tests"])
            mutations.append(Mutation(**entry))
        unseen |= {entry["class"]: entry["reason"] for entry in document.get("unseen", [])}
    return Catalogue(tuple(mutations), unseen)


def classes_of_page() -> list[int]:
    """The numbers of the page's classes, in its order."""
    lines = PAGE.read_text().split(BEGIN)[0]
    return [int(number) for number in re.findall(r"^\| (\d+) \|", lines, re.MULTILINE)]


# ---- what is wrong with the list ------------------------------------------------------------


def faults(catalogue: Catalogue, known: Iterable[int]) -> Iterator[str]:
    """One sentence for each. known: the numbers of the classes that there are."""
    numbers = set(known)
    for name, count in Counter(one.name for one in catalogue.mutations).items():
        if count > 1:
            yield f"{name}: {count} mutations have this name"
    for one in catalogue.mutations:
        yield from (f"{one.name}: {fault}" for fault in faults_of(one))
        if one.number not in numbers:
            yield f"{one.name}: there is no class {one.number}"
    for number in sorted(catalogue.unseen.keys() - numbers):
        yield f"a reason is given for class {number}, which is not there"
    for number in sorted(catalogue.unseen.keys() & catalogue.classes()):
        yield f"class {number} has a mutation and a reason why it has none"
    for number in sorted(numbers - catalogue.classes() - catalogue.unseen.keys()):
        yield f"class {number} has neither a mutation nor a reason why it has none"


def faults_of(one: Mutation) -> Iterator[str]:
    source = ROOT / one.file
    if not source.is_file():
        yield f"there is no {one.file}"
        return
    count = source.read_text().count(one.old)
    if count != 1:
        yield f"its old text occurs {count} times in {one.file}"
    if one.old == one.new:
        yield "it changes nothing"
    if not one.tests:
        yield "no test is named"
    for test in one.tests:
        file, _, name = test.partition("::")
        path = ROOT / file
        function = re.split(r"::|\[", name)[-1 if "[" not in name else -2] if name else ""
        if not path.is_file():
            yield f"there is no {file}"
        elif not re.search(rf"\b{re.escape(function)}\(", path.read_text()):
            yield f"{file} has no test {function!r}"


# ---- the table of the page ------------------------------------------------------------------


def table(catalogue: Catalogue, numbers: Iterable[int]) -> str:
    lines = ["| # | the guard that is taken out | mutation |", "|---|---|---|"]
    for number in sorted(set(numbers)):
        for one in catalogue.mutations:
            if one.number == number:
                lines.append(f"| {number} | {one.guard} | `{one.name}` |")
        if number in catalogue.unseen:
            lines.append(f"| {number} | none: {catalogue.unseen[number]} | |")
    return "\n".join(lines) + "\n"


def with_table(page: str, content: str) -> str:
    before, rest = page.split(BEGIN)
    return before + BEGIN + "\n" + content + "\n" + END + rest.split(END)[1]
