"""What a loop does all day, each as a piece of work that can be timed.

A workload is a coroutine function of a count: it does the operation that often, on the running
loop, and returns the nanoseconds of process CPU time that the operations took (its own set-up
excluded). CPU time, because a neighbour on the core is not the loop's fault; of the whole process,
because a loop may have threads of its own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import process_time_ns

__all__ = ["WORKLOADS", "Workload", "run_workload"]

# Callbacks that are outstanding at once: enough that a turn's own cost is shared, and few enough
# that the handles stay in the cache.
BATCH = 1000
SHORT_SLEEP_MAX_S = 0.01


async def call_soon(count: int) -> int:
    """Batches of callbacks: loop.call_soon, and its run."""
    loop = asyncio.get_running_loop()

    def nothing() -> None:
        pass

    start = process_time_ns()
    for _ in range(count // BATCH):
        done = loop.create_future()
        for _ in range(BATCH - 1):
            loop.call_soon(nothing)
        loop.call_soon(done.set_result, None)
        await done
    return process_time_ns() - start


async def call_soon_from_callback(count: int) -> int:
    """Each callback schedules the next one: a turn of the loop per callback."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = count

    def again() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(again)
        else:
            done.set_result(None)

    start = process_time_ns()
    loop.call_soon(again)
    await done
    return process_time_ns() - start


async def call_later_and_cancel(count: int) -> int:
    """A time-out that never happens: loop.call_later, handle.cancel."""
    loop = asyncio.get_running_loop()

    def never() -> None:
        raise AssertionError("a cancelled timer ran")

    start = process_time_ns()
    for _ in range(count // BATCH):
        for handle in [loop.call_later(60.0, never) for _ in range(BATCH)]:
            handle.cancel()
        await asyncio.sleep(0)
    return process_time_ns() - start


async def call_soon_threadsafe(count: int) -> int:
    """Batches of loop.call_soon_threadsafe from the loop's own thread, and their run."""
    loop = asyncio.get_running_loop()

    def nothing() -> None:
        pass

    start = process_time_ns()
    for _ in range(count // BATCH):
        done = loop.create_future()
        for _ in range(BATCH - 1):
            loop.call_soon_threadsafe(nothing)
        loop.call_soon_threadsafe(done.set_result, None)
        await done
    return process_time_ns() - start


async def sleep_zero(count: int) -> int:
    """One task that gives way: await asyncio.sleep(0)."""
    start = process_time_ns()
    for _ in range(count):
        await asyncio.sleep(0)
    return process_time_ns() - start


async def future_round_trip(count: int) -> int:
    """A future made, resolved by a callback, awaited."""
    loop = asyncio.get_running_loop()
    start = process_time_ns()
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
    return process_time_ns() - start


async def gather_per_task(count: int) -> int:
    """Tasks that end at once, made and collected by asyncio.gather; per task."""

    async def nothing() -> None:
        pass

    start = process_time_ns()
    for _ in range(count // BATCH):
        await asyncio.gather(*[nothing() for _ in range(BATCH)])
    return process_time_ns() - start


async def short_sleeps(count: int) -> int:
    """Tasks that all sleep at once, each up to 10 ms; per sleep, its task included."""
    chance = random.Random(1)  # the same deadlines for every loop
    delays_s = [chance.random() * SHORT_SLEEP_MAX_S for _ in range(count)]
    start = process_time_ns()
    await asyncio.gather(*[asyncio.sleep(delay_s) for delay_s in delays_s])
    return process_time_ns() - start


@dataclass(frozen=True)
class Workload:
    """`count`: operations of one round, so that it takes some tens of milliseconds."""

    title: str
    run: Callable[[int], Awaitable[int]]
    count: int


WORKLOADS: dict[str, Workload] = {
    "call_soon": Workload("call_soon", call_soon, 200_000),
    "call_soon_from_callback": Workload(
        "call_soon from a callback", call_soon_from_callback, 50_000
    ),
    "call_later_and_cancel": Workload("call_later + cancel", call_later_and_cancel, 50_000),
    "call_soon_threadsafe": Workload("call_soon_threadsafe", call_soon_threadsafe, 50_000),
    "sleep_zero": Workload("sleep(0)", sleep_zero, 50_000),
    "future_round_trip": Workload("future round trip", future_round_trip, 30_000),
    "gather_per_task": Workload("gather, per task", gather_per_task, 30_000),
    "short_sleeps": Workload("20 000 short sleeps, each", short_sleeps, 20_000),
}


def run_workload(loop: asyncio.AbstractEventLoop, workload: Workload, count: int) -> float:
    """Nanoseconds of CPU per operation on this loop, which is neither running nor closed."""
    return loop.run_until_complete(workload.run(count)) / count
