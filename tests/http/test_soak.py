"""Everything at once, for a while: answers are right, and the server does not grow.

NETPOLL_HTTP_SOAK_S: for how many seconds (default: 4). The clients do what clients do: small
questions, uploads, downloads, files, pipelines, WebSockets, events that nobody ends, and going away
at any moment; plain and over TLS. Each answer is compared byte by byte.
"""

import asyncio
import contextlib
import json
import os
import random
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ..support import SLOWNESS
from ..tls import HOST, certificate, client_context
from .frames import BINARY, CLOSE, FIELDS, close_frame, frame
from .soak_server import pattern

SOAK_S = float(os.environ.get("NETPOLL_HTTP_SOAK_S", "4"))
CLIENTS_COUNT = 24
FILE_BYTES = (100, 50_000, 1_000_000)

# What comes and goes: arenas of the allocator, buffers of the rings. All are there after half a
# minute, and stay as they are for an hour.
SLACK_BYTES = (16 << 20) * (4 if SLOWNESS > 1 else 1)


class Served:
    """The server's process."""

    def __init__(self, backend: str, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.http.soak_server", backend, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ports: dict[str, int] = self.said()

    def said(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def figures(self) -> dict[str, int]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        figures: dict[str, int] = self.said()
        return figures

    def quiet_figures(self) -> dict[str, int]:
        """When the ends of the clients have reached it."""
        deadline_s = time.monotonic() + 20 * SLOWNESS
        while (figures := self.figures())["connections"] and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return figures

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30 * SLOWNESS)


class Visitor:
    """A client: connections to one server after another, until the time is over."""

    def __init__(self, seed: int, served: Served) -> None:
        self.random = random.Random(seed)
        self.served = served
        self.answers_count = 0
        self.context = client_context()

    async def run(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            name = self.random.choice(list(self.served.ports))
            try:
                await asyncio.wait_for(self.visit(name), 30 * SLOWNESS)
            except TimeoutError:
                raise AssertionError(f"a visit to {name} did not end") from None

    async def visit(self, name: str) -> None:
        """One connection, with some questions."""
        is_tls = name.endswith("_tls")
        tls: dict[str, Any] = {"ssl": self.context, "server_hostname": HOST} if is_tls else {}
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.served.ports[name], limit=1 << 16, **tls
        )
        try:
            for _ in range(self.random.randint(1, 8)):
                kind = self.random.choice(KINDS)
                if kind in CANNOT.get(name.partition("_")[0], ()):
                    continue
                if not await kind(self, reader, writer):
                    writer.transport.abort()
                    return
                self.answers_count += 1
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    # Each asks for one thing; False: the connection is of no further use.

    async def small(self, reader: Any, writer: Any) -> bool:
        count, seed = self.random.randint(0, 2000), self.random.randint(0, 250)
        writer.write(get(f"/whole/{count}/{seed}"))
        assert await answer(reader) == (200, pattern(count, seed))
        return True

    async def pipeline(self, reader: Any, writer: Any) -> bool:
        asked = [(self.random.randint(0, 500), self.random.randint(0, 250)) for _ in range(16)]
        writer.write(b"".join(get(f"/whole/{count}/{seed}") for count, seed in asked))
        for count, seed in asked:
            assert await answer(reader) == (200, pattern(count, seed))
        return True

    async def download(self, reader: Any, writer: Any) -> bool:
        count, seed = self.random.randint(0, 300_000), self.random.randint(0, 250)
        writer.write(get(f"/bytes/{count}/{seed}"))
        assert await answer(reader) == (200, pattern(count, seed))
        return True

    async def file(self, reader: Any, writer: Any) -> bool:
        number = self.random.randrange(len(FILE_BYTES))
        writer.write(get(f"/file/{number}"))
        assert await answer(reader) == (200, pattern(FILE_BYTES[number], number))
        return True

    async def upload(self, reader: Any, writer: Any) -> bool:
        """In chunks, which come back while the others are on their way."""
        data = pattern(self.random.randint(0, 200_000), self.random.randint(0, 250))
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")

        async def send() -> None:
            at = 0
            while at < len(data):
                piece = data[at : at + self.random.randint(1, 20_000)]
                at += len(piece)
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")

        sending = asyncio.ensure_future(send())
        assert await answer(reader) == (200, data)
        await sending
        return True

    async def wait(self, reader: Any, writer: Any) -> bool:
        writer.write(get(f"/wait/{self.random.randint(0, 20)}"))
        assert await answer(reader) == (200, pattern(10, 1))
        return True

    async def fail(self, reader: Any, writer: Any) -> bool:
        writer.write(get("/fail"))
        status, _ = await answer(reader)
        assert status == 500
        return False

    async def see_it_break(self, reader: Any, writer: Any) -> bool:
        writer.write(get("/break"))
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await answer(reader)
        return False

    async def listen(self, reader: Any, writer: Any) -> bool:
        """To events, and go."""
        writer.write(get("/events"))
        await reader.readuntil(b"data: x\n\n")
        return False

    async def leave_in_a_head(self, reader: Any, writer: Any) -> bool:
        writer.write(get("/whole/1/1")[: self.random.randint(1, 30)])
        await asyncio.sleep(self.random.random() / 100)
        return False

    async def leave_in_an_upload(self, reader: Any, writer: Any) -> bool:
        writer.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        writer.write(bytes(self.random.randint(0, 50_000)))
        await asyncio.sleep(self.random.random() / 100)
        return False

    async def leave_in_a_download(self, reader: Any, writer: Any) -> bool:
        writer.write(get("/bytes/1000000/1" if self.random.random() < 0.5 else "/file/2"))
        await reader.read(self.random.randint(1, 50_000))
        return False

    async def shake_hands(self, reader: Any, writer: Any) -> None:
        lines = ["GET / HTTP/1.1", "host: x", *(f"{key}: {value}" for key, value in FIELDS.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")

    async def talk(self, reader: Any, writer: Any) -> bool:
        """Over a WebSocket: several messages on their way, and a close that is answered."""
        await self.shake_hands(reader, writer)
        messages = [pattern(self.random.randint(0, 70_000), number) for number in range(8)]
        for message in messages:
            writer.write(frame(BINARY, message))
        for message in messages:
            assert await received(reader) == (BINARY, message)
        writer.write(close_frame(1000))
        assert await received(reader) == (CLOSE, b"\x03\xe8")
        assert await reader.read() == b""
        return False

    async def leave_in_a_talk(self, reader: Any, writer: Any) -> bool:
        await self.shake_hands(reader, writer)
        sent = b"".join(frame(BINARY, pattern(30_000, number)) for number in range(4))
        writer.write(sent[: self.random.randint(1, len(sent))])
        await asyncio.sleep(self.random.random() / 100)
        return False

    async def talk_nonsense(self, reader: Any, writer: Any) -> bool:
        writer.write(b"GET / HTTP/1.1\r\nhost : x\r\n\r\n")
        status, _ = await answer(reader)
        assert status == 400
        return False


KINDS = [
    *([Visitor.small] * 6),
    *([Visitor.pipeline, Visitor.download, Visitor.file, Visitor.upload, Visitor.wait] * 2),
    Visitor.fail,
    Visitor.see_it_break,
    Visitor.listen,
    Visitor.leave_in_a_head,
    Visitor.leave_in_an_upload,
    Visitor.leave_in_a_download,
    Visitor.leave_in_a_talk,
    Visitor.talk,
    Visitor.talk_nonsense,
]


# What a kind of application has no word for.
CANNOT = {
    "raw": (Visitor.listen, Visitor.see_it_break),
    "wsgi": (Visitor.listen, Visitor.talk, Visitor.leave_in_a_talk),
}


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    if b"transfer-encoding: chunked" not in head:
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        return status, await reader.readexactly(length)
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return status, b"".join(parts)


async def received(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """A frame of a WebSocket: its opcode, what it carries."""
    first, size = await reader.readexactly(2)
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8), "big")
    return first & 15, await reader.readexactly(size)


async def visits(served: Served, seed: int, seconds: float) -> int:
    visitors = [Visitor(seed + number, served) for number in range(CLIENTS_COUNT)]
    async with asyncio.TaskGroup() as group:
        for visitor in visitors:
            group.create_task(visitor.run(seconds))
    return sum(visitor.answers_count for visitor in visitors)


def test_everything_at_once(backend: str, tmp_path: Path) -> None:
    for number, size in enumerate(FILE_BYTES):
        (tmp_path / f"file{number}").write_bytes(pattern(size, number))
    certificate(HOST).private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    served = Served(backend, tmp_path)
    try:
        asyncio.run(visits(served, 0, SOAK_S / 2))  # to warm up
        before = served.quiet_figures()
        answers_count = asyncio.run(visits(served, 1000, SOAK_S / 2))
        after = served.quiet_figures()
    finally:
        status = served.end()
    print(f"{answers_count} answers: {before} -> {after}")
    assert status == 0
    assert answers_count >= CLIENTS_COUNT
    assert after["connections"] == 0
    assert after["fds"] <= before["fds"]
    assert after["objects"] <= before["objects"] + 500
    assert after["rss_bytes"] <= before["rss_bytes"] + SLACK_BYTES
