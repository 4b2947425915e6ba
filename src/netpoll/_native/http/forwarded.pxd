# The seam of http/forwarded.pyx.

from netpoll._native.http.c cimport np_http1
from netpoll._native.server.networks cimport Networks


cdef class Forwarded:
    cdef Networks networks
    cdef dict known             # hosts of peers: trusted or not

    cdef tuple told(self, const np_http1 *request, tuple client, str scheme)
    cdef bint trusts(self, tuple client) except -1
    cdef tuple client(self, const np_http1 *request, tuple client)
    cdef str scheme(self, const np_http1 *request)
