"""Tasks and futures as the loop makes them: factories, names, contexts, eager starts, shapes."""

import asyncio
import contextvars
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.control

VAR: contextvars.ContextVar[int] = contextvars.ContextVar("VAR", default=0)


async def test_create_task_makes_asyncios_own_task(loop: Any) -> None:
    task = loop.create_task(asyncio.sleep(0, 3), name="three")
    assert isinstance(task, asyncio.Task)
    assert task.get_name() == "three" and task.get_loop() is loop
    assert task in asyncio.all_tasks(loop)
    assert await task == 3
    future = loop.create_future()
    assert isinstance(future, asyncio.Future) and future.get_loop() is loop


async def test_another_task_class_in_asyncios_place(loop: Any, monkeypatch: Any) -> None:
    """As asyncio, the loop makes what asyncio.tasks.Task is now: nest_asyncio replaces it."""

    class Replaced(asyncio.Task):
        pass

    class ReplacedFuture(asyncio.Future):
        pass

    monkeypatch.setattr(asyncio.tasks, "Task", Replaced)
    monkeypatch.setattr(asyncio.futures, "Future", ReplacedFuture)
    assert type(loop.create_future()) is ReplacedFuture
    for options in ({}, {"name": "two"}):
        task = loop.create_task(asyncio.sleep(0, 2), **options)
        assert type(task) is Replaced
        assert await task == 2


async def test_create_task_takes_a_context(loop: Any) -> None:
    async def read() -> int:
        return VAR.get()

    context = contextvars.copy_context()
    context.run(VAR.set, 9)
    assert await loop.create_task(read(), context=context) == 9
    assert await loop.create_task(read()) == 0


async def test_create_task_refuses_what_is_not_a_coroutine(loop: Any) -> None:
    with pytest.raises(TypeError):
        loop.create_task(12)


async def test_task_factory(loop: Any) -> None:
    made: list[Any] = []

    class OwnTask(asyncio.Task):  # type: ignore[type-arg]
        pass

    def factory(its_loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(kwargs)
        return OwnTask(coro, loop=its_loop, **kwargs)

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    context = contextvars.copy_context()
    task = loop.create_task(asyncio.sleep(0, 1), name="named", context=context)
    assert isinstance(task, OwnTask) and task.get_name() == "named"
    assert await task == 1
    assert made[0]["context"] is context
    loop.set_task_factory(None)
    assert type(loop.create_task(asyncio.sleep(0))) is asyncio.Task
    with pytest.raises(TypeError, match="callable"):
        loop.set_task_factory(12)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
async def test_eager_task_factory(loop: Any) -> None:
    loop.set_task_factory(asyncio.eager_task_factory)
    steps: list[str] = []

    async def quick() -> str:
        steps.append("ran")
        return "done"

    task = asyncio.ensure_future(quick())
    assert steps == ["ran"] and task.done()
    assert await task == "done"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Task has eager_start since 3.12")
@pytest.mark.control_since((3, 14))
@pytest.mark.parametrize("debug", [False, True])
async def test_eager_start(loop: Any, debug: bool) -> None:
    loop.set_debug(debug)
    steps: list[str] = []

    async def quick() -> None:
        steps.append("ran")

    task = loop.create_task(quick(), eager_start=True)
    assert steps == ["ran"] and task.done()
    await task


async def test_a_task_knows_who_made_it_in_debug_mode(loop: Any) -> None:
    loop.set_debug(True)
    task = loop.create_task(asyncio.sleep(0))
    made_by = task._source_traceback[-1]
    assert made_by.name == "test_a_task_knows_who_made_it_in_debug_mode"
    await task


async def test_ten_thousand_sleepers_wake_in_order(loop: Any) -> None:
    woken: list[int] = []

    async def sleeper(number: int) -> None:
        await asyncio.sleep(0)
        woken.append(number)

    await asyncio.gather(*(sleeper(n) for n in range(10_000)))
    assert woken == list(range(10_000))


async def test_cancel_runs_finally_blocks(loop: Any) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned")

    task = loop.create_task(work())
    await asyncio.sleep(0)
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["cleaned"]


async def test_wait_for_times_out(loop: Any) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.sleep(100), 0.01)
    assert await asyncio.wait_for(asyncio.sleep(0, "in time"), 10) == "in time"
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.sleep(100)


async def test_primitives(loop: Any) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    lock, event = asyncio.Lock(), asyncio.Event()
    got: list[int] = []

    async def produce() -> None:
        for number in range(100):
            async with lock:
                await queue.put(number)
        event.set()

    async def consume() -> None:
        for _ in range(100):
            got.append(await queue.get())

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        group.create_task(consume())
    await event.wait()
    assert got == list(range(100))


async def test_a_task_switch_takes_as_many_turns_as_with_asyncio(loop: Any) -> None:
    """Programs depend on it: a chain of wake-ups and sleep(0) alternate in a fixed order."""
    steps: list[str] = []

    async def ticker(name: str) -> None:
        for number in range(3):
            steps.append(f"{name}{number}")
            await asyncio.sleep(0)

    async def waiter(future: asyncio.Future[None]) -> None:
        await future
        steps.append("woken")

    future = loop.create_future()
    tasks = [loop.create_task(waiter(future)), loop.create_task(ticker("a"))]
    await asyncio.sleep(0)
    future.set_result(None)
    tasks.append(loop.create_task(ticker("b")))
    await asyncio.gather(*tasks)
    assert steps == ["a0", "a1", "woken", "b0", "a2", "b1", "b2"]
