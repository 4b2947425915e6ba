"""The scheduler benchmark: what queueing, spawning, stealing and priorities cost and buy.

As a module of its own (``python -m netpoll.bench.sched --arm X``) it is the child: one arm in one
process, on all CPUs, a round for each line on its standard input. The parent interleaves the arms
as bench micro does.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from netpoll.bench.arms import ArmUnavailable
from netpoll.bench.echo import Step
from netpoll.bench.process import Child, ServerError, die_with_parent
from netpoll.bench.schedworks import RUNNERS, SUMMARIES, WORKS
from netpoll.bench.stats import Spread, paired_ratio
from netpoll.bench.watch import Watch

ROUND_TIMEOUT_S = 120.0
ROUND_S = 2.5  # about, of one arm
WARM_UP_SHARE = 0.1
ARMS = tuple(RUNNERS)


@dataclass(frozen=True)
class SchedPlan:
    """What to run. `scale`: part of each workload's operations; limit_s as in EchoPlan."""

    arms: tuple[str, ...]
    works: tuple[str, ...]
    rounds: int = 5
    scale: float = 1.0
    limit_s: float | None = None

    @property
    def expected_s(self) -> float:
        per_arm_s = ROUND_S * self.scale * len(self.works) / len(WORKS)
        expected_s = len(self.arms) * (0.5 + (self.rounds + WARM_UP_SHARE) * per_arm_s)
        return min(expected_s, self.limit_s) if self.limit_s else expected_s


@dataclass
class SchedRun:
    """`samples`: (workload, arm) to ns, by round. `skipped`: arms that cannot run here, and why."""

    plan: SchedPlan
    samples: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    started_at: float = field(default_factory=time.time)
    elapsed_s: float = 0.0


class SchedChild(Child):
    """One arm's process, waiting to be told to run a round."""

    def __init__(self, arm: str, plan: SchedPlan):
        args = ["-m", "netpoll.bench.sched", "--arm", arm, "--scale", str(plan.scale)]
        args += ["--works", ",".join(plan.works)]
        super().__init__(args, dict(os.environ), None, commands=True)

    def round(self) -> dict:
        """Runs one round. Raises ServerError when the child ended or hangs."""
        self.command("round")
        return self.answer(ROUND_TIMEOUT_S)


def run_sched(plan: SchedPlan, progress: Callable[[Step], None] = lambda step: None) -> SchedRun:
    """Runs the plan; what is there by Ctrl-C or by the time limit is returned."""
    run = SchedRun(plan)
    children: dict[str, SchedChild] = {}
    done, total = 0, plan.rounds * len(plan.arms)
    with Watch(plan.limit_s) as watch:
        try:
            for arm in plan.arms:
                children[arm] = SchedChild(arm, plan)
            for round_number in range(plan.rounds):
                by = round_number % len(plan.arms)
                for arm in plan.arms[by:] + plan.arms[:by]:
                    run.stopped = watch.why_stop(ROUND_S * plan.scale)
                    if run.stopped:
                        return run
                    progress(Step(done, total, f"round {round_number + 1} of {plan.rounds}", arm))
                    done += 1
                    if arm not in run.faults and arm not in run.skipped:
                        _keep_round(run, children[arm], arm, round_number)
        finally:
            for child in children.values():
                child.kill()
            run.elapsed_s = watch.elapsed_s
    return run


def _keep_round(run: SchedRun, child: SchedChild, arm: str, round_number: int) -> None:
    try:
        figures = child.round()
    except (ServerError, OSError) as error:
        run.faults[arm] = str(error)
        return
    if "unavailable" in figures:
        run.skipped[arm] = figures["unavailable"]
        return
    for name, ns in figures.items():
        run.samples.setdefault((name, arm), {})[round_number] = ns


def sched_rows(run: SchedRun) -> list[dict]:
    """One row per workload and arm, as those of bench micro, with `vs_control`."""
    rows = []
    for name in run.plan.works:
        work = WORKS[name]
        reference = run.samples.get((name, work.control), {})
        for arm in run.plan.arms:
            by_round = run.samples.get((name, arm), {})
            if not by_round and arm not in run.faults:
                continue
            row: dict = {
                "workload": name,
                "title": work.title,
                "arm": arm,
                "mode": "-",
                "control": work.control,
                "fault": run.faults.get(arm),
                "rounds": len(by_round),
            }
            if by_round:
                row |= {
                    "ns": Spread.of(by_round.values()).as_dict(),
                    "ns_by_round": list(by_round.values()),
                    "vs_control": paired_ratio(by_round, reference),
                }
            rows.append(row)
    return rows


def arm_facts(run: SchedRun) -> dict:
    """Per arm: what it is, and why it was skipped."""
    return {
        arm: {
            "kind": "scheduler",
            "summary": SUMMARIES[arm],
            "version": None,
            "loop": None,
            "skipped": run.skipped.get(arm),
            "malloc": {},
        }
        for arm in run.plan.arms
    }


def _rounds(arm: str, names: list[str], scale: float) -> None:
    runner = RUNNERS[arm]()
    works = {name: WORKS[name] for name in names if arm in WORKS[name].arms}

    def run_round(share: float) -> dict[str, float]:
        figures = {}
        for name, work in works.items():
            gc.collect()
            figures[name] = work.run(runner, max(int(work.count * share), 10))
        return figures

    run_round(scale * WARM_UP_SHARE)
    for _ in sys.stdin:
        print(json.dumps(run_round(scale)), flush=True)
    runner.close()


def main(argv: list[str] | None = None) -> int:
    """The child: a warm-up, then a round for each line that comes."""
    parser = argparse.ArgumentParser(prog="python -m netpoll.bench.sched")
    parser.add_argument("--arm", required=True, choices=RUNNERS)
    parser.add_argument("--works", required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    try:
        _rounds(options.arm, options.works.split(","), options.scale)
    except ArmUnavailable as reason:
        print(json.dumps({"unavailable": str(reason)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
