"""The raw ring: any io_uring operation, filled in with liburing, awaited on the running loop.

    from netpoll import uring
    from netpoll.uring import ffi, lib

    about = ffi.new("struct statx *")
    path = ffi.new("char[]", b"/etc/hosts")
    sqe = uring.sqe()
    lib.io_uring_prep_statx(sqe, uring.AT_FDCWD, path, 0, uring.STATX_SIZE, about)
    await uring.submit(sqe, keep=(path, about))

`lib` and `ffi` come from cffi: they give liburing 2.3, and what later kernels added to it
(csrc/io/uring/np_prep.h). A Ring is an io_uring of the program's own, without a loop. This module
needs cffi when netpoll is built and when it runs; the rest of netpoll does not. docs/raw-ring.md
explains it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

from netpoll._files.operations import is_ring
from netpoll._native.loop.sqe import Operation, submit_entries
from netpoll.errors import BackendUnavailableError

try:
    from netpoll._native.liburing import ffi, lib
except ImportError as error:
    raise ImportError(
        "netpoll.uring needs cffi: install it ('pip install cffi') and build netpoll again "
        f"('pip install --force-reinstall --no-binary netpoll netpoll'): {error}"
    ) from error

__all__ = [
    "Completion",
    "Operation",
    "Ring",
    "ffi",
    "lib",
    "sqe",
    "submit",
    "submit_linked",
]

SQE_BYTES = 64

# Linux constants that entries are filled in with, and that the os module does not have.
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
STATX_SIZE = 0x200
STATX_BASIC_STATS = 0x7FF
FUTEX2_SIZE_U32 = 2
FUTEX2_PRIVATE = 128
FUTEX_BITSET_MATCH_ANY = 0xFFFFFFFF
RESOLVE_BENEATH = 0x08
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_CACHED = 0x20

# include/uapi/linux/io_uring.h
IOSQE_FIXED_FILE = 1 << 0
IOSQE_IO_DRAIN = 1 << 1
IOSQE_IO_LINK = 1 << 2
IOSQE_IO_HARDLINK = 1 << 3
IOSQE_ASYNC = 1 << 4
IOSQE_BUFFER_SELECT = 1 << 5
IOSQE_CQE_SKIP_SUCCESS = 1 << 6
IORING_CQE_F_BUFFER = 1 << 0
IORING_CQE_F_MORE = 1 << 1
IORING_CQE_F_SOCK_NONEMPTY = 1 << 2
IORING_CQE_F_NOTIF = 1 << 3
IORING_CQE_BUFFER_SHIFT = 16
IORING_TIMEOUT_MULTISHOT = 1 << 6  # Linux 6.4
IORING_SETUP_IOPOLL = 1 << 0
IORING_SETUP_SQPOLL = 1 << 1
IORING_SETUP_SINGLE_ISSUER = 1 << 12
IORING_SETUP_DEFER_TASKRUN = 1 << 13


def sqe() -> Any:
    """A new, empty submission entry (struct io_uring_sqe *) for one of lib.io_uring_prep_*."""
    return ffi.new("struct io_uring_sqe *")


# ---- on the running loop ----------------------------------------------------------------------


def submit(entry: Any, keep: Any = None) -> Operation:
    """Submits an entry to the running loop's ring; await the Operation for its result.

    entry: struct io_uring_sqe *; copied, its user_data is the loop's. It leaves with the loop's
    next system call. keep: every object whose memory the entry points to, and every file it names:
    they are referred to until the kernel has let go. A multishot entry is iterated over with
    `async for`.

    Raises BackendUnavailableError on a loop without a ring, ValueError for an entry that would
    break the loop: without completion (IOSQE_CQE_SKIP_SUCCESS), draining (IOSQE_IO_DRAIN), linked
    to nothing (IOSQE_IO_LINK), or on buffer group 0, the loop's own.
    """
    return _submit([entry], keep)[0]


def submit_linked(entries: Sequence[Any], keep: Any = None) -> list[Operation]:
    """Submits a chain: each entry starts when the one before it has succeeded.

    IOSQE_IO_LINK is set on all but the last, unless IOSQE_IO_HARDLINK is set already. When one
    fails or is cancelled, those after it end with ECANCELED. Else as submit().
    """
    for entry in entries[:-1]:
        if not entry.flags & IOSQE_IO_HARDLINK:
            entry.flags |= IOSQE_IO_LINK
    return _submit(entries, keep)


def _submit(entries: Iterable[Any], keep: Any) -> list[Operation]:
    loop = asyncio.get_running_loop()
    if not is_ring(loop):
        backend = getattr(loop, "backend", None)
        what = f"runs on {backend}" if backend else f"is not netpoll's, but {type(loop).__name__}"
        raise BackendUnavailableError(
            errno.EOPNOTSUPP,
            f"the running loop {what} and has no io_uring: run it with "
            "netpoll.run(main(), backend='uring')",
        )
    image = b"".join(bytes(ffi.buffer(entry, SQE_BYTES)) for entry in entries)
    try:
        return submit_entries(loop, image, keep)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ValueError(
                "this entry would break the loop: on its ring a program must not use "
                "IOSQE_CQE_SKIP_SUCCESS, IOSQE_IO_DRAIN, an open IOSQE_IO_LINK or buffer group 0"
            ) from None
        if error.errno == errno.E2BIG:
            raise ValueError("a chain has to fit into the submission queue") from None
        raise


# ---- a ring of one's own ----------------------------------------------------------------------


class Completion(NamedTuple):
    """What the kernel says of an entry: its user_data, the result or -errno, IORING_CQE_F_*."""

    user_data: int
    res: int
    flags: int


class Ring:
    """An io_uring for experiments, apart from any loop. A context manager.

    entries: of the submission queue, rounded up to a power of two. flags: IORING_SETUP_*.
    cq_entries: of the completion queue; 0: twice as many.

    One thread's: methods called in another than the one that made it raise RuntimeError, close()
    excepted. In a forked child every method but close() raises RuntimeError. After close() they
    raise ValueError. What the kernel refuses is an OSError. What entries point to must be kept by
    the caller until their completions have come.
    """

    def __init__(self, entries: int = 8, flags: int = 0, cq_entries: int = 0) -> None:
        # The ring is in the first list until close(), and in the second while a call of liburing
        # keeps it from ending. Lists, because pop() is one step to signals and other threads.
        self._open: list[Any] = []
        self._closed: list[Any] = []
        self._calls_count = 0
        self._buffers: Any = None
        self._thread_id = threading.get_ident()
        self._pid = os.getpid()
        params = ffi.new("struct io_uring_params *")
        params.flags = flags
        if cq_entries:
            params.flags |= 1 << 3  # IORING_SETUP_CQSIZE
            params.cq_entries = cq_entries
        ring = ffi.new("struct io_uring *")
        _checked(lib.io_uring_queue_init_params(entries, ring, params), "making an io_uring")
        self._open.append(ring)
        self.entries = params.sq_entries
        self.cq_entries = params.cq_entries
        self.features = params.features

    def _mine(self) -> Any:
        if not self._open:
            raise ValueError("this ring is closed")
        if threading.get_ident() != self._thread_id:
            raise RuntimeError("a ring belongs to the thread that made it: make one here")
        if os.getpid() != self._pid:
            raise RuntimeError("this ring is the parent process's: make a new one in the child")
        return self._open[0]

    @contextlib.contextmanager
    def _in_call(self) -> Iterator[Any]:
        """The ring, for calls of liburing. One that is closed meanwhile, by a signal's handler, a
        finaliser or another thread, ends after them."""
        self._mine()  # only its own thread counts
        self._calls_count += 1
        try:
            yield self._mine()
        finally:
            self._calls_count -= 1
            self._end_closed()

    def _end_closed(self) -> None:
        while self._closed and not self._calls_count:
            with contextlib.suppress(IndexError):  # another thread was faster
                lib.io_uring_queue_exit(self._closed.pop())
                self._buffers = None

    def fileno(self) -> int:
        """The ring's file descriptor: readable when completions wait."""
        return int(self._mine().ring_fd)

    def get_sqe(self) -> Any:
        """The next free entry of the submission queue. Raises BlockingIOError when it is full."""
        with self._in_call() as ring:
            entry = lib.io_uring_get_sqe(ring)
            if entry == ffi.NULL:
                raise BlockingIOError(errno.EAGAIN, "the submission queue is full: submit() first")
            ffi.memmove(entry, bytes(SQE_BYTES), SQE_BYTES)  # liburing leaves what was there before
            return entry

    def submit(self) -> int:
        """Hands the filled entries to the kernel; returns how many it took."""
        with self._in_call() as ring:
            return _checked(lib.io_uring_submit(ring), "submitting")

    def submit_and_wait(self, count: int) -> int:
        """submit(), and waits until at least `count` completions are there."""
        with self._in_call() as ring:
            while (taken := lib.io_uring_submit_and_wait(ring, count)) == -errno.EINTR:
                self._mine()  # a signal's handler has run by now, and did not raise, but may close
            return _checked(taken, "submitting and waiting")

    def peek_cqe(self) -> Completion | None:
        """The next completion, or None when there is none."""
        place = ffi.new("struct io_uring_cqe **")
        with self._in_call() as ring:
            result = lib.io_uring_peek_cqe(ring, place)
            if result == -errno.EAGAIN:
                return None
            _checked(result, "looking for a completion")
            return _take(ring, place[0])

    def wait_cqe(self, timeout: float | None = None) -> Completion:
        """The next completion. Raises TimeoutError after `timeout` seconds without one."""
        place = ffi.new("struct io_uring_cqe **")
        limit = ffi.NULL
        if timeout is not None:
            limit = ffi.new("struct __kernel_timespec *")
            limit.tv_sec, limit.tv_nsec = divmod(int(timeout * 1e9), 10**9)
        with self._in_call() as ring:
            while (result := lib.io_uring_wait_cqe_timeout(ring, place, limit)) == -errno.EINTR:
                self._mine()
            if result == -errno.ETIME:
                raise TimeoutError(errno.ETIMEDOUT, "no completion came in time")
            _checked(result, "waiting for a completion")
            return _take(ring, place[0])

    def register_buffers(self, buffers: Sequence[Any]) -> None:
        """Registers writable buffers for *_fixed entries; kept until they are unregistered."""
        views = [ffi.from_buffer(buffer, require_writable=True) for buffer in buffers]
        vectors = ffi.new("struct iovec[]", len(views))
        for vector, view in zip(vectors, views, strict=True):
            vector.iov_base, vector.iov_len = view, len(view)
        with self._in_call() as ring:
            _checked(
                lib.io_uring_register_buffers(ring, vectors, len(views)), "registering buffers"
            )
        self._buffers = views

    def unregister_buffers(self) -> None:
        with self._in_call() as ring:
            _checked(lib.io_uring_unregister_buffers(ring), "unregistering buffers")
        self._buffers = None

    def register_files(self, fds: Sequence[int]) -> None:
        """Registers files for entries with IOSQE_FIXED_FILE, by their place in `fds`."""
        numbers = ffi.new("int[]", list(fds))
        with self._in_call() as ring:
            _checked(lib.io_uring_register_files(ring, numbers, len(fds)), "registering files")

    def unregister_files(self) -> None:
        with self._in_call() as ring:
            _checked(lib.io_uring_unregister_files(ring), "unregistering files")

    def register_eventfd(self, fd: int) -> None:
        """An eventfd that counts completions: a ring can so be watched by any event loop."""
        with self._in_call() as ring:
            _checked(lib.io_uring_register_eventfd(ring, fd), "registering an eventfd")

    def unregister_eventfd(self) -> None:
        with self._in_call() as ring:
            _checked(lib.io_uring_unregister_eventfd(ring), "unregistering an eventfd")

    def supports(self, opcode: int) -> bool:
        """The kernel knows this IORING_OP_*."""
        with self._in_call() as ring:
            probe = lib.io_uring_get_probe_ring(ring)
        if probe == ffi.NULL:
            raise OSError(errno.ENOMEM, "probing an io_uring failed")
        try:
            return bool(lib.io_uring_opcode_supported(probe, opcode))
        finally:
            lib.io_uring_free_probe(probe)

    def close(self) -> None:
        """Ends the ring; what is in flight is cancelled by the kernel. Twice does nothing.

        While a method waits in its own thread, the ring ends with that wait: one that a signal
        has interrupted raises ValueError then.
        """
        with contextlib.suppress(IndexError):
            self._closed.append(self._open.pop())
            self._end_closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self.close()


def _take(ring: Any, cqe: Any) -> Completion:
    completion = Completion(cqe.user_data, cqe.res, cqe.flags)
    lib.io_uring_cqe_seen(ring, cqe)
    return completion


def _checked(result: int, doing: str) -> int:
    if result < 0:
        raise OSError(-result, f"{os.strerror(-result)} ({doing})")
    return result
