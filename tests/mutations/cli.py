"""The command: which mutations, their results, which are kept, and the table at the end."""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from . import catalogue, run
from .catalogue import Catalogue, Mutation
from .run import KILLED, SKIPPED, Outcome


class Results:
    """What is known of mutations that were tried; a second run goes on where one has stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict[str, object]] = {}
        if path.is_file():
            self.known = json.loads(path.read_text())

    def find(self, one: Mutation) -> Outcome | None:
        entry = self.known.get(one.name)
        if entry is None or entry["digest"] != run.digest(one) or entry["verdict"] != KILLED:
            return None
        return Outcome(str(entry["verdict"]), str(entry["detail"]))

    def keep(self, one: Mutation, outcome: Outcome, taken_s: float) -> None:
        self.known[one.name] = {
            "digest": run.digest(one),
            "verdict": outcome.verdict,
            "detail": outcome.detail,
            "seconds": round(taken_s, 1),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.known, indent=1) + "\n")


def chosen(everything: Catalogue, names: list[str], number: int | None) -> list[Mutation]:
    unknown = set(names) - {one.name for one in everything.mutations}
    if unknown:
        raise SystemExit(f"netpoll: no mutation has this name: {', '.join(sorted(unknown))}")
    return [
        one
        for one in everything.mutations
        if (not names or one.name in names) and number in (None, one.number)
    ]


def run_all(mutations: list[Mutation], results: Results) -> Counter[str]:
    verdicts: Counter[str] = Counter()
    known = {one.name: results.find(one) for one in mutations}
    pending = [one for one in mutations if known[one.name] is None]
    for one in mutations:
        if outcome := known[one.name]:
            tell(one, outcome, 0.0, verdicts)
    if not pending:
        return verdicts
    run.refresh()
    built = run.build_extensions()
    if built.status != 0:
        raise SystemExit(f"netpoll: the source does not build\n{built.last_lines()}")
    for together in run.rounds(pending):
        if len(together) > 1 and together[0].file.endswith(".pyx"):
            run.build_together(together)
        for one in together:
            began_s = time.monotonic()
            outcome = run.try_out(one)
            taken_s = time.monotonic() - began_s
            results.keep(one, outcome, taken_s)
            tell(one, outcome, taken_s, verdicts)
    return verdicts


def tell(one: Mutation, outcome: Outcome, taken_s: float, verdicts: Counter[str]) -> None:
    verdicts[outcome.verdict] += 1
    print(f"{one.number:3}  {one.name:44} {outcome.verdict:16} {taken_s:5.0f} s", flush=True)
    if outcome.verdict != KILLED:
        print("\n".join(f"       {line}" for line in outcome.detail.splitlines()), flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("names", metavar="NAME", nargs="*", help="these mutations (default: all)")
    parser.add_argument("--class", dest="number", type=int, help="those of one class of bugs")
    parser.add_argument("--list", action="store_true", help="shows them, and tries none")
    parser.add_argument("--fresh", action="store_true", help="forgets the results that are kept")
    parser.add_argument("--table", action="store_true", help="writes docs/bug-classes.md's table")
    args = parser.parse_args(arguments)
    everything = catalogue.read()
    if args.table:
        content = catalogue.table(everything, catalogue.classes_of_page())
        page = catalogue.PAGE
        page.write_text(catalogue.with_table(page.read_text(), content))
        return 0
    mutations = chosen(everything, args.names, args.number)
    if args.list:
        for one in mutations:
            print(f"{one.number:3}  {one.name:44} {one.guard}")
        return 0
    wrong = list(catalogue.faults(everything, catalogue.classes_of_page()))
    if wrong:
        raise SystemExit("\n".join(["netpoll: the list is wrong:", *wrong]))
    with run.alone():
        results = Results(run.WORK / "results.json")
        if args.fresh:
            results.known = {}
        verdicts = run_all(mutations, results)
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    return 0 if set(verdicts) <= {KILLED, SKIPPED} else 1
