"""Types of loop/calls.pyx."""

from netpoll._core import Loop

def own_calls(event_loop: type[Loop]) -> None: ...
