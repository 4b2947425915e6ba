"""``bench accept``: connections that come, have one message echoed, and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import netpoll
from netpoll.bench._native import Load
from netpoll.bench.relay import Address, RelayKind

__all__ = ["KIND"]

CROWD, CROWDS = 500, 4  # connections at once, and how often
MESSAGE_BYTES = 64


class EchoSide(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def forward(conn: netpoll.Connection) -> None:
    conn.forward()


class Accept(RelayKind):
    name = "accept"
    what = "connect, 64 B there and back, close; ns per connection"

    def load(self, address: Address) -> int:
        for _ in range(CROWDS):
            with Load(address, CROWD, MESSAGE_BYTES, stall_s=10.0, reset_on_close=True) as load:
                load.run(0)
        return CROWDS * CROWD

    def protocol(self, far: Address) -> Callable[[], asyncio.Protocol]:
        return EchoSide

    def server_options(self, far: Address) -> dict[str, Any]:
        return {"handler": forward}


KIND = Accept()
