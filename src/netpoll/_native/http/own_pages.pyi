"""Types of pages that the server answers itself."""

from collections.abc import Callable
from typing import TypeAlias

from netpoll._native.http.wire import Application

_Answer: TypeAlias = tuple[int, list[tuple[bytes, bytes]], bytes]

class OwnPages(Application):
    def __init__(
        self,
        inner: Application,
        pages: dict[bytes, Callable[[str | None], _Answer]],
        report: Callable[[str, BaseException | None], object],
    ) -> None: ...
