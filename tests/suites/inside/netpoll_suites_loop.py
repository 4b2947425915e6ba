"""Puts the loop under test into a Python process; a .pth file of the environment imports this.

The environment variable NETPOLL_SUITES_LOOP says which: `uring` and `epoll` are netpoll's loop,
anything else leaves asyncio alone. Programs that a test starts inherit the variable, so they run on
that loop, too. Every `asyncio.new_event_loop()` is counted, so that a run can show that it tested
something.
"""

import os
from typing import Any

made_count = 0


def counted(make: Any) -> Any:
    def new_event_loop(*arguments: Any, **named: Any) -> Any:
        global made_count
        made_count += 1
        return make(*arguments, **named)

    return staticmethod(new_event_loop)


def install(kind: str) -> None:
    """Event loop policies make the loop under test; without policies `new_event_loop` does."""
    import asyncio

    make: Any = asyncio.SelectorEventLoop
    if kind in ("uring", "epoll"):
        import netpoll

        os.environ["NETPOLL_BACKEND"] = kind
        make = netpoll.new_event_loop
    for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        policy = getattr(asyncio.unix_events, name, None)  # type: ignore[attr-defined]
        if policy is not None:
            policy._loop_factory = counted(make)
            return
    factory = counted(make).__func__
    asyncio.new_event_loop = asyncio.events.new_event_loop = factory


if kind := os.environ.get("NETPOLL_SUITES_LOOP"):
    install(kind)
