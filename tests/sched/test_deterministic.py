"""The deterministic mode, and properties that hold for every order of events."""

import asyncio
from typing import Any

import pytest

from netpoll import Priority, TaskGroup
from netpoll.sched import sleep, timeout, yield_now
from netpoll.testing import DeadlockError, DeterministicScheduler

from ..support import EXAMPLES_FACTOR


def order_of(seed: int | None) -> tuple[list[int], list[int]]:
    log: list[int] = []

    async def walk(n: int) -> None:
        for _ in range(5):
            log.append(n)
            await yield_now()
            await sleep(0.001 * (n % 3))

    with DeterministicScheduler(3, seed=seed) as scheduler:
        for n in range(10):
            scheduler.spawn(walk, n)
    return log, scheduler.trace


def test_the_same_seed_the_same_order() -> None:
    assert order_of(11) == order_of(11)


def test_another_seed_another_order() -> None:
    assert len({str(order_of(seed)) for seed in range(8)}) > 1
    assert len({str(order_of(None)) for _ in range(8)}) > 1


def test_the_clock_stands_still_and_jumps() -> None:
    async def nap() -> float:
        start_s = scheduler.time()
        await sleep(3600)
        return scheduler.time() - start_s

    with DeterministicScheduler(seed=1) as scheduler:
        assert scheduler.run(nap) == 3600
        task = scheduler.spawn(nap)
        scheduler.advance(3599)
        assert not task.done()
        scheduler.advance(1)
        assert task.result() == 3600


def test_timeouts_in_virtual_time() -> None:
    async def main() -> str:
        try:
            async with timeout(100):
                await sleep(1000)
        except TimeoutError:
            return f"{scheduler.time():g}"
        return "no time-out"

    with DeterministicScheduler(seed=2) as scheduler:
        assert scheduler.run(main) == "100"


def test_a_deadlock_is_told() -> None:
    scheduler = DeterministicScheduler(seed=1)

    async def wait_for_each_other() -> None:
        await scheduler.spawn(lambda: other)
        await other

    async def wait_for_first() -> None:
        await first

    first = scheduler.spawn(wait_for_each_other)
    other = scheduler.spawn(wait_for_first)
    with pytest.raises(DeadlockError, match="never"):
        first.result()
    with pytest.raises(DeadlockError, match="2 tasks"):
        scheduler.close()
    scheduler.close(cancel=True)
    assert first.cancelled() and other.cancelled()


def test_virtual_workers_steal() -> None:
    async def main() -> None:
        async with TaskGroup() as group:
            for _ in range(200):
                group.spawn(yield_now)

    stolen_count = 0  # of one seed it is a handful, or none
    for seed in range(20):
        with DeterministicScheduler(4, seed=seed, deque_slots=64) as scheduler:
            scheduler.run(main)
        workers = scheduler.stats()["workers"]
        assert all(worker["executed"] for worker in workers)
        stolen_count += sum(worker["stolen"] for worker in workers)
    assert stolen_count > 0


def test_a_group_does_the_same_wherever_its_tasks_lie_in_memory() -> None:
    def trace(kept: list[object]) -> tuple[list[int], list[dict[str, Any]]]:
        async def child(number: int) -> None:
            kept.append([number] * (number % 7))  # so that addresses differ from run to run
            await yield_now()
            if number == 150:
                raise ValueError(number)

        async def main() -> None:
            with pytest.raises(ExceptionGroup):
                async with TaskGroup() as group:
                    for number in range(200):
                        group.spawn(child, number)

        with DeterministicScheduler(4, seed=0, deque_slots=64) as scheduler:
            scheduler.run(main)
        return scheduler.trace, scheduler.stats()["workers"]

    kept: list[object] = []
    first = trace(kept)
    assert all(trace(kept) == first for _ in range(10))


def test_an_executor_ends_its_calls_in_their_order() -> None:
    ended: list[int] = []
    with DeterministicScheduler(2, seed=0) as scheduler:
        executor = scheduler.as_executor()
        for number in range(50):
            executor.submit(int).add_done_callback(lambda _, number=number: ended.append(number))
        executor.shutdown(wait=False, cancel_futures=True)
    assert ended == list(range(50))


# ---- properties -------------------------------------------------------------------------------

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.sampled_from(Priority)),
        st.tuples(st.just("spawn"), st.sampled_from(Priority)),
        st.tuples(st.just("sleep"), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("reprioritise"), st.integers(0, 50)),
        st.tuples(st.just("await"), st.integers(0, 50)),
        st.tuples(st.just("step"), st.integers(1, 20)),
    ),
    max_size=60,
)


@hypothesis.settings(max_examples=150 * EXAMPLES_FACTOR, deadline=None)
@hypothesis.given(
    actions=ACTIONS,
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 4),
    slots=st.sampled_from([2, 4, 16]),
)
def test_whatever_happens_each_task_ends_once(actions, seed, workers, slots) -> None:
    """A model: which tasks must run, which may have been cancelled; at the end none is left."""
    posted: list[int] = []
    ends: list[int] = []
    scheduler = DeterministicScheduler(workers, seed=seed, deque_slots=slots)
    scheduler.exception_handler = lambda context: pytest.fail(str(context))
    tasks: list = []
    cancelled: set[int] = set()

    async def wait(delay: int, awaited) -> str:
        if awaited is not None:
            try:
                await awaited
            except asyncio.CancelledError:
                if not awaited.done():
                    raise
        await sleep(delay * 0.001)
        return "done"

    for kind, value in actions:
        number = len(tasks)
        if kind == "post":
            scheduler.post(posted.append, len(posted), priority=value)
        elif kind == "spawn":
            tasks.append(scheduler.spawn(wait, 0, None, priority=value))
        elif kind == "sleep":
            tasks.append(scheduler.spawn(wait(value, None)))
        elif kind == "await":
            awaited = tasks[value % number] if number else None
            tasks.append(scheduler.spawn(wait, 1, awaited, priority=value % 4))
        elif kind == "cancel" and number:
            if tasks[value % number].cancel():
                cancelled.add(value % number)
        elif kind == "reprioritise" and number:
            tasks[value % number].set_priority(value % 4)
        elif kind == "step":
            for _ in range(value):
                scheduler.step()
        for task in tasks[number:]:
            task.add_done_callback(lambda _task, n=number: ends.append(n))
    posts = sum(kind == "post" for kind, _ in actions)
    scheduler.close()
    assert len(posted) == posts
    assert sorted(ends) == list(range(len(tasks)))
    for n, task in enumerate(tasks):
        assert task.done()
        assert task.cancelled() or task.result() == "done"
        assert not task.cancelled() or n in cancelled
    stats = scheduler.stats()
    assert stats["records_live"] == 0 and stats["tasks_live"] == 0
