"""netpoll: an asyncio event loop on io_uring, with epoll behind the same verbs.

    import netpoll
    netpoll.run(main())
"""

from netpoll._buffers import Buffer, BufferPool
from netpoll.config import BufferConfig, LoopConfig
from netpoll.errors import BackendUnavailableError, PoolExhaustedError
from netpoll.files import fsync, open, read_at, readinto_at, write_at
from netpoll.loop import EventLoop, EventLoopPolicy, install, new_event_loop, run
from netpoll.probe import Feature, HugePages, ProbeResult, probe
from netpoll.sched import Priority, Scheduler, Task, TaskGroup

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailableError",
    "Buffer",
    "BufferConfig",
    "BufferPool",
    "EventLoop",
    "EventLoopPolicy",
    "Feature",
    "HugePages",
    "LoopConfig",
    "PoolExhaustedError",
    "Priority",
    "ProbeResult",
    "Scheduler",
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
    "write_at",
]
