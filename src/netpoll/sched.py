"""The scheduler: tasks over worker threads, by priority.

    import netpoll

    async def main():
        async with netpoll.TaskGroup() as group:
            for n in range(1000):
                group.spawn(handle, n)

    with netpoll.Scheduler() as scheduler:
        scheduler.run(main)

What runs per task is native (sched/run.pyx, csrc/sched/np_sched.c); here is what runs once per
scheduler, group or time-out. docs/scheduler.md explains the model, docs/gil.md what threads buy
where.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import itertools
import logging
import os
import sys
import threading
import time
import types
import warnings
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any

from netpoll._former import method_of
from netpoll._native.sched import (
    collect,  # noqa: F401 - tells the garbage collector of what schedulers refer to
    post,  # noqa: F401 - adds post and spawn to SchedulerCore
)
from netpoll._native.sched.alarm import Alarm, Sleep
from netpoll._native.sched.run import SchedulerCore, work
from netpoll._native.sched.task import Join, Task, current_scheduler, current_task
from netpoll._native.sched.worker_loop import RingLoop
from netpoll._telemetry.shown import show
from netpoll.config import LoopConfig
from netpoll.loop import EventLoop
from netpoll.stats import SchedulerStats

__all__ = [
    "Priority",
    "Scheduler",
    "Task",
    "TaskGroup",
    "Timeout",
    "current_scheduler",
    "current_task",
    "sleep",
    "timeout",
    "wait_percentile_ns",
    "yield_now",
]

logger = logging.getLogger("netpoll.sched")

_numbers = itertools.count()
_running: weakref.WeakSet[Scheduler] = weakref.WeakSet()


class Priority(enum.IntEnum):
    """The lane of a task. Higher ones (smaller numbers) first; every lane progresses."""

    CONTROL = 0
    """Heartbeats, flow control: short, rare, and never late."""
    HIGH = 1
    NORMAL = 2
    LOW = 3


def _has_gil() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _usable_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0)) or 1
    except (OSError, OverflowError):  # refused by a sandbox; Overflow: it said EINVAL
        return os.cpu_count() or 1


def _new_seed() -> int:
    try:
        return int.from_bytes(os.urandom(8), "little")
    except OSError:  # refused by a sandbox; it needs to differ, not to be a secret
        return time.time_ns() ^ os.getpid() << 32


class _WorkerLoop(RingLoop, EventLoop):
    """The event loop that a worker sleeps in."""


def _cancel_tasks(loop: EventLoop) -> None:
    """As asyncio.run at its end: what is left is cancelled. In the loop's thread."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


