"""What files ask of the system: operations on the ring of a netpoll loop, or in threads.

Both kinds answer to the same names and give the same awaitables (FileOp in operations.pyx):
    op.in_flight     it has been started and has not ended, even if nobody waits for it any more
    op.on_end        called with the operation when it ends after its waiter was cancelled
    op.result()      its value, once it has ended; raises OSError
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import functools
import os
import stat
import threading
from collections.abc import Callable, Generator
from typing import Any, Generic, Protocol, TypeVar

from netpoll import _core
from netpoll._native.files import operations as native
from netpoll.errors import REFUSED_ERRNOS

__all__ = ["PolledOps", "RingOps", "ThreadOp", "ThreadOps", "is_ring", "operations"]

_T = TypeVar("_T")
_Value = TypeVar("_Value", covariant=True)

RW_MAX_BYTES = native.MAX_RW_BYTES
# What one read of a pipe, a socket or a terminal asks for: they hold less than this at a time.
POLLED_MAX_BYTES = 1 << 20


class FileCall(Protocol[_Value]):
    """What both kinds give for one call."""

    on_end: Callable[[Any], Any] | None

    @property
    def in_flight(self) -> bool: ...

    def result(self) -> _Value: ...

    def __await__(self) -> Generator[Any, None, _Value]: ...


def is_ring(loop: Any) -> bool:
    """The loop is netpoll's and has an io_uring."""
    return isinstance(loop, _core.Loop) and loop.backend == "uring"


def operations(loop: asyncio.AbstractEventLoop) -> RingOps | ThreadOps:
    """The best kind of operations that the loop offers."""
    return RingOps(loop) if is_ring(loop) else ThreadOps(loop)


class RingOps:
    """Operations on a loop's io_uring."""

    waits_in_threads = False

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.open = functools.partial(native.open, loop)
        self.read = functools.partial(native.read, loop)
        self.readinto = functools.partial(native.readinto, loop)
        self.write = functools.partial(native.write, loop)
        self.fsync = functools.partial(native.fsync, loop)
        self.close = functools.partial(native.close, loop)

    def call(self, function: Callable[..., _T], *args: Any) -> ThreadOp[_T]:
        """What the ring cannot do, in a thread."""
        return ThreadOp(self.loop, function, args)

    def call_apart(
        self, function: Callable[..., _T], args: tuple[Any, ...], drop: Callable[[_T], Any]
    ) -> ThreadOp[_T]:
        """What may wait without end, in a thread of its own."""
        return ApartOp(self.loop, function, args, drop)


class ThreadOp(Generic[_T]):
    """A call in a thread of the loop's default executor.

    A call that a thread has begun cannot be stopped: when the waiting task is cancelled it goes on,
    and `on_end` tells when it has ended. One that still waits for a thread is not made any more.
    """

    __slots__ = (
        "_args",
        "_drop",
        "_error",
        "_function",
        "_is_orphan",
        "_loop",
        "_value",
        "_waiter",
        "in_flight",
        "on_end",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[..., _T],
        args: tuple[Any, ...],
        drop: Callable[[_T], Any] | None = None,
    ) -> None:
        self._loop = loop
        self._function = function
        self._args = args
        self._drop = drop  # what to do with a value that nobody waits for
        self._error: BaseException | None = OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        self._value: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_orphan = False
        self.in_flight = False
        self.on_end: Callable[[Any], Any] | None = None

    def result(self) -> _T:
        if self._error is not None:
            raise self._error
        value: _T = self._value
        return value

    def __await__(self) -> Generator[Any, None, _T]:
        if self._waiter is not None:
            raise RuntimeError("this file operation is being awaited already")
        self._waiter = self._loop.create_future()
        self._submit()
        try:
            yield from self._waiter.__await__()
        except BaseException:  # cancelled, or the coroutine was closed
            self._is_orphan = True
            if not self.in_flight:
                self._end_unwaited()
            raise
        return self.result()

    def _submit(self) -> None:
        future = self._loop.run_in_executor(None, self._run)
        self.in_flight = True
        future.add_done_callback(self._ended)

    def _run(self) -> Any:
        """In the thread."""
        if self._is_orphan:
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        value = self._function(*self._args)
        if self._drop is not None and self._loop.is_closed():
            self._drop(value)  # there is nobody to give it to
        return value

    def _ended(self, future: Any) -> None:
        self.in_flight = False
        if not future.cancelled():  # else the executor was shut down first
            self._error = future.exception()
            self._value = None if self._error else future.result()
        if self._is_orphan:
            self._end_unwaited()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end_unwaited(self) -> None:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(self)
        elif self._drop is not None and self._error is None:
            self._drop(self._value)


class Opened:
    """A descriptor on its way to the loop: if that ends before it arrives, it is closed."""

    __slots__ = ("_drop", "value")

    def __init__(self, value: Any, drop: Callable[[Any], Any] | None) -> None:
        self.value = value
        self._drop = drop

    def take(self) -> Any:
        self._drop = None
        return self.value

    def __del__(self) -> None:
        if self._drop is not None:
            self._drop(self.value)


class ApartOp(ThreadOp[_T]):
    """A call that may wait without end, in a daemon thread of its own.

    The threads of an executor are waited for at the program's end, and there are few of them: one
    that nothing wakes would keep it for ever. A value that arrives too late is dropped, also when
    the loop is closed by then.
    """

    __slots__ = ()

    def _submit(self) -> None:
        self.in_flight = True
        try:
            threading.Thread(target=self._run_apart, name="netpoll-file", daemon=True).start()
        except RuntimeError as error:  # the system has none
            outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
            outcome.set_exception(error)
            ThreadOp._ended(self, outcome)

    def _run_apart(self) -> None:
        outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            outcome.set_result(Opened(self._function(*self._args), self._drop))
        except BaseException as error:
            outcome.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: Opened ends what there is
            self._loop.call_soon_threadsafe(self._arrived, outcome)

    def _arrived(self, outcome: concurrent.futures.Future[Any]) -> None:
        if outcome.exception() is None:
            opened, outcome = outcome.result(), concurrent.futures.Future()
            outcome.set_result(opened.take())
        ThreadOp._ended(self, outcome)


