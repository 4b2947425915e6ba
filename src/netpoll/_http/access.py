"""The access log: a line for each request, in a format that tools for logs read."""

from __future__ import annotations

import functools
import io
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol, TextIO

__all__ = ["FORMATS", "AccessLog", "Note"]

# What netpoll._native.http.access.AccessNotes notes:
# ((peer, nanosecond, first line, Referer, User-Agent), status, bytes, second, nanoseconds).
Note = tuple[tuple[str, int, bytes | None, bytes | None, bytes | None], int, int, int, int]

# The status of a request whose client was gone before there was an answer: nginx's number.
STATUS_GONE = 499

# What would end a field, or the line: as Apache writes it.
ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 256))}
ESCAPES |= {ord('"'): '\\"', ord("\\"): "\\\\"}

log = logging.getLogger("netpoll.http")


def quoted(text: bytes | None) -> str:
    return text.decode("latin-1").translate(ESCAPES) if text is not None else "-"


@functools.lru_cache(maxsize=4)
def date_of(second: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))


def common(note: Note) -> str:
    """The Common Log Format of NCSA and Apache."""
    (peer, _, line, _, _), status, size_bytes, second, _ = note
    status = status or STATUS_GONE
    return f'{peer} - - [{date_of(second)}] "{quoted(line)}" {status} {size_bytes}\n'


def combined(note: Note) -> str:
    """The Combined Log Format: with Referer and User-Agent."""
    _, _, _, referer, agent = note[0]
    return f'{common(note)[:-1]} "{quoted(referer)}" "{quoted(agent)}"\n'


def as_json(note: Note) -> str:
    """An object of JSON."""
    (peer, _, line, referer, agent), status, size_bytes, second, taken_ns = note
    words = line.decode("latin-1").split(" ") if line is not None else [None] * 3
    fields = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)),
        "peer": peer,
        "method": words[0],
        "target": words[1],
        "protocol": words[2],
        "status": status or STATUS_GONE,
        "bytes": size_bytes,
        "milliseconds": round(taken_ns / 1e6, 3),
        "referer": referer.decode("latin-1") if referer is not None else None,
        "user_agent": agent.decode("latin-1") if agent is not None else None,
    }
    return json.dumps(fields, separators=(",", ":")) + "\n"


FORMATS: dict[str, Callable[[Note], str]] = {
    "common": common,
    "combined": combined,
    "json": as_json,
}


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
        data = memoryview(text.encode("utf-8", "backslashreplace"))
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
    """Writes what the workers' threads have noted. Whatever goes wrong with it, requests are
    answered, and the logger hears of it once, and once more when it is over.

    where: a path, or a text file.
    """

    def __init__(self, where: str | os.PathLike[str] | TextIO, form: str) -> None:
        self._where = where
        self._line_of = FORMATS[form]
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

    def write(self, notes: list[Note]) -> None:
        with self._lock:
            if self._target is None:
                return
            try:
                self._target.write("".join(map(self._line_of, notes)))
                self._target.flush()
            except Exception as exc:
                if not self._lost_count:
                    log.error("the access log cannot be written: %s", exc)
                self._lost_count += len(notes)
                return
        if self._lost_count:
            log.error("the access log is written again; %d requests are lost", self._lost_count)
            self._lost_count = 0
