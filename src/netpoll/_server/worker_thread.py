"""A worker of a server that has a thread of its own: it makes its loop, serves, and closes it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from netpoll._native.server import ends
from netpoll._native.server.worker import Worker
from netpoll.loop import EventLoop

GRACE_DEFAULT_S = 5.0
START_TIMEOUT_S = 30.0
START_LOOK_S = 0.05
# Beyond the grace: what handlers and tasks have to end when they are cancelled, and what a thread
# has that a handler blocks, before it is left behind.
ABORT_TIMEOUT_S = 1.0
THREAD_TIMEOUT_S = 3.0


class StartGivenUpError(RuntimeError):
    """The server was told to stop before it has started."""


class Owner(Protocol):
    """What a thread asks of its server."""

    _pid: int
    _is_given_up: Callable[[], bool]
    _hurry_s: float
    _program_end_s: float

    def _new_loop(self) -> EventLoop: ...
    def _new_worker(self, loop: EventLoop) -> Worker: ...
    def _thread_begins(self, loop: EventLoop) -> None: ...
    def _thread_ends(self, loop: EventLoop) -> None: ...
    def _thread_failed(self, thread: WorkerThread) -> None: ...
    def _stop_threads(self, grace_s: float) -> bool: ...


class WorkerThread:
    """A worker with a thread and a loop of its own."""

    def __init__(self, server: Owner, name: str) -> None:
        self.server = server
        self.ready = threading.Event()
        self.error: BaseException | None = None  # why it ended, when nobody asked for it
        self.is_asked = False
        self.begins = False  # what the program does before it serves goes on
        self.ends_by_s = -math.inf  # until then the program may take what it does at its end
        self.is_over = False  # nothing runs in its loop any more
        self.loop: EventLoop | None = None
        self.worker: Worker | None = None
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Returns when it serves. What the program does before may take any time, and ends when
        the server is given up: StartGivenUpError."""
        self.thread.start()
        until_s = time.monotonic() + START_TIMEOUT_S
        while not self.ready.wait(START_LOOK_S):
            if self.server._is_given_up():
                self.give_up()
                raise StartGivenUpError(f"{self.thread.name} was stopped while it started")
            if self.begins:
                until_s = time.monotonic() + START_TIMEOUT_S
            elif time.monotonic() > until_s:
                raise TimeoutError(f"{self.thread.name} did not start within {START_TIMEOUT_S} s")
        if self.error is not None:
            self.thread.join()
            raise self.error

    def give_up(self) -> None:
        """Cancels what runs in its loop, and waits for its end. A thread that the program blocks is
        left behind."""
        loop = self.loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed already
                loop.call_soon_threadsafe(cancel_all, loop)
        self.thread.join(THREAD_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self.loop = self.server._new_loop()
            self.begins = True
            self.server._thread_begins(self.loop)
            self.begins = False
            self.worker = self.server._new_worker(self.loop)
            self.loop.call_soon(self.worker._start)
            self.loop.call_soon(self.ready.set)
            self.loop.run_forever()
            if not self.is_asked:
                raise RuntimeError("a handler has stopped its worker's loop: close the server")
        except BaseException as exc:
            self.error = exc
        if self.loop is not None and os.getpid() != self.server._pid:
            return  # a child that was forked in a handler: nothing of this is its own
        failed = self.error is not None and self.ready.is_set()
        if failed:
            self.server._thread_failed(self)
        self._close()
        self.ready.set()
        if failed:
            self.server._stop_threads(GRACE_DEFAULT_S)

    def _close(self) -> None:
        """Ends what is left in this thread; whatever fails, the rest is done."""
        loop, worker = self.loop, self.worker
        steps: list[Callable[[], Any]] = []
        if loop is not None and worker is not None:
            steps += [worker._abort_all, partial(self._end_program, loop)]
            steps.append(partial(cancel_tasks, loop))
            steps.append(lambda: loop.run_until_complete(loop.shutdown_asyncgens()))
            steps += [partial(ends.end_connections, worker), worker._end]
        elif loop is not None:
            steps.append(partial(cancel_tasks, loop))
        if loop is not None:
            steps.append(loop.close)
        if worker is not None:
            steps.append(partial(ends.close_rest, worker))
        take_each(loop, steps)
        self.is_over = True

    def _end_program(self, loop: EventLoop) -> None:
        self.ends_by_s = time.monotonic() + self.server._program_end_s
        try:
            self.server._thread_ends(loop)
        finally:
            self.ends_by_s = -math.inf

    def call(self, function: Callable[..., Any], *args: Any, until_s: float = math.inf) -> Any:
        """Runs function(*args) in the worker's thread; returns what it returns. None when that
        thread has ended, or has not come to it by until_s (time.monotonic())."""
        assert self.loop is not None
        done = threading.Event()
        result: list[Any] = []

        def run() -> None:
            try:
                result.append(function(*args))
            except BaseException as exc:
                result.extend((None, exc))
            done.set()

        try:
            self.loop.call_soon_threadsafe(run)
        except RuntimeError:
            return None  # it is closed
        while not done.wait(0.02):
            if self.is_over or time.monotonic() > until_s:
                return None
        if len(result) > 1:
            raise result[1]
        return result[0]

    def stop(self, until_s: float = math.inf) -> bool:
        """Asks the thread to end, and waits for it. False: a handler blocks it. What the program
        does at its end has its own time, unless the server is in a hurry."""
        self.is_asked = True
        if self.thread is threading.current_thread():
            return True
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # closed already
                self.loop.call_soon_threadsafe(self.loop.stop)
        while self.thread.is_alive() and time.monotonic() < min(
            max(until_s, self.ends_by_s), self.server._hurry_s
        ):
            if self.is_over and self.error is not None:
                return True  # it waits for its turn to stop the server
            self.thread.join(0.02)
        return not self.thread.is_alive()


def cancel_all(loop: EventLoop) -> set[asyncio.Task[Any]]:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    return tasks


def cancel_tasks(loop: EventLoop) -> None:
    """What handlers have started ends with the loop, as with asyncio.run()."""
    tasks = cancel_all(loop)
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=ABORT_TIMEOUT_S))


def take_each(loop: EventLoop | None, steps: Iterable[Callable[[], Any]]) -> None:
    """Takes every step, also when one of them raises: the loop's exception handler hears of it."""
    for step in steps:
        try:
            step()
        except BaseException as exc:
            tell(loop, "an end was not an orderly one", exc)


def tell(loop: EventLoop | None, message: str, exc: BaseException | None) -> None:
    if loop is not None:
        with contextlib.suppress(Exception):
            loop.call_exception_handler({"message": f"netpoll.Server: {message}", "exception": exc})
