"""Signals as bytes of a socket, so that they are waited for with everything else."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterable

__all__ = ["Signals"]


class Signals:
    """Takes these signals from now until close(). Main thread only.

    A handler in Python that does the work would run anywhere in the program, within any lock.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)
        self._before = {number: signal.signal(number, _leave_it) for number in numbers}
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def take(self) -> list[int]:
        """The numbers of those that came, and 0 for wake()."""
        try:
            return list(self.reader.recv(256))
        except BlockingIOError:
            return []

    def wake(self) -> None:
        """From any thread: whoever waits for a signal looks."""
        with contextlib.suppress(OSError):  # full, or closed: nobody has to be woken
            self._writer.send(b"\0")

    def close(self) -> None:
        signal.set_wakeup_fd(self._fd_before, warn_on_full_buffer=False)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.reader.close()
        self._writer.close()


def _leave_it(signum: int, frame: object) -> None:
    """The number is in the socket."""
