"""A Unix socket through which `netpoll top` looks into this process. It is off by default.

    program  ── listens on FOLDER/top-PID.sock, a thread of its own
    watcher  ── connects, sends a byte for each reading that it wants
    program  ── a line of JSON for each

Nobody else can open it: the folder is the user's alone (0700), the socket has the mode 0600, and
the kernel is asked whose process has connected. A watcher can ask for readings, and for nothing
else.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import stat
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from netpoll._telemetry.lag import lag_of
from netpoll._telemetry.sources import Source, Sources, kind_of, loops_of

__all__ = ["Window", "folders", "socket_of"]

WATCHERS_MAX_COUNT = 8
# What a watcher has to take a reading: one that does not is cut off.
SEND_TIMEOUT_S = 1.0
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def folders(uid: int, runtime_dir: str | None) -> list[Path]:
    """Where sockets of a user's programs may be, the first choice first."""
    found = [Path(runtime_dir, "netpoll")] if runtime_dir else []
    return [*found, Path(f"/run/user/{uid}/netpoll"), Path(f"/tmp/netpoll-{uid}")]


def socket_of(folder: Path, pid: int) -> Path:
    return folder / f"top-{pid}.sock"


class Window:
    """The socket of this process, as long as it is open. sources: what it shows.

    Raises OSError when there is no folder that is safe.
    """

    def __init__(self, *sources: Source) -> None:
        self.sources = Sources(sources)
        self._pid = os.getpid()
        self._folder = open_folder()
        self.path = socket_of(self._folder, self._pid)
        sweep(self._folder)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path.unlink(missing_ok=True)  # of a process that had this number before
            self._listener.bind(os.fspath(self.path))
            self.path.chmod(0o600)
            self._listener.listen(WATCHERS_MAX_COUNT)
        except BaseException:
            self._listener.close()
            raise
        self._ended, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="netpoll-top", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Removes the socket. In a forked child, it is the parent's, and stays."""
        if self._listener.fileno() < 0:
            return
        self._listener.close()
        if self._pid == os.getpid():
            self._end.send(b"\0")
            if threading.current_thread() is not self._thread:
                self._thread.join()
            self.path.unlink(missing_ok=True)
        self._end.close()
        self._ended.close()

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _serve(self) -> None:
        with selectors.PollSelector() as selector:
            listener = self._listener.fileno()
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            watchers: set[socket.socket] = set()
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._ended:
                        for watcher in watchers:
                            watcher.close()
                        return
                    if key.fd == listener:
                        self._accept(selector, watchers)
                    elif isinstance(key.fileobj, socket.socket):
                        self._answer(selector, watchers, key.fileobj)

    def _accept(self, selector: selectors.BaseSelector, watchers: set[socket.socket]) -> None:
        try:
            watcher, _ = self._listener.accept()
        except OSError:  # it has gone, or the window is being closed
            return
        watcher.settimeout(SEND_TIMEOUT_S)
        if len(watchers) >= WATCHERS_MAX_COUNT or not is_allowed(watcher):
            watcher.close()
            return
        watchers.add(watcher)
        selector.register(watcher, selectors.EVENT_READ)

    def _answer(
        self,
        selector: selectors.BaseSelector,
        watchers: set[socket.socket],
        watcher: socket.socket,
    ) -> None:
        try:
            asked = watcher.recv(64)
            if asked:
                watcher.sendall(json.dumps(read(self.sources)).encode() + b"\n")
                return
        except OSError:  # it has gone, or does not take it
            pass
        selector.unregister(watcher)
        watchers.discard(watcher)
        watcher.close()


def is_allowed(watcher: socket.socket) -> bool:
    """Whether it is a process of this user, or of root."""
    size = CREDENTIALS.size
    packed = watcher.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return CREDENTIALS.unpack(packed)[1] in (0, os.geteuid())


def open_folder() -> Path:
    """The first of folders() that can be had, with nobody else in it."""
    uid = os.geteuid()
    problem: OSError | None = None
    for folder in folders(uid, os.environ.get("XDG_RUNTIME_DIR")):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = folder.lstat()  # not what a link leads to
        except OSError as exc:
            problem = exc
            continue
        if stat.S_ISDIR(facts.st_mode) and facts.st_uid == uid and not facts.st_mode & 0o077:
            return folder
        problem = PermissionError(f"{folder} is open to others: its mode has to be 0700")
    assert problem is not None
    raise problem


def sweep(folder: Path) -> None:
    """Removes the sockets of processes that were killed."""
    for path in folder.glob("top-*.sock"):
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe,
            contextlib.suppress(OSError),
        ):
            probe.setblocking(False)
            try:
                probe.connect(os.fspath(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)


# ---- what is seen -------------------------------------------------------------------------------


def read(sources: Sources) -> dict[str, Any]:
    """A reading: the stats of everything, each loop where it belongs."""
    each = sources.each()
    owned = {id(loop) for _, one in each if kind_of(one) != "loop" for loop in loops_of(one)}
    found: dict[str, Any] = {
        "pid": os.getpid(),
        "command": command_line(),
        "time_s": time.time(),
        "loops": [],
        "servers": [],
        "schedulers": [],
    }
    for name, one in each:
        kind = kind_of(one)
        if kind == "loop" and (id(one) in owned or one.is_closed()):
            continue
        reading = {"name": name, **of_loop(one)} if kind == "loop" else of_owner(name, one)
        found[f"{kind}s"].append(reading)
    return found


def command_line() -> str:
    program, *arguments = sys.orig_argv
    return " ".join([os.path.basename(program), *arguments])[:200]


def of_loop(loop: Any) -> dict[str, Any]:
    lag_s, late_s = lag_of(loop).read()
    return {"lag_s": lag_s, "late_s": late_s, "stats": loop.stats()}


def of_owner(name: str, owner: Any) -> dict[str, Any]:
    found = {
        "name": name,
        "stats": owner.stats(),
        "loops": [of_loop(loop) for loop in loops_of(owner)],
    }
    if hasattr(owner, "_meter_readings"):
        found["http"] = [of_requests(one) for one in owner._meter_readings()]
    return found


def of_requests(reading: dict[str, Any]) -> dict[str, Any]:
    """Of one worker: the histogram of all its requests, and how many have failed."""
    ended = reading["ended"]
    columns = zip(*(one["durations"] for one in ended), strict=True)
    return {
        "active": reading["active"],
        "ended": sum(sum(one["durations"]) for one in ended),
        "failed": sum(sum(o["durations"]) for o in ended if o["status"] >= 500 or not o["status"]),
        "refused": sum(reading["refused"].values()),
        "duration_s": sum(one["duration_s"] for one in ended),
        "ends_s": reading["ends_s"],
        "durations": [sum(column) for column in columns],
    }
