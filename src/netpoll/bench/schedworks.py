"""What a scheduler does all day, each as a piece of work that can be timed.

Every arm has one `Runner`: how it queues a function, runs coroutines, spreads work. A workload
asks the runner and returns one figure, ns. Costs are CPU time of the process per operation;
parallel work and waits are wall-clock time, which is what they are about.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from netpoll.bench._native import Load
from netpoll.bench.errors import ArmUnavailable
from netpoll.bench.server import listening_socket
from netpoll.loop import new_event_loop
from netpoll.offload import offload
from netpoll.sched import Priority, Scheduler

CPU_LOOPS = 4_000  # of a CPU-bound task: about 0.2 ms
LOAD_TASK_S = 50e-6  # of a task of the load that CONTROL has to overtake
LOAD_DEPTH = 400  # of these tasks are always queued
MARK_EVERY = 10  # of them asks for attention
CONNECTIONS = 32  # of the load on a server, each with one message in flight
MESSAGE_BYTES = 64


def nothing() -> None:
    """The empty function."""


async def nothing_async() -> None:
    """The empty coroutine."""


def compute(loops: int = CPU_LOOPS) -> int:
    """Pure Python, no memory, no calls."""
    total = 0
    for number in range(loops):
        total += number * number % 7
    return total


def cpu_ns(work: Callable[[], object], count: int) -> float:
    start_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - start_ns) / count


def wall_ns(work: Callable[[], object], count: int) -> float:
    start_ns = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - start_ns) / count


class Countdown:
    """Ends when it was called `count` times, from any thread."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            is_over = self._left <= 0
        if is_over:
            self._over.set()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def wait(self) -> None:
        self._over.wait()


class Runner:
    """One arm. `workers` threads run what is queued; `close` ends them."""

    workers = 1

    def post_all(self, count: int) -> None:
        """Queues the empty function `count` times and returns when all have run."""
        raise NotImplementedError

    def spawn_all(self, count: int) -> None:
        """Runs `count` empty coroutines and awaits each."""
        raise NotImplementedError

    def queue(self, fn: Callable[..., object], *args: Any) -> None:
        """Queues fn(*args); from any thread that the runner's work runs in, and from outside."""
        raise NotImplementedError

    def queue_urgent(self, fn: Callable[..., object], *args: Any) -> None:
        """The same, before what is queued if the arm has a way to say so."""
        self.queue(fn, *args)

    def queue_low(self, fn: Callable[..., object], *args: Any) -> None:
        """The same, after what is queued if the arm has a way to say so."""
        self.queue(fn, *args)

    def run_until(self, start: Callable[[], object], over: Countdown) -> None:
        """Calls start() where it may queue, and returns when `over` is."""
        start()
        over.wait()

    def close(self) -> None:
        raise NotImplementedError


class NetpollRunner(Runner):
    def __init__(self, workers: int, is_fifo: bool = False) -> None:
        self.workers = workers
        self.scheduler = Scheduler(workers, seed=1)
        self.urgent = Priority.NORMAL if is_fifo else Priority.CONTROL
        self.low = Priority.NORMAL if is_fifo else Priority.LOW

    def post_all(self, count: int) -> None:
        post = self.scheduler.post
        over = threading.Event()
        for _ in range(count):
            post(nothing)
        post(over.set, priority=Priority.LOW)
        over.wait()
        while any(self.scheduler.stats()["queued"].values()):
            time.sleep(0.0001)

    def spawn_all(self, count: int) -> None:
        spawn = self.scheduler.spawn

        async def main() -> None:
            for task in [spawn(nothing_async()) for _ in range(count)]:
                await task

        self.scheduler.run(main)

    def queue(self, fn: Callable[..., object], *args: Any) -> None:
        self.scheduler.post(fn, *args)

    def queue_urgent(self, fn: Callable[..., object], *args: Any) -> None:
        self.scheduler.post(fn, *args, priority=self.urgent)

    def queue_low(self, fn: Callable[..., object], *args: Any) -> None:
        self.scheduler.post(fn, *args, priority=self.low)

    def close(self) -> None:
        self.scheduler.close()


