"""The lifespan of an ASGI application: what it does once before it serves, and once after.

https://asgi.readthedocs.io/en/latest/specs/lifespan.html. Every worker's loop has its own: what an
application opens at its start (a pool of database connections) belongs to the loop that it was
opened in.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger("netpoll.http")

SHUTDOWN_TIMEOUT_S = 30.0
# Beyond its last message.
END_TIMEOUT_S = 5.0


def lifespan_end_s() -> float:
    """How long a shutdown takes at most, with a second for what lies between its steps."""
    return SHUTDOWN_TIMEOUT_S + 2 * END_TIMEOUT_S + 1.0


class LifespanError(RuntimeError):
    """The application said that it cannot start."""


class Lifespan:
    """mode: "on", the application must have a lifespan; "auto", it may; "off", it is not asked."""

    def __init__(self, app: Any, mode: str) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Returns when the application is ready. LifespanError: it will not be."""
        if self._mode == "off":
            return
        self._task = asyncio.create_task(self._run(), name="netpoll-lifespan")
        answer = await self._ask("lifespan.startup")
        if answer is None:
            if self._mode == "on":
                raise LifespanError(
                    "the application has no lifespan, and lifespan='on' asks for one"
                ) from self._failure()
            log.debug("the application has no lifespan", exc_info=self._failure())
            self._task = None
        elif answer["type"] == "lifespan.startup.failed":
            await self._end(self._task)
            raise LifespanError(
                answer.get("message") or "the application did not start"
            ) from self._failure()

    async def shutdown(self) -> None:
        """Lets the application end. What fails there is logged: the server ends anyway."""
        if self._task is None or self._task.done():
            return
        try:
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                answer = await self._ask("lifespan.shutdown")
        except TimeoutError:
            log.error("the application did not shut down within %s s", SHUTDOWN_TIMEOUT_S)
            await self._end(self._task)
            return
        if answer is None:
            log.error("the application failed at its shutdown", exc_info=self._failure())
        elif answer["type"] == "lifespan.shutdown.failed":
            log.error("the application failed at its shutdown: %s", answer.get("message", ""))
        await self._end(self._task)

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Waits for an application that has said its last word; not for ever."""
        await asyncio.wait([task], timeout=END_TIMEOUT_S)
        if not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=END_TIMEOUT_S)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        await self._app(scope, self._messages.get, self._send)

    async def _ask(self, kind: str) -> dict[str, Any] | None:
        """What the application answers; None when it ends without an answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._messages.put_nowait({"type": kind})
        waited: list[asyncio.Future[Any]] = [self._answer]
        if self._task is not None:
            waited.append(self._task)
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return self._answer.result() if self._answer.done() else None

    async def _send(self, message: dict[str, Any]) -> None:
        if not message["type"].startswith("lifespan."):
            raise RuntimeError(f"not a message of a lifespan: {message['type']!r}")
        if self._answer is None or self._answer.done():
            raise RuntimeError(f"{message['type']} answers no event")
        self._answer.set_result(message)

    def _failure(self) -> BaseException | None:
        if self._task is None or not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()
