"""Workers that sleep in their rings: event loops and tasks in one thread, and what is stolen."""

import asyncio
import random
import socket
import sys
import threading
import time

import pytest

from netpoll import Priority, Scheduler, Server, TaskGroup
from netpoll.offload import offload, offload_data
from netpoll.sched import current_task, sleep, yield_now

from .conftest import MakeScheduler, take_reports
from .test_tasks import WAIT_S, blocked, double


def run_in(loop, coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(WAIT_S)


def thread_name() -> str:
    return threading.current_thread().name


def test_a_worker_has_one_loop(make_scheduler: MakeScheduler, backend: str) -> None:
    scheduler = make_scheduler(2)
    loop = scheduler.loop(1, backend=backend)
    assert scheduler.loop(1) is loop and loop.backend == backend
    assert scheduler.loop(0) is not loop
    with pytest.raises(IndexError):
        scheduler.loop(2)

    async def where() -> str:
        assert asyncio.get_running_loop() is loop
        return thread_name()

    assert run_in(loop, where()) == f"{scheduler.name}-1"


def test_tasks_of_a_worker_use_its_loop(make_scheduler: MakeScheduler, backend: str) -> None:
    scheduler = make_scheduler(2)
    loop = scheduler.loop(0, backend=backend)

    async def main() -> list[object]:
        assert asyncio.get_running_loop() is loop
        assert asyncio.current_task() is current_task()
        start_s = time.monotonic()
        await asyncio.sleep(0.01)
        await sleep(0.01)  # the scheduler's own, in between
        assert time.monotonic() - start_s >= 0.02
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.sleep(0.001, "asyncio's task"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await asyncio.sleep(60)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.005)
        assert current_task().cancelling() == 0
        async with TaskGroup() as own_group:
            child = own_group.spawn(double, 21)
        return [task.result(), child.result(), await scheduler.spawn(double, 1), thread_name()]

    found = scheduler.spawn(main, affinity=0).result(WAIT_S)
    assert found == ["asyncio's task", 42, 2, f"{scheduler.name}-0"]


def test_tasks_that_may_be_stolen_have_no_loop(make_scheduler: MakeScheduler, backend: str) -> None:
    scheduler = make_scheduler(1)
    loop = scheduler.loop(0, backend=backend)
    future = asyncio.Future(loop=loop)

    async def ask() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="affinity"):
            await future

    scheduler.run(ask)
    assert scheduler.spawn(asyncio.run, double_slowly(4)).result(WAIT_S) == 8


async def double_slowly(value: int) -> int:
    await asyncio.sleep(0.001)
    return value * 2


def test_a_future_of_another_loop_is_refused(make_scheduler: MakeScheduler, backend: str) -> None:
    scheduler = make_scheduler(2)
    scheduler.loop(0, backend=backend)
    future = asyncio.Future(loop=scheduler.loop(1, backend=backend))

    async def ask() -> None:
        with pytest.raises(RuntimeError, match="cannot await"):
            await future

    scheduler.spawn(ask, affinity=0).result(WAIT_S)


def test_cancelling_reaches_the_future(make_scheduler: MakeScheduler, backend: str) -> None:
    scheduler = make_scheduler(2)
    loop = scheduler.loop(0, backend=backend)
    future: asyncio.Future[None] = asyncio.Future(loop=loop)
    log = []

    async def wait() -> None:
        log.append("waits")
        try:
            await future
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)  # it may still clean up
            log.append("cancelled")
            raise

    task = scheduler.spawn(wait, affinity=0)
    while not log:
        time.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        task.result(WAIT_S)
    assert log == ["waits", "cancelled"] and future.cancelled()


def test_a_task_woken_too_early_waits_on(make_scheduler: MakeScheduler, backend: str) -> None:
    """A cancellation that is taken back leaves the future alone: asyncio would refuse the step."""
    scheduler = make_scheduler(2)
    loop = scheduler.loop(0, backend=backend)

    async def wait(n: int) -> int:
        for _ in range(20):
            await asyncio.sleep(0.0005)
            await yield_now()
        return n

    tasks = [scheduler.spawn(wait, n, affinity=0) for n in range(10)]
    source = random.Random(3)
    for _ in range(500):
        task = source.choice(tasks)
        task.set_priority(source.randrange(4))
        if source.random() < 0.1:
            time.sleep(0.0005)
    assert [task.result(WAIT_S) for task in tasks] == list(range(10))
    assert run_in(loop, asyncio.sleep(0, "alive")) == "alive"


