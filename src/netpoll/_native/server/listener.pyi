"""Types of server/listener.pyx."""

import socket
from collections.abc import Callable

from netpoll._core import Loop
from netpoll._native.server.seats import Seats
from netpoll._native.server.worker import Worker

class Listener:
    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        workers: list[Worker],
        connections_max_count: int,
        told: Callable[[OSError], object] | None,
        seats: Seats | None = None,
    ) -> None: ...
    @property
    def is_waiting(self) -> bool: ...
    @property
    def paused_count(self) -> int: ...
    def publish(self) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def connection_ended(self) -> None: ...
