"""TaskGroup, timeout, sleep, yield_now: what a block holds together."""

import asyncio
import threading
import time
import weakref

import pytest

import netpoll
from netpoll import Scheduler, TaskGroup
from netpoll.sched import current_task, sleep, timeout, yield_now

from .conftest import MakeScheduler


def test_a_group_waits_for_its_tasks(scheduler: Scheduler) -> None:
    ended = []

    async def child(n: int) -> int:
        await sleep(0.001 * n)
        ended.append(n)
        return n

    async def main() -> list[int]:
        async with TaskGroup() as group:
            tasks = [group.spawn(child, n) for n in range(10)]
            group.spawn(ended.append, "function")
        assert len(ended) == 11
        return [task.result() for task in tasks]

    assert scheduler.run(main) == list(range(10))


def test_tasks_of_a_group_spawn_into_it(scheduler: Scheduler) -> None:
    leaves = []

    async def tree(group: TaskGroup, depth: int) -> None:
        if depth == 0:
            leaves.append(1)
            return
        group.spawn(tree, group, depth - 1)
        group.spawn(tree, group, depth - 1)

    async def main() -> None:
        async with TaskGroup() as group:
            group.spawn(tree, group, 9)

    scheduler.run(main)
    assert len(leaves) == 512


def test_a_failure_cancels_the_others_and_the_block(scheduler: Scheduler) -> None:
    log = []

    async def fail() -> None:
        await sleep(0.005)
        raise ValueError("first")

    async def wait() -> None:
        try:
            await sleep(60)
        except asyncio.CancelledError:
            log.append("sibling")
            raise

    async def main() -> None:
        try:
            async with TaskGroup() as group:
                group.spawn(wait)
                group.spawn(fail)
                try:
                    await sleep(60)
                except asyncio.CancelledError:
                    log.append("block")
                    raise
        except* ValueError as errors:
            log.append([str(error) for error in errors.exceptions])
        assert current_task().cancelling() == 0
        await sleep(0.001)  # no cancellation is left over

    scheduler.run(main)
    assert sorted(map(str, log)) == ["['first']", "block", "sibling"]


def test_all_failures_come_out(scheduler: Scheduler) -> None:
    async def fail(n: int) -> None:
        try:
            await sleep(60 if n else 0.005)
        finally:
            raise ValueError(n)

    async def main() -> list[int]:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                for n in range(5):
                    group.spawn(fail, n)
        return sorted(error.args[0] for error in caught.value.exceptions)

    assert scheduler.run(main) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("where", ["task", "block"])
def test_the_program_s_end_comes_out_as_it_is(scheduler: Scheduler, where: str) -> None:
    """As of asyncio.TaskGroup: SystemExit in a group would be no exit status."""
    ended = []

    async def leave() -> None:
        raise SystemExit(3)

    async def wait() -> None:
        try:
            await sleep(100)
        finally:
            ended.append("wait")

    async def main() -> None:
        async with TaskGroup() as group:
            group.spawn(wait)
            await sleep(0.01)
            if where == "block":
                raise SystemExit(3)
            group.spawn(leave)

    with pytest.raises(SystemExit) as left:
        scheduler.run(main)
    assert left.value.code == 3 and ended == ["wait"]


