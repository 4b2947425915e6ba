"""File descriptors as the `selectors` module sees them, and a view of those that a loop watches.

A netpoll loop has no selector. Code that looks into `loop._selector` (asyncio's own tests do, some
debuggers too) finds a SelectorView instead: it answers questions and changes nothing.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from netpoll._aio.host import Host

__all__ = ["FD_MAX", "SelectorView", "check_pollable", "file_number"]

FD_MAX = (1 << 31) - 1  # the kernel's type is int


def file_number(fd: Any) -> int:
    """The number of a file descriptor or of an object that has one, negative when it is closed.

    ValueError for anything else, as `selectors` has it.
    """
    if isinstance(fd, int):
        return fd
    try:
        return int(fd.fileno())
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"Invalid file object: {fd!r}") from None


def check_pollable(fd: int) -> None:
    """Raises what epoll_ctl(2) would: PermissionError for a file that is always ready.

    io_uring polls anything, and a watched /dev/null would then keep its loop busy for ever. What
    can be polled is the driver's or the file system's affair (/proc/mounts can), so epoll is asked.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
        return
    try:
        asked = select.epoll()
    except (AttributeError, OSError):  # taken away by gevent; no descriptor left: most files' rule
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from None
        return
    with asked:
        asked.register(fd, select.EPOLLIN)


class SelectorView:
    """Read-only, of one loop. Keys carry (reader handle, writer handle) as asyncio's do."""

    def __init__(self, loop: Host) -> None:
        self._loop = loop

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """All watched descriptors; by number, or by the object that was given."""
        return WatchedMap(self._loop)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """The key of one descriptor; KeyError when not watched, ValueError when none."""
        return self.get_map()[fileobj]

    def select(self, timeout: float | None = None) -> list[Any]:
        """Refused: only a turn that was patched over netpoll's own calls it."""
        raise RuntimeError(
            "a netpoll event loop has no selector to wait with; what replaces its _run_once() "
            "has to call the original"
        )

    def close(self) -> None:
        """Nothing to close."""


class WatchedMap(Mapping[Any, selectors.SelectorKey]):
    """What `selectors` calls the mapping of file objects to keys."""

    def __init__(self, loop: Host) -> None:
        self._loop = loop

    def _numbers(self) -> list[int]:
        return sorted(self._loop._readers.keys() | self._loop._writers.keys())

    def __len__(self) -> int:
        return len(self._numbers())

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers())

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        loop = self._loop
        fd = loop._watched_number(fileobj)
        reader = loop._readers.get(fd)
        writer = loop._writers.get(fd)
        if reader is None and writer is None:
            raise KeyError(f"{fileobj!r} is not registered")
        events = selectors.EVENT_READ * (reader is not None)
        events |= selectors.EVENT_WRITE * (writer is not None)
        handles = (reader and reader._handle, writer and writer._handle)
        file = loop._reader_files.get(fd, loop._writer_files.get(fd, fd))
        return selectors.SelectorKey(file, fd, events, handles)
