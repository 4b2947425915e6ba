# The seam of http/encoder.pyx.

from libc.stdint cimport int64_t

from netpoll._native.http.answer_head cimport Fields
from netpoll._native.http.c cimport np_http1
from netpoll._native.server.host cimport FileSpan


cdef class AnswerCoding:
    """How the bodies of a worker's answers are encoded: http/compression.pyx."""
    cdef object accepted(self, const np_http1 *request)
    cdef bytes begin(self, object wire, int status, list pairs, Fields *told, bytes body,
                     bint is_file)


cdef class Encoder:
    cdef int write(self, bytes data) except -1
    cdef int write_span(self, FileSpan span, int64_t offset, int64_t size) except -1
    cdef bint end(self) except -1
    cdef object room(self)
    cdef int drop(self) except -1
