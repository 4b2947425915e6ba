"""The scheduler's operations, as ``netpoll bench sched`` has them, and its groups."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import netpoll
from netpoll.bench.errors import ArmUnavailable
from netpoll.bench.schedworks import RUNNERS, WORKS, nothing_async

from .costs import cpu_ns, record

COUNT = 5_000


@pytest.mark.parametrize("arm", ["netpoll-1", "threads-1", "asyncio", "uvloop"])
@pytest.mark.parametrize("name", ["post", "spawn"])
def test_work(name: str, arm: str, benchmark: BenchmarkFixture) -> None:
    try:
        runner = RUNNERS[arm]()
    except ArmUnavailable as reason:
        pytest.skip(f"{arm}: {reason}")
    try:
        record(benchmark, WORKS[name].title, lambda: WORKS[name].run(runner, COUNT))
    finally:
        runner.close()


@pytest.mark.parametrize("priority", netpoll.Priority, ids=lambda priority: priority.name.lower())
def test_each_lane(priority: netpoll.Priority, benchmark: BenchmarkFixture) -> None:
    with netpoll.Scheduler(1, seed=1) as scheduler:

        def work() -> None:
            done = [scheduler.spawn(nothing_async(), priority=priority) for _ in range(COUNT)]
            for task in done:
                task.result(10)

        record(benchmark, "spawn and await, by lane", lambda: cpu_ns(work, COUNT))


def test_a_call_from_outside(benchmark: BenchmarkFixture) -> None:
    """A coroutine spawned by another thread, and its result waited for: one at a time."""
    count = COUNT // 10
    with netpoll.Scheduler(1, seed=1) as scheduler:

        def work() -> None:
            for _ in range(count):
                scheduler.spawn(nothing_async()).result(10)

        record(benchmark, "spawn and wait, one at a time", lambda: cpu_ns(work, count))


def test_a_group(benchmark: BenchmarkFixture) -> None:
    """Tasks of a group, made and awaited by one."""

    async def group() -> None:
        async with netpoll.TaskGroup() as tasks:
            for _ in range(COUNT):
                tasks.spawn(nothing_async())

    with netpoll.Scheduler(1, seed=1) as scheduler:
        record(benchmark, "a task of a group", lambda: cpu_ns(lambda: scheduler.run(group), COUNT))