class Scheduler(SchedulerCore):
    """Runs tasks on `workers` threads (default: one per CPU that this process may use).

    spawn(target, *args, priority=Priority.NORMAL, affinity=None, name=None) -> Task
        runs a function, a coroutine function or a coroutine; the Task has its result.
    post(fn, *args, priority=Priority.NORMAL) -> None
        runs a function and forgets it: a fraction of the cost.

    Both work from any thread. seed fixes which worker an idle one steals from first; with None it
    differs from run to run. name is the prefix of the threads' names.

    Ended by close() or the `with` statement; else, as concurrent.futures does it, at the
    interpreter's exit, which waits for what is queued. One that nothing refers to any more warns
    (ResourceWarning) and ends when its workers have nothing to run: what still waits in it is
    closed. Its tasks refer to it, and so does what runs in it.

    Raises ValueError for a number of workers that cannot be, RuntimeError when used in a forked
    child.
    """

    def __init__(
        self, workers: int | None = None, *, seed: int | None = None, name: str | None = None
    ) -> None:
        self.name = f"netpoll-{next(_numbers)}" if name is None else name
        self.workers = _usable_cpus() if workers is None else workers
        self.seed = _new_seed() if seed is None else seed
        self._handler: Callable[[dict[str, Any]], object] | None = None
        self._threads: list[threading.Thread] = []
        self._loops: list[_WorkerLoop | None] = [None] * max(self.workers, 0)
        self._loops_lock = threading.Lock()
        self._pid = os.getpid()
        self._start()

    # Slots of a worker's queue per lane, a power of two; 0 is the default. Tests make them few.
    _deque_slots = 0

    def _start(self) -> None:
        self._open(self.workers, self._deque_slots, self.seed, False, _has_gil())
        for index in range(self.workers):
            thread = threading.Thread(
                target=work, args=([self], index), name=f"{self.name}-{index}"
            )
            try:
                thread.start()
            except BaseException:  # the system has no more: those that run would run for ever
                self.close()
                raise
            self._threads.append(thread)
        _running.add(self)
        show(self)

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _tb: object
    ) -> None:
        """Waits for what is queued; after an exception, cancels it."""
        self.close(cancel=error is not None)

    def __del__(self) -> None:
        """Dropped without close(), and nothing runs: the workers end."""
        waiting = self._abandon()
        if waiting is not None:
            message = f"unclosed scheduler {self!r}; tasks that waited in it: {waiting}"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)

    def __repr__(self) -> str:
        return f"<netpoll.Scheduler {self.name} workers={self.workers}>"

    # -- running --------------------------------------------------------------------------------

    def run(self, main: Callable[..., Any] | Coroutine[Any, Any, Any], *args: Any) -> Any:
        """Runs main(*args), or the coroutine `main`, and returns its result.

        Blocks the calling thread, which is none of the scheduler's own. Ctrl-C cancels it.
        """
        task = self.spawn(main, *args, name="main")
        try:
            return task.result()
        except KeyboardInterrupt:
            if not task.done():
                task.cancel()
                concurrent.futures.wait([_future_of(task)])
            raise

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            return method_of(self, name, {"shutdown": "close"})

    def close(self, wait: bool = True, *, cancel: bool = False) -> None:
        """Ends the scheduler: no new work from outside, and the workers end when all is done.

        wait: return when they have ended. cancel: what has not begun never will (tasks are
        cancelled, posts are dropped), and tasks that wait get CancelledError. May be called again.
        In a forked child it does nothing: the scheduler is the parent's.
        """
        if self._pid != os.getpid():
            return  # a forked child: the workers, and what is queued, are the parent's
        self._stop(cancel)
        if wait:
            if threading.current_thread() in self._threads:
                raise RuntimeError("a worker cannot wait for its own end: close(wait=False)")
            for thread in self._threads:
                thread.join()
        _running.discard(self)

    def as_executor(self, priority: Priority = Priority.NORMAL) -> concurrent.futures.Executor:
        """The scheduler as an Executor: for loop.run_in_executor and code that expects one.

        Shutting the executor down waits for what went through it; the scheduler goes on. Futures
        whose calls the scheduler's own close(cancel=True) drops are cancelled.
        """
        return _Executor(self, priority)

    # -- rings ----------------------------------------------------------------------------------

    def loop(
        self, worker: int = 0, *, backend: str = "auto", config: LoopConfig | None = None
    ) -> EventLoop:
        """The event loop of a worker, made when it is first asked for. From any thread.

        From then on the worker sleeps in the loop's ring instead of on a futex. The loop is a
        complete one, for connections, servers and asyncio's tasks, by call_soon_threadsafe and
        asyncio.run_coroutine_threadsafe; and tasks with affinity to the worker may await what
        belongs to it. close() ends it, when all tasks of the scheduler are done, as asyncio.run
        does: what is left in it is cancelled. backend, config: as those of EventLoop.
        """
        with self._loops_lock:
            loop = self._loops[worker]
            if loop is None:
                loop = _WorkerLoop(backend, config)
                try:
                    self.spawn(self._board, worker, priority=Priority.CONTROL, affinity=worker)
                except BaseException:
                    loop.close()
                    raise
                self._loops[worker] = loop
        return loop

    def _has_unused_loop(self, index: int) -> bool:
        """Whether close() was faster than the worker on its way into its loop."""
        with self._loops_lock:
            loop = self._loops[index]
        return loop is not None and not loop.is_closed()

    def _live_in_loop(self, index: int) -> None:
        """The worker's life in its loop, until the scheduler is over. In its thread."""
        with self._loops_lock:  # it is being made: the worker may be faster
            loop = self._loops[index]
        assert loop is not None
        loop._ride(self, index)
        try:
            while not loop._is_over:  # somebody may have stopped it
                self._run_loop(loop.run_forever)
            loop._end()
            self._end_loop(loop)
        finally:
            loop._alight()
            loop.close()

    def _end_loop(self, loop: EventLoop) -> None:
        """Every step, whatever became of the one before: a task may end with SystemExit."""
        left = len(asyncio.all_tasks(loop))
        self._run_loop(_cancel_tasks, loop)
        while 0 < len(asyncio.all_tasks(loop)) < left:  # interrupted: the others go on
            left = len(asyncio.all_tasks(loop))
            self._run_loop(_cancel_tasks, loop)
        for shut_down in (loop.shutdown_asyncgens, loop.shutdown_default_executor):
            self._run_loop(lambda step=shut_down: loop.run_until_complete(step()))

    def _run_loop(self, run: Callable[..., object], *args: object) -> None:
        try:
            run(*args)
        except BaseException as error:
            message = f"the loop of a worker of {self!r} was interrupted"
            self._report({"message": message, "exception": error})

    # -- looking at it --------------------------------------------------------------------------

    @property
    def exception_handler(self) -> Callable[[dict[str, Any]], object] | None:
        """Called with a dict (message, exception, and task or callback) for what nobody else can
        be told: a post that failed, an exception that was never retrieved. None: it is logged.
        """
        return self._handler

    @exception_handler.setter
    def exception_handler(self, handler: Callable[[dict[str, Any]], object] | None) -> None:
        self._handler = handler

    def _report(self, context: dict[str, Any]) -> None:
        try:
            if self._handler is not None:
                self._handler(context)
                return
        except Exception:
            logger.exception("the exception handler of %r failed", self)
        lines = [context["message"]]
        lines += [f"{key}: {context[key]!r}" for key in ("task", "callback") if key in context]
        logger.error("\n".join(lines), exc_info=context["exception"])

    def stats(self) -> SchedulerStats:
        """Counters, as a dict; from any thread, also after close()."""
        workers, queued = self._counters()
        return {
            "name": self.name,
            "workers": workers,
            "queued": queued,
            "tasks_live": self._live_count(),
            "records_live": self._record_count(),
        }


