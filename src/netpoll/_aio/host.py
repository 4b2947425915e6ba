"""The event loop as the modules beside it see it.

netpoll.loop imports them, so they cannot import it: its class derives from this one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from netpoll import _core


class Host(_core.Loop, asyncio.SelectorEventLoop):
    """The native turn under asyncio's own code, and what the two need of each other."""

    _child_watches: set[Any]
    # The objects that add_reader and add_writer were given, by number.
    _reader_files: dict[int, Any]
    _writer_files: dict[int, Any]

    if TYPE_CHECKING:
        # Written in netpoll.loop.
        def _add_reader(
            self, fd: Any, callback: Callable[..., object], *args: Any
        ) -> asyncio.Handle: ...
        def _remove_reader(self, fd: Any) -> bool: ...
        def _watched_number(self, fd: Any) -> int: ...

        # Inherited from asyncio, which gives types only to what it documents.
        _default_executor: concurrent.futures.Executor | None

        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...
        def _asyncgen_firstiter_hook(self, generator: Any) -> None: ...
        def _asyncgen_finalizer_hook(self, generator: Any) -> None: ...
        def _read_from_self(self) -> None: ...
        async def _ensure_resolved(
            self, address: Any, *, family: int, type: int, proto: int, loop: Host
        ) -> list[Any]: ...
        async def _create_connection_transport(
            self, sock: socket.socket, *args: Any, **kwargs: Any
        ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]: ...
