"""Threads for applications that block."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from netpoll._native.http.crew import Crew, Seat

__all__ = ["ThreadPool"]

IDLE_MAX_S = 10.0


class ThreadPool:
    """Runs functions in threads: more of them, up to a number, when all are busy; fewer when some
    have been idle for IDLE_MAX_S. The functions must not raise.

    The threads are daemons: one that an application blocks for ever does not hold the process.
    """

    def __init__(self, threads_max_count: int, name: str = "netpoll-wsgi") -> None:
        self.name = name
        self.threads: set[threading.Thread] = set()
        self.crew = Crew(threads_max_count, IDLE_MAX_S, self._make_thread)

    def submit(self, job: Callable[[], object]) -> None:
        """RuntimeError: there is no thread, and the system has none."""
        self.crew.submit(job)

    def close(self) -> None:
        """The threads end when what was submitted has ended. Does not wait for them."""
        self.crew.close()

    def join(self, until_s: float) -> bool:
        """Waits for the end of the threads, until time.monotonic() is until_s. False: some have
        not ended."""
        for thread in list(self.threads):
            if thread.is_alive():  # else it has ended, or is just being made
                thread.join(max(0.0, until_s - time.monotonic()))
        return not any(thread.is_alive() for thread in list(self.threads))

    # A signal handler, or a finaliser, may stop the server in the middle of these two.

    def _make_thread(self, seat: Seat) -> None:
        thread = threading.Thread(target=self._run, args=(seat,), name=self.name, daemon=True)
        self.threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self.threads.discard(thread)
            raise

    def _run(self, seat: Seat) -> None:
        self.threads.add(threading.current_thread())
        try:
            self.crew.serve(seat)
        finally:
            self.threads.discard(threading.current_thread())
