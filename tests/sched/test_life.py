"""The life of a scheduler: shutting down, leaving, forking, being an executor."""

import asyncio
import concurrent.futures
import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from netpoll import Priority, Scheduler
from netpoll.sched import sleep, yield_now

from .conftest import MakeScheduler
from .test_tasks import blocked


def test_close_finishes_what_is_queued(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(2)
    log = []

    async def later(n: int) -> None:
        await sleep(0.002)
        log.append(n)
        scheduler.post(log.append, -n)  # from inside, also while it shuts down

    go = blocked(scheduler)
    for n in range(1, 101):
        scheduler.spawn(later, n)
    threading.Timer(0.01, go.set).start()
    scheduler.close()
    assert sorted(log) == [n for n in range(-100, 101) if n]
    scheduler.close()  # a second time is no mistake


def test_after_close_nothing_is_taken(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(1)
    scheduler.close()
    with pytest.raises(RuntimeError, match="shut down"):
        scheduler.post(print)
    with pytest.raises(RuntimeError, match="shut down"):
        scheduler.spawn(print)
    with pytest.raises(RuntimeError, match="shut down"):
        scheduler.spawn(print, affinity=0)
    coroutine = sleep(1)
    with pytest.raises(RuntimeError, match="shut down"):
        scheduler.spawn(coroutine)
    coroutine.close()


def test_close_cancels_on_demand(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(2)
    waiting = [scheduler.spawn(sleep, 3600) for _ in range(20)]
    while sum(worker["executed"] for worker in scheduler.stats()["workers"]) < 20:
        time.sleep(0.001)
    go, ran = blocked(scheduler), []
    queued = [scheduler.spawn(ran.append, 1) for _ in range(20)]
    queued += [scheduler.spawn(sleep(3600)) for _ in range(20)]
    scheduler.post(ran.append, 1)
    threading.Timer(0.01, go.set).start()
    scheduler.close(cancel=True)
    assert all(task.cancelled() for task in waiting + queued)
    assert ran == []


def test_close_cancels_what_only_yields(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(2)
    begun = threading.Event()

    async def spin() -> None:
        while True:
            begun.set()
            await yield_now()

    tasks = [scheduler.spawn(spin) for _ in range(4)]
    assert begun.wait(20)
    scheduler.close(cancel=True)
    assert all(task.cancelled() for task in tasks)


def test_the_with_statement_waits_or_cancels() -> None:
    with Scheduler(1) as scheduler:
        task = scheduler.spawn(sleep, 0.01, "slept")
    assert task.result() == "slept"
    with pytest.raises(KeyError), Scheduler(1) as scheduler:
        task = scheduler.spawn(sleep, 3600)
        raise KeyError
    assert task.cancelled()


def test_a_worker_cannot_wait_for_its_own_end(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(1)
    with pytest.raises(RuntimeError, match="own end"):
        scheduler.run(scheduler.close)


def test_many_schedulers_come_and_go() -> None:
    for n in range(50):
        with Scheduler(n % 3 + 1, name="brief") as scheduler:
            assert scheduler.run(lambda n=n: n) == n


# ---- posts and the end, in every race ---------------------------------------------------------


def test_nothing_is_lost_when_posts_meet_the_end(make_scheduler: MakeScheduler) -> None:
    for _ in range(5):
        scheduler = make_scheduler(2)
        ran, accepted = [], []

        def flood(scheduler: Scheduler = scheduler, ran=ran, accepted=accepted) -> None:
            try:
                for n in range(100_000):
                    scheduler.post(ran.append, n)
                    accepted.append(n)
            except RuntimeError:
                pass

        threads = [threading.Thread(target=flood) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.002)
        scheduler.close()
        for thread in threads:
            thread.join()
        assert len(ran) == len(accepted)


# ---- in another process -----------------------------------------------------------------------


def run_child(body: str) -> str:
    source = "import netpoll, os, sys, threading, time\nfrom netpoll.sched import *\n"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", source + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_interpreter_waits_for_what_is_queued() -> None:
    """As with concurrent.futures: nobody has to call close()."""
    out = run_child(
        """
        scheduler = netpoll.Scheduler(2)
        def work(n):
            time.sleep(0.01)
            os.write(1, b"%d\\n" % n)     # one call: two workers may print at once
        for n in range(5):
            scheduler.post(work, n)
        async def late():
            await sleep(0.05)
            print("late", flush=True)
        scheduler.spawn(late)
        print("main ends", flush=True)
        """
    )
    assert sorted(out.split()) == sorted("main ends 0 1 2 3 4 late".split())


def test_an_idle_scheduler_does_not_hold_the_interpreter() -> None:
    assert run_child("scheduler = netpoll.Scheduler(3)\nprint('over')") == "over\n"


def test_ctrl_c_ends_a_run() -> None:
    out = run_child(
        """
        import signal
        async def main():
            try:
                await sleep(60)
            finally:
                print("cleaned up", flush=True)
        with netpoll.Scheduler(1) as scheduler:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                scheduler.run(main)
            except KeyboardInterrupt:
                print("interrupted")
        """
    )
    assert out == "cleaned up\ninterrupted\n"


def test_a_forked_child_is_told_and_can_start_anew() -> None:
    out = run_child(
        """
        import warnings
        warnings.simplefilter("ignore")
        scheduler = netpoll.Scheduler(2)
        print(scheduler.run(lambda: "parent"), flush=True)
        pid = os.fork()
        if pid == 0:
            for call in (scheduler.post, scheduler.spawn):
                try:
                    call(print)
                except RuntimeError as error:
                    assert "fork" in str(error)
            with netpoll.Scheduler(2) as fresh:
                print(fresh.run(lambda: "child"), flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(scheduler.run(lambda: "parent again"))
        """
    )
    assert out == "parent\nchild\nparent again\n"


def test_a_forked_child_leaves_the_with_block() -> None:
    """From the main thread, and from a worker's: nothing waits for the parent's threads."""
    out = run_child(
        """
        import warnings
        warnings.simplefilter("ignore")
        def fork():
            pid = os.fork()
            if pid:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            try:
                scheduler.close()
                scheduler.close(cancel=True)
            except BaseException as error:
                os._exit(9)
            os._exit(3)
        with netpoll.Scheduler(2) as scheduler:
            print(scheduler.run(fork), flush=True)
            slow = scheduler.spawn(time.sleep, 0.3)
            pid = os.fork()
            if pid == 0:
                sys.exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            print(scheduler.run(lambda: "parent"))
        print(slow.result())
        """
    )
    assert out == "3\n7\nparent\nNone\n"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_worker_outlives_what_its_tasks_raise(
    make_scheduler: MakeScheduler, error: type[BaseException]
) -> None:
    scheduler = make_scheduler(1)
    scheduler.exception_handler = lambda context: reported.append(context["exception"])
    reported: list[BaseException] = []

    def fail() -> None:
        raise error

    async def fail_later() -> None:
        await sleep(0)
        raise error

    for target in (fail, fail_later):
        with pytest.raises(error):
            scheduler.run(target)
    scheduler.post(fail)
    assert scheduler.run(lambda: "goes on") == "goes on"
    assert [type(exc) for exc in reported] == [error]


def test_the_end_of_a_workers_loop_is_complete(make_scheduler: MakeScheduler) -> None:
    """Tasks that answer their cancelling with SystemExit do not keep the rest from ending."""
    scheduler = make_scheduler(1)
    scheduler.exception_handler = lambda context: None
    loop = scheduler.loop()
    ended = []

    async def work(n: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(n)
            raise SystemExit

    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ended.append(-1)

    async def begin() -> None:
        kept.extend(loop.create_task(work(n)) for n in range(3))
        kept.append(generate())
        await anext(kept[-1])
        await loop.run_in_executor(None, int)

    kept: list[Any] = []
    asyncio.run_coroutine_threadsafe(begin(), loop).result(20)
    scheduler.close()
    assert sorted(ended) == [-1, 0, 1, 2]
    assert loop.is_closed()


@pytest.mark.skipif(
    getattr(sys, "_is_gil_enabled", lambda: True)(), reason="this interpreter has its GIL"
)
def test_the_import_leaves_the_gil_off() -> None:
    assert run_child("print(sys._is_gil_enabled())") == "False\n"


# ---- as an executor ---------------------------------------------------------------------------


def test_an_executor_of_concurrent_futures(scheduler: Scheduler) -> None:
    with scheduler.as_executor(Priority.HIGH) as executor:
        assert isinstance(executor, concurrent.futures.Executor)
        assert list(executor.map(pow, range(10), [2] * 10)) == [n * n for n in range(10)]
        future = executor.submit(lambda *, key: key, key="word")
        assert future.result(20) == "word"
        with pytest.raises(ZeroDivisionError):
            executor.submit(lambda: 1 // 0).result(20)
    with pytest.raises(RuntimeError):
        executor.submit(print)
    assert scheduler.run(lambda: "goes on") == "goes on"


def test_futures_are_cancelled_and_waited_for(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(1)
    go = blocked(scheduler)
    executor = scheduler.as_executor()
    first, second = executor.submit(int), executor.submit(int)
    assert second.cancel()
    threading.Timer(0.01, go.set).start()
    executor.shutdown(wait=True)
    assert first.done() and second.cancelled()
    go = blocked(scheduler)
    executor = scheduler.as_executor()
    dropped = executor.submit(int)
    executor.shutdown(wait=False, cancel_futures=True)
    assert dropped.cancelled()
    go.set()


def test_futures_end_with_a_scheduler_that_cancels(make_scheduler: MakeScheduler) -> None:
    """Who waits for what is dropped would wait for ever (bug class 33)."""
    scheduler = make_scheduler(1)
    go = blocked(scheduler)
    executor = scheduler.as_executor()
    futures = [executor.submit(int) for _ in range(3)]
    assert futures[0].cancel()
    threading.Timer(0.02, go.set).start()
    scheduler.close(cancel=True)
    done, waiting = concurrent.futures.wait(futures, 20)
    assert not waiting and all(future.cancelled() for future in done)
    executor.shutdown()
    with pytest.raises(RuntimeError):
        scheduler.as_executor().submit(int)


def test_a_future_that_failed_is_no_cycle(scheduler: Scheduler) -> None:
    """As of concurrent.futures' own: its traceback does not lead to it (bug class 20)."""

    class Argument:
        pass

    def fail(argument: Argument) -> None:
        raise LookupError

    argument = Argument()
    seen = weakref.ref(argument)
    executor = scheduler.as_executor()
    gc.collect()
    gc.disable()
    try:
        future = executor.submit(fail, argument)
        assert isinstance(future.exception(20), LookupError)
        del future, argument
        executor.submit(int).result(20)  # the worker has left the call before
        assert seen() is None
    finally:
        gc.enable()
    executor.shutdown()


def test_a_loop_runs_functions_in_the_scheduler(scheduler: Scheduler) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        executor = scheduler.as_executor()
        names = {
            await loop.run_in_executor(executor, lambda: threading.current_thread().name)
            for _ in range(4)
        }
        assert names <= {f"{scheduler.name}-{n}" for n in range(scheduler.workers)}

    asyncio.run(main())
