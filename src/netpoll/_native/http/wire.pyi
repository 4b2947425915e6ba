"""Types of the HTTP side of connections."""

class Application: ...

class HttpProtocol:
    def __init__(
        self,
        application: Application,
        limits: dict[str, int],
        server: str,
        head_timeout_s: float | None,
        stall_timeout_s: float | None,
    ) -> None: ...

class Wire: ...
