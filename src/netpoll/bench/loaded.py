"""Servers under load: every arm in every cell, window by window, in processes that stay or do not.

A cell is a load and an entry is an arm in one of its modes; what the two are is the kind's, as are
the server and the load themselves. `windows.py` makes figures of what is measured here.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from netpoll.bench.errors import ServerError
from netpoll.bench.openloop import Pace, with_paced
from netpoll.bench.rounds import Plan, Run, Step, rotated
from netpoll.bench.stats import Sample, paired_ratio
from netpoll.bench.syscalls import SyscallCounter
from netpoll.bench.windows import Load, Measured, measure

__all__ = ["LoadPlan", "Servers", "Subject", "calls_of", "fitted", "samples_of"]

START_S = 0.25  # a server child, until it listens
SETTLE_S = 0.02  # connections, readings, the last answers of a window
SHORTEST_WINDOW_S, USUAL_WINDOW_S = 0.05, 0.4
WARMUP_S, QUICK_WARMUP_S = 0.2, 0.08
QUICK_STALL_S = 2.0
END_S = 0.5  # of patience with a server that seems to have ended
ROTATE_BY = 5  # so that another sort of arm is the first in each round


@dataclass(frozen=True)
class Subject:
    """An entry in a cell. with_calls: its system calls are counted, in a run of its own, for
    counting costs time."""

    cell: Any
    entry: Any
    with_calls: bool = False

    def __str__(self) -> str:
        return str(self.entry)


@dataclass(frozen=True, kw_only=True)
class LoadPlan(Plan):
    """fresh: a new server process for each measurement; else one per entry for the whole run.
    stall_s: patience with a server that does not answer. counter: what counts system calls. pace:
    the windows of an open loop that follow the one at full rate."""

    cells: tuple[Any, ...]
    duration_s: float = USUAL_WINDOW_S
    warmup_s: float = WARMUP_S
    fresh: bool = True
    stall_s: float = 5.0
    counter: SyscallCounter | None = None
    pace: Pace = field(default_factory=Pace)

    @property
    @abstractmethod
    def entries(self) -> Sequence[Any]:
        """Who is measured in every cell."""

    @property
    def measurement_s(self) -> float:
        windows_s = (1 + self.pace.windows) * self.duration_s
        return windows_s + self.warmup_s + SETTLE_S + (START_S if self.fresh else 0.0)

    @property
    def start_s(self) -> float:
        return 0.0 if self.fresh else len(self.entries) * START_S

    def steps(self) -> Iterator[Step]:
        for number in range(self.rounds):
            for cell in self.cells:
                for entry in rotated(self.entries, number * ROTATE_BY):
                    group = f"round {number + 1} of {self.rounds}, {cell}"
                    yield Step(Subject(cell, entry), number, group)
        if self.counter is not None:
            for cell in self.cells:
                for entry in self.entries:
                    yield Step(Subject(cell, entry, True), 0, f"system calls, {cell}")


@dataclass(frozen=True, kw_only=True)
class PartialPlan(LoadPlan):
    """One whose arms cannot all do everything. skipped: cells that cannot be had here, and why."""

    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def entries(self) -> Sequence[str]:
        return self.arms

    @abstractmethod
    def is_able(self, subject: Any) -> bool:
        """Whether this arm can do what the cell asks for."""

    def steps(self) -> Iterator[Step]:
        return (step for step in super().steps() if self.is_able(step.subject))


P = TypeVar("P", bound=LoadPlan)


def fitted(plan: P, duration_s: float | None, warmup_s: float | None) -> P:
    """A plan for --quick: servers that stay, and windows that fit into its time limit, unless they
    were asked for."""
    warmup_s = QUICK_WARMUP_S if warmup_s is None else warmup_s
    plan = replace(plan, fresh=False, stall_s=QUICK_STALL_S, warmup_s=warmup_s)
    if duration_s is not None or plan.limit_s is None:
        return plan
    without = replace(plan, duration_s=0.0, limit_s=None)
    per_second = replace(without, duration_s=1.0).expected_s - without.expected_s
    fits_s = (plan.limit_s * 0.9 - without.expected_s) / per_second
    return replace(plan, duration_s=min(max(fits_s, SHORTEST_WINDOW_S), USUAL_WINDOW_S))


class RunningServer(Measured, Protocol):
    """What `Servers` starts: `process.Server`, `process.Program`."""

    @property
    def pid(self) -> int: ...
    def has_ended(self, within_s: float) -> bool: ...
    def last_words(self) -> str: ...
    def kill(self) -> None: ...


class Servers:
    """The servers of a run, and how one of them is measured. A context manager.

    start: starts the server of a subject. load: connects to it; entered for one measurement.
    shared_by: what the subjects have in common that one server may serve.
    """

    def __init__(
        self,
        plan: LoadPlan,
        *,
        start: Callable[[Subject], Any],
        load: Callable[[Any, Subject], AbstractContextManager[Load]],
        shared_by: Callable[[Subject], Hashable],
    ):
        self.plan = plan
        self.start = start
        self.load = load
        self.shared_by = shared_by
        self.running: dict[Hashable, RunningServer] = {}
        self.answered: set[Subject] = set()

    def measure(self, subject: Subject, round_number: int) -> Sample | dict[str, float]:
        """A window, or the system calls per request. Raises ServerError."""
        stays = False
        try:
            server = self.server(subject)
            with self.load(server, subject) as load:
                load.run(self.plan.warmup_s)
                if subject.with_calls:
                    return self.count_calls(subject, server, load)
                sample = self.window(server, load, round_number)
            if not sample.requests:
                raise ServerError("no request was answered within the window")
            self.answered.add(subject)
            stays = not self.plan.fresh
            return sample
        except OSError as error:
            raise ServerError(self.fault_text(subject, error)) from error
        finally:
            if not stays:
                self.drop_server(subject)

    def window(self, server: RunningServer, load: Any, round_number: int) -> Sample:
        """What is measured once the load is warm."""
        sample = measure(server, load, self.plan.duration_s, round_number)
        return with_paced(sample, self.plan.pace, functools.partial(load.run, self.plan.duration_s))

    def count_calls(self, subject: Subject, server: RunningServer, load: Load) -> dict[str, float]:
        counter = self.plan.counter
        assert counter is not None, "a plan without a counter has no such step"
        with counter.attached(server.pid) as counts:
            requests = load.run(self.plan.duration_s)["requests_all"]
        return {name: count / requests for name, count in counts.items()}

    def server(self, subject: Subject) -> RunningServer:
        """Raises ServerError when it does not start."""
        if subject.with_calls and replace(subject, with_calls=False) not in self.answered:
            raise ServerError("it was not measured")
        key = self.shared_by(subject)
        if key not in self.running:
            self.running[key] = self.start(subject)
        return self.running[key]

    def drop_server(self, subject: Subject) -> None:
        if server := self.running.pop(self.shared_by(subject), None):
            server.kill()

    def fault_text(self, subject: Subject, error: Exception) -> str:
        """What happened; when the server has ended, its last words are the better reason. A
        connection breaks a moment before its server is known to have ended."""
        server = self.running.get(self.shared_by(subject))
        if server is not None and server.has_ended(END_S):
            return server.last_words()
        return str(error)

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *exc: object) -> None:
        for server in self.running.values():
            server.kill()


def samples_of(run: Run, cell: Any, entry: Any) -> dict[int, Sample]:
    """The windows of an entry in a cell, by round."""
    return run.samples.get(Subject(cell, entry), {})


def cpu_ratio(run: Run, cell: Any, entry: Any, to: Any) -> float | None:
    """CPU per request against another entry's, round by round."""

    def per_round(which: Any) -> dict[int, float]:
        return {number: s.cpu_us for number, s in samples_of(run, cell, which).items()}

    return paired_ratio(per_round(entry), per_round(to))


def calls_of(run: Run, cell: Any, entry: Any) -> dict[str, float] | None:
    """Its system calls per request, if they were counted."""
    return run.samples.get(Subject(cell, entry, True), {}).get(0)
