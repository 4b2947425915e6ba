"""What a queued task costs: 64 bytes, and what the callable itself takes."""

import gc
import subprocess
import sys
import weakref

import pytest

from netpoll import Scheduler
from netpoll.sched import sleep

from .conftest import MakeScheduler
from .support import private_bytes_script

COUNT = 1_000_000
HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_queued_post_is_one_cache_line() -> None:
    """Private memory of a child, with COUNT posts of one function in the queue."""
    done = subprocess.run(
        [sys.executable, "-c", private_bytes_script(COUNT)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    per_task, per_argument = map(float, done.stdout.split())
    # A chunk's link and the allocator's page at each end: less than half a byte a task.
    assert 60 <= per_task <= 64.5
    # An argument costs itself (28 bytes, 32 allocated; without the GIL 44 and 48), and no tuple.
    int_bytes = (sys.getsizeof(10**6) + 15) // 16 * 16
    assert per_argument <= 64.5 + int_bytes * (1 if HAS_GIL else 2) + 2


def test_nothing_keeps_what_has_run(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(1)

    class Thing:
        def __call__(self, *args: object) -> None:
            pass

    async def use(thing: Thing) -> Thing:
        await sleep(0.001)
        return thing

    things = [Thing() for _ in range(4)]
    references = [weakref.ref(thing) for thing in things]
    scheduler.post(things[0])
    scheduler.post(id, things[1])
    task = scheduler.spawn(things[2])
    scheduler.spawn(use, things[3]).result(20)
    task.result(20)
    scheduler.run(lambda: None)
    del things
    gc.collect()
    scheduler.run(lambda: None)
    assert [reference() for reference in references] == [None] * 4


def test_a_cycle_through_a_result_is_collected(scheduler: Scheduler) -> None:
    task = scheduler.spawn(list)
    task.result(20).append(task)
    reference = weakref.ref(task)
    scheduler.run(lambda: None)
    del task
    gc.collect()
    assert reference() is None


def test_schedulers_that_are_shut_down_are_collected() -> None:
    scheduler = Scheduler(1)
    scheduler.run(lambda: None)
    reference = weakref.ref(scheduler)
    scheduler.close()
    del scheduler
    gc.collect()
    assert reference() is None
