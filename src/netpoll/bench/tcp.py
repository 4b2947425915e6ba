"""TCP as every arm of a benchmark has it: never waiting for more to send, and not paced.

Some systems choose BBR for all connections. It spreads what is sent over time, over loopback, too,
and each pause is a timer of the sender's: with messages of 1 MiB a server spent more CPU on those
than on copying, throughput halved, and who read in larger pieces looked worse for it. So the
benchmarks ask for the kernel's own default, which does not pace, on both sides of each connection.
"""

from __future__ import annotations

import errno
import functools
import socket
from pathlib import Path

__all__ = ["congestion_control", "connect", "system_congestion_control", "tune"]

# The default of Linux; and the one that everybody may choose.
UNPACED = ("cubic", "reno")


def system_congestion_control() -> str:
    """What connections have here that ask for nothing."""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


@functools.cache
def congestion_control() -> str:
    """The first of UNPACED that this process may choose (tcp(7), TCP_CONGESTION), or else what the
    system has."""
    with socket.socket() as sock:
        for name in UNPACED:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EPERM):
                    raise
            else:
                return name
    return system_congestion_control()


def tune(sock: socket.socket) -> None:
    """Sets up a TCP socket, connected or not; accepted ones are like their listener."""
    name = congestion_control().encode()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def connect(address: tuple[str, int]) -> socket.socket:
    """A connected, nonblocking socket. `address` is on this machine, and there at once."""
    sock = socket.create_connection(address)
    tune(sock)
    sock.setblocking(False)
    return sock
