"""Where a server listens: sockets for its addresses, and the file of a Unix socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from asyncio.log import logger
from typing import Any

__all__ = ["UnixFile", "inet_sockets", "inherited_socket", "unix_socket"]

# With port 0 a free port of the first address may be taken at the next: another is tried.
PORT_TRIES_MAX_COUNT = 10


class UnixFile:
    """The file that a Unix socket was bound to: its path, and which file that was."""

    def __init__(self, path: str | bytes) -> None:
        self.path = os.path.abspath(path)  # the program may go to another directory
        self.inode = self._inode()

    def _inode(self) -> tuple[int, int]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Removes it, unless another server has put its own there. Never raises OSError."""
        try:
            if self._inode() == self.inode:
                os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            logger.error("netpoll.Server: cannot remove its Unix socket %r: %s", self.path, exc)


def inherited_socket(fd: int) -> socket.socket:
    """One that was opened for this process: what it starts does not inherit it again."""
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def unix_socket(path: str | bytes) -> tuple[socket.socket, UnixFile | None]:
    """A socket bound to a path, in the place of a file that nobody listens on any more.

    An abstract name (it begins with a null byte) has no file. Raises OSError: EADDRINUSE when a
    server listens there, or the file is no socket.
    """
    has_file = len(path) > 0 and path[0] not in (0, "\0")
    if has_file:
        _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        return sock, UnixFile(path) if has_file else None
    except OSError as exc:
        sock.close()
        if exc.errno != errno.EADDRINUSE:
            raise
        raise OSError(exc.errno, f"the Unix socket {path!r} is in use") from None
    except BaseException:
        sock.close()
        raise


def _remove_stale(path: str | bytes) -> None:
    """Removes a socket's file if nobody listens on it. bind() says what else is wrong."""
    with contextlib.suppress(OSError, ValueError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(path) == errno.ECONNREFUSED:
                os.unlink(path)


def inet_sockets(host: str | None, port: int, reuse_port: bool) -> list[socket.socket]:
    """A bound socket for each address of host; with port 0 all get the same free one.

    host None or "" is every address. An address of a family that this machine does not have (IPv6
    is off, say) is left out when there is another one. Raises OSError.
    """
    found = list(
        dict.fromkeys(
            socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        )
    )
    for tries_left in reversed(range(PORT_TRIES_MAX_COUNT)):
        made: list[socket.socket] = []
        try:
            return _bind_each(found, port, reuse_port, made)
        except BaseException as exc:
            is_taken = isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE
            may_try = port == 0 and len(made) > 1 and tries_left
            for sock in made:
                sock.close()
            if not (is_taken and may_try):
                raise
    raise AssertionError("not reached")


def _bind_each(
    found: list[tuple[Any, ...]], port: int, reuse_port: bool, made: list[socket.socket]
) -> list[socket.socket]:
    """Puts the sockets into `made`; a caller closes them if this raises."""
    refused: OSError | None = None
    for family, kind, proto, _, wanted in found:
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as exc:
            refused = exc  # this kind of address is unknown to the kernel
            continue
        made.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        address = wanted
        if port == 0 and len(made) > 1:
            address = (wanted[0], made[0].getsockname()[1], *wanted[2:])
        try:
            sock.bind(address)
        except OSError as exc:
            if exc.errno != errno.EADDRNOTAVAIL:
                raise OSError(exc.errno, f"cannot listen on {address!r}: {exc.strerror}") from None
            refused = exc  # the family is switched off
            made.remove(sock)
            sock.close()
    if not made:
        addresses = [entry[4] for entry in found]
        number = refused.errno if refused is not None else errno.EADDRNOTAVAIL
        raise OSError(number, f"cannot listen on any address out of {addresses}: {refused}")
    return made
