"""What was written before a connection is dropped, and the number of its socket afterwards.

asyncio sends within write(): whatever the socket had room for has left when abort() comes. netpoll
collects the writes of a turn, so each way of ending a connection has to send them first.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import pytest

from ..support import (
    BufferedRecorder,
    Recorder,
    pair,
    reset,
    run_child,
    socket_pair,
    unix_pair,
    until,
)
from ..tls import server_context, tls_pair
from .datagrams import Recorder as DatagramRecorder

pytestmark = pytest.mark.control

# How a connection is dropped; each of them right after it was written to.
DROPS: dict[str, Callable[[Any, Any], object]] = {
    "abort": lambda loop, transport: transport.abort(),
    "abort soon": lambda loop, transport: loop.call_soon(transport.abort),
    "close and abort": lambda loop, transport: (transport.close(), transport.abort()),
    "close, abort soon": lambda loop, transport: (
        transport.close(),
        loop.call_soon(transport.abort),
    ),
    "force close": lambda loop, transport: transport._force_close(OSError("enough")),
}
DROPPED = pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)


async def rest_of(loop: Any, sock: socket.socket) -> bytes:
    """What the peer still gets; a reset ends it like an end."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await asyncio.wait_for(loop.sock_recv(sock, 65536), 10):
            data += piece
    sock.close()
    return data


async def over(
    loop: Any, sockets: tuple[socket.socket, socket.socket], kind: Callable[[], Any] = Recorder
) -> tuple[Any, Any, socket.socket]:
    """A transport over one of the two sockets, its protocol, and the other socket."""
    left, right = sockets
    transport, protocol = await loop.create_connection(kind, sock=left)
    return transport, protocol, right


# ---- bytes ------------------------------------------------------------------------------------


@DROPPED
@pytest.mark.parametrize("sockets", [socket_pair, unix_pair])
async def test_written_then_dropped(loop: Any, drop: Any, sockets: Any) -> None:
    transport, protocol, peer = await over(loop, sockets())
    transport.write(b"one ")
    transport.writelines([b"two ", b"three"])
    drop(loop, transport)
    assert await rest_of(loop, peer) == b"one two three"
    await protocol.lost


@DROPPED
async def test_written_in_two_turns_then_dropped(loop: Any, drop: Any) -> None:
    """The first bytes are sent, but the transport has not been told when the second ones come."""
    transport, protocol, peer = await over(loop, socket_pair())

    def first() -> None:
        transport.write(b"first ")
        loop.call_soon(second)

    def second() -> None:
        transport.write(b"second")
        drop(loop, transport)

    loop.call_soon(first)
    assert await rest_of(loop, peer) == b"first second"
    await protocol.lost


async def test_written_and_ended_then_aborted(loop: Any) -> None:
    transport, protocol, peer = await over(loop, socket_pair())
    transport.write(b"last")
    transport.write_eof()
    transport.abort()
    assert await rest_of(loop, peer) == b"last"
    await protocol.lost


async def test_more_than_the_socket_takes_then_aborted(loop: Any) -> None:
    """A beginning of it arrives: in order, and without holes."""
    transport, protocol, peer = await over(loop, unix_pair())
    pieces = [n.to_bytes(4, "big") * 1024 for n in range(2048)]
    for piece in pieces:
        transport.write(piece)
    transport.abort()
    got = await rest_of(loop, peer)
    assert 65536 <= len(got) < 8 << 20
    assert got == b"".join(pieces)[: len(got)]
    await protocol.lost


def failing(callback: str, base: Any = Recorder) -> Any:
    """A protocol that answers and then fails, in the callback of that name."""

    class Failing(base):
        pass

    def fail(self: Any, *args: Any) -> None:
        self.transport.write(b"500 sorry")
        raise ValueError("a bug")

    setattr(Failing, callback, fail)
    return Failing


@pytest.mark.parametrize(
    ("callback", "base"),
    [
        ("data_received", Recorder),
        ("eof_received", Recorder),
        ("get_buffer", BufferedRecorder),
        ("buffer_updated", BufferedRecorder),
        ("eof_received", BufferedRecorder),
    ],
)
async def test_answered_then_failed(loop: Any, callback: str, base: Any, errors: Any) -> None:
    _transport, protocol, peer = await over(loop, socket_pair(), failing(callback, base))
    if callback == "eof_received":
        peer.shutdown(socket.SHUT_WR)
    else:
        await loop.sock_sendall(peer, b"x")
    assert await rest_of(loop, peer) == b"500 sorry"
    await protocol.lost
    assert isinstance(protocol.error, ValueError)
    assert "protocol." in errors.pop()["message"]


async def test_streams_answered_then_aborted(loop: Any) -> None:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + await reader.readline())
        writer.transport.abort()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"this\n")
    assert await asyncio.wait_for(reader.readline(), 10) == b"got this\n"
    writer.close()
    server.close()


