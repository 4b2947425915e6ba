"""Name resolution: asyncio's executor for names, no thread for numeric addresses.

A numeric address needs no DNS, so the same getaddrinfo(3) answers at once, with the same result.
"""

from __future__ import annotations

import socket
from asyncio import BaseEventLoop
from typing import Any

from netpoll._aio.host import Host

__all__ = ["getaddrinfo", "getnameinfo", "is_numeric"]

NUMERIC_NAME = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
# Dotted and hexadecimal addresses with a zone are shorter; what is longer is a name.
ADDRESS_MAX_CHARS = 64


def is_numeric(host: Any, port: Any) -> bool:
    """True when neither a name nor a service has to be looked up."""
    if isinstance(port, (str, bytes)):
        if not (port.isascii() and port.isdigit()):
            return False
    elif port is not None and not isinstance(port, int):
        return False
    if host is None:
        return True
    if isinstance(host, bytes):
        host = host.decode("latin-1")
    if not isinstance(host, str) or not host or len(host) > ADDRESS_MAX_CHARS:
        return False
    if ":" in host:
        family, host = socket.AF_INET6, host.partition("%")[0]
    elif host[0].isdigit():
        family = socket.AF_INET
    else:
        return False
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True


async def getaddrinfo(
    self: Host,
    host: str | bytes | None,
    port: str | bytes | int | None,
    *,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[tuple[Any, ...]]:
    """socket.getaddrinfo without waiting: numeric addresses at once, names in the executor."""
    if is_numeric(host, port):
        return socket.getaddrinfo(host, port, family, type, proto, flags)
    return await BaseEventLoop.getaddrinfo(
        self, host, port, family=family, type=type, proto=proto, flags=flags
    )


async def getnameinfo(self: Host, sockaddr: tuple[Any, ...], flags: int = 0) -> tuple[str, str]:
    """socket.getnameinfo without waiting: at once when only numbers are asked for."""
    if flags & NUMERIC_NAME == NUMERIC_NAME and is_numeric(sockaddr[0], None):
        return socket.getnameinfo(sockaddr, flags)
    return await BaseEventLoop.getnameinfo(self, sockaddr, flags)
