"""Signals as bytes of a socket, so that they are waited for with everything else; the waiting."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
from collections.abc import Iterable, Sequence

__all__ = ["Signals", "readable"]

# poll(2) takes milliseconds as an int.
WAIT_MAX_S = 86400.0


class Signals:
    """Takes these signals from now until close(). Main thread only: elsewhere ValueError.

    A handler in Python that does the work would run anywhere in the program, within any lock.
    Whoever had signal.set_wakeup_fd() before hears of all signals as before, when they are taken.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._before: dict[int, object] = {}
        self._fd_before: int | None = None
        # The handlers come after the socket, and go before it: between the two steps a signal with
        # a handler and no socket would be lost.
        try:
            self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            for number in numbers:
                self._before[number] = signal.signal(number, _leave_it)
        except BaseException:  # not in the main thread; or KeyboardInterrupt, of the last moment
            self.close()
            raise

    def take(self) -> list[int]:
        """The numbers of those that came, and 0 for wake()."""
        try:
            numbers = self.reader.recv(256)
        except BlockingIOError:
            return []
        if self._fd_before not in (None, -1):
            with contextlib.suppress(OSError):  # its end has gone, or is full
                os.write(self._fd_before, numbers.replace(b"\0", b""))
        return list(numbers)

    def wait(self) -> list[int]:
        """take(), when something has come."""
        readable([self.reader])
        return self.take()

    def wake(self) -> None:
        """From any thread: whoever waits for a signal looks."""
        with contextlib.suppress(OSError):  # full, or closed: nobody has to be woken
            self._writer.send(b"\0")

    def fork(self, ignored: Iterable[int] = ()) -> int:
        """os.fork(). The child has closed these signals, and ignores some; none of its own is lost,
        or taken for the parent's, whose socket it had."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._before)
        try:
            pid = os.fork()
            if pid == 0:
                self.close()
                for number in ignored:
                    signal.signal(number, signal.SIG_IGN)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as signal.signal() gave it
        if self._fd_before is not None:
            signal.set_wakeup_fd(self._fd_before, warn_on_full_buffer=False)
        self.reader.close()
        self._writer.close()


def readable(waited: Sequence[socket.socket], timeout_s: float | None = None) -> set[socket.socket]:
    """Those that have something to read, or their end. timeout_s: at most so long; None: no limit.

    Not by select.select(), which knows no descriptor above 1023: programs start this one with
    as many as they have themselves.
    """
    by_number = {sock.fileno(): sock for sock in waited}
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    timeout_ms = None if timeout_s is None else math.ceil(1e3 * min(timeout_s, WAIT_MAX_S))
    return {by_number[number] for number, _ in poll.poll(timeout_ms)}


def _leave_it(signum: int, frame: object) -> None:
    """The number is in the socket."""
