"""The works of `bench http`: what is asked, what has to be answered, and who can be asked."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from netpoll.bench import tls
from netpoll.bench.answers import (
    AGAIN,
    AGAIN_PATH,
    DOWNLOAD,
    DOWNLOAD_PATH,
    FILE_BYTES,
    FILE_PATH,
    HELLO,
    HELLO_PATH,
    JSON_PATH,
    MESSAGE,
    UPLOAD_PATH,
    WEBSOCKET_PATH,
)

__all__ = ["WORKS", "Exchange", "Work"]

UPLOAD_BYTES = 64 << 10
PIPELINED = 16
FRAME_BYTES = 64

# What a client sends that is no browser: what matters to a server is that there are some.
FIELDS = "Host: 127.0.0.1\r\nUser-Agent: netpoll-bench/1\r\nAccept: */*\r\n"

Exchange = tuple[bytes, bytes]  # the request, and the body of its answer


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\n{FIELDS}\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\n{FIELDS}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


# ---- WebSocket --------------------------------------------------------------------------------

# The example of RFC 6455, section 1.3: the key, and what a server has to make of it.
UPGRADE = (
    f"GET {WEBSOCKET_PATH} HTTP/1.1\r\n{FIELDS}Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
ACCEPTED = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FIN_BINARY, MASKED = 0x82, 0x80
MASK = bytes.fromhex("9c41e7a3")


def frames(number: int) -> Exchange:
    """A binary frame of the client, masked, and the server's, which holds the same."""
    data = random.Random(number).randbytes(FRAME_BYTES)
    masked = bytes(byte ^ MASK[i % 4] for i, byte in enumerate(data))
    asked = bytes([FIN_BINARY, MASKED | FRAME_BYTES]) + MASK + masked
    return asked, bytes([FIN_BINARY, FRAME_BYTES]) + data


# ---- the works --------------------------------------------------------------------------------

ALL = ("own", "asgi", "wsgi", "-")


@dataclass(frozen=True)
class Work:
    """One kind of request.

    exchanges: made of the content of the file that is served; a connection takes them in turn.
    size_bytes: of the body that goes one way or the other. depth: requests that are sent together.
    interfaces: of the servers that can be asked for it. app: the ASGI application that answers.
    own_app: the function of our own server, if it is another than for most works.
    needs: the framework, if there is one. upgrade: to a WebSocket.
    """

    name: str
    title: str
    exchanges: Callable[[bytes], list[Exchange]]
    size_bytes: int
    depth: int = 1
    interfaces: tuple[str, ...] = ALL
    app: str = "asgi"
    own_app: str = ""
    needs: str = ""
    upgrade: tuple[bytes, bytes] | None = None
    is_tls: bool = False

    def why_not(self) -> str | None:
        """Why it cannot be measured here, one clause; None when it can."""
        if self.is_tls:
            return tls.why_not()
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed (pip install {self.needs})"
        return None


def hello(file: bytes) -> list[Exchange]:
    return [(get(HELLO_PATH), HELLO), (get(AGAIN_PATH), AGAIN)]


def message(file: bytes) -> list[Exchange]:
    return [(get(JSON_PATH), json.dumps(MESSAGE, separators=(",", ":")).encode())]


def upload(file: bytes) -> list[Exchange]:
    body = random.Random(3).randbytes(UPLOAD_BYTES)
    return [(post(UPLOAD_PATH, body), str(UPLOAD_BYTES).encode())]


WORKS: dict[str, Work] = {
    work.name: work
    for work in (
        Work("hello", "13 bytes of text", hello, len(HELLO)),
        Work("json", "an object of one key, made into JSON for each request", message, 27),
        Work("upload", "a POST of 64 KiB, whose length is the answer", upload, UPLOAD_BYTES),
        Work(
            "download",
            "1 MiB out of memory",
            lambda file: [(get(DOWNLOAD_PATH), DOWNLOAD)],
            len(DOWNLOAD),
        ),
        Work(
            "file",
            "a file of 50 KiB, the way that the server is best at",
            lambda file: [(get(FILE_PATH), file)],
            FILE_BYTES,
        ),
        Work(
            "static",
            "the same file, by netpoll's StaticFiles where a server runs it",
            lambda file: [(get(FILE_PATH), file)],
            FILE_BYTES,
            interfaces=("own", "asgi", "-"),
            app="static_files",
            own_app="static_files:answer",
        ),
        Work("pipelined", f"hello, {PIPELINED} requests at once", hello, len(HELLO), PIPELINED),
        Work(
            "websocket",
            f"a WebSocket that echoes {FRAME_BYTES} bytes",
            lambda file: [frames(0), frames(1)],
            FRAME_BYTES,
            interfaces=("own", "asgi"),
            own_app="netpoll_http:echo",
            upgrade=(UPGRADE, ACCEPTED),
        ),
        Work(
            "starlette",
            "hello of Starlette",
            hello,
            len(HELLO),
            interfaces=("asgi", "-"),
            app="starlette_hello",
            needs="starlette",
        ),
        Work(
            "fastapi",
            "hello of FastAPI",
            hello,
            len(HELLO),
            interfaces=("asgi", "-"),
            app="fastapi_hello",
            needs="fastapi",
        ),
        Work(
            "tls",
            "hello over TLS 1.3",
            hello,
            len(HELLO),
            interfaces=("own", "asgi", "wsgi"),
            is_tls=True,
        ),
    )
}