class RingRunner(NetpollRunner):
    """Connections in the ring of the first worker; the others steal."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.loop = self.scheduler.loop(0)


class ThreadsRunner(Runner):
    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.executor = ThreadPoolExecutor(workers)

    def post_all(self, count: int) -> None:
        submit = self.executor.submit
        for _ in range(count):
            submit(nothing)
        submit(nothing).result()

    def spawn_all(self, count: int) -> None:
        submit = self.executor.submit
        for future in [submit(nothing) for _ in range(count)]:
            future.result()

    def queue(self, fn: Callable[..., object], *args: Any) -> None:
        self.executor.submit(fn, *args)

    def close(self) -> None:
        self.executor.shutdown()


class LoopRunner(Runner):
    """An asyncio event loop: one thread, by its nature."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(coroutine)

    def post_all(self, count: int) -> None:
        async def main() -> None:
            create_task = self.loop.create_task
            for _ in range(count):
                task = create_task(nothing_async())
            await task

        self._run(main())

    def spawn_all(self, count: int) -> None:
        async def main() -> None:
            create_task = self.loop.create_task
            for task in [create_task(nothing_async()) for _ in range(count)]:
                await task

        self._run(main())

    def queue(self, fn: Callable[..., object], *args: Any) -> None:
        self.loop.call_soon(fn, *args)

    def run_until(self, start: Callable[[], object], over: Countdown) -> None:
        async def main() -> None:
            start()
            while not over.is_over:
                await asyncio.sleep(0)

        self._run(main())

    def close(self) -> None:
        self.loop.close()


class Inline(Runner):
    """No scheduler: only for the workloads that have connections."""

    def close(self) -> None:
        pass


def _uvloop() -> Runner:
    try:
        return LoopRunner(importlib.import_module("uvloop").new_event_loop())
    except ModuleNotFoundError:
        raise ArmUnavailable("not installed (pip install uvloop)") from None


RUNNERS: dict[str, Callable[[], Runner]] = {
    "netpoll-1": lambda: NetpollRunner(1),
    "netpoll-2": lambda: NetpollRunner(2),
    "netpoll-fifo": lambda: NetpollRunner(1, is_fifo=True),
    "ring-1": lambda: RingRunner(1),
    "ring-2": lambda: RingRunner(2),
    "inline": Inline,
    "threads-1": lambda: ThreadsRunner(1),
    "threads-2": lambda: ThreadsRunner(2),
    "asyncio": lambda: LoopRunner(asyncio.SelectorEventLoop()),
    "uvloop": _uvloop,
}

SUMMARIES = {
    "netpoll-1": "netpoll.Scheduler, one worker",
    "netpoll-2": "netpoll.Scheduler, two workers",
    "netpoll-fifo": "netpoll.Scheduler, one worker, everything in one lane",
    "ring-1": "netpoll.Scheduler, one worker, the connections in its ring",
    "ring-2": "netpoll.Scheduler, the connections in one worker's ring, another steals",
    "inline": "netpoll's loop, handlers in its own thread",
    "threads-1": "ThreadPoolExecutor, one thread",
    "threads-2": "ThreadPoolExecutor, two threads",
    "asyncio": "asyncio's own selector loop",
    "uvloop": "uvloop (libuv)",
}

ONE_THREAD = ("netpoll-1", "threads-1", "asyncio", "uvloop")
ALL = ("netpoll-1", "netpoll-2", "threads-1", "threads-2", "asyncio", "uvloop")


def post(runner: Runner, count: int) -> float:
    return cpu_ns(lambda: runner.post_all(count), count)


def spawn(runner: Runner, count: int) -> float:
    return cpu_ns(lambda: runner.spawn_all(count), count)


def _compute_all(runner: Runner, count: int, is_skewed: bool) -> float:
    over = Countdown(count)

    def one() -> None:
        compute()
        over()

    def queue_all() -> None:
        for _ in range(count):
            runner.queue(one)

    def start() -> None:
        if is_skewed:
            runner.queue(queue_all)  # from one worker's task: the others have to steal
        else:
            queue_all()

    return wall_ns(lambda: runner.run_until(start, over), count)


def parallel(runner: Runner, count: int) -> float:
    return _compute_all(runner, count, is_skewed=False)


def skew(runner: Runner, count: int) -> float:
    return _compute_all(runner, count, is_skewed=True)


class InlineProtocol(asyncio.Protocol):
    """The handler where the connection is: what a server does without a scheduler."""

    def __init__(self, handler: Callable[[bytes], bytes | None]) -> None:
        self.handler = handler

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if (answer := self.handler(data)) is not None:
            self.transport.write(answer)


def _serve(runner: Runner, handler: Callable[[bytes], bytes | None], duration_s: float) -> float:
    """All connections on one loop; ns per message, at CONNECTIONS messages in flight."""
    has_loop = isinstance(runner, LoopRunner | RingRunner)
    loop = runner.loop if isinstance(runner, LoopRunner | RingRunner) else new_event_loop()

    async def main() -> float:
        factory: Callable[[], asyncio.Protocol]
        if isinstance(runner, NetpollRunner):
            factory = offload(handler, runner.scheduler)
        else:
            factory = functools.partial(InlineProtocol, handler)
        server = await loop.create_server(factory, sock=listening_socket("tcp"))
        address = server.sockets[0].getsockname()
        # The load is C and needs little; in a thread of its own it holds no lock of Python's.
        load = await loop.run_in_executor(pool, Load, address, CONNECTIONS, MESSAGE_BYTES)
        try:
            await loop.run_in_executor(pool, load.run, duration_s / 10)
            start_ns = time.perf_counter_ns()
            figures = await loop.run_in_executor(pool, load.run, duration_s)
            return (time.perf_counter_ns() - start_ns) / int(figures["requests_all"])
        finally:
            load.close()
            server.close()
            await server.wait_closed()

    try:
        with ThreadPoolExecutor(1) as pool:
            if isinstance(runner, RingRunner):
                return asyncio.run_coroutine_threadsafe(main(), loop).result()
            return loop.run_until_complete(main())
    finally:
        if not has_loop:
            loop.close()


