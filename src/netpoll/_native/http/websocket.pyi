"""Types of the core of WebSockets."""

from collections.abc import Callable
from typing import Any

class SocketRules:
    def __init__(
        self,
        message_max_bytes: int | None,
        ping_interval_s: float | None,
        ping_timeout_s: float | None,
        agree: Callable[[str], Any] | None,
    ) -> None: ...
