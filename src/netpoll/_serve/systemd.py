"""What systemd and programs like it say to a service, and want to hear of it.

sd_listen_fds(3): listening sockets that are open already. sd_notify(3): the service is ready.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from netpoll._server.listening import inherited_socket

__all__ = ["inherited_sockets", "notify", "watchdog_s"]

FIRST_FD = 3


def inherited_sockets() -> list[socket.socket]:
    """Those that were opened for this process; child processes do not see them again."""
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    pid, count, _ = (os.environ.pop(name, "") for name in names)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    return [inherited_socket(fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]


def notify(state: str) -> None:
    """READY=1, RELOADING=1, STOPPING=1 or WATCHDOG=1. Nobody may listen: that is no error."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    if state == "RELOADING=1":
        state += f"\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + where[1:] if where[0] == "@" else where)
        sock.sendall(state.encode())


def watchdog_s() -> float:
    """How often systemd wants to hear from this process, at least; 0: it does not. Child processes
    are not asked."""
    usec, pid = (os.environ.pop(name, "") for name in ("WATCHDOG_USEC", "WATCHDOG_PID"))
    if not usec.isdigit() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(usec) / 1e6