def test_pushes_wake_a_worker_that_sleeps_in_its_ring(
    make_scheduler: MakeScheduler, backend: str
) -> None:
    """As in test_parking_and_waking; and the loop's own wake-ups in between."""
    scheduler = make_scheduler(3)
    loops = [scheduler.loop(n, backend=backend) for n in range(2)]
    source = random.Random(5)

    async def answer(n: int) -> int:
        return n

    for n in range(1000):
        if n % 3 == 0:
            assert run_in(source.choice(loops), answer(n)) == n
        affinity = source.randrange(3) if n % 2 else None
        assert scheduler.spawn(int, n, affinity=affinity).result(WAIT_S) == n
    assert sum(worker["woken"] for worker in scheduler.stats()["workers"]) > 10


def test_a_flood_of_tasks_leaves_the_ring_its_turn(
    make_scheduler: MakeScheduler, backend: str
) -> None:
    """Events are handled between tasks, in bounded time, and timers of the loop fire."""
    scheduler = make_scheduler(1)
    loop = scheduler.loop(0, backend=backend)
    over = threading.Event()

    def load() -> None:
        end_s = time.perf_counter() + 0.0002
        while time.perf_counter() < end_s:
            pass
        if not over.is_set():
            scheduler.post(load)

    for _ in range(50):
        scheduler.post(load)

    async def worst_lateness_s() -> float:
        worst_s = 0.0
        for _ in range(50):
            start_s = time.perf_counter()
            await asyncio.sleep(0.001)
            worst_s = max(worst_s, time.perf_counter() - start_s - 0.001)
        return worst_s

    try:
        assert run_in(loop, worst_lateness_s()) < 0.2  # the queue alone is 10 ms, again and again
    finally:
        over.set()


def test_a_flood_of_callbacks_leaves_tasks_their_turn(
    make_scheduler: MakeScheduler, backend: str
) -> None:
    scheduler = make_scheduler(1)
    loop = scheduler.loop(0, backend=backend)
    is_over = False

    def again() -> None:
        if not is_over:
            loop.call_soon(again)

    loop.call_soon_threadsafe(again)
    for n in range(100):
        assert scheduler.spawn(int, n).result(WAIT_S) == n
    is_over = True


def test_alarms_fire_in_a_worker_that_sleeps_in_its_ring(
    make_scheduler: MakeScheduler, backend: str
) -> None:
    scheduler = make_scheduler(1)
    scheduler.loop(0, backend=backend)

    async def nap() -> float:
        start_s = time.monotonic()
        await sleep(0.02)
        return time.monotonic() - start_s

    assert 0.02 <= scheduler.spawn(nap).result(WAIT_S) < 1


