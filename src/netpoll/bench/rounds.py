"""The interleaved run: round by round everything is measured once, each round begun elsewhere.

A kind says what there is to measure (its `Plan`) and how one of these is measured (a function,
`Measure`); the order, the progress, the faults and the early end are the same for every kind.
"""

from __future__ import annotations

import gc
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from netpoll.bench import _native
from netpoll.bench.cores import Pinning
from netpoll.bench.errors import ServerError
from netpoll.bench.watch import INTERRUPTED, Watch

__all__ = [
    "Measure",
    "Plan",
    "Progress",
    "Run",
    "Step",
    "no_garbage_collection",
    "rotated",
    "run_plan",
]

Item = TypeVar("Item")


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    """The items, begun `by` places later: nobody is always first, or always after the same one."""
    by %= len(items) or 1
    return [*items[by:], *items[:by]]


@dataclass(frozen=True)
class Step:
    """One measurement of a plan. `subject`: what is measured; `group`: a headline for progress."""

    subject: Hashable
    round: int
    group: str


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """What to run. A kind adds what it has to know.

    malloc: who runs with the glibc settings of `arms.MALLOC_TUNED`.
    limit_s: no measurement begins that would end later than this after the start; None: no limit.
    """

    arms: tuple[str, ...]
    pinning: Pinning
    rounds: int
    limit_s: float | None = None
    malloc: str = "none"

    @property
    def subjects(self) -> Sequence[Hashable]:
        """What each round measures once."""
        return self.arms

    @property
    @abstractmethod
    def measurement_s(self) -> float:
        """How long one measurement takes, about."""

    @property
    def start_s(self) -> float:
        """How long it takes until the first one begins."""
        return 0.0

    def steps(self) -> Iterator[Step]:
        """All measurements, in order."""
        for number in range(self.rounds):
            for subject in rotated(self.subjects, number):
                yield Step(subject, number, f"round {number + 1} of {self.rounds}")

    @property
    def count(self) -> int:
        return sum(1 for _ in self.steps())

    @property
    def expected_s(self) -> float:
        expected_s = self.start_s + self.count * self.measurement_s
        return min(expected_s, self.limit_s) if self.limit_s else expected_s


@dataclass
class Run:
    """What came out. `samples`: subject to what was measured, by round; `faults`: subject to the
    sentence that says what went wrong; `stopped`: why the run ended before its plan did."""

    plan: Any
    samples: dict[Hashable, dict[int, Any]] = field(default_factory=dict)
    faults: dict[Hashable, str] = field(default_factory=dict)
    stopped: str | None = None
    started_at: float = field(default_factory=time.time)  # Unix time
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class Progress:
    """What is measured next. `done` measurements lie behind."""

    done: int
    group: str
    text: str


# Measures a subject in a round. Raises ServerError or OSError when its server fails, and
# LoadStopped when the load was stopped in the middle.
Measure = Callable[[Any, int], Any]


def run_plan(
    plan: Plan,
    measuring: Callable[[Any, Watch], AbstractContextManager[Measure]],
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Run:
    """Runs the plan; what is there by Ctrl-C or by the time limit is returned. `measuring` is
    entered for the length of the run. A subject that failed once is not measured again."""
    run = Run(plan)
    with Watch(plan.limit_s) as watch:
        try:
            with measuring(plan, watch) as measure:
                _take_steps(run, measure, watch, progress)
        finally:
            run.elapsed_s = watch.elapsed_s
    return run


def _take_steps(
    run: Run, measure: Measure, watch: Watch, progress: Callable[[Progress], None]
) -> None:
    for done, step in enumerate(run.plan.steps()):
        run.stopped = watch.why_stop(run.plan.measurement_s)
        if run.stopped:
            return
        progress(Progress(done, step.group, str(step.subject)))
        if step.subject in run.faults:
            continue
        try:
            sample = measure(step.subject, step.round)
        except _native.LoadStopped:
            run.stopped = INTERRUPTED
            return
        except (ServerError, OSError) as error:
            run.faults[step.subject] = str(error)
        else:
            run.samples.setdefault(step.subject, {})[step.round] = sample


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
