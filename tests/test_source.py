"""The source is under test too: sizes, walls between files, no hidden state, typed exports."""

import ast
import inspect
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import netpoll
from netpoll._former import CONNECTION

ROOT = Path(__file__).resolve().parent.parent

LINE_MAX = 100
FUNCTION_MAX_LINES = 70
FILE_MAX_LINES = 700

# The ratchet: longer functions that are there, with their length. A number may only shrink, and
# leaves this table when it is FUNCTION_MAX_LINES or less.
LONG_FUNCTIONS: dict[str, int] = {}

# The same for files.
LONG_FILES = {
    "tests/c/test_backend.c": 703,
    "tests/c/test_http1.c": 741,
    "tests/regress/reentrant.py": 788,
}

# `cdef extern` belongs into the c.pxd of its room. Elsewhere: what only one extension has.
EXTERN_ALLOWED = {
    "src/netpoll/_native/c.pxd": None,
    "src/netpoll/_native/http/c.pxd": None,
    "src/netpoll/_native/sched/c.pxd": None,
    "src/netpoll/_native/tls/c.pxd": None,
    "src/netpoll/_native/testing/c.pxd": {"testing/np_fault.h", "testing/np_faulty.h"},
    "src/netpoll/_native/poll.pxd": {"<poll.h>"},
    "src/netpoll/_native/probe.pyx": {"probe/np_probe.h"},
    "src/netpoll/bench/_native.pyx": None,
}

# Who may speak to which kernel interface.
INCLUDE_ALLOWED = {
    "liburing.h": {"np_prep.h", "np_uring.h", "np_probe.c", "np_floor.c"},
    "sys/epoll.h": {
        *("np_epoll.c", "np_probe.c", "np_floor.c", "np_floor_http.c", "np_floor_udp.c"),
        *("np_loadgen.c", "np_loadhttp.c", "closed_loop.c"),
    },
    "Python.h": set(),
}

FOLDERS = ("csrc", "src", "tests", "benchmarks", "examples", "scripts")
SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".c", ".h"}


def source_files(*suffixes: str) -> list[Path]:
    wanted = set(suffixes) or SUFFIXES
    found = [ROOT / "setup.py"] if ".py" in wanted else []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            # Cython leaves its C beside the source when it is called by hand.
            if path.suffix == ".c" and path.with_suffix(".pyx").exists():
                continue
            if path.suffix in wanted:
                found.append(path)
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---- sizes ----------------------------------------------------------------------------------


def test_lines_are_short() -> None:
    long = [
        f"{name_of(path)}:{number}: {len(line)}"
        for path in source_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LINE_MAX
    ]
    assert not long, "\n".join(long)


def test_files_are_short() -> None:
    lengths = {name_of(p): len(p.read_text().splitlines()) for p in source_files()}
    long = {name: length for name, length in lengths.items() if length > FILE_MAX_LINES}
    grown = {name: n for name, n in long.items() if n > LONG_FILES.get(name, 0)}
    assert not grown, "split them"


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def cython_functions(path: Path) -> Iterator[tuple[str, int]]:
    """By indentation: from the line of `def` to the last one that stands deeper."""
    start = re.compile(r"^( *)(?:async )?(?:def|cdef|cpdef) (?!class|struct|enum|extern).*?(\w+)\(")
    lines = path.read_text().splitlines()
    for first, line in enumerate(lines):
        match = start.match(line)
        if not match or "=" in line.split("(")[0]:
            continue
        last = first
        for number in range(first + 1, len(lines)):
            text = lines[number]
            if text.strip() and not text.strip().startswith("#"):
                depth = len(text) - len(text.lstrip())
                # A signature over several lines closes at the depth of its `def`.
                if depth <= len(match[1]) and not text.lstrip().startswith(")"):
                    break
                last = number
        yield match[2], last - first + 1


def c_functions(path: Path) -> Iterator[tuple[str, int]]:
    """A function's braces stand at the start of a line; its name is in the lines above."""
    lines = path.read_text().splitlines()
    for first, line in enumerate(lines):
        if line != "{":
            continue
        head = first - 1
        while head > 0 and lines[head - 1] and lines[head - 1][-1] in ",(":
            head -= 1
        last = lines.index("}", first)
        match = re.search(r"(\w+)\(", lines[head])
        assert match, f"{name_of(path)}:{head + 1} does not look like a function"
        yield match[1], last - head + 1


