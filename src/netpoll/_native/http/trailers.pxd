# The seam of http/trailers.pyx.

from netpoll._native.http.wire cimport Wire


cdef bint may_have_trailers(Wire wire, int status) noexcept
cdef bint has_trailers(Wire wire) noexcept
cdef bytes last_chunk(list fields)
