"""A live page in the browser: votes go over WebSocket, results come as server-sent events.

Usage:

    python examples/http/live.py [--port 8000]
    open http://127.0.0.1:8000/ in two windows

A browser that has lost its events asks for them again by itself. The line that comes when nobody
votes is for the server: by it a client is noticed that has gone without a word.
"""

import argparse
import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator

from netpoll import http

PAGE = """<!doctype html>
<title>vote</title>
<button id="yes">yes</button> <button id="no">no</button>
<p id="result"></p>
<p id="receipt"></p>
<script>
  const socket = new WebSocket(`ws://${location.host}/votes`);
  socket.onmessage = (event) => { receipt.textContent = event.data; };
  for (const button of [yes, no]) button.onclick = () => socket.send(button.id);
  const results = new EventSource("/results");
  results.onmessage = (event) => { result.textContent = event.data; };
</script>
"""
CHOICES = ("yes", "no")
SILENCE_MAX_S = 15.0

votes: Counter[str] = Counter()
listeners: set[asyncio.Event] = set()


async def results() -> AsyncIterator[bytes]:
    changed = asyncio.Event()
    listeners.add(changed)
    try:
        while True:
            changed.clear()
            yield f"data: {votes['yes']} : {votes['no']}\n\n".encode()
            while not changed.is_set():
                try:
                    await asyncio.wait_for(changed.wait(), SILENCE_MAX_S)
                except TimeoutError:
                    yield b": nobody votes\n\n"
    finally:
        listeners.discard(changed)


async def count(socket: http.WebSocket) -> None:
    async for choice in socket:
        if choice not in CHOICES:
            socket.close(1003, "vote yes or no")
            return
        votes[str(choice)] += 1
        for changed in listeners:
            changed.set()
        await socket.send(f"vote {votes.total()} is yours")


async def handler(request: http.Request) -> http.Response | None:
    if request.path == "/":
        return http.Response(PAGE, content_type="text/html; charset=utf-8")
    if request.path == "/results":
        headers = {"cache-control": "no-cache"}
        return http.Response(results(), headers=headers, content_type="text/event-stream")
    if request.path == "/votes" and request.is_websocket:
        await count(request.websocket())
        return None
    return http.Response("not here\n", status=404)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in the threads of the server, too
    with http.Server(handler, "127.0.0.1", options.port) as server:
        print(f"listening on port {server.port}", flush=True)
        signal.sigwait(ends)
        server.close(0)  # results never end


if __name__ == "__main__":
    main()
