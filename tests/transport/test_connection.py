"""create_connection: addresses, sockets that are given, happy eyeballs, failures."""

import asyncio
import errno
import resource
import socket
import sys
from typing import Any

import pytest

from ..support import Echo, Recorder, listener, pair, unix_pair, until

pytestmark = pytest.mark.control


async def test_order_of_events_and_return_value(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    transport, protocol = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
    assert protocol.events == ["made"]
    assert protocol.transport is transport
    assert isinstance(transport, asyncio.Transport)
    assert transport.get_protocol() is protocol
    transport.write(b"x")
    await until(lambda: protocol.data)
    transport.close()
    await protocol.lost
    assert protocol.events == ["made", "data", "lost"] and protocol.error is None
    server.close()
    await server.wait_closed()


async def test_refused(loop: Any) -> None:
    """Bug class 5: the failed socket is closed, exactly once."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
        for _ in range(20):
            with pytest.raises(ConnectionRefusedError) as caught:
                await loop.create_connection(Recorder, *address)
            assert caught.value.errno == errno.ECONNREFUSED
            assert str(address[1]) in str(caught.value)


async def test_refused_everywhere_names_every_address(loop: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        async def two(*_args: Any, **_kwargs: Any) -> Any:
            info = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*info, ("127.0.0.1", port)), (*info, ("127.0.0.2", port))]

        loop.getaddrinfo = two
        with pytest.raises(OSError) as caught:
            await loop.create_connection(Recorder, "two.example", port)
        del loop.getaddrinfo
    assert "127.0.0.1" in str(caught.value) and "127.0.0.2" in str(caught.value)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all_errors is new in 3.12")
async def test_all_errors(loop: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ExceptionGroup) as caught:
            await loop.create_connection(Recorder, *closed.getsockname(), all_errors=True)
    assert all(isinstance(error, OSError) for error in caught.value.exceptions)


async def test_the_second_address_is_tried(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def two(*_args: Any, **_kwargs: Any) -> Any:
        info = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*info, ("127.0.0.2", port)), (*info, ("127.0.0.1", port))]

    loop.getaddrinfo = two
    transport, protocol = await loop.create_connection(Recorder, "two.example", port)
    del loop.getaddrinfo
    assert transport.get_extra_info("peername") == ("127.0.0.1", port)
    transport.close()
    await protocol.lost
    server.close()
    await server.wait_closed()


async def test_happy_eyeballs_passes_over_a_black_hole(loop: Any) -> None:
    """The first address never answers (its backlog is full); the second is taken meanwhile."""
    hole = listener(0)
    crowd = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(hole.getsockname())
        crowd.append(sock)
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    good = server.sockets[0].getsockname()

    async def two(host: str, *_args: Any, **_kwargs: Any) -> Any:
        info = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*info, hole.getsockname()), (*info, good)]

    loop.getaddrinfo = two
    transport, protocol = await asyncio.wait_for(
        loop.create_connection(Recorder, "two.example", 1, happy_eyeballs_delay=0.02), 10
    )
    del loop.getaddrinfo
    assert transport.get_extra_info("peername") == good
    transport.close()
    await protocol.lost
    server.close()
    await server.wait_closed()
    for sock in (hole, *crowd):
        sock.close()


async def test_happy_eyeballs_with_one_address(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    transport, protocol = await loop.create_connection(
        Recorder, *server.sockets[0].getsockname(), happy_eyeballs_delay=0.25, interleave=1
    )
    transport.close()
    await protocol.lost
    server.close()
    await server.wait_closed()


async def test_local_addr(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with socket.socket() as free:
        free.bind(("127.0.0.3", 0))
        local = free.getsockname()
    transport, protocol = await loop.create_connection(Recorder, *address, local_addr=local)
    assert transport.get_extra_info("sockname") == local
    transport.close()
    await protocol.lost
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        await loop.create_connection(Recorder, *address, local_addr=("192.0.2.1", 0))
    server.close()
    await server.wait_closed()


async def test_a_connected_socket_that_is_given(loop: Any) -> None:
    """Bug class 5: from now on it has one closer, the transport."""
    left, right = socket.socketpair()
    right.setblocking(False)
    transport, protocol = await loop.create_connection(Recorder, sock=left)
    transport.write(b"out")
    assert await loop.sock_recv(right, 10) == b"out"
    await loop.sock_sendall(right, b"in")
    await until(lambda: protocol.data == b"in")
    transport.close()
    await protocol.lost
    await until(lambda: left.fileno() == -1)
    assert await loop.sock_recv(right, 10) == b""
    right.close()


async def test_wrong_arguments(loop: Any) -> None:
    with pytest.raises(ValueError, match="host and port was not specified and no sock"):
        await loop.create_connection(Recorder)
    left, right = socket.socketpair()
    with pytest.raises(ValueError, match="can not be specified at the same time"):
        await loop.create_connection(Recorder, "127.0.0.1", 1, sock=left)
    left.close()
    right.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        with pytest.raises(ValueError, match="Stream Socket was expected"):
            await loop.create_connection(Recorder, sock=datagram)
    with pytest.raises(ValueError, match="server_hostname"):
        await loop.create_connection(Recorder, "127.0.0.1", 1, server_hostname="x")


async def test_unknown_host(loop: Any) -> None:
    with pytest.raises(socket.gaierror):
        await loop.create_connection(Recorder, "no such name.invalid", 80)


async def test_families(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, protocol = await loop.create_connection(
        Recorder, "localhost", port, family=socket.AF_INET
    )
    transport.close()
    await protocol.lost
    with pytest.raises(OSError):
        await loop.create_connection(Recorder, "127.0.0.1", port, family=socket.AF_INET6)
    server.close()
    await server.wait_closed()


async def test_cancelled_connects_leave_nothing(loop: Any) -> None:
    """Bug classes 3 and 7: cancelled at every stage; fds are counted by the fixture."""
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=512)
    address = server.sockets[0].getsockname()
    for turns in [0, 1, 2, 3, 4, 5, 6, 8, 10] * 10:
        task = asyncio.ensure_future(loop.create_connection(Recorder, *address))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            transport, protocol = task.result()
            transport.close()
            await protocol.lost
    server.close()
    await server.wait_closed()


async def test_a_factory_that_raises(loop: Any) -> None:
    """Bug class 5: the error comes out of create_connection and the socket is closed."""
    server = await loop.create_server(Echo, "127.0.0.1", 0)

    def broken() -> Any:
        raise ZeroDivisionError("factory")

    with pytest.raises(ZeroDivisionError):
        await loop.create_connection(broken, *server.sockets[0].getsockname())
    server.close()
    await asyncio.sleep(0.01)


async def test_connecting_to_oneself_many_times(loop: Any) -> None:
    """Connections made and closed one after the other: every number is reused (bug class 4)."""
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for number in range(300):
        transport, protocol = await loop.create_connection(Recorder, *address)
        message = b"%d." % number
        transport.write(message)
        await until(lambda p=protocol, m=message: p.data == m)
        transport.close()
        await protocol.lost
    server.close()
    await server.wait_closed()


def known(transport: Any) -> tuple[Any, Any]:
    """The names of a connection that has ended, and of whose socket nothing is left."""
    sock = transport.get_extra_info("socket")
    assert isinstance(sock, asyncio.trsock.TransportSocket) and sock.fileno() == -1
    own, peer = (transport.get_extra_info(name, "unknown") for name in ("sockname", "peername"))
    return own, peer


async def over(client: Any, served: Any) -> tuple[Any, Any]:
    """Their transports, when the descriptors are closed. Nobody has asked these before."""
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)
    transports = client.transport, served.transport
    await until(lambda: all(" closed" in repr(transport) for transport in transports))
    return transports


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_names_are_known_when_a_connection_has_ended(loop: Any, host: str) -> None:
    """A log of what was served is written at the end, and says where."""
    made: asyncio.Future[Any] = loop.create_future()

    class Served(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.set_result(self)

    server = await loop.create_server(Served, host, 0)
    address = server.sockets[0].getsockname()
    _, client = await loop.create_connection(Recorder, *address[:2])
    left, right = await over(client, await made)
    server.close()
    own, peer = known(left)
    assert peer == address and len(own) == len(address) and own[0] == host and own[1] > 0
    assert known(right) == (peer, own)


@pytest.mark.parametrize("kind", ["path", "abstract", "none"])
async def test_the_names_of_unix_sockets_are_known_then(
    loop: Any, kind: str, tmp_path: Any
) -> None:
    made: asyncio.Future[Any] = loop.create_future()

    class Served(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.set_result(self)

    name: Any = ""
    if kind == "none":
        left_end, right_end = unix_pair()
        _, client = await loop.create_connection(Recorder, sock=left_end)
        _, _served = await loop.create_connection(Served, sock=right_end)
    else:
        name = str(tmp_path / "sock") if kind == "path" else f"\0names-{tmp_path}"
        server = await loop.create_unix_server(Served, name)
        _, client = await loop.create_unix_connection(Recorder, name)
        name = name if kind == "path" else name.encode()
    left, right = await over(client, await made)
    if kind != "none":
        server.close()
    assert known(left) == ("", name)
    assert known(right) == (name, "")


@pytest.mark.netpoll_only
async def test_a_socket_that_cannot_be_shown_any_more(loop: Any) -> None:
    """Without a descriptor to make its shell with there is none; asyncio's is older."""
    client, served = await pair(loop)
    _, right = await over(client, served)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))
    try:
        assert right.get_extra_info("socket", "none") == "none"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert right.get_extra_info("socket").fileno() == -1
