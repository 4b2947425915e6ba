"""Types of the pipe transports; they are made by connect_read_pipe and connect_write_pipe."""

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from typing_extensions import Buffer  # collections.abc has it from Python 3.12 on

from netpoll._core import Loop

class _Pipe(Protocol):
    """A file object or socket: what owns the descriptor."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...

class PipeTransport(asyncio.BaseTransport):
    def abort(self) -> None: ...

class ReadPipeTransport(PipeTransport, asyncio.ReadTransport): ...

class WritePipeTransport(PipeTransport, asyncio.WriteTransport):
    def write(self, data: Buffer) -> None: ...
    def writelines(self, list_of_data: Iterable[Buffer]) -> None: ...
    def can_write_eof(self) -> bool: ...
    def write_eof(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def get_write_buffer_limits(self) -> tuple[int, int]: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

class ChildPipe(asyncio.Protocol):
    transport: PipeTransport | None
    pipe: PipeTransport | None
    disconnected: bool
    def __init__(self, process: Any, child_fd: int) -> None: ...
    def serve_reader(self, reader: asyncio.StreamReader) -> None: ...

def make_read_transport(
    loop: Loop,
    pipe: _Pipe,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None = None,
    extra: dict[str, Any] | None = None,
) -> ReadPipeTransport: ...
def make_write_transport(
    loop: Loop,
    pipe: _Pipe,
    protocol: asyncio.BaseProtocol,
    waiter: asyncio.Future[None] | None = None,
    extra: dict[str, Any] | None = None,
) -> WritePipeTransport: ...
