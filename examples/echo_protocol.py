"""An echo server with an asyncio.Protocol: the fastest of asyncio's ways.

Usage:

    python examples/echo_protocol.py --port 8888
    printf 'hello\\n' | nc -N 127.0.0.1 8888
"""

import argparse
import asyncio

import netpoll


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    # A client that reads too slowly stops us from reading more, instead of filling our memory.
    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


async def main(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, host, port)
    address, bound_port = server.sockets[0].getsockname()[:2]
    print(f"echoing on {address}:{bound_port} with {loop.backend}", flush=True)
    try:
        await asyncio.get_running_loop().create_future()  # until Ctrl-C cancels this task
    finally:
        server.close()  # and no wait_closed(): it would wait for every guest to leave


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--backend", default="auto", choices=["auto", "uring", "epoll"])
    options = parser.parse_args()
    try:
        netpoll.run(main(options.host, options.port), backend=options.backend)
    except KeyboardInterrupt:
        print("stopped")
