"""A line protocol with a session per connection: "set key value", "get key", "quit".

Usage:

    python examples/server/lines.py [--port 8000]
"""

import argparse
import asyncio

import netpoll

values: dict[bytes, bytes] = {}


async def session(conn: netpoll.Connection) -> None:
    while True:
        try:
            line = await conn.read_until(b"\n")
        except asyncio.LimitOverrunError:
            conn.write(b"error: the line is too long\n")
            return
        match line.split():
            case [b"set", key, value]:
                values[key] = value
                conn.write(b"ok\n")
            case [b"get", key]:
                conn.writev([values.get(key, b"nothing"), b"\n"])
            case [b"quit"]:
                conn.write(b"bye\n")
                return
            case [] if not line:  # the end of the stream
                return
            case _:
                conn.write(b"error: what?\n")
        await conn.drain()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    netpoll.serve(
        session,
        "127.0.0.1",
        options.port,
        limits=netpoll.ServerLimits(idle_timeout_s=60, unread_max_bytes=64 * 1024),
        ready=lambda server: print(f"listening on port {server.port}", flush=True),
    )


if __name__ == "__main__":
    main()
