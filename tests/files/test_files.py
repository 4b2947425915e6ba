"""What built-in files have no counterpart for: order, cancelling, pipes, descriptors, limits."""

import asyncio
import concurrent.futures
import contextlib
import errno
import gc
import hashlib
import io
import os
import random
import resource
import signal
import socket
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

import netpoll

from ..support import child_output, is_netpoll, until

pytestmark = pytest.mark.control


# ---- descriptors ------------------------------------------------------------------------------


async def test_at_an_offset(tmp_path: Path, loop: Any) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert await netpoll.write_at(fd, b"abcdef", 10) == 6
    assert await netpoll.write_at(fd, bytearray(b"xy"), 11) == 2
    assert await netpoll.write_at(fd, memoryview(b"_z_")[1:2], 15) == 1
    assert await netpoll.read_at(fd, 100, 9) == b"\0axydez"
    assert await netpoll.read_at(fd, 3, 12) == b"yde"
    assert await netpoll.read_at(fd, 3, 16) == b""
    assert await netpoll.read_at(fd, 0, 0) == b""
    buffer = bytearray(b"......")
    assert await netpoll.readinto_at(fd, memoryview(buffer)[1:4], 10) == 3
    assert buffer == b".axy.."
    assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    await netpoll.fsync(fd)
    await netpoll.fsync(fd, data_only=True)
    for call in (
        lambda: netpoll.read_at(fd, -1, 0),
        lambda: netpoll.read_at(fd, 1, -1),
        lambda: netpoll.readinto_at(fd, buffer, -1),
        lambda: netpoll.write_at(fd, b"x", -1),
    ):
        with pytest.raises(ValueError):
            await call()
    with pytest.raises((TypeError, BufferError)):
        await netpoll.readinto_at(fd, b"read-only", 0)
    os.close(fd)
    for call in (
        lambda: netpoll.read_at(fd, 1, 0),
        lambda: netpoll.write_at(fd, b"x", 0),
        lambda: netpoll.fsync(fd),
    ):
        with pytest.raises(OSError) as error:
            await call()
        assert error.value.errno == errno.EBADF


async def test_many_at_once(tmp_path: Path, loop: Any) -> None:
    blocks = [os.urandom(4096) for _ in range(64)]
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    await asyncio.gather(*(netpoll.write_at(fd, block, i * 4096) for i, block in enumerate(blocks)))
    order = list(range(64)) * 3
    random.Random(1).shuffle(order)

    async def check(i: int) -> None:
        assert await netpoll.read_at(fd, 4096, i * 4096) == blocks[i]

    await asyncio.gather(*map(check, order))
    os.close(fd)


async def test_a_mutable_buffer_is_written_as_it_was(tmp_path: Path, loop: Any) -> None:
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    data = bytearray(b"a" * 100_000)
    writing = asyncio.ensure_future(netpoll.write_at(fd, data, 0))
    await asyncio.sleep(0)
    data[:] = b"b" * 100_000
    await writing
    assert path.read_bytes() == b"a" * 100_000
    os.close(fd)


