# cython: language_level=3, freethreading_compatible=True
"""Submission entries that somebody has filled in himself, on the ring of a loop.

What an entry points to, and its fd, are the kernel's until the operation's last event, whatever
becomes of the task that waits: the owner keeps them, and the operation keeps the owner.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EPERM
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport strerror

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport (
    ECANCELED, NP_EV_MORE, NP_SQE_BYTES, PyObject, Py_INCREF, io_uring_sqe, np_event, np_sock_close,
    np_udata)
from netpoll._native.seal cimport seal_types

import asyncio
from collections import deque

cdef object Future = asyncio.Future

cdef enum:  # operations whose result is a new fd (include/uapi/linux/io_uring.h)
    OP_ACCEPT = 13
    OP_OPENAT = 18
    OP_OPENAT2 = 28
    OP_SOCKET = 45
    OP_FIXED_FD_INSTALL = 54

cdef enum:
    CQE_F_NOTIF = 8         # IORING_CQE_F_NOTIF


cdef int submit(Loop loop, const void *sqes, uint32_t count, PyObject **owners,
                np_udata *ops) except -1:
    """Submits entries in one piece; each refers to its owner, a Completion, until its last event.

    Raises OSError for what np_backend_ops.submit refuses (-EOPNOTSUPP on epoll), RuntimeError on a
    closed loop and in a forked child.
    """
    cdef uint32_t i
    cdef int err
    if loop.be is NULL or loop.is_ending:
        raise RuntimeError("Event loop is closed")
    err = loop.ops.submit(loop.be, sqes, count, <void**>owners, ops)
    if err == -EPERM:
        loop._not_forked()
    if err < 0:
        raise OSError(-err, f"{strerror(-err).decode()} (submitting to io_uring)")
    for i in range(count):
        Py_INCREF(owners[i])
    return 0


cdef np_udata submit_one(Loop loop, const void *sqe, Completion owner) except? 0:
    """The same for one entry; returns what names the operation."""
    cdef np_udata op
    cdef PyObject *owners[1]
    owners[0] = <PyObject*>owner
    submit(loop, sqe, 1, owners, &op)
    return op


# ---- entries from Python ----------------------------------------------------------------------

cdef class Operation(Completion):
    """An entry that was submitted: await it for its result, or iterate over a multishot's.

    opcode: of the entry. res, flags: of the newest completion, None and 0 before; who asks for res
    has the new fd that it may be. in_flight: the
    kernel has it, and with it all that it points to.

    Awaiting gives res, or raises OSError for a negative one. Cancelling a task that waits asks the
    kernel to cancel the operation; so does cancel(). A new fd that nobody can get any more is
    closed.
    """
    cdef Loop loop
    cdef np_udata op
    cdef object keep        # what the entry points to
    cdef object future      # of who waits
    cdef object completions  # of a multishot: what was not fetched yet
    cdef object group       # list of the operations of a chain, or None
    cdef readonly uint8_t opcode
    cdef bint gives_fd, is_cancelled, is_taken, is_stream
    cdef int32_t last_res
    cdef readonly uint32_t flags
    cdef bint has_result
    cdef object __weakref__

    def __del__(self):
        if self.gives_fd and self.has_result and not self.is_taken and self.last_res >= 0:
            np_sock_close(self.last_res)
        if self.gives_fd and self.completions is not None:
            for fd, _ in self.completions:
                if fd >= 0:
                    np_sock_close(fd)

    @property
    def res(self):
        if not self.has_result:
            return None
        self.is_taken = True  # a new fd is the caller's now
        return self.last_res

    @property
    def in_flight(self):
        return self.op != 0

    def done(self):
        """The last completion has come."""
        return self.op == 0

    def result(self):
        """What await would give. Raises asyncio.InvalidStateError before it is done, OSError."""
        if self.op:
            raise asyncio.InvalidStateError("the operation is in flight")
        self.is_taken = True
        if self.last_res < 0:
            raise OSError(-self.last_res, strerror(-self.last_res).decode())
        return self.last_res

    def cancel(self):
        """Asks the kernel to cancel. False when it has ended; else the last completion still comes:
        -ECANCELED, or whatever the operation had come to by then. A chain is cancelled whole."""
        cdef Operation other
        if not self.op:
            return False
        for other in self.group or (self,):
            other.is_cancelled = True
            if other.op:
                self.loop.cancel(other.op)
        return True

    def __await__(self):
        if self.is_stream:
            raise RuntimeError("this operation is being iterated over")
        if self.op:
            yield from self.wait().__await__()
        return self.result()

    async def wait(self):
        """Waits until there is a completion."""
        if self.future is not None:
            raise RuntimeError("this operation is being awaited already")
        self.future = Future(loop=self.loop)
        try:
            await self.future
        except BaseException:
            self.cancel()
            raise
        finally:
            self.future = None

    def __aiter__(self):
        self.is_stream = True
        if self.completions is None:
            self.completions = deque()
            if self.has_result:
                self.completions.append((self.last_res, self.flags))
                self.is_taken = True
        return self

    async def __anext__(self):
        """(res, flags) of the next completion, res or -errno as the kernel says.

        Ends after the last one, and with that of a cancel().
        """
        while not self.completions:
            if not self.op:
                raise StopAsyncIteration
            await self.wait()
        res, flags = self.completions.popleft()
        if res == -ECANCELED and self.is_cancelled:
            raise StopAsyncIteration
        return res, flags

    cdef int take_result(self, np_event *event) except -1:
        if event.cqe_flags & CQE_F_NOTIF and self.has_result:
            return 0  # of a zero-copy send: the memory is free; the result came before
        if self.completions is not None:
            self.completions.append((event.res, <uint32_t>event.cqe_flags))
        elif self.has_result and self.gives_fd and self.last_res >= 0 and not self.is_taken:
            np_sock_close(self.last_res)  # nobody iterates, and the next one takes its place
        self.last_res = event.res
        self.flags = <uint32_t>event.cqe_flags
        self.has_result = True
        self.is_taken = self.completions is not None
        return 0

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        cdef Operation other
        self.take_result(event)
        if not event.flags & NP_EV_MORE:
            self.op = 0
            self.keep = None
            if self.is_cancelled and self.group is not None:
                for other in self.group:  # links that a cancel could not find before
                    if other.op:
                        loop.cancel(other.op)
            self.group = None
        if self.future is not None and not self.future.done() and (
                not self.op or self.is_stream):
            self.future.set_result(None)
        return 0

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        self.take_result(event)
        if not event.flags & NP_EV_MORE:
            self.op = 0
            self.keep = None
            self.group = None
        return 0


cdef bint gives_fd(io_uring_sqe *sqe) noexcept:
    if sqe.opcode == OP_FIXED_FD_INSTALL:
        return True
    return sqe.file_index == 0 and sqe.opcode in (OP_ACCEPT, OP_OPENAT, OP_OPENAT2, OP_SOCKET)


def submit_entries(Loop loop, bytes entries, keep):
    """Submits entries (64 bytes each, one after the other) in one piece: a list of Operations.

    keep: what they point to; referred to until each operation's last completion.
    """
    cdef uint32_t count = <uint32_t>(len(entries) // NP_SQE_BYTES), i
    cdef io_uring_sqe *sqes = <io_uring_sqe*>PyBytes_AS_STRING(entries)
    cdef PyObject **owners
    cdef np_udata *ops
    cdef Operation operation
    if len(entries) % NP_SQE_BYTES or not count:
        raise ValueError("entries of 64 bytes each are needed")
    made = []
    owners = <PyObject**>malloc(count * (sizeof(PyObject*) + sizeof(np_udata)))
    if owners is NULL:
        raise MemoryError
    ops = <np_udata*>(owners + count)
    try:
        for i in range(count):
            operation = Operation.__new__(Operation)
            operation.loop = loop
            operation.keep = keep
            operation.opcode = sqes[i].opcode
            operation.gives_fd = gives_fd(&sqes[i])
            operation.group = made if count > 1 else None
            made.append(operation)
            owners[i] = <PyObject*>operation
        submit(loop, sqes, count, owners, ops)
        for i in range(count):
            operation = made[i]
            operation.op = ops[i]
    finally:
        free(owners)
    return made


seal_types(globals())