def wait_percentile_ns(histogram: Sequence[int], percent: float) -> int:
    """The upper end of the bucket that a percentile falls into, ns; 0 for an empty histogram.

    histogram: of one lane, `stats()["workers"][i]["wait_ns"]`, or a sum of several.
    """
    rank = sum(histogram) * percent / 100
    seen = 0
    for bucket, count in enumerate(histogram):
        seen += count
        if count and seen >= rank:
            return 1 << bucket
    return 0


def _at_exit() -> None:
    with contextlib.ExitStack() as steps:  # all of them, whatever becomes of one
        for scheduler in list(_running):
            steps.callback(scheduler.close)


# As concurrent.futures: before the interpreter joins its threads, or these would never end.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # undocumented


def _forget_after_fork() -> None:
    _running.clear()  # their threads are the parent's


os.register_at_fork(after_in_child=_forget_after_fork)


# ---- inside a task ---------------------------------------------------------------------------


def _task_here() -> Task:
    task = current_task()
    if task is None:
        raise RuntimeError("this works only in a task of a Scheduler")
    return task


@types.coroutine
def yield_now() -> Generator[None, None, None]:
    """Lets every other task of the lane run first: `await yield_now()`."""
    yield


async def sleep(delay_s: float, result: Any = None) -> Any:
    """Waits `delay_s` seconds, then returns `result`. Negative or 0: yield_now()."""
    if delay_s <= 0:
        await yield_now()
    else:
        await Sleep(delay_s)
    return result