async def test_a_full_disk(tmp_path: Path, loop: Any) -> None:
    """What fits is written, the rest is an error: RLIMIT_FSIZE in a disk's place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError) as error:
            await netpoll.write_at(fd, bytes(3000), 0)
        assert error.value.errno == errno.EFBIG
        file = await netpoll.open(tmp_path / "other", "wb", 100)
        with pytest.raises(OSError):
            await file.write(bytes(3000))
        with pytest.raises(OSError):
            await file.close()
        assert file.closed
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert os.fstat(fd).st_size == os.stat(tmp_path / "other").st_size == 1000
    os.close(fd)


# ---- kinds of files ---------------------------------------------------------------------------


async def test_files_without_a_size_or_a_position(tmp_path: Path, loop: Any) -> None:
    async with netpoll.open("/proc/self/status") as file:
        assert (await file.readline()).startswith("Name:")
        assert "Threads:" in await file.read()
    async with netpoll.open("/dev/zero", "rb") as file:
        assert await file.read(100_000) == bytes(100_000)
    async with netpoll.open("/dev/null", "w") as file:
        await file.write("gone")
    async with netpoll.open("/dev/full", "wb") as file:
        await file.write(b"x")
        with pytest.raises(OSError) as error:
            await file.flush()
        assert error.value.errno == errno.ENOSPC
        with pytest.raises(OSError):
            await file.close()


@pytest.mark.parametrize("blocking", [True, False])
async def test_pipes(loop: Any, blocking: bool) -> None:
    """Longer than a pipe holds, both ends at once; nonblocking ones wait as well."""
    reader, writer = os.pipe()
    for fd in (reader, writer):
        os.set_blocking(fd, blocking)
    data = os.urandom(500_000)
    async with netpoll.open(reader, "rb") as source, netpoll.open(writer, "wb") as sink:
        assert not await source.seekable()
        with pytest.raises(io.UnsupportedOperation):
            await source.seek(0)

        async def feed() -> None:
            await sink.write(data)
            await sink.close()

        feeding = asyncio.ensure_future(feed())
        assert await source.read(100_001) == data[:100_001]
        assert await source.read() == data[100_001:]
        assert await source.read() == b""
        await feeding


async def test_a_cancelled_read_of_a_pipe_takes_nothing(loop: Any) -> None:
    reader, writer = os.pipe()
    async with netpoll.open(reader, "r") as source, netpoll.open(writer, "w") as sink:
        for i in range(20):
            reading = asyncio.ensure_future(source.readline())
            for _ in range(i % 4):
                await asyncio.sleep(0)
            if i % 2:
                await sink.write(f"{i}, first half,")
                await sink.flush()
                for _ in range(i % 5):
                    await asyncio.sleep(0)
            reading.cancel()
            got = (await asyncio.gather(reading, return_exceptions=True))[0]
            assert isinstance(got, asyncio.CancelledError)
            if i % 2 == 0:
                await sink.write(f"{i}, first half,")
            await sink.write("and second\n")
            await sink.flush()
            assert await source.readline() == f"{i}, first half,and second\n"


async def test_the_openers_file_is_ours(tmp_path: Path, loop: Any) -> None:
    path = tmp_path / "file"
    path.write_text("contents")
    seen = []

    def opener(name: Any, flags: int) -> int:
        seen.append((name, flags & os.O_CLOEXEC))
        return os.open(name, flags & ~os.O_CLOEXEC)

    async with netpoll.open(path, opener=opener) as file:
        assert await file.read() == "contents"
        assert not os.get_inheritable(file.fileno())
    assert seen == [(str(path), os.O_CLOEXEC)]
    with pytest.raises(ValueError, match="opener returned -5"):
        await netpoll.open(path, opener=lambda *_: -5)


async def test_closefd(tmp_path: Path, loop: Any) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    async with netpoll.open(fd, "w", closefd=False) as file:
        await file.write("kept")
    assert os.pread(fd, 10, 0) == b"kept"
    os.close(fd)


async def test_closed_and_wrong_mode(tmp_path: Path, loop: Any) -> None:
    for mode in ("w", "wb"):
        file = await netpoll.open(tmp_path / "file", mode)
        with pytest.raises(io.UnsupportedOperation):
            await file.read()
        assert (file.name, file.mode) == (str(tmp_path / "file"), mode)
        assert (file.readable(), await file.writable(), await file.isatty()) == (
            False,
            True,
            False,
        )
        await file.close()
        await file.close()
        assert file.closed
        for call in (file.read, file.readline, file.flush, file.tell, file.sync):
            with pytest.raises(ValueError):
                await call()
        with pytest.raises(ValueError):
            file.fileno()
    async with netpoll.open(tmp_path / "file") as file:
        with pytest.raises(io.UnsupportedOperation):
            await file.write("x")


async def test_an_unclosed_file_warns_and_loses_nothing(tmp_path: Path, loop: Any) -> None:
    file = await netpoll.open(tmp_path / "file", "wb")
    await file.write(b"still there")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del file
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]
    assert (tmp_path / "file").read_bytes() == b"still there"


# ---- order ------------------------------------------------------------------------------------


async def test_concurrent_calls_keep_their_order(tmp_path: Path, loop: Any) -> None:
    path = tmp_path / "file"
    lines = [f"{i}".encode() * (i % 7 * 3000) + b"\n" for i in range(60)]
    async with netpoll.open(path, "wb", 4096) as file:
        await asyncio.gather(*map(file.write, lines))
    assert path.read_bytes() == b"".join(lines)
    async with netpoll.open(path, "rb", 512) as file:
        assert await asyncio.gather(*(file.readline() for _ in lines)) == lines
    async with netpoll.open(path, "r", 512) as file:
        got = await asyncio.gather(*(file.readline() for _ in lines))
        assert got == [line.decode() for line in lines]


async def test_one_that_waits_for_its_turn_can_be_cancelled(loop: Any) -> None:
    reader, writer = os.pipe()
    async with netpoll.open(reader, "rb") as source:
        first, second, third = (asyncio.ensure_future(source.read(2)) for _ in range(3))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0)
        os.write(writer, b"1133")
        assert await first == b"11"
        assert await third == b"33"
        with pytest.raises(asyncio.CancelledError):
            await second
    os.close(writer)


# ---- cancelling -------------------------------------------------------------------------------


async def cancelled_somewhere(rand: random.Random, call: Any) -> bool:
    """Runs a call, perhaps cancelled on its way; whether it was."""
    task = asyncio.ensure_future(call)
    for _ in range(rand.randrange(4)):
        await asyncio.sleep(0)
    if rand.random() < 0.5:
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize("seed", range(3))
async def test_cancelled_writes_come_once_and_in_order(
    tmp_path: Path, loop: Any, seed: int
) -> None:
    """A write that was cancelled has been taken wholly or not at all, and tell() knows which."""
    rand = random.Random(seed)
    path = tmp_path / "file"
    expected = hashlib.sha256()
    async with netpoll.open(path, "wb", 700) as file:
        for i in range(250):
            data = bytes([i % 256]) * rand.randrange(1, 2000)
            before = await file.tell()
            await cancelled_somewhere(rand, file.write(data))
            taken = await file.tell() - before
            assert taken in (0, len(data))
            expected.update(data[:taken])
    assert hashlib.sha256(path.read_bytes()).digest() == expected.digest()


@pytest.mark.parametrize("seed", range(3))
async def test_cancelled_reads_lose_nothing(tmp_path: Path, loop: Any, seed: int) -> None:
    rand = random.Random(seed)
    path = tmp_path / "file"
    contents = rand.randbytes(150_000)
    path.write_bytes(contents)
    got = bytearray()

    async def read() -> None:
        data = await file.read(rand.randrange(1, 3000))
        got.extend(data)

    async with netpoll.open(path, "rb", rand.choice([0, 16, 5000])) as file:
        while len(got) < len(contents):
            await cancelled_somewhere(rand, read())
            assert await file.tell() == len(got)
    assert got == contents


async def test_cancelled_opens_leave_no_file_open(tmp_path: Path, loop: Any) -> None:
    """The fixtures count the file descriptors."""
    rand = random.Random(5)
    path = tmp_path / "file"
    path.touch()
    for _ in range(150):

        async def use() -> None:
            file = await netpoll.open(path, "rb")
            try:
                await file.read(1)
            finally:
                await file.close()

        with contextlib.suppress(ValueError):
            await cancelled_somewhere(rand, use())
        gc.collect(0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_ends_with_operations_in_flight(loop_factory: Any, tmp_path: Path) -> None:
    loop = loop_factory()
    reader, writer = os.pipe()
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)

    async def leave() -> list[Any]:
        source = await netpoll.open(reader, "rb")
        tasks = [asyncio.ensure_future(source.read(1))]
        tasks += [asyncio.ensure_future(netpoll.write_at(fd, bytes(9000), i)) for i in range(9)]
        await asyncio.sleep(0)
        return tasks

    tasks = loop.run_until_complete(leave())
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    del tasks
    gc.collect()
    os.close(fd)
    os.close(writer)


async def test_cycles_leave_nothing(tmp_path: Path, loop: Any, backend: str) -> None:
    """500 times open, use, close: no file descriptor more, and no memory."""
    path = tmp_path / "file"

    async def cycle() -> None:
        async with netpoll.open(path, "w+") as file:
            await file.write("a line\n" * 100)
            await file.seek(0)
            assert await file.readline() == "a line\n"

    def rss_kib() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    for _ in range(100):
        await cycle()
    fds, before_kib = len(os.listdir("/proc/self/fd")), rss_kib()
    for _ in range(500):
        await cycle()
    assert len(os.listdir("/proc/self/fd")) == fds
    if not os.environ.get("NETPOLL_SANITIZED"):
        assert rss_kib() - before_kib < 1000
    if is_netpoll(backend):
        await until(lambda: loop.stats()["ops_live"] <= 2)  # the loop's own watchers


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_a_write_that_nobody_reads_can_be_given_up(
    loop: Any, buffering: int, kind: str
) -> None:
    """No thread waits in it for ever, so the loop's executor, and the program, can end."""
    if kind == "pipe":
        reader, writer = os.pipe()
    else:
        pair = socket.socketpair()
        reader, writer = (end.detach() for end in pair)
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
    file = await netpoll.open(writer, "wb", buffering=buffering)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            while True:  # at last nothing more fits
                await file.write(b"x" * 200_000)
    await asyncio.wait_for(loop.run_in_executor(None, int), 5)  # its only thread is free
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        while os.read(reader, 1 << 20):
            pass
    os.close(reader)
    with contextlib.suppress(OSError):
        await file.close()


