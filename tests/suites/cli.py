"""`python -m tests.suites [NAME ...]`, which `./test --suites` starts.

Runs other projects' tests on asyncio and on netpoll's backends and fails where netpoll is worse.
A rerun goes on where the last one stopped; --fresh starts anew.
"""

import argparse
import concurrent.futures
import contextlib
import os
import threading
import time
from pathlib import Path

from . import environment, table
from .judge import Verdict, judge
from .projects import LOOPS, Project, exceptions, projects
from .run import Result, Run


class BrokenProject(Exception):
    """The control says that our description of the project is wrong."""


class Lane:
    """The projects, two side by side; those that want to be alone come last."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.loops = args.loops.split(",")
        self.verdicts: dict[str, list[Verdict]] = {}
        self.skipped: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self._print_lock = threading.Lock()
        self._started_s = time.monotonic()

    def say(self, text: str) -> None:
        with self._print_lock:
            print(f"[{time.monotonic() - self._started_s:6.0f} s] {text}", flush=True)

    def run(self, wanted: list[Project]) -> None:
        together = [project for project in wanted if not project.alone]
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            list(pool.map(self.one, together))
            list(pool.map(self._prepare, (p for p in wanted if p.alone)))
        for project in wanted:
            if project.alone:
                self.one(project)

    def _prepare(self, project: Project) -> None:
        """Downloads side by side, too. What is wrong is said when it is its turn."""
        with contextlib.suppress(environment.NotToBeHad):
            environment.prepare(project, self._checkout(project))

    def _checkout(self, project: Project) -> Path | None:
        folder = self.args.checkouts and Path(self.args.checkouts, project.name).resolve()
        return folder if folder and folder.is_dir() else None

    def one(self, project: Project) -> None:
        try:
            environment.prepare(project, self._checkout(project))
            verdicts = self._judge(project)
        except environment.NotToBeHad as reason:
            self.skipped[project.name] = str(reason)
            self.say(f"{project.name}: skipped: {reason}")
            return
        except BrokenProject as reason:
            self.broken[project.name] = str(reason)
            self.say(f"{project.name}: {reason}")
            return
        self.verdicts[project.name] = verdicts

    def _judge(self, project: Project) -> list[Verdict]:
        def again(loop: str, tests: set[str]) -> dict[str, Result]:
            return Run(project, loop, tests).results()

        expected = self._results(project, "asyncio")
        if not any(result.outcome == "passed" for result in expected.values()):
            details = [result.detail[-2000:] for result in expected.values()]
            raise BrokenProject("no test passes on asyncio:\n" + "\n".join(details[:3]))
        verdicts = []
        for loop in self.loops:
            actual = self._results(project, loop)
            verdict = judge(project, loop, expected, actual, exceptions(), again)
            verdicts.append(verdict)
            self.say(_line(verdict))
            for test in sorted(verdict.worse):
                self.say(f"    worse: {test}")
        return verdicts

    def _results(self, project: Project, loop: str) -> dict[str, Result]:
        start_s = time.monotonic()
        found = Run(project, loop, fresh=self.args.fresh).results()
        found = {test: result for test, result in found.items() if not project.leaves_out(test)}
        counts = {"passed": 0, "failed": 0, "skipped": 0, "hung": 0, "crashed": 0}
        for result in found.values():
            counts[result.outcome] += 1
        text = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        took_s = time.monotonic() - start_s
        self.say(f"{project.name} on {loop}: {text or 'nothing'} ({took_s:.0f} s)")
        return found


def _line(verdict: Verdict) -> str:
    text = f"{verdict.project} on {verdict.loop}: {len(verdict.passed)} pass as on asyncio, "
    text += f"{len(verdict.worse)} worse, {len(verdict.excepted)} excepted, "
    text += f"{len(verdict.flaky)} flaky, {len(verdict.not_judged)} not judged"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="./test --suites", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all projects")
    parser.add_argument("--loops", default=",".join(LOOPS), help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=2, help="side by side (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget the results that are kept")
    parser.add_argument("--list", action="store_true", help="the projects, and nothing else")
    parser.add_argument("--brief", action="store_true", help="failures without tracebacks")
    parser.add_argument(
        "--table", action="store_true", help="write the table into docs/compatibility.md"
    )
    parser.add_argument(
        "--checkouts", metavar="DIR", help="sources with tests, DIR/NAME, for what has none"
    )
    args = parser.parse_args()
    known = projects()
    if unknown := [name for name in args.names if name not in known]:
        parser.error(f"no such project: {', '.join(unknown)}; there are {', '.join(known)}")
    wanted = [known[name] for name in args.names or known]
    if args.list:
        for project in wanted:
            print(f"{project.name:16}{project.version}")
        return 0
    os.nice(5)
    lane = Lane(args)
    lane.run(wanted)
    return _finish(lane)


def _finish(lane: Lane) -> int:
    bad = [v for verdicts in lane.verdicts.values() for v in verdicts if v.is_bad]
    for verdict in bad if not lane.args.brief else ():
        print(verdict.report())
    print()
    print(table.text(lane.verdicts))
    for name, reason in lane.skipped.items():
        print(f"{name}: skipped: {reason}")
    if lane.args.table:
        table.write(lane.verdicts)
    passed = sum(len(v.passed) for verdicts in lane.verdicts.values() for v in verdicts)
    failed = sum(len(v.worse) + len(v.unneeded) for v in bad) + len(lane.broken)
    print(f"{passed} passed, {failed} failed, {len(lane.skipped)} skipped")
    return int(bool(bad or lane.broken) or not lane.verdicts)
