# The seam of http/access.pyx.

from libc.stdint cimport int64_t

from netpoll._native.http.c cimport np_http1
from netpoll._native.http.forwarded cimport Forwarded
from netpoll._native.server.addresses cimport Addresses
from netpoll._native.server.connection cimport Connection


cdef class AccessNotes:
    cdef object write           # a function that takes a list of notes
    cdef list notes             # what it has not got yet
    cdef Addresses addresses
    cdef bint is_called         # the loop is going to flush

    cdef tuple begin(self, Connection face, const np_http1 *request, Forwarded forwarded)
    cdef int end(self, tuple begun, int status, int64_t sent_bytes) except -1
    cdef int flush(self) except -1
