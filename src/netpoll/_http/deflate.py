"""permessage-deflate (RFC 7692): messages of a WebSocket compressed, with little memory.

A window of 4 KiB and memory level 5 take 32 KiB for a connection that sends, from its first long
message on; zlib's defaults take 256 KiB. What the peer compresses with is the peer's choice, unless
it lets us choose: then it is 4 KiB as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

WINDOW_BITS = 12
WINDOW_MIN_BITS = 9  # zlib has no raw stream with 8
WINDOW_MAX_BITS = 15
MEMORY_LEVEL = 5
SHORT_BYTES = 64  # what is shorter is sent as it is

END = b"\x00\x00\xff\xff"  # of each message, and not sent (7.2.1)


class Deflate:
    """What both sides have agreed on, and the state of both directions."""

    def __init__(self, answer: bytes, ours_bits: int, peers_bits: int, forgets: bool) -> None:
        self.answer = answer
        self._ours_bits = ours_bits
        self._peers_bits = peers_bits
        self._forgets = forgets
        self._deflater: Any = None
        self._inflater: Any = None

    def compress(self, data: bytes) -> bytes | None:
        """None: it is sent as it is."""
        if len(data) < SHORT_BYTES:
            return None
        if self._deflater is None or self._forgets:
            self._deflater = zlib.compressobj(
                zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -self._ours_bits, MEMORY_LEVEL
            )
        packed: bytes = self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        return packed.removesuffix(END)

    def decompress(self, data: bytes, max_bytes: int) -> bytes:
        """OverflowError: more than max_bytes (0: any) come out. ValueError: it is not deflate."""
        if self._inflater is None:
            self._inflater = zlib.decompressobj(-self._peers_bits)
        try:
            unpacked: bytes = self._inflater.decompress(data + END, max_bytes and max_bytes + 1)
        except zlib.error as error:
            raise ValueError("the message is not compressed by deflate") from error
        if max_bytes and len(unpacked) > max_bytes:
            raise OverflowError(f"the message has more than {max_bytes} bytes")
        if self._inflater.eof:  # a last block: the next message begins anew (7.2.3.4)
            self._inflater = None
        return unpacked


def agree(offers: str) -> Deflate | None:
    """Sec-WebSocket-Extensions, as the peer has sent it: the first offer that can be taken."""
    for offer in offers.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name == "permessage-deflate":
            deflate = take(dict(pairs(parameters)), len(parameters))
            if deflate is not None:
                return deflate
    return None


def pairs(parameters: list[str]) -> Iterator[tuple[str, str]]:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        yield name.strip(), value.strip().strip('"')


def take(wanted: dict[str, str], count: int) -> Deflate | None:
    """One offer: None when it says something twice, or what is not known (7.1)."""
    allowed = {
        "server_no_context_takeover",
        "client_no_context_takeover",
        "server_max_window_bits",
        "client_max_window_bits",
    }
    if len(wanted) != count or not wanted.keys() <= allowed:
        return None
    for name in ("server_no_context_takeover", "client_no_context_takeover"):
        if wanted.get(name):
            return None
    ours = bits(wanted.get("server_max_window_bits"))
    peers = bits(wanted.get("client_max_window_bits") or None)
    if ours is None or peers is None:
        return None
    ours = min(ours, WINDOW_BITS)
    words = ["permessage-deflate", f"server_max_window_bits={ours}"]
    if "client_max_window_bits" in wanted:  # else it may not be told
        peers = min(peers, WINDOW_BITS)
        words.append(f"client_max_window_bits={peers}")
    forgets = "server_no_context_takeover" in wanted
    if forgets:
        words.append("server_no_context_takeover")
    return Deflate("; ".join(words).encode(), ours, peers, forgets)


def bits(value: str | None) -> int | None:
    """The bits of a window; the most when nothing is said, None when that is not possible."""
    if value is None:
        return WINDOW_MAX_BITS
    if not value.isascii() or not value.isdigit() or len(value) > 2:
        return None
    number = int(value)
    return number if WINDOW_MIN_BITS <= number <= WINDOW_MAX_BITS else None
