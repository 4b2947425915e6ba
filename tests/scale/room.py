"""A network of its own, and limits for a million connections, which are put back at the end."""

import contextlib
import ctypes
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x4000_0000
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x1 | 0x40
SPARE_FILES = 1000

# Of the new network only. Ports: what one source address has. Nothing waits for a listener.
NETWORK = {
    "net/ipv4/ip_local_port_range": "1024 65535",
    "net/core/somaxconn": "65535",
    "net/ipv4/tcp_max_syn_backlog": "65535",
}


class NotAllowedError(Exception):
    """This process may not make a network, or raise a number; the text says what it needs."""


def enter_network() -> None:
    """This process, and what it starts from now on, has a loopback of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise NotAllowedError(f"a network of its own needs root ({reason})")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))
    for name, value in NETWORK.items():
        with contextlib.suppress(OSError):  # some kernels have one of them for all networks
            Path("/proc/sys", name).write_text(value)


@contextlib.contextmanager
def at_least(name: str, wanted: int) -> Iterator[None]:
    """The number in /proc/sys is raised to this, and put back."""
    path = Path("/proc/sys", name)
    before = int(path.read_text())
    if before >= wanted:
        yield
        return
    try:
        path.write_text(str(wanted))
    except OSError as error:
        raise NotAllowedError(f"{name} is {before}, and has to be {wanted} ({error})") from None
    try:
        yield
    finally:
        path.write_text(str(before))


@contextlib.contextmanager
def files(connections: int) -> Iterator[int]:
    """Each of two processes may have so many connections, or as many as are allowed: yields it."""
    wanted = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            stack.enter_context(at_least("fs/nr_open", wanted))
        stack.enter_context(at_least("fs/file-max", 2 * wanted + 100_000))
        stack.enter_context(at_least("fs/epoll/max_user_watches", 4 * wanted))
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):  # a hard limit is raised with CAP_SYS_RESOURCE only
            wanted = hard
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        try:
            yield wanted - SPARE_FILES
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
