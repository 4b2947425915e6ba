"""A Scheduler that nobody refers to any more: it warns, its threads end, all is given back.

The counterpart of test_collectable.py for threads. What is in use, by a task that somebody holds or
by a worker that runs something, is not dropped. Bug classes 20 and 27.
"""

import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import netpoll
from netpoll import sched
from netpoll.testing import DeterministicScheduler

from ..conftest import open_fds
from ..support import SLOWNESS
from .test_collectable import CYCLES_COUNT, WATCHES_MEMORY, quiet
from .test_growth import rss_bytes

# One leaked scheduler with two threads is more than 60 KiB.
SLACK_BYTES = CYCLES_COUNT * 15 * 1024 * (8 if SLOWNESS > 1 else 1)
VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")


async def sleeps(ended: list[int]) -> None:
    try:
        await sched.sleep(3600)
    finally:
        ended.append(1)


async def group(ended: list[int]) -> None:
    async with netpoll.TaskGroup() as tasks:
        tasks.spawn(sleeps, ended)
        tasks.spawn(sleeps, ended)


async def joins(scheduler: Any, ended: list[int]) -> None:
    async with sched.timeout(1000):
        await scheduler.spawn(sleeps, ended, priority=netpoll.Priority.LOW)


async def never_gives_in(ended: list[int]) -> None:
    """An await where it is being closed: refused and reported, as asyncio does."""
    try:
        await sched.sleep(3600)
    finally:
        ended.append(1)
        await sched.sleep(3600)


def idle(scheduler: Any, ended: list[int]) -> None:
    pass


def done(scheduler: Any, ended: list[int]) -> None:
    scheduler.spawn(lambda: [scheduler]).result()
    scheduler.post(ended.append, scheduler)
    while not ended:
        time.sleep(0.0001)
    ended.clear()


def refers_to_itself(scheduler: Any, ended: list[int]) -> None:
    scheduler.itself = scheduler
    scheduler.exception_handler = lambda context: scheduler


def sleeping(scheduler: Any, ended: list[int]) -> None:
    for _ in range(5):
        scheduler.spawn(sleeps, ended)


def grouped(scheduler: Any, ended: list[int]) -> None:
    scheduler.spawn(group, ended)


def joined(scheduler: Any, ended: list[int]) -> None:
    scheduler.spawn(joins, scheduler, ended)


def stubborn(scheduler: Any, ended: list[int]) -> None:
    scheduler.exception_handler = lambda context: None
    scheduler.spawn(never_gives_in, ended)


def has_context(scheduler: Any, ended: list[int]) -> None:
    token = VARIABLE.set(scheduler)
    scheduler.post(int)
    scheduler.spawn(sleeps, ended)
    VARIABLE.reset(token)


def shut_down(scheduler: Any, ended: list[int]) -> None:
    scheduler.spawn(sleeps, ended)
    wait_for(1, scheduler)
    scheduler.close(wait=False)


# What it starts, and how many tasks wait then, and how many of them end by `finally`.
KINDS: dict[Callable[[Any, list[int]], None], tuple[int, int]] = {
    idle: (0, 0),
    done: (0, 0),
    refers_to_itself: (0, 0),
    sleeping: (5, 5),
    grouped: (3, 2),
    joined: (2, 1),
    stubborn: (1, 1),
    has_context: (1, 1),
    shut_down: (1, 1),
}


def wait_for(count: int, scheduler: Any) -> None:
    """Until so many tasks wait, and the workers sleep."""
    deadline = time.monotonic() + 10 * SLOWNESS
    while len(scheduler._suspended()) < count and time.monotonic() < deadline:
        time.sleep(0.0005)


def until_threads(count: int) -> int:
    deadline = time.monotonic() + 10 * SLOWNESS
    while threading.active_count() > count and time.monotonic() < deadline:
        gc.collect()  # a worker that was on its way to sleep kept its scheduler
        time.sleep(0.005)
    gc.collect()
    return threading.active_count()