class OpenThreadOp(ApartOp[int]):
    """open(2): of a FIFO, which waits for its other end, or a terminal, for its line, apart."""

    __slots__ = ()

    def _submit(self) -> None:
        ThreadOp._submit(self)

    def _run(self) -> Any:
        try:
            mode = os.stat(self._args[0]).st_mode
        except (OSError, ValueError):
            mode = 0  # open(2) says what is wrong
        return APART if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) else ThreadOp._run(self)

    def _ended(self, future: Any) -> None:
        if future.cancelled() or future.exception() or future.result() is not APART:
            super()._ended(future)
        elif not self._is_orphan:
            ApartOp._submit(self)
        else:
            self.in_flight = False
            self._end_unwaited()


APART = object()


class ThreadOps:
    """Operations in threads of the loop's default executor: any asyncio loop has one."""

    waits_in_threads = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def call(self, function: Callable[..., _T], *args: Any) -> ThreadOp[_T]:
        return ThreadOp(self.loop, function, args)

    def call_apart(
        self, function: Callable[..., _T], args: tuple[Any, ...], drop: Callable[[_T], Any]
    ) -> ThreadOp[_T]:
        """As call(), of what may wait without end: in a thread of its own."""
        return ApartOp(self.loop, function, args, drop)

    def open(self, path: Any, flags: int, mode: int = 0o666) -> ThreadOp[int]:
        return OpenThreadOp(self.loop, os.open, (path, flags, mode), os.close)

    def read(self, fd: int, size: int, offset: int | None = None) -> ThreadOp[bytes]:
        if size < 0:
            raise ValueError("negative size in read")
        size = min(size, RW_MAX_BYTES)
        if offset is None:
            return self.call(os.read, fd, size)
        return self.call(os.pread, fd, size, _checked(offset))

    def readinto(self, fd: int, buffer: Any, offset: int | None = None) -> ThreadOp[int]:
        if offset is None:
            return self.call(os.readv, fd, [buffer])
        return self.call(_pread_into, fd, buffer, _checked(offset))

    def write(self, fd: int, data: Any, offset: int | None = None) -> ThreadOp[int]:
        if not memoryview(data).readonly:
            data = bytes(data)  # the caller could change it while the thread writes
        if offset is None:
            return self.call(os.write, fd, data)
        return self.call(os.pwrite, fd, data, _checked(offset))

    def fsync(self, fd: int, data_only: bool = False) -> ThreadOp[None]:
        return self.call(os.fdatasync if data_only else os.fsync, fd)

    def close(self, fd: int) -> ThreadOp[None]:
        return CloseThreadOp(self.loop, os.close, (fd,))


class PolledOps(ThreadOps):
    """Of pipes, sockets and terminals, once they are ready: BlockingIOError if they are not.

    Another reader or writer of the same pipe may have been faster, and the thread would wait.
    """

    def read(self, fd: int, size: int, offset: int | None = None) -> ThreadOp[bytes]:
        if size < 0:
            raise ValueError("negative size in read")
        return self.call(_read_at_once, fd, min(size, POLLED_MAX_BYTES))

    def readinto(self, fd: int, buffer: Any, offset: int | None = None) -> ThreadOp[int]:
        return self.call(_at_once, os.preadv, os.readv, fd, buffer)

    def write(self, fd: int, data: Any, offset: int | None = None) -> ThreadOp[int]:
        if not memoryview(data).readonly:
            data = bytes(data)
        return self.call(_at_once, os.pwritev, os.writev, fd, data)


def _at_once(vector: Callable[..., int], plain: Callable[..., int], fd: int, buffer: Any) -> int:
    """readv(2) or writev(2) that never waits where the kernel can do that: not of terminals."""
    try:
        return vector(fd, [buffer], -1, os.RWF_NOWAIT)
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE):
            raise
        return plain(fd, [buffer])


def _read_at_once(fd: int, size: int) -> bytes:
    buffer = bytearray(size)
    count = _at_once(os.preadv, os.readv, fd, buffer)
    return bytes(memoryview(buffer)[:count])


class CloseThreadOp(ThreadOp[None]):
    """A close is carried out whatever becomes of the task that waits: the fd would stay open."""

    __slots__ = ()

    def _run(self) -> Any:
        return self._function(*self._args)


def _pread_into(fd: int, buffer: Any, offset: int) -> int:
    """In the thread."""
    try:
        return os.preadv(fd, [buffer], offset)
    except OSError as error:
        if error.errno not in REFUSED_ERRNOS:
            raise
    with memoryview(buffer) as view, view.cast("B") as octets:
        data = os.pread(fd, min(len(octets), RW_MAX_BYTES), offset)
        octets[: len(data)] = data
    return len(data)


def _checked(offset: int) -> int:
    if offset < 0:
        raise ValueError(f"negative offset {offset}")
    return offset


async def until_ready(loop: asyncio.AbstractEventLoop, fd: int, writing: bool) -> None:
    """Waits until a pipe, a terminal or a socket is ready for a read or a write."""
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = (
        (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    )
    add(fd, wake)
    try:
        await ready
    finally:
        with contextlib.suppress(OSError, ValueError):  # the fd was closed meanwhile
            remove(fd)
