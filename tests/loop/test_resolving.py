"""getaddrinfo, getnameinfo, happy eyeballs, Unix servers: what comes before a connection."""

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ..support import Echo, Recorder, until

pytestmark = pytest.mark.control

NUMERIC = [
    ("127.0.0.1", 80),
    ("127.0.0.1", "80"),
    (b"127.0.0.1", b"80"),
    ("::1", 443),
    ("::ffff:1.2.3.4", None),
    (None, 80),
    ("fe80::1%1", 80),
]


@pytest.mark.parametrize(("host", "port"), NUMERIC)
async def test_numeric_addresses(loop: Any, host: Any, port: Any) -> None:
    for hints in ({}, {"type": socket.SOCK_STREAM}, {"type": socket.SOCK_DGRAM, "proto": 17}):
        assert await loop.getaddrinfo(host, port, **hints) == socket.getaddrinfo(
            host, port, **hints
        )


@pytest.mark.netpoll_only
@pytest.mark.parametrize(("host", "port"), NUMERIC)
async def test_numeric_addresses_need_no_thread(loop: Any, host: Any, port: Any) -> None:
    before = threading.active_count()
    await loop.getaddrinfo(host, port)
    await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    assert threading.active_count() == before


@pytest.mark.parametrize("host", ["localhost", "", "1.2.3.4.example.invalid", "127.1", ":::"])
async def test_names(loop: Any, host: str) -> None:
    try:
        expected = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
    except socket.gaierror:
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
    else:
        assert await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM) == expected


async def test_errors_of_numeric_addresses(loop: Any) -> None:
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("127.0.0.1", 80, family=socket.AF_INET6)
    with pytest.raises(socket.gaierror):
        await loop.getaddrinfo("::1", 80, family=socket.AF_INET)
    with pytest.raises(OSError, match="String expected"):
        await loop.getaddrinfo("127.0.0.1", 1.5)


async def test_services(loop: Any) -> None:
    try:
        expected = socket.getaddrinfo("127.0.0.1", "http", type=socket.SOCK_STREAM)
    except socket.gaierror:
        pytest.skip("this system has no /etc/services")
    assert await loop.getaddrinfo("127.0.0.1", "http", type=socket.SOCK_STREAM) == expected


async def test_getnameinfo(loop: Any) -> None:
    for flags in (0, socket.NI_NUMERICHOST, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV):
        for address in (("127.0.0.1", 80), ("::1", 80, 0, 0)):
            expected = socket.getnameinfo(address, flags)
            assert await loop.getnameinfo(address, flags) == expected


# ---- connecting to one of several addresses ---------------------------------------------------


def refusing() -> tuple[str, int]:
    """An address at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()


def stalling() -> tuple[socket.socket, list[socket.socket]]:
    """A listener with a full backlog: connecting to it neither succeeds nor fails."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    clients = []
    for _ in range(3):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        clients.append(client)
    return listener, clients


