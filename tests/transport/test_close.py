"""Half-close, close, abort, and each of them with writes in flight. Bug class 6 throughout."""

import asyncio
import socket
from typing import Any

import pytest

from ..support import BufferedRecorder, Recorder, digest, listener, pair, pattern, reset, until

pytestmark = pytest.mark.control

KINDS = pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
LARGE = 16 << 20


def keep_open(kind: Any) -> Any:
    """A factory of protocols whose eof_received returns True."""

    def factory() -> Any:
        protocol = kind()
        protocol.keep_open = True
        return protocol

    return factory


@KINDS
async def test_half_close(loop: Any, kind: Any) -> None:
    """write_eof on one side; the other keeps its half open and answers after the end."""
    client, served = await pair(loop, kind, keep_open(kind))
    assert client.transport.can_write_eof()
    client.transport.write(b"question")
    client.transport.write_eof()
    client.transport.write_eof()
    await served.eof
    assert served.data == b"question"
    await asyncio.sleep(0.01)
    assert served.events == ["made", "data", "eof"]
    served.transport.write(b"answer")
    await until(lambda: client.data == b"answer")
    served.transport.close()
    await asyncio.gather(client.lost, served.lost)
    assert client.events == ["made", "data", "eof", "lost"]


async def test_write_after_write_eof(loop: Any) -> None:
    client, served = await pair(loop, Recorder, keep_open(Recorder))
    client.transport.write_eof()
    with pytest.raises(RuntimeError, match="Cannot call write"):
        client.transport.write(b"x")
    with pytest.raises(RuntimeError, match="Cannot call write"):
        client.transport.writelines([b"x"])
    client.transport.close()
    await client.lost
    served.transport.close()
    await served.lost


@KINDS
async def test_write_eof_waits_for_what_is_queued(loop: Any, kind: Any) -> None:
    client, served = await pair(loop, Recorder, keep_open(kind))
    served.transport.pause_reading()
    data = pattern(LARGE)
    client.transport.write(data)
    client.transport.write_eof()
    await asyncio.sleep(0.02)
    served.transport.resume_reading()
    await served.eof
    assert digest(served.data) == digest(data)
    served.transport.write(b"thanks")
    await until(lambda: client.data == b"thanks")
    served.transport.close()
    await asyncio.gather(client.lost, served.lost)


@KINDS
async def test_close_waits_for_what_is_queued(loop: Any, kind: Any) -> None:
    client, served = await pair(loop, Recorder, kind)
    served.transport.pause_reading()
    data = pattern(LARGE)
    client.transport.write(data)
    client.transport.close()
    await asyncio.sleep(0.02)
    assert client.events[-1] != "lost"
    served.transport.resume_reading()
    await asyncio.gather(client.lost, served.lost)
    assert digest(served.data) == digest(data)
    assert client.error is None


@KINDS
async def test_abort_drops_what_is_queued(loop: Any, kind: Any) -> None:
    client, served = await pair(loop, kind, Recorder)
    served.transport.pause_reading()
    client.transport.write(bytes(LARGE))
    await asyncio.sleep(0.01)
    client.transport.abort()
    await asyncio.wait_for(client.lost, 10)
    assert client.error is None
    assert client.transport.get_write_buffer_size() == 0
    served.transport.resume_reading()
    await asyncio.wait_for(served.lost, 10)
    assert len(served.data) < LARGE


async def test_connection_lost_comes_later_and_once(loop: Any) -> None:
    """Never inside close() or abort(); once, whatever is called."""
    for ends in (
        ["close"],
        ["abort"],
        ["close", "close"],
        ["close", "abort"],
        ["abort", "close"],
        ["abort", "abort"],
        ["write_eof", "close"],
        ["write_eof", "abort"],
    ):
        client, served = await pair(loop)
        for end in ends:
            getattr(client.transport, end)()
        assert client.events == ["made"], ends
        await asyncio.gather(client.lost, served.lost)
        await asyncio.sleep(0)
        assert client.events == ["made", "lost"], ends


async def test_no_data_after_close(loop: Any) -> None:
    """close() stops reading at once."""
    client, served = await pair(loop)
    client.transport.write(b"x" * 1000)
    served.transport.close()
    await asyncio.gather(client.lost, served.lost)
    assert served.data == b""


@KINDS
async def test_close_inside_the_data_callback(loop: Any, kind: Any) -> None:
    class Once(kind):  # type: ignore[misc,valid-type]
        calls = 0

        def data_received(self, data: bytes) -> None:
            self.calls += 1
            self.transport.write(b"bye")
            self.transport.close()

        def buffer_updated(self, nbytes: int) -> None:
            self.data_received(b"")

    client, served = await pair(loop, Recorder, Once)
    for _ in range(50):
        client.transport.write(b"x" * 100)
    await asyncio.gather(client.lost, served.lost)
    assert served.calls == 1


@KINDS
async def test_abort_inside_the_data_callback(loop: Any, kind: Any) -> None:
    class Once(kind):  # type: ignore[misc,valid-type]
        calls = 0

        def data_received(self, data: bytes) -> None:
            self.calls += 1
            self.transport.abort()

        def buffer_updated(self, nbytes: int) -> None:
            self.data_received(b"")

    client, served = await pair(loop, Recorder, Once)
    for _ in range(50):
        client.transport.write(b"x" * 100_000)
    await asyncio.gather(client.lost, served.lost)
    assert served.calls == 1


async def test_close_inside_connection_made(loop: Any) -> None:
    class Curt(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"full")
            transport.close()

    client, served = await pair(loop, Recorder, Curt)
    await asyncio.gather(client.lost, served.lost)
    assert client.data == b"full" and served.events == ["made", "lost"]


