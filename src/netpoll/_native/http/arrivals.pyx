# cython: language_level=3, freethreading_compatible=True
"""What is known of a worker's connections beside their structs: when each began, until its first
byte, and whether it came when there were as many as are served.

One that came then is asked for its first request, and turned away only if it is still one too many.
Those that were turned away, and have not read their answer yet, do not count.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from netpoll._native.c cimport NP_CONN_CHUNK_COUNT, np_conn
from netpoll._native.seal cimport seal_types
from netpoll._native.server.host cimport Host


cdef enum Place:
    PLACE_SERVED
    PLACE_BEYOND        # it is one too many, or was when it began
    PLACE_LEAVING       # it was turned away


cdef class Arrivals:
    def __dealloc__(self):
        free(self.ones)

    cdef Arrival *of(self, const np_conn *conn) noexcept:
        """NULL: of a connection that is in its TLS handshake, or was never told of."""
        if conn.index >= self.count or self.ones[conn.index].serial != conn.serial:
            return NULL
        return &self.ones[conn.index]

    cdef int begin(self, Host host, np_conn *conn, uint32_t tick) except -1:
        cdef uint32_t count
        cdef Arrival *ones
        if conn.index >= self.count:
            count = host.slab.chunks_count * NP_CONN_CHUNK_COUNT
            ones = <Arrival*>realloc(self.ones, count * sizeof(Arrival))
            if ones is NULL:
                raise MemoryError
            memset(ones + self.count, 0, (count - self.count) * sizeof(Arrival))
            self.ones = ones
            self.count = count
        self.ones[conn.index] = Arrival(
            conn.serial, tick, PLACE_BEYOND if self.is_crowded(host) else PLACE_SERVED)
        return 0

    cdef uint32_t tick_of(self, const np_conn *conn) noexcept:
        """When a connection began that has not sent a byte. 0: it has, or is in its TLS handshake.
        """
        cdef Arrival *one = self.of(conn)
        return one.tick if one is not NULL else 0

    cdef uint32_t first_byte(self, const np_conn *conn) noexcept:
        """tick_of(), for the last time."""
        cdef Arrival *one = self.of(conn)
        cdef uint32_t tick = self.tick_of(conn)
        if tick:
            one.tick = 0
        return tick

    cdef bint is_crowded(self, Host host) noexcept:
        return self.served_max_count \
            and host.slab.live_count - self.leaving_count > self.served_max_count

    cdef bint turns_away(self, Host host, const np_conn *conn) noexcept:
        """Its first request was read. It is asked for each, and says no to the others."""
        cdef Arrival *one = self.of(conn)
        if one is NULL or one.place != PLACE_BEYOND:
            return False
        if not self.is_crowded(host):
            one.place = PLACE_SERVED
            return False
        one.place = PLACE_LEAVING
        self.leaving_count += 1
        return True

    cdef int left(self, const np_conn *conn) noexcept:
        """It is over."""
        cdef Arrival *one = self.of(conn)
        if one is not NULL and one.place == PLACE_LEAVING:
            one.place = PLACE_SERVED
            self.leaving_count -= 1
        return 0


seal_types(globals())
