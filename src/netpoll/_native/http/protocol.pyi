"""Types of HTTP for the connections of a worker."""

from collections.abc import Callable, Iterable

from netpoll._native.http.encoder import AnswerCoding
from netpoll._native.http.meter import Meter
from netpoll._native.http.request_id import RequestIds
from netpoll._native.http.wire import Application
from netpoll._native.server.networks import Networks

class HttpProtocol:
    def __init__(
        self,
        application: Application,
        limits: dict[str, int],
        server: str,
        head_timeout_s: float | None,
        stall_timeout_s: float | None,
        fields: Iterable[tuple[bytes, bytes]] = (),
        write_lines: Callable[[bytes], object] | None = None,
        lines_form: str | None = None,
    ) -> None: ...
    @property
    def requests(self) -> int: ...
    def flush_lines(self) -> None: ...
    def believe(self, networks: Networks) -> None: ...
    def serve_at_most(self, connections_count: int) -> None: ...
    def equip(
        self, meter: Meter | None, ids: RequestIds | None, coding: AnswerCoding | None
    ) -> None: ...
