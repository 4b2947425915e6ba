# The seam of server/idle.pyx.

from libc.stdint cimport uint16_t, uint32_t

from netpoll._native.c cimport np_conn, np_conn_slab

cdef enum:
    WHEEL_SPOKES_COUNT = 64
    # A spoke is an eighth of the time-out: a connection is found at most so much late.
    WHEEL_IDLE_TICKS = 8


cdef class Wheel:
    cdef np_conn_slab *slab
    cdef uint32_t spokes[WHEEL_SPOKES_COUNT]
    cdef uint16_t tick

    cdef int add(self, np_conn *conn, uint32_t ticks) noexcept
    cdef int remove(self, np_conn *conn) noexcept
    cdef int advance(self) noexcept
    cdef np_conn *pop_idle(self) noexcept
