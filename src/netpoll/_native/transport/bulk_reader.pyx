# cython: language_level=3, freethreading_compatible=True
"""Direct reads into bytes objects, which a loop keeps to be used again (_native/fd_table.pyx)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

from netpoll._core cimport Loop
from netpoll._native.c cimport PyObject, Py_DECREF, np_bytes_renew
from netpoll._native.limits cimport BULK_LEAVE_COUNT


cdef int bulk_enter(Loop loop, BulkReader *reader) except -1:
    if not reader.left:
        loop.bulk_users_count += 1
    reader.left = BULK_LEAVE_COUNT
    return 0


cdef int bulk_leave(Loop loop, BulkReader *reader) except -1:
    """Also of one that bulk_ends() has brought to its end: `left` is 0 then."""
    reader.left = 0
    loop.bulk_users_count -= 1
    if not loop.bulk_users_count:
        loop.drop_bulk()
    return 0


cdef object bulk_receive(Loop loop, int fd, receive_call receive, Py_ssize_t want, ptrdiff_t *got):
    """One read of at most `want` bytes into a bytes object. None when *got is 0 or -errno."""
    cdef PyObject *data = loop.take_bulk(want)
    cdef char *base = PyBytes_AS_STRING(<object>data)
    cdef ptrdiff_t n
    with nogil:
        n = receive(fd, base, want)
    got[0] = n
    if n <= 0:
        Py_DECREF(data)
        return None
    if 2 * n >= want:
        np_bytes_renew(data, n)
        received = <object>data
    else:  # who keeps a small message must not keep much memory with it
        received = PyBytes_FromStringAndSize(base, n)
    Py_DECREF(data)
    return received
