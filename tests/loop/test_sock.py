"""sock_recv, sock_recv_into, sock_sendall, sock_accept, sock_connect, sock_recvfrom and friends."""

import array
import asyncio
import os
import socket
import sys
from typing import Any

import pytest

from ..support import digest, listener, pattern, reset, socket_pair, unix_pair, until

pytestmark = pytest.mark.control


async def test_recv_and_sendall(loop: Any) -> None:
    left, right = socket_pair()
    await loop.sock_sendall(left, b"hello")
    assert await loop.sock_recv(right, 100) == b"hello"
    assert isinstance(await _after(loop, left, b"x", loop.sock_recv(right, 5)), bytes)
    left.close()
    assert await loop.sock_recv(right, 100) == b""
    right.close()


async def _after(loop: Any, sock: socket.socket, data: bytes, waiting: Any) -> Any:
    """Starts `waiting`, then sends."""
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0.005)
    assert not task.done()
    sock.send(data)
    return await task


async def test_recv_waits_for_data(loop: Any) -> None:
    left, right = unix_pair()
    assert await _after(loop, left, b"late", loop.sock_recv(right, 100)) == b"late"
    assert await _after(loop, left, b"abcdef", loop.sock_recv(right, 2)) == b"ab"
    assert await loop.sock_recv(right, 100) == b"cdef"
    left.close()
    right.close()


async def test_recv_of_zero_bytes(loop: Any) -> None:
    left, right = unix_pair()
    left.send(b"x")
    assert await loop.sock_recv(right, 0) == b""
    assert await loop.sock_recv(right, 1) == b"x"
    # A message without a body: nothing has to come for it.
    assert await asyncio.wait_for(loop.sock_recv(right, 0), 10) == b""
    assert await asyncio.wait_for(loop.sock_recv_into(right, bytearray()), 10) == 0
    left.close()
    right.close()


async def test_recv_into(loop: Any) -> None:
    left, right = socket_pair()
    buffer = bytearray(b"........")
    assert await _after(loop, left, b"abc", loop.sock_recv_into(right, buffer)) == 3
    assert buffer == b"abc....."
    left.send(b"defghijklmnop")
    await asyncio.sleep(0.005)
    assert await loop.sock_recv_into(right, memoryview(buffer)[2:6]) == 4
    assert buffer == b"abdefg.."
    numbers = array.array("i", [0] * 2)
    assert await loop.sock_recv_into(right, numbers) == 8
    assert numbers.tobytes() == b"hijklmno"
    left.close()
    assert await loop.sock_recv_into(right, buffer) == 1
    assert await loop.sock_recv_into(right, buffer) == 0
    right.close()


async def test_recv_into_refuses_read_only_memory(loop: Any) -> None:
    left, right = unix_pair()
    left.send(b"x")
    with pytest.raises((TypeError, BufferError)):
        await loop.sock_recv_into(right, b"read only")
    assert await loop.sock_recv(right, 1) == b"x"
    left.close()
    right.close()


@pytest.mark.parametrize("size_bytes", [1 << 20, 8 << 20])
async def test_sendall_of_much_to_a_slow_reader(loop: Any, size_bytes: int) -> None:
    """Bug class 18: short writes and EAGAIN on the way."""
    left, right = socket_pair()
    data = pattern(size_bytes)
    sending = asyncio.ensure_future(loop.sock_sendall(left, data))
    got = bytearray()
    while len(got) < size_bytes:
        got += await loop.sock_recv(right, 100_000)
        if len(got) % 7 == 0:
            await asyncio.sleep(0.001)
    assert await sending is None
    assert digest(got) == digest(data)
    left.close()
    right.close()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_sendall_takes_any_buffer(loop: Any, kind: type) -> None:
    left, right = unix_pair()
    await loop.sock_sendall(left, kind(b"any buffer"))
    assert await loop.sock_recv(right, 100) == b"any buffer"
    await loop.sock_sendall(left, kind(b""))
    left.close()
    assert await loop.sock_recv(right, 100) == b""
    right.close()


