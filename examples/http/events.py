"""Server-sent events, as a bare ASGI application: a clock that many browsers listen to.

Usage:

    python examples/http/events.py [--port 8000]
    curl --no-buffer http://127.0.0.1:8000/

A client that goes away ends its coroutine: receive() gives http.disconnect.
"""

import argparse
import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from netpoll import http

Message = dict[str, Any]

PERIOD_S = 0.2


async def listen(receive: Callable[[], Awaitable[Message]]) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def tell(send: Callable[[Message], Awaitable[None]]) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    number = 0
    while True:
        data = f"id: {number}\nevent: tick\ndata: {time.time():.3f}\n\n".encode()
        await send({"type": "http.response.body", "body": data, "more_body": True})
        number += 1
        await asyncio.sleep(PERIOD_S)


async def app(scope: Message, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"this is an application of HTTP, not of {scope['type']}")
    telling = asyncio.create_task(tell(send))
    await listen(receive)
    telling.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the threads of the server, too
    with http.Server(app, "127.0.0.1", options.port) as server:
        print(f"listening on port {server.port}", flush=True)
        signal.sigwait(ends)
        server.close(0)  # these answers never end


if __name__ == "__main__":
    main()
