"""An echo server with asyncio streams: not a line differs from a program for asyncio's own loop.

Usage:

    python examples/echo_streams.py --port 8888
    printf 'hello\\n' | nc -N 127.0.0.1 8888
"""

import argparse
import asyncio

import netpoll


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the client went away in the middle: nobody is left to tell
    finally:
        writer.close()


async def main(host: str, port: int) -> None:
    server = await asyncio.start_server(echo, host, port)
    address, bound_port = server.sockets[0].getsockname()[:2]
    backend = asyncio.get_running_loop().backend
    print(f"echoing on {address}:{bound_port} with {backend}", flush=True)
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
