"""Binary files: buffers, position and order of one open file.

The position is the kernel's own (lseek(2)), so it is true whatever became of a cancelled operation,
and for everybody who shares it. Calls are carried out one after the other, in the order in which
they were made. A call gives its turn to the next one only when the kernel has let go of its
operation, which may be later than the end of a cancelled task.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import stat
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from netpoll._files.operations import FileCall, PolledOps, RingOps, ThreadOps, until_ready
from netpoll._files.ordered import OrderedFile

__all__ = ["BUFFER_BYTES", "BinaryFile"]

_T = TypeVar("_T")

# An operation costs the loop about as much as copying 10 KiB; beyond this size nothing is gained.
BUFFER_BYTES = 64 * 1024

# Where a file's size is not known, as in /proc, it is read in pieces of at least this much.
READALL_MIN_BYTES = 16 * 1024

# A buffer is cut down to what is left in it when this much of it has been taken.
TRIM_BYTES = 256 * 1024


class BinaryFile(OrderedFile[bytes]):
    """A file opened in binary mode. Made by netpoll.open().

    The methods are those of the built-in open's binary files, with `await` where they may wait. One
    loop's; not for several threads. Every method raises ValueError once the file is closed,
    io.UnsupportedOperation where the mode does not allow it, and OSError for what the system says.
    """

    __slots__ = (
        "__weakref__",
        "_absorb",
        "_at",
        "_buffer_bytes",
        "_closefd",
        "_fd",
        "_holds_turn",
        "_in",
        "_is_regular",
        "_is_sequential",
        "_op",
        "_ops",
        "_out",
        "_out_bytes",
        "_polls",
        "_readable",
        "_seekable",
        "_settles",
        "_writable",
        "mode",
        "name",
    )

    def __init__(
        self,
        ops: RingOps | ThreadOps,
        fd: int,
        name: Any,
        mode: str,
        readable: bool,
        writable: bool,
        file_mode: int,
        seekable: bool,
        buffer_bytes: int,
        closefd: bool,
    ) -> None:
        super().__init__(ops.loop)
        self.name = name
        self.mode = mode
        self._ops: RingOps | ThreadOps = ops
        self._fd = fd
        self._readable = readable
        self._writable = writable
        self._seekable = seekable
        self._is_regular = stat.S_ISREG(file_mode)
        # A thread that waits in a read of a pipe could be neither cancelled nor joined.
        self._polls = ops.waits_in_threads and (
            stat.S_ISFIFO(file_mode)
            or stat.S_ISSOCK(file_mode)
            or (stat.S_ISCHR(file_mode) and os.isatty(fd))
        )
        if self._polls:
            self._ops = PolledOps(ops.loop)
        self._settles = seekable and not ops.waits_in_threads
        self._buffer_bytes = buffer_bytes  # 0: none
        self._closefd = closefd
        self._in = bytearray()  # read from the file; taken from it up to _at
        self._at = 0
        self._is_sequential = True  # the next read is likely to go on here: read ahead
        self._out: list[Any] = []  # written by the caller, not yet by us: bytes or memoryview
        self._out_bytes = 0
        self._op: Any = None
        self._absorb: Callable[[Any], None] | None = None
        self._holds_turn = False  # the turn waits for the end of a cancelled call's operation

    # -- operations -----------------------------------------------------------------------------

    async def _perform(
        self, start: Callable[[], FileCall[_T]], absorb: Callable[[_T], None] | None, writing: bool
    ) -> _T:
        """Carries an operation out, in a turn. `absorb` takes the value if nobody else does."""
        while True:
            if self._polls:
                await until_ready(self._loop, self._fd, writing)
            op = self._op = start()
            self._absorb = absorb
            op.on_end = self._ended_unwaited
            try:
                return await op
            except BlockingIOError:  # the fd is in nonblocking mode
                await until_ready(self._loop, self._fd, writing)

    def _ended_unwaited(self, op: Any) -> None:
        """A cancelled call's operation has ended: what it did counts."""
        try:
            value = op.result()
        except OSError:
            pass  # it did nothing; what lasts, such as a full disk, the next call meets, too
        else:
            if self._absorb is not None:
                self._absorb(value)
        if self._holds_turn:
            self._holds_turn = False
            self._pass_turn()

    def _end_turn(self) -> None:
        op, self._op = self._op, None
        if op is not None and op.in_flight:
            self._holds_turn = True
        else:
            self._pass_turn()

    def _check_open(self) -> None:
        if self._fd < 0:
            raise ValueError("I/O operation on closed file")

    def _check_readable(self) -> None:
        self._check_open()
        if not self._readable:
            raise io.UnsupportedOperation("not readable")

    def _check_writable(self) -> None:
        self._check_open()
        if not self._writable:
            raise io.UnsupportedOperation("not writable")

    # -- reading --------------------------------------------------------------------------------

    def _take(self, size: int) -> bytes:
        """Up to `size` bytes out of the buffer."""
        start = self._at
        data = bytes(memoryview(self._in)[start : start + size])
        self._at += len(data)
        if self._at == len(self._in):
            self._in.clear()
            self._at = 0
        elif self._at >= TRIM_BYTES:
            del self._in[: self._at]
            self._at = 0
        return data

    def _put_back(self, data: bytes) -> None:
        """Bytes that were read and are for a later call, behind what is buffered already."""
        self._in += data

    async def _fetch(self, size: int) -> bytes:
        """One read, of `size` bytes; b"" at the end of the file. In a turn."""
        if self._out:
            await self._write_out()
        start = self._start()

        def absorb(data: bytes) -> None:
            self._settle(start, size, len(data), False)
            self._put_back(data)

        data = await self._perform(lambda: self._ops.read(self._fd, size), absorb, False)
        self._settle(start, size, len(data), False)
        return data

    # A ring whose read or write ends with an error after a part of it reports the part, and leaves
    # the position where it was (Linux 6.18): a short one is followed by a seek of ours.

    def _start(self) -> int:
        return os.lseek(self._fd, 0, os.SEEK_CUR) if self._settles else 0

    def _settle(self, start: int, size: int, done: int, writing: bool) -> None:
        if self._settles and done < size:
            if writing and "a" in self.mode:
                os.lseek(self._fd, 0, os.SEEK_END)
            else:
                os.lseek(self._fd, start + done, os.SEEK_SET)

    def _ahead(self, size: int) -> int:
        """How much to read when `size` bytes are wanted."""
        return max(size, self._buffer_bytes) if self._is_sequential else size

    async def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer only at the end of the file; all up to the end without a size.

        With buffering=0 what one read gives. A cancelled read takes nothing out of the file.
        """
        self._check_readable()
        if size is None or size < 0:
            return await self.readall()
        if not self._is_busy and len(self._in) - self._at >= size:
            return self._take(size)
        await self._take_turn()
        try:
            self._check_readable()
            return await self._read_exactly(size)
        finally:
            self._end_turn()

    async def _read_exactly(self, size: int) -> bytes:
        parts = []
        missing = size
        try:
            while missing:
                if self._in:
                    data = self._take(missing)
                else:
                    data = await self._fetch(self._ahead(missing))
                    if len(data) > missing:
                        self._put_back(data)
                        continue
                parts.append(data)
                missing -= len(data)
                if not data or not self._buffer_bytes:
                    break
        except BaseException:
            self._give_back(parts)
            raise
        self._is_sequential = True
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _give_back(self, parts: list[bytes]) -> None:
        """The call fails or was cancelled: what it had taken is the next one's."""
        if parts:
            self._in[: self._at] = b"".join(parts)
            self._at = 0

    async def readall(self) -> bytes:
        """Everything up to the end of the file."""
        self._check_readable()
        await self._take_turn()
        parts = []
        try:
            self._check_readable()
            if self._in:
                parts.append(self._take(len(self._in)))
            expected = 0
            if self._is_regular:
                position = os.lseek(self._fd, 0, os.SEEK_CUR)
                expected = os.fstat(self._fd).st_size - position
            while True:
                # A byte more than is expected: if just that one is missing, this is the end.
                data = await self._fetch(max(expected + 1, self._buffer_bytes, READALL_MIN_BYTES))
                if data:
                    parts.append(data)
                if not data or len(data) == expected:
                    break
                expected -= len(data)
        except BaseException:
            self._give_back(parts)
            raise
        finally:
            self._end_turn()
        self._is_sequential = True
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read1(self, size: int = -1) -> bytes:
        """Up to `size` bytes, with one read of the system at most; b"" at the end of the file."""
        self._check_readable()
        if size < 0:
            size = self._buffer_bytes or READALL_MIN_BYTES
        if not self._is_busy and self._in:
            return self._take(size)
        await self._take_turn()
        try:
            self._check_readable()
            if not self._in and size:
                data = await self._fetch(self._ahead(size))
                self._is_sequential = True
                if len(data) <= size:
                    return data
                self._put_back(data)
            return self._take(size)
        finally:
            self._end_turn()

    async def readinto(self, buffer: Any) -> int:
        """Fills a writable buffer, or what of it the file has bytes for; returns their number."""
        self._check_readable()
        view = memoryview(buffer).cast("B")
        await self._take_turn()
        try:
            self._check_readable()
            data = await self._read_exactly(len(view))
        finally:
            self._end_turn()
        view[: len(data)] = data
        return len(data)

    async def peek(self, size: int = 0) -> bytes:
        """What is buffered, after one read of the system if that is nothing; takes nothing."""
        self._check_readable()
        await self._take_turn()
        try:
            self._check_readable()
            if not self._in:
                self._put_back(await self._fetch(max(self._buffer_bytes, size, 1)))
            return bytes(memoryview(self._in)[self._at :])
        finally:
            self._end_turn()

    async def readline(self, size: int | None = -1) -> bytes:
        """Up to and with the next newline, or `size` bytes; b"" at the end of the file."""
        self._check_readable()
        limit = -1 if size is None else size
        if not self._is_busy:
            line = self._buffered_line(limit)
            if line is not None:
                return line
        await self._take_turn()
        try:
            self._check_readable()
            return await self._read_line(limit)
        finally:
            self._end_turn()

    def _buffered_line(self, limit: int) -> bytes | None:
        """The line, if all of it is in the buffer."""
        end = self._in.find(b"\n", self._at) + 1
        if limit >= 0 and (not end or end - self._at > limit):
            end = self._at + limit
            return self._take(limit) if end <= len(self._in) else None
        return self._take(end - self._at) if end else None

    async def _read_line(self, limit: int) -> bytes:
        seen = self._at  # no newline before this
        while True:
            end = self._in.find(b"\n", seen) + 1
            size = (end or len(self._in)) - self._at
            if limit >= 0 and size >= limit:
                return self._take(limit)
            if end:
                return self._take(size)
            seen = len(self._in)
            data = await self._fetch(max(self._buffer_bytes, 1) if self._buffer_bytes else 1)
            self._put_back(data)
            if not data:
                return self._take(size)

    # -- writing --------------------------------------------------------------------------------

    async def write(self, data: Any) -> int:
        """Takes all of data, to be written in time; returns its length in bytes.

        The file has it for certain after flush() or close(). Cancelled while it waits for its turn,
        a write has taken nothing; later, it has taken everything, and what was not written yet
        leaves with the next flush. With buffering=0: one write; returns what it took.
        """
        self._check_writable()
        if isinstance(data, str):
            raise TypeError("a bytes-like object is required, not 'str'")
        if not isinstance(data, bytes):
            data = bytes(memoryview(data))  # the caller may change it before it leaves
        if not self._is_busy and self._out_bytes + len(data) < self._buffer_bytes:
            self._take_data(data)
            return len(data)
        await self._take_turn()
        try:
            self._check_writable()
            if not self._buffer_bytes:
                self._drop_ahead()
                return await self._write_once(data, lambda count: None)
            self._take_data(data)
            if self._out_bytes >= self._buffer_bytes:
                await self._write_out()
        finally:
            self._end_turn()
        return len(data)

    def _take_data(self, data: bytes) -> None:
        self._drop_ahead()
        if data:
            self._out.append(data)
            self._out_bytes += len(data)

    def _drop_ahead(self) -> None:
        """Goes back to where the caller is, from where reading ahead has got to."""
        ahead = len(self._in) - self._at
        if ahead and self._seekable:
            os.lseek(self._fd, -ahead, os.SEEK_CUR)
            self._in.clear()
            self._at = 0

    async def _write_out(self) -> None:
        """Writes what is buffered. In a turn."""
        while self._out:
            if len(self._out) > 1:
                self._out = [b"".join(self._out)]
            taken = await self._write_once(self._out[0], self._drop_written)
            if taken == 0:
                raise OSError(errno.EIO, "the file takes no more bytes")
            self._drop_written(taken)

    async def _write_once(self, data: Any, absorb: Callable[[int], None]) -> int:
        start = self._start()
        if self._polls:
            data = memoryview(data)[: select.PIPE_BUF]  # as much as never blocks a thread

        def settle(count: int) -> None:
            self._settle(start, len(data), count, True)
            absorb(count)

        count = await self._perform(lambda: self._ops.write(self._fd, data), settle, True)
        self._settle(start, len(data), count, True)
        return count

    def _drop_written(self, count: int) -> None:
        self._out_bytes -= count
        rest = memoryview(self._out[0])[count:]
        if len(rest):
            self._out[0] = rest
        else:
            del self._out[0]

    async def writelines(self, lines: Iterable[Any]) -> None:
        """Writes each of them; no newlines are added."""
        for line in lines:
            await self.write(line)

    async def flush(self) -> None:
        """Hands everything that was written to the system. Not yet on the disk: see sync()."""
        self._check_open()
        if not self._out and not self._is_busy:
            return
        await self._take_turn()
        try:
            self._check_open()
            await self._write_out()
        finally:
            self._end_turn()

    async def sync(self, *, data_only: bool = False) -> None:
        """flush(), then waits until everything is on the disk: fsync(2), or fdatasync(2)."""
        self._check_open()
        await self._take_turn()
        try:
            self._check_open()
            await self._write_out()
            await self._perform(lambda: self._ops.fsync(self._fd, data_only), None, True)
        finally:
            self._end_turn()

    # -- position and size ----------------------------------------------------------------------

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to `offset` bytes from the start (0), from here (1) or from the end (2).

        Returns the new position, in bytes. lseek(2) itself is called in the loop's thread: on
        local files it does not wait.
        """
        self._check_open()
        self._check_seekable()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE):
            raise ValueError(f"whence value {whence} unsupported")
        if self._is_busy or self._out:
            await self._take_turn()
            try:
                self._check_open()
                await self._write_out()
                return self._seek(offset, whence)
            finally:
                self._end_turn()
        return self._seek(offset, whence)

    def _seek(self, offset: int, whence: int) -> int:
        ahead = len(self._in) - self._at
        if whence == os.SEEK_CUR and ahead:
            offset -= ahead
        position = os.lseek(self._fd, offset, whence)
        self._in.clear()
        self._at = 0
        self._is_sequential = False
        return position

    def _check_seekable(self) -> None:
        if not self._seekable:
            raise io.UnsupportedOperation("underlying stream is not seekable")

    async def tell(self) -> int:
        """Where the next read or write goes, in bytes from the start."""
        self._check_open()
        self._check_seekable()
        if self._is_busy:
            await self._take_turn()
            try:
                self._check_open()
                return self._tell()
            finally:
                self._end_turn()
        return self._tell()

    def _tell(self) -> int:
        position = os.lseek(self._fd, 0, os.SEEK_CUR)
        return position - (len(self._in) - self._at) + self._out_bytes

    async def truncate(self, size: int | None = None) -> int:
        """Cuts or extends the file to `size` bytes, by default to where it is at. Returns it."""
        self._check_writable()
        await self._take_turn()
        try:
            self._check_writable()
            await self._write_out()
            self._drop_ahead()
            size = os.lseek(self._fd, 0, os.SEEK_CUR) if size is None else size
            await self._perform(lambda: self._ops.call(os.ftruncate, self._fd, size), None, True)
        finally:
            self._end_turn()
        return size

    # -- the file -------------------------------------------------------------------------------

    async def close(self) -> None:
        """Writes out what is buffered and closes. Waits for its turn; closing twice does nothing.

        When writing fails, the file is closed and the OSError raised. A close that is cancelled
        before the system was asked to close leaves the file open.
        """
        if self._fd < 0:
            return
        await self._take_turn()
        try:
            if self._fd < 0:
                return
            try:
                await self._write_out()
            except OSError:
                self._out.clear()
                await self._close_fd()
                raise
            await self._close_fd()
        finally:
            self._end_turn()

    async def _close_fd(self) -> None:
        fd, self._fd = self._fd, -1
        self._in.clear()
        self._at = self._out_bytes = 0
        if self._closefd:
            await self._perform_close(fd)

    async def _perform_close(self, fd: int) -> None:
        op = self._op = self._ops.close(fd)
        self._absorb = None
        op.on_end = self._ended_unwaited
        try:
            await op
        except RuntimeError:  # the loop takes no more calls: it, or its executor, is shut down
            os.close(fd)

    async def __aenter__(self) -> BinaryFile:
        self._check_open()
        return self

    def __del__(self) -> None:
        fd = getattr(self, "_fd", -1)
        if fd < 0:
            return
        self._fd = -1
        warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)
        with contextlib.suppress(OSError):
            if self._is_regular:
                for data in self._out:
                    os.write(fd, data)
        if self._closefd:
            with contextlib.suppress(OSError):
                os.close(fd)

    def __repr__(self) -> str:
        return f"<netpoll.BinaryFile name={self.name!r} mode={self.mode!r}>"

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def fileno(self) -> int:
        """The file descriptor. Raises ValueError on a closed file."""
        self._check_open()
        return self._fd

    def readable(self) -> bool:
        self._check_open()
        return self._readable

    async def writable(self) -> bool:
        self._check_open()
        return self._writable

    async def seekable(self) -> bool:
        self._check_open()
        return self._seekable

    async def isatty(self) -> bool:
        self._check_open()
        return os.isatty(self._fd)
