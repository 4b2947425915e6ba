"""The server of test_soak.py, in a process of its own, so that its memory is nobody else's.

    python -m tests.http.soak_server BACKEND DIRECTORY

DIRECTORY has the files that are served, and cert.pem. It prints a line with the ports, by name, and
for each line that it reads one with its figures; at the end of its input it stops.
"""

import asyncio
import gc
import json
import logging
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

from netpoll import http

from ..regress.test_growth import rss_bytes

PIECE_BYTES = 16_384


def pattern(count: int, seed: int) -> bytes:
    """So many bytes that tell one answer from another."""
    piece = bytes((seed + i) % 251 for i in range(251 * 4))
    return (piece * (count // len(piece) + 1))[:count]


class AsgiApplication:
    """Does what the path says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self.talk(receive, send)
            return
        word, *numbers = scope["path"][1:].split("/")
        await getattr(self, f"do_{word}")(receive, send, *map(int, numbers))

    async def talk(self, receive: Any, send: Any) -> None:
        """Says what it is told, until the client goes away."""
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})

    async def do_echo(self, receive: Any, send: Any) -> None:
        """The body, while it arrives."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    async def do_bytes(self, receive: Any, send: Any, count: int, seed: int) -> None:
        data = pattern(count, seed)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for at in range(0, count, PIECE_BYTES):
            piece = data[at : at + PIECE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def do_whole(self, receive: Any, send: Any, count: int, seed: int) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": pattern(count, seed)})

    async def do_file(self, receive: Any, send: Any, number: int) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        path = str(self.directory / f"file{number}")
        await send({"type": "http.response.pathsend", "path": path})

    async def do_events(self, receive: Any, send: Any) -> None:
        """Events until the client goes away."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.ensure_future(receive())
        try:
            while not gone.done():
                await send(
                    {"type": "http.response.body", "body": b"data: x\n\n", "more_body": True}
                )
                await asyncio.wait([gone], timeout=0.01)
        finally:
            gone.cancel()

    async def do_wait(self, receive: Any, send: Any, milliseconds: int) -> None:
        await asyncio.sleep(milliseconds / 1000)
        await self.do_whole(receive, send, 10, 1)

    async def do_fail(self, receive: Any, send: Any) -> None:
        raise RuntimeError("the application fails")

    async def do_break(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
        raise RuntimeError("the application fails within its answer")


def raw_handler(directory: Path) -> Any:
    async def pieces(count: int, seed: int) -> AsyncIterator[bytes]:
        for piece in pieces_of(count, seed):
            yield piece

    async def handler(request: http.Request) -> Any:
        if request.is_websocket:
            websocket = request.websocket()
            async for message in websocket:
                await websocket.send(message)
            return None
        word, *words = request.path[1:].split("/")
        numbers = [int(one) for one in words]
        if word == "echo":
            return http.Response([piece async for piece in request])
        if word == "bytes":
            return http.Response(pieces(*numbers))
        if word == "whole":
            return http.Response(pattern(*numbers))
        if word == "file":
            return http.Response(directory / f"file{numbers[0]}")
        if word == "wait":
            await asyncio.sleep(numbers[0] / 1000)
            return http.Response(pattern(10, 1))
        raise RuntimeError("the handler fails")

    return handler


class WsgiApplication:
    """The same for WSGI. An upload is read while it arrives, and answered as it is read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        word, *words = environ["PATH_INFO"][1:].split("/")
        numbers = [int(one) for one in words]
        if word == "fail":
            raise RuntimeError("the application fails")
        start_response("200 OK", [])
        if word == "echo":
            return iter(lambda: environ["wsgi.input"].read(PIECE_BYTES), b"")
        if word == "bytes":
            return pieces_of(*numbers)
        if word == "whole":
            return [pattern(*numbers)]
        if word == "file":
            file = open(self.directory / f"file{numbers[0]}", "rb")
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, PIECE_BYTES)
            return wrapped
        if word == "break":
            return self.broken()
        time.sleep(numbers[0] / 1000)
        return [pattern(10, 1)]

    def broken(self) -> Iterator[bytes]:
        yield b"x" * 100
        raise RuntimeError("the application fails within its answer")


def pieces_of(count: int, seed: int) -> Iterator[bytes]:
    data = pattern(count, seed)
    for at in range(0, count, PIECE_BYTES):
        yield data[at : at + PIECE_BYTES]


def figures(servers: list[http.Server]) -> dict[str, Any]:
    gc.collect()
    return {
        "rss_bytes": rss_bytes(),
        "fds": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
        "connections": sum(server.stats()["connections"] for server in servers),
    }


def main() -> None:
    backend, directory = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.ERROR)  # of the failures that are asked for
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem")
    asgi, raw, wsgi = AsgiApplication(directory), raw_handler(directory), WsgiApplication(directory)
    options: dict[str, Any] = {"backend": backend, "lifespan": "off"}
    servers = {
        "asgi": http.Server(asgi, "127.0.0.1", 0, **options),
        "asgi_tls": http.Server(asgi, "127.0.0.1", 0, ssl=context, **options),
        "raw": http.Server(raw, "127.0.0.1", 0, **options),
        "wsgi": http.Server(wsgi, "127.0.0.1", 0, interface="wsgi", threads=8, **options),
        "raw_tls": http.Server(raw, "127.0.0.1", 0, ssl=context, **options),
    }
    for server in servers.values():
        server.start()
    print(json.dumps({name: server.port for name, server in servers.items()}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(figures(list(servers.values()))), flush=True)
    for server in servers.values():
        server.close(1)


if __name__ == "__main__":
    main()
