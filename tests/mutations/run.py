"""Tries mutations, one after another, in a copy of the tree in build/mutations.

A guard is taken out, what it is in is built again, its tests run, and all is put back as it was:
sources, objects and extensions with their dates, so that the next build has nothing to do but its
own mutation. Before that, the same tests have to pass on the source as it is.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .catalogue import ROOT, Mutation

WORK = ROOT / "build" / "mutations"
TREE = WORK / "tree"
BUILT = WORK / "built"
BUILD_TIMEOUT_S = 900
TEST_TIMEOUT_S = 240
NATIVE_TEST_TIMEOUT_S = 120  # as in tests/c/Makefile

KILLED, SURVIVED, UNBUILT, UNSOUND, SKIPPED = (
    "killed", "SURVIVED", "does not build", "fails without it", "skipped",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    verdict: str
    detail: str = ""


@dataclass(frozen=True)
class Done:
    """How a command has ended; status None: it took too long."""

    status: int | None
    output: str

    def last_lines(self, count: int = 12) -> str:
        return "\n".join(self.output.splitlines()[-count:])


def environment() -> dict[str, str]:
    env = os.environ | {"PYTHONPATH": str(TREE / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    if "CC" not in env and shutil.which("ccache"):
        env["CC"] = "ccache cc"
    return env | {"CCACHE_NOHASHDIR": "1", "CCACHE_BASEDIR": env.get("CCACHE_BASEDIR", str(TREE))}


def call(command: list[str], timeout_s: int, **more: str) -> Done:
    """In the tree, in a session of its own: a test that hangs ends with its children."""
    child = subprocess.Popen(
        command,
        cwd=TREE,
        env=environment() | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=timeout_s)
        return Done(child.returncode, output)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        return Done(None, child.communicate()[0])
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise


# ---- the tree -------------------------------------------------------------------------------


@contextmanager
def alone() -> Iterator[None]:
    """One run at a time has the copy."""
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("netpoll: another run tries mutations in this tree") from None
        yield


def refresh() -> None:
    """The copy has the sources of now; what has not changed keeps its date, for setup.py builds
    again what is older than its source, and everything when setup.py itself is newer."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    names = {name for name in listed if name and (ROOT / name).is_file()}
    if not TREE.exists():
        seed()
    for name in sorted(names):
        source, copy = ROOT / name, TREE / name
        is_new = not copy.is_file()
        if not is_new and copy.read_bytes() == source.read_bytes():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, copy)
        if not is_new:
            os.utime(copy)  # newer than what was built of its predecessor
    for folder in ("csrc", "src", "tests"):
        for path in (TREE / folder).rglob("*"):
            name = path.relative_to(TREE).as_posix()
            if path.suffix in {".py", ".pyx", ".pxd", ".c", ".h"} and name not in names:
                path.unlink()


def seed() -> None:
    """What is built already need not be built again."""
    TREE.mkdir(parents=True)
    if (ROOT / "build" / "release").is_dir():
        shutil.copytree(ROOT / "build" / "release", TREE / "build" / "release")
    for built in (ROOT / "src").rglob("*.so"):
        target = TREE / built.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(built, target)


def build_extensions() -> Done:
    return call([sys.executable, "setup.py", "build_ext", "--inplace"], BUILD_TIMEOUT_S)


def products(one: Mutation) -> list[Path]:
    """What is built of the mutated file, and has to go back with it."""
    stem = Path(one.file).stem
    if one.is_native:
        found = list((TREE / "build").rglob(f"npcore/{stem}.o"))
        found += (TREE / "build").rglob("libnpcore.a")
        return [*found, *(TREE / "build" / "release").rglob("*.so"), *(TREE / "src").rglob("*.so")]
    place = Path(one.file).parent
    return [
        path
        for root in ("build/release", "src")
        for path in (TREE / root).rglob(f"{stem}.*")
        if path.suffix in {".so", ".c", ".o"}
        and path.parent.as_posix().endswith(place.as_posix().removeprefix("src/"))
    ]


