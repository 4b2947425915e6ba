"""Handlers in a scheduler, connections where they are: for servers whose handlers compute.

    scheduler = netpoll.Scheduler()
    loop.create_server(offload(handle, scheduler), host, port)      # an asyncio protocol factory

`handle(data: bytes) -> bytes | None` runs in whichever worker is free, for one connection one
message at a time and in order. _offload.pyx says how messages go out and replies come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from netpoll._offload import ConnectionTask, Outbox
from netpoll.sched import Priority, Scheduler

__all__ = ["OffloadProtocol", "offload"]

Handler = Callable[[bytes], "bytes | None"]

# Messages of one connection that may wait for a worker, before its reading is paused.
PENDING_MAX_COUNT = 64


class OffloadProtocol(asyncio.Protocol):
    """One connection whose messages are handled by a scheduler. What offload() makes.

    A handler that raises ends its connection; the exception goes to the scheduler's exception
    handler. A connection with PENDING_MAX_COUNT messages waiting is not read until half are gone.
    """

    def __init__(
        self, handler: Handler, scheduler: Scheduler, outbox: Outbox, priority: Priority
    ) -> None:
        self._handler = handler
        self._scheduler = scheduler
        self._outbox = outbox
        self._priority = priority
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._task = ConnectionTask(
            self._scheduler, self._outbox, self._handler, self._write, self._fail, self._priority
        )

    def data_received(self, data: bytes) -> None:
        self._task.feed(data)
        if not self._is_paused and self._task.pending >= PENDING_MAX_COUNT:
            self._is_paused = self._task.tells_all = True
            self.transport.pause_reading()

    def _write(self, reply: bytes | None) -> None:
        if self.transport.is_closing():
            return
        if reply is not None:
            self.transport.write(reply)
        if self._is_paused and self._task.pending <= PENDING_MAX_COUNT // 2:
            self._is_paused = self._task.tells_all = False
            self.transport.resume_reading()

    def _fail(self, error: BaseException) -> None:
        self._scheduler._report({"message": "a connection's handler failed", "exception": error})
        self.transport.abort()


def offload(
    handler: Handler, scheduler: Scheduler, *, priority: Priority = Priority.NORMAL
) -> Callable[[], OffloadProtocol]:
    """A protocol factory, for create_server() of any number of loops."""
    outboxes: dict[asyncio.AbstractEventLoop, Outbox] = {}

    def factory() -> OffloadProtocol:
        loop = asyncio.get_running_loop()
        outbox = outboxes.get(loop)
        if outbox is None:
            outbox = outboxes[loop] = Outbox(loop)
        return OffloadProtocol(handler, scheduler, outbox, priority)

    return factory
