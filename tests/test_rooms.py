"""The rooms of the source, and which room may use which: docs/architecture.md in a form to run.

A room is a folder: of the package (`_native/loop`) or of the C core (`csrc/io`). A module that
stands directly in the package is a room of its own. Use goes one way: no room, and no module,
reaches itself again. Imports that only types need, and imports within a function, count as well.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "netpoll"
CORE = ROOT / "csrc"
PAGE = ROOT / "docs" / "architecture.md"

# Room -> the rooms that it may use. docs/architecture.md has the same in its tables.
ROOMS: dict[str, set[str]] = {
    # Public modules.
    "__init__": {
        "_native/memory",
        "_native/server",
        "config",
        "errors",
        "files",
        "loop",
        "probe",
        "sched",
        "server",
    },
    "__main__": {"cli"},
    "cli": {"_serve", "_telemetry", "bench", "probe"},
    "config": set(),
    "errors": set(),
    "files": {"_files", "_native/files"},
    "loop": {
        "_aio",
        "_core",
        "_native/loop",
        "_native/tls",
        "_native/transport",
        "_telemetry",
        "config",
        "errors",
        "probe",
        "stats",
        "tls",
    },
    "offload": {"_native/sched", "_native/server", "sched"},
    "probe": {"_native", "errors"},
    "sched": {"_former", "_native/sched", "_telemetry", "config", "loop", "stats"},
    "http": {"_former", "_http", "_native/http", "_native/server", "config", "loop", "server"},
    "server": {
        "_former",
        "_native/memory",
        "_native/server",
        "_server",
        "_telemetry",
        "config",
        "loop",
        "stats",
    },
    "stats": set(),
    "telemetry": {"_telemetry", "http"},
    "testing": {"_core", "_native/sched", "_native/testing", "sched"},
    "tls": {"_native/tls"},
    "uring": {"_files", "_native/loop", "errors"},
    # Python behind the public modules.
    "_aio": {"_core", "_native/transport", "errors"},
    "_former": set(),
    "_files": {"_core", "_native/files", "errors"},
    "_serve": {"_native/server", "_server", "_telemetry", "config", "http", "loop", "server"},
    "_server": {"_native/server", "loop"},
    "_pyinstaller": set(),
    "_http": {"_native/http", "_telemetry"},
    "_telemetry": set(),
    "bench": {"__init__", "loop", "offload", "sched"},
    "bench/kinds": {"__init__", "bench"},
    "bench/programs": {"bench", "http"},
    # Cython.
    "_core": {"_native", "errors"},
    "_native": set(),
    "_native/http": {"_core", "_native", "_native/loop", "_native/server"},
    "_native/files": {"_core", "_native", "_native/loop"},
    "_native/loop": {"_core", "_native", "stats"},
    "_native/memory": {"_core", "_native", "config", "errors", "loop", "stats"},
    "_native/sched": {"_core", "_native", "_native/loop", "stats"},
    "_native/server": {
        "_core",
        "_native",
        "_native/loop",
        "_native/memory",
        "_native/tls",
        "_native/transport",
        "loop",
    },
    "_native/testing": {"_core", "_native"},
    "_native/tls": {"_core", "_native", "_native/loop", "_native/transport"},
    "_native/transport": {"_core", "_native", "_native/loop"},
    # C.
    "csrc/base": set(),
    "csrc/bench": {"csrc/base", "csrc/io"},
    "csrc/http": {"csrc/base", "csrc/mem"},
    "csrc/io": {"csrc/base", "csrc/mem"},
    "csrc/io/uring": {"csrc/base", "csrc/io", "csrc/mem"},
    "csrc/mem": {"csrc/base"},
    "csrc/probe": {"csrc/base"},
    "csrc/sched": {"csrc/base", "csrc/io"},
    "csrc/server": {"csrc/base", "csrc/io", "csrc/mem", "csrc/sched"},
    "csrc/testing": {"csrc/base", "csrc/io", "csrc/io/uring", "csrc/mem"},
    "csrc/tls": {"csrc/base"},
}

Graph = dict[str, set[str]]  # a module, or a room -> those that it uses


# ---- who uses whom --------------------------------------------------------------------------


def module_of(path: Path) -> str:
    """`netpoll._native.loop.sock`, whichever of a module's files it is."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of_python(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name), also within functions and under TYPE_CHECKING; name "" for the module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.parent.relative_to(PACKAGE.parent).parts
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            yield from ((base, alias.name) for alias in node.names)


FROM = re.compile(r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n]+)", re.MULTILINE)
IMPORT = re.compile(r"^[ \t]*c?import[ \t]+([^\n(]+)", re.MULTILINE)
NOT_CODE = re.compile(r'"""(?:.|\n)*?"""|#[^\n]*')


