# cython: language_level=3, freethreading_compatible=True
"""File operations on the ring of a loop: one awaitable each, one submission entry each.

An operation is submitted when it is first awaited. Its memory and its fd are the kernel's until its
completion comes, so the awaitable keeps them and the loop keeps the awaitable. Cancelling the task
that waits asks the kernel to cancel; what the operation has done by then is told to `on_end`, so
that who keeps a file's state can keep it true (files.py).
"""

from cpython.buffer cimport (
    PyBUF_CONTIG, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EINTR
from libc.stdint cimport UINT64_MAX, int32_t, uint32_t, uint64_t
from libc.string cimport strerror

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    ECANCELED, NP_EV_MORE, PyBytes_New, PyObject, Py_DECREF, Py_XDECREF, _PyBytes_Resize,
    io_uring_sqe, np_event, np_sock_close, np_sqe_close, np_sqe_fsync, np_sqe_openat, np_sqe_read,
    np_sqe_write, np_udata)
from netpoll._native.loop.awaitable cimport Awaitable, install_awaitable_slots
from netpoll._native.loop.sqe cimport submit_one
from netpoll._native.seal cimport seal_types

import os
from asyncio import InvalidStateError

cdef enum:
    AT_FDCWD = -100
    IOSQE_ASYNC = 1 << 4  # straight to a worker of the kernel's, where it may wait

# What one read or write takes at most (MAX_RW_COUNT, read(2)): the rest is another one's.
MAX_RW_BYTES = 0x7ffff000

cdef Py_ssize_t RW_MAX = 0x7ffff000


cdef class FileOp(Awaitable):
    """One operation. Subclasses fill() the entry and turn the completion into a value.

    on_end: called with the operation when it ends after the waiting task was cancelled; `res` is
        what the kernel said: what a write took, say, or -errno.
    """
    cdef Loop loop
    cdef np_udata op
    cdef bint is_started, is_orphan
    cdef readonly int fd
    cdef readonly int32_t res
    cdef public object on_end

    cdef int fill(self, io_uring_sqe *sqe) except -1:
        """Here: all zeros are a NOP."""
        return 0

    cdef object value(self):
        """Of a completion without error."""
        return None

    cdef int drop(self) except -1:
        """The completion of an operation that nobody waits for: nothing of it may leak."""
        return 0

    @property
    def in_flight(self):
        """The kernel has it: its memory and its fd must stay."""
        return self.op != 0

    def result(self):
        """The value, once `in_flight` is over. Raises OSError, InvalidStateError before that."""
        self.check_ended()
        if self.res < 0:
            raise OSError(-self.res, strerror(-self.res).decode())
        return self.value()

    cdef int check_ended(self) except -1:
        if self.op:
            raise InvalidStateError("the file operation is in flight: its memory is the kernel's")
        return 0

    cdef int start(self) except -1:
        cdef io_uring_sqe sqe
        self.fill(&sqe)
        self.op = submit_one(self.loop, &sqe, self)
        return 0

    cdef object step(self):
        if self.op:
            raise RuntimeError("this file operation is being awaited already")
        if self.is_started:
            if self.res == -EINTR:  # a signal met it in a worker of the kernel's: once more
                self.start()
                return self.wait_on(self.loop)
            self.is_done = True
            return self.result()
        self.is_started = True
        self.start()
        return self.wait_on(self.loop)

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        if event.flags & NP_EV_MORE:
            return 0
        self.op = 0
        self.res = event.res
        if self.is_orphan:
            self.end_unwaited()
        else:
            self.resume()
        return 0

    cdef int end_unwaited(self) except -1:
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(self)
        else:
            self.drop()
        return 0

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        self.op = 0
        self.res = event.res
        self.on_end = None
        return self.drop()

    cdef int abandon(self) except -1:
        self.is_orphan = True
        if self.op:
            self.loop.cancel(self.op)
        elif self.is_started:
            self.end_unwaited()  # it ended, and the task was cancelled before it could see that
        return 0


cdef class ReadOp(FileOp):
    cdef PyObject *data     # a bytes object that the kernel fills
    cdef Py_ssize_t size
    cdef uint64_t offset

    def __dealloc__(self):
        Py_XDECREF(self.data)

    cdef int fill(self, io_uring_sqe *sqe) except -1:
        if self.data is NULL:
            self.data = PyBytes_New(NULL, self.size)
        np_sqe_read(sqe, self.fd, PyBytes_AS_STRING(<object>self.data), <uint32_t>self.size,
                    self.offset)
        return 0

    cdef object value(self):
        cdef PyObject *data = self.data
        if data is NULL:
            raise RuntimeError("the bytes of this read were taken already")
        self.data = NULL
        if self.res < self.size:
            _PyBytes_Resize(&data, self.res)
        taken = <object>data
        Py_DECREF(data)
        return taken


cdef class BufferOp(FileOp):
    """Reads into, or writes from, an object with a buffer."""
    cdef Py_buffer view
    cdef bint has_view
    cdef uint64_t offset

    def __dealloc__(self):
        if self.has_view:
            PyBuffer_Release(&self.view)

    cdef int release(self) except -1:
        if self.has_view:
            self.has_view = False
            PyBuffer_Release(&self.view)
        return 0

    cdef uint32_t size(self) noexcept:
        return <uint32_t>(self.view.len if self.view.len < RW_MAX else RW_MAX)

    cdef object value(self):
        return self.res

    def result(self):
        self.check_ended()
        self.release()
        return FileOp.result(self)

    cdef int drop(self) except -1:
        return self.release()

    cdef int abandon(self) except -1:
        FileOp.abandon(self)
        if not self.op:
            self.release()
        return 0


