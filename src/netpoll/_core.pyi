"""Types of the native half of netpoll.EventLoop."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

NO_NESTING: str
ON_BIRTH: list[Callable[[Loop], object]]

class _Watcher(Protocol):
    @property
    def _handle(self) -> asyncio.Handle: ...

class Loop:
    slow_callback_duration: float
    _closed: bool
    _debug: bool
    _stopping: bool
    _thread_id: int | None

    @property
    def backend(self) -> str: ...
    def call_soon(
        self,
        callback: Callable[[Unpack[_Args]], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[_Args]], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Args]], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Args]], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def time(self) -> float: ...
    def create_future(self) -> asyncio.Future[Any]: ...
    def create_task(
        self,
        coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
        *,
        name: object = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[_T]: ...

    # For netpoll.loop and the modules behind it.
    @property
    def _in_turn(self) -> bool: ...
    @property
    def _is_inherited(self) -> bool: ...
    @property
    def _readers(self) -> dict[int, _Watcher]: ...
    @property
    def _writers(self) -> dict[int, _Watcher]: ...
    def _open_backend(self, name: str, config: Any) -> None: ...
    def _running_in(self, ident: int | None) -> None: ...
    def _enable(self) -> None: ...
    def _run_once(self) -> None: ...
    def _run_turns(self) -> None: ...
    def _run_patched_turns(self) -> None: ...
    def _close_native(self) -> None: ...
    def _fd_transport(self, fd: int) -> Any: ...
