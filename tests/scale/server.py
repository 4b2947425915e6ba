"""An echo server in a process of its own, for tests.scale: python -m tests.scale.server ARM

It prints a line with its port, and answers each line of its input: `count` with the number of its
connections, `close` with the seconds that it needs to close all of them.
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import netpoll

BACKLOG = 65_535
STREAMS = ("asyncio", "uvloop")  # and netpoll's own loop: protocols
ARMS = ("server-uring", "server-epoll", "loop-uring", "loop-epoll", *STREAMS)


class Echo(asyncio.Protocol):
    transports: set[Any] = set()  # noqa: RUF012 - of all connections of this process

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.transports.add(transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.transports.discard(self.transport)


def listener() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(BACKLOG)
    return sock


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def serve_connections(backend: str) -> None:
    """`netpoll.Server`, whose one worker is a thread; commands are read in this one."""
    sock = listener()
    server = netpoll.Server(lambda conn: conn.forward(), sockets=[sock], backend=backend)
    server.start()
    say(port=sock.getsockname()[1])
    for line in sys.stdin:
        if line.strip() == "count":
            say(connections=server.stats()["connections"])
        else:
            start_s = time.monotonic()
            server.close(0)
            say(seconds=time.monotonic() - start_s)
            return


def new_loop(arm: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if arm == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    if arm == "asyncio":
        return asyncio.new_event_loop
    return lambda: netpoll.EventLoop(backend=arm.removeprefix("loop-"))


async def serve_protocols() -> None:
    loop = asyncio.get_running_loop()
    sock = listener()
    server = await loop.create_server(Echo, sock=sock, backlog=BACKLOG)
    say(port=sock.getsockname()[1])
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(0, lambda: lines.put_nowait(sys.stdin.readline()))
    while line := (await lines.get()).strip():
        if line == "count":
            say(connections=len(Echo.transports))
            continue
        start_s = time.monotonic()
        server.close()
        for transport in list(Echo.transports):
            transport.abort()
        while Echo.transports:
            await asyncio.sleep(0)
        say(seconds=time.monotonic() - start_s)
        return


def main() -> None:
    arm = sys.argv[1]
    if arm.startswith("server-"):
        serve_connections(arm.removeprefix("server-"))
        return
    with asyncio.Runner(loop_factory=new_loop(arm)) as runner:
        runner.run(serve_protocols())


if __name__ == "__main__":
    main()
