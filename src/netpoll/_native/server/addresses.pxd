# The seam of server/addresses.pyx.

from libc.stdint cimport uint32_t

from netpoll._native.c cimport PyObject, np_peer
from netpoll._native.server.connection cimport Connection


cdef struct Ends:
    # Of one connection.
    PyObject *host              # of the peer: a str; NULL: none is known
    PyObject *server            # (host, port), (path, None) or None; NULL: not asked for yet
    uint32_t serial             # of the connection; 0: of none
    uint32_t port               # of the peer


cdef class Addresses:
    cdef Ends *ends             # by the connection's place
    cdef size_t ends_count
    cdef dict hosts             # what the kernel calls an address: what a program calls it
    cdef dict servers           # the same of our own ends: (host, port)

    cdef tuple client(self, Connection face)
    cdef tuple server(self, Connection face)
    cdef Ends *ends_of(self, Connection face) except NULL
    cdef int grow(self, size_t least_count) except -1
    cdef object host_of(self, Connection face, np_peer *peer)
    cdef tuple own_end(self, Connection face)