def first_words(names: str) -> Iterator[str]:
    """`a, b as c` -> a, b"""
    for name in names.strip("() \n").split(","):
        if name.strip():
            yield name.split()[0]


def imports_of_cython(path: Path) -> Iterator[tuple[str, str]]:
    text = NOT_CODE.sub("", path.read_text())
    for match in FROM.finditer(text):
        yield from ((match[1], name) for name in first_words(match[2]))
    for match in IMPORT.finditer(text):
        yield from ((name, "") for name in first_words(match[1]))


READERS = {
    ".py": imports_of_python,
    ".pyi": imports_of_python,
    ".pyx": imports_of_cython,
    ".pxd": imports_of_cython,
}


@cache
def modules() -> Graph:
    """Every module of the package, with the modules of the package that it imports."""
    paths = [path for path in sorted(PACKAGE.rglob("*")) if path.suffix in READERS]
    graph: Graph = {module_of(path): set() for path in paths}
    for path in paths:
        user = module_of(path)
        for module, name in READERS[path.suffix](path):
            used = f"{module}.{name}" if f"{module}.{name}" in graph else module
            if used in graph and used != user:
                graph[user].add(used)
    return graph


@cache
def units() -> Graph:
    """Every unit of the C core (`io/np_op`: header and file) with those that it includes."""
    include = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
    graph: Graph = {}
    for path in sorted(CORE.rglob("*.[ch]")):
        user = path.relative_to(CORE).with_suffix("").as_posix()
        used = {name.rpartition(".")[0] for name in include.findall(path.read_text())}
        graph.setdefault(user, set()).update(used - {user})
    return graph


def room_of_module(module: str) -> str:
    parts = module.split(".")[1:]
    if not parts:
        return "__init__"
    folder = PACKAGE.joinpath(*parts)
    return "/".join(parts if len(parts) == 1 or folder.is_dir() else parts[:-1])


def room_of_unit(unit: str) -> str:
    return f"csrc/{unit.rpartition('/')[0]}"


# ---- what is wrong with it ------------------------------------------------------------------


def circle_in(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle, first and last the same; [] when there is none."""
    finished: set[str] = set()

    def search(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in finished:
            return []
        for following in sorted(graph.get(node, ())):
            circle = search(following, [*path, node])
            if circle:
                return circle
        finished.add(node)
        return []

    return next((circle for node in sorted(graph) if (circle := search(node, []))), [])


def rooms_in(table: str) -> dict[str, set[str]]:
    """The rows `| room | may use | ...` of the page's tables, those of tests excepted."""
    found = {}
    for line in table.split("### Tests", maxsplit=1)[0].splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        room = re.fullmatch(r"`([\w/]+)`", cells[1]) if len(cells) > 3 else None
        if room:
            found[room[1]] = set(re.findall(r"`([\w/]+)`", cells[2]))
    return found


# ---- the tests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "room_of"),
    [(modules, room_of_module), (units, room_of_unit)],
    ids=["package", "core"],
)
def test_rooms_use_only_what_they_may(
    graph: Callable[[], Graph], room_of: Callable[[str], str]
) -> None:
    wrong = []
    for user, used in graph().items():
        room = room_of(user)
        assert room in ROOMS, f"{user} stands in a room that ROOMS does not name: {room}"
        wrong += [
            f"{user} uses {other}; {room} may not use {room_of(other)}"
            for other in sorted(used)
            if room_of(other) not in ROOMS[room] | {room}
        ]
    assert not wrong, "\n".join(wrong)


def test_no_module_reaches_itself() -> None:
    assert circle_in(modules()) == []


def test_no_unit_of_the_core_reaches_itself() -> None:
    assert circle_in(units()) == []


def test_no_room_reaches_itself() -> None:
    assert circle_in(ROOMS) == []


def test_every_room_is_there() -> None:
    there = {room_of_module(module) for module in modules()} | {room_of_unit(u) for u in units()}
    assert set(ROOMS) == there


def test_the_page_has_the_same_tables() -> None:
    assert rooms_in(PAGE.read_text()) == ROOMS


# ---- this file can fail ---------------------------------------------------------------------


def test_the_readers_find_what_is_imported() -> None:
    graph = modules()
    assert len(graph) > 60
    assert "netpoll._native.c" in graph["netpoll._core"]  # cimport with parentheses
    assert "netpoll._native.server.worker" in graph["netpoll._native.server.secure"]
    assert "netpoll._aio.host" in graph["netpoll.loop"]
    assert "io/np_event" in units()["io/np_op"] | units()["io/np_backend"]


def test_a_circle_is_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
