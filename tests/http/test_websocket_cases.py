"""The cases of the Autobahn test suite for servers, chapter by chapter, against an echo.

https://github.com/crossbario/autobahn-testsuite has them as a program of Python 2. The numbers
are its chapters: sizes, pings, reserved bits, opcodes, fragments, UTF-8, closes and masses.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from netpoll import http
from tests.http.conftest import HttpServing
from tests.http.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Frame,
    Peer,
    close_frame,
    frame,
)


async def echo(request: http.Request) -> http.Response:
    if not request.is_websocket:
        return http.Response(b"", status=404)
    websocket = request.websocket()
    async for message in websocket:
        await websocket.send(message)
    return http.Response(b"")


@pytest.fixture
def peer(http_serving: HttpServing) -> Iterator[Peer]:
    http_serving(echo)
    peer = Peer(http_serving.client())
    assert peer.answer.status == 101
    yield peer
    peer.client.close()


def check_echo(peer: Peer, opcode: int, payload: bytes) -> None:
    assert peer.receive() == Frame(FIN | opcode, payload)


def check_alive(peer: Peer) -> None:
    peer.send(frame(TEXT, b"alive"))
    check_echo(peer, TEXT, b"alive")
    assert peer.close() == (1000, b"")


SIZES = [0, 1, 2, 125, 126, 127, 128, 255, 256, 65535, 65536, 65537]


class TestSizes:
    """1.x"""

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("size", SIZES)
    def test_echo(self, peer: Peer, opcode: int, size: int) -> None:
        payload = (b"*" if opcode == TEXT else b"\xfe") * size
        peer.send(frame(opcode, payload))
        check_echo(peer, opcode, payload)
        check_alive(peer)

    @pytest.mark.parametrize("chop", [1, 7, 997])
    def test_chopped(self, peer: Peer, chop: int) -> None:
        size = 300 if chop == 1 else 66_000
        data = frame(BINARY, bytes(range(256)) * (size // 256))
        for at in range(0, len(data), chop):
            peer.send(data[at : at + chop])
        check_echo(peer, BINARY, bytes(range(256)) * (size // 256))
        check_alive(peer)


class TestPings:
    """2.x"""

    @pytest.mark.parametrize("payload", [b"", b"ping", b"\x00\xff\xfe\xfd", b"\xfe" * 125])
    def test_is_answered(self, peer: Peer, payload: bytes) -> None:
        peer.send(frame(PING, payload))
        assert peer.receive() == Frame(FIN | PONG, payload)
        check_alive(peer)

    def test_too_long(self, peer: Peer) -> None:
        peer.send(frame(PING, b"x" * 126))
        assert peer.closed() == (1002, b"")

    def test_chopped(self, peer: Peer) -> None:
        for byte in frame(PING, b"y" * 125):
            peer.send(bytes([byte]))
        assert peer.receive() == Frame(FIN | PONG, b"y" * 125)

    def test_unsolicited_pongs_are_ignored(self, peer: Peer) -> None:
        peer.send(frame(PONG) + frame(PONG, b"unasked") + frame(PING, b"asked"))
        assert peer.receive() == Frame(FIN | PONG, b"asked")
        check_alive(peer)

    def test_ten(self, peer: Peer) -> None:
        peer.send(b"".join(frame(PING, b"%d" % number) for number in range(10)))
        for number in range(10):
            assert peer.receive() == Frame(FIN | PONG, b"%d" % number)
        check_alive(peer)


class TestReservedBits:
    """3.x"""

    @pytest.mark.parametrize("bits", [RSV1, RSV2, RSV3, RSV1 | RSV2, RSV2 | RSV3, 0x70])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
    def test_without_an_extension(self, peer: Peer, bits: int, opcode: int) -> None:
        peer.send(frame(TEXT, b"before"))
        check_echo(peer, TEXT, b"before")
        peer.send(frame(opcode, b"", FIN | bits))
        assert peer.closed() == (1002, b"")


class TestOpcodes:
    """4.x"""

    @pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
    @pytest.mark.parametrize("payload", [b"", b"payload"])
    def test_reserved(self, peer: Peer, opcode: int, payload: bytes) -> None:
        peer.send(frame(opcode, payload) + frame(PING))
        assert peer.closed() == (1002, b"")


class TestFragments:
    """5.x"""

    @pytest.mark.parametrize("opcode", [PING, PONG])
    def test_control_frames_are_not_cut(self, peer: Peer, opcode: int) -> None:
        peer.send(frame(opcode, b"one", 0) + frame(CONTINUATION, b"two"))
        assert peer.closed() == (1002, b"")

    @pytest.mark.parametrize("chop", [1, 0])
    @pytest.mark.parametrize("with_ping", [False, True])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_joined(self, peer: Peer, chop: int, with_ping: bool, opcode: int) -> None:
        data = frame(opcode, b"frag", 0)
        data += frame(PING, b"between") if with_ping else b""
        data += frame(CONTINUATION, b"", 0) + frame(CONTINUATION, b"ile")
        for at in range(0, len(data), chop or len(data)):
            peer.send(data[at : at + (chop or len(data))])
        if with_ping:
            assert peer.receive() == Frame(FIN | PONG, b"between")
        check_echo(peer, opcode, b"fragile")
        check_alive(peer)

    @pytest.mark.parametrize("first", [0, FIN])
    def test_a_continuation_of_nothing(self, peer: Peer, first: int) -> None:
        peer.send(frame(CONTINUATION, b"of nothing", first) + frame(TEXT, b"message"))
        assert peer.closed() == (1002, b"")

    def test_a_continuation_after_the_last(self, peer: Peer) -> None:
        peer.send(frame(TEXT, b"a", 0) + frame(CONTINUATION, b"b"))
        check_echo(peer, TEXT, b"ab")
        peer.send(frame(CONTINUATION, b"c"))
        assert peer.closed() == (1002, b"")

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_a_message_within_a_message(self, peer: Peer, opcode: int) -> None:
        peer.send(frame(TEXT, b"a", 0) + frame(opcode, b"b"))
        assert peer.closed() == (1002, b"")


VALID = [
    "\u03ba\u1f79\u03c3\u03bc\u03b5",  # 6.2
    "\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\uffff", "\U00010000",  # 6.6, 6.7, 6.9
    "\ud7ff", "\ue000", "\ufffd", "\U0010ffff",  # 6.11, 6.13
    "\ufffe", "\U0001fffe", "\U0008ffff",  # 6.22
]  # fmt: skip

INVALID = [
    b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80\xbf\x80\xbf\x80",  # 6.14: continuations
    b"\xc0 \xc1 ", b"\xe0 \xe1 ", b"\xf0 \xf1 ", b"\xf8 ", b"\xfc ",  # 6.14: lonely starts
    b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf",  # 6.15: cut off
    b"\xfe", b"\xff", b"\xfe\xfe\xff\xff",  # 6.17: impossible bytes
    b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf",  # 6.18: overlong
    b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf",  # 6.19
    b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80",  # 6.20: overlong NUL
    b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80",  # 6.21
    b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf",  # 6.8, 6.12: too high
]  # fmt: skip


class TestUtf8:
    """6.x"""

    @pytest.mark.parametrize("text", VALID, ids=ascii)
    def test_valid(self, peer: Peer, text: str) -> None:
        payload = text.encode() + b"x" * 40 + text.encode()
        peer.send(frame(TEXT, payload))
        check_echo(peer, TEXT, payload)
        peer.send(b"".join(frame(TEXT if i == 0 else CONTINUATION, payload[i : i + 1], 0)
                           for i in range(len(payload))) + frame(CONTINUATION))  # fmt: skip
        check_echo(peer, TEXT, payload)
        check_alive(peer)

    @pytest.mark.parametrize("payload", INVALID, ids=bytes.hex)
    @pytest.mark.parametrize("before", [b"", b"Hello-\xc2\xb5@\xc3\x9f" * 5])
    def test_invalid(self, peer: Peer, payload: bytes, before: bytes) -> None:
        peer.send(frame(TEXT, before + payload))
        assert peer.closed() == (1007, b"")

    def test_invalid_bytes_are_refused_as_they_come(self, peer: Peer) -> None:
        """6.4: before the message is complete."""
        whole = frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80edited")
        peer.send(whole[:-8])
        assert peer.closed() == (1007, b"")

    def test_a_fragment_of_it_is_refused(self, peer: Peer) -> None:
        peer.send(frame(TEXT, b"\xce\xba", 0) + frame(CONTINUATION, b"\xf4\x90", 0))
        assert peer.closed() == (1007, b"")

    def test_binary_is_not_looked_at(self, peer: Peer) -> None:
        peer.send(frame(BINARY, b"\xff\xfe\x80"))
        check_echo(peer, BINARY, b"\xff\xfe\x80")


GOOD_CODES = [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
BAD_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


class TestCloses:
    """7.x"""

    def test_after_a_message(self, peer: Peer) -> None:
        check_alive(peer)

    def test_twice(self, peer: Peer) -> None:
        peer.send(close_frame(1000) + close_frame(1000))
        assert peer.closed() == (1000, b"")

    @pytest.mark.parametrize(
        "behind",
        [frame(PING), frame(TEXT, b"late"), frame(TEXT, b"x", 0)],
        ids=["ping", "text", "fragment"],  # masks are random
    )
    def test_what_stands_behind_is_ignored(self, peer: Peer, behind: bytes) -> None:
        peer.send(close_frame(1000) + behind)
        assert peer.closed() == (1000, b"")

    def test_within_a_message(self, peer: Peer) -> None:
        peer.send(frame(TEXT, b"begun", 0) + close_frame(1000) + frame(CONTINUATION, b"!"))
        assert peer.closed() == (1000, b"")

    def test_without_a_code(self, peer: Peer) -> None:
        assert peer.close(None) == (None, b"")

    def test_half_a_code(self, peer: Peer) -> None:
        peer.send(frame(CLOSE, b"a"))
        assert peer.closed() == (1002, b"")

    @pytest.mark.parametrize("size", [1, 123])
    def test_with_a_reason(self, peer: Peer, size: int) -> None:
        peer.send(close_frame(1000, b"*" * size))
        assert peer.closed() == (1000, b"")

    def test_a_reason_that_is_too_long(self, peer: Peer) -> None:
        peer.send(close_frame(1000, b"*" * 124))
        assert peer.closed() == (1002, b"")

    def test_a_reason_that_is_not_utf8(self, peer: Peer) -> None:
        peer.send(close_frame(1000, b"\xce\xba\xf4\x90\x80\x80"))
        assert peer.closed() == (1007, b"")

    @pytest.mark.parametrize("code", GOOD_CODES)
    def test_codes(self, peer: Peer, code: int) -> None:
        assert peer.close(code) == (code, b"")

    @pytest.mark.parametrize("code", BAD_CODES)
    def test_codes_that_nobody_may_send(self, peer: Peer, code: int) -> None:
        assert peer.close(code) == (1002, b"")


class TestMasses:
    """9.x, 10.x: small ones"""

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("size", [1 << 18, 1 << 20, 1 << 22])
    def test_large(self, peer: Peer, opcode: int, size: int) -> None:
        peer.send(frame(opcode, b"x" * size))
        check_echo(peer, opcode, b"x" * size)

    @pytest.mark.parametrize("piece", [64, 4096, 1 << 18])
    def test_large_in_fragments(self, peer: Peer, piece: int) -> None:
        payload = bytes(range(256)) * 2048
        cuts = range(0, len(payload), piece)
        peer.send(b"".join(frame(CONTINUATION if at else BINARY, payload[at : at + piece],
                                 FIN if at == cuts[-1] else 0) for at in cuts))  # fmt: skip
        check_echo(peer, BINARY, payload)

    @pytest.mark.parametrize("size", [0, 16, 1024])
    def test_many(self, peer: Peer, size: int) -> None:
        payload = b"y" * size
        for _ in range(10):
            peer.send(frame(BINARY, payload) * 100)
            for _ in range(100):
                check_echo(peer, BINARY, payload)
        check_alive(peer)


@pytest.mark.parametrize("data", [
    frame(TEXT, b"not masked", is_masked=False),
    frame(PING, b"", is_masked=False),
    bytes([FIN | BINARY, 0x80 | 126, 0, 125]) + bytes(129),  # a length in more bytes than needed
    bytes([FIN | BINARY, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]) + bytes(20),
    bytes([FIN | BINARY, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0]) + bytes(20),
])  # fmt: skip
def test_frames_that_break_a_rule(peer: Peer, data: bytes) -> None:
    peer.send(data)
    assert peer.closed() == (1002, b"")


def test_echoes_keep_their_order(http_serving: HttpServing) -> None:
    http_serving(echo)
    peers = [Peer(http_serving.client()) for _ in range(5)]
    sent: list[list[Any]] = []
    for number, peer in enumerate(peers):
        sent.append([b"%d:%d" % (number, i) for i in range(300)])
        peer.send(b"".join(frame(BINARY, one) for one in sent[-1]))
    for number, peer in enumerate(peers):
        assert [peer.receive().payload for _ in range(300)] == sent[number]
