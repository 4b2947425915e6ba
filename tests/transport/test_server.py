"""create_server, Server, create_unix_server, connect_accepted_socket, start_server."""

import asyncio
import errno
import os
import socket
import sys
from typing import Any

import pytest

from ..support import Echo, Recorder, listener, until

pytestmark = pytest.mark.control


async def ask(address: Any, message: bytes = b"ping") -> bytes:
    """One question to an echo server."""
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address[:2])
    writer.write(message)
    answer = await reader.readexactly(len(message))
    writer.close()
    await writer.wait_closed()
    return answer


async def test_tcp(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    assert isinstance(server, asyncio.AbstractServer)
    assert server.is_serving() and server.get_loop() is loop
    (sock,) = server.sockets
    assert sock.getsockname()[0] == "127.0.0.1"
    assert await ask(sock.getsockname()) == b"ping"
    server.close()
    assert not server.is_serving() and not server.sockets
    await server.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await ask(("127.0.0.1", 1))


async def test_the_port_is_free_after_close(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await ask(address)
    again = await loop.create_server(Echo, *address)
    assert await ask(address) == b"ping"
    again.close()
    await again.wait_closed()


async def test_close_is_immediate_and_repeatable(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    server.close()
    server.close()
    await server.wait_closed()
    await server.wait_closed()
    unused = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
    unused.close()
    await unused.wait_closed()


async def test_several_hosts(loop: Any) -> None:
    server = await loop.create_server(Echo, ["127.0.0.1", "127.0.0.2"], 0)
    assert len(server.sockets) == 2
    for sock in server.sockets:
        assert await ask(sock.getsockname()) == b"ping"
    server.close()
    await server.wait_closed()


async def test_all_interfaces_both_families(loop: Any) -> None:
    server = await loop.create_server(Echo, None, 0)
    families = {sock.family for sock in server.sockets}
    assert families >= {socket.AF_INET}
    for sock in server.sockets:
        host = "::1" if sock.family == socket.AF_INET6 else "127.0.0.1"
        assert await ask((host, sock.getsockname()[1])) == b"ping"
    server.close()
    await server.wait_closed()


async def test_ipv6(loop: Any) -> None:
    server = await loop.create_server(Echo, "::1", 0)
    address = server.sockets[0].getsockname()
    assert address[0] == "::1" and len(address) == 4
    assert await ask(address) == b"ping"
    transport, protocol = await loop.create_connection(Recorder, *address[:2])
    assert transport.get_extra_info("peername") == address
    assert len(transport.get_extra_info("sockname")) == 4
    transport.close()
    await protocol.lost
    server.close()
    await server.wait_closed()


async def test_start_serving_later(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
    assert not server.is_serving()
    address = server.sockets[0].getsockname()
    with pytest.raises(ConnectionRefusedError):
        await ask(address)
    await server.start_serving()
    assert server.is_serving()
    await server.start_serving()
    assert await ask(address) == b"ping"
    server.close()
    await server.wait_closed()


async def test_serve_forever(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
    address = server.sockets[0].getsockname()
    serving = asyncio.ensure_future(server.serve_forever())
    await until(server.is_serving)
    assert await ask(address) == b"ping"
    with pytest.raises(RuntimeError, match="already being awaited"):
        await server.serve_forever()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()


async def test_async_with(loop: Any) -> None:
    async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
        assert await ask(server.sockets[0].getsockname()) == b"ping"
    assert not server.is_serving()


async def test_the_servers_sockets_are_lent_not_given(loop: Any) -> None:
    """TransportSocket: no way to close the listener behind the loop's back (bug class 5)."""
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    (sock,) = server.sockets
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    assert not hasattr(sock, "close") and not hasattr(sock, "accept")
    server.close()
    await server.wait_closed()


async def test_a_socket_that_is_given(loop: Any) -> None:
    sock = listener()
    address = sock.getsockname()
    server = await loop.create_server(Echo, sock=sock)
    assert await ask(address) == b"ping"
    server.close()
    await server.wait_closed()
    await until(lambda: sock.fileno() == -1)


async def test_port_in_use(loop: Any) -> None:
    taken = listener()
    host, port = taken.getsockname()
    with pytest.raises(OSError) as caught:
        await loop.create_server(Echo, host, port)
    assert caught.value.errno == errno.EADDRINUSE
    assert str(port) in str(caught.value) and "already in use" in str(caught.value)
    taken.close()


async def test_an_address_that_is_not_ours(loop: Any) -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        await loop.create_server(Echo, "192.0.2.1", 0)


async def test_wrong_arguments(loop: Any) -> None:
    with pytest.raises(ValueError, match="Neither host/port nor sock"):
        await loop.create_server(Echo)
    sock = listener()
    with pytest.raises(ValueError, match="can not be specified at the same time"):
        await loop.create_server(Echo, "127.0.0.1", 0, sock=sock)
    sock.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        with pytest.raises(ValueError, match="Stream Socket was expected"):
            await loop.create_server(Echo, sock=datagram)
    with pytest.raises(TypeError):
        await loop.create_server(Echo, "127.0.0.1", 0, ssl=True)
    with pytest.raises(ValueError, match="ssl"):
        await loop.create_server(Echo, "127.0.0.1", 0, ssl_handshake_timeout=1)


async def test_reuse_port(loop: Any) -> None:
    first = await loop.create_server(Echo, "127.0.0.1", 0, reuse_port=True)
    address = first.sockets[0].getsockname()
    second = await loop.create_server(Echo, *address, reuse_port=True)
    for _ in range(10):
        assert await ask(address) == b"ping"
    first.close()
    second.close()
    await asyncio.gather(first.wait_closed(), second.wait_closed())


async def test_backlog_and_many_clients_at_once(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=256)
    address = server.sockets[0].getsockname()
    answers = await asyncio.gather(*(ask(address, b"%d" % n) for n in range(200)))
    assert answers == [b"%d" % n for n in range(200)]
    server.close()
    await server.wait_closed()


async def test_connections_that_waited_before_the_server_listened(loop: Any) -> None:
    sock = listener()
    clients = [socket.create_connection(sock.getsockname()) for _ in range(20)]
    for client in clients:
        client.setblocking(False)
        client.send(b"early")
    server = await loop.create_server(Echo, sock=sock)
    for client in clients:
        assert await loop.sock_recv(client, 100) == b"early"
        client.close()
    server.close()
    await server.wait_closed()


async def test_connections_outlive_their_server(loop: Any) -> None:
    protocols: list[Recorder] = []

    def factory() -> Recorder:
        protocols.append(Recorder())
        return protocols[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    transport, client = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
    await until(lambda: protocols and protocols[0].transport)
    server.close()
    await asyncio.sleep(0.01)
    transport.write(b"still here")
    await until(lambda: protocols[0].data == b"still here")
    protocols[0].transport.write(b"me too")
    await until(lambda: client.data == b"me too")
    transport.close()
    await asyncio.gather(client.lost, protocols[0].lost)
    await server.wait_closed()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="wait_closed waits since 3.12")
async def test_wait_closed_waits_for_connections(loop: Any) -> None:
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    transport, client = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
    transport.write(b"x")
    await until(lambda: client.data)
    server.close()
    waiting = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    transport.close()
    await asyncio.wait_for(waiting, 10)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in 3.13")
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
async def test_close_and_abort_clients(loop: Any, how: str) -> None:
    protocols: list[Recorder] = []

    def factory() -> Recorder:
        protocols.append(Recorder())
        return protocols[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    clients = [(await loop.create_connection(Recorder, *address))[1] for _ in range(5)]
    await until(lambda: len(protocols) == 5 and all(p.transport for p in protocols))
    server.close()
    getattr(server, how)()
    await asyncio.wait_for(server.wait_closed(), 10)
    for protocol in (*protocols, *clients):
        await asyncio.wait_for(protocol.lost, 10)


async def test_unix(loop: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "sock")
    server = await loop.create_unix_server(Echo, path)
    assert await ask(path) == b"ping"
    assert server.sockets[0].getsockname() == path
    transport, protocol = await loop.create_unix_connection(Recorder, path)
    assert transport.get_extra_info("peername") == path
    transport.close()
    await protocol.lost
    server.close()
    await server.wait_closed()


async def test_unix_paths(loop: Any, tmp_path: Any) -> None:
    path = tmp_path / "sock"  # a PathLike
    first = await loop.create_unix_server(Echo, path)
    with pytest.raises(OSError) as caught:  # it is alive: not replaced by chance
        await loop.create_unix_server(Echo, os.fspath(path) + "/below")
    assert caught.value.errno in (errno.ENOTDIR, errno.ENOENT)
    first.close()
    await first.wait_closed()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "stale"))
    stale.close()
    second = await loop.create_unix_server(Echo, str(tmp_path / "stale"))
    assert await ask(str(tmp_path / "stale")) == b"ping"
    second.close()
    await second.wait_closed()
    (tmp_path / "file").write_text("not a socket")
    with pytest.raises(OSError) as caught:
        await loop.create_unix_server(Echo, str(tmp_path / "file"))
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(ValueError):
        await loop.create_unix_server(Echo)
    with pytest.raises(FileNotFoundError):
        await loop.create_unix_connection(Recorder, str(tmp_path / "nobody"))


async def test_unix_abstract_and_given_socket(loop: Any) -> None:
    name = f"\0netpoll-test-{os.getpid()}"
    server = await loop.create_unix_server(Echo, name)
    assert await ask(name) == b"ping"
    server.close()
    await server.wait_closed()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(name)
    server = await loop.create_unix_server(Echo, sock=sock)
    assert await ask(name) == b"ping"
    server.close()
    await server.wait_closed()
    with socket.socket() as tcp, pytest.raises(ValueError, match="UNIX Domain Stream Socket"):
        await loop.create_unix_server(Echo, sock=tcp)


async def test_connect_accepted_socket(loop: Any) -> None:
    """Bug class 5: the socket is the transport's from now on."""
    sock = listener()
    client = socket.create_connection(sock.getsockname())
    client.setblocking(False)
    accepted, _ = await loop.sock_accept(sock)
    transport, protocol = await loop.connect_accepted_socket(Recorder, accepted)
    assert protocol.events == ["made"] and protocol.transport is transport
    await loop.sock_sendall(client, b"hello")
    await until(lambda: protocol.data == b"hello")
    transport.write(b"world")
    assert await loop.sock_recv(client, 100) == b"world"
    client.close()
    await protocol.lost
    await until(lambda: accepted.fileno() == -1)
    sock.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        with pytest.raises(ValueError, match="Stream Socket was expected"):
            await loop.connect_accepted_socket(Recorder, datagram)


async def test_start_server_and_friends(loop: Any) -> None:
    asked: list[bytes] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"answer\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"question\n")
    assert await reader.readline() == b"answer\n"
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    assert asked == [b"question\n"]


async def test_factory_is_called_once_per_connection_in_the_loop(loop: Any) -> None:
    count = 0

    def factory() -> Echo:
        nonlocal count
        count += 1
        assert asyncio.get_running_loop() is loop
        return Echo()

    server = await loop.create_server(factory, "127.0.0.1", 0)
    for _ in range(10):
        await ask(server.sockets[0].getsockname())
    assert count == 10
    server.close()
    await server.wait_closed()


async def test_options_of_accepted_sockets(loop: Any) -> None:
    made: list[Recorder] = []

    def factory() -> Recorder:
        made.append(Recorder())
        return made[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    transport, client = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
    await until(lambda: made and made[0].transport)
    for end in (transport, made[0].transport):
        sock = end.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
        assert not os.get_inheritable(sock.fileno())
        assert not os.get_blocking(sock.fileno())
    transport.close()
    await asyncio.gather(client.lost, made[0].lost)
    server.close()
    await server.wait_closed()


def test_a_server_left_open_at_close(loop: Any) -> None:
    """loop.close() over a live server with live connections frees everything (leak checks)."""

    async def main() -> Any:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        sockets = [socket.create_connection(address) for _ in range(5)]
        await asyncio.sleep(0.02)
        return server, sockets

    server, sockets = loop.run_until_complete(main())
    # The server is closed by hand, its connections are left to the loop.
    server.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    for sock in sockets:
        sock.close()


def test_a_server_may_be_closed_after_its_loop(loop_factory: Any, tmp_path: Any) -> None:
    loop = loop_factory()
    sock = listener()
    address = sock.getsockname()
    servers = [
        loop.run_until_complete(made)
        for made in (
            loop.create_server(Echo, "127.0.0.1", 0),
            loop.create_unix_server(Echo, str(tmp_path / "sock")),
            loop.create_server(Echo, sock=sock),
        )
    ]
    loop.close()
    again = loop_factory()
    server = again.run_until_complete(again.create_server(Echo, sock=sock.dup()))
    assert again.run_until_complete(ask(address)) == b"ping"
    server.close()
    assert sock.fileno() >= 0  # the program's, until it closes the server that has it
    for server in servers:
        server.close()
    assert sock.fileno() == -1


@pytest.mark.parametrize("first", ["remove", "replace"])
async def test_who_accepts_by_himself(loop: Any, first: str) -> None:
    """remove_reader() holds a server up, and add_reader() takes its place, as for any reader: the
    listening socket is still there, and the server is still to be closed."""
    made: list[Any] = []

    def factory() -> Any:
        made.append(Recorder())
        return made[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    number = server.sockets[0].fileno()
    if first == "remove":
        assert loop.remove_reader(number)
        assert not loop.remove_reader(number)
    with (
        socket.create_connection(server.sockets[0].getsockname()) as peer,
        socket.socket(fileno=os.dup(number)) as taken,
    ):
        if first == "remove":
            await asyncio.sleep(0.01)
        is_there = asyncio.Event()
        loop.add_reader(number, is_there.set)
        await is_there.wait()
        accepted, name = taken.accept()
        accepted.close()
        assert name == peer.getsockname() and not made
    assert loop.remove_reader(number)
    server.close()
    await server.wait_closed()
    assert not made