def _heavy(data: bytes) -> bytes:
    compute()
    return data


def heavy(runner: Runner, count: int) -> float:
    return _serve(runner, _heavy, count / 1000)


def echo(runner: Runner, count: int) -> float:
    return _serve(runner, bytes, count / 1000)


def _waits_ns(runner: Runner, count: int, ask: Callable[..., None]) -> list[int]:
    """The waits of functions that ask() queued among `count` others, which saturate the arm."""
    over = Countdown(count)
    waits: list[int] = []

    def note(asked_ns: int) -> None:
        waits.append(time.perf_counter_ns() - asked_ns)

    def load(number: int) -> None:
        end_s = time.perf_counter() + LOAD_TASK_S
        while time.perf_counter() < end_s:
            pass
        if number % MARK_EVERY == 0:
            ask(note, time.perf_counter_ns())
        if number + LOAD_DEPTH < count:
            runner.queue(load, number + LOAD_DEPTH)
        over()

    def start() -> None:
        for number in range(min(LOAD_DEPTH, count)):
            runner.queue(load, number)

    runner.run_until(start, over)
    return sorted(waits)


def control(runner: Runner, count: int) -> float:
    """The 99th percentile of the wait of urgent functions among `count` others, ns."""
    waits = _waits_ns(runner, count, runner.queue_urgent)
    return float(waits[len(waits) * 99 // 100])


def low(runner: Runner, count: int) -> float:
    """The median of the time between two starts in the LOW lane, ns.

    There are always some queued, and NORMAL ones that would keep the worker busy alone: what is
    measured is the bound of the lane, which docs/scheduler.md states in tasks.
    """
    over = Countdown(count)
    starts: list[int] = []

    def note() -> None:
        starts.append(time.perf_counter_ns())
        if not over.is_over:
            runner.queue_low(note)

    def load(number: int) -> None:
        end_s = time.perf_counter() + LOAD_TASK_S
        while time.perf_counter() < end_s:
            pass
        if number + LOAD_DEPTH < count:
            runner.queue(load, number + LOAD_DEPTH)
        over()

    def start() -> None:
        for number in range(min(LOAD_DEPTH, count)):
            runner.queue(load, number)
        runner.queue_low(note)

    runner.run_until(start, over)
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    return float(statistics.median(gaps)) if gaps else 0.0


@dataclass(frozen=True)
class Work:
    """count: operations of a round. control: the arm that the others are compared with."""

    title: str
    run: Callable[[Runner, int], float]
    count: int
    arms: tuple[str, ...]
    control: str


WORKS: dict[str, Work] = {
    "post": Work("queue and run an empty function (CPU)", post, 100_000, ONE_THREAD, "asyncio"),
    "spawn": Work("spawn and await a coroutine (CPU)", spawn, 100_000, ONE_THREAD, "asyncio"),
    "parallel": Work(
        "CPU-bound task, queued from outside (wall)", parallel, 2_000, ALL, "netpoll-1"
    ),
    "skew": Work("CPU-bound task, all queued by one task (wall)", skew, 2_000, ALL, "netpoll-1"),
    "heavy": Work(
        "message to a heavy handler, one ring (wall)",
        heavy,
        1_000,
        ("ring-1", "ring-2", "inline", "netpoll-1", "netpoll-2", "asyncio", "uvloop"),
        "ring-1",
    ),
    "echo": Work(
        "echo through the scheduler, one ring (wall)",
        echo,
        1_000,
        ("ring-1", "ring-2", "inline", "netpoll-1", "netpoll-2"),
        "ring-1",
    ),
    "control": Work(
        "99th percentile of an urgent task's wait (wall)",
        control,
        4_000,
        ("netpoll-1", "netpoll-fifo", "threads-1", "asyncio", "uvloop"),
        "netpoll-fifo",
    ),
    "low": Work(
        "median of the time between LOW's turns (wall)",
        low,
        8_000,
        ("netpoll-1", "netpoll-fifo"),
        "netpoll-fifo",
    ),
}