def cycles(kind: Callable[[Any, list[int]], None], count: int) -> tuple[list[Any], int]:
    """Weak references to dropped schedulers, and how many of their tasks came to their end."""
    made, ended_count = [], 0
    threads_count = threading.active_count()
    waiting_count, _ = KINDS[kind]
    lists = []
    for number in range(count):
        scheduler: Any = netpoll.Scheduler(2, name=f"{kind.__name__}-{number}")
        ended: list[int] = []
        kind(scheduler, ended)
        wait_for(waiting_count, scheduler)
        made.append(weakref.ref(scheduler))
        lists.append(ended)
        del scheduler
        if number % 20 == 19:
            assert until_threads(threads_count) == threads_count
    assert until_threads(threads_count) == threads_count
    ended_count = sum(map(len, lists))
    return made, ended_count


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_dropped_scheduler_ends(kind: Callable[[Any, list[int]], None]) -> None:
    with quiet():
        cycles(kind, CYCLES_COUNT // 4)
    fds, memory_bytes = open_fds(), rss_bytes()
    with quiet() as caught:
        made, ended_count = cycles(kind, CYCLES_COUNT)
    assert sum(ref() is not None for ref in made) == 0
    assert ended_count == CYCLES_COUNT * KINDS[kind][1]
    unclosed = [text for text in caught if "unclosed scheduler" in text]
    assert len(unclosed) == (0 if kind is shut_down else CYCLES_COUNT)
    assert all(text.endswith(f"waited in it: {KINDS[kind][0]}") for text in unclosed)
    assert len(open_fds()) == len(fds)
    assert rss_bytes() - memory_bytes < SLACK_BYTES or not WATCHES_MEMORY


def test_a_scheduler_in_use_is_not_dropped() -> None:
    """By a task that somebody has, by a function that runs, by an executor, by a loop."""
    threads_count = threading.active_count()
    running, release, ended = threading.Event(), threading.Event(), []

    def blocks() -> None:
        running.set()
        release.wait(30)
        ended.append("blocks")

    async def short() -> str:
        await sched.sleep(0.3)
        return "short"

    with quiet() as caught:
        task = netpoll.Scheduler(2).spawn(short)
        scheduler = netpoll.Scheduler(2)
        scheduler.post(blocks)
        assert running.wait(30)  # what is only queued does not keep it
        del scheduler
        executor = netpoll.Scheduler(2).as_executor()
        loop = netpoll.Scheduler(1).loop()
        for _ in range(3):
            gc.collect()
            time.sleep(0.02)
        assert not caught
        assert task.result(10) == "short"
        assert executor.submit(int, "7").result(10) == 7
        release.set()
        called = threading.Event()
        loop.call_soon_threadsafe(called.set)
        assert called.wait(10)
        sched_of_loop = next(s for s in list(sched._running) if loop in s._loops)
        sched_of_loop.close()
        del task, executor, loop, sched_of_loop
        assert until_threads(threads_count) == threads_count
    assert ended == ["blocks"]
    assert len([text for text in caught if "unclosed scheduler" in text]) == 3


def test_a_dropped_deterministic_scheduler() -> None:
    ended: list[int] = []
    made = []
    with quiet() as caught:
        for _ in range(20):
            scheduler = DeterministicScheduler(2, seed=1)
            scheduler.spawn(sleeps, ended)
            scheduler.run_until_idle()
            scheduler.post(ended.append, 2)  # never begun: dropped
            made.append(weakref.ref(scheduler))
            del scheduler
        gc.collect()
    assert ended == [1] * 20
    assert len([text for text in caught if "unclosed scheduler" in text]) == 20
    assert sum(ref() is not None for ref in made) == 0


def test_a_task_outlives_the_drop_of_its_waiter() -> None:
    """Whoever holds one task keeps the scheduler, and all that waits in it."""
    ended: list[int] = []
    scheduler = netpoll.Scheduler(1)
    task = scheduler.spawn(group, ended)
    wait_for(3, scheduler)
    del scheduler
    with quiet() as caught:
        gc.collect()
        time.sleep(0.02)
        gc.collect()
    assert not caught
    assert not task.done()
    task.cancel()
    with pytest.raises(sched.CancelledError):
        task.result(10)
    assert ended == [1, 1]
    task.scheduler.close()