def resolve_to(loop: Any, *addresses: tuple[str, int]) -> None:
    async def resolved(*_args: Any, **_hints: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    loop.getaddrinfo = resolved


async def test_happy_eyeballs_does_not_wait_for_the_first(loop: Any) -> None:
    """RFC 8305: the second address is tried while the first one says nothing."""
    listener, clients = stalling()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    good = server.sockets[0].getsockname()
    resolve_to(loop, listener.getsockname(), good)
    start_s = loop.time()
    transport, protocol = await loop.create_connection(
        Recorder, "two.example", 80, happy_eyeballs_delay=0.05
    )
    assert transport.get_extra_info("peername") == good
    assert loop.time() - start_s >= 0.049
    transport.close()
    await protocol.lost
    server.close()
    for sock in (listener, *clients):
        sock.close()


async def test_the_next_address_after_a_refusal(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    good = server.sockets[0].getsockname()
    resolve_to(loop, refusing(), refusing(), good)
    for delay in (None, 10.0):  # a refusal does not wait for the delay
        transport, protocol = await loop.create_connection(
            Recorder, "three.example", 80, happy_eyeballs_delay=delay, interleave=1
        )
        assert transport.get_extra_info("peername") == good
        transport.close()
        await protocol.lost
    server.close()


async def test_every_address_refuses(loop: Any) -> None:
    resolve_to(loop, refusing(), refusing())
    with pytest.raises(OSError, match="Connect call failed"):
        await loop.create_connection(Recorder, "two.example", 80)
    with pytest.raises(OSError, match="Connect call failed"):
        await loop.create_connection(Recorder, "two.example", 80, happy_eyeballs_delay=0.01)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all_errors is new in 3.12")
async def test_all_errors(loop: Any) -> None:
    resolve_to(loop, refusing(), refusing())
    with pytest.raises(ExceptionGroup) as caught:
        await loop.create_connection(Recorder, "two.example", 80, all_errors=True)
    assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError] * 2


async def test_local_address(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    transport, protocol = await loop.create_connection(
        Recorder, *address, local_addr=("127.0.0.2", 0)
    )
    assert transport.get_extra_info("sockname")[0] == "127.0.0.2"
    transport.close()
    await protocol.lost
    with pytest.raises(OSError, match=r"bind|assign"):
        await loop.create_connection(Recorder, *address, local_addr=("192.0.2.1", 0))
    server.close()


async def test_cancelled_while_connecting(loop: Any) -> None:
    """Nothing is left of it: the fixtures look for its descriptors and operations."""
    listener, clients = stalling()
    resolve_to(loop, listener.getsockname(), listener.getsockname())
    for delay in (None, 0.001):
        task = asyncio.ensure_future(
            loop.create_connection(Recorder, "x.example", 80, happy_eyeballs_delay=delay)
        )
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    for sock in (listener, *clients):
        sock.close()


# ---- Unix servers -----------------------------------------------------------------------------


async def talk(loop: Any, path: Any) -> None:
    transport, protocol = await loop.create_unix_connection(Recorder, path)
    transport.write(b"hello")
    await until(lambda: protocol.data == b"hello")
    transport.close()
    await protocol.lost


@pytest.mark.parametrize("kind", ["str", "bytes", "Path", "abstract", "abstract bytes"])
async def test_unix_paths(loop: Any, tmp_path: Path, kind: str) -> None:
    name = f"\0netpoll test {os.getpid()} {id(loop)}"
    path = {
        "str": str(tmp_path / "s"),
        "bytes": os.fsencode(tmp_path / "s"),
        "Path": tmp_path / "s",
        "abstract": name,
        "abstract bytes": name.encode(),
    }[kind]
    server = await loop.create_unix_server(Echo, path)
    await talk(loop, path)
    with pytest.raises(OSError):
        if kind.startswith("abstract"):
            await loop.create_unix_server(Echo, path)
        else:
            await loop.create_unix_connection(Recorder, str(tmp_path / "other"))
    server.close()
    await server.wait_closed()


async def test_stale_sockets_are_replaced_and_files_are_not(loop: Any, tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "stale"))
    stale.close()
    server = await loop.create_unix_server(Echo, tmp_path / "stale")
    await talk(loop, tmp_path / "stale")
    server.close()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        await loop.create_unix_server(Echo, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="cleanup_socket is new in 3.13")
async def test_cleanup_socket(loop: Any, tmp_path: Path) -> None:
    server = await loop.create_unix_server(Echo, tmp_path / "gone")
    server.close()
    assert not (tmp_path / "gone").exists()
    server = await loop.create_unix_server(Echo, tmp_path / "kept", cleanup_socket=False)
    server.close()
    assert (tmp_path / "kept").exists()


# ---- the executor -----------------------------------------------------------------------------


async def test_shutdown_default_executor(loop: Any) -> None:
    assert await loop.run_in_executor(None, lambda: 42) == 42
    await loop.shutdown_default_executor()
    with pytest.raises(RuntimeError, match="shutdown"):
        loop.run_in_executor(None, print)


@pytest.mark.skipif(sys.version_info < (3, 12, 2), reason="the timeout does not work before 3.12.2")
async def test_shutdown_default_executor_gives_up(loop: Any) -> None:
    done = threading.Event()
    waiting = loop.run_in_executor(None, done.wait)
    try:
        with pytest.warns(RuntimeWarning, match="did not finish"):
            await loop.shutdown_default_executor(timeout=0.05)
    finally:
        done.set()
    await waiting
