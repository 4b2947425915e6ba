"""netpoll.uring on the running loop: any entry, its result, its memory, its chain."""

import asyncio
import contextlib
import errno
import gc
import os
import select
import socket
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

import netpoll

from ..support import until

uring = pytest.importorskip("netpoll.uring", reason="built without cffi", exc_type=ImportError)
ffi, lib = getattr(uring, "ffi", None), getattr(uring, "lib", None)


@pytest.fixture
def ring_loop(backend: str, loop: Any) -> Any:
    """The loop, where it has a ring."""
    if backend != "uring":
        pytest.skip("this loop has no ring: see test_loops_without_a_ring_say_so")
    return loop


class Memory(bytearray):
    """One that a weak reference can watch."""

    __slots__ = ("__weakref__",)


def read_entry(fd: int, buffer: Any, offset: int = 0) -> Any:
    entry = uring.sqe()
    lib.io_uring_prep_read(entry, fd, ffi.from_buffer(buffer), len(buffer), offset % (1 << 64))
    return entry


async def test_loops_without_a_ring_say_so(backend: str, loop: Any) -> None:
    if backend == "uring":
        entry = uring.sqe()
        lib.io_uring_prep_nop(entry)
        assert await uring.submit(entry) == 0
    else:
        with pytest.raises(netpoll.BackendUnavailableError, match="backend='uring'"):
            uring.submit(uring.sqe())


def test_other_loops_say_so() -> None:
    async def main() -> None:
        uring.submit(uring.sqe())

    with pytest.raises(netpoll.BackendUnavailableError, match="not netpoll's"):
        asyncio.run(main())
    with pytest.raises(RuntimeError, match="no running event loop"):
        uring.submit(uring.sqe())


async def test_statx_openat2_fallocate_splice(ring_loop: Any, tmp_path: Path) -> None:
    path = ffi.new("char[]", os.fsencode(tmp_path / "file"))
    how = ffi.new("struct open_how *")
    how.flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    how.mode = 0o600
    entry = uring.sqe()
    lib.io_uring_prep_openat2(entry, uring.AT_FDCWD, path, how)
    fd = await uring.submit(entry, keep=(path, how))
    entry = uring.sqe()
    lib.io_uring_prep_fallocate(entry, fd, 0, 0, 5000)
    assert await uring.submit(entry) == 0
    about = ffi.new("struct statx *")
    entry = uring.sqe()
    lib.io_uring_prep_statx(entry, uring.AT_FDCWD, path, 0, uring.STATX_SIZE, about)
    assert await uring.submit(entry, keep=(path, about)) == 0
    assert about.stx_size == 5000
    reader, writer = os.pipe()
    entry = uring.sqe()
    lib.io_uring_prep_splice(entry, fd, 0, writer, -1, 3000, 0)
    assert await uring.submit(entry) == 3000
    assert os.read(reader, 5000) == bytes(3000)
    for number in (fd, reader, writer):
        os.close(number)


async def test_futex(ring_loop: Any) -> None:
    word = ffi.new("uint32_t *", 7)
    every, flags = uring.FUTEX_BITSET_MATCH_ANY, uring.FUTEX2_SIZE_U32 | uring.FUTEX2_PRIVATE
    entry = uring.sqe()
    lib.io_uring_prep_futex_wait(entry, word, 7, every, flags, 0)
    waiting = uring.submit(entry, keep=word)
    try:
        async with asyncio.timeout(0.05):
            await asyncio.shield(waiter(waiting))
    except TimeoutError:
        pass
    except OSError as error:
        pytest.skip(f"no futexes in this kernel's io_uring: {error}")
    entry = uring.sqe()
    lib.io_uring_prep_futex_wake(entry, word, 1, every, flags, 0)
    assert await uring.submit(entry, keep=word) == 1
    await until(waiting.done)
    assert waiting.result() == 0


async def waiter(operation: Any) -> int:
    return await operation