class Timeout:
    """What timeout() returns; `expired` says whether the time was up."""

    def __init__(self, delay_s: float | None) -> None:
        self.delay_s = delay_s
        self.expired = False
        self._alarm: Alarm | None = None
        self._lock = threading.Lock()
        self._is_over = False

    async def __aenter__(self) -> Timeout:
        if self._alarm is not None or self._is_over:
            raise RuntimeError("a timeout() can be entered once")
        self._task = _task_here()
        self._cancelling = self._task.cancelling()
        if self.delay_s is not None:
            self._alarm = Alarm(self._task.scheduler, self.delay_s, self._expire)
        return self

    def _expire(self) -> None:
        with self._lock:  # it may be another worker that the alarm went off in
            if not self._is_over:
                self.expired = True
                self._task.cancel()

    async def __aexit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _tb: object
    ) -> None:
        with self._lock:
            self._is_over = True
        if self._alarm is not None:
            self._alarm.cancel()
        # Cancelled from elsewhere, too: then that is what counts.
        if (
            self.expired
            and self._task.uncancel() <= self._cancelling
            and isinstance(error, CancelledError)
        ):
            raise TimeoutError(f"not done within {self.delay_s} s") from error


def timeout(delay_s: float | None) -> Timeout:
    """`async with timeout(1.5):` cancels the block after 1.5 seconds, which raises TimeoutError.

    None: never.
    """
    return Timeout(delay_s)


