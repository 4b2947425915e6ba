"""For tests of programs: an order that can be repeated, and a kernel on a bad day.

A DeterministicScheduler runs the tasks of a Scheduler in an order that can be repeated.

    from netpoll.testing import DeterministicScheduler

    def test_my_tasks():
        for seed in range(100):
            with DeterministicScheduler(workers=3, seed=seed) as scheduler:
                scheduler.run(main)

Nothing runs by itself: virtual workers take turns in the thread that calls run(), step() or
result(), in an order that only the seed decides, and steal from each other as real ones do. The
clock is virtual, too: it stands still while something can run, and then jumps to the next deadline,
so that an hour of sleep() takes no time.

Faults makes happen to event loops what the kernel's documents allow and a quiet machine does not
show: receives and sends that are short, completions that are late or in another order, waits that
a signal ends, accepts that fail.

    from netpoll.testing import Faults

    with Faults(seed=1) as faults:
        netpoll.run(main())
    print(faults.counts())
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, NoReturn

from netpoll._core import ON_BIRTH
from netpoll._native.sched.task import Task
from netpoll._native.testing.faults import KINDS, QUIET_KINDS, TOLD_KINDS, FaultPlan
from netpoll.sched import Scheduler

__all__ = [
    "KINDS",
    "QUIET_KINDS",
    "TOLD_KINDS",
    "DeadlockError",
    "DeterministicScheduler",
    "Faults",
]


class DeadlockError(RuntimeError):
    """Nothing is queued, no deadline is ahead, and what is waited for is not done."""


class DeterministicScheduler(Scheduler):
    """A Scheduler of virtual workers, for one thread.

    seed: the order of everything; None draws one, which `seed` then tells. deque_slots: a worker's
    queue per lane, a power of two; few make tasks overflow and change workers often.
    trace: the index of the worker of each step so far.
    """

    def __init__(
        self,
        workers: int = 2,
        *,
        seed: int | None = None,
        deque_slots: int = 4,
        name: str = "deterministic",
    ) -> None:
        self._deque_slots = deque_slots
        self.trace: list[int] = []
        super().__init__(workers, seed=seed, name=name)

    def _start(self) -> None:
        self._random = random.Random(self.seed)
        self._open(self.workers, self._deque_slots, self.seed, True, False)

    def time(self) -> float:
        """The virtual clock, seconds since the scheduler was made."""
        return self._now_ns() / 1e9

    def step(self) -> bool:
        """Runs one task, or one step of one, as a worker that the seed picks; False: none can run.

        An alarm that is due counts as something that runs.
        """
        for index in self._random.sample(range(self.workers), self.workers):
            if self._step(index):
                self.trace.append(index)
                return True
        return False

    def run_until_idle(self) -> int:
        """Runs what can run without the clock moving; returns how many steps that took."""
        count = 0
        while self.step():
            count += 1
        return count

    def advance(self, delay_s: float) -> None:
        """Moves the clock by `delay_s` seconds, stopping at each deadline to run what it wakes."""
        end_ns = self._now_ns() + round(delay_s * 1e9)
        self.run_until_idle()
        while (next_ns := self._next_alarm_ns()) is not None and next_ns <= end_ns:
            self._set_clock_ns(max(next_ns, self._now_ns()))
            self.run_until_idle()
        self._set_clock_ns(end_ns)

    def _jump(self) -> bool:
        """To the next deadline, if there is one."""
        next_ns = self._next_alarm_ns()
        if next_ns is None:
            return False
        self._set_clock_ns(max(next_ns, self._now_ns()))
        return True

    def _run_until_done(self, task: Task) -> None:
        while not task.done():
            if not self.step() and not self._jump():
                raise DeadlockError(f"{task!r} waits for something that will never happen")

    def run(self, main: Callable[..., Any] | Coroutine[Any, Any, Any], *args: Any) -> Any:
        """Runs main(*args), or the coroutine `main`; raises DeadlockError when it cannot end."""
        return self.spawn(main, *args, name="main").result()

    def loop(self, *args: Any, **options: Any) -> NoReturn:
        """Virtual workers have no rings: RuntimeError."""
        raise RuntimeError("the workers of a DeterministicScheduler have no event loops")

    def close(self, wait: bool = True, *, cancel: bool = False) -> None:
        """As Scheduler.close(); tasks that can never end raise DeadlockError, cancel ends them."""
        self._stop(cancel)
        while wait and (self.step() or self._jump()):
            pass
        if wait and (count := self._live_count()):
            raise DeadlockError(f"{count} tasks wait for something that will never happen")
        self._end_workers()


class Faults:
    """Faults for every event loop that is made within its `with` block, in any thread: those of
    servers and of schedulers as well. When the block ends nothing more happens to them.

    seed: what happens when; None draws one, which `seed` then tells. The kernel's own timing is not
    repeated, so that two runs of a seed are alike, and not the same.
    rate: how often each kind happens where it can, 0 to 1.
    kinds: which, or a rate for each. QUIET_KINDS, which are the default, cost a program time and
    nothing else. TOLD_KINDS it has to be told of: connections end with errors, files say EIO.

    Only what goes through a loop's backend can meet a fault; direct calls, as of large sends, do
    not.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        rate: float = 0.05,
        kinds: Mapping[str, float] | tuple[str, ...] = QUIET_KINDS,
    ) -> None:
        self.seed = random.SystemRandom().getrandbits(48) if seed is None else seed
        rates = dict(kinds) if isinstance(kinds, Mapping) else dict.fromkeys(kinds, rate)
        self._plan = FaultPlan(self.seed, rates)

    def __enter__(self) -> Faults:
        self._plan.set_calm(False)
        ON_BIRTH.append(self._plan.wrap)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        ON_BIRTH.remove(self._plan.wrap)
        self._plan.set_calm(True)

    def counts(self) -> dict[str, int]:
        """How many have happened so far, by kind."""
        return self._plan.counts()