async def test_errors_are_oserrors(ring_loop: Any) -> None:
    entry = read_entry(-1, bytearray(1))
    operation = uring.submit(entry)
    with pytest.raises(asyncio.InvalidStateError):
        operation.result()
    with pytest.raises(OSError) as error:
        await operation
    assert error.value.errno == errno.EBADF
    assert (operation.res, operation.done(), operation.cancel()) == (-errno.EBADF, True, False)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("flags", 1 << 1),
        ("flags", 1 << 2),
        ("flags", 1 << 3),
        ("flags", 1 << 5),
        ("flags", 1 << 6),
    ],
)
async def test_what_would_break_the_loop_is_refused(ring_loop: Any, flag: str, value: int) -> None:
    entry = uring.sqe()
    setattr(entry, flag, value)
    with pytest.raises(ValueError, match="break the loop"):
        uring.submit(entry)


async def test_memory_stays_until_the_last_completion(ring_loop: Any) -> None:
    reader, writer = os.pipe()
    buffer = Memory(8)
    watched = weakref.ref(buffer)
    task = asyncio.ensure_future(waiter(uring.submit(read_entry(reader, buffer, -1), keep=buffer)))
    del buffer
    await asyncio.sleep(0.01)
    gc.collect()
    assert watched() is not None
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    del task
    await until(lambda: gc.collect() >= 0 and watched() is None)
    os.close(reader)
    os.close(writer)


async def test_a_result_that_nobody_takes_is_closed(ring_loop: Any) -> None:
    """The fixtures count the file descriptors."""
    path = ffi.new("char[]", b"/dev/null")
    for i in range(200):
        entry = uring.sqe()
        lib.io_uring_prep_openat(entry, uring.AT_FDCWD, path, os.O_RDONLY | os.O_CLOEXEC, 0)
        entry.flags = uring.IOSQE_ASYNC if i % 2 else 0
        operation = uring.submit(entry, keep=path)
        if i % 3 == 0:
            task = asyncio.ensure_future(waiter(operation))
            await asyncio.sleep(0)
            if i % 4 == 0:
                await asyncio.sleep(0)
            task.cancel()
            fd = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(fd, int):
                os.close(fd)
        elif i % 3 == 1:
            os.close(await operation)
    del operation


async def test_a_descriptor_that_was_looked_at_stays_open(ring_loop: Any) -> None:
    path = ffi.new("char[]", b"/dev/null")
    entry = uring.sqe()
    lib.io_uring_prep_openat(entry, uring.AT_FDCWD, path, os.O_RDONLY | os.O_CLOEXEC, 0)
    operation = uring.submit(entry, keep=path)
    await until(operation.done)
    fd = operation.res
    del operation
    os.close(fd)