class TaskGroup:
    """Structured tasks: nothing that the group spawned outlives its block.

        async with netpoll.TaskGroup() as group:
            first = group.spawn(fetch, "a")
            group.spawn(fetch, "b")
        use(first.result())

    When a task fails, the others and the block are cancelled; the failures come out of the block
    as an ExceptionGroup, as those of asyncio.TaskGroup do, the first SystemExit or
    KeyboardInterrupt as it is. Tasks of the group may spawn into it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # tasks end in any worker
        # Not a set, whose order is that of addresses: with one seed, a DeterministicScheduler does
        # one thing.
        self._tasks: dict[Task, None] = {}
        self._errors: list[BaseException] = []
        self._exit: BaseException | None = None  # which asks for the program's end
        self._parent: Task | None = None
        self._has_cancelled_parent = False
        self._is_aborting = False
        self._state = "new"

    async def __aenter__(self) -> TaskGroup:
        if self._state != "new":
            raise RuntimeError("a TaskGroup can be entered once")
        self._parent = _task_here()
        self._state = "open"
        return self

    def spawn(self, target: Any, *args: Any, **options: Any) -> Task:
        """Scheduler.spawn on the scheduler of the block. Raises RuntimeError when it is over."""
        if self._parent is None or self._state == "over" or self._is_aborting:
            if isinstance(target, Coroutine):
                target.close()
            raise RuntimeError("this TaskGroup is not open, or is shutting down")
        task: Task = self._parent.scheduler.spawn(target, *args, **options)
        with self._lock:
            self._tasks[task] = None
            is_late = self._is_aborting  # by now: another worker's task has failed
        task.add_done_callback(self._on_done)
        if is_late:
            task.cancel()
        return task

    def _on_done(self, task: Task) -> None:
        error = None if task.cancelled() else task.exception()
        with self._lock:
            self._tasks.pop(task, None)
            if error is None:
                return
            self._errors.append(error)
            self._note_exit(error)
            if self._is_aborting:
                return
            self._is_aborting = True
            # In its block it has to hear of it; in __aexit__ it waits for us anyway.
            self._has_cancelled_parent = self._state == "open"
            others = list(self._tasks)
        for other in others:
            other.cancel()
        if self._has_cancelled_parent and self._parent is not None:
            self._parent.cancel()

    def _note_exit(self, error: BaseException | None) -> None:
        if self._exit is None and isinstance(error, (SystemExit, KeyboardInterrupt)):
            self._exit = error

    def _abort(self) -> None:
        with self._lock:
            self._is_aborting = True
            tasks = list(self._tasks)
        for task in tasks:
            task.cancel()

    async def _wait(self) -> CancelledError | None:
        """Until every task has ended. A cancellation from outside is kept for the end."""
        cancelled = None
        while True:
            with self._lock:
                if not self._tasks:
                    return cancelled
                # The newest: when it has ended, most of the others have, mostly.
                task, _ = self._tasks.popitem()
                self._tasks[task] = None
            try:
                await Join(task)
                # Its callback takes it out of the set, perhaps a moment later in its own thread.
                if task in self._tasks:
                    await yield_now()
            except CancelledError as error:
                if not self._take_own_cancel():
                    cancelled = error
                    self._abort()

    def _take_own_cancel(self) -> bool:
        """Whether the cancellation that just came is the one this group asked for."""
        if not self._has_cancelled_parent:
            return False
        self._has_cancelled_parent = False
        return self._task().uncancel() == 0

    def _task(self) -> Task:
        assert self._parent is not None
        return self._parent

    async def __aexit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _tb: object
    ) -> None:
        with self._lock:
            self._state = "closing"
            self._note_exit(error)
        cancelled: CancelledError | None = None
        if isinstance(error, CancelledError):
            if not self._take_own_cancel():
                cancelled = error
            error = None
        if error is not None or cancelled is not None:
            self._abort()
        cancelled = await self._wait() or cancelled
        if self._has_cancelled_parent:
            self._take_own_cancel()  # it came too late to be thrown
        self._state = "over"
        try:
            if self._exit is not None:
                raise self._exit
            if cancelled is not None and not self._errors:
                raise cancelled
            if error is not None:
                self._errors.append(error)
            if self._errors:
                raise BaseExceptionGroup("unhandled errors in a TaskGroup", self._errors) from None
        finally:
            del cancelled, error
            self._parent = self._exit = None
            self._errors = []


# ---- as an executor --------------------------------------------------------------------------


def _future_of(task: Task) -> concurrent.futures.Future[None]:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    task.add_done_callback(lambda _task: future.set_result(None))
    return future


class _Call:
    """A call on its way to a worker. Dropped on that way, by a close() that cancels, it cancels its
    future: who waits for that would wait for ever."""

    __slots__ = ("args", "fn", "future", "kwargs")

    def __init__(
        self,
        future: concurrent.futures.Future[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.future: concurrent.futures.Future[Any] | None = future
        self.fn, self.args, self.kwargs = fn, args, kwargs

    def __call__(self) -> None:
        future, self.future = self.future, None
        try:
            if future is None or not future.set_running_or_notify_cancel():
                return
            try:
                result = self.fn(*self.args, **self.kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
        finally:
            del future, self.fn, self.args, self.kwargs  # a traceback leads here

    def __del__(self) -> None:
        if self.future is not None and self.future.cancel():
            self.future.set_running_or_notify_cancel()  # who waits for several hears of it by this


class _Executor(concurrent.futures.Executor):
    def __init__(self, scheduler: Scheduler, priority: Priority) -> None:
        self._scheduler = scheduler
        self._priority = priority
        self._lock = threading.Lock()
        self._pending: dict[concurrent.futures.Future[Any], None] = {}  # the oldest first
        self._is_shut_down = False

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._pending[future] = None
        future.add_done_callback(self._forget)
        try:
            self._scheduler.post(_Call(future, fn, args, kwargs), priority=self._priority)
        except BaseException:
            self._forget(future)
            raise
        return future

    def _forget(self, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._pending.pop(future, None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._is_shut_down = True
            pending = list(self._pending)
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait:
            concurrent.futures.wait(pending)