def function_lengths() -> dict[str, int]:
    readers = {
        ".py": python_functions,
        ".pyx": cython_functions,
        ".pxd": cython_functions,
        ".c": c_functions,
        ".h": c_functions,
    }
    lengths: dict[str, int] = {}
    for path in source_files(*readers):
        for function, length in readers[path.suffix](path):
            key = f"{name_of(path)}:{function}"
            lengths[key] = max(length, lengths.get(key, 0))
    return lengths


def test_functions_are_short() -> None:
    lengths = function_lengths()
    assert len(lengths) > 100, "the readers of this test find no functions any more"
    long = {name: length for name, length in lengths.items() if length > FUNCTION_MAX_LINES}
    grown = {name: n for name, n in long.items() if n > LONG_FUNCTIONS.get(name, 0)}
    assert not grown, "split them"
    shrunk = {name for name, length in LONG_FUNCTIONS.items() if long.get(name, 0) < length}
    assert not shrunk, "take the new length into LONG_FUNCTIONS"


# ---- walls ----------------------------------------------------------------------------------


def test_c_is_declared_in_one_place() -> None:
    extern = re.compile(r'^\s*cdef extern from\s+(?:"([^"]+)"|<([^>]+)>|\*)', re.MULTILINE)
    wrong = []
    for path in source_files(".pyx", ".pxd"):
        allowed = EXTERN_ALLOWED.get(name_of(path), set())
        for match in extern.finditer(path.read_text()):
            if allowed is not None and (match[1] or match[2]) not in allowed:
                wrong.append(f"{name_of(path)}: {match[0].strip()}")
    assert not wrong, wrong


@pytest.mark.parametrize("header", sorted(INCLUDE_ALLOWED))
def test_kernel_interfaces_stay_in_their_files(header: str) -> None:
    include = re.compile(rf'^\s*#\s*include\s+[<"]{re.escape(header)}[>"]', re.MULTILINE)
    users = {p.name for p in (ROOT / "csrc").rglob("*.[ch]") if include.search(p.read_text())}
    assert users <= INCLUDE_ALLOWED[header]


def test_epoll_is_not_used_behind_its_header() -> None:
    """The calls themselves, wherever their declaration may come from."""
    calls = re.compile(r"\b(epoll_(create|ctl|p?wait)|io_uring_(queue_init|enter|setup))\w*\s*\(")
    # The last: what netpoll.uring.Ring may call.
    allowed = {"np_uring.c", "np_uring_setup.c", "liburing.cdef"}
    allowed |= INCLUDE_ALLOWED["liburing.h"] | INCLUDE_ALLOWED["sys/epoll.h"]
    comment = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
    for path in [p for p in (ROOT / "csrc").rglob("*") if p.is_file()]:
        if path.name not in allowed:
            assert not calls.search(comment.sub("", path.read_text())), path.name


def test_the_c_core_has_no_state_of_its_own(tmp_path: Path) -> None:
    """No variable at file scope that can change: a loop's state hangs off its loop."""
    compiler, nm = shutil.which("cc"), shutil.which("nm")
    assert compiler and nm, "a C compiler built this; where is it now?"
    objects = []
    for path in source_files(".c"):
        if (ROOT / "csrc") not in path.parents:
            continue
        target = tmp_path / f"{path.stem}.o"
        # Position-dependent: tables of constants with pointers are then plain read-only data.
        flags = ["-std=gnu11", "-O1", "-fno-pic", "-fno-pie", f"-I{ROOT / 'csrc'}"]
        subprocess.run([compiler, *flags, "-c", str(path), "-o", str(target)], check=True)
        objects.append(str(target))
    assert objects
    listing = subprocess.run([nm, "-A", *objects], capture_output=True, text=True, check=True)
    # B, D, G, S: zeroed, initialised and small data; C: common; lower case: static.
    changing = [line for line in listing.stdout.splitlines() if re.search(r" [BbCDdGgSs] ", line)]
    assert not changing, "\n".join(changing)