@pytest.mark.netpoll_only
async def test_sendall_of_words(loop: Any) -> None:
    """asyncio counts items where it should count bytes, and never returns."""
    left, right = unix_pair()
    words = array.array("I", range(1000))
    await loop.sock_sendall(left, words)
    got = b""
    while len(got) < 4000:
        got += await loop.sock_recv(right, 4096)
    assert got == words.tobytes()
    left.close()
    right.close()


async def test_sendall_refuses_what_is_no_buffer(loop: Any) -> None:
    left, right = unix_pair()
    with pytest.raises(TypeError):
        await loop.sock_sendall(left, "text")
    left.close()
    right.close()


async def test_both_directions_at_once(loop: Any) -> None:
    left, right = socket_pair()
    data = pattern(1 << 20)

    async def take(sock: socket.socket) -> bytes:
        got = bytearray()
        while len(got) < len(data):
            got += await loop.sock_recv(sock, 65536)
        return bytes(got)

    results = await asyncio.gather(
        loop.sock_sendall(left, data), loop.sock_sendall(right, data), take(left), take(right)
    )
    assert results[2] == data and results[3] == data
    left.close()
    right.close()


async def test_accept_and_connect(loop: Any) -> None:
    server = listener()
    client = socket.socket()
    client.setblocking(False)
    accepting = asyncio.ensure_future(loop.sock_accept(server))
    assert await loop.sock_connect(client, server.getsockname()) is None
    accepted, address = await accepting
    assert isinstance(accepted, socket.socket)
    assert accepted.gettimeout() == 0.0 and not accepted.get_inheritable()
    assert address == client.getsockname() and accepted.getpeername() == address
    await loop.sock_sendall(client, b"hi")
    assert await loop.sock_recv(accepted, 10) == b"hi"
    for sock in (server, client, accepted):
        sock.close()


async def test_many_accepts(loop: Any) -> None:
    server = listener(512)
    clients = [socket.socket() for _ in range(100)]
    for client in clients:
        client.setblocking(False)
    connects = [loop.sock_connect(client, server.getsockname()) for client in clients]
    connecting = asyncio.gather(*connects)
    accepted = [(await loop.sock_accept(server))[0] for _ in clients]
    await connecting
    assert {s.getpeername() for s in accepted} == {s.getsockname() for s in clients}
    for sock in (server, *clients, *accepted):
        sock.close()


async def test_accept_on_unix_and_ipv6(loop: Any, tmp_path: Any) -> None:
    for family, address in (
        (socket.AF_UNIX, str(tmp_path / "sock")),
        (socket.AF_INET6, ("::1", 0)),
    ):
        server = socket.socket(family)
        server.bind(address)
        server.listen()
        server.setblocking(False)
        client = socket.socket(family)
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(server))
        await loop.sock_connect(client, server.getsockname())
        accepted, peer = await accepting
        assert accepted.family == family
        assert peer == client.getsockname()
        for sock in (server, client, accepted):
            sock.close()


async def test_connect_refused(loop: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = closed.getsockname()
    sock = socket.socket()
    sock.setblocking(False)
    with pytest.raises(ConnectionRefusedError):
        await loop.sock_connect(sock, address)
    assert sock.fileno() >= 0
    sock.close()


async def test_connect_to_a_unix_path_that_is_not_there(loop: Any, tmp_path: Any) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    with pytest.raises(FileNotFoundError):
        await loop.sock_connect(sock, str(tmp_path / "nothing"))
    sock.close()


async def test_connect_resolves_names(loop: Any) -> None:
    server = listener()
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, ("localhost", server.getsockname()[1]))
    assert client.getpeername() == server.getsockname()
    client.close()
    server.close()


