"""Types of the raw interface: requests and responses."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import IO, Any, TypeAlias

from netpoll._native.http.raw_websocket import WebSocket
from netpoll._native.http.served_file import FileParts, ServedFile
from netpoll._native.http.websocket import SocketRules
from netpoll._native.http.wire import Application

_Text: TypeAlias = str | bytes
_Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[_Text, _Text]]

class Response:
    """An answer: see http.Server."""

    body: Any
    status: int
    headers: list[tuple[bytes, bytes]]
    trailers: _Headers | Callable[[], _Headers] | None
    def __init__(
        self,
        body: bytes
        | bytearray
        | memoryview
        | str
        | Iterable[bytes]
        | AsyncIterator[bytes]
        | os.PathLike[str]
        | IO[bytes]
        | ServedFile
        | FileParts = b"",
        status: int = 200,
        headers: _Headers | None = None,
        content_type: str | None = None,
        trailers: _Headers | Callable[[], _Headers] | None = None,
    ) -> None: ...

class Request:
    """A request: what its head says, and its body."""

    state: Any
    @property
    def method(self) -> str: ...
    @property
    def id(self) -> str | None: ...
    @property
    def target(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    def header(self, name: str, default: str | None = None) -> str | None: ...
    @property
    def client(self) -> Any: ...
    @property
    def body(self) -> bytes: ...
    def json(self) -> Any: ...
    @property
    def is_websocket(self) -> bool: ...
    @property
    def subprotocols(self) -> list[str]: ...
    def websocket(self, subprotocol: str | None = None, headers: _Headers = ()) -> WebSocket: ...
    def read(self) -> Awaitable[bytes]: ...
    def read_some(self) -> Awaitable[bytes]: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def __anext__(self) -> Awaitable[bytes]: ...

class RawApplication(Application):
    def __init__(
        self,
        handler: Callable[[Request], Any],
        is_async: bool,
        report: Callable[[str, BaseException | None], object],
        rules: SocketRules,
    ) -> None: ...
