"""run_forever, run_until_complete, stop, close; async generators; executors."""

import asyncio
import concurrent.futures
import contextlib
import gc
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytestmark = pytest.mark.control


def skip_where_asyncio_forgets_that_it_runs(backend: str) -> None:
    if backend == "asyncio" and sys.version_info[:3] == (3, 13, 0):
        pytest.skip("3.13.0's asyncio takes a refused second run for the end of the first")


def test_run_until_complete_returns_and_raises(loop: Any) -> None:
    async def value() -> int:
        return 42

    async def error() -> None:
        raise LookupError("gone")

    assert loop.run_until_complete(value()) == 42
    with pytest.raises(LookupError, match="gone"):
        loop.run_until_complete(error())
    future = loop.create_future()
    loop.call_soon(future.set_result, "set")
    assert loop.run_until_complete(future) == "set"


def test_run_until_complete_refuses_what_is_not_awaitable(loop: Any) -> None:
    with pytest.raises(TypeError, match="is required"):
        loop.run_until_complete(12)


def test_run_until_complete_refuses_another_loops_future(loop_factory: Any) -> None:
    one, other = loop_factory(), loop_factory()
    future = other.create_future()
    with pytest.raises(ValueError, match="loop"):
        one.run_until_complete(future)


def test_stopped_before_completion(loop: Any) -> None:
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)
    future.cancel()


def test_stop_before_run_runs_one_turn(loop: Any) -> None:
    seen: list[int] = []
    loop.call_soon(seen.append, 1)
    loop.stop()
    loop.run_forever()
    assert seen == [1]


def test_stop_lets_the_turn_end(loop: Any) -> None:
    seen: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(seen.append, "same turn")
    loop.run_forever()
    assert seen == ["same turn"]
    loop.call_soon(seen.append, "next run")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["same turn", "next run"]


def test_state_while_running(loop: Any) -> None:
    async def main() -> None:
        assert loop.is_running()
        assert not loop.is_closed()
        assert asyncio.get_running_loop() is loop
        assert asyncio.get_event_loop() is loop

    assert not loop.is_running()
    loop.run_until_complete(main())
    assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_a_running_loop_cannot_be_run_again(backend: str, loop: Any) -> None:
    skip_where_asyncio_forgets_that_it_runs(backend)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        coro = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_until_complete(coro)
        coro.close()

    loop.run_until_complete(main())


def test_a_second_loop_cannot_run_inside_the_first(backend: str, loop_factory: Any) -> None:
    skip_where_asyncio_forgets_that_it_runs(backend)
    outer, inner = loop_factory(), loop_factory()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="while another loop is running"):
            inner.run_forever()
        assert asyncio.get_running_loop() is outer

    outer.run_until_complete(main())
    assert inner.run_until_complete(asyncio.sleep(0, "works")) == "works"


def test_a_running_loop_cannot_be_closed(loop: Any) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()

    loop.run_until_complete(main())
    assert not loop.is_closed()


