# An np_iov whose owners are bytes objects: what a transport has yet to send, oldest first.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from netpoll._native.c cimport (
    PyObject, Py_DECREF, Py_INCREF, np_iov, np_iov_advance, np_iov_grow, np_iov_pop, np_iov_push)
from netpoll._native.limits cimport GATHER_COUNT


cdef inline int chain_push(np_iov *chain, object data) except -1:
    """Appends the bytes object data, and keeps it."""
    if np_iov_push(chain, <void*>data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) < 0:
        if np_iov_grow(chain) < 0:
            raise MemoryError
        np_iov_push(chain, <void*>data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    Py_INCREF(<PyObject*>data)
    return 0


cdef inline int chain_advance(np_iov *chain, size_t sent_bytes) except -1:
    """The kernel has taken sent_bytes from the front."""
    cdef void *owners[GATHER_COUNT]
    cdef int finished = GATHER_COUNT
    cdef int i
    while finished == GATHER_COUNT:
        finished = np_iov_advance(chain, sent_bytes, owners, GATHER_COUNT)
        sent_bytes = 0
        for i in range(finished):
            Py_DECREF(<PyObject*>owners[i])
    return 0


cdef inline int chain_clear(np_iov *chain) except -1:
    """Forgets it all; not while the kernel reads it."""
    cdef void *owner
    while chain.count:
        owner = np_iov_pop(chain)
        Py_DECREF(<PyObject*>owner)
    return 0
