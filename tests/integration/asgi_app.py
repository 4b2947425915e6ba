"""The ASGI application that the servers under test serve; no framework, so that it runs anywhere.

/loop says which loop it runs on, /checksum digests a request's body, /bytes streams a body whose
bytes the client knows, /fail raises, and a WebSocket echoes. When the process ends, the counters of
the loop that it ran on are looked at, and what is not zero is printed.
"""

import asyncio
import atexit
import hashlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from ..conftest import ZERO_COUNTERS
from ..support import pattern

CHUNK_BYTES = 64 * 1024

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def _report(loop: Any) -> None:
    if not loop.is_closed():
        print(f"counter after close: the loop of {os.getpid()} is not closed", file=sys.stderr)
        return
    stats = loop.stats()
    left = {name: stats[name] for name in ZERO_COUNTERS if stats[name]}
    if stats["bufs_free"] != stats["bufs_total"]:
        left["bufs_free"] = stats["bufs_free"]
    if left:
        print(f"counter after close: {left}", file=sys.stderr)
    else:
        print(f"counters of {os.getpid()} are zero", file=sys.stderr)


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _echo(receive, send)
    elif scope["path"] == "/loop":
        loop: Any = asyncio.get_running_loop()
        answer = {
            "module": type(loop).__module__,
            "backend": getattr(loop, "backend", None),
            "pid": os.getpid(),
        }
        await _respond(send, json.dumps(answer).encode())
    elif scope["path"] == "/checksum":
        await _checksum(receive, send)
    elif scope["path"] == "/bytes":
        await _bytes(int(parse_qs(scope["query_string"].decode())["count"][0]), send)
    elif scope["path"] == "/fail":
        raise ValueError("asked for")
    else:
        await _respond(send, b"not here", 404)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            atexit.register(_report, asyncio.get_running_loop())
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _respond(send: Send, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _checksum(receive: Receive, send: Send) -> None:
    digest = hashlib.sha256()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message.get("body", b""))
        if not message.get("more_body"):
            break
    await _respond(send, digest.hexdigest().encode())


async def _bytes(count: int, send: Send) -> None:
    body = memoryview(pattern(count))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for start in range(0, count, CHUNK_BYTES):
        part = bytes(body[start : start + CHUNK_BYTES])
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _echo(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            content = {key: message[key] for key in ("bytes", "text") if message.get(key)}
            await send({"type": "websocket.send", **content})
        else:
            return
