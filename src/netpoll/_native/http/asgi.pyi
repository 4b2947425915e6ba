"""Types of the driver of ASGI applications."""

import ssl
from collections.abc import Callable
from typing import Any

from netpoll._native.http.websocket import SocketRules
from netpoll._native.http.wire import Application

class AsgiApplication(Application):
    def __init__(
        self,
        app: Callable[..., Any],
        state: dict[str, Any] | None,
        scheme: str,
        root_path: str,
        report: Callable[[str, BaseException | None], object],
        rules: SocketRules,
        describe_tls: Callable[[ssl.SSLObject, bytes | None], dict[str, Any]] | None = None,
    ) -> None: ...
