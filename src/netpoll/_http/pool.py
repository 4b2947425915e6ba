"""Threads for applications that block."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

__all__ = ["ThreadPool"]

IDLE_MAX_S = 10.0


class ThreadPool:
    """Runs functions in threads: more of them, up to a number, when all are busy; fewer when some
    have been idle for IDLE_MAX_S. The functions must not raise.

    The threads are daemons: one that an application blocks for ever does not hold the process.
    """

    def __init__(self, threads_max_count: int, name: str = "netpoll-wsgi") -> None:
        self.threads_max_count = threads_max_count
        self.name = name
        self.threads: set[threading.Thread] = set()
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        # Of what follows. A signal handler or a finaliser may stop the server within it.
        self._lock = threading.RLock()
        self._open_count = 0  # jobs that were submitted and have not ended
        self._is_closed = False

    def submit(self, job: Callable[[], object]) -> None:
        """RuntimeError: there is no thread, and the system has none."""
        with self._lock:
            count = len(self.threads)
            grows = self._open_count >= count and count < self.threads_max_count
            has_grown = grows and self._grow()
            self._open_count += 1
            self._jobs.put(job)
            if has_grown and self._is_closed:
                self._jobs.put(None)  # close() did not know of that thread

    def _grow(self) -> bool:
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self.threads:
                raise
            return False  # those that are there take it
        self.threads.add(thread)
        return True

    def close(self) -> None:
        """The threads end when what was submitted has ended. Does not wait for them."""
        with self._lock:
            self._is_closed = True
            for _ in self.threads:
                self._jobs.put(None)

    def join(self, until_s: float) -> bool:
        """Waits for the end of the threads, until time.monotonic() is until_s. False: some have
        not ended."""
        for thread in list(self.threads):
            thread.join(max(0.0, until_s - time.monotonic()))
        return not self.threads

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job()
            del job  # and with it the request
            with self._lock:
                self._open_count -= 1
        with self._lock:
            self.threads.discard(threading.current_thread())

    def _next(self) -> Callable[[], object] | None:
        """None: this thread is not needed any more."""
        while True:
            try:
                return self._jobs.get(timeout=IDLE_MAX_S)
            except Empty:
                with self._lock:
                    if self._jobs.empty():
                        self.threads.discard(threading.current_thread())
                        return None
