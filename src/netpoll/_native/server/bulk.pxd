# The seam of server/bulk.pyx.

from libc.stdint cimport uint32_t, uint64_t

from netpoll._native.c cimport np_bufring, np_conn, np_event
from netpoll._native.server.shipment cimport Sender


cdef class Receiver(Sender):
    """How a worker's connections receive: by the ring's buffers, or in bulk."""
    cdef np_bufring bulk        # count 0 before the first connection in bulk
    cdef uint64_t bulk_reads_count

    cdef int start_reading(self, np_conn *conn) except -1
    cdef int measured(self, np_conn *conn, int size) except -1
    cdef int on_readable(self, np_conn *conn, np_event *event) except -1
    cdef int receive_bulk(self, np_conn *conn, np_event *event) except -1
    cdef int received(self, np_conn *conn, np_event *event) except -1
    cdef int on_bytes(self, np_conn *conn, np_event *event) except -1
    cdef int receive_ended(self, np_conn *conn, int res) except -1
    cdef int flush(self, np_conn *conn, bint now) except -1
    cdef int all_sent(self, np_conn *conn) except -1
    cdef int evacuate(self) except -1
    cdef int rush(self) except -1
    cdef int flush_step(self, np_conn *conn, bint now) except -1
    cdef int requeue(self, uint32_t at) except -1