async def test_abort_inside_connection_made(loop: Any) -> None:
    class Curt(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.abort()

    client, served = await pair(loop, Recorder, Curt)
    await asyncio.gather(client.lost, served.lost)
    assert served.events == ["made", "lost"]


async def test_both_ends_close_at_once(loop: Any) -> None:
    for _ in range(100):
        client, served = await pair(loop)
        client.transport.write(b"x")
        served.transport.write(b"y")
        client.transport.close()
        served.transport.close()
        await asyncio.gather(client.lost, served.lost)


async def test_eof_with_writes_in_flight_on_the_other_side(loop: Any) -> None:
    """The peer half-closes while much is still on its way to it."""
    client, served = await pair(loop, Recorder, keep_open(Recorder))
    data = pattern(LARGE)
    served.transport.write(data)
    client.transport.write_eof()
    await served.eof
    served.transport.close()
    await asyncio.gather(client.lost, served.lost)
    assert digest(client.data) == digest(data)


async def test_eof_received_without_keeping_open_flushes_first(loop: Any) -> None:
    """eof_received returns None: the transport closes itself, what is queued still leaves."""
    client, served = await pair(loop)
    data = pattern(LARGE)
    served.transport.write(data)
    client.transport.write_eof()
    await asyncio.gather(client.lost, served.lost)
    assert digest(client.data) == digest(data)
    assert served.events[-2:] == ["eof", "lost"] or served.events[-1] == "lost"


@KINDS
async def test_peer_resets(loop: Any, kind: Any) -> None:
    sock = listener()
    connecting = asyncio.ensure_future(loop.create_connection(kind, *sock.getsockname()))
    accepted, _ = await loop.sock_accept(sock)
    _, protocol = await connecting
    await loop.sock_sendall(accepted, b"last")
    await until(lambda: protocol.data == b"last")
    reset(accepted)
    await asyncio.wait_for(protocol.lost, 10)
    assert isinstance(protocol.error, ConnectionResetError)
    assert protocol.events == ["made", "data", "lost"]
    sock.close()


async def test_peer_resets_in_the_middle_of_a_write(loop: Any) -> None:
    sock = listener()
    connecting = asyncio.ensure_future(loop.create_connection(Recorder, *sock.getsockname()))
    accepted, _ = await loop.sock_accept(sock)
    transport, protocol = await connecting
    transport.write(bytes(LARGE))
    await loop.sock_recv(accepted, 100_000)
    reset(accepted)
    await asyncio.wait_for(protocol.lost, 10)
    assert isinstance(protocol.error, (ConnectionResetError, BrokenPipeError))
    assert transport.get_write_buffer_size() == 0
    assert protocol.events == ["made", "pause", "lost"]
    sock.close()


async def test_peer_resets_a_paused_connection(loop: Any) -> None:
    """Nothing reads; the writer finds out."""
    sock = listener()
    connecting = asyncio.ensure_future(loop.create_connection(Recorder, *sock.getsockname()))
    accepted, _ = await loop.sock_accept(sock)
    transport, protocol = await connecting
    transport.pause_reading()
    reset(accepted)
    await asyncio.sleep(0.01)
    for _ in range(5):
        transport.write(b"x")
        await asyncio.sleep(0.005)
    await asyncio.wait_for(protocol.lost, 10)
    sock.close()


async def test_closing_with_a_peer_that_never_reads(loop: Any) -> None:
    """close() waits for ever (as asyncio), abort() ends it at once."""
    left, right = socket.socketpair()
    right.setblocking(False)
    transport, protocol = await loop.create_connection(Recorder, sock=left)
    transport.write(bytes(LARGE))
    transport.close()
    await asyncio.sleep(0.05)
    assert protocol.events[-1] == "pause"
    transport.abort()
    await asyncio.wait_for(protocol.lost, 10)
    right.close()


def test_loop_closed_over_open_transports(loop: Any) -> None:
    """Connections with everything in flight when the loop is closed (leak checks after)."""

    async def main() -> list[Any]:
        ends = []
        for number in range(20):
            client, served = await pair(loop)
            if number % 2:
                served.transport.pause_reading()
                client.transport.write(bytes(1 << 20))
            if number % 3 == 0:
                client.transport.close()
            if number % 5 == 0:
                served.transport.write_eof()
            ends += [client, served]
        return ends

    ends = loop.run_until_complete(main())
    for end in ends:
        end.transport.abort()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()


async def test_connection_lost_that_uses_the_transport(loop: Any) -> None:
    """Everything may still be called from within connection_lost."""

    class Curious(Recorder):
        def connection_lost(self, exc: BaseException | None) -> None:
            transport = self.transport
            transport.close()
            transport.abort()
            transport.write(b"x")
            assert transport.is_closing()
            assert transport.get_write_buffer_size() >= 0
            transport.pause_reading()
            transport.get_extra_info("peername")
            super().connection_lost(exc)

    client, served = await pair(loop, Curious, Recorder)
    served.transport.close()
    await asyncio.gather(client.lost, served.lost)


async def test_many_connections_closed_in_one_turn(loop: Any) -> None:
    pairs = [await pair(loop) for _ in range(100)]
    for number, (client, served) in enumerate(pairs):
        served.transport.write(b"x" * number)
        (client.transport.close if number % 2 else client.transport.abort)()
        (served.transport.abort if number % 3 else served.transport.close)()
    await asyncio.gather(*(end.lost for both in pairs for end in both))
    assert all(end.events.count("lost") == 1 for both in pairs for end in both)
