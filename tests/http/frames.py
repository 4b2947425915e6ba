"""The client's side of a WebSocket, byte by byte: it can send what no library would."""

import base64
import hashlib
import os
import struct
from typing import NamedTuple

import pytest

from netpoll import http
from tests.http.conftest import Answer, Client

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3, MASKED = 0x80, 0x40, 0x20, 0x10, 0x80
KEY = base64.b64encode(bytes(range(16))).decode()
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ACCEPT = base64.b64encode(hashlib.sha1((KEY + GUID).encode()).digest()).decode()
FIELDS = {
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


class Frame(NamedTuple):
    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.first & 15


def masked(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def frame(opcode: int, payload: bytes = b"", first: int = FIN, is_masked: bool = True) -> bytes:
    """first: the bits beside the opcode."""
    size = len(payload)
    mask = MASKED if is_masked else 0
    head = bytes([first | opcode])
    if size < 126:
        head += bytes([mask | size])
    elif size < 1 << 16:
        head += struct.pack("!BH", mask | 126, size)
    else:
        head += struct.pack("!BQ", mask | 127, size)
    if not is_masked:
        return head + payload
    key = os.urandom(4)
    return head + key + masked(payload, key)


def close_frame(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


class Peer:
    """A client that has made its handshake: `answer` is what came of it."""

    def __init__(self, client: Client, path: str = "/", **fields: str | None) -> None:
        self.client = client
        lines = [f"GET {path} HTTP/1.1", "host: test"]
        wanted: dict[str, str | None] = dict(FIELDS)
        wanted |= {name.replace("_", "-"): value for name, value in fields.items()}
        lines += [f"{name}: {value}" for name, value in wanted.items() if value is not None]
        client.send("\r\n".join([*lines, "", ""]).encode())
        self.answer: Answer = client.answer()

    def send(self, data: bytes) -> None:
        self.client.send(data)

    def receive(self) -> Frame:
        """The next frame. ConnectionResetError when the stream ends instead."""
        head = self.client.file.read(2)
        if len(head) < 2:
            raise ConnectionResetError("the stream has ended")
        assert not head[1] & MASKED, "a server does not mask"
        size = head[1]
        if size == 126:
            (size,) = struct.unpack("!H", self.client.file.read(2))
            assert size >= 126
        elif size == 127:
            (size,) = struct.unpack("!Q", self.client.file.read(8))
            assert size >= 1 << 16
        payload = self.client.file.read(size)
        assert len(payload) == size, "the stream has ended within a frame"
        return Frame(head[0], payload)

    def closed(self) -> tuple[int | None, bytes]:
        """The code and the reason of the close frame that comes next, and nothing behind it."""
        one = self.receive()
        assert one.first == FIN | CLOSE, one
        assert self.client.rest() == b""
        if not one.payload:
            return None, b""
        return int.from_bytes(one.payload[:2], "big"), one.payload[2:]

    def close(self, code: int | None = 1000) -> tuple[int | None, bytes]:
        """Closes, and gives what comes back."""
        self.send(close_frame(code))
        return self.closed()


async def echo(request: http.Request) -> None:
    """A handler."""
    websocket = request.websocket()
    async for message in websocket:
        await websocket.send(message)


def lost(peer: Peer) -> bool:
    """The stream ends without a close frame."""
    with pytest.raises(ConnectionResetError):
        while peer.receive():
            pass
    return True
