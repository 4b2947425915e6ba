"""The counters of a loop."""

from typing import Any

from netpoll._core import Loop

def read_counters(loop: Loop) -> dict[str, Any]: ...