@contextmanager
def applied(one: Mutation, is_built: bool) -> Iterator[None]:
    """The tree with the mutation; afterwards all is as it was, dates included."""
    source = TREE / one.file
    kept = WORK / "kept" / one.name
    shutil.rmtree(kept, ignore_errors=True)
    paths = [source, *(products(one) if is_built else [])]
    for path in paths:
        target = kept / path.relative_to(TREE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    try:
        source.write_text(source.read_text().replace(one.old, one.new))
        yield
    finally:
        for path in paths:
            shutil.copy2(kept / path.relative_to(TREE), path)
        if one.is_native:
            forget_native(one)


def rounds(mutations: Iterable[Mutation]) -> Iterator[list[Mutation]]:
    """Those that can be built together: each Cython module once in a round. The others first."""
    left = [one for one in mutations if one.file.endswith(".pyx")]
    yield [one for one in mutations if one not in left]
    while left:
        by_file = {one.file: one for one in reversed(left)}
        yield [one for one in left if by_file[one.file] is one]
        left = [one for one in left if by_file[one.file] is not one]


def build_together(mutations: list[Mutation]) -> None:
    """One build for a round: try_out puts each one's extension in its place. What does not build
    together is built again one by one."""
    shutil.rmtree(BUILT, ignore_errors=True)
    BUILT.mkdir(parents=True)
    with ExitStack() as stack:
        for one in mutations:
            stack.enter_context(applied(one, is_built=True))
        if build_extensions().status == 0:
            for one in mutations:
                shutil.copy2(extension_of(one), BUILT / f"{one.name}.so")


def extension_of(one: Mutation) -> Path:
    return next(path for path in products(one) if path.is_relative_to(TREE / "src"))


def put_built(one: Mutation) -> Done:
    """The extension with this mutation into its place."""
    ready = BUILT / f"{one.name}.so"
    if not ready.is_file():
        return build_extensions()
    shutil.copy2(ready, extension_of(one))
    return Done(0, "")


def forget_native(one: Mutation) -> None:
    """C tests of the mutated file have a later date than it has again. The programs go as well:
    make does not mind that an object is gone when its program is there."""
    stem = Path(one.file).stem
    for built in list((TREE / "build" / "c-tests").glob("*/*")):
        is_program = not built.suffix
        if is_program or (built.suffix == ".o" and (one.file.endswith(".h") or built.stem == stem)):
            built.unlink()


# ---- one mutation ---------------------------------------------------------------------------


def try_out(one: Mutation) -> Outcome:
    """The tree is as the source, and what its Python tests need is built."""
    control = {test: judge(test) for test in one.tests}
    for outcome in control.values():
        if outcome.verdict not in (SURVIVED, SKIPPED):
            return Outcome(UNSOUND, outcome.detail)
    judging = [test for test, outcome in control.items() if outcome.verdict == SURVIVED]
    if not judging:
        return Outcome(SKIPPED, "; ".join(outcome.detail for outcome in control.values()))
    is_built = not one.file.endswith(".py") and any(not is_native(test) for test in judging)
    with applied(one, is_built):
        built = put_built(one) if is_built else Done(0, "")
        if built.status != 0:
            return Outcome(UNBUILT, built.last_lines())
        outcomes = [judge(test) for test in judging]
    for verdict in (UNBUILT, SURVIVED):
        for test, outcome in zip(judging, outcomes, strict=True):
            if outcome.verdict == verdict:
                return Outcome(verdict, f"{test}: {outcome.detail}")
    return Outcome(KILLED, "; ".join(outcome.detail for outcome in outcomes))


def is_native(test: str) -> bool:
    return test.partition("::")[0].endswith(".c")


def judge(test: str) -> Outcome:
    """What a test says of the tree as it is: SURVIVED when it passes."""
    return native_test(test) if is_native(test) else python_test(test)


def native_test(test: str) -> Outcome:
    file, _, name = test.partition("::")
    program = Path(file).stem
    target = TREE / "build" / "c-tests" / "asan" / program
    built = call(["make", "-s", "-C", "tests/c", str(target)], BUILD_TIMEOUT_S)
    if built.status != 0:
        return Outcome(UNBUILT, built.last_lines())
    options = {"NP_TEST_FILTER": f"*{name}"} if name else {}
    done = call([str(target)], NATIVE_TEST_TIMEOUT_S, **options, **SANITIZERS)
    if done.status is None:
        return Outcome(KILLED, "hangs")
    if done.status == 0:
        return Outcome(SURVIVED, done.last_lines())
    return Outcome(KILLED, f"{program} ends with {done.status}: {done.last_lines(4)}")


# As in tests/c/Makefile.
SANITIZERS = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
}


def python_test(test: str) -> Outcome:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    done = call(command, TEST_TIMEOUT_S)
    if done.status is None:
        return Outcome(KILLED, "hangs")
    if done.status == 0:
        passed = re.search(r"\b\d+ passed", done.output)
        return Outcome(SURVIVED if passed else SKIPPED, done.last_lines(3))
    if done.status in (1, *range(-64, 0), *range(128, 192)):
        return Outcome(KILLED, done.last_lines(3))
    return Outcome(UNBUILT, done.last_lines())  # pytest could not begin: it finds nothing


def digest(one: Mutation) -> str:
    """Of all that its outcome depends on, as far as it is near: a result is kept as long."""
    files = {one.file, *(test.split("::")[0] for test in one.tests)}
    state = hashlib.sha256(repr(one).encode())
    for name in sorted(files):
        state.update((ROOT / name).read_bytes())
    return state.hexdigest()
