"""Types of the driver of WSGI applications."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from netpoll._native.http.crew import Crew
from netpoll._native.http.wire import Application

class FileWrapper:
    filelike: Any
    blksize: int
    def __init__(self, filelike: Any, blksize: int = 8192) -> None: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...
    def close(self) -> None: ...

class WsgiApplication(Application):
    def __init__(
        self,
        app: Callable[..., Iterable[bytes]],
        loop: Any,
        pool: Crew | None,
        scheme: str,
        root_path: str,
        multithread: bool,
        multiprocess: bool,
        report: Callable[[str, BaseException | None], object],
    ) -> None: ...
    def close(self) -> None: ...
