"""Handlers in a scheduler, connections where they are: for servers whose handlers compute.

    scheduler = netpoll.Scheduler()
    loop.create_server(offload(handle, scheduler), host, port)      # an asyncio protocol factory

    netpoll.Server(offload_data(handle, scheduler), host, port)     # an on_data handler

`handle(data: bytes) -> bytes | None` runs in whichever worker is free, for one connection one
message at a time and in order. sched/offload.pyx says how messages go out and replies come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from netpoll._native.sched.offload import ConnectionTask, Outbox
from netpoll._native.server.connection import Connection
from netpoll.sched import Priority, Scheduler

__all__ = ["OffloadProtocol", "offload", "offload_data"]

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


class _Outboxes:
    """The way back to each loop that serves."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, Outbox] = {}

    def of(self, loop: asyncio.AbstractEventLoop) -> Outbox:
        outbox = self._by_loop.get(loop)
        if outbox is None:  # only the loop's own thread asks for it: nobody races us
            outbox = self._by_loop[loop] = Outbox(loop)
        return outbox


def offload(
    handler: Handler, scheduler: Scheduler, *, priority: Priority = Priority.NORMAL
) -> Callable[[], OffloadProtocol]:
    """A protocol factory, for create_server() of any number of loops."""
    outboxes = _Outboxes()

    def factory() -> OffloadProtocol:
        outbox = outboxes.of(asyncio.get_running_loop())
        return OffloadProtocol(handler, scheduler, outbox, priority)

    return factory


def offload_data(
    handler: Handler, scheduler: Scheduler, *, priority: Priority = Priority.NORMAL
) -> Callable[[Connection], None]:
    """An on_data handler for netpoll.Server, with any number of workers; uses conn.state."""
    outboxes = _Outboxes()

    def on_data(conn: Connection) -> None:
        task = conn.state
        if task is None:
            task = conn.state = _connection_task(conn)
        task.feed(conn.take())
        if not task.tells_all and task.pending >= PENDING_MAX_COUNT:
            task.tells_all = True
            conn.pause_reading()

    def _connection_task(conn: Connection) -> ConnectionTask:
        def write(reply: bytes | None) -> None:
            if conn.closed:
                return
            if reply is not None:
                conn.write(reply)
            if task.tells_all and task.pending <= PENDING_MAX_COUNT // 2:
                task.tells_all = False
                conn.resume_reading()

        def fail(error: BaseException) -> None:
            scheduler._report({"message": "a connection's handler failed", "exception": error})
            if not conn.closed:
                conn.abort()

        outbox = outboxes.of(conn.loop)
        task = ConnectionTask(scheduler, outbox, handler, write, fail, priority)
        return task

    return on_data