cdef class ReadIntoOp(BufferOp):
    cdef int fill(self, io_uring_sqe *sqe) except -1:
        np_sqe_read(sqe, self.fd, self.view.buf, self.size(), self.offset)
        return 0


cdef class WriteOp(BufferOp):
    cdef int fill(self, io_uring_sqe *sqe) except -1:
        np_sqe_write(sqe, self.fd, self.view.buf, self.size(), self.offset)
        return 0


cdef class FsyncOp(FileOp):
    cdef bint data_only

    cdef int fill(self, io_uring_sqe *sqe) except -1:
        np_sqe_fsync(sqe, self.fd, self.data_only)
        return 0


cdef class OpenOp(FileOp):
    cdef bytes path
    cdef int flags
    cdef uint32_t mode
    cdef bint waits
    cdef object shown       # the path as the caller gave it, for errors

    cdef int fill(self, io_uring_sqe *sqe) except -1:
        np_sqe_openat(sqe, AT_FDCWD, self.path, self.flags, self.mode)
        if self.waits:
            sqe.flags |= IOSQE_ASYNC
        return 0

    def result(self):
        self.check_ended()
        if self.res < 0:
            raise OSError(-self.res, strerror(-self.res).decode(), self.shown)
        return self.res

    cdef int drop(self) except -1:
        if self.res >= 0:
            np_sock_close(self.res)
            self.res = -ECANCELED
        return 0


cdef class CloseOp(FileOp):
    cdef int fill(self, io_uring_sqe *sqe) except -1:
        np_sqe_close(sqe, self.fd)
        return 0

    cdef int abandon(self) except -1:
        self.is_orphan = True  # never taken back: the fd would stay open
        return 0


for _cls, _called in (
        (ReadOp, "read"), (ReadIntoOp, "readinto"), (WriteOp, "write"), (FsyncOp, "fsync"),
        (OpenOp, "open"), (CloseOp, "close")):
    install_awaitable_slots(_cls, _called)


cdef FileOp begin(FileOp op, Loop loop, int fd):
    op.loop = loop
    op.fd = fd
    op.res = -ECANCELED  # until the kernel says something else
    return op


cdef uint64_t place(offset) except? 0:
    """An offset of a file; None is where the file is at (and moves it)."""
    if offset is None:
        return UINT64_MAX
    if offset < 0:
        raise ValueError(f"negative offset {offset}")
    return offset


def read(Loop loop, int fd, Py_ssize_t size, offset=None):
    """Awaitable: up to `size` bytes; b"" at the end of the file. One read(2) or pread(2)."""
    cdef ReadOp op = ReadOp.__new__(ReadOp)
    if size < 0:
        raise ValueError("negative size in read")
    op.size = size if size < RW_MAX else RW_MAX
    op.offset = place(offset)
    return begin(op, loop, fd)


def readinto(Loop loop, int fd, buffer, offset=None):
    """Awaitable: the number of bytes written into `buffer`, which stays exported until then."""
    cdef ReadIntoOp op = ReadIntoOp.__new__(ReadIntoOp)
    op.offset = place(offset)
    PyObject_GetBuffer(buffer, &op.view, PyBUF_CONTIG)
    op.has_view = True
    return begin(op, loop, fd)


def write(Loop loop, int fd, data, offset=None):
    """Awaitable: the number of bytes taken, by one write(2) or pwrite(2).

    What the caller could change while the kernel reads it is copied.
    """
    cdef WriteOp op = WriteOp.__new__(WriteOp)
    op.offset = place(offset)
    PyObject_GetBuffer(data, &op.view, PyBUF_SIMPLE)
    op.has_view = True
    if not op.view.readonly:
        copied = bytes(data)
        PyBuffer_Release(&op.view)
        op.has_view = False
        PyObject_GetBuffer(copied, &op.view, PyBUF_SIMPLE)
        op.has_view = True
    return begin(op, loop, fd)


def fsync(Loop loop, int fd, data_only=False):
    """Awaitable: None when fsync(2), or fdatasync(2), is done."""
    cdef FsyncOp op = FsyncOp.__new__(FsyncOp)
    op.data_only = data_only
    return begin(op, loop, fd)


def open(Loop loop, path, int flags, uint32_t mode=0o666, bint waits=False):
    """Awaitable: a new fd. One that arrives after its task was cancelled is closed.

    waits: for the other end of a FIFO; else that is opened as if with O_NONBLOCK.
    """
    cdef OpenOp op = OpenOp.__new__(OpenOp)
    op.shown = path
    op.path = os.fsencode(path)
    if b"\0" in op.path:
        raise ValueError("embedded null byte")
    op.flags = flags
    op.mode = mode
    op.waits = waits
    return begin(op, loop, -1)


def close(Loop loop, int fd):
    """Awaitable: None when fd is closed; it is, whatever becomes of the task that waits."""
    return begin(CloseOp.__new__(CloseOp), loop, fd)


seal_types(globals())
