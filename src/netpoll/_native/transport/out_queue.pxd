# What a transport has still to send, oldest first, and its watermarks.
#
# A chunk of the queue has an owner (np_owner.h). Here it is an object: of a stream and a pipe the
# bytes that it points into, of datagrams see datagram.pyx. Every transport has one queue within
# itself, and it lives as long. out_advance and out_clear serve any np_iov.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint16_t

from netpoll._native.c cimport (
    PyObject, Py_DECREF, Py_INCREF, np_iov, np_iov_advance, np_iov_grow, np_iov_init, np_iov_pop,
    np_iov_push, np_owner_drop)
from netpoll._native.limits cimport GATHER_COUNT, HIGH_WATER_DEFAULT_BYTES


cdef struct OutQueue:
    np_iov iov                  # iov.total_bytes is what the watermarks count
    size_t high_bytes, low_bytes
    uint16_t lost_writes_count  # after the end


cdef inline int out_init(OutQueue *out) noexcept:
    np_iov_init(&out.iov)
    out.high_bytes = HIGH_WATER_DEFAULT_BYTES
    out.low_bytes = HIGH_WATER_DEFAULT_BYTES // 4
    return 0


cdef inline int out_push(np_iov *iov, object owner, const void *base, size_t size) except -1:
    """Appends size bytes that owner keeps alive, and keeps it."""
    if np_iov_push(iov, <void*>owner, base, size) < 0:
        if np_iov_grow(iov) < 0:
            raise MemoryError
        np_iov_push(iov, <void*>owner, base, size)
    Py_INCREF(<PyObject*>owner)
    return 0


cdef inline int out_push_bytes(np_iov *iov, object data) except -1:
    return out_push(iov, data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline int forget_owner(void *owner) noexcept:
    cdef void *reference = np_owner_drop(owner)
    if reference is not NULL:
        Py_DECREF(<PyObject*>reference)
    return 0


cdef inline int out_advance(np_iov *iov, size_t sent_bytes) except -1:
    """The first sent_bytes have gone. What lets go of an owner may run any code."""
    cdef void *owners[GATHER_COUNT]
    cdef int finished = GATHER_COUNT
    cdef int i
    while finished == GATHER_COUNT:
        finished = np_iov_advance(iov, sent_bytes, owners, GATHER_COUNT)
        sent_bytes = 0
        for i in range(finished):
            forget_owner(owners[i])
    return 0


cdef inline int out_clear(np_iov *iov) noexcept:
    """Forgets it all; not while the kernel reads it."""
    while iov.count:
        forget_owner(np_iov_pop(iov))
    return 0
