"""sock_sendfile and sendfile: whole files and parts, slow readers, errors, the file's position."""

import asyncio
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..support import (
    Recorder,
    digest,
    is_netpoll,
    pair,
    pattern,
    reset,
    socket_pair,
    unix_pair,
    until,
)

pytestmark = pytest.mark.control

SIZE = 5_000_000  # more than what both sockets' buffers hold


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = tmp_path_factory.mktemp("sendfile") / "file"
    name.write_bytes(pattern(SIZE))
    return name


@pytest.fixture
def file(path: Path) -> Iterator[Any]:
    with path.open("rb") as opened:
        yield opened


async def receive(loop: Any, sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, and not one more at the moment."""
    data = bytearray()
    while len(data) < size:
        piece = await loop.sock_recv(sock, 1 << 16)
        assert piece, f"the end after {len(data)} of {size} bytes"
        data += piece
    assert len(data) == size
    return bytes(data)


@pytest.mark.parametrize("make", [socket_pair, unix_pair])
async def test_whole_file(loop: Any, file: Any, make: Any) -> None:
    left, right = make()
    with left, right:
        task = asyncio.ensure_future(receive(loop, right, SIZE))
        assert await loop.sock_sendfile(left, file) == SIZE
        assert digest(await task) == digest(pattern(SIZE))
        assert file.tell() == SIZE


@pytest.mark.parametrize(
    ("offset", "count", "expected"),
    [
        (0, 10, 10),
        (1000, 4_000_000, 4_000_000),
        (SIZE - 5, None, 5),
        (SIZE - 5, 10, 5),
        (SIZE, None, 0),
        (2 * SIZE, 10, 0),
        (0, 10 * SIZE, SIZE),
    ],
)
async def test_parts(
    loop: Any, backend: str, file: Any, offset: int, count: Any, expected: int
) -> None:
    left, right = socket_pair()
    with left, right:
        file.seek(3)
        task = asyncio.ensure_future(receive(loop, right, expected))
        assert await loop.sock_sendfile(left, file, offset, count) == expected
        assert digest(await task) == digest(pattern(SIZE)[offset : offset + expected])
        # Older releases of asyncio leave it alone when nothing was sent, newer ones do not.
        assert file.tell() == offset + expected or (not expected and not is_netpoll(backend))


@pytest.mark.netpoll_only
async def test_the_loop_goes_on_meanwhile(loop: Any, file: Any) -> None:
    """However fast the reader is: no file has a turn for itself for longer than a few MiB."""
    left, right = socket_pair()
    with left, right:
        turns_before = loop.stats()["turns"]
        task = asyncio.ensure_future(receive(loop, right, SIZE))
        await loop.sock_sendfile(left, file)
        await task
        assert loop.stats()["turns"] - turns_before >= SIZE // (2 << 20)


async def test_empty_file(loop: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    left, right = socket_pair()
    with left, right, open(tmp_path / "empty", "rb") as empty:
        assert await loop.sock_sendfile(left, empty) == 0


async def test_a_file_that_grows(loop: Any, tmp_path: Path) -> None:
    """Without a count it is sent up to its end, where that is by then."""
    (tmp_path / "file").write_bytes(pattern(SIZE))
    left, right = socket_pair()
    with left, right, open(tmp_path / "file", "rb") as source:
        task = asyncio.ensure_future(loop.sock_sendfile(left, source))
        await asyncio.sleep(0.01)
        assert not task.done()
        with open(tmp_path / "file", "ab") as target:
            target.write(b"more")
        data = await receive(loop, right, SIZE + 4)
        assert data.endswith(b"more")
        assert await task == SIZE + 4


@pytest.mark.netpoll_only  # asyncio leaves the file where it began
async def test_cancel_leaves_the_position_behind_what_was_sent(loop: Any, file: Any) -> None:
    left, right = socket_pair()
    with left, right:
        task = asyncio.ensure_future(loop.sock_sendfile(left, file))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        sent = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        assert 0 < sent < SIZE
        assert digest(await receive(loop, right, sent)) == digest(pattern(SIZE)[:sent])
        with pytest.raises(BlockingIOError):
            right.recv(1)
        # The socket is the user's again.
        await loop.sock_sendall(left, b"and on")
        assert await loop.sock_recv(right, 100) == b"and on"


async def test_the_reader_goes_away(loop: Any, file: Any) -> None:
    left, right = socket_pair()
    with left:
        task = asyncio.ensure_future(loop.sock_sendfile(left, file))
        await asyncio.sleep(0.02)
        assert not task.done()
        reset(right)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await task


# ---- what sendfile(2) does not do -------------------------------------------------------------


class Unreal(io.BytesIO):
    """Not a file of the kernel's."""


async def test_fallback(loop: Any) -> None:
    left, right = socket_pair()
    with left, right:
        data = pattern(SIZE)
        task = asyncio.ensure_future(receive(loop, right, SIZE - 7))
        assert await loop.sock_sendfile(left, Unreal(data), 7) == SIZE - 7
        assert digest(await task) == digest(data[7:])


async def test_without_fallback(loop: Any, backend: str, file: Any) -> None:
    refusal: Any = asyncio.SendfileNotAvailableError
    if not is_netpoll(backend):
        refusal = (refusal, OSError)  # newer releases seek afterwards, which a pipe refuses
    left, right = socket_pair()
    read_fd, write_fd = os.pipe()
    with left, right, open(read_fd, "rb") as pipe, open(write_fd, "wb", 0) as end:
        end.write(b"x")
        for source in (Unreal(b"data"), pipe):
            with pytest.raises(refusal):
                await loop.sock_sendfile(left, source, 0, 1, fallback=False)


async def test_wrong_arguments(loop: Any, path: Path, file: Any) -> None:
    left, right = socket_pair()
    with left, right, path.open("r", encoding="latin-1") as text:
        for arguments in ((file, -1), (file, 0, 0), (file, 0, -1), (text,)):
            with pytest.raises(ValueError):
                await loop.sock_sendfile(left, *arguments)
        for arguments in ((file, 1.0), (file, 0, "1")):
            with pytest.raises(TypeError):
                await loop.sock_sendfile(left, *arguments)
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams, pytest.raises(ValueError):
        await loop.sock_sendfile(datagrams, file)


# ---- through a transport ----------------------------------------------------------------------


@pytest.mark.parametrize("real", [True, False])
async def test_transport(loop: Any, file: Any, real: bool) -> None:
    """In its place in what is written; the protocol reads on afterwards."""
    client, served = await pair(loop)
    source = file if real else Unreal(pattern(SIZE))
    client.transport.write(b"before")
    assert await loop.sendfile(client.transport, source, 10) == SIZE - 10
    client.transport.write(b"after")
    expected = b"before" + pattern(SIZE)[10:] + b"after"
    await until(lambda: len(served.data) == len(expected))
    assert digest(served.data) == digest(expected)
    served.transport.write(b"answer")
    await until(lambda: client.data == b"answer")
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)


async def test_transport_that_is_closing(loop: Any, file: Any) -> None:
    client, served = await pair(loop)
    client.transport.close()
    with pytest.raises(RuntimeError, match="closing"):
        await loop.sendfile(client.transport, file)
    await asyncio.gather(client.lost, served.lost)


async def test_no_writing_beside_it(loop: Any, file: Any) -> None:
    client, served = await pair(loop, Recorder)
    served.transport.pause_reading()
    task = asyncio.ensure_future(loop.sendfile(client.transport, file))
    await asyncio.sleep(0.01)
    assert not task.done()
    with pytest.raises(RuntimeError, match="sendfile is in progress"):
        client.transport.write(b"x")
    served.transport.resume_reading()
    assert await task == SIZE
    client.transport.close()
    await asyncio.gather(client.lost, served.lost)