def test_spawned_while_another_fails(
    make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another worker, in the middle of spawn(): it is cancelled with the others."""
    scheduler = make_scheduler(2)
    group = TaskGroup()

    begun = threading.Event()

    class Slow:
        @staticmethod
        def spawn(*args) -> netpoll.Task:
            begun.set()
            while not group._is_aborting:
                time.sleep(0.001)
            return scheduler.spawn(*args)

    async def fail() -> None:
        while not begun.is_set():
            await sleep(0.001)
        raise ValueError

    async def wait() -> None:
        await sleep(100)

    async def main() -> None:
        async with group:
            group.spawn(fail)
            monkeypatch.setattr(group, "_parent", Parent(group._parent))
            group.spawn(wait)

    class Parent:
        scheduler = Slow

        def __init__(self, task: netpoll.Task) -> None:
            self.cancel, self.uncancel = task.cancel, task.uncancel

    with pytest.raises(ExceptionGroup) as failed:
        scheduler.run(main)
    assert failed.group_contains(ValueError)


def test_the_block_s_own_failure_counts_too(scheduler: Scheduler) -> None:
    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with TaskGroup() as group:
                child = group.spawn(sleep, 60)
                raise KeyError("mine")
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        assert child.cancelled()

    scheduler.run(main)


def test_a_cancelled_group_takes_its_tasks_along(scheduler: Scheduler) -> None:
    children = []

    async def block() -> None:
        async with TaskGroup() as group:
            children.extend(group.spawn(sleep, 60) for _ in range(5))

    async def main() -> None:
        task = scheduler.spawn(block)
        await sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(child.cancelled() for child in children)

    scheduler.run(main)


def test_a_group_is_entered_once_and_only_in_a_task(scheduler: Scheduler) -> None:
    async def main() -> None:
        group = TaskGroup()
        with pytest.raises(RuntimeError, match="not open"):
            group.spawn(print)
        async with group:
            pass
        with pytest.raises(RuntimeError, match="not open"):
            group.spawn(sleep(1))
        with pytest.raises(RuntimeError, match="once"):
            await group.__aenter__()

    scheduler.run(main)
    with pytest.raises(RuntimeError, match="task of a Scheduler"):
        asyncio.run(TaskGroup().__aenter__())


def test_failures_racing_the_end_of_the_block(make_scheduler: MakeScheduler) -> None:
    """However the block's end and a child's failure meet: one group of errors, nothing left."""
    scheduler = make_scheduler(3)

    async def fail() -> None:
        raise ValueError

    async def main() -> None:
        for _ in range(200):
            with pytest.raises(ExceptionGroup):
                async with TaskGroup() as group:
                    for _ in range(3):
                        group.spawn(fail)
            assert current_task().cancelling() == 0
            await yield_now()

    scheduler.run(main)


def test_sleep_takes_its_time_and_keeps_its_order(scheduler: Scheduler) -> None:
    order = []

    async def late(delay_s: float) -> None:
        start_s = time.monotonic()
        assert await sleep(delay_s, "result") == "result"
        assert time.monotonic() - start_s >= delay_s
        order.append(delay_s)

    async def main() -> None:
        async with TaskGroup() as group:
            for delay_s in (0.06, 0.02, 0.1, 0.0001):
                group.spawn(late, delay_s)

    scheduler.run(main)
    assert order == [0.0001, 0.02, 0.06, 0.1]


def test_a_sleep_is_not_late_behind_a_busy_worker(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(2)
    go, woken = threading.Event(), threading.Event()

    async def arm_and_block() -> None:
        async def wait() -> None:
            await sleep(0.02)
            woken.set()

        scheduler.spawn(wait)
        await yield_now()
        go.wait(20)  # blocks this worker: the other one has to keep the time

    task = scheduler.spawn(arm_and_block)
    assert woken.wait(10)
    go.set()
    task.result(10)


def test_yield_now_lets_the_others_run(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(1)
    log = []

    async def turn(name: str) -> None:
        for n in range(3):
            log.append((n, name))
            await yield_now()

    async def main() -> None:
        async with TaskGroup() as group:
            for name in "abc":
                group.spawn(turn, name)

    scheduler.run(main)
    assert log == sorted(log)


def test_timeout(scheduler: Scheduler) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError, match=r"0\.01 s"):
            async with timeout(0.01) as limit:
                await sleep(60)
        assert limit.expired and current_task().cancelling() == 0
        async with timeout(60) as limit:
            await sleep(0.001)
        assert not limit.expired
        async with timeout(None):
            await sleep(0.001)
        with pytest.raises(TimeoutError):
            async with timeout(0.01):
                async with TaskGroup() as group:
                    group.spawn(sleep, 60)
        with pytest.raises(KeyError):
            async with timeout(60):
                raise KeyError

    scheduler.run(main)


def test_nested_timeouts_blame_the_right_one(scheduler: Scheduler) -> None:
    async def main() -> str:
        try:
            async with timeout(0.01) as outer:
                async with timeout(60) as inner:
                    await sleep(60)
        except TimeoutError:
            return f"{outer.expired} {inner.expired}"
        return "nothing"

    assert scheduler.run(main) == "True False"


def test_a_cancellation_passes_through_a_timeout(scheduler: Scheduler) -> None:
    async def wait() -> None:
        async with timeout(60):
            await sleep(60)

    async def main() -> None:
        task = scheduler.spawn(wait)
        await sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    scheduler.run(main)


@pytest.mark.parametrize("is_sleeping", [True, False])
def test_cancelled_on_the_way_to_sleep(scheduler: Scheduler, is_sleeping: bool) -> None:
    """What a task was about to wait for does not keep it: no alarm and no waiter is left."""
    other = scheduler.spawn(sleep, 3600)

    async def wait() -> None:
        current_task().cancel()
        await (sleep(3600) if is_sleeping else other)

    task = scheduler.spawn(wait)
    with pytest.raises(asyncio.CancelledError):
        task.result(20)
    reference = weakref.ref(task)
    del task
    assert reference() is None
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        other.result(20)
    assert scheduler._next_alarm_ns() is None


def test_cancellations_racing_the_first_step(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(3)
    for _ in range(300):
        tasks = [scheduler.spawn(sleep, 3600) for _ in range(3)]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                task.result(20)
    assert scheduler._next_alarm_ns() is None


def test_sleep_belongs_to_the_scheduler() -> None:
    async def main() -> None:
        await netpoll.sched.sleep(1)

    with pytest.raises(RuntimeError):
        asyncio.run(main())
