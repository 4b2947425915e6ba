"""The event loop of the arm uvicorn-aiofastnet: asyncio's, with the transports of aiofastnet."""

import asyncio

from netpoll.bench.arms import ARMS


def new_event_loop() -> asyncio.AbstractEventLoop:
    return ARMS["aiofastnet"].new_loop()
