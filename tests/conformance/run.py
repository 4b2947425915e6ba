"""The summary command: `python -m tests.conformance [--suite uvloop] [--loops ...] [module ...]`.

Prints a table, one row per module and loop, then every failure. Exit code 1 when anything failed.
`--loops asyncio` compares the control with itself (no differences); `--loops uvloop` shows what
uvloop's are.
"""

import argparse
import sys
import time

from . import lane

COLUMNS = ("passed", "no loop", "excepted", "failed", "flaky", "not judged", "seconds")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("modules", nargs="*", help="default: all that this Python has")
    parser.add_argument("--suite", choices=sorted(lane.SUITES), default="cpython")
    parser.add_argument("--loops", default="uring,epoll", help="default: %(default)s")
    parser.add_argument("--brief", action="store_true", help="only the last line of each failure")
    args = parser.parse_args()
    suite = lane.SUITES[args.suite]
    reason = lane.missing_reason(suite.name)
    if reason is not None:
        print(f"skipped: {reason}")
        return 0
    modules = args.modules or lane.modules_here(suite.name)
    version = sys.version.split()[0]
    print(f"{suite.name}'s tests on CPython {version}, judged against {suite.control}.")
    print("'no loop': passed, but no loop of the kind under test was seen being made.")
    print(f"'not judged': {suite.control} itself fails or skips it.\n")
    print(f"{'module':26}{'loop':9}" + "".join(f"{name:>11}" for name in COLUMNS), flush=True)
    verdicts = [
        _row(suite.name, module, loop) for module in modules for loop in args.loops.split(",")
    ]
    _totals(verdicts, args.loops.split(","))
    for verdict in verdicts:
        _details(verdict, args.brief)
    return int(any(verdict.failed or verdict.unused for verdict in verdicts))


def _row(suite: str, module: str, loop: str) -> lane.Verdict:
    lane.control(suite, module)
    start_s = time.monotonic()
    verdict = lane.judge(module, loop, suite)
    print(_line(module, loop, _counts(verdict), time.monotonic() - start_s), flush=True)
    return verdict


def _counts(verdict: lane.Verdict) -> tuple[int, ...]:
    return (
        len(verdict.passed),
        len(verdict.passed_without_loop),
        len(verdict.excepted),
        len(verdict.failed) + len(verdict.unused),
        len(verdict.flaky),
        len(verdict.not_judged),
    )


def _line(module: str, loop: str, counts: tuple[int, ...], seconds: float) -> str:
    return f"{module:26}{loop:9}" + "".join(f"{n:>11}" for n in counts) + f"{seconds:>11.1f}"


def _totals(verdicts: list[lane.Verdict], loops: list[str]) -> None:
    for loop in loops:
        rows = [_counts(verdict) for verdict in verdicts if verdict.loop == loop]
        print(_line("all", loop, tuple(sum(column) for column in zip(*rows, strict=True)), 0.0))


def _details(verdict: lane.Verdict, brief: bool) -> None:
    if verdict.unavailable:
        print(f"\nNOT RUN {verdict.loop} {verdict.module}: {verdict.unavailable}")
    for test, result in sorted(verdict.failed.items()):
        text = result.detail.strip()
        last = text.splitlines()[-1] if text else ""
        print(f"\n{result.outcome.upper()} {verdict.loop} {test}\n{last if brief else text}")
    for test, result in sorted(verdict.flaky.items()):
        last = result.detail.strip().splitlines()[-1]
        print(f"\nFLAKY {verdict.loop} {test} (passed when run alone)\n{last}")
    for test in verdict.unused:
        print(f"\nUNUSED EXCEPTION {verdict.loop} {test} passes: take it off exceptions.toml")


if __name__ == "__main__":
    sys.exit(main())
