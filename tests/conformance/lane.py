"""Runs modules of other people's test suites on several loops and judges them against a control.

The suites: CPython's `test.test_asyncio`, with asyncio as the control, and uvloop's own tests, with
uvloop as the control. The rule: what passes with the control must pass with netpoll, except what
exceptions.toml lists.
"""

import contextlib
import dataclasses
import fnmatch
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TEST_TIMEOUT_S = 30.0
MODULE_TIMEOUT_S = 280.0
MAX_RESTARTS = 12

# Left out: test_selector_events and test_proactor_events (asyncio's own implementations), and
# what is for Windows.
CPYTHON_MODULES = (
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_eager_task_factory",
    "test_events",
    "test_free_threading",
    "test_futures",
    "test_futures2",
    "test_locks",
    "test_pep492",
    "test_protocols",
    "test_queues",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_staggered",
    "test_streams",
    "test_subprocess",
    "test_taskgroups",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_transports",
    "test_unix_events",
    "test_waitfor",
)

# A minute of timers and of asyncio's own classes, which meet little of a loop: for the long lane.
CPYTHON_LONG_MODULES = ("test_taskgroups", "test_tasks")

# The names of the files in uvloop's sdist; what is not here stands in exceptions.toml with the
# reason (out_of_scope).
UVLOOP_MODULES = (
    "test_aiohttp",
    "test_base",
    "test_context",
    "test_dealloc",
    "test_dns",
    "test_executors",
    "test_pipes",
    "test_process",
    "test_process_spawning",
    "test_regr1",
    "test_runner",
    "test_signals",
    "test_sockets",
    "test_tcp",
    "test_udp",
    "test_unix",
)


@dataclasses.dataclass(frozen=True)
class Suite:
    """Somebody's tests. The control is the loop they were written for."""

    name: str
    control: str
    modules: tuple[str, ...]


