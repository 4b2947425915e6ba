"""`--reload`: a process that says when a file has changed, by watchfiles or by looking.

It is a process of its own, so that the supervisor, which forks, has no thread.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Watch"]

LOOK_S = 0.3
INCLUDED = ["*.py"]
# What editors, version control and tools write all the time.
EXCLUDED = [".*", "__pycache__", "*.py[cod]", "*~", "node_modules"]


class Watch:
    """The files below some folders. channel: readable when one of them has changed. fork: the
    child of os.fork() without the signals of its parent."""

    def __init__(self, options: argparse.Namespace, fork: Callable[[], int]) -> None:
        folders = options.reload_dir or [options.app_dir or "."]
        self._folders = [Path(folder).resolve() for folder in folders]
        self._include = INCLUDED + (options.reload_include or [])
        self._exclude = EXCLUDED + (options.reload_exclude or [])
        self.channel, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.is_over = False  # the process is
        self._seen = dict(self._times())
        self._parent = os.getpid()
        self.pid = fork()
        if self.pid == 0:
            status = 1
            try:
                self.channel.close()
                self._watch(its)
                status = 0
            finally:
                os._exit(status)
        its.close()
        self.channel.setblocking(False)

    def changed(self) -> str:
        """The path of a file that has; "": none has."""
        found = ""
        try:
            while path := self.channel.recv(4096):
                found = os.fsdecode(path)
            self.is_over = True
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        self.channel.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    # ---- in the child -------------------------------------------------------------------------

    def _watch(self, channel: socket.socket) -> None:
        try:
            from watchfiles import watch
        except ModuleNotFoundError:
            changes = self._look()
        else:
            found = watch(
                *self._folders,
                watch_filter=lambda change, path: self.is_watched(Path(path)),
                rust_timeout=round(1000 * LOOK_S),
                yield_on_timeout=True,
                raise_interrupt=False,
            )
            changes = self._hear(found)
        for paths in changes:
            if os.getppid() != self._parent:
                return
            for path in paths:
                channel.send(os.fsencode(path))

    def is_watched(self, path: Path) -> bool:
        """path: absolute, below one of the folders."""
        folder = next(one for one in self._folders if path.is_relative_to(one))
        if not any(path.match(glob) for glob in self._include):
            return False
        while path != folder and not self._is_excluded(path, folder):
            path = path.parent
        return path == folder

    def _is_excluded(self, path: Path, folder: Path) -> bool:
        """The globs are of names, or of paths: below the folder, or absolute ones."""
        below = path.relative_to(folder)
        return any((path if glob[:1] == "/" else below).match(glob) for glob in self._exclude)

    def _look(self) -> Iterator[list[str]]:
        """Without watchfiles."""
        while True:
            yield self._changed_since()
            time.sleep(LOOK_S)

    def _hear(self, found: Iterable[set[tuple[Any, str]]]) -> Iterator[list[str]]:
        """found: what watchfiles hears of, from now on."""
        for number, changes in enumerate(found):
            if number == 0:
                yield self._changed_since()
            yield [path for _, path in changes]

    def _changed_since(self) -> list[str]:
        """Since it was called last, or since the beginning."""
        now = dict(self._times())
        changed = [path for path, _ in self._seen.items() ^ now.items()]
        self._seen = now
        return changed

    def _times(self) -> Iterator[tuple[str, int]]:
        """A folder, or a file, may go while it is looked at: an editor puts another one in its
        place, another branch is checked out."""
        for folder in self._folders:
            for where, folders, files in os.walk(folder):  # which passes over what cannot be read
                here = Path(where)
                folders[:] = [one for one in folders if not self._is_excluded(here / one, folder)]
                for name in folders + files:
                    path = here / name
                    if self.is_watched(path):
                        with contextlib.suppress(OSError):
                            yield str(path), path.stat().st_mtime_ns
