"""A view of the watched file descriptors, in the shape of the `selectors` module.

A netpoll loop has no selector. Code that looks into `loop._selector` (asyncio's own tests do, some
debuggers too) finds this instead: it answers questions and changes nothing.
"""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netpoll.loop import EventLoop

__all__ = ["SelectorView"]


class SelectorView:
    """Read-only, of one loop. Keys carry (reader handle, writer handle) as asyncio's do."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop

    def get_map(self) -> dict[int, selectors.SelectorKey]:
        """All watched descriptors by number."""
        numbers = self._loop._readers.keys() | self._loop._writers.keys()
        return {fd: self._key(fd, fd) for fd in sorted(numbers)}

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """The key of one descriptor; KeyError when it is not watched."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd not in self._loop._readers and fd not in self._loop._writers:
            raise KeyError(f"{fileobj!r} is not registered")
        return self._key(fileobj, fd)

    def _key(self, fileobj: Any, fd: int) -> selectors.SelectorKey:
        reader = self._loop._readers.get(fd)
        writer = self._loop._writers.get(fd)
        events = selectors.EVENT_READ * (reader is not None)
        events |= selectors.EVENT_WRITE * (writer is not None)
        handles = (reader and reader._handle, writer and writer._handle)
        return selectors.SelectorKey(fileobj, fd, events, handles)

    def close(self) -> None:
        """Nothing to close."""
