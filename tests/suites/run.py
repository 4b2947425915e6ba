"""Runs one project's tests on one loop: pytest in a process group of its own, as often as needed.

What every test did is kept in build/suites/results as it happens. A run that was broken off goes on
with the tests that have no result yet; a finished one is read back. Results hold for what made
them: the project's entry, this Python and, on netpoll's loops, this build of netpoll.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import environment, servers
from .projects import ROOT, Project

RESULTS = environment.STORE / "results"
MAX_RESTARTS = 15
DETAIL_MAX_CHARS = 6000


@dataclasses.dataclass(frozen=True)
class Result:
    """What one test did on one loop."""

    test: str
    outcome: str  # passed, failed, skipped, hung, crashed
    detail: str = ""
    loops: int = 0  # how many loops it made in pytest's process
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        return self.outcome in ("failed", "hung", "crashed")


@functools.cache
def netpoll_build() -> str:
    """A digest of netpoll as it would be imported now."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src" / "netpoll").rglob("*")):
        if path.suffix in (".py", ".so") and path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@dataclasses.dataclass
class _Progress:
    """The lines of the plugin, so far."""

    wanted: list[str] = dataclasses.field(default_factory=list)
    results: dict[str, Result] = dataclasses.field(default_factory=dict)
    running: str | None = None
    end: int | None = None


def read_records(lines: list[str]) -> _Progress:
    """What a run has come to. A last line that is not whole is left out."""
    progress = _Progress()
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            _take(progress, json.loads(line))
    return progress


def _take(progress: _Progress, record: dict[str, Any]) -> None:
    if "tests" in record:
        progress.wanted = progress.wanted or record["tests"]
        progress.running = progress.end = None
    elif "start" in record:
        progress.running = record["start"]
    elif "end" in record:
        progress.end = record["end"]
    elif "test" in record:
        progress.results[record["test"]] = Result(**record)
        progress.running = None


class Run:
    """One project on one loop; `only` are the tests to run again, whose results are not kept."""

    def __init__(
        self, project: Project, loop: str, only: set[str] | None = None, fresh: bool = False
    ) -> None:
        self.project, self.loop, self.only = project, loop, only
        self.folder = RESULTS / project.name / loop
        if only is not None:
            self.folder = self.folder / "again"
        if only is not None or fresh or not self._is_of_now():
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "made-for").write_text(self._key())

    def _key(self) -> str:
        build = netpoll_build() if self.loop != "asyncio" else "-"
        return f"{self.project.fingerprint()} {build}"

    def _is_of_now(self) -> bool:
        path = self.folder / "made-for"
        if not path.exists() or path.read_text() != self._key():
            return False
        # What did not even start is tried again.
        results = self._progress().results
        return not results or any(not test.startswith("(") for test in results)

    def results(self) -> dict[str, Result]:
        """By test id; runs what has no result yet."""
        if not self._is_finished():
            self._work()
            (self.folder / "finished").touch()
        return self._progress().results

    def _is_finished(self) -> bool:
        return (self.folder / "finished").exists()

    def _progress(self) -> _Progress:
        path = self.folder / "records.jsonl"
        return read_records(path.read_text().splitlines() if path.exists() else [])

    def _work(self) -> None:
        work = environment.work(self.project)
        deadline_s = time.monotonic() + self.project.run_timeout_s
        with _short_folder() as scratch, servers.started(self.project.servers) as found:
            for _attempt in range(MAX_RESTARTS):
                if self._one_pytest(work, scratch, found, deadline_s):
                    return
        self._add(Result("(run)", "crashed", f"{MAX_RESTARTS} restarts were not enough"))

    def _add(self, result: Result) -> None:
        with open(self.folder / "records.jsonl", "a") as file:
            file.write(json.dumps(dataclasses.asdict(result)) + "\n")

    def _command(self, found: dict[str, str]) -> list[str]:
        command = [str(environment.python(self.project)), "-m", "pytest", "-q", "-rN"]
        command += ["--continue-on-collection-errors"]
        command += ["-p", "netpoll_suites_record", "-p", "suite_setup"]
        command += ["-o", f"cache_dir={self.folder / 'cache'}"]
        command += ["-o", "faulthandler_timeout=0", "-o", "addopts="]
        command += [_filled(argument, found) for argument in self.project.arguments]
        return found.get("prefix", "").split() + command

    def _environment(self, scratch: Path, found: dict[str, str]) -> dict[str, str]:
        env = {name: os.environ[name] for name in ("LANG", "USER") if name in os.environ}
        programs = environment.python(self.project).parent  # such as those the tests start
        env["PATH"] = f"{programs}:{os.environ.get('PATH', os.defpath)}"
        env |= {"HOME": str(scratch), "TMPDIR": str(scratch), "PYTHONHASHSEED": "0"}
        env |= {name: _filled(value, found) for name, value in self.project.environment}
        env |= {
            "NETPOLL_SUITES_LOOP": self.loop,
            "NETPOLL_SUITES_OUT": str(self.folder / "records.jsonl"),
            "NETPOLL_SUITES_SKIP": str(self.folder / "skip.json"),
            "NETPOLL_SUITES_TIMEOUT_S": str(self.project.test_timeout_s),
        }
        if self.only is not None:
            (self.folder / "only.json").write_text(json.dumps(sorted(self.only)))
            env["NETPOLL_SUITES_ONLY"] = str(self.folder / "only.json")
        return env

    def _one_pytest(
        self, work: Path, scratch: Path, found: dict[str, str], deadline_s: float
    ) -> bool:
        """True when there is nothing left to run."""
        before = self._progress()
        (self.folder / "skip.json").write_text(json.dumps([*before.results]))
        log = self.folder / "log"
        with open(log, "ab") as output:
            start = output.tell()
            child = subprocess.Popen(
                self._command(found),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=work,
                env=self._environment(scratch, found),
            )
            try:
                code = child.wait(max(1.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _kill_group(child)
        text = log.read_bytes()[start:].decode(errors="replace")
        return self._judge_exit(len(before.results), code, text)

    def _judge_exit(self, count_before: int, code: int | None, text: str) -> bool:
        progress = self._progress()
        tail = text[-DETAIL_MAX_CHARS:]
        if code is None:
            name = progress.running or "(exit)"
            self._add(Result(name, "hung", f"the whole run took too long\n{tail}"))
            return True
        if progress.end is not None:
            if code < 0 or code not in (0, 1, 5):
                self._add(Result("(exit)", "crashed", f"exit code {code}\n{tail}"))
            return True
        if progress.running is not None:
            own = text.rpartition(f"== {progress.running}")[2]
            outcome = "hung" if "Timeout (" in own else "crashed"
            detail = f"exit code {code}\n{own[-DETAIL_MAX_CHARS:]}"
            self._add(Result(progress.running, outcome, detail))
            return False
        self._add(Result("(start)", "crashed", f"exit code {code}\n{tail}"))
        return len(progress.results) <= count_before


def _filled(text: str, found: dict[str, str]) -> str:
    for name, value in found.items():
        text = text.replace("{" + name + "}", value)
    return text


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextlib.contextmanager
def _short_folder() -> Iterator[Path]:
    """Paths of Unix sockets may have 107 bytes, so the folder for them is near the root."""
    folder = Path(tempfile.mkdtemp(prefix="np-suites-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
