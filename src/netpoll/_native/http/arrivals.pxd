# The seam of http/arrivals.pyx.

from libc.stdint cimport uint32_t, uint8_t

from netpoll._native.c cimport np_conn
from netpoll._native.server.host cimport Host


cdef struct Arrival:
    # Of one connection.
    uint32_t serial
    uint32_t tick               # when it began; 0: it has sent something since
    uint8_t place               # enum Place


cdef class Arrivals:
    cdef Arrival *ones          # by the places of connections
    cdef uint32_t count
    cdef uint32_t served_max_count      # connections that are served; 0: any number
    cdef uint32_t leaving_count         # that were turned away, and are not closed yet

    cdef Arrival *of(self, const np_conn *conn) noexcept
    cdef int begin(self, Host host, np_conn *conn, uint32_t tick) except -1
    cdef uint32_t tick_of(self, const np_conn *conn) noexcept
    cdef uint32_t first_byte(self, const np_conn *conn) noexcept
    cdef bint is_crowded(self, Host host) noexcept
    cdef bint turns_away(self, Host host, const np_conn *conn) noexcept
    cdef int left(self, const np_conn *conn) noexcept