def test_a_loop_that_runs_in_another_thread_cannot_be_run_or_closed(
    backend: str, loop: Any
) -> None:
    """Bug class 15."""
    skip_where_asyncio_forgets_that_it_runs(backend)
    running = threading.Event()
    loop.call_soon(running.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert running.wait(20)
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match="running"):
            loop.close()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_close_twice_and_use_after_close(loop: Any) -> None:
    loop.close()
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_forever()
    coro = asyncio.sleep(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.run_until_complete(coro)
        coro.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_in_executor(None, print)


def test_close_without_ever_running(loop_factory: Any) -> None:
    for _ in range(20):
        loop_factory().close()


def test_many_short_runs(loop: Any) -> None:
    for number in range(500):
        assert loop.run_until_complete(asyncio.sleep(0, number)) == number


def test_loops_take_turns(loop_factory: Any) -> None:
    loops = [loop_factory() for _ in range(5)]
    for number in range(20):
        for loop in loops:
            assert loop.run_until_complete(asyncio.sleep(0, number)) == number


def test_an_unclosed_loop_warns(backend: str, loop_factory: Any) -> None:
    loop = loop_factory()
    loop_factory.loops.clear()
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()


def test_asyncgens_are_finalized_by_the_loop(loop: Any) -> None:
    closed: list[str] = []

    async def numbers(name: str) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    async def main() -> Any:
        dropped = numbers("dropped")
        await anext(dropped)
        del dropped
        gc.collect()
        await asyncio.sleep(0.01)
        assert closed == ["dropped"]
        kept = numbers("kept")
        await anext(kept)
        return kept

    kept = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert closed == ["dropped", "kept"]
    del kept


def test_asyncgen_hooks_are_restored(loop: Any) -> None:
    before = sys.get_asyncgen_hooks()
    loop.run_until_complete(asyncio.sleep(0))
    assert sys.get_asyncgen_hooks() == before


def test_asyncgen_errors_at_shutdown_are_reported(loop: Any, errors: list[dict[str, Any]]) -> None:
    async def broken() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise ZeroDivisionError("in the generator's end")

    async def main() -> Any:
        generator = broken()
        await anext(generator)
        return generator

    generator = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert len(errors) == 1
    assert isinstance(errors[0]["exception"], ZeroDivisionError)
    assert errors[0]["asyncgen"] is generator
    errors.clear()


def test_asyncgen_started_after_shutdown_warns(loop: Any) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        async for _ in numbers():
            pass

    loop.run_until_complete(loop.shutdown_asyncgens())
    with pytest.warns(ResourceWarning, match="was scheduled after loop.shutdown_asyncgens"):
        loop.run_until_complete(main())


def test_run_in_executor(loop: Any) -> None:
    async def main() -> None:
        here = threading.get_ident()
        there = await loop.run_in_executor(None, threading.get_ident)
        assert there != here
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, divmod, 1, 0)
        with concurrent.futures.ThreadPoolExecutor(1) as own:
            assert await loop.run_in_executor(own, pow, 2, 10) == 1024

    loop.run_until_complete(main())


def test_set_default_executor(loop: Any) -> None:
    with pytest.raises(TypeError, match="ThreadPoolExecutor"):
        loop.set_default_executor(object())
    executor = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ours")
    loop.set_default_executor(executor)

    async def main() -> str:
        return await loop.run_in_executor(None, lambda: threading.current_thread().name)

    assert loop.run_until_complete(main()).startswith("ours")
    loop.run_until_complete(loop.shutdown_default_executor())
    with pytest.raises(RuntimeError):
        executor.submit(print)
    with pytest.raises(RuntimeError, match="Executor shutdown has been called"):
        loop.run_in_executor(None, print)


def test_shutdown_default_executor_waits(loop: Any) -> None:
    done: list[int] = []
    release = threading.Event()

    async def main() -> None:
        loop.run_in_executor(None, lambda: (release.wait(20), done.append(1)))
        loop.call_later(0.02, release.set)
        await loop.shutdown_default_executor()
        assert done == [1]

    loop.run_until_complete(main())


@pytest.mark.skipif(
    "timeouts" not in asyncio.BaseEventLoop.shutdown_default_executor.__code__.co_names,
    reason="new in 3.12, whose first releases waited without end",
)
def test_shutdown_default_executor_timeout(loop: Any) -> None:
    release = threading.Event()

    async def main() -> None:
        loop.run_in_executor(None, release.wait, 20)
        with pytest.warns(RuntimeWarning, match="did not finishing joining"):
            await loop.shutdown_default_executor(timeout=0.01)

    loop.run_until_complete(main())
    release.set()


def test_asyncio_runner_drives_the_loop(loop_factory: Any) -> None:
    async def main() -> int:
        asyncio.get_running_loop().create_task(asyncio.sleep(100))
        await asyncio.sleep(0)
        return 7

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(main()) == 7
        assert runner.run(asyncio.sleep(0, 8)) == 8
    assert loop_factory.loops[0].is_closed()


def test_exception_out_of_run_leaves_the_loop_usable(loop: Any) -> None:
    async def leave() -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(leave())
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise AssertionError("a loop is still said to run")
    assert loop.run_until_complete(asyncio.sleep(0, 5)) == 5
