# The seam of http/access.pyx.

from libc.stdint cimport int64_t

from netpoll._native.http.c cimport np_http1
from netpoll._native.http.forwarded cimport Forwarded
from netpoll._native.server.addresses cimport Addresses
from netpoll._native.server.connection cimport Connection


cdef enum Form:
    FORM_COMMON
    FORM_COMBINED
    FORM_JSON


cdef class AccessLines:
    cdef object write           # a function that takes bytes: some lines
    cdef Form form
    cdef Addresses addresses
    cdef char *lines            # that were not written yet
    cdef size_t lines_bytes, room_bytes
    cdef int64_t second
    cdef bytes date             # of that second
    cdef bint is_called         # the loop is going to flush

    cdef tuple begin(self, Connection face, const np_http1 *request, Forwarded forwarded)
    cdef int end(self, tuple begun, int status, int64_t sent_bytes) except -1
    cdef char *put_line(self, char *at, tuple begun, int status, int64_t sent_bytes) except NULL
    cdef char *put_object(self, char *at, tuple begun, int status, int64_t sent_bytes,
                          int64_t taken_ns) except NULL
    cdef int look_at_clock(self) except -1
    cdef int flush(self) except -1
