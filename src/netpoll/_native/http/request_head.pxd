# The seam of http/request_head.pyx.

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t

from netpoll._native.c cimport PyObject
from netpoll._native.http.c cimport NP_FIELDS_COUNT, np_http1, np_http_field


cdef inline bytes text_of(const np_http1 *request, uint64_t at, uint64_t size):
    return PyBytes_FromStringAndSize(<const char*>request.base + at, size)


cdef object path_of(const np_http1 *request)


cdef class HeaderPairs:
    cdef PyObject *last[NP_FIELDS_COUNT]    # the last (name, value) that was made of each name

    cdef list of(self, const np_http1 *request)
    cdef object pair(self, const np_http1 *request, const np_http_field *field)
