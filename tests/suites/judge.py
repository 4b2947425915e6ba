"""Compares what a project's tests did on netpoll's loop with what they did on asyncio.

The rule: a test that passes on asyncio passes on netpoll. What fails is run twice more by itself;
one pass makes it flaky, which is shown and forgiven. Before a failure counts, the test must also
pass on asyncio when it is run by itself. exceptions.toml lists what may fail, and why.
"""

import dataclasses
import re
from collections.abc import Callable

from .projects import Exception_, Project
from .run import Result

RERUNS = 2

Again = Callable[[str, set[str]], dict[str, Result]]  # (loop, tests) -> results


@dataclasses.dataclass
class Verdict:
    """One project on one loop. Ids of tests; with what is bad also the details."""

    project: str
    loop: str
    passed: list[str] = dataclasses.field(default_factory=list)
    worse: dict[str, Result] = dataclasses.field(default_factory=dict)
    excepted: dict[str, str] = dataclasses.field(default_factory=dict)  # id -> reason
    flaky: dict[str, Result] = dataclasses.field(default_factory=dict)
    not_judged: list[str] = dataclasses.field(default_factory=list)  # asyncio fails or skips it
    better: list[str] = dataclasses.field(default_factory=list)  # asyncio fails it
    unneeded: list[str] = dataclasses.field(default_factory=list)  # sentences
    loops_made: int = 0

    @property
    def is_bad(self) -> bool:
        return bool(self.worse or self.unneeded)

    def report(self) -> str:
        """Every failure with its traceback, ready to print."""
        parts = [
            f"--- {self.project} on {self.loop}: {test}: {result.outcome}\n{result.detail}"
            for test, result in sorted(self.worse.items())
        ]
        parts += [f"--- {self.project} on {self.loop}: {text}" for text in self.unneeded]
        return "\n".join(parts)


def judge(
    project: Project,
    loop: str,
    expected: dict[str, Result],
    actual: dict[str, Result],
    exceptions: tuple[Exception_, ...],
    again: Again,
) -> Verdict:
    """The verdict; `again` runs tests by themselves."""
    verdict = Verdict(project.name, loop)
    verdict.loops_made = sum(result.loops for result in actual.values())
    own = [e for e in exceptions if e.project == project.name and loop in e.backends]
    suspects: dict[str, Result] = {}
    for test, reference in expected.items():
        if test.startswith("("):
            continue
        result = actual.get(test, Result(test, "failed", "it was not run"))
        entry = next((entry for entry in own if entry.covers(test)), None)
        if reference.outcome != "passed":
            verdict.not_judged.append(test)
            if result.outcome == "passed":
                verdict.better.append(test)
        elif entry is not None and result.outcome != "passed":
            _judge_exception(verdict, entry, result)
        elif result.outcome == "passed":
            verdict.passed.append(test)
        else:
            suspects[test] = result
    for test, result in actual.items():
        if result.is_bad and test not in expected:
            suspects[test] = result
    _retry(verdict, suspects, again)
    _judge_list(verdict, own, expected)
    if not verdict.loops_made and verdict.passed:
        verdict.unneeded.append("no test made a loop: these tests say nothing")
    return verdict


def _judge_exception(verdict: Verdict, entry: Exception_, result: Result) -> None:
    if re.search(entry.expect, result.detail):
        verdict.excepted[result.test] = entry.reason
    else:
        detail = f"not the failure that is excepted ({entry.expect}):\n{result.detail}"
        verdict.worse[result.test] = dataclasses.replace(result, detail=detail)


def _judge_list(verdict: Verdict, own: list[Exception_], expected: dict[str, Result]) -> None:
    """An exception that nothing needs any more has to go."""
    for entry in own:
        for pattern in entry.tests:
            alone = dataclasses.replace(entry, tests=(pattern,))
            covered = [test for test in expected if alone.covers(test)]
            failing = [test for test in covered if test not in verdict.passed]
            if not covered:
                verdict.unneeded.append(f"exceptions.toml: there is no test {pattern}")
            elif not failing:
                verdict.unneeded.append(f"exceptions.toml: {pattern} passes: take it off")


def _retry(verdict: Verdict, suspects: dict[str, Result], again: Again) -> None:
    left = dict(suspects)
    for _ in range(RERUNS):
        tests = {test for test in left if not test.startswith("(")}
        if not tests:
            break
        for test, result in again(verdict.loop, tests).items():
            if result.outcome == "passed" and test in left:
                verdict.flaky[test] = left.pop(test)
    tests = {test for test in left if not test.startswith("(")}
    if tests:
        reference = again("asyncio", tests)
        for test in tests:
            if test in reference and reference[test].is_bad:
                verdict.not_judged.append(test)
                del left[test]
    verdict.worse.update(left)