SUITES = {
    "cpython": Suite("cpython", "asyncio", CPYTHON_MODULES),
    "uvloop": Suite("uvloop", "uvloop", UVLOOP_MODULES),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What one test did on one loop."""

    test: str
    outcome: str  # passed, failed, skipped, leaked, hung, crashed
    detail: str = ""
    loops: int = 0  # how many loops of the kind under test it made
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of exceptions.toml."""

    tests: tuple[str, ...]
    reason: str
    backends: tuple[str, ...]
    expect: str
    suite: str

    def covers(self, test: str) -> bool:
        return any(fnmatch.fnmatchcase(test, pattern) for pattern in self.tests)


@dataclasses.dataclass
class Verdict:
    """One module on one loop, judged. Lists hold test ids, `failed` also the details."""

    suite: str
    module: str
    loop: str
    passed: list[str] = dataclasses.field(default_factory=list)
    passed_without_loop: list[str] = dataclasses.field(default_factory=list)
    excepted: dict[str, str] = dataclasses.field(default_factory=dict)  # id -> reason
    failed: dict[str, Result] = dataclasses.field(default_factory=dict)
    flaky: dict[str, Result] = dataclasses.field(default_factory=dict)  # passed when run alone
    not_judged: list[str] = dataclasses.field(default_factory=list)  # the control fails or skips
    unused: list[str] = dataclasses.field(default_factory=list)  # excepted ids that pass
    unavailable: str = ""  # why not even the control could start: a package that is missing

    def report(self) -> str:
        """Every failure with its traceback, ready to print."""
        parts = [
            f"{self.module} on {self.loop}: {test} {result.outcome}\n{result.detail}"
            for test, result in sorted(self.failed.items())
        ]
        parts += [
            f"{self.module} on {self.loop}: {test} passes: take it off exceptions.toml"
            for test in self.unused
        ]
        return "\n".join(parts)


def missing_reason(suite: str = "cpython") -> str | None:
    """Why the suite cannot run here, or None."""
    return _cpython_is_missing() if suite == "cpython" else _uvloop_is_missing()


def _cpython_is_missing() -> str | None:
    try:
        found = importlib.util.find_spec("test.test_asyncio") is not None
    except ModuleNotFoundError:
        found = False
    if found:
        return None
    return (
        "this Python comes without its own test suite (test.test_asyncio): "
        "on Debian and Ubuntu install libpython3-testsuite"
    )


def uvloop_tests() -> Path:
    """Where the tests of the installed uvloop are kept (fetch_uvloop_tests.py brings them)."""
    return ROOT / "build" / "uvloop-tests" / importlib.metadata.version("uvloop")


def _uvloop_is_missing() -> str | None:
    if importlib.util.find_spec("uvloop") is None:
        return "uvloop does not install on this Python, and it is the control of its own tests"
    if not (uvloop_tests() / "tests").is_dir():
        return (
            "uvloop's tests are not here: python -m tests.conformance.fetch_uvloop_tests "
            "takes them out of its source distribution"
        )
    return None


def modules_here(suite: str = "cpython") -> list[str]:
    """The modules in scope that this Python, or this uvloop, has."""
    if missing_reason(suite) is not None:
        return []
    return [name for name in SUITES[suite].modules if (_folder(suite) / f"{name}.py").exists()]


def _folder(suite: str) -> Path:
    if suite == "uvloop":
        return uvloop_tests() / "tests"
    package = importlib.util.find_spec("test.test_asyncio")
    assert package is not None and package.submodule_search_locations is not None
    return Path(next(iter(package.submodule_search_locations)))


def _python_matches(condition: str) -> bool:
    match = re.fullmatch(r"(>=|<)(\d+)\.(\d+)", condition)
    if match is None:
        raise ValueError(f"exceptions.toml: python = {condition!r} is not like '>=3.13' or '<3.12'")
    version = (int(match[2]), int(match[3]))
    return sys.version_info[:2] >= version if match[1] == ">=" else sys.version_info[:2] < version


@functools.cache
def entries(section: str, suite: str) -> tuple[Entry, ...]:
    """The entries of one section of exceptions.toml that apply to this suite on this Python."""
    with open(HERE / "exceptions.toml", "rb") as file:
        table = tomllib.load(file)
    return tuple(
        Entry(
            tuple(item["tests"]),
            item["reason"],
            tuple(item.get("backends", ("uring", "epoll"))),
            item.get("expect", ""),
            item.get("suite", "cpython"),
        )
        for item in table.get(section, ())
        if item.get("suite", "cpython") == suite
        and all(_python_matches(part) for part in item.get("python", "").split(",") if part)
    )


class _Run:
    """One module on one loop: workers started until every test has a result."""

    def __init__(self, suite: str, module: str, loop: str, only: set[str] | None) -> None:
        self.suite, self.module, self.loop, self.only = suite, module, loop, only
        self.results: dict[str, Result] = {}
        self.wanted: list[str] | None = None

    def run(self) -> dict[str, Result]:
        with tempfile.TemporaryDirectory() as folder:
            for attempt in range(MAX_RESTARTS):
                if self._one_worker(Path(folder), attempt):
                    return self.results
        for test in self.wanted or ():
            self.results.setdefault(test, Result(test, "crashed", "too many restarts"))
        return self.results

    def _one_worker(self, folder: Path, attempt: int) -> bool:
        """True when every test has a result."""
        out, log = folder / f"out.{attempt}", folder / f"log.{attempt}"
        skip = folder / "skip"
        left_out = entries("not_run", self.suite) + entries("out_of_scope", self.suite)
        patterns = [pattern for entry in left_out for pattern in entry.tests]
        skip.write_text("\n".join([*patterns, *self.results]), encoding="utf-8")
        command = [sys.executable, str(HERE / "worker.py"), "--suite", self.suite]
        command += ["--module", self.module, "--loop", self.loop]
        command += ["--out", str(out), "--skip", str(skip)]
        command += ["--timeout", str(TEST_TIMEOUT_S)]
        if self.only is not None:
            only = folder / "only"
            only.write_text("\n".join(self.only), encoding="utf-8")
            command += ["--only", str(only)]
        with open(log, "wb") as log_file:
            child = subprocess.Popen(
                command,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._environment(),
            )
            try:
                code = child.wait(MODULE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
            finally:
                _kill_group(child)
        log_text = log.read_text(encoding="utf-8", errors="replace")
        if not out.exists():
            self.results["(start)"] = Result("(start)", "crashed", log_text[-6000:])
            return True
        return self._collect(out, code, log_text)

    def _environment(self) -> dict[str, str]:
        if self.suite != "uvloop":
            return dict(os.environ)
        return os.environ | {"NETPOLL_UVLOOP_TESTS": str(uvloop_tests())}

    def _collect(self, out: Path, code: int, log_text: str) -> bool:
        running, ended = None, False
        for line in out.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "tests" in record:
                self.wanted = self.wanted or record["tests"]
            elif "start" in record:
                running = record["start"]
            elif "end" in record:
                ended = True
            else:
                self.results[record["test"]] = Result(**record)
                running = None
        if ended:
            return True
        tail = log_text.rpartition(f"== {running}")[2] if running else log_text
        outcome = "hung" if "Timeout (" in tail or code == -signal.SIGKILL else "crashed"
        name = running or f"(after {len(self.results)} tests)"
        self.results[name] = Result(name, outcome, f"exit code {code}\n{tail[-6000:]}")
        return False


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def run_module(
    suite: str, module: str, loop: str, only: set[str] | None = None
) -> dict[str, Result]:
    """Results by test id."""
    return _Run(suite, module, loop, only).run()


@functools.cache
def control(suite: str, module: str) -> dict[str, Result]:
    """The control's results. What failed is run once more, alone: it decides what is asked."""
    loop = SUITES[suite].control
    results = run_module(suite, module, loop)
    again = {test for test, result in results.items() if result.outcome == "failed"}
    if again:
        for test, result in run_module(suite, module, loop, again).items():
            if result.outcome == "passed":
                results[test] = result
    return results


def judge(module: str, loop: str, suite: str = "cpython") -> Verdict:
    """Runs `module` on `loop` and compares with the control."""
    expected = control(suite, module)
    verdict = Verdict(suite, module, loop)
    if "(start)" in expected:
        verdict.unavailable = expected["(start)"].detail.strip().splitlines()[-1]
        return verdict
    actual = run_module(suite, module, loop)
    exceptions = [entry for entry in entries("exception", suite) if loop in entry.backends]
    for test, result in actual.items():
        if test not in expected and not result.test.startswith("("):
            verdict.failed[test] = result  # setUpClass and such
    for test, reference in expected.items():
        result = actual.get(test, Result(test, "failed", "it was not run"))
        entry = next((entry for entry in exceptions if entry.covers(test)), None)
        if reference.outcome != "passed":
            verdict.not_judged.append(test)
        elif entry is not None:
            _judge_exception(verdict, entry, result)
        elif result.outcome == "passed":
            (verdict.passed if result.loops else verdict.passed_without_loop).append(test)
        else:
            verdict.failed[test] = result
    verdict.failed.update({t: r for t, r in actual.items() if t.startswith("(")})
    _retry(verdict)
    return verdict


def _judge_exception(verdict: Verdict, entry: Entry, result: Result) -> None:
    if result.outcome == "passed":
        verdict.unused.append(result.test)
    elif re.search(entry.expect, result.detail):
        verdict.excepted[result.test] = entry.reason
    else:
        detail = f"not the failure that is excepted ({entry.expect}):\n{result.detail}"
        verdict.failed[result.test] = dataclasses.replace(result, detail=detail)


def _retry(verdict: Verdict) -> None:
    """Failures are run once more by themselves; what passes then is shown as flaky."""
    again = {test for test, r in verdict.failed.items() if r.outcome == "failed"}
    if not again:
        return
    for test, result in run_module(verdict.suite, verdict.module, verdict.loop, again).items():
        if result.outcome == "passed" and test in verdict.failed:
            verdict.flaky[test] = verdict.failed.pop(test)