async def test_blocking_sockets_are_refused_in_debug_mode(loop: Any) -> None:
    loop.set_debug(True)
    with socket.socket() as sock:
        for wrong in (
            lambda: loop.sock_recv(sock, 1),
            lambda: loop.sock_recv_into(sock, bytearray(1)),
            lambda: loop.sock_sendall(sock, b"x"),
            lambda: loop.sock_accept(sock),
            lambda: loop.sock_connect(sock, ("127.0.0.1", 1)),
        ):
            with pytest.raises(ValueError, match="must be non-blocking"):
                await wrong()


async def test_errors_of_the_socket(loop: Any) -> None:
    sock = socket.socket()
    sock.setblocking(False)
    with pytest.raises(OSError):
        await loop.sock_recv(sock, 10)  # not connected
    with pytest.raises(OSError):
        await loop.sock_sendall(sock, b"x")
    with pytest.raises(OSError):
        await loop.sock_accept(sock)  # not listening
    sock.close()
    with pytest.raises((OSError, ValueError)):
        await loop.sock_recv(sock, 10)


async def test_reset_by_the_peer(loop: Any) -> None:
    left, right = socket_pair()
    waiting = asyncio.ensure_future(loop.sock_recv(right, 10))
    await asyncio.sleep(0.005)
    reset(left)
    with pytest.raises(ConnectionResetError):
        await waiting
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(3):
            await loop.sock_sendall(right, b"x")
    right.close()


async def test_peer_dies_in_the_middle_of_sendall(loop: Any) -> None:
    left, right = socket_pair()
    sending = asyncio.ensure_future(loop.sock_sendall(left, bytes(64 << 20)))
    await asyncio.sleep(0.01)
    assert not sending.done()
    reset(right)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await sending
    left.close()


async def test_recvfrom_and_sendto(loop: Any) -> None:
    left, right = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (left, right):
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    assert await loop.sock_sendto(left, b"datagram", right.getsockname()) == 8
    assert await loop.sock_recvfrom(right, 100) == (b"datagram", left.getsockname())
    waiting = asyncio.ensure_future(loop.sock_recvfrom(right, 3))
    await asyncio.sleep(0.005)
    assert await loop.sock_sendto(left, bytearray(b"truncated"), right.getsockname()) == 9
    assert await waiting == (b"tru", left.getsockname())
    left.close()
    right.close()


async def test_recvfrom_into(loop: Any) -> None:
    left, right = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (left, right):
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    buffer = bytearray(b"." * 16)
    waiting = asyncio.ensure_future(loop.sock_recvfrom_into(right, buffer))
    await asyncio.sleep(0.005)
    left.sendto(b"datagram", right.getsockname())
    assert await waiting == (8, left.getsockname())
    assert buffer == b"datagram........"
    left.sendto(b"datagram", right.getsockname())
    assert await loop.sock_recvfrom_into(right, buffer, 4) == (4, left.getsockname())
    with pytest.raises(ValueError):
        await loop.sock_recvfrom_into(right, buffer, 1000)
    left.close()
    right.close()


async def test_empty_datagrams(loop: Any) -> None:
    left, right = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (left, right):
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
    assert await loop.sock_sendto(left, b"", right.getsockname()) == 0
    assert await loop.sock_recvfrom(right, 100) == (b"", left.getsockname())
    left.close()
    right.close()


async def test_datagram_over_unix_sockets(loop: Any, tmp_path: Any) -> None:
    left, right = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    left.bind(str(tmp_path / "left"))
    right.bind(str(tmp_path / "right"))
    for sock in (left, right):
        sock.setblocking(False)
    await loop.sock_sendto(left, b"path", str(tmp_path / "right"))
    assert await loop.sock_recvfrom(right, 100) == (b"path", str(tmp_path / "left"))
    # A full queue makes sendto wait until there is room.
    for _ in range(2000):
        try:
            left.sendto(b"x" * 1000, str(tmp_path / "right"))
        except BlockingIOError:
            break
    sending = asyncio.ensure_future(loop.sock_sendto(left, b"last", str(tmp_path / "right")))
    await asyncio.sleep(0.01)
    assert not sending.done()
    got = b""
    while got != b"last":
        got, _ = await loop.sock_recvfrom(right, 2000)
    assert await sending == 4
    left.close()
    right.close()


