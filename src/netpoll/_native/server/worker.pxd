# The seam of server/worker.pyx.

from libc.stdint cimport uint64_t

from netpoll._native.c cimport np_bufring, np_conn, np_event
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.door cimport Doors
from netpoll._native.server.host cimport Host
from netpoll._native.server.protocol cimport Protocol


cdef class Worker(Host):
    cdef object handler, on_connect
    cdef Protocol protocol      # in the handler's place, or None
    cdef Doors doors            # of connections that a proxy makes; None: nobody does
    cdef list dealt             # descriptors that the dealer put here, to be adopted
    cdef bint goes_on           # with what the end of a turn has left: the loop's queue knows
    cdef bint is_over           # its loop is closed: nothing is adopted any more
    cdef double tick_s
    cdef object ticker, second  # timers: of the wheel, of the protocol
    cdef np_bufring bulk        # count 0 before the first connection with direct reads
    cdef uint64_t bulk_reads_count, idle_closed_count, shed_bytes, recv_bytes

    cdef int adopt(self, int fd) except -1
    cdef int close_dealt(self) except -1
    cdef int announce(self, np_conn *conn) except -1
    cdef int happened(self, np_conn *conn, np_event *event) except -1
    cdef int received(self, np_conn *conn, np_event *event) except -1
    cdef int on_bytes(self, np_conn *conn, np_event *event) except -1
    cdef int arrived(self, np_conn *conn, int event_flags) except -1
    cdef int receive_ended(self, np_conn *conn, int res) except -1
    cdef int end_of_stream(self, np_conn *conn) except -1
    cdef bint is_held_up(self, np_conn *conn) noexcept
    cdef bint awaits_resume(self, np_conn *conn) noexcept
    cdef int tell_eof(self, np_conn *conn) except -1
    cdef int deliver(self, np_conn *conn) except -1
    cdef int call_on_data(self, np_conn *conn) except -1
    cdef int after_handler(self, np_conn *conn, Connection face) except -1
    cdef int run_queue(self) except -1
    cdef int run_conn(self, np_conn *conn) except -1
    cdef int run_session(self, Connection face) except -1
    cdef int evacuate(self) except -1
    cdef int measured(self, np_conn *conn, int size) except -1
    cdef int on_readable(self, np_conn *conn, np_event *event) except -1
    cdef int receive_bulk(self, np_conn *conn, np_event *event) except -1
