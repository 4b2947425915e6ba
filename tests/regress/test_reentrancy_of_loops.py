"""What test_reentrancy.py is for transports, for the rest: socket calls, files, memory, the loop
itself and the scheduler.
"""

import asyncio
import contextlib
import contextvars
import gc
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

import netpoll
from netpoll import BufferPool
from netpoll._native.files import operations as native_files
from netpoll._native.sched.task import current_task
from netpoll.testing import DeterministicScheduler

from ..support import unix_pair
from .acting import Act, Exporter, Number, Trash, needs_buffer_classes

# ---- socket calls, files, memory --------------------------------------------------------------


@needs_buffer_classes
async def test_a_buffer_that_closes_the_socket(loop: Any) -> None:
    """The number is another socket's by then: its bytes stay where they are."""
    left, right = unix_pair()
    others: list[socket.socket] = []

    def act() -> None:
        number = left.fileno()
        left.close()
        others.extend(unix_pair())
        assert number in (others[0].fileno(), others[1].fileno())
        others[0].send(b"not yours")
        others[1].send(b"not yours")

    with pytest.raises(OSError, match="Bad file descriptor"):
        await loop.sock_recv_into(left, Exporter(bytearray(20), act))
    for other in others:
        assert other.recv(20) == b"not yours"
        other.close()
    right.close()


@needs_buffer_classes
@pytest.mark.parametrize("call", ["sock_sendall", "sock_recv_into"])
async def test_a_buffer_that_ends_its_call(loop: Any, call: str) -> None:
    left, right = unix_pair()
    right.send(b"x" * 10)
    calls: list[Any] = []

    def act() -> None:
        if calls:
            calls[0].close()

    memory = bytearray(1 << 20)
    calls.append(getattr(loop, call)(left, Exporter(memory, act, act)))
    with contextlib.suppress(StopIteration, RuntimeError):
        calls[0].send(None)
    calls[0].close()
    memory.extend(b"x")
    await asyncio.sleep(0.01)
    left.close()
    right.close()


async def test_a_file_operation_is_asked_too_early(loop: Any, tmp_path: Any) -> None:
    """Its memory is the kernel's: it is not handed out, and not given back."""
    if loop.backend != "uring":
        pytest.skip("the file operations of threads have their memory to themselves")
    reading, writing = os.pipe()
    memory = bytearray(100)
    operations: list[Any] = [
        native_files.read(loop, reading, 100),
        native_files.readinto(loop, reading, memory),
        native_files.open(loop, tmp_path, os.O_RDONLY),
    ]
    tasks = [asyncio.ensure_future(_until_done(operation)) for operation in operations]
    await asyncio.sleep(0)
    for operation in operations:
        with pytest.raises(asyncio.InvalidStateError):
            operation.result()
    with pytest.raises(BufferError):
        memory.extend(b"x")
    os.write(writing, b"a" * 100)
    assert await tasks[0] == b"a" * 100
    os.write(writing, b"b" * 50)
    assert await tasks[1] == 50
    memory.extend(b"x")
    os.close(await tasks[2])
    os.close(reading)
    os.close(writing)


async def _until_done(operation: Any) -> Any:
    return await operation


def collecting(act: Act, then: Act) -> None:
    """Calls `then` while the collector finds garbage whose finaliser acts."""
    thresholds = gc.get_threshold()
    for _ in range(20):
        cycle: Any = Trash(act)
        cycle.me = cycle
        del cycle
        gc.set_threshold(1)
        try:
            then()
        finally:
            gc.set_threshold(*thresholds)


def test_a_pool_is_closed_and_used_by_a_finaliser(loop: Any) -> None:
    kept: list[Any] = []

    def reserve() -> None:
        with contextlib.suppress(ValueError):
            kept.append(pool.reserve(4096))

    def close() -> None:
        with contextlib.suppress(BufferError):
            pool.close()

    for act in (reserve, close):
        pool = BufferPool(1 << 21, hugepages="off")
        pool.attach(loop)
        collecting(act, close)
        for buffer in kept:
            buffer.write(b"x" * 4096)
            buffer.release()
        kept.clear()
        close()
        pool.close()
        assert pool.stats()["buffers_count"] == 0


