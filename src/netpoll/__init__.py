"""netpoll: an asyncio event loop on io_uring, with epoll behind the same verbs.

    import netpoll
    netpoll.run(main())
"""

from netpoll.config import LoopConfig
from netpoll.errors import BackendUnavailableError
from netpoll.loop import EventLoop, EventLoopPolicy, install, new_event_loop, run
from netpoll.probe import Feature, HugePages, ProbeResult, probe

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailableError",
    "EventLoop",
    "EventLoopPolicy",
    "Feature",
    "HugePages",
    "LoopConfig",
    "ProbeResult",
    "__version__",
    "install",
    "new_event_loop",
    "probe",
    "run",
]
