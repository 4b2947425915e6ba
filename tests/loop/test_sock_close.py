"""A socket that is closed while a sock_* call waits on it stays open until the call has ended.

As uvloop does it. On asyncio's own loop the call waits for ever, or for whoever gets the number.
"""

import asyncio
import contextlib
import os
import socket
from typing import Any

import pytest

from ..support import make_loop, socket_pair, unix_pair

netpoll = pytest.importorskip("netpoll", reason="the control lane runs without netpoll")


def is_open(fd: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(fd)
        return True
    return False


async def test_the_call_ends_then_the_socket(loop: Any) -> None:
    left, right = unix_pair()
    fd = right.fileno()
    first = asyncio.ensure_future(loop.sock_recv(right, 10))
    second = asyncio.ensure_future(loop.sock_recv_into(right, bytearray(10)))
    await asyncio.sleep(0)
    right.close()
    assert is_open(fd)
    left.send(b"one")
    done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    assert is_open(fd)
    left.close()
    await asyncio.wait([first, second])
    assert {len(first.result()), second.result()} in ({3, 0}, {0, 3})
    assert right.fileno() == -1
    assert not is_open(fd)


async def test_a_cancelled_call_lets_go(loop: Any) -> None:
    left, right = unix_pair()
    fd = right.fileno()
    waiting = asyncio.ensure_future(loop.sock_recv(right, 10))
    await asyncio.sleep(0)
    right.close()
    assert is_open(fd)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert right.fileno() == -1
    assert not is_open(fd)
    left.close()


async def test_a_large_send_goes_on(loop: Any) -> None:
    left, right = socket_pair()
    data = bytes(8 << 20)
    sending = asyncio.ensure_future(loop.sock_sendall(left, data))
    await asyncio.sleep(0)
    left.close()
    assert not sending.done()
    got = 0
    while part := await loop.sock_recv(right, 1 << 20):
        got += len(part)
    assert got == len(data)
    await sending
    assert left.fileno() == -1
    right.close()


async def test_a_detached_socket_is_not_touched(loop: Any) -> None:
    left, right = unix_pair()
    waiting = asyncio.ensure_future(loop.sock_recv(right, 10))
    await asyncio.sleep(0)
    other = socket.socket(fileno=right.detach())
    left.send(b"for other")
    with pytest.raises(OSError, match="detached meanwhile"):
        await waiting
    assert other.recv(10) == b"for other"
    other.close()
    left.close()


def test_closing_the_loop_lets_go(backend: str) -> None:
    left, right = unix_pair()
    loop = make_loop(backend)
    waiting = loop.create_task(loop.sock_recv(right, 10))
    loop.run_until_complete(asyncio.sleep(0))
    right.close()
    assert right.fileno() != -1
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert right.fileno() == -1
    left.close()
