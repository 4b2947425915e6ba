"""TLS: how connections end, and what is reported when they end badly."""

import asyncio
import gc
import logging
import socket
import ssl
import warnings
from typing import Any

import pytest

from ..support import Echo, Recorder, digest, pattern, until
from ..tls import HOST, Peer, client_context, end, serving, tls_pair

pytestmark = pytest.mark.control


class Kept(Recorder):
    """A server's protocol that a test can get at."""

    last: "Kept"

    def __init__(self) -> None:
        super().__init__()
        Kept.last = self


async def served_peer(loop: Any, address: Any) -> tuple[Peer, Kept]:
    """A peer by hand and the protocol that serves it."""
    peer = await Peer.connect(address)
    await peer.handshake()
    await peer.send(b"x")
    await until(lambda: Kept.last.data == b"x")
    return peer, Kept.last


# ---- goodbye ----------------------------------------------------------------------------------


async def test_close_says_goodbye_and_waits_for_the_answer(loop: Any) -> None:
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        served.transport.write(b"last words")
        served.transport.close()
        assert served.transport.is_closing()
        assert await peer.recv_end() == b"last words"
        await asyncio.sleep(0.02)
        assert "lost" not in served.events  # the answer is due
        peer.say_goodbye()
        await served.lost
        assert served.events == ["made", "data", "eof", "lost"]
        assert served.error is None
        assert served.transport.get_protocol() is None
        await peer.close()


async def test_goodbye_of_the_peer(loop: Any) -> None:
    """eof_received, our own goodbye, connection_lost(None); nothing more is needed of us."""
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        peer.say_goodbye()
        assert await peer.recv_end() == b""
        await served.lost
        assert served.events == ["made", "data", "eof", "lost"] and served.error is None
        await peer.close()


async def test_eof_received_cannot_keep_tls_open(loop: Any, caplog: Any) -> None:
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        served.keep_open = True
        peer.say_goodbye()
        await served.lost
        assert "has no effect when using ssl" in caplog.text
        await peer.close()