async def test_a_write_error_before_abort_is_what_connection_lost_gets(loop: Any) -> None:
    transport, protocol, peer = await over(loop, socket_pair())
    transport.pause_reading()
    reset(peer)
    await asyncio.sleep(0.02)
    transport.write(b"too late")
    transport.abort()
    await protocol.lost
    assert isinstance(protocol.error, ConnectionError)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("how", [how for how in DROPS if how != "force close"])
async def test_tls_written_then_dropped(loop: Any, how: str, version: Any) -> None:
    connected, served = await tls_pair(loop, server=server_context(version=version))
    served.transport.write(b"one ")
    served.transport.writelines([b"two ", b"three"])
    DROPS[how](loop, served.transport)
    await asyncio.wait_for(asyncio.gather(connected.lost, served.lost), 10)
    assert connected.data == b"one two three"


@pytest.mark.parametrize("base", [Recorder, BufferedRecorder])
async def test_tls_answered_then_failed(loop: Any, base: Any, errors: Any) -> None:
    callback = "data_received" if base is Recorder else "buffer_updated"
    connected, served = await tls_pair(loop, Recorder, failing(callback, base))
    connected.transport.write(b"x")
    await asyncio.wait_for(asyncio.gather(connected.lost, served.lost), 10)
    assert connected.data == b"500 sorry"
    assert isinstance(errors.pop()["exception"], ValueError)


async def test_tls_dropped_below(loop: Any) -> None:
    """The connection below is aborted, not the TLS transport."""
    connected, served = await tls_pair(loop)
    served.transport.write(b"last")
    assert served.transport.get_write_buffer_size() == 0
    served.transport._ssl_protocol._transport.abort()
    await asyncio.wait_for(asyncio.gather(connected.lost, served.lost), 10)
    assert connected.data == b"last"


@DROPPED
async def test_datagrams_sent_then_dropped(loop: Any, drop: Any) -> None:
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    peer.setblocking(False)
    transport, protocol = await loop.create_datagram_endpoint(
        DatagramRecorder, local_addr=("127.0.0.1", 0)
    )
    transport.sendto(b"one", peer.getsockname())
    transport.sendto(b"two", peer.getsockname())
    drop(loop, transport)
    await protocol.lost
    assert [peer.recv(100), peer.recv(100)] == [b"one", b"two"]
    peer.close()


# ---- who looks --------------------------------------------------------------------------------


async def test_the_write_buffer_is_empty_when_the_socket_took_it(loop: Any) -> None:
    transport, protocol, peer = await over(loop, socket_pair())
    transport.write(b"now")
    assert transport.get_write_buffer_size() == 0
    peer.setblocking(True)
    assert peer.recv(100) == b"now"  # it has left: this does not wait for the loop
    transport.write(b"this turn")
    await asyncio.sleep(0)
    assert transport.get_write_buffer_size() == 0
    transport.abort()
    await protocol.lost
    peer.close()


