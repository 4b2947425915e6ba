"""The counters of a loop."""

from typing import Any

from netpoll.loop import EventLoop

def read_counters(loop: EventLoop) -> dict[str, Any]: ...
