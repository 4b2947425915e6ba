"""When a run ends before its plan does: at Ctrl-C, or at its time limit."""

from __future__ import annotations

import signal
import socket
import time
from types import FrameType
from typing import Self

__all__ = ["INTERRUPTED", "Watch"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = "interrupted"


class Watch:
    """Entered for the length of a run; is asked before each step.

    The first SIGINT or SIGTERM raises nothing: it is remembered, and makes `fd` readable, which
    stops the load generator in the middle of a window. (An exception could strike between the end
    of a window and the keeping of its result, or in a server's start.) The second one raises
    KeyboardInterrupt. limit_s: seconds after the start by which every step has to be over; None:
    no limit. Main thread only.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self.interrupted = False
        self.fd = -1
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def why_stop(self, next_s: float) -> str | None:
        """Why a step of `next_s` seconds must not begin now; None when it may."""
        if self.interrupted:
            return INTERRUPTED
        if self.limit_s is not None and self.elapsed_s + next_s > self.limit_s:
            return f"the time limit of {self.limit_s:.0f} s"
        return None

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self.fd = self._reader.fileno()
        # The handlers come after the socket and go before it, so that none is without it.
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._previous = {signum: signal.signal(signum, self._on_signal) for signum in SIGNALS}
        self._start = time.monotonic()
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._previous_fd)
        self._reader.close()
        self._writer.close()
        self.fd = -1