async def test_tls_and_datagram_write_buffers(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    served.transport.write(b"now")
    assert served.transport.get_write_buffer_size() == 0
    await until(lambda: connected.data == b"now")
    connected.transport.abort()
    await asyncio.gather(connected.lost, served.lost)
    transport, protocol = await loop.create_datagram_endpoint(
        DatagramRecorder, local_addr=("127.0.0.1", 0)
    )
    transport.sendto(b"to myself", transport.get_extra_info("sockname"))
    assert transport.get_write_buffer_size() == 0
    transport.abort()
    await protocol.lost


async def test_who_shuts_the_socket_down_himself(loop: Any) -> None:
    transport, protocol, peer = await over(loop, socket_pair())
    transport.write(b"before")
    transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
    assert await rest_of(loop, peer) == b"before"
    await protocol.lost


async def test_connection_lost_is_a_turn_after_close(loop: Any) -> None:
    for written in (b"", b"something"):
        transport, protocol, peer = await over(loop, socket_pair())
        if written:
            transport.write(written)
        transport.close()
        assert protocol.events == ["made"]
        await asyncio.sleep(0)
        assert protocol.events == ["made", "lost"]
        assert await rest_of(loop, peer) == written


def test_written_while_the_loop_is_not_running(loop: Any) -> None:
    transport, protocol, peer = loop.run_until_complete(over(loop, socket_pair()))
    transport.write(b"from outside")
    peer.setblocking(True)
    peer.settimeout(5)
    assert peer.recv(100) == b"from outside"
    transport.abort()
    loop.run_until_complete(protocol.lost)
    peer.close()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_written_before_the_program_ends(loop: Any, kind: Any) -> None:
    transport, protocol, peer = loop.run_until_complete(over(loop, socket_pair()))

    def leave() -> None:
        transport.write(b"goodbye")
        raise kind

    loop.call_soon(leave)
    with pytest.raises(kind):
        loop.run_forever()
    peer.setblocking(True)
    peer.settimeout(5)
    assert peer.recv(100) == b"goodbye"
    transport.abort()
    loop.run_until_complete(protocol.lost)
    peer.close()


def test_a_forked_child_sends_nothing_of_its_parent(backend: str) -> None:
    def body() -> None:
        import asyncio
        import contextlib
        import os
        import socket

        async def main() -> None:
            left, right = socket.socketpair()
            right.setblocking(False)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
            transport.write(b"once")
            child = os.fork()
            if not child:
                for end in (transport.get_write_buffer_size, transport.close, transport.abort):
                    with contextlib.suppress(Exception):
                        end()
                os._exit(0)
            os.waitpid(child, 0)
            transport.close()
            await asyncio.sleep(0.1)
            assert right.recv(100) == b"once"
            assert right.recv(100) == b""
            right.close()

        new_loop().run_until_complete(main())  # type: ignore[name-defined]

    done = run_child(backend, body)
    assert done.returncode == 0, done.stderr


# ---- the number -------------------------------------------------------------------------------

ENDS = pytest.mark.parametrize("end", ["abort", "close"])


async def stream_end(loop: Any) -> tuple[Any, Any]:
    client, served = await pair(loop)
    return served, client


async def paused_end(loop: Any) -> tuple[Any, Any]:
    """With data that has arrived and waits."""
    client, served = await pair(loop)
    served.transport.pause_reading()
    client.transport.write(b"x" * 100)
    await asyncio.sleep(0.01)
    return served, client


async def full_end(loop: Any) -> tuple[Any, Any]:
    """With a full socket, so that only abort() ends it now."""
    client, served = await pair(loop)
    client.transport.pause_reading()
    served.transport.write(bytes(16 << 20))
    await asyncio.sleep(0.01)
    return served, client


async def bulk_end(loop: Any) -> tuple[Any, Any]:
    """After large receives, which are direct ones."""
    client, served = await pair(loop)
    client.transport.write(bytes(1 << 20))
    await until(lambda: len(served.data) == 1 << 20)
    return served, client


async def tls_end(loop: Any) -> tuple[Any, Any]:
    client, served = await tls_pair(loop)
    return served, client


async def datagram_end(loop: Any) -> tuple[Any, Any]:
    _, protocol = await loop.create_datagram_endpoint(DatagramRecorder, local_addr=("127.0.0.1", 0))
    return protocol, None


@ENDS
@pytest.mark.parametrize(
    "make", [stream_end, paused_end, full_end, bulk_end, tls_end, datagram_end]
)
async def test_the_socket_is_closed_a_turn_later(loop: Any, make: Any, end: str) -> None:
    if end == "close" and make in (full_end, tls_end):
        end = "abort"  # what is to be sent, and TLS's goodbye, take their time
    one, other = await make(loop)
    sock = one.transport.get_extra_info("socket")
    assert sock.fileno() >= 0
    getattr(one.transport, end)()
    assert sock.fileno() >= 0
    await asyncio.sleep(0)
    assert sock.fileno() == -1
    if other is not None:
        other.transport.abort()
        await other.lost
    await one.lost


async def test_the_peer_of_a_blocked_loop_sees_the_end(loop: Any) -> None:
    """The kernel has let go of the socket too, not only its number."""
    transport, protocol, peer = await over(loop, socket_pair())
    transport.write(b"end")
    transport.abort()
    await asyncio.sleep(0)
    peer.setblocking(True)
    peer.settimeout(5)
    assert peer.recv(100) == b"end"
    assert peer.recv(100) == b""  # in the loop's own thread: nothing else runs
    peer.close()
    await protocol.lost


async def test_many_closed_in_one_turn(loop: Any) -> None:
    """More than a batch of completions: no socket is left for a later turn."""
    ends = [await over(loop, unix_pair()) for _ in range(300)]
    socks = [transport.get_extra_info("socket") for transport, _, _ in ends]
    for number, (transport, _, _) in enumerate(ends):
        transport.write(b"x")
        (transport.abort if number % 2 else transport.close)()
    await asyncio.sleep(0)
    assert {sock.fileno() for sock in socks} == {-1}
    for _, protocol, peer in ends:
        await protocol.lost
        assert peer.recv(10) == b"x"
        peer.close()


async def test_a_number_that_is_used_again_at_once(loop: Any) -> None:
    """The next connection gets the number, and none of what was the last one's."""
    for _ in range(50):
        transport, protocol, peer = await over(loop, socket_pair())
        number = transport.get_extra_info("socket").fileno()
        peer.send(b"old")
        transport.write(b"old answer")
        transport.abort()
        await asyncio.sleep(0)
        assert protocol.events[-1] == "lost"
        left, right = socket_pair()
        assert number in (left.fileno(), right.fileno())
        fresh, told, other = await over(loop, (left, right))
        other.send(b"new")
        fresh.write(b"new answer")
        await until(lambda t=told: t.data == b"new")
        assert await loop.sock_recv(other, 100) == b"new answer"
        fresh.abort()
        await told.lost
        other.close()
        peer.close()


async def test_a_lingering_abort_resets(loop: Any) -> None:
    """SO_LINGER 0 and abort(): what asyncio's programs do to reset a connection."""
    transport, protocol, peer = await over(loop, socket_pair())
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    await asyncio.sleep(0)
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    peer.close()
    await protocol.lost
