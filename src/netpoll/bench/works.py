"""Kinds that run pieces of work in a process for each arm, a round at a time.

The process of an arm is a child (``python -m netpoll.bench.works MODULE ARM SETTINGS``): it warms
up, then runs a round for each line on its standard input and answers with one line of JSON,
{operation: ns}. The children of all arms are there for the whole run; only one of them works.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from netpoll.bench.arguments import list_of, number_in, one_of
from netpoll.bench.blocks import counted
from netpoll.bench.costs import CostKind
from netpoll.bench.errors import ArmUnavailable, ServerError
from netpoll.bench.kind import Terms
from netpoll.bench.process import Child, child_environment, die_with_parent
from netpoll.bench.records import Facts
from netpoll.bench.rounds import Measure, Plan
from netpoll.bench.watch import Watch

__all__ = ["WorkChild", "WorksKind", "WorksPlan"]

ROUND_TIMEOUT_S = 120.0
START_S = 0.4  # of a child, about
WARM_UP_SHARE = 0.1  # of a round

# Does a share of the usual number of operations; returns {operation: ns}.
RunRound = Callable[[float], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class WorksPlan(Plan):
    """operations: which; scale: part of the usual number of each; round_s: how long a round of one
    arm takes, about."""

    operations: tuple[str, ...]
    scale: float
    round_s: float

    @property
    def measurement_s(self) -> float:
        return self.round_s * self.scale

    @property
    def start_s(self) -> float:
        return len(self.arms) * (START_S + WARM_UP_SHARE * self.measurement_s)


class WorkChild(Child):
    """One arm's process, waiting to be told to run a round. `settings` is for its `worker`."""

    def __init__(self, kind: WorksKind, arm: str, settings: Facts, cpu: int | None):
        words = [type(kind).__module__, arm, json.dumps(settings)]
        env = child_environment(kind.arms[arm])
        super().__init__(["-m", "netpoll.bench.works", *words], env, cpu, commands=True)

    def round(self) -> dict[str, float]:
        """Runs one round. Raises ServerError when the child cannot, has ended or hangs."""
        self.command("round")
        answer = self.answer(ROUND_TIMEOUT_S)
        if "unavailable" in answer:
            raise ServerError(answer["unavailable"])
        return answer


class WorksKind(CostKind):
    """round_s: how long a round of one arm with all operations takes, about. option, noun: how the
    operations are called on the command line."""

    round_s: ClassVar[float]
    option: ClassVar[str] = "--works"
    noun: ClassVar[str] = "work"

    def add_options(self, parser: argparse._ArgumentGroup) -> None:
        parser.add_argument(
            self.option,
            dest="operations",
            type=list_of(one_of(self.operations, self.noun), self.noun),
            default=tuple(self.operations),
            metavar="A,B",
            help=f"default: all of {', '.join(self.operations)}",
        )
        parser.add_argument(
            "--scale",
            type=number_in(0.001, 1000, float),
            default=1.0,
            metavar="F",
            help="times the usual number of operations",
        )

    def plan_facts(self, options: argparse.Namespace, terms: Terms) -> dict[str, Any]:
        """The fields of `WorksPlan`."""
        share = len(options.operations) / len(self.operations)
        return vars(terms) | {
            "operations": options.operations,
            "scale": options.scale,
            "round_s": self.round_s * share,
        }

    def plan(self, options: argparse.Namespace, terms: Terms) -> WorksPlan:
        return WorksPlan(**self.plan_facts(options, terms))

    def size(self, plan: WorksPlan) -> str:
        arms, operations = len(plan.arms), len(plan.operations)
        return f"{counted(arms, self.arm_noun)}, {counted(operations, 'operation')}"

    def settings(self, plan: Any) -> Facts:
        return {"rounds": plan.rounds, "scale": plan.scale}

    def worker_settings(self, plan: Any, arm: str) -> Facts:
        """What `worker` has to know."""
        operations = self.measured_operations(plan, arm)
        return {"operations": list(operations), "scale": plan.scale}

    @contextmanager
    def measuring(self, plan: Any, watch: Watch) -> Iterator[Measure]:
        cpu = plan.pinning.server_cpu if self.pinned else None
        children: dict[str, WorkChild] = {}
        try:
            for arm in plan.arms:
                children[arm] = WorkChild(self, arm, self.worker_settings(plan, arm), cpu)
            yield lambda arm, _: children[arm].round()
        finally:
            for child in children.values():
                child.kill()

    @abstractmethod
    def worker(self, arm: str, settings: Mapping[str, Any]) -> AbstractContextManager[RunRound]:
        """In the child: what is there for the length of its life, and the function that runs a
        round. Raises ArmUnavailable."""


def main(argv: list[str] | None = None) -> int:
    """The child: a warm-up, then a round for each line that comes."""
    parser = argparse.ArgumentParser(prog="python -m netpoll.bench.works")
    parser.add_argument("module", help="of the kind")
    parser.add_argument("arm")
    parser.add_argument("settings", type=json.loads)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    kind = importlib.import_module(options.module).KIND
    scale = options.settings["scale"]
    try:
        with kind.worker(options.arm, options.settings) as run_round:
            run_round(scale * WARM_UP_SHARE)
            for _ in sys.stdin:
                print(json.dumps(run_round(scale)), flush=True)
    except ArmUnavailable as reason:
        print(json.dumps({"unavailable": str(reason)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
