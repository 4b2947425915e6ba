"""Threads for applications that block."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

__all__ = ["ThreadPool"]

IDLE_MAX_S = 10.0

# Jobs that take as long as a change of threads are best left to one thread, which takes one after
# another: see ThreadPool. They are looked at this often while some wait,
LOOK_S = 0.001
# and are short if this many of them are taken in that time.
SHORT_COUNT = 10
# How long jobs count as long, at first, and at most: it doubles whenever they were long again.
LONG_S = 1.0
LONG_MAX_S = 64.0


class Clock(Protocol):
    """What of an event loop the pool uses."""

    def time(self) -> float: ...

    def call_later(
        self, delay: float, callback: Callable[..., object], /, *args: object
    ) -> object: ...


def _has_gil() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


class ThreadPool:
    """Runs functions in threads: more of them, up to a number, when all are busy; fewer when some
    have been idle for IDLE_MAX_S. The functions must not raise.

    A job wakes a thread, or makes one, unless jobs are short: then it is left to a thread that is
    awake, for two that want the GIL at the same time cost more than such jobs do. Whether they are
    short is looked at while some wait (LOOK_S), so one that blocks delays others by that much,
    once: from then on each job wakes a thread, for a while (LONG_S). Without a GIL each always
    does.

    The threads are daemons: one that an application blocks for ever does not hold the process.
    """

    def __init__(self, threads_max_count: int, name: str = "netpoll-wsgi") -> None:
        self.threads_max_count = threads_max_count
        self.name = name
        self.threads: set[threading.Thread] = set()
        # Of all that follows. A signal handler or a finaliser may stop the server meanwhile.
        self._lock = threading.RLock()
        self._jobs: deque[Callable[[], object]] = deque()
        self._parked: list[threading.Lock] = []  # a thread waits at each; the warmest comes last
        self._is_closed = False
        self._has_gil = _has_gil()
        self._is_looking = False
        self._looked_s = 0.0
        self._taken_count = 0  # since then
        self._long_until_s = 0.0
        self._long_s = LONG_S

    def submit(self, job: Callable[[], object], clock: Clock | None = None) -> None:
        """clock: the loop that runs in this thread; None: such jobs are never short. RuntimeError:
        there is no thread, and the system has none; the job does not run."""
        with self._lock:
            self._jobs.append(job)
            is_idle = len(self._parked) == len(self.threads)
            if clock is None or is_idle or not self._is_short(clock):
                self._wake(job)
                return
            if self._is_looking:
                return
            self._is_looking = True
            self._looked_s, self._taken_count = clock.time(), 0
        clock.call_later(LOOK_S, self._look, clock)

    def _is_short(self, clock: Clock) -> bool:
        return self._has_gil and not (self._long_until_s and clock.time() < self._long_until_s)

    def _look(self, clock: Clock) -> None:
        """Some jobs may be waiting for threads that do not come back."""
        with self._lock:
            now_s = clock.time()
            if not self._jobs:
                self._is_looking = False
                return
            if self._taken_count < SHORT_COUNT * (now_s - self._looked_s) / LOOK_S:
                self._is_looking = False
                if now_s > self._long_until_s + self._long_s:
                    self._long_s = LONG_S  # they were short for as long
                self._long_until_s = now_s + self._long_s
                self._long_s = min(2 * self._long_s, LONG_MAX_S)
                for job in list(self._jobs):
                    self._wake(job)
                return
            self._looked_s, self._taken_count = now_s, 0
        clock.call_later(LOOK_S, self._look, clock)

    def _wake(self, job: Callable[[], object]) -> None:
        """A thread for a job that has been put down; one that is there already has to do when the
        system has no more. RuntimeError: there is none at all."""
        try:
            parked = self._parked.pop()
        except IndexError:
            pass
        else:
            parked.release()
            return
        if len(self.threads) >= self.threads_max_count:
            return
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self.threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self.threads.discard(thread)
            if not self.threads:
                self._jobs.remove(job)
                raise

    def close(self) -> None:
        """The threads end when what was submitted has ended. Does not wait for them."""
        with self._lock:
            self._is_closed = True
            with contextlib.suppress(IndexError):
                while True:
                    self._parked.pop().release()

    def join(self, until_s: float) -> bool:
        """Waits for the end of the threads, until time.monotonic() is until_s. False: some have
        not ended."""
        for thread in list(self.threads):
            thread.join(max(0.0, until_s - time.monotonic()))
        return not self.threads

    def _run(self) -> None:
        own = threading.Lock()
        own.acquire()
        while (job := self._next(own)) is not None:
            job()
            del job  # and with it the request

    def _next(self, own: threading.Lock) -> Callable[[], object] | None:
        """None: this thread is not needed any more, and is out of `threads`."""
        while True:
            with self._lock:
                if self._jobs:
                    self._taken_count += 1
                    return self._jobs.popleft()
                if self._is_closed:
                    self.threads.discard(threading.current_thread())
                    return None
                self._parked.append(own)
            if own.acquire(timeout=IDLE_MAX_S):
                continue
            with self._lock:
                if own in self._parked:
                    self._parked.remove(own)
                    self.threads.discard(threading.current_thread())
                    return None
            own.acquire()  # somebody has woken it in the meantime