async def test_datagram_sockets_use_recv_and_sendall_too(loop: Any) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.setblocking(False)
    right.setblocking(False)
    for message in (b"one", b"two" * 1000, b"three"):
        await loop.sock_sendall(left, message)
    assert await loop.sock_recv(right, 10) == b"one"
    assert await loop.sock_recv(right, 10) == b"twotwotwot"
    assert await loop.sock_recv(right, 10) == b"three"
    left.close()
    right.close()


async def test_data_is_there_before_the_call(loop: Any) -> None:
    """The call that need not wait: a thousand messages one at a time, in order."""
    left, right = unix_pair()
    for number in range(1000):
        left.send(number.to_bytes(4, "big"))
        assert await loop.sock_recv(right, 4) == number.to_bytes(4, "big")
    left.close()
    right.close()


async def test_ping_pong_with_many_sockets(loop: Any) -> None:
    pairs = [socket_pair() for _ in range(50)]

    async def client(sock: socket.socket, number: int) -> None:
        for turn in range(20):
            message = f"{number}:{turn}".encode()
            await loop.sock_sendall(sock, message)
            assert await loop.sock_recv(sock, 100) == message
        sock.close()

    async def server(sock: socket.socket) -> None:
        while data := await loop.sock_recv(sock, 100):
            await loop.sock_sendall(sock, data)
        sock.close()

    await asyncio.gather(
        *(client(left, number) for number, (left, _) in enumerate(pairs)),
        *(server(right) for _, right in pairs),
    )


async def test_a_readers_turn_passes_to_the_next(loop: Any) -> None:
    """A reader is cancelled; the next sock_recv on that socket gets all the data."""
    left, right = unix_pair()
    for number in range(50):
        waiting = asyncio.ensure_future(loop.sock_recv(right, 100))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        left.send(b"%d" % number)
        assert await loop.sock_recv(right, 100) == b"%d" % number
    left.close()
    right.close()


async def test_recv_after_the_socket_got_another_number(loop: Any) -> None:
    """Bug class 4: dup2 and friends; an fd closed and reused between two calls."""
    for _ in range(100):
        left, right = unix_pair()
        waiting = asyncio.ensure_future(loop.sock_recv(right, 10))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        left.close()
        right.close()
        left, right = unix_pair()
        left.send(b"new")
        assert await loop.sock_recv(right, 10) == b"new"
        left.close()
        right.close()


@pytest.mark.skipif(not os.path.exists("/proc/sys/net/ipv6"), reason="this machine has no IPv6")
async def test_ipv6(loop: Any) -> None:
    server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    server.setblocking(False)
    client = socket.socket(socket.AF_INET6)
    client.setblocking(False)
    accepting = asyncio.ensure_future(loop.sock_accept(server))
    await loop.sock_connect(client, server.getsockname()[:2])
    accepted, address = await accepting
    assert len(address) == 4 and address[0] == "::1"
    for sock in (server, client, accepted):
        sock.close()


async def test_socket_timeouts_do_not_matter(loop: Any) -> None:
    """settimeout(0) is what setblocking(False) sets."""
    left, right = unix_pair()
    right.settimeout(0)
    waiting = asyncio.ensure_future(loop.sock_recv(right, 10))
    await until(lambda: True)
    left.send(b"x")
    assert await waiting == b"x"
    left.close()
    right.close()


async def test_results_do_not_keep_sockets_alive(loop: Any) -> None:
    """Bug class 20."""
    left, right = unix_pair()
    refs = sys.getrefcount(right)
    left.send(b"x")
    await loop.sock_recv(right, 10)
    waiting = asyncio.ensure_future(loop.sock_recv(right, 10))
    await asyncio.sleep(0)
    left.send(b"y")
    await waiting
    del waiting
    await asyncio.sleep(0.005)
    assert sys.getrefcount(right) <= refs
    left.close()
    right.close()
