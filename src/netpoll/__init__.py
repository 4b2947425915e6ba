"""netpoll: an asyncio event loop on io_uring, or on epoll where io_uring is not available.

Usage:

    import netpoll
    netpoll.run(main())
"""

from netpoll._native.memory.pool import Buffer, BufferPool
from netpoll._native.server.connection import Connection
from netpoll._native.server.lease import Lease
from netpoll.config import BufferConfig, LoopConfig, ServerLimits
from netpoll.errors import BackendUnavailableError, PoolExhaustedError
from netpoll.files import fsync, open, read_at, readinto_at, write_at
from netpoll.loop import EventLoop, EventLoopPolicy, install, new_event_loop, run
from netpoll.probe import Feature, HugePages, ProbeResult, probe
from netpoll.sched import Priority, Scheduler, Task, TaskGroup
from netpoll.server import Server, serve

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailableError",
    "Buffer",
    "BufferConfig",
    "BufferPool",
    "Connection",
    "EventLoop",
    "EventLoopPolicy",
    "Feature",
    "HugePages",
    "Lease",
    "LoopConfig",
    "PoolExhaustedError",
    "Priority",
    "ProbeResult",
    "Scheduler",
    "Server",
    "ServerLimits",
    "Task",
    "TaskGroup",
    "__version__",
    "fsync",
    "install",
    "new_event_loop",
    "open",
    "probe",
    "read_at",
    "readinto_at",
    "run",
    "serve",
    "write_at",
]
