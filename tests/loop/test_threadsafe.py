"""call_soon_threadsafe and what is built on it, from other threads."""

import asyncio
import collections
import threading
import time
from typing import Any

import pytest

pytestmark = pytest.mark.control


def test_eight_threads_keep_each_its_own_order(loop: Any) -> None:
    """Bug class 15: nothing lost, nothing doubled, each producer's order kept."""
    threads_count, calls_count = 8, 5000
    seen: dict[int, list[int]] = collections.defaultdict(list)
    total = 0

    def note(thread: int, number: int) -> None:
        nonlocal total
        seen[thread].append(number)
        total += 1
        if total == threads_count * calls_count:
            loop.stop()

    def produce(thread: int) -> None:
        for number in range(calls_count):
            loop.call_soon_threadsafe(note, thread, number)

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(threads_count)]
    for thread in threads:
        thread.start()
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert dict(seen) == {n: list(range(calls_count)) for n in range(threads_count)}


def test_a_sleeping_loop_wakes_up(loop: Any) -> None:
    """Each call finds the loop asleep, without a timer to help."""
    rounds = 50
    done = threading.Semaphore(0)

    def poke() -> None:
        for _ in range(rounds):
            loop.call_soon_threadsafe(done.release)
            assert done.acquire(timeout=20), "the loop slept on"
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=poke)
    thread.start()
    loop.run_forever()
    thread.join()


def test_threadsafe_calls_before_the_loop_runs(loop: Any) -> None:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(seen.append, 1))
    thread.start()
    thread.join()
    loop.call_soon(seen.append, 2)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert sorted(seen) == [1, 2]


def test_order_within_the_loop_thread(loop: Any) -> None:
    """From the loop's own thread it queues like call_soon: in the order of the calls."""
    seen: list[int] = []

    def first() -> None:
        for number in range(0, 20, 2):
            loop.call_soon_threadsafe(seen.append, number)
            loop.call_soon_threadsafe(seen.append, number + 1)

    loop.call_soon(first)
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == list(range(20))


def test_a_threadsafe_handle_can_be_cancelled(loop: Any) -> None:
    seen: list[int] = []
    handle = loop.call_soon_threadsafe(seen.append, 1)
    loop.call_soon_threadsafe(seen.append, 2)
    handle.cancel()
    assert handle.cancelled()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == [2]


@pytest.mark.skipif(
    not hasattr(asyncio.events, "_ThreadSafeHandle"), reason="asyncio's handles wait since 3.14"
)
@pytest.mark.parametrize("method", ["cancel", "cancelled"])
@pytest.mark.parametrize("debug", [False, True])
def test_cancelling_waits_for_the_callback_that_runs(loop: Any, method: str, debug: bool) -> None:
    """Who has cancelled knows that the callback does not run any more."""
    started, steps = threading.Event(), []

    def callback() -> None:
        started.set()
        time.sleep(0.05)
        steps.append("callback ended")

    def others() -> None:
        handle = loop.call_soon_threadsafe(callback)
        assert isinstance(handle, asyncio.Handle)
        assert isinstance(handle, asyncio.events._ThreadSafeHandle)
        assert started.wait(20)
        waiting = [threading.Thread(target=ask, args=(handle,)) for _ in range(3)]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join()
        loop.call_soon_threadsafe(loop.stop)

    def ask(handle: asyncio.Handle) -> None:
        getattr(handle, method)()
        steps.append("asker goes on")

    loop.set_debug(debug)
    loop.slow_callback_duration = 1
    thread = threading.Thread(target=others)
    thread.start()
    loop.run_forever()
    thread.join()
    assert steps == ["callback ended"] + ["asker goes on"] * 3


def test_a_threadsafe_callback_may_cancel_itself(loop: Any) -> None:
    def callback() -> None:
        handles[0].cancel()
        seen.append(handles[0].cancelled())
        loop.stop()

    seen: list[bool] = []
    handles = [loop.call_soon_threadsafe(callback)]
    loop.run_forever()
    assert seen == [True]


def test_threadsafe_producers_do_not_starve_timers(loop: Any) -> None:
    """Bug class 10: a flood from another thread leaves timers their turn."""
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            loop.call_soon_threadsafe(int)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        loop.run_until_complete(asyncio.sleep(0.05))
    finally:
        stop.set()
        thread.join()


def test_run_coroutine_threadsafe(loop: Any) -> None:
    results: list[Any] = []

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    def ask() -> None:
        futures = [asyncio.run_coroutine_threadsafe(double(n), loop) for n in range(100)]
        results.extend(future.result(20) for future in futures)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=ask)
    thread.start()
    loop.run_forever()
    thread.join()
    assert results == [n * 2 for n in range(100)]


def test_stop_from_another_thread(loop: Any) -> None:
    timer = threading.Timer(0.02, lambda: loop.call_soon_threadsafe(loop.stop))
    timer.start()
    loop.run_forever()
    timer.join()
    assert not loop.is_running()


def test_threads_that_race_with_close_get_an_error_or_are_served(loop: Any) -> None:
    """Bug class 15: no crash, no call after close, every refusal is a RuntimeError."""
    refused: list[BaseException] = []
    go_on = True

    def produce() -> None:
        while go_on:
            try:
                loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                refused.append(error)
                return

    threads = [threading.Thread(target=produce) for _ in range(4)]
    for thread in threads:
        thread.start()
    loop.run_until_complete(asyncio.sleep(0.02))
    loop.close()
    for thread in threads:
        thread.join(20)
    go_on = False
    assert [str(error) for error in refused] == ["Event loop is closed"] * 4


def test_to_thread_and_queue_between_threads(loop: Any) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(asyncio.to_thread(pow, n, 2) for n in range(50)))

    assert loop.run_until_complete(main()) == [n * n for n in range(50)]


@pytest.mark.netpoll_only  # asyncio leaves cancelled timers where they are until there are many
def test_threads_under_other_names(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """gevent's get_ident() gives the name of a greenlet. A loop knows its own thread all the same:
    what only that may do at once (taking a cancelled timer out) is done at once."""
    monkeypatch.setattr(threading, "get_ident", lambda: 4711)
    loop.set_debug(True)

    async def main() -> None:
        assert loop.is_running()
        before = len(loop._scheduled)
        for _ in range(50):
            loop.call_later(3600, print).cancel()
        loop.call_soon(int)  # in debug mode the thread is looked at
        assert len(loop._scheduled) == before

    loop.run_until_complete(main())
    assert not loop.is_running()