def test_every_bound_of_the_native_code_is_in_its_home() -> None:
    """A number with a unit is a decision: it stands in limits.pxd, with its reason."""
    bound = re.compile(r"^    ([A-Z_0-9]+_(?:BYTES|COUNT|NS|MS|S)) = ", re.MULTILINE)
    layouts = {"address.pyx", "address.pxd", "idle.pxd"}  # of structs, not of decisions
    homeless = [
        f"{name_of(path)}: {name}"
        for path in source_files(".pyx", ".pxd")
        if path.name not in layouts | {"limits.pxd"}
        for name in bound.findall(path.read_text())
    ]
    assert not homeless


def test_machine_paths_stay_out() -> None:
    """What stands in the tree holds on every machine."""
    paths = re.compile(r"/(home|root|mnt|work|Users)/\w")
    wrong = []
    for path in [*source_files(), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        if path != Path(__file__).resolve():
            wrong += [f"{name_of(path)}: {m[0]}" for m in paths.finditer(path.read_text())]
    assert not wrong


def test_links_between_pages_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?://|#)([^)#]+)")
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/*.md")]
    broken = [
        f"{name_of(page)}: {target}"
        for page in pages
        for target in link.findall(page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken


# ---- exports --------------------------------------------------------------------------------


def test_every_export_is_there_once() -> None:
    assert len(netpoll.__all__) == len(set(netpoll.__all__))
    assert [name for name in netpoll.__all__ if not hasattr(netpoll, name)] == []


def stub_of(extension_module: str) -> ast.Module:
    relative = Path("src", *extension_module.split(".")).with_suffix(".pyi")
    assert (ROOT / relative).exists(), f"{extension_module} has an export and no stub {relative}"
    return ast.parse((ROOT / relative).read_text())


def untyped(function: object, name: str) -> list[str]:
    """The parameters (and the result) of a Python function that have no type."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    missing = [
        f"{name}({parameter.name})"
        for parameter in signature.parameters.values()
        if parameter.annotation is inspect.Parameter.empty and parameter.name not in ("self", "cls")
    ]
    if signature.return_annotation is inspect.Signature.empty:
        missing.append(f"{name}() -> ?")
    return missing


def public_members(cls: type) -> Iterator[tuple[str, object]]:
    for name, member in vars(cls).items():
        if not name.startswith("_"):
            function = getattr(member, "__func__", member)  # classmethod, staticmethod
            yield name, getattr(function, "fget", function)  # property


def stubs_of(module: str, class_name: str) -> set[str]:
    """The functions that a stub types: those of the class, and those at the module's level."""
    body = stub_of(module).body
    for node in list(body):
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            body = body + node.body
    return {n.name for n in body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}


def is_repeated(cls: type, name: str) -> bool:
    """A method that EventLoop has in common with its native base: typed there."""
    bases = [base for base in cls.__mro__[1:] if name in vars(base)]
    return bool(bases) and vars(bases[0])[name].__doc__ == vars(cls)[name].__doc__


def untyped_in_class(cls: type, name: str) -> list[str]:
    """Python methods carry their types; compiled ones have them in the stub of their module."""
    missing: list[str] = []
    for member_name, member in public_members(cls):
        if cls.__name__ == "Connection" and member_name in CONNECTION:
            continue  # a former name, which no stub has
        if inspect.isfunction(member):
            missing += untyped(member, f"{name}.{member_name}")
        elif callable(member) and not is_repeated(cls, member_name):
            home = getattr(member, "__module__", None) or cls.__module__
            if member_name not in stubs_of(home, cls.__name__):
                missing.append(f"{home}: {cls.__name__}.{member_name}")
    return missing


def test_every_export_is_typed() -> None:
    missing: list[str] = []
    for name in netpoll.__all__:
        thing = getattr(netpoll, name)
        if inspect.isclass(thing):
            for cls in thing.__mro__:
                if cls.__module__.split(".")[0] == "netpoll":
                    missing += untyped_in_class(cls, name)
        elif inspect.isfunction(thing):
            missing += untyped(thing, name)
        elif callable(thing):
            stubs = {getattr(node, "name", "") for node in stub_of(thing.__module__).body}
            missing += [] if name in stubs else [name]
    assert not missing, missing


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(netpoll.__file__).parent / "py.typed").exists()
