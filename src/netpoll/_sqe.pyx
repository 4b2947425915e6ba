# cython: language_level=3, freethreading_compatible=True
"""Submission entries that somebody has filled in himself, on the ring of a loop.

What an entry points to, and its fd, are the kernel's until the operation's last event, whatever
becomes of the task that waits: the owner keeps them, and the operation keeps the owner.
"""

from libc.errno cimport EPERM
from libc.stdint cimport uint32_t
from libc.string cimport strerror

from netpoll._c cimport PyObject, Py_INCREF, np_udata
from netpoll._core cimport Completion, Loop


cdef int submit(Loop loop, const void *sqes, uint32_t count, PyObject **owners,
                np_udata *ops) except -1:
    """Submits entries in one piece; each refers to its owner, a Completion, until its last event.

    Raises OSError for what np_backend_ops.submit refuses (-EOPNOTSUPP on epoll), RuntimeError on a
    closed loop and in a forked child.
    """
    cdef uint32_t i
    cdef int err
    if loop.be is NULL:
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
