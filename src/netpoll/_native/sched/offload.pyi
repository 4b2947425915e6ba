import asyncio
from collections.abc import Callable

from netpoll._native.sched.run import SchedulerCore

class Outbox:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def flush(self) -> None: ...

class ConnectionTask:
    pending: int
    tells_all: bool
    def __init__(
        self,
        scheduler: SchedulerCore,
        outbox: Outbox,
        handler: Callable[[bytes], bytes | None],
        write: Callable[[bytes | None], object],
        fail: Callable[[BaseException], object],
        priority: int,
    ) -> None: ...
    def feed(self, data: bytes) -> None: ...