async def test_all_that_was_written_arrives_before_the_goodbye(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    data = pattern(4 << 20)
    served.transport.write(data[:100])
    served.transport.write(data[100:])
    served.transport.close()
    await asyncio.gather(connected.lost, served.lost)
    assert digest(connected.data) == digest(data)
    assert connected.error is None and served.error is None


async def test_writes_after_close_are_dropped_with_a_warning(loop: Any, caplog: Any) -> None:
    connected, served = await tls_pair(loop)
    connected.transport.close()
    await asyncio.gather(connected.lost, served.lost)
    for _ in range(8):
        connected.transport.write(b"too late")
    assert not served.data
    assert "SSL connection is closed" in caplog.text


@pytest.mark.netpoll_only
async def test_closing_twice_is_closing_once(loop: Any) -> None:
    """asyncio's transport has forgotten its protocol by then, and raises AttributeError."""
    connected, served = await tls_pair(loop)
    for _ in range(3):
        connected.transport.close()
        connected.transport.write(b"too late")
    await asyncio.gather(connected.lost, served.lost)
    connected.transport.close()
    connected.transport.abort()
    connected.transport.write(b"much too late")
    assert connected.transport.get_write_buffer_size() == 0 and not served.data


@pytest.mark.netpoll_only
async def test_data_after_our_goodbye_is_dropped(loop: Any) -> None:
    """asyncio breaks such a connection off, which can take what it had still to send with it."""
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        data = pattern(300_000)
        served.transport.write(data)
        served.transport.close()
        for _ in range(20):
            peer.writer.write(peer.ciphertext(b"still talking" * 100))
        assert digest(await peer.recv_end()) == digest(data)
        peer.writer.write(peer.ciphertext(b"and talking"))
        peer.say_goodbye()
        await served.lost
        assert served.error is None and served.data == b"x"
        await peer.close()


async def test_shutdown_timeout(loop: Any) -> None:
    async with serving(loop, Kept, ssl_shutdown_timeout=0.1) as address:
        peer, served = await served_peer(loop, address)
        served.transport.close()
        await served.lost
        assert isinstance(served.error, TimeoutError)
        await peer.close()


@pytest.mark.netpoll_only  # asyncio waits for ever; its later releases time out, too
@pytest.mark.parametrize("closes", [True, False])
async def test_shutdown_timeout_of_a_peer_that_does_not_read(loop: Any, closes: bool) -> None:
    """It has said that it ends, before or after our close(), and lets us sit on what we wrote."""
    async with serving(loop, Kept, ssl_shutdown_timeout=0.1) as address:
        peer, served = await served_peer(loop, address)
        peer.writer.transport.pause_reading()
        served.transport.write(bytes(32 << 20))
        assert served.transport.get_write_buffer_size()
        if closes:
            served.transport.close()
        peer.writer.write_eof()
        await served.lost
        assert isinstance(served.error, TimeoutError)
        peer.writer.transport.abort()


# ---- the hard ways ----------------------------------------------------------------------------


async def test_truncation(loop: Any) -> None:
    """TCP's end without a goodbye: eof_received, and no error, as asyncio has it."""
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        half = peer.ciphertext(b"y" * 1000)
        peer.writer.write(half[: len(half) // 2])
        peer.writer.write_eof()
        await served.lost
        assert served.events == ["made", "data", "eof", "lost"]
        assert served.error is None and served.data == b"x"
        await peer.close()


async def test_reset_by_the_peer(loop: Any) -> None:
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.writer.transport.abort()
        await served.lost
        assert isinstance(served.error, ConnectionResetError)


async def test_abort(loop: Any) -> None:
    """No goodbye, and what is unsent is dropped."""
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        served.transport.write(b"never to be read" * 1_000_000)
        served.transport.abort()
        assert served.transport.is_closing()
        await served.lost
        assert served.error is None
        assert served.transport.get_write_buffer_size() == 0
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await peer.recv_end()
        await peer.close()


async def test_a_broken_record(loop: Any) -> None:
    """OpenSSL's verdict reaches connection_lost as the ssl module words it; what was good is
    delivered."""
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        broken = bytearray(peer.ciphertext(b"y" * 1000))
        broken[-1] ^= 1
        peer.writer.write(bytes(broken))
        await served.lost
        assert isinstance(served.error, ssl.SSLError)
        words = {"DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE"}  # new OpenSSLs'
        assert served.error.reason in words
        assert served.data == b"x"
        await peer.close()


async def test_plaintext_garbage_after_the_handshake(loop: Any) -> None:
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        peer.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await served.lost
        assert isinstance(served.error, ssl.SSLError)
        words = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}
        assert served.error.reason in words
        await peer.close()


@pytest.mark.netpoll_only
async def test_what_came_before_a_broken_record_is_delivered(loop: Any) -> None:
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        good = peer.ciphertext(b"good")
        broken = bytearray(peer.ciphertext(b"y" * 1000))
        broken[-1] ^= 1
        peer.writer.write(good + bytes(broken))
        await served.lost
        assert served.data == b"xgood"
        await peer.close()


# ---- protocols that raise ---------------------------------------------------------------------


class Raising(Recorder):
    """Raises in one method."""

    where = ""

    def fall(self, where: str) -> None:
        if where == self.where:
            raise ZeroDivisionError(where)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.fall("connection_made")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.fall("data_received")

    def eof_received(self) -> bool:
        self.fall("eof_received")
        return super().eof_received()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.fall("pause_writing")

    def resume_writing(self) -> None:
        super().resume_writing()
        self.fall("resume_writing")


MESSAGES = {
    "data_received": "Fatal error on SSL protocol",
    "eof_received": "Error calling eof_received()",
}


@pytest.mark.parametrize("where", MESSAGES)
async def test_exceptions_of_the_protocol_end_the_connection(
    loop: Any, errors: list[dict[str, Any]], where: str
) -> None:
    connected, served = await tls_pair(loop, right=Raising)
    served.where = where
    if where == "data_received":
        connected.transport.write(b"x")
    else:
        connected.transport.close()
    await asyncio.gather(connected.lost, served.lost)
    assert [(e["message"], str(e["exception"])) for e in errors] == [(MESSAGES[where], where)]
    assert isinstance(served.error, ZeroDivisionError)
    errors.clear()


async def test_an_exception_of_connection_made(loop: Any, errors: list[dict[str, Any]]) -> None:
    """The client's fails its create_connection, too."""

    class Falls(Raising):
        where = "connection_made"

    async with serving(loop, Echo) as address:
        with pytest.raises(ZeroDivisionError):
            await loop.create_connection(
                Falls, *address, ssl=client_context(), server_hostname=HOST
            )
    assert [str(e["exception"]) for e in errors] == ["connection_made"]
    errors.clear()


@pytest.mark.netpoll_only  # asyncio does not pause for one large write
@pytest.mark.parametrize("where", ["pause_writing", "resume_writing"])
async def test_exceptions_of_flow_control_are_only_reported(
    loop: Any, errors: list[dict[str, Any]], where: str
) -> None:
    connected, served = await tls_pair(loop, left=Raising)
    connected.where = where
    served.transport.pause_reading()
    data = pattern(8 << 20)
    connected.transport.write(data[: 6 << 20])
    await until(lambda: "pause" in connected.events)
    served.transport.resume_reading()
    await until(lambda: len(served.data) == 6 << 20)
    await until(lambda: "resume" in connected.events)
    connected.transport.write(data[6 << 20 :])
    await until(lambda: len(served.data) == len(data))
    assert digest(served.data) == digest(data)
    assert {e["message"] for e in errors} == {f"protocol.{where}() failed"}
    errors.clear()
    await end(connected, served)


# ---- flow control -----------------------------------------------------------------------------


@pytest.mark.netpoll_only  # asyncio does not pause for one large write
async def test_a_slow_reader_is_waited_for(loop: Any) -> None:
    """The writer is paused, its buffer counts what is not encrypted, and all arrives."""
    connected, served = await tls_pair(loop)
    connected.transport.pause_reading()
    assert not connected.transport.is_reading()
    data = pattern(16 << 20)
    served.transport.write(data)
    assert "pause" in served.events
    await asyncio.sleep(0.05)
    low, high = served.transport.get_write_buffer_limits()
    assert (low, high) == (128 * 1024, 512 * 1024)
    assert not connected.data
    assert "resume" not in served.events
    connected.transport.resume_reading()
    assert connected.transport.is_reading()
    await until(lambda: len(connected.data) == len(data))
    assert digest(connected.data) == digest(data)
    await until(lambda: "resume" in served.events)
    assert served.transport.get_write_buffer_size() == 0
    await end(connected, served)


@pytest.mark.netpoll_only
async def test_the_write_buffer_is_all_that_the_kernel_has_not(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    connected.transport.pause_reading()
    served.transport.write(b"x" * (32 << 20))
    await asyncio.sleep(0.05)
    size = served.transport.get_write_buffer_size()
    assert 8 << 20 < size < 33 << 20
    # Ciphertext is made no faster than it is sent.
    below = served.transport._ssl_protocol._transport
    assert below.get_write_buffer_size() < 1 << 20
    await end(connected, served)


async def test_watermarks(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    transport = connected.transport
    transport.set_write_buffer_limits(high=1000)
    assert transport.get_write_buffer_limits() == (250, 1000)
    transport.set_write_buffer_limits(low=10)
    assert transport.get_write_buffer_limits() == (10, 40)
    for wrong in ({"high": 5, "low": 10}, {"low": -1}):
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(**wrong)
    transport.set_read_buffer_limits(high=2000, low=500)
    assert transport.get_read_buffer_limits() == (500, 2000)
    assert transport.get_read_buffer_size() == 0
    await end(connected, served)


@pytest.mark.netpoll_only
async def test_every_pause_of_writing_ends(loop: Any) -> None:
    """Low marks of all kinds: resume_writing always comes. asyncio's does not for a mark of 0."""
    connected, served = await tls_pair(loop)
    for high, low in ((0, 0), (1, 0), (10_000, 9_000), (100_000, 0), (200_000, 150_000)):
        connected.transport.set_write_buffer_limits(high=high, low=low)
        for size in (1, 5_000, 150_000, 3 << 20):
            before = len(served.data)
            connected.transport.write(pattern(size))
            await until(lambda n=before + size: len(served.data) == n)
            await until(lambda: connected.events.count("pause") == connected.events.count("resume"))
    await end(connected, served)


async def test_pausing_inside_data_received(loop: Any) -> None:
    """Bug class 9: after the pause nothing comes, after the resume all of it."""
    got = []

    class Sipping(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            got.append(len(data))
            self.transport.pause_reading()

    connected, served = await tls_pair(loop, left=Sipping)
    data = pattern(2 << 20)
    served.transport.write(data)
    seen = 0
    while len(connected.data) < len(data):
        await until(lambda n=seen: len(got) > n)
        await asyncio.sleep(0.001)
        assert len(got) == seen + 1
        seen += 1
        connected.transport.resume_reading()
    assert digest(connected.data) == digest(data)
    await end(connected, served)


async def test_a_paused_reader_buffers_no_more_than_its_limit(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    connected.transport.pause_reading()
    served.transport.write(b"x" * (4 << 20))
    await asyncio.sleep(0.1)
    _low, high = connected.transport.get_read_buffer_limits()
    assert connected.transport.get_read_buffer_size() < high + (300 << 10)
    await end(connected, served)


async def test_the_end_waits_behind_a_pause(loop: Any) -> None:
    """Data and TCP's end that came while reading was paused are delivered in order."""
    async with serving(loop, Kept) as address:
        peer, served = await served_peer(loop, address)
        served.transport.pause_reading()
        peer.writer.write(peer.ciphertext(b"y" * 1000))
        peer.writer.write_eof()
        await asyncio.sleep(0.05)
        assert served.events == ["made", "data"] and served.data == b"x"
        served.transport.resume_reading()
        await served.lost
        assert served.data == b"x" + b"y" * 1000
        assert served.events == ["made", "data", "eof", "lost"]
        await peer.close()


async def test_closing_while_reading_is_paused_ends(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    connected.transport.pause_reading()
    served.transport.write(b"x" * 100)
    await asyncio.sleep(0.02)
    connected.transport.close()
    served.transport.close()
    await asyncio.wait_for(asyncio.gather(connected.lost, served.lost), 10)


async def test_unclosed_transports_warn(loop: Any) -> None:
    connected, served = await tls_pair(loop)
    connected.transport._ssl_protocol._transport.abort()  # only the connection below
    await connected.lost
    assert connected.transport.is_closing()
    await end(served)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        connected.transport = None
        gc.collect()
    assert not [w for w in caught if issubclass(w.category, ResourceWarning)]


async def test_debug_mode_logs_the_handshake(loop: Any, caplog: Any) -> None:
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        connected, served = await tls_pair(loop)
    loop.set_debug(False)
    assert "starts SSL handshake" in caplog.text
    assert "SSL handshake took" in caplog.text
    await end(connected, served)
