"""The access log: a file, or what stands for one, that gets the lines of all workers."""

from __future__ import annotations

import io
import logging
import os
import threading
from typing import Protocol, TextIO

__all__ = ["FORMS", "AccessLog"]

# Of netpoll._native.http.access.AccessLines, which makes the lines.
FORMS = ("common", "combined", "json")

log = logging.getLogger("netpoll.http")


class Target(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class LogFile:
    """A file that only grows. What is written in one call stays together, whichever processes
    write to it as well."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._file = self._open()
        self._is_torn = False  # the last line is not whole

    def _open(self) -> io.FileIO:
        return io.FileIO(self._path, "a")

    def reopen(self) -> None:
        file = self._open()
        self._file.close()
        self._file = file
        self._is_torn = False

    def write(self, text: str) -> None:
        data = memoryview(text.encode())
        if self._is_torn:
            data = memoryview(b"\n" + bytes(data))
        while data:
            taken_bytes = self._file.write(data) or 0
            data = data[taken_bytes:]
            self._is_torn = bool(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        self._file.close()


class AccessLog:
    """Writes the lines of all workers' threads. Whatever goes wrong with it, requests are
    answered, and the logger hears of it once, and once more when it is over.

    where: a path, or a text file.
    """

    def __init__(self, where: str | os.PathLike[str] | TextIO) -> None:
        self._where = where
        self._target: Target | None = None
        self._lock = threading.Lock()
        self._lost_count = 0

    def open(self) -> None:
        """Raises OSError when the file cannot be opened."""
        where = self._where
        self._target = LogFile(os.fspath(where)) if isinstance(where, str | os.PathLike) else where

    def reopen(self) -> None:
        """The file with this name, if it was moved away. OSError: the old one stays."""
        with self._lock:
            if isinstance(self._target, LogFile):
                self._target.reopen()

    def close(self) -> None:
        with self._lock:
            if isinstance(self._target, LogFile):
                self._target.close()
            self._target = None

    def write(self, lines: bytes) -> None:
        with self._lock:
            if self._target is None:
                return
            try:
                self._target.write(lines.decode())
                self._target.flush()
            except Exception as exc:
                if not self._lost_count:
                    log.error("the access log cannot be written: %s", exc)
                self._lost_count += lines.count(b"\n")
                return
        if self._lost_count:
            log.error("the access log is written again; %d requests are lost", self._lost_count)
            self._lost_count = 0
