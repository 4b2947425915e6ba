"""Asynchronous files: netpoll.open, and reading and writing at an offset of a file descriptor.

    async with netpoll.open("log.txt") as file:
        async for line in file:
            ...

On a netpoll loop with io_uring each operation is one submission entry on the loop's ring; on every
other loop it is a call in a thread. docs/files.md has what follows from that.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import stat
import warnings
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from netpoll._files.binary import BUFFER_BYTES, BinaryFile
from netpoll._files.operations import RingOps, ThreadOps, is_ring, operations
from netpoll._files.text import TextFile
from netpoll._native.files import operations as native

__all__ = [
    "BinaryFile",
    "TextFile",
    "fsync",
    "open",
    "read_at",
    "readinto_at",
    "write_at",
]


# ---- file descriptors -------------------------------------------------------------------------


def read_at(fd: int, n: int, offset: int) -> Any:
    """Awaitable: up to n bytes of fd from `offset` on; fewer only at the end of the file.

    The file must be seekable (pread(2)), its position is not used and not moved. A cancelled read
    has no effect. At most 2 GiB - 4 KiB in one go. Raises OSError, ValueError for negative numbers.
    """
    loop = asyncio.get_running_loop()
    if is_ring(loop):
        return native.read(loop, fd, n, offset)
    return ThreadOps(loop).read(fd, n, offset)


def readinto_at(fd: int, buffer: Any, offset: int) -> Any:
    """Awaitable: the number of bytes read into a writable, contiguous buffer.

    The buffer stays exported until the operation has ended, which can be later than a cancelled
    task: what is in it then is undefined. Else as read_at.
    """
    loop = asyncio.get_running_loop()
    if is_ring(loop):
        return native.readinto(loop, fd, buffer, offset)
    return ThreadOps(loop).readinto(fd, buffer, offset)


async def write_at(fd: int, data: Any, offset: int) -> int:
    """Writes all of data to fd at `offset` (pwrite(2)); returns its length in bytes.

    The file must be seekable; its position is neither used nor moved, but a file opened for
    appending is appended to. When the task is cancelled, or an OSError raised half-way, a prefix of
    data has been written: none, some or all of it.
    """
    ops = operations(asyncio.get_running_loop())
    written = await ops.write(fd, data, offset)
    size = memoryview(data).nbytes
    if written < size:
        rest = memoryview(bytes(data))  # short: the disk is full, or more than 2 GiB
        while written < size:
            n = await ops.write(fd, rest[written:], offset + written)
            if n == 0:
                raise OSError(errno.EIO, "the file takes no more bytes")
            written += n
    return size


async def fsync(fd: int, *, data_only: bool = False) -> None:
    """Waits until what was written to fd is on the disk: fsync(2), or fdatasync(2).

    Raises OSError when a write that was taken before has failed since.
    """
    await operations(asyncio.get_running_loop()).fsync(fd, data_only)


# ---- open -------------------------------------------------------------------------------------

File = BinaryFile | TextFile


class Opening:
    """What open() returns: await it for the file, or use it with `async with`."""

    __slots__ = ("_file", "_open")

    def __init__(self, open_file: Callable[[], Coroutine[Any, Any, File]]) -> None:
        self._open = open_file
        self._file: Any = None

    def __await__(self) -> Generator[Any, None, File]:
        return self._open().__await__()

    async def __aenter__(self) -> Any:
        self._file = await self._open()
        return self._file

    async def __aexit__(self, *exc_info: object) -> None:
        await self._file.close()


def open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[Any, int], int] | None = None,
) -> Opening:
    """Opens a file as the built-in open does; the arguments are its arguments.

    Await it, or use it with `async with`: gives a TextFile, or a BinaryFile with "b" in the mode.
    buffering: 0 none (binary only), 1 by lines (text), else the buffer's size in bytes; -1 64 KiB.

    Raises what open raises: OSError when awaited, ValueError and TypeError at once.
    """
    flags, readable, writable, binary = _parse_mode(mode)
    _check_arguments(file, binary, buffering, encoding, errors, newline, closefd)
    if not isinstance(file, int):
        file = os.fspath(file)
    if buffering == 1 and binary:
        warnings.warn(
            "line buffering (buffering=1) isn't supported in binary mode, the default buffer "
            "size will be used",
            RuntimeWarning,
            stacklevel=2,
        )
    codec = ("", "")
    if not binary:
        text = io.TextIOWrapper(io.BytesIO(), encoding, errors, newline)  # checks and resolves
        codec = (text.encoding, text.errors or "strict")

    async def open_file() -> File:
        ops = operations(asyncio.get_running_loop())
        fd = await _open_fd(ops, file, flags, opener)
        try:
            about = _examine(fd, file, flags)
        except BaseException:
            if not isinstance(file, int):
                os.close(fd)
            raise
        raw = BinaryFile(
            ops,
            fd,
            file,
            mode,
            readable,
            writable,
            about[0],
            about[1],
            BUFFER_BYTES if buffering < 0 or buffering == 1 else buffering,
            closefd,
        )
        if binary:
            return raw
        by_lines = buffering == 1 or (buffering < 0 and stat.S_ISCHR(about[0]) and os.isatty(fd))
        return TextFile(raw, *codec, newline, by_lines)

    return Opening(open_file)


def _parse_mode(mode: str) -> tuple[int, bool, bool, bool]:
    """(flags of open(2), readable, writable, binary)."""
    if not isinstance(mode, str):
        raise TypeError(f"open() argument 'mode' must be str, not {type(mode).__name__}")
    letters = set(mode)
    if letters - set("rwxabt+") or len(mode) > len(letters):
        raise ValueError(f"invalid mode: {mode!r}")
    if {"b", "t"} <= letters:
        raise ValueError("can't have text and binary mode at once")
    kind = letters & set("rwxa")
    if len(kind) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    flags = {
        "r": 0,
        "w": os.O_CREAT | os.O_TRUNC,
        "x": os.O_CREAT | os.O_EXCL,
        "a": os.O_CREAT | os.O_APPEND,
    }[kind.pop()]
    readable = "r" in letters or "+" in letters
    writable = "r" not in letters or "+" in letters
    flags |= os.O_RDWR if readable and writable else os.O_RDONLY if readable else os.O_WRONLY
    return flags | os.O_CLOEXEC, readable, writable, "b" in letters


def _check_arguments(
    file: Any,
    binary: bool,
    buffering: int,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    closefd: bool,
) -> None:
    if isinstance(file, int):
        if file < 0:
            raise ValueError("negative file descriptor")
    else:
        os.fspath(file)  # a TypeError that says what can be opened
        if not closefd:
            raise ValueError("Cannot use closefd=False with file name")
    if not isinstance(buffering, int):
        raise TypeError(f"'{type(buffering).__name__}' object cannot be interpreted as an integer")
    if not binary:
        if buffering == 0:
            raise ValueError("can't have unbuffered text I/O")
        return
    for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
        if value is not None:
            raise ValueError(f"binary mode doesn't take an {name} argument")


async def _open_fd(
    ops: RingOps | ThreadOps, file: Any, flags: int, opener: Callable[[Any, int], int] | None
) -> int:
    if isinstance(file, int):
        return file
    if opener is None:
        if isinstance(ops, ThreadOps):
            return await ops.open(file, flags, 0o666)
        return await _open_by_ring(ops, file, flags)
    fd = await ops.call_apart(opener, (file, flags), _close_unwanted)
    if not isinstance(fd, int):
        raise TypeError("expected integer from opener")
    if fd < 0:
        raise ValueError(f"opener returned {fd}")
    os.set_inheritable(fd, False)
    return fd


async def _open_by_ring(ops: RingOps, file: Any, flags: int) -> int:
    """The kernel first tries an open of a ring with O_NONBLOCK, and takes what that gives: ENXIO,
    or a FIFO without a writer. Then it is opened once more, by a call that waits for the other end.

    While that begins, the descriptor of the first try lets no writer be missed: one that has come
    and gone has left what it wrote, or an end of file.
    """
    try:
        fd: int = await ops.open(file, flags, 0o666)
    except OSError as exc:
        if exc.errno != errno.ENXIO:
            raise
        return int(await ops.open(file, flags, 0o666, True))
    if flags & os.O_ACCMODE != os.O_RDONLY or not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    loop = ops.loop
    ready = loop.create_future()  # something to read, or a writer that has gone again

    async def wait_for_writer() -> int:
        return int(await ops.open(file, flags, 0o666, True))

    opening = loop.create_task(wait_for_writer())
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    wanted = second = -1
    try:
        await asyncio.wait((ready, opening), return_when=asyncio.FIRST_COMPLETED)
        wanted = opening.result() if opening.done() else fd
        return wanted
    finally:
        loop.remove_reader(fd)
        if not opening.cancel() and not opening.cancelled() and opening.exception() is None:
            second = opening.result()
        for spare in {fd, second} - {wanted, -1}:
            os.close(spare)


def _close_unwanted(fd: Any) -> None:
    """The opener's task was cancelled, and the opener has opened a file after all."""
    if isinstance(fd, int) and fd >= 0:
        os.close(fd)


def _examine(fd: int, file: Any, flags: int) -> tuple[int, bool]:
    """(st_mode, seekable); at its end if it is to be appended to. Raises IsADirectoryError.

    By a plain fstat(2): what open(2) has just looked at does not wait, and io_uring gives every
    statx to a worker thread, which costs ten times as much as all the rest.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), file)
    try:
        os.lseek(fd, 0, os.SEEK_END if flags & os.O_APPEND else os.SEEK_CUR)
    except OSError:
        return mode, False
    return mode, True
