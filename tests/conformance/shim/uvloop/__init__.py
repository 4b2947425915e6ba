"""Stands where `import uvloop` looks, so that uvloop's own tests run on netpoll's loop.

First on the path of the worker and, through PYTHONPATH, of the programs that those tests start.
Only what the tests and their programs use. NETPOLL_BACKEND chooses the backend; what `_testbase`
holds is uvloop's own file, found beside its tests (NETPOLL_UVLOOP_TESTS).
"""

import os
from collections.abc import Callable, Coroutine
from typing import Any

import netpoll
from netpoll import EventLoop as Loop
from netpoll import EventLoopPolicy, install, new_event_loop

__all__ = ["EventLoopPolicy", "Loop", "install", "new_event_loop", "run"]

__path__.append(os.path.join(os.environ["NETPOLL_UVLOOP_TESTS"], "testbase"))


def run(
    main: Coroutine[Any, Any, Any],
    *,
    loop_factory: Callable[[], Loop] | None = None,
    debug: bool | None = None,
) -> Any:
    """netpoll.run, which names another library when it is given another library's loop."""
    try:
        return netpoll.run(main, debug=debug, loop_factory=loop_factory)
    except TypeError as exc:
        raise TypeError(str(exc).replace("non-netpoll", "non-uvloop")) from exc
