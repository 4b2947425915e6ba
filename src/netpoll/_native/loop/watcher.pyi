"""Types of loop/watcher.pyx: methods that netpoll.EventLoop has for add_reader and add_writer."""

import asyncio
from collections.abc import Callable
from typing import Any

from netpoll._core import Loop

def add_watcher(
    self: Loop,
    fd: int,
    writer: bool,
    callback: Callable[..., object],
    args: tuple[Any, ...] | None,
    aside: bool = False,
) -> asyncio.Handle: ...
def remove_watcher(self: Loop, fd: int, writer: bool) -> bool: ...
