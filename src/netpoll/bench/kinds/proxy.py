"""``bench proxy``: what arrives is sent on to an echo, and its answer back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any

import netpoll
from netpoll.bench._native import Load
from netpoll.bench.relay import Address, RelayKind
from netpoll.bench.tcp import connect

__all__ = ["KIND"]

CONNECTIONS, MESSAGE_BYTES = 16, 64 << 10
WINDOW_S = 0.8
PENDING_MAX_BYTES = 512 << 10


class ProxySide(asyncio.Protocol):
    """One side: what arrives is written to the other."""

    def __init__(self, far: Address | None, other: ProxySide | None = None) -> None:
        self.far, self.other = far, other
        self.early: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.far is not None:
            self.task = asyncio.get_running_loop().create_task(self.connect(self.far))

    async def connect(self, far: Address) -> None:
        loop = asyncio.get_running_loop()
        sock = connect(far)
        _, self.other = await loop.create_connection(lambda: ProxySide(None, self), sock=sock)
        self.other.transport.writelines(self.early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


def proxy_hooks(far: Address) -> dict[str, Any]:
    def on_connect(conn: netpoll.Connection) -> None:
        upstream = conn.adopt(connect(far))
        conn.state, upstream.state = upstream, conn

    def on_data(conn: netpoll.Connection) -> None:
        other = conn.state
        other.forward(conn.lease())
        if other.pending > PENDING_MAX_BYTES:
            conn.pause_reading()
            conn.loop.create_task(resume_later(conn, other))

    async def resume_later(conn: netpoll.Connection, other: netpoll.Connection) -> None:
        with contextlib.suppress(ConnectionError):
            await other.drain()
            conn.resume_reading()

    def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
        other, conn.state = conn.state, None
        if other is not None:
            other.close()

    return {"handler": on_data, "on_connect": on_connect, "on_close": on_close}


class Proxy(RelayKind):
    name = "proxy"
    what = "16 connections × 64 KiB to an echo and back; ns per KiB received"

    def load(self, address: Address) -> int:
        with Load(address, CONNECTIONS, MESSAGE_BYTES, stall_s=10.0) as load:
            return int(load.run(WINDOW_S)["requests_all"]) * MESSAGE_BYTES * 2 // 1024

    def protocol(self, far: Address) -> Callable[[], asyncio.Protocol]:
        return functools.partial(ProxySide, far)

    def server_options(self, far: Address) -> dict[str, Any]:
        return proxy_hooks(far)


KIND = Proxy()
