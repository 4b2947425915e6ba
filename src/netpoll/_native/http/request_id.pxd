# The seam of http/request_id.pyx.

from libc.stdint cimport uint64_t, uint8_t

from netpoll._native.http.answer_head cimport Fields
from netpoll._native.http.c cimport np_http1


cdef class RequestIds:
    cdef readonly bytes name    # of the field, in lower case
    cdef uint8_t number         # of the name
    cdef bytes prefix           # of those that are made
    cdef uint64_t made_count

    cdef bytes of(self, const np_http1 *request)
    cdef bytes make(self)
    cdef int put(self, list headers, bytes request_id) except -1
    cdef int tell(self, bytes request_id, list pairs, Fields *told) except -1
