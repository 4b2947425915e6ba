"""What binary and text files have in common: calls have turns, and lines are read one by one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, AnyStr, Generic

__all__ = ["OrderedFile"]


class OrderedFile(Generic[AnyStr]):
    """First come, first served: one call at a time has the file."""

    __slots__ = ("_is_busy", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_busy = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def _take_turn(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            return
        turn = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._pass_turn()  # it had come, and the task was cancelled before it could see
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(turn)
            raise

    def _pass_turn(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._is_busy = False

    if TYPE_CHECKING:

        async def readline(self, size: int | None = -1) -> AnyStr: ...
        async def close(self) -> None: ...

    async def readlines(self, hint: int | None = -1) -> list[AnyStr]:
        """All lines that are left, or as many as it takes for more than `hint` bytes, or
        characters."""
        lines, total = [], 0
        while line := await self.readline():
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint < total:
                break
        return lines

    def __aiter__(self) -> AsyncIterator[AnyStr]:
        return self

    async def __anext__(self) -> AnyStr:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
