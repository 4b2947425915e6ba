# The seam of server/networks.pyx.

from netpoll._native.c cimport np_network, np_peer


cdef class Networks:
    cdef np_network *each
    cdef int count

    cdef bint have(self, np_peer *peer) noexcept
