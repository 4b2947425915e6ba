"""The docs are under test: pages are reachable, and what they and the comments name is there.

A file is named by its path or by the end of it (`loop/collect.pyx`); a bare name (`np_epoll.c`)
may stand in any folder. Names of the C core (`np_op_alloc`, `NP_SQ_DEFAULT_ENTRIES`) and methods of
our classes (`Loop._turn`) are looked up in the code.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from netpoll._telemetry.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FOLDERS = "docs deploy src csrc tests benchmarks bench changes examples scripts .github".split()

# Files that are named and are not ours: of CPython, of the kernel, of others; or of a user.
NOT_OURS = {
    "Python.h",
    "include/uapi/linux/io_uring.h",
    "include/uapi/linux/udp.h",
    "linux/tcp.h",
    "linux/udp.h",
    "netpoll-bench-echo.html",
    "openssl/bio.h",
    "openssl/ssl.h",
    "posix-timers.h",
}

# The same for identifiers: of CPython; and one of an example.
NAMES_NOT_OURS = {
    "_accept_connection2",
    "_called_connection_lost",
    "_do_read",
    "_incoming",
    "_outgoing",
    "_protocol_connected",
    "_read_ready",
    "_read_ready__data_received",
    "_sslpipe",
    "_write_ready",
    "gc_collect_main",
    "selector_events",
    "test_my_tasks",
}

FILE = re.compile(
    r"(?<![\w/.*<{-])((?:[\w.-]+/)*[\w-]+\.(?:py|pyx|pxd|pyi|c|h|md|toml|cdef|html))"
    r"(?![\w(*/-]|\.\w)"
)
CORE_NAME = re.compile(r"(?<![\w*-])(?:np|NP)_\w*[A-Za-z0-9](?![\w*-])")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


@cache
def file_names() -> frozenset[str]:
    """Every file, by its path and by every end of that path."""
    paths = [path.relative_to(ROOT) for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        paths += [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*")]
    return frozenset("/".join(path.parts[i:]) for path in paths for i in range(len(path.parts)))


COMMENTS_OF_C = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
COMMENTS_OF_PYTHON = re.compile(r'"""(?:.|\n)*?"""|#[^\n]*')


def sources() -> Iterator[tuple[Path, re.Pattern[str]]]:
    """The source files, each with what is a comment or a docstring there."""
    for path in sorted((ROOT / "csrc").rglob("*.[ch]")):
        yield path, COMMENTS_OF_C
    for path in sorted((ROOT / "src" / "netpoll").rglob("*")):
        if path.suffix in {".py", ".pyx", ".pxd", ".pyi"}:
            yield path, COMMENTS_OF_PYTHON


@cache
def prose() -> dict[str, str]:
    """What people read: pages without their examples, comments, docstrings. By file."""
    found = {name_of(path): comments_in(path, pattern) for path, pattern in sources()}
    for page in [
        *pages(),
        *ROOT.glob("*.md"),
        *ROOT.glob("benchmarks/*.md"),
        *ROOT.glob("changes/*.md"),
    ]:
        if page.name != "CHANGELOG.md":  # tells of what was there then
            found[name_of(page)] = FENCED.sub("", page.read_text())
    return found


def comments_in(path: Path, pattern: re.Pattern[str]) -> str:
    return "\n".join(pattern.findall(path.read_text()))


# ---- pages ----------------------------------------------------------------------------------


def navigation() -> list[str]:
    text = (ROOT / "mkdocs.yml").read_text()
    return re.findall(r"^\s*-[^:\n]*: *(\S+\.md)\s*$", text.split("\nnav:")[1], re.MULTILINE)


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(navigation()) == [path.relative_to(DOCS).as_posix() for path in pages()]


def test_every_page_is_linked_from_another() -> None:
    link = re.compile(r"\]\((?!https?://|#)([^)#]+)")
    linked = {
        (page.parent / target).resolve()
        for page in pages()
        for target in link.findall(page.read_text())
        if (page.parent / target).resolve() != page.resolve()
    }
    assert [name_of(page) for page in pages() if page.resolve() not in linked] == ["docs/index.md"]


def test_every_page_has_one_title() -> None:
    titles = {
        name_of(page): len(re.findall(r"^# ", FENCED.sub("", page.read_text()), re.MULTILINE))
        for page in pages()
    }
    assert {name: count for name, count in titles.items() if count != 1} == {}


# ---- what is named --------------------------------------------------------------------------


def test_named_files_are_there() -> None:
    missing = [
        f"{name}: {file}"
        for name, text in prose().items()
        for file in sorted(set(FILE.findall(text)))
        if re.sub(r"^(\.{1,2}/)+", "", file) not in file_names() | NOT_OURS
    ]
    assert not missing, "\n".join(missing)


def test_names_of_others_are_still_used() -> None:
    named = {file for text in prose().values() for file in FILE.findall(text)}
    assert NOT_OURS - named == set()
    used = set().union(*(identifiers(name, text) for name, text in prose().items()))
    assert NAMES_NOT_OURS - used == set()


def test_named_parts_of_the_core_are_there() -> None:
    core = [
        COMMENTS_OF_C.sub("", path.read_text())
        for folder in ("csrc", "tests/c")
        for path in (ROOT / folder).rglob("*.[ch]")
    ]
    # The few lines of C that need Python.h stand in these files, as text.
    core += [path.read_text() for path in (ROOT / "src" / "netpoll" / "_native").rglob("c.pxd")]
    there = set(re.findall(r"\b(?:np|NP)_\w+", "\n".join(core)))
    there |= {path.stem for path in (ROOT / "csrc").rglob("*")}  # np_uring: the file
    missing = [
        f"{name}: {word}"
        for name, text in prose().items()
        for word in sorted(set(CORE_NAME.findall(text)) - there)
    ]
    assert not missing, "\n".join(missing)


def test_named_methods_are_there() -> None:
    code = "\n".join(pattern.sub("", path.read_text()) for path, pattern in sources())
    classes = set(re.findall(r"^\s*(?:cdef )?class (\w+)", code, re.MULTILINE))
    members = set(re.findall(r"\b(\w+)(?=\(| *=|: )", code))
    missing = [
        f"{name}: {cls}.{member}"
        for name, text in prose().items()
        for cls, member in sorted(set(re.findall(r"`([A-Z]\w+)\.(\w+)", text)))
        if cls in classes and member not in members
    ]
    assert not missing, "\n".join(missing)


IN_BACKTICKS = re.compile(r"`([^`\n]+)`")
# Names in capitals are the kernel's, or the core's, of which another test knows.
IDENTIFIER = re.compile(r"(?<![\w-])(?:[A-Za-z]\w*_\w*[a-z]\w*|_[a-z]\w+)")
CALL = re.compile(r"(?<![\w.])([A-Za-z_]\w+)\(\)")


@cache
def words_of_the_code() -> frozenset[str]:
    """Every word of the code, its comments excepted, of the tests and tools; names of files."""
    texts = [pattern.sub("", path.read_text()) for path, pattern in sources()]
    names = {path.stem for path, _ in sources()}
    for folder in ("tests", "benchmarks", "examples", "scripts"):
        for path in (ROOT / folder).rglob("*"):
            names.add(path.stem)
            if path.suffix in {".py", ".c", ".h", ".toml"} and path != Path(__file__).resolve():
                texts.append(path.read_text())
    texts += [(ROOT / name).read_text() for name in ("setup.py", "test", "pyproject.toml")]
    for row in METRICS:  # tests/telemetry compares the pages' names with these
        names |= {row.prometheus_name, f"{row.prometheus_name}_total"}
    return frozenset(names.union(*(re.findall(r"\w+", text) for text in texts)))


def identifiers(name: str, text: str) -> set[str]:
    """In a page what stands in backticks, in a comment what is called."""
    if name.endswith(".md"):
        return {w for code in IN_BACKTICKS.findall(text) for w in IDENTIFIER.findall(code)}
    return set(CALL.findall(text))


def test_named_functions_are_there() -> None:
    missing = [
        f"{name}: {word}"
        for name, text in prose().items()
        for word in sorted(identifiers(name, text) - words_of_the_code() - NAMES_NOT_OURS)
    ]
    assert not missing, "\n".join(missing)


def test_named_modules_are_there() -> None:
    """`netpoll.sched`, `netpoll.Server`: a module, or a name that the package exports."""
    package = ROOT / "src" / "netpoll"
    exported = set(re.findall(r"\w+", (package / "__init__.py").read_text()))
    there = exported | {path.stem for path in package.iterdir()}
    attributes = {name for row in METRICS for one in row.keys.values() for name in one}
    for name in ["netpoll.source", "netpoll.worker", *attributes, *(row.name for row in METRICS)]:
        there.add(name.split(".")[1])
    named = re.compile(r"(?<![\w./-])netpoll\.([A-Za-z_]\w*)(?![\w/]|\.(?:html|json))")
    missing = [
        f"{name}: netpoll.{word}"
        for name, text in prose().items()
        for word in sorted(set(named.findall(text)) - there)
    ]
    assert not missing, "\n".join(missing)


def glossary() -> Iterator[tuple[list[str], list[str]]]:
    """The words of each row, and the files where they are at home."""
    for line in (DOCS / "glossary.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 6 and cells[1] != "word" and cells[1].strip("-"):
            words = re.sub(r"\([^)]*\)|\bto (?=\w)", "", cells[1]).split(",")
            yield [word.strip().lower() for word in words], re.findall(r"`([^`]+)`", cells[4])


def test_words_of_the_glossary_are_at_home_in_their_files() -> None:
    texts = {path.as_posix(): path.read_text().lower() for path, _ in sources()}
    wrong = []
    for words, homes in glossary():
        ends = tuple(f"/{home}" for home in homes)
        found = [text for path, text in texts.items() if path.endswith(ends)]
        for word in words:
            if not any(word in text or word.replace(" ", "_") in text for text in found):
                wrong.append(f"{word}: not in {', '.join(homes) or 'any file'}")
    assert not wrong, "\n".join(wrong)


def test_files_call_themselves_by_their_name() -> None:
    first = re.compile(
        r"\A(?:/\* (\w+\.[ch]) - |# The seam of ([\w/]+)\.pyx|\"\"\"Types of ([\w/]+)\.pyx)"
    )
    wrong, count = [], 0
    for path, _ in sources():
        match = first.match(path.read_text())
        if match:
            count += 1
            own = match[1] or next(filter(None, match.groups())) + path.suffix
            if not path.as_posix().endswith(f"/{own}"):
                wrong.append(f"{name_of(path)} calls itself {own}")
    assert not wrong
    assert count > 60


def test_classes_of_bugs_have_their_line() -> None:
    listed = set(re.findall(r"^\| (\d+) \|", (DOCS / "bug-classes.md").read_text(), re.MULTILINE))
    assert len(listed) > 40
    named = re.compile(r"bug class(?:es)? ((?:\d+(?:, | and )?)+)")
    for path in sorted((ROOT / "tests").rglob("*")):
        if path.suffix in {".py", ".c", ".h"}:
            for numbers in named.findall(path.read_text()):
                assert set(re.findall(r"\d+", numbers)) <= listed, name_of(path)


# ---- this file can fail ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("see np_gone.c.", ["np_gone.c"]),
        (
            "`tests/loop/test_order.py`, and (loop/collect.pyx)",
            ["tests/loop/test_order.py", "loop/collect.pyx"],
        ),
        ("`[a](turn.md)`", ["turn.md"]),
        ("asyncio.h, e.g. os.path", ["asyncio.h"]),
        ("np_uring*.c, exec.coroutine", []),
    ],
)
def test_files_are_found_in_prose(text: str, files: list[str]) -> None:
    assert FILE.findall(text) == files


def test_an_end_of_a_path_names_a_file() -> None:
    assert {"np_epoll.c", "io/np_epoll.c", "csrc/io/np_epoll.c"} <= file_names()
    assert "loop/np_epoll.c" not in file_names()
