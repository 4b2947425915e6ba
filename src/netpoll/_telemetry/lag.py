"""How late a loop is: a timer of the loop's own that looks at the clock.

It ticks only while somebody asks. A loop that is held shows it at once: the tick that is due does
not come, and whoever reads sees since when.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref

__all__ = ["Lag", "lag_of"]

TICK_S = 0.1
# The ticks end when nobody has asked for so long: scrapes come every minute at least.
PATIENCE_S = 150.0

_lags: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Lag] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def lag_of(loop: asyncio.AbstractEventLoop) -> Lag:
    with _lock:
        lag = _lags.get(loop)
        if lag is None:
            lag = _lags[loop] = Lag(loop)
        return lag


class Lag:
    """Of one loop. `late_s` is the time by which all ticks were late, together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # it is the key that this is found by
        self._last_s = 0.0
        self._due_s = 0.0  # of the next tick, in time.monotonic(); 0: none
        self._asked_s = 0.0
        self.late_s = 0.0

    def read(self) -> tuple[float, float]:
        """How late the last tick was, or the one that is due is already, and `late_s` with it. From
        any thread."""
        now_s = self._asked_s = time.monotonic()
        loop = self._loop()
        if loop is None or loop.is_closed() or not loop.is_running():
            return self._last_s, self.late_s
        if not self._due_s:
            self._begin(loop, now_s)
            return self._last_s, self.late_s
        overdue_s = max(0.0, now_s - self._due_s)
        return max(self._last_s, overdue_s), self.late_s + overdue_s

    def _begin(self, loop: asyncio.AbstractEventLoop, now_s: float) -> None:
        self._due_s = now_s
        try:
            loop.call_soon_threadsafe(self._tick)
        except RuntimeError:  # it was closed meanwhile
            self._due_s = 0.0

    def _tick(self) -> None:
        loop, now_s = self._loop(), time.monotonic()
        self._last_s = max(0.0, now_s - self._due_s)
        self.late_s += self._last_s
        if loop is None or now_s - self._asked_s > PATIENCE_S:
            self._due_s = self._last_s = 0.0
            return
        self._due_s = now_s + TICK_S
        loop.call_later(TICK_S, self._tick)
