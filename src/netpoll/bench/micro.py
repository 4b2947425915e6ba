"""The micro benchmark: what a loop's primitives cost, nanoseconds of CPU per operation.

As a module of its own (``python -m netpoll.bench.micro --arm X``) it is the child: one arm in one
process, pinned by its parent; it answers one line of JSON per round, when it is told to on its
standard input. The parent interleaves the arms: a round of A, of B, of C, and again.
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from netpoll.bench.arms import ARMS
from netpoll.bench.echo import Step
from netpoll.bench.primitives import WORKLOADS, run_workload
from netpoll.bench.process import (
    Child,
    Pinning,
    ServerError,
    child_environment,
    die_with_parent,
)
from netpoll.bench.watch import Watch

ROUND_TIMEOUT_S = 60.0
ROUND_S = 0.6  # about, of one arm


@dataclass(frozen=True)
class MicroPlan:
    """What to run. `scale`: part of each workload's operations; limit_s as in EchoPlan."""

    arms: tuple[str, ...]
    workloads: tuple[str, ...]
    pinning: Pinning
    rounds: int = 5
    scale: float = 1.0
    limit_s: float | None = None

    @property
    def expected_s(self) -> float:
        per_arm_s = ROUND_S * self.scale * len(self.workloads) / len(WORKLOADS)
        expected_s = len(self.arms) * (0.3 + (self.rounds + 1) * per_arm_s)
        return min(expected_s, self.limit_s) if self.limit_s else expected_s


@dataclass
class MicroRun:
    """`samples`: (workload, arm) to nanoseconds per operation, by round."""

    plan: MicroPlan
    samples: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    started_at: float = field(default_factory=time.time)
    elapsed_s: float = 0.0


class MicroChild(Child):
    """One arm's process, waiting to be told to run a round."""

    def __init__(self, arm: str, plan: MicroPlan):
        args = ["-m", "netpoll.bench.micro", "--arm", arm, "--scale", str(plan.scale)]
        args += ["--workloads", ",".join(plan.workloads)]
        env = child_environment(ARMS[arm])
        super().__init__(args, env, plan.pinning.server_cpu, commands=True)

    def round(self) -> dict[str, float]:
        """Runs one round. Raises ServerError when the child ended or hangs."""
        self.command("round")
        return self.answer(ROUND_TIMEOUT_S)


def _rotated_arms(arms: tuple[str, ...], by: int) -> tuple[str, ...]:
    by %= len(arms)
    return arms[by:] + arms[:by]


def run_micro(plan: MicroPlan, progress: Callable[[Step], None] = lambda step: None) -> MicroRun:
    """Runs the plan; what is there by Ctrl-C or by the time limit is returned."""
    run = MicroRun(plan)
    children: dict[str, MicroChild] = {}
    done, total = 0, plan.rounds * len(plan.arms)
    with Watch(plan.limit_s) as watch:
        try:
            for arm in plan.arms:
                children[arm] = MicroChild(arm, plan)
            for round_number in range(plan.rounds):
                for arm in _rotated_arms(plan.arms, round_number):
                    run.stopped = watch.why_stop(ROUND_S * plan.scale)
                    if run.stopped:
                        return run
                    progress(Step(done, total, f"round {round_number + 1} of {plan.rounds}", arm))
                    done += 1
                    if arm not in run.faults:
                        _keep_round(run, children[arm], arm, round_number)
        finally:
            for child in children.values():
                child.kill()
            run.elapsed_s = watch.elapsed_s
    return run


def _keep_round(run: MicroRun, child: MicroChild, arm: str, round_number: int) -> None:
    try:
        figures = child.round()
    except (ServerError, OSError) as error:
        run.faults[arm] = str(error)
    else:
        for name, ns in figures.items():
            run.samples.setdefault((name, arm), {})[round_number] = ns


def main(argv: list[str] | None = None) -> int:
    """The child: a warm-up round, then a round for each line that comes."""
    parser = argparse.ArgumentParser(prog="python -m netpoll.bench.micro")
    parser.add_argument("--arm", required=True, choices=ARMS)
    parser.add_argument("--workloads", required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    loop = ARMS[options.arm].new_loop()
    workloads = {name: WORKLOADS[name] for name in options.workloads.split(",")}

    def run_round(scale: float) -> dict[str, float]:
        figures = {}
        for name, workload in workloads.items():
            gc.collect()
            count = max(int(workload.count * scale) // 1000 * 1000, 1000)
            figures[name] = run_workload(loop, workload, count)
        return figures

    run_round(options.scale / 10)
    for _ in sys.stdin:
        print(json.dumps(run_round(options.scale)), flush=True)
    loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
