"""``bench broadcast``: each line of one connection goes to all connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import netpoll
from netpoll.bench.relay import Address, RelayKind

__all__ = ["KIND", "BroadcastKind"]

LISTENERS, LINE_BYTES, LINES, LINE_PAUSE_S = 200, 1024, 160, 0.002


class Member(asyncio.Protocol):
    """Of the broadcast: each line goes to everybody."""

    members: set[Any] = set()
    rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.members.add(transport)
        transport.write(b"!")

    def data_received(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            whole = line + b"\n"
            for member in self.members:
                member.write(whole)

    def connection_lost(self, error: Exception | None) -> None:
        self.members.discard(self.transport)


def broadcast_hooks() -> dict[str, Any]:
    members: set[netpoll.Connection] = set()

    def on_connect(conn: netpoll.Connection) -> None:
        members.add(conn)
        conn.write(b"!")

    def on_data(conn: netpoll.Connection) -> None:
        while (line := conn.take_line()) is not None:
            for member in members:
                member.write(line)

    def on_close(conn: netpoll.Connection, error: BaseException | None) -> None:
        members.discard(conn)

    return {"handler": on_data, "on_connect": on_connect, "on_close": on_close}


class BroadcastKind(RelayKind):
    """lines_at_once: how many lines are written with one call."""

    name = "broadcast"
    what = "a line of 1 KiB at a time to 200 connections; ns per line and connection"
    lines_at_once: ClassVar[int] = 1

    def load(self, address: Address) -> int:
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(address)) for _ in range(LISTENERS)
            ]
            for client in clients:
                client.settimeout(20)
                client.recv(1)  # the greeting: it is a member

            def read() -> None:
                for client in clients:
                    left = LINES * LINE_BYTES
                    while left and (got := len(client.recv(min(left, 1 << 20)))):
                        left -= got

            reader = threading.Thread(target=read)
            reader.start()
            lines = (b"x" * (LINE_BYTES - 1) + b"\n") * self.lines_at_once
            for _ in range(LINES // self.lines_at_once):
                clients[0].sendall(lines)
                time.sleep(LINE_PAUSE_S * self.lines_at_once)
            reader.join()
        return LISTENERS * LINES

    def protocol(self, far: Address) -> Callable[[], asyncio.Protocol]:
        return Member

    def server_options(self, far: Address) -> dict[str, Any]:
        return broadcast_hooks()


KIND = BroadcastKind()
