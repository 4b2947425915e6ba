"""Nothing is lost and nothing runs twice: many threads, small queues, every way in.

The C core has the same under ThreadSanitizer, with its own soak and storm (tests/c/test_sched.c).
NETPOLL_SOAK=1 makes the numbers here those of a soak: 10^7 tasks. NETPOLL_STORM_S=600 makes parking
and waking last ten minutes, half with the usual queues and half with small ones.
"""

import itertools
import os
import random
import threading
import time
from array import array

import pytest

from netpoll import TaskGroup
from netpoll.sched import sleep, yield_now

from .conftest import MakeScheduler

THREADS = 64
SOAK = os.environ.get("NETPOLL_SOAK", "0") != "0"
POSTS = 10_000_000 if SOAK else 200_000
STORM_S = float(os.environ.get("NETPOLL_STORM_S", "0")) / 2


@pytest.mark.timeout(3600 if SOAK else 60)
@pytest.mark.parametrize("workers", [1, 4])
def test_sixty_four_threads_post(make_scheduler: MakeScheduler, workers: int) -> None:
    scheduler = make_scheduler(workers)
    share = POSTS // THREADS
    # Per worker: a worker runs one task at a time, so that its counts need no lock.
    runs = {f"{scheduler.name}-{n}": array("B", bytes(share * THREADS)) for n in range(workers)}
    here = threading.local()

    def run(number: int) -> None:
        try:
            mine = here.runs
        except AttributeError:
            mine = here.runs = runs[threading.current_thread().name]
        mine[number] += 1

    def post(first: int) -> None:
        for number in range(first, first + share):
            scheduler.post(run, number)

    threads = [threading.Thread(target=post, args=(n * share,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scheduler.close()
    totals = [sum(counts) for counts in zip(*runs.values(), strict=True)]
    assert totals.count(1) == share * THREADS
    assert sum(worker["executed"] for worker in scheduler.stats()["workers"]) == share * THREADS


def test_tasks_of_every_kind_at_once(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(3)
    log: list[int] = []

    async def spawn_more(n: int, depth: int) -> int:
        log.append(n)
        if n % 7 == 0:
            await sleep(0.0001 * (n % 5))
        elif n % 3 == 0:
            await yield_now()
        total = 1
        if depth:
            children = [
                scheduler.spawn(spawn_more, n * 3 + i, depth - 1, priority=(n + i) % 4)
                for i in range(3)
            ]
            for child in children:
                total += await child
        return total

    roots = [scheduler.spawn(spawn_more, n, 6, affinity=n % 3 if n % 2 else None) for n in range(4)]
    expected = sum(3**depth for depth in range(7))
    assert [task.result(50) for task in roots] == [expected] * 4
    assert len(log) == 4 * expected


def test_stealing_shares_what_one_worker_spawned(make_scheduler: MakeScheduler) -> None:
    """Blocking tasks, all of one worker: the others take their share also with the GIL."""
    scheduler = make_scheduler(4)
    barrier = threading.Barrier(4)

    async def main() -> None:
        async with TaskGroup() as group:
            for _ in range(4):
                group.spawn(barrier.wait, 20)  # passes only if four workers run one each

    scheduler.run(main)
    workers = scheduler.stats()["workers"]
    assert sum(worker["stolen"] + worker["overflowed"] for worker in workers) >= 3


@pytest.mark.timeout(STORM_S + 60)
@pytest.mark.parametrize("rings", [0, 1])
def test_parking_and_waking(make_scheduler: MakeScheduler, rings: int) -> None:
    """One task at a time, from outside, now to anybody and now to one worker."""
    scheduler = make_scheduler(3)
    for worker in range(rings):
        scheduler.loop(worker)
    source = random.Random(5)
    end_s = time.monotonic() + STORM_S / 2
    numbers = itertools.count()
    while (n := next(numbers)) < 3000 or time.monotonic() < end_s:
        affinity = source.randrange(3) if n % 2 else None
        assert scheduler.spawn(int, n, affinity=affinity).result(30) == n
    workers = scheduler.stats()["workers"]
    assert sum(worker["parked"] for worker in workers) > 10
    assert sum(worker["woken"] for worker in workers) > 10


def test_ping_pong_between_workers(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(2)
    rounds = 3000

    async def play(affinity: int, left: int) -> int:
        if left == 0:
            return 0
        return 1 + await scheduler.spawn(pong, left - 1, affinity=1 - affinity)

    async def pong(left: int) -> int:
        await yield_now()
        return left

    async def main() -> int:
        return sum([await play(n % 2, n) for n in range(rounds)])

    assert scheduler.run(main) == sum(1 + n - 1 for n in range(rounds))
