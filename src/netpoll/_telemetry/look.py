"""How `netpoll top` gets its readings: through the windows of a process and its children."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netpoll._telemetry.window import folders, socket_of

__all__ = ["LookError", "Watched"]

ANSWER_TIMEOUT_S = 5.0


class LookError(Exception):
    """Nothing can be seen: why, in a sentence."""


class Watched:
    """A process, and those that it has started: the workers of `netpoll serve` are children of the
    one that is named. Processes that come later are found at the next reading."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._sockets: dict[int, socket.socket] = {}

    def readings(self) -> list[dict[str, Any]]:
        """One of each process. Raises LookError when there is none."""
        pids = [self._pid, *descendants(self._pid)]
        found = [reading for pid in pids if (reading := self._reading(pid)) is not None]
        if not found:
            raise LookError(self._reason())
        return found

    def _reading(self, pid: int) -> dict[str, Any] | None:
        sock = self._sockets.get(pid) or connected(pid)
        if sock is None:
            return None
        self._sockets[pid] = sock
        try:
            sock.sendall(b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                part = sock.recv(1 << 16)
                if not part:
                    raise ConnectionResetError
                answer += part
            reading: dict[str, Any] = json.loads(answer)
            return reading
        except OSError:  # it has ended, or does not answer
            self._sockets.pop(pid).close()
            return None

    def _reason(self) -> str:
        pid = self._pid
        try:
            uid = Path(f"/proc/{pid}").stat().st_uid
        except OSError:
            return f"there is no process {pid}"
        if os.geteuid() not in (0, uid):
            return f"process {pid} belongs to another user: look as that user, or as root"
        return (
            f"process {pid} shows nothing: start it with NETPOLL_TOP=1 in its environment, or "
            "`netpoll serve --top`"
        )

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


def connected(pid: int) -> socket.socket | None:
    for path in paths(pid):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(ANSWER_TIMEOUT_S)
        try:
            sock.connect(os.fspath(path))
            return sock
        except OSError:
            sock.close()
    return None


def paths(pid: int) -> Iterator[Path]:
    """Where the socket of a process may be: its own environment says so."""
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    with contextlib.suppress(OSError):
        for setting in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if setting.startswith(b"XDG_RUNTIME_DIR="):
                runtime_dir = os.fsdecode(setting.partition(b"=")[2])
    for folder in folders(uid, runtime_dir):
        yield socket_of(folder, pid)


def descendants(pid: int) -> Iterator[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            children += map(int, (task / "children").read_text().split())
    for child in children:
        yield child
        yield from descendants(child)