def test_connections_of_one_ring_are_handled_by_all_workers(
    make_scheduler: MakeScheduler, backend: str
) -> None:
    """The ready connections are tasks in the ring's worker's queue; the other one steals."""
    scheduler = make_scheduler(2)
    loop = scheduler.loop(0, backend=backend)
    threads = set()

    def handler(data: bytes) -> bytes:
        threads.add(thread_name())
        time.sleep(0.002)
        return data.upper()

    async def client(address, number: int) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        answer = b""
        for n in range(10):
            writer.write(b"m%d.%d;" % (number, n))
            answer += await reader.readuntil(b";")
        writer.close()
        await writer.wait_closed()
        return answer

    async def main() -> list[bytes]:
        server = await loop.create_server(offload(handler, scheduler), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        answers = await asyncio.gather(*(client(address, n) for n in range(16)))
        server.close()
        await server.wait_closed()
        return answers

    answers = run_in(loop, main())
    assert answers == [b"".join(b"M%d.%d;" % (n, i) for i in range(10)) for n in range(16)]
    assert threads == {f"{scheduler.name}-0", f"{scheduler.name}-1"}
    workers = scheduler.stats()["workers"]
    assert sum(worker["stolen"] + worker["overflowed"] for worker in workers) > 0


def test_a_server_in_a_worker_s_ring(make_scheduler: MakeScheduler, backend: str) -> None:
    """netpoll.Server within the worker's loop, by a task of that worker."""
    scheduler = make_scheduler(2)
    scheduler.loop(0, backend=backend)
    ports, over = [], threading.Event()

    async def serve() -> None:
        handler = offload_data(bytes.swapcase, scheduler)
        async with Server(handler, "127.0.0.1", 0) as server:
            ports.append(server.port)
            while not over.is_set():
                await asyncio.sleep(0.001)

    task = scheduler.spawn(serve, affinity=0)
    while not ports:
        assert not task.done() or task.result()
        time.sleep(0.001)
    with socket.create_connection(("127.0.0.1", ports[0]), timeout=WAIT_S) as client:
        for _ in range(20):
            client.sendall(b"Ab")
            assert client.recv(2) == b"aB"
    over.set()
    task.result(WAIT_S)


def test_the_end_cancels_what_is_left_in_the_loops(
    make_scheduler: MakeScheduler, backend: str
) -> None:
    scheduler = make_scheduler(2)
    loops = [scheduler.loop(n, backend=backend) for n in range(2)]
    log = []

    async def forever(n: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            # Also then, both worlds work.
            log.append((n, await scheduler.spawn(double, n, affinity=n), await double_slowly(n)))

    async def start(n: int) -> None:
        tasks.append(asyncio.create_task(forever(n)))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    for n, loop in enumerate(loops):
        run_in(loop, start(n))
    go = blocked(scheduler)
    threading.Timer(0.01, go.set).start()
    scheduler.close()
    assert all(task.cancelled() for task in tasks), tasks
    assert sorted(log) == [(0, 0, 0), (1, 2, 2)]
    assert all(loop.is_closed() for loop in loops)
    with pytest.raises(RuntimeError, match="shut down"):
        make_shut_down(make_scheduler).loop(0)


def make_shut_down(make_scheduler: MakeScheduler) -> Scheduler:
    scheduler = make_scheduler(1)
    scheduler.close()
    return scheduler


def test_a_loop_that_is_stopped_goes_on(make_scheduler: MakeScheduler, backend: str) -> None:
    scheduler = make_scheduler(1)
    loop = scheduler.loop(0, backend=backend)
    loop.call_soon_threadsafe(loop.stop)
    assert run_in(loop, double_slowly(3)) == 6

    def leave() -> None:
        raise SystemExit(3)

    loop.call_soon_threadsafe(leave)
    assert run_in(loop, double_slowly(4)) == 8
    assert scheduler.spawn(int, 5).result(WAIT_S) == 5
    (report,) = take_reports(scheduler)
    assert isinstance(report["exception"], SystemExit)


def test_priorities_hold_in_a_ring(make_scheduler: MakeScheduler, backend: str) -> None:
    scheduler = make_scheduler(1)
    scheduler.loop(0, backend=backend)
    go, log = blocked(scheduler), []
    for priority in sorted(Priority, reverse=True):
        for n in range(3):
            scheduler.post(log.append, (priority, n), priority=priority)
    go.set()
    scheduler.run(lambda: None)
    scheduler.close()
    assert log == sorted(log)


def test_batches_of_one_ring_do_not_wake_the_other_worker(
    make_scheduler: MakeScheduler, backend: str
) -> None:
    """With the GIL one watcher is enough, however often the busy worker sleeps in between."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("without a GIL a push wakes whoever sleeps")
    scheduler = make_scheduler(2)
    loop = scheduler.loop(0, backend=backend)
    trips = 2000

    async def serve() -> asyncio.Server:
        return await loop.create_server(offload(bytes, scheduler), "127.0.0.1", 0)

    server = run_in(loop, serve())
    with socket.create_connection(server.sockets[0].getsockname(), timeout=WAIT_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(trips):
            client.sendall(b"x")
            assert client.recv(1) == b"x"
    woken = scheduler.stats()["workers"][1]["woken"]
    loop.call_soon_threadsafe(server.close)
    assert woken < trips // 10
