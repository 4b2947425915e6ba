"""Types of server/worker.pyx."""

from collections.abc import Callable
from typing import Any

from netpoll._core import Loop
from netpoll._native.server.connection import Connection

class Worker:
    def __init__(
        self,
        loop: Loop,
        handler: Callable[[Connection], Any],
        is_session: bool,
        on_connect: Callable[[Connection], Any] | None,
        on_close: Callable[[Connection, BaseException | None], Any] | None,
        options: dict[str, Any],
    ) -> None: ...
    @property
    def is_empty(self) -> bool: ...
    def stats(self) -> dict[str, Any]: ...
    def _start(self) -> None: ...
    def _begin_stop(self) -> None: ...
    def _abort_all(self) -> None: ...
    def _end(self) -> None: ...
