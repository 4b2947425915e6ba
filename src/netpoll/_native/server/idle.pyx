# cython: language_level=3, freethreading_compatible=True
"""Idle time-outs of a worker's connections: a wheel of lists, one timer for all of them.

A connection notes the tick in which it last made progress, which costs nothing, and sits in the
spoke of its earliest possible time-out. When the wheel gets there it is idle, or goes to a later
spoke.
"""

from libc.stdint cimport uint16_t, uint32_t

from netpoll._native.c cimport NP_CONN_TIMED, np_conn, np_conn_at
from netpoll._native.seal cimport seal_types


cdef class Wheel:
    cdef int add(self, np_conn *conn, uint32_t ticks) noexcept:
        cdef uint32_t *spoke = &self.spokes[(self.tick + ticks) % WHEEL_SPOKES_COUNT]
        conn.flags |= NP_CONN_TIMED
        conn.wheel_prev = 0
        conn.wheel_next = spoke[0]
        if spoke[0]:
            np_conn_at(self.slab, spoke[0] - 1).wheel_prev = conn.index + 1
        spoke[0] = conn.index + 1
        return 0

    cdef int remove(self, np_conn *conn) noexcept:
        cdef uint32_t i
        conn.flags &= ~NP_CONN_TIMED
        if conn.wheel_next:
            np_conn_at(self.slab, conn.wheel_next - 1).wheel_prev = conn.wheel_prev
        if conn.wheel_prev:
            np_conn_at(self.slab, conn.wheel_prev - 1).wheel_next = conn.wheel_next
            return 0
        for i in range(WHEEL_SPOKES_COUNT):  # it is the first of one of them
            if self.spokes[i] == conn.index + 1:
                self.spokes[i] = conn.wheel_next
                return 0
        return 0

    cdef int advance(self) noexcept:
        self.tick += 1
        return 0

    cdef np_conn *pop_idle(self) noexcept:
        """Takes one connection out that has been idle for its whole time; NULL: no more now."""
        cdef uint32_t at
        cdef uint16_t idle
        cdef np_conn *conn
        while True:
            at = self.spokes[self.tick % WHEEL_SPOKES_COUNT]
            if not at:
                return NULL
            conn = np_conn_at(self.slab, at - 1)
            self.remove(conn)
            idle = <uint16_t>(self.tick - conn.tick)
            if idle >= WHEEL_IDLE_TICKS:
                return conn
            self.add(conn, WHEEL_IDLE_TICKS - idle)


seal_types(globals())
