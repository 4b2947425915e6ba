"""Types of the reader of requests."""

from typing import Literal, TypeAlias, TypedDict

class _Head(TypedDict):
    method: bytes
    target: bytes
    authority: bytes
    path: bytes
    query: bytes
    minor: int
    fields: list[tuple[bytes, bytes]]
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expects: bool
    upgrades: bool
    websocket: bool

_Event: TypeAlias = (
    tuple[Literal["head"], _Head]
    | tuple[Literal["data"], bytes]
    | tuple[Literal["end"]]
    | tuple[Literal["fault"], str, int, str, str]
)

class RequestParser:
    def __init__(
        self,
        *,
        line_max_bytes: int | None = None,
        head_max_bytes: int | None = None,
        fields_max_count: int | None = None,
        body_max_bytes: int | None = None,
    ) -> None: ...
    def feed(self, data: bytes) -> list[_Event]: ...

def unquote(path: bytes) -> bytes: ...
