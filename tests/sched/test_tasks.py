"""spawn, post, and what a Task says and does."""

import asyncio
import contextlib
import contextvars
import functools
import threading
import time
import traceback
import types

import pytest

import netpoll
from netpoll import Priority, Scheduler, Task
from netpoll.sched import current_scheduler, current_task, sleep, yield_now

from .conftest import MakeScheduler, take_reports

WAIT_S = 20.0


def blocked(scheduler: Scheduler) -> threading.Event:
    """Keeps every worker busy until the event that it returns is set."""
    go, busy = threading.Event(), threading.Barrier(scheduler.workers + 1)

    def wait() -> None:
        busy.wait(WAIT_S)
        go.wait(WAIT_S)

    for index in range(scheduler.workers):
        scheduler.spawn(wait, affinity=index)
    busy.wait(WAIT_S)
    return go


async def double(value: int) -> int:
    await yield_now()
    return value * 2


@pytest.mark.parametrize(
    "target",
    [lambda n: n * 2, double, functools.partial(double), lambda n: double(n)],
    ids=["function", "coroutine function", "partial", "returns a coroutine"],
)
def test_spawn_runs_what_it_is_given(scheduler: Scheduler, target) -> None:
    task = scheduler.spawn(target, 21)
    assert isinstance(task, Task)
    assert task.result(WAIT_S) == 42
    assert task.done() and not task.cancelled()
    assert task.exception() is None
    assert task.result() == 42


def test_spawn_runs_a_coroutine(scheduler: Scheduler) -> None:
    assert scheduler.spawn(double(4)).result(WAIT_S) == 8


@pytest.mark.parametrize("args", [(), (1,), (1, 2), (1, (2,), None)])
def test_arguments_arrive(scheduler: Scheduler, args) -> None:
    seen, done = [], threading.Event()

    def note(*got) -> None:
        seen.append(got)
        done.set()

    scheduler.post(note, *args)
    assert done.wait(WAIT_S)
    assert scheduler.spawn(lambda *got: got, *args).result(WAIT_S) == args
    assert seen == [args]


