"""getaddrinfo and getnameinfo."""

import asyncio
import socket
import threading
from typing import Any

import pytest

pytestmark = pytest.mark.control


async def test_getaddrinfo_is_the_sockets_own(loop: Any) -> None:
    for host, port, more in (
        ("127.0.0.1", 80, {}),
        ("127.0.0.1", "http", {"type": socket.SOCK_STREAM}),
        ("::1", 80, {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP}),
        ("localhost", 80, {"family": socket.AF_INET, "type": socket.SOCK_DGRAM}),
        (None, 80, {"flags": socket.AI_PASSIVE, "type": socket.SOCK_STREAM}),
        (b"127.0.0.1", b"80", {}),
        ("127.0.0.1", None, {}),
    ):
        try:
            wanted = socket.getaddrinfo(host, port, **more)
        except socket.gaierror:  # bare systems have no /etc/services
            with pytest.raises(socket.gaierror):
                await loop.getaddrinfo(host, port, **more)
        else:
            assert await loop.getaddrinfo(host, port, **more) == wanted, (host, port, more)


async def test_getaddrinfo_errors(loop: Any) -> None:
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("no such name.invalid", 80)
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("localhost", "no-such-service")
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("example.com", 80, flags=socket.AI_NUMERICHOST)


async def test_getnameinfo(loop: Any) -> None:
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert await loop.getnameinfo(("127.0.0.1", 80), flags) == ("127.0.0.1", "80")
    assert await loop.getnameinfo(("::1", 80, 0, 0), flags) == ("::1", "80")
    with pytest.raises(TypeError):
        await loop.getnameinfo("127.0.0.1")


async def test_many_at_once(loop: Any) -> None:
    wanted = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    many = await asyncio.gather(
        *(loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM) for _ in range(50))
    )
    assert all(got == wanted for got in many)


async def test_cancelled_lookup(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the resolver is still at it: its thread is left to end by itself."""
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30))
    task = asyncio.ensure_future(loop.getaddrinfo("localhost", 80))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answered.set()
