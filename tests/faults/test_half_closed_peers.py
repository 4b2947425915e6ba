"""A peer that has shut its sending side and does not read: whoever has something to send waits.

io_uring's POLL reports POLLRDHUP whatever was asked for. A wait for room then ended at once, each
time: one such peer kept a server at 100 % CPU.
"""

import asyncio
import socket
import time
from typing import Any

import pytest

import netpoll

from ..support import listener, until

SENT_BYTES = 8 << 20
TURNS_MAX_COUNT = 50  # the loop made 700 000 in the second that is waited here


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Connected, both nonblocking."""
    with listener() as listening:
        left = socket.create_connection(listening.getsockname())
        right, _ = listening.accept()
    left.setblocking(False)
    right.setblocking(False)
    return left, right


async def turns_of_a_wait(loop: Any) -> int:
    await asyncio.sleep(0.2)
    before = loop.stats()["turns"]
    await asyncio.sleep(0.5)
    turns: int = loop.stats()["turns"] - before
    return turns


async def read_all(loop: Any, peer: socket.socket) -> int:
    got = 0
    while data := await loop.sock_recv(peer, 1 << 20):
        got += len(data)
    return got


async def test_a_transport(loop: Any) -> None:
    ours, peer = tcp_pair()

    class Stays(asyncio.Protocol):
        def eof_received(self) -> bool:
            return True

    transport, _ = await loop.create_connection(Stays, sock=ours)
    peer.shutdown(socket.SHUT_WR)
    transport.write(bytes(SENT_BYTES))
    assert await turns_of_a_wait(loop) < TURNS_MAX_COUNT
    transport.close()
    assert await read_all(loop, peer) == SENT_BYTES
    peer.close()


async def test_sock_sendall(loop: Any) -> None:
    ours, peer = tcp_pair()
    peer.shutdown(socket.SHUT_WR)
    task = loop.create_task(loop.sock_sendall(ours, bytes(SENT_BYTES)))
    assert await turns_of_a_wait(loop) < TURNS_MAX_COUNT
    reading = loop.create_task(read_all(loop, peer))
    await task
    ours.close()
    assert await reading == SENT_BYTES
    peer.close()


async def test_a_cancelled_wait(loop: Any) -> None:
    ours, peer = tcp_pair()
    peer.shutdown(socket.SHUT_WR)
    task = loop.create_task(loop.sock_sendall(ours, bytes(SENT_BYTES)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    ours.close()
    peer.close()


async def test_add_writer(loop: Any) -> None:
    ours, peer = tcp_pair()
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(BlockingIOError):
        while True:
            ours.send(bytes(1 << 20))
    calls: list[int] = []
    loop.add_writer(ours, calls.append, 1)
    assert await turns_of_a_wait(loop) < TURNS_MAX_COUNT
    assert not calls
    reading = loop.create_task(read_all(loop, peer))
    await until(lambda: len(calls) > 3)  # writable, and so it stays
    loop.remove_writer(ours)
    ours.close()
    assert await reading
    peer.close()


def test_a_server(backend: str) -> None:
    def on_data(conn: netpoll.Connection) -> None:
        conn.skip()
        conn.write(bytes(SENT_BYTES))

    with netpoll.Server(
        on_data,
        "127.0.0.1",
        0,
        backend=backend,
        limits=netpoll.ServerLimits(pending_max_bytes=2 * SENT_BYTES),
    ) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.send(b"?")
        client.shutdown(socket.SHUT_WR)
        time.sleep(0.2)
        before = server.stats()["enters"]
        time.sleep(0.5)
        assert server.stats()["enters"] - before < TURNS_MAX_COUNT
        client.settimeout(20)
        got = 0
        while data := client.recv(1 << 20):
            got += len(data)
        assert got == SENT_BYTES
        client.close()
