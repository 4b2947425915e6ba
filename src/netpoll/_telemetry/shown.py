"""The window of a process whose environment asks for one: NETPOLL_TOP=1."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netpoll._telemetry.sources import Source
    from netpoll._telemetry.window import Window

__all__ = ["VARIABLE", "close_window", "show"]

VARIABLE = "NETPOLL_TOP"
ON = {"1", "true", "yes", "on"}

log = logging.getLogger("netpoll.top")
_window: Window | None = None
_lock = threading.Lock()


def show(source: Source) -> None:
    """Called for each loop, server and scheduler as it begins: where NETPOLL_TOP is set, `netpoll
    top` shows it. A window that cannot be opened keeps no program from running."""
    global _window
    if os.environ.get(VARIABLE, "").lower() not in ON:
        return
    from netpoll._telemetry.window import Window  # costs nothing where nobody looks

    with _lock:
        if _window is None:
            try:
                _window = Window()
            except OSError as exc:
                log.warning("there is no socket for 'netpoll top': %s", exc)
                return
        _window.sources.add(source)


def close_window() -> None:
    """At the end of a process; of one that leaves by os._exit(), too."""
    global _window
    window, _window = _window, None
    if window is not None:
        window.close()


def _forget() -> None:
    """In a forked child: the parent's stays as it is."""
    global _lock
    _lock = threading.Lock()
    close_window()


atexit.register(close_window)
os.register_at_fork(after_in_child=_forget)