def test_run_returns_the_result_and_raises_the_exception(scheduler: Scheduler) -> None:
    async def main(value: int) -> int:
        assert current_task().name == "main"
        assert current_scheduler() is scheduler
        return await scheduler.spawn(double, value)

    assert scheduler.run(main, 5) == 10
    assert scheduler.run(main(6)) == 12
    with pytest.raises(ZeroDivisionError):
        scheduler.run(lambda: 1 // 0)
    assert current_task() is None and current_scheduler() is None


def test_an_exception_keeps_its_traceback(scheduler: Scheduler) -> None:
    def innermost() -> None:
        raise KeyError("lost")

    async def main() -> None:
        await scheduler.spawn(innermost)

    with pytest.raises(KeyError, match="lost") as caught:
        scheduler.spawn(main).result(WAIT_S)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "innermost" in names and "main" in names


def test_an_exception_that_nobody_takes_is_reported(scheduler: Scheduler) -> None:
    def fail() -> None:
        raise ValueError("nobody asked")

    task = scheduler.spawn(fail)
    scheduler.spawn(lambda: None, affinity=0).result(WAIT_S)
    while not task.done():
        time.sleep(0.001)
    del task
    (report,) = take_reports(scheduler)
    assert report["message"] == "Task exception was never retrieved"
    assert str(report["exception"]) == "nobody asked"
    taken = scheduler.spawn(fail)
    assert str(taken.exception(WAIT_S)) == "nobody asked"
    del taken
    assert take_reports(scheduler) == []


def test_a_post_that_fails_is_reported_and_the_worker_lives(scheduler: Scheduler, caplog) -> None:
    def fail() -> None:
        raise ValueError("posted")

    for _ in range(10):
        scheduler.post(fail)
    assert scheduler.run(lambda: 1) == 1
    scheduler.close()
    reports = take_reports(scheduler)
    assert [str(report["exception"]) for report in reports] == ["posted"] * 10
    assert reports[0]["callback"] is fail


def test_without_a_handler_it_is_logged(make_scheduler: MakeScheduler, caplog) -> None:
    scheduler = make_scheduler(1)
    scheduler.exception_handler = None
    scheduler.post(lambda: 1 // 0)
    scheduler.close()
    (record,) = caplog.records
    assert record.name == "netpoll.sched" and "a posted function failed" in record.message
    assert record.exc_info[0] is ZeroDivisionError


def test_result_has_a_time_out(scheduler: Scheduler) -> None:
    go = threading.Event()
    task = scheduler.spawn(go.wait, WAIT_S)
    with pytest.raises(TimeoutError):
        task.result(0.01)
    with pytest.raises(TimeoutError):
        task.exception(0)
    go.set()
    assert task.result(WAIT_S) is True


def test_result_does_not_block_its_own_worker(scheduler: Scheduler) -> None:
    def wait() -> None:
        scheduler.spawn(sleep, 0.01).result()

    with pytest.raises(RuntimeError, match="await"):
        scheduler.spawn(wait).result(WAIT_S)


def test_many_threads_wait_for_one_task(scheduler: Scheduler) -> None:
    go, results = threading.Event(), []

    def work() -> int:
        go.wait(WAIT_S)
        return 5

    task = scheduler.spawn(work)
    threads = [
        threading.Thread(target=lambda: results.append(task.result(WAIT_S))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert results == [5] * 8


def test_many_tasks_await_one(scheduler: Scheduler) -> None:
    async def main() -> list[int]:
        slow = scheduler.spawn(sleep, 0.02, 7)

        async def ask() -> int:
            return await slow

        return [await task for task in [scheduler.spawn(ask) for _ in range(50)]]

    assert scheduler.run(main) == [7] * 50


def test_a_task_is_awaited_in_another_scheduler(make_scheduler: MakeScheduler) -> None:
    one, other = make_scheduler(1), make_scheduler(1)

    async def main() -> int:
        return await other.spawn(sleep, 0.01, 3)

    assert one.run(main) == 3


@pytest.mark.parametrize("kind", ["asyncio", "uring", "epoll"])
def test_a_task_is_awaited_in_an_event_loop(scheduler: Scheduler, kind: str) -> None:
    if kind == "asyncio":
        loop = asyncio.SelectorEventLoop()
    else:
        try:
            loop = netpoll.new_event_loop(backend=kind)
        except OSError as error:
            pytest.skip(str(error))

    async def main() -> None:
        assert await scheduler.spawn(sleep, 0.01, "late") == "late"
        done = scheduler.spawn(lambda: "early")
        done.result(WAIT_S)
        assert await done == "early"
        with pytest.raises(ZeroDivisionError):
            await scheduler.spawn(lambda: 1 // 0)
        results = await asyncio.gather(*(scheduler.spawn(double, n) for n in range(100)))
        assert results == [2 * n for n in range(100)]
        slow = scheduler.spawn(sleep, 60)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow, 0.01)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_loop_that_is_gone_does_not_disturb_the_task(scheduler: Scheduler) -> None:
    go = threading.Event()
    task = scheduler.spawn(go.wait, WAIT_S)

    async def ask() -> None:
        await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(wrap())), 0.01)

    async def wrap() -> None:
        await task

    loop = asyncio.SelectorEventLoop()
    with pytest.raises(TimeoutError):
        loop.run_until_complete(ask())
    for pending in asyncio.all_tasks(loop):
        pending.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    go.set()
    assert task.result(WAIT_S) is True


def test_a_foreign_awaitable_is_refused_in_the_coroutine(scheduler: Scheduler) -> None:
    async def main() -> str:
        try:
            await asyncio.sleep(1)
        except RuntimeError as error:
            return str(error)
        return "it was accepted"

    async def foreign() -> str:
        class Odd:
            def __await__(self):
                yield 5

        try:
            await Odd()
        except RuntimeError as error:
            return str(error)
        return "it was accepted"

    assert "event loop" in scheduler.run(main)
    assert "cannot await 5" in scheduler.run(foreign)


class Odd:
    def __await__(self):
        yield 5


def test_awaits_that_are_refused_need_no_stack(scheduler: Scheduler) -> None:
    """Each is a step of the coroutine's loop, and was one more call of ours within the last (bug
    class 91)."""

    async def stubborn(times: int) -> int:
        refused = 0
        while refused < times:
            try:
                await Odd()
            except RuntimeError:
                refused += 1
        return refused

    assert scheduler.run(stubborn, 200_000) == 200_000


def test_a_task_that_does_not_give_up_is_cancelled(scheduler: Scheduler) -> None:
    begun = threading.Event()

    async def stubborn() -> None:
        while True:
            begun.set()
            with contextlib.suppress(RuntimeError):
                await Odd()

    task = scheduler.spawn(stubborn)
    assert begun.wait(WAIT_S)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        task.result(WAIT_S)


def test_a_task_cannot_await_itself(scheduler: Scheduler) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="itself"):
            await current_task()

    scheduler.run(main)


# ---- cancellation ----------------------------------------------------------------------------


def test_a_queued_task_is_cancelled_at_once(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(1)
    go, ran = blocked(scheduler), []
    function = scheduler.spawn(ran.append, 1)
    coroutine = scheduler.spawn(double(1))
    assert function.cancel("why") and coroutine.cancel()
    assert function.cancelled() and coroutine.done()
    assert not function.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError, match="why"):
        function.result(WAIT_S)
    scheduler.run(lambda: None)
    assert ran == []


def test_a_waiting_coroutine_is_told(scheduler: Scheduler) -> None:
    log = []

    async def wait() -> str:
        try:
            await sleep(60)
        except asyncio.CancelledError as error:
            log.append(str(error))
            raise
        finally:
            log.append("cleaned up")
        return "never"

    async def main() -> None:
        task = scheduler.spawn(wait)
        await sleep(0.01)
        assert task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    scheduler.run(main)
    assert log == ["enough", "cleaned up"]


def test_a_coroutine_may_decline(scheduler: Scheduler) -> None:
    async def wait() -> str:
        try:
            await sleep(60)
        except asyncio.CancelledError:
            await sleep(0.001)
        return "went on"

    async def main() -> str:
        task = scheduler.spawn(wait)
        await sleep(0.01)
        task.cancel()
        assert task.cancelling() == 1
        return await task

    assert scheduler.run(main) == "went on"


def test_a_function_that_runs_is_not_stopped(scheduler: Scheduler) -> None:
    started, go = threading.Event(), threading.Event()

    def work() -> str:
        started.set()
        go.wait(WAIT_S)
        return "done"

    task = scheduler.spawn(work)
    assert started.wait(WAIT_S)
    task.cancel()
    go.set()
    assert task.result(WAIT_S) == "done"


def test_cancelled_from_many_threads(scheduler: Scheduler) -> None:
    """Every race of a cancellation with a wake-up ends in one of two ways."""

    async def wait(delay_s: float) -> str:
        await sleep(delay_s)
        return "slept"

    for round_number in range(100):
        tasks = [scheduler.spawn(wait, round_number % 5 * 0.0002) for _ in range(4)]
        threads = [threading.Thread(target=task.cancel) for task in tasks]
        for thread in threads:
            thread.start()
        for thread, task in zip(threads, tasks, strict=True):
            thread.join()
            try:
                assert task.result(WAIT_S) == "slept"
            except asyncio.CancelledError:
                assert task.cancelled()


# ---- contexts, callbacks, errors --------------------------------------------------------------

variable = contextvars.ContextVar("variable", default="unset")


def test_context_variables_are_carried_and_kept_apart(scheduler: Scheduler) -> None:
    async def change(value: str) -> tuple[str, str]:
        before = variable.get()
        variable.set(value)
        await yield_now()
        await sleep(0.001)
        return before, variable.get()

    def change_in_function(value: str) -> tuple[str, str]:
        before = variable.get()
        variable.set(value)
        return before, variable.get()

    async def main() -> None:
        variable.set("main")
        for target in (change, change_in_function):
            tasks = [scheduler.spawn(target, str(n)) for n in range(50)]
            assert [await task for task in tasks] == [("main", str(n)) for n in range(50)]
        assert variable.get() == "main"

    token = variable.set("outside")
    seen = []
    scheduler.post(lambda: seen.append(variable.get()))
    scheduler.post(variable.set, "spoilt")
    scheduler.post(lambda: seen.append(variable.get()))
    scheduler.run(main)
    assert scheduler.run(variable.get) == "outside"
    variable.reset(token)
    assert scheduler.run(variable.get) == "unset"
    assert seen == ["outside", "outside"]


def test_a_task_is_not_iterated_over(scheduler: Scheduler) -> None:
    """Who iterates is told so, as by asyncio's futures; an await by `yield from` works."""

    @types.coroutine
    def by_yield_from(task):  # type: ignore[no-untyped-def]
        return (yield from task)

    async def main() -> object:
        task = scheduler.spawn(sleep, 0.02, "slept")
        for iterable in (task, task.__await__(), iter(task)):
            with pytest.raises(RuntimeError, match="await"):
                list(iterable)
        assert await by_yield_from(task) == "slept"
        assert list(task) == []  # done: there is nothing to wait for
        return await by_yield_from(scheduler.spawn(sleep, 0.01, ("a", "tuple")))

    assert asyncio.run(main()) == ("a", "tuple")
    assert scheduler.run(main) == ("a", "tuple")
    with pytest.raises(RuntimeError, match="elsewhere call its result"):
        list(scheduler.spawn(sleep, 0.01))


def test_done_callbacks(scheduler: Scheduler) -> None:
    seen, go = [], threading.Event()
    task = scheduler.spawn(go.wait, WAIT_S)
    task.add_done_callback(lambda t: seen.append(("first", t)))
    task.add_done_callback(lambda t: 1 // 0)
    removed = functools.partial(seen.append)
    task.add_done_callback(removed)
    assert task.remove_done_callback(removed) == 1
    assert task.remove_done_callback(removed) == 0
    go.set()
    task.result(WAIT_S)
    scheduler.close()
    task.add_done_callback(lambda t: seen.append(("late", t)))
    assert seen == [("first", task), ("late", task)]
    (report,) = take_reports(scheduler)
    assert isinstance(report["exception"], ZeroDivisionError)


def test_names_and_reprs(scheduler: Scheduler) -> None:
    task = scheduler.spawn(lambda: 1, name="one", priority=Priority.HIGH)
    task.result(WAIT_S)
    assert task.name == "one" and task.priority == Priority.HIGH
    assert repr(task) == "<netpoll.Task one HIGH done>"
    other = scheduler.spawn(lambda: 1 // 0)
    other.exception(WAIT_S)
    assert other.name.startswith("Task-") and "failed ZeroDivisionError" in repr(other)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.spawn(), TypeError, "target"),
        (lambda s: s.post(), TypeError, "fn"),
        (lambda s: s.spawn(5), TypeError, "coroutine"),
        (lambda s: s.post(5), TypeError, "function"),
        (lambda s: s.post(print, priority=4), ValueError, "priority"),
        (lambda s: s.post(print, priority=-1), ValueError, "priority"),
        (lambda s: s.post(print, affinity=0), TypeError, "affinity"),
        (lambda s: s.spawn(print, affinity=2), ValueError, "affinity"),
        (lambda s: s.spawn(print, end=""), TypeError, "partial"),
        (lambda s: Scheduler(0), ValueError, "workers"),
        (lambda s: Scheduler.__new__(Scheduler).post(print), RuntimeError, "__init__"),
    ],
)
def test_mistakes_are_answered(scheduler: Scheduler, call, error, words) -> None:
    with pytest.raises(error, match=words):
        call(scheduler)


def test_affinity_holds(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(3)

    async def where() -> set[str]:
        names = set()
        for _ in range(20):
            names.add(threading.current_thread().name)
            await sleep(0.0005)
        return names

    tasks = [scheduler.spawn(where, affinity=index % 3) for index in range(12)]
    for index, task in enumerate(tasks):
        assert task.result(WAIT_S) == {f"{scheduler.name}-{index % 3}"}
