"""Who holds the loop: a thread that looks at it from outside, and takes a stack while it is held.

A callback's own clock says only afterwards that it was slow. This thread looks several times within
the limit: at the loop's counter of turns, and, when that stands still, at what its thread does. A
loop that waits for the kernel is idle; any other has been held since the last look that was
different. The loop itself does nothing for it.
"""

from __future__ import annotations

import logging
import platform
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Protocol

__all__ = ["Watchdog"]

LOOKS = 4  # within the limit
LOOK_MIN_S = 0.001

# io_uring_enter and epoll_pwait2, which have one number everywhere, and the older calls.
EVERYWHERE = {"426", "441"}
WAITS = EVERYWHERE | {"x86_64": {"232", "281"}, "aarch64": {"22"}}.get(platform.machine(), set())

logger = logging.getLogger("asyncio")  # where asyncio says that a callback was slow


class Watched(Protocol):
    """A loop that counts its turns."""

    def stats(self) -> Mapping[str, object]: ...


class Watchdog:
    """Reports each time when a turn of the loop lasts longer than `limit_ms`, once, to the logger
    of asyncio.

    Made and stopped by the thread that runs the loop. has_frames: Python code is on the stack of
    that thread even when the loop waits, below the caller's frame.
    """

    def __init__(self, loop: Watched, limit_ms: float, has_frames: bool) -> None:
        self._loop = loop
        self._limit_s = limit_ms / 1e3
        self._base = None if has_frames else sys._getframe(1)
        self._ident = threading.get_ident()
        self._syscall = Path(f"/proc/self/task/{threading.get_native_id()}/syscall")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="netpoll-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread. May be called by a callback's exception, or in a forked child."""
        self._ended.set()
        self._thread.join()
        self._base = None  # a frame keeps alive what it knows

    def _watch(self) -> None:
        look_s = max(self._limit_s / LOOKS, LOOK_MIN_S)
        turns: object = None
        since_s, is_reported = 0.0, False
        while not self._ended.wait(look_s):
            now_s = time.monotonic()
            seen = self._loop.stats()["turns"]
            if seen != turns or self._is_idle():
                turns, since_s, is_reported = seen, now_s, False
            elif not is_reported and now_s - since_s >= self._limit_s:
                self._report(now_s - since_s)
                is_reported = True

    def _is_idle(self) -> bool:
        """Whether the thread waits in the kernel, for the loop and not for a callback."""
        frame = sys._current_frames().get(self._ident)
        if self._base is not None and frame is not self._base:
            return False
        try:
            return self._syscall.read_text().split(" ", 1)[0] in WAITS
        except OSError:  # not every container shows it
            return True

    def _report(self, held_s: float) -> None:
        stack = self._stack(sys._current_frames().get(self._ident))
        logger.warning("the event loop has been held for %.0f ms by\n%s", held_s * 1e3, stack)

    def _stack(self, frame: FrameType | None) -> str:
        """What runs above the loop, the innermost call last."""
        calls = []
        while frame is not None and frame is not self._base:
            calls.append((frame, frame.f_lineno))
            frame = frame.f_back
        if not calls:
            return "  no Python code: a call in C, or another thread that has the interpreter"
        return "".join(traceback.StackSummary.extract(reversed(calls)).format()).rstrip()
