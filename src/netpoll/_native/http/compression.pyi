"""Types of answers that leave encoded."""

from collections.abc import Callable
from typing import Protocol

from netpoll._native.http.encoder import AnswerCoding

class _Coder(Protocol):
    def encode(self, data: bytes) -> bytes: ...
    def finish(self) -> bytes: ...
    def whole(self, data: bytes) -> bytes: ...

class Compression(AnswerCoding):
    def __init__(
        self,
        choose: Callable[[str], str | None],
        coders: dict[str, Callable[[], _Coder]],
        suits: Callable[[bytes], bool],
        submit: Callable[[Callable[[], None]], object],
        report: Callable[[str, BaseException | None], object],
        min_bytes: int,
        thread_min_bytes: int,
    ) -> None: ...