def test_a_pool_is_made_while_it_is_made() -> None:
    pool = BufferPool.__new__(BufferPool)

    class Classes:
        def __iter__(self) -> Iterator[int]:
            pool.__init__(1 << 21, hugepages="off")  # type: ignore[misc]
            buffers.append(pool.reserve(100))
            return iter((4096, 65536))

    buffers: list[Any] = []
    with pytest.raises(RuntimeError):
        pool.__init__(1 << 21, Classes(), "off")  # type: ignore[misc]
    buffers[0].write(b"x" * 100)
    buffers[0].release()
    pool.close()


def test_a_loop_closes_itself_and_the_pool_when_they_are_joined(backend: str) -> None:
    acts: list[Act] = []

    class Closing(netpoll.EventLoop):
        def __hash__(self) -> int:
            while acts:
                acts.pop()()
            return id(self)

    for end in ("loop", "pool"):
        closing = Closing(backend=backend)
        pool = BufferPool(1 << 21, hugepages="off")
        acts.append(closing.close if end == "loop" else pool.close)
        with pytest.raises((RuntimeError, ValueError)):
            pool.attach(closing)
        closing.close()
        pool.close()


# ---- the loop ---------------------------------------------------------------------------------


async def test_a_handler_that_goes_takes_the_reader_away(loop: Any) -> None:
    left, right = unix_pair()
    calls: list[str] = []

    def replace(_trash: Any) -> None:
        calls.append("first")
        loop.add_reader(left, calls.append, "second")

    loop.add_reader(left, replace, Trash(lambda: loop.remove_reader(left)))
    right.send(b"x")
    await asyncio.sleep(0.02)
    assert calls == ["first"]
    assert not loop.remove_reader(left)
    for _ in range(10):
        loop.add_writer(right, print, Trash(lambda: loop.remove_writer(right)))
        loop.add_writer(right, print, Trash(lambda: loop.add_writer(right, print)))
    loop.remove_writer(right)
    loop.remove_writer(right)
    left.close()
    right.close()


def test_a_number_that_closes_the_loop(loop_factory: Any) -> None:
    for call in ("call_later", "call_at"):
        loop = loop_factory()
        with pytest.raises(RuntimeError, match="closed"):
            getattr(loop, call)(Number(loop.close), print)
        assert loop.stats()["timers_count"] == 0


def test_a_loop_that_is_stepped_cannot_be_closed_within(loop: Any) -> None:
    seen: list[str] = []

    def close() -> None:
        for name in ("close", "_close_native"):
            try:
                getattr(loop, name)()
            except RuntimeError as error:
                seen.append(str(error))

    loop.call_soon(close)
    loop.call_soon(seen.append, "after")
    loop._run_once()
    assert seen == ["Cannot close a running event loop"] * 2 + ["after"]


@pytest.mark.parametrize("where", ["socket", "handle", "timer"])
def test_a_loop_is_used_by_what_ends_with_it(loop_factory: Any, where: str) -> None:
    loop = loop_factory()
    acted = 0

    def act() -> None:
        nonlocal acted
        acted += 1
        loop.close()
        loop._close_native()
        with contextlib.suppress(RuntimeError):
            loop.call_soon(print)
        with contextlib.suppress(RuntimeError):
            loop.sock_recv(spare, 10).send(None)
        repr(loop), loop.stats(), loop._ready, loop._scheduled

    class Socket(socket.socket):
        def close(self) -> None:
            act()
            super().close()

    left, spare = unix_pair()
    if where == "socket":
        mine = Socket(fileno=left.detach())
        made = loop.create_connection(asyncio.Protocol, sock=mine)
        transport, _ = loop.run_until_complete(made)
        del transport, made
    elif where == "handle":
        loop.call_soon(print, Trash(act))
    else:
        loop.call_later(100, print, Trash(act))
    loop.close()
    left.close()
    spare.close()
    if where == "socket":
        del mine
        gc.collect()
    assert acted


