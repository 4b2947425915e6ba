"""Types of transport/acceptor.pyx."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from netpoll._core import Loop

class Acceptor:
    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        server: asyncio.Server | None,
        ssl_options: dict[str, Any] | None,
        backlog: int,
    ) -> None: ...
    def end(self) -> None: ...
    def stop(self) -> None: ...
