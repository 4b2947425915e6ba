"""One application server on one loop; the child of run.py. Says its address, then serves."""

import argparse
import asyncio
import importlib.util
import json
import signal
import socket

from netpoll.bench.arms import ARMS
from netpoll.bench.errors import ArmUnavailable
from netpoll.bench.process import die_with_parent
from netpoll.bench.server import listening_socket, raise_fd_limit
from netpoll.bench.tcp import connect

PIECE_BYTES = 64 * 1024


async def serve_proxy(listener: socket.socket, upstream: tuple[str, int]) -> None:
    """Carries bytes between each client and a connection of its own to `upstream`."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(PIECE_BYTES):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(sock=connect(upstream))
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    async with await asyncio.start_server(serve, sock=listener):
        await asyncio.Event().wait()


async def hello(scope: dict, receive: object, send: object) -> None:
    """The smallest ASGI application."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


async def serve_uvicorn(listener: socket.socket, upstream: object) -> None:
    import uvicorn

    config = uvicorn.Config(hello, loop="none", lifespan="off", log_level="error", access_log=False)
    await uvicorn.Server(config).serve(sockets=[listener])


async def serve_aiohttp(listener: socket.socket, upstream: object) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    await asyncio.Event().wait()


async def serve_sendfile(listener: socket.socket, path: str) -> None:
    """Sends the file at `path` to each client, one after the other."""
    loop = asyncio.get_running_loop()
    with open(path, "rb") as file:
        while True:
            client, _ = await loop.sock_accept(listener)
            with client:
                await loop.sock_sendfile(client, file, fallback=False)


APPS = {
    "proxy": serve_proxy,
    "uvicorn": serve_uvicorn,
    "aiohttp": serve_aiohttp,
    "sendfile": serve_sendfile,
}
THIRD_PARTY = ("uvicorn", "aiohttp")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", choices=APPS, required=True)
    parser.add_argument("--arm", choices=ARMS, required=True)
    parser.add_argument("--upstream", type=json.loads, help='["127.0.0.1", 1234], or "path"')
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    raise_fd_limit()
    if options.app in THIRD_PARTY and importlib.util.find_spec(options.app) is None:
        print(json.dumps({"unavailable": f"{options.app} is not installed"}), flush=True)
        return
    try:
        loop = ARMS[options.arm].new_loop()
    except ArmUnavailable as reason:
        print(json.dumps({"unavailable": str(reason)}), flush=True)
        return
    listener = listening_socket("tcp")
    print(json.dumps({"address": listener.getsockname()}), flush=True)
    loop.run_until_complete(APPS[options.app](listener, options.upstream))


if __name__ == "__main__":
    main()
