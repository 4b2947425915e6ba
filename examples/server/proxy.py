"""A TCP proxy: received memory goes straight out on the other side, without a copy.

    python examples/server/proxy.py HOST PORT [--port 8000]

A side that does not read makes the other side wait: the memory in between is bounded.
"""

import argparse
import asyncio
import functools
import socket

import netpoll

PENDING_MAX_BYTES = 512 * 1024


async def connect_upstream(conn: netpoll.Connection, address: tuple[str, int]) -> None:
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
        upstream = conn.adopt(sock)
    except OSError as error:
        sock.close()
        conn.abort(error)
        return
    conn.state, upstream.state = upstream, conn
    conn.resume_reading()


def on_connect(conn: netpoll.Connection, address: tuple[str, int]) -> None:
    conn.pause_reading()  # until there is somebody to give it to
    conn.state = conn.loop.create_task(connect_upstream(conn, address))


def on_data(conn: netpoll.Connection) -> None:
    other = conn.state
    other.forward(conn.lease())
    if other.pending > PENDING_MAX_BYTES:
        conn.pause_reading()
        conn.loop.create_task(resume_later(conn, other))


async def resume_later(conn: netpoll.Connection, other: netpoll.Connection) -> None:
    try:
        await other.drain()
        conn.resume_reading()
    except ConnectionError:
        pass  # one side is gone, and the other one hears of it


def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
    other, conn.state = conn.state, None
    if isinstance(other, netpoll.Connection):
        other.close()
    elif isinstance(other, asyncio.Task):
        other.cancel()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("upstream_port", type=int)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    netpoll.serve(
        on_data,
        "127.0.0.1",
        options.port,
        on_connect=functools.partial(on_connect, address=(options.host, options.upstream_port)),
        on_close=on_close,
        config=netpoll.LoopConfig(buf_count=16, buf_bytes=128 * 1024),
        ready=lambda server: print(f"listening on port {server.port}", flush=True),
    )


if __name__ == "__main__":
    main()