def test_handles_whose_parts_act(loop: Any) -> None:
    """repr, comparison and the end of a handle run code that cancels it."""

    class Callback:
        def __call__(self) -> None:
            pass

        def __repr__(self) -> str:
            timer.cancel()
            soon.cancel()
            return "x"

        __str__ = __repr__

        def __eq__(self, other: object) -> bool:
            timer.cancel()
            return True

        __hash__ = None  # type: ignore[assignment]

    for _ in range(10):
        callback = Callback()
        timer = loop.call_later(1, callback)
        soon = loop.call_soon(callback)
        repr(soon), repr(timer), timer == loop.call_at(timer.when(), callback)
        ending = loop.call_later(1, print, Trash(lambda: ending.cancel()))
        ending.cancel()
        again = loop.call_later(0, print, Trash(lambda: loop.call_soon(print)))
        again.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    for handle in loop._scheduled:
        handle.cancel()


# ---- the scheduler ----------------------------------------------------------------------------


def test_variables_that_post_when_they_go() -> None:
    """The context that posts share is exchanged; the old one's values post, into the new one."""
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")
    ran = 0

    def count() -> None:
        nonlocal ran
        ran += 1

    scheduler: Any = DeterministicScheduler(workers=2)
    with scheduler:

        def act() -> None:
            scheduler.post(count)
            scheduler.spawn(count)

        for _ in range(200):
            variable.set(Trash(act))
            scheduler.post(count)
            scheduler.spawn(count)
            scheduler.run_until_idle()
            variable.set(None)
        scheduler.post(count)
        scheduler.run_until_idle()
    assert ran >= 200 * 2


def test_the_end_of_a_task_is_told_to_all() -> None:
    class Silent(Exception):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    told: list[Any] = []

    def fail() -> list[int]:
        raise Silent

    def bad(_task: Any) -> None:
        raise Silent

    scheduler: Any = DeterministicScheduler(workers=1)
    with scheduler:
        scheduler.exception_handler = told.append
        for target in (fail, lambda: [1]):
            task = scheduler.spawn(target)
            heard: list[Any] = []
            task.add_done_callback(bad)
            task.add_done_callback(heard.append)
            scheduler.run_until_idle()
            assert heard == [task]
            assert task.done()
            assert repr(task)
            with contextlib.suppress(Silent):
                task.result()
        assert len(told) == 2


def test_an_exception_handler_that_exits() -> None:
    """It ends what turns the scheduler, and nothing is in an odd state afterwards."""

    def handler(_context: Any) -> None:
        raise KeyboardInterrupt

    def bad(_task: Any) -> None:
        raise ValueError

    scheduler = DeterministicScheduler(workers=1)
    scheduler.exception_handler = handler
    task = scheduler.spawn(lambda: [1])
    heard: list[Any] = []
    task.add_done_callback(bad)
    task.add_done_callback(heard.append)
    with pytest.raises(KeyboardInterrupt):
        scheduler.run_until_idle()
    assert heard == [task]
    assert task.result() == [1]
    assert current_task() is None
    scheduler.exception_handler = None
    scheduler.close()


def test_options_and_callbacks_that_act() -> None:
    done: list[Any] = []
    scheduler: Any = DeterministicScheduler(workers=2)
    with scheduler:

        def act() -> None:
            scheduler.spawn(done.append, 1).add_done_callback(done.append)
            if current_task() is not None:
                with pytest.raises(RuntimeError, match="within itself"):
                    scheduler.step()

        for _ in range(50):
            task = scheduler.spawn(done.append, Trash(act), priority=Number(act, 1))
            task.add_done_callback(lambda task: task.remove_done_callback(print))
            task.set_priority(2)
            task.cancel()
            scheduler.post(done.append, 1, priority=Number(act, 3))
        scheduler.run_until_idle()
    assert done


def test_a_scheduler_is_made_while_it_is_made() -> None:
    class Seed(int):
        def __and__(self, _other: int) -> int:
            scheduler.__init__(1)  # type: ignore[misc]
            return 5

    scheduler = netpoll.Scheduler.__new__(netpoll.Scheduler)
    with pytest.raises(RuntimeError):
        scheduler.__init__(1, seed=Seed(1))  # type: ignore[misc]
    assert scheduler.spawn(int).result(10) == 0
    scheduler.close()
