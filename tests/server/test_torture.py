"""Checksummed torture: random sizes, pauses, closes and resets, on rings of one to eight buffers.

A second or two for each ring by default; NETPOLL_SOAK_S=600 makes it ten minutes in all, meant for
the sanitizer build (docs/testing.md).
"""

import hashlib
import os
import random
import socket
import struct
import threading
import time

import pytest

import netpoll
from netpoll import LoopConfig
from tests.support import SLOWNESS, reset

from .conftest import Serving, wait_for

SOAK_S = float(os.environ.get("NETPOLL_SOAK_S", "0"))
HEAD = struct.Struct(">I16s")
CLIENTS_COUNT = 12


def checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def frame(dice: random.Random) -> bytes:
    body = dice.randbytes(int(2 ** dice.uniform(0, 17)))
    return HEAD.pack(len(body), checksum(body)) + body


def on_data(conn: netpoll.Connection) -> None:
    """Checks each frame and sends it back: by forward, as pieces, as a copy, in turn."""
    while conn.available >= HEAD.size:
        with conn.peek_lease(HEAD.size) as head:
            size, want = HEAD.unpack(bytes(head))
        if conn.available < HEAD.size + size:
            return
        with conn.peek_lease(HEAD.size + size) as whole:
            assert checksum(whole.tobytes()[HEAD.size :]) == want, "bytes were lost or mixed up"
        way = size % 4
        if way == 0:
            conn.forward(conn.lease(HEAD.size + size))
        elif way == 1:
            conn.writev([conn.lease(HEAD.size), conn.take(size)])
        elif way == 2:
            lease = conn.lease(HEAD.size + size).retain()
            conn.write(bytearray(lease.tobytes()))
            lease.release()
        else:
            conn.writev([conn.lease(HEAD.size), b"", memoryview(conn.take(size))])


async def session(conn: netpoll.Connection) -> None:
    while await conn.fill(HEAD.size) >= HEAD.size:
        head = conn.take(HEAD.size)
        size, want = HEAD.unpack(head)
        body = await conn.read_exactly(size)
        assert checksum(body) == want, "bytes were lost or mixed up"
        conn.writev([head, body])
        await conn.drain()


class Client(threading.Thread):
    """Connects again and again; checks what comes back; ends politely, rudely, or in the middle."""

    def __init__(self, port: int, seed: int, deadline_s: float) -> None:
        super().__init__()
        self.port = port
        self.dice = random.Random(seed)
        self.deadline_s = deadline_s
        self.frames_count = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.frames_count or time.monotonic() < self.deadline_s:
                self.talk()  # the first time also where nobody has let us come to it before
        except BaseException as error:
            self.error = error

    def talk(self) -> None:
        sock = socket.create_connection(("127.0.0.1", self.port))
        sock.settimeout(30 * SLOWNESS)
        frames = [frame(self.dice) for _ in range(self.dice.randrange(1, 12))]
        ending = self.dice.choice(("close", "close", "reset", "half"))
        sender = threading.Thread(target=self.send, args=(sock, frames))
        sender.start()
        try:
            expected = frames if ending != "reset" else frames[: len(frames) // 2]
            for data in expected:
                if self.dice.random() < 0.1:
                    time.sleep(self.dice.random() * 0.02)  # a slow reader
                self.check(sock, data)
        finally:
            if ending == "reset":
                sock.shutdown(socket.SHUT_RD)
            sender.join()
        if ending == "half":
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        if ending == "reset":
            reset(sock)
        else:
            sock.close()

    def send(self, sock: socket.socket, frames: list[bytes]) -> None:
        try:
            for data in frames:
                cut = self.dice.randrange(len(data))
                sock.sendall(data[:cut])
                if self.dice.random() < 0.2:
                    time.sleep(self.dice.random() * 0.005)
                sock.sendall(data[cut:])
        except OSError:
            pass  # the reader has ended it

    def check(self, sock: socket.socket, data: bytes) -> None:
        got = bytearray()
        while len(got) < len(data):
            part = sock.recv(len(data) - len(got))
            assert part, f"the stream ended after {len(got)} of {len(data)} bytes"
            got += part
        assert got == data, "what came back is not what was sent"
        self.frames_count += 1


@pytest.mark.parametrize("handler", [on_data, session], ids=["on_data", "session"])
@pytest.mark.parametrize("buf_count", [1, 2, 8])
def test_torture(serving: Serving, buf_count: int, handler, record_property) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    server = serving(
        handler,
        workers=1 + buf_count % 3,
        # Large receives, and with them reading in bulk, come about with the largest ring only.
        config=LoopConfig(buf_count=buf_count, buf_bytes=8192 if buf_count < 8 else 65536),
        limits=netpoll.ServerLimits(pending_max_bytes=256 << 10),
    )
    deadline_s = time.monotonic() + (SOAK_S / 12 if SOAK_S else 1.0)
    clients = [Client(server.port, seed + i, deadline_s) for i in range(CLIENTS_COUNT)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [client.error for client in clients if client.error] == []
    assert all(client.frames_count for client in clients)
    wait_for(lambda: not server.stats()["connections"])
    # A peer that resets may do so while its session writes: the session's own affair.
    assert all("bytes were" not in str(context["exception"]) for context in serving.errors)
    serving.errors.clear()