def _open_raw(path: str, flags: int) -> int:
    return os.open(path, flags)


@pytest.mark.parametrize("opener", [None, _open_raw])
@pytest.mark.parametrize("mode", ["rb", "wb"])
async def test_a_fifo_waits_for_its_other_end(
    tmp_path: Path, loop: Any, mode: str, opener: Any
) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    # Too few threads for those that wait: none of the executor's may be among them.
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(1))

    async def open_it() -> Any:
        return await netpoll.open(path, mode, opener=opener)

    opening = loop.create_task(open_it())
    await asyncio.sleep(0.1)
    assert not opening.done()
    await asyncio.wait_for(loop.run_in_executor(None, int), 10)
    other = os.open(path, (os.O_WRONLY if mode == "rb" else os.O_RDONLY) | os.O_NONBLOCK)
    file = await asyncio.wait_for(opening, 10)
    assert os.get_blocking(file.fileno())
    if mode == "rb":
        os.write(other, b"line")
        os.close(other)
        assert await file.read() == b"line"
        await file.close()
    else:
        await file.write(b"line")
        await file.close()
        assert os.read(other, 10) == b"line"
        os.close(other)


@pytest.mark.parametrize("opener", [None, _open_raw])
async def test_a_fifo_that_is_opened_too_late_is_closed(
    tmp_path: Path, loop: Any, opener: Any
) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def open_it() -> Any:
        return await netpoll.open(path, "rb", opener=opener)

    opening = loop.create_task(open_it())
    await asyncio.sleep(0.05)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    descriptors = len(os.listdir("/proc/self/fd"))
    with contextlib.suppress(OSError):  # ENXIO where the open was taken back
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    await until(lambda: len(os.listdir("/proc/self/fd")) == descriptors)
    await asyncio.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def _end_over_a_fifo() -> None:
    import asyncio
    import os
    import tempfile

    import netpoll

    async def main() -> None:
        for n, opener in enumerate((None, lambda path, flags: os.open(path, flags))):
            path = os.path.join(folder, str(n))
            os.mkfifo(path)
            try:
                await asyncio.wait_for(netpoll.open(path, "rb", opener=opener)._open(), 0.1)
            except TimeoutError:
                print("timed out")

    folder = tempfile.mkdtemp()
    loop = new_loop()  # type: ignore[name-defined]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    print("ended")


def test_a_program_ends_over_a_fifo_that_nobody_opens(backend: str) -> None:
    """Nothing waits for a thread that waits for ever: not the loop, not the interpreter."""
    assert child_output(backend, _end_over_a_fifo) == "timed out\ntimed out\nended\n"


async def test_two_readers_of_one_pipe(loop: Any) -> None:
    """One gets what there is; the other's thread does not wait for more."""
    reader, writer = os.pipe()
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(2))
    files = [await netpoll.open(os.dup(reader), "rb", buffering=0) for _ in range(2)]
    reads = [loop.create_task(file.read(10)) for file in files]
    await asyncio.sleep(0.05)
    os.write(writer, b"one")
    done, waiting = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [b"one"]
    await asyncio.sleep(0.1)
    for task in waiting:
        task.cancel()
    # Both threads are free, and what the cancelled read might have taken is still there.
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    barrier = threading.Barrier(2)
    both = [loop.run_in_executor(None, barrier.wait, 10) for _ in range(2)]
    assert sorted(await asyncio.gather(*both)) == [0, 1]
    for file in files:
        await file.close()
    os.close(reader)
    os.close(writer)
