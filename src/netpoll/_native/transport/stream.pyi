"""Types of transport/stream.pyx."""

import asyncio
import socket
from typing import Any

from netpoll._core import Loop

class StreamTransport(asyncio.Transport):
    @property
    def _lent(self) -> bool: ...
    def _socket(self) -> socket.socket: ...
    def _detach_socket(self) -> None: ...
    def _make_empty_waiter(self) -> asyncio.Future[None]: ...
    def _reset_empty_waiter(self) -> None: ...

def make_transport(
    loop: Loop,
    sock: socket.socket,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None,
    extra: dict[str, Any] | None,
    server: asyncio.Server | None,
) -> StreamTransport: ...