async def test_chains(ring_loop: Any, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    data, buffer = ffi.new("char[]", b"hello"), bytearray(5)
    write = uring.sqe()
    lib.io_uring_prep_write(write, fd, data, 5, 0)
    operations = uring.submit_linked([write, read_entry(fd, buffer)], keep=(data, buffer))
    assert [await operation for operation in operations] == [5, 5]
    assert buffer == b"hello"
    operations = uring.submit_linked([read_entry(-1, buffer), read_entry(fd, buffer)], keep=buffer)
    results = await asyncio.gather(*map(waiter, operations), return_exceptions=True)
    assert [error.errno for error in results] == [errno.EBADF, errno.ECANCELED]
    os.close(fd)


@pytest.mark.parametrize("which", range(3))
async def test_cancelling_one_link_ends_the_chain(ring_loop: Any, which: int) -> None:
    reader, writer = os.pipe()
    buffers = [bytearray(1) for _ in range(3)]
    entries = [read_entry(reader, buffer, -1) for buffer in buffers]
    operations = uring.submit_linked(entries, keep=buffers)
    await asyncio.sleep(0.01)
    assert not any(operation.done() for operation in operations)
    assert operations[which].cancel()
    results = await asyncio.gather(*map(waiter, operations), return_exceptions=True)
    assert [error.errno for error in results] == [errno.ECANCELED] * 3
    os.close(reader)
    os.close(writer)


async def test_multishot_is_iterated_over(ring_loop: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        entry = uring.sqe()
        lib.io_uring_prep_multishot_accept(
            entry, listener.fileno(), ffi.NULL, ffi.NULL, socket.SOCK_CLOEXEC
        )
        accepting = uring.submit(entry, keep=listener)
        clients = [socket.create_connection(listener.getsockname()) for _ in range(5)]
        accepted = []
        async for fd, flags in accepting:
            assert flags & uring.IORING_CQE_F_MORE
            accepted.append(fd)
            if len(accepted) == 3:
                break
        assert accepting.cancel()  # two are never fetched: they are closed
        await until(accepting.done)
        for fd in accepted:
            os.close(fd)
        for client in clients:
            client.close()
        del accepting


async def test_two_do_not_wait_for_one_operation(ring_loop: Any) -> None:
    """The first was forgotten, and waited for ever (bug class 33)."""
    reader, writer = os.pipe()
    entry = uring.sqe()
    lib.io_uring_prep_poll_multishot(entry, reader, select.POLLIN)
    ready = aiter(uring.submit(entry))
    first = asyncio.ensure_future(anext(ready))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="awaited already"):
        await anext(ready)
    os.write(writer, b"x")
    assert (await asyncio.wait_for(first, 20))[0] == select.POLLIN
    assert ready.cancel()
    await until(ready.done)
    os.close(reader)
    os.close(writer)


async def test_a_zero_copy_send_gives_what_it_sent(ring_loop: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    data = ffi.new("char[]", bytes(10000))
    entry = uring.sqe()
    lib.io_uring_prep_send_zc(entry, client.fileno(), data, 10000, 0, 0)
    assert await uring.submit(entry, keep=(data, client)) == 10000
    received = 0
    while received < 10000:
        received += len(server.recv(20000))
    client.close()
    server.close()


async def test_cancel_at_random(ring_loop: Any) -> None:
    """Bytes through a pipe, reads cancelled in every moment: each arrives once, in order."""
    import random

    rand = random.Random(3)
    reader, writer = os.pipe()
    expected, arrived = bytearray(), bytearray()
    for i in range(600):
        buffer = bytearray(3)
        operation = uring.submit(read_entry(reader, buffer, -1), keep=buffer)
        if rand.random() < 0.4:
            await asyncio.sleep(0)
        data = bytes([i % 251]) * rand.randrange(0, 4)
        os.write(writer, data)
        expected += data
        if rand.random() < 0.3:
            await asyncio.sleep(0)
        operation.cancel()
        await until(operation.done)
        if operation.res > 0:
            arrived += buffer[: operation.res]
        else:
            assert operation.res == -errno.ECANCELED
    os.close(writer)
    arrived += os.read(reader, len(expected))
    os.close(reader)
    assert arrived == expected


def test_operations_in_flight_when_the_loop_is_closed(backend: str, loop_factory: Any) -> None:
    if backend != "uring":
        pytest.skip("this loop has no ring")
    loop = loop_factory()
    reader, writer = os.pipe()
    buffer = Memory(4)
    watched = weakref.ref(buffer)

    async def leave() -> Any:
        return uring.submit(read_entry(reader, buffer, -1), keep=buffer)

    operation = loop.run_until_complete(leave())
    assert operation.in_flight
    loop.close()
    assert operation.res == -errno.ECANCELED
    del buffer
    gc.collect()
    assert watched() is None
    os.close(reader)
    os.close(writer)


def test_a_loop_with_entries_does_not_move(backend: str, loop_factory: Any) -> None:
    if backend != "uring":
        pytest.skip("this loop has no ring")
    loop = loop_factory()
    reader, writer = os.pipe()
    buffer = bytearray(1)

    async def leave() -> Any:
        return uring.submit(read_entry(reader, buffer, -1), keep=buffer)

    operation = loop.run_until_complete(leave())
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            loop.run_until_complete(asyncio.sleep(0))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert isinstance(raised[0], OSError) and raised[0].errno == errno.EBUSY
    assert "let it run in the thread it ran in" in str(raised[0])
    os.write(writer, b"x")
    assert loop.run_until_complete(waiter(operation)) == 1
    os.close(reader)
    os.close(writer)


def test_the_core_does_not_import_it() -> None:
    import subprocess

    code = "import sys, netpoll; print('cffi' in sys.modules, 'netpoll.uring' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
