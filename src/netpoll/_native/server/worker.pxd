# The seam of server/worker.pyx.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from netpoll._core cimport Loop
from netpoll._native.c cimport PyObject, np_conn, np_event, np_task, np_udata
from netpoll._native.server.bulk cimport Receiver
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.idle cimport Wheel


cdef class Worker(Receiver):
    cdef object handler, on_connect
    cdef bint is_session
    cdef set sessions
    cdef list dealt             # descriptors that the dealer put here, to be adopted
    cdef bint is_over           # its loop is closed: nothing is adopted any more
    cdef bint is_marked         # in the loop's list for the end of the turn
    cdef double tick_s
    cdef object ticker
    cdef uint64_t idle_closed_count, full_closed_count
    cdef uint64_t shed_bytes, file_bytes, recv_bytes, sent_bytes

    cdef int adopt(self, int fd) except -1
    cdef int close_dealt(self) except -1
    cdef int announce(self, np_conn *conn) except -1
    cdef int happened(self, np_conn *conn, np_event *event) except -1
    cdef int arrived(self, np_conn *conn, int event_flags) except -1
    cdef int end_of_stream(self, np_conn *conn) except -1
    cdef int deliver(self, np_conn *conn) except -1
    cdef int call_on_data(self, np_conn *conn) except -1
    cdef int after_handler(self, np_conn *conn, Connection face) except -1
    cdef int mark(self) except -1
    cdef int run_queue(self) except -1
    cdef int run_conn(self, np_conn *conn) except -1
    cdef int flush_dirty(self) except -1
    cdef int flush_file(self, np_conn *conn) except -1
    cdef int wait_writable(self, np_conn *conn) except -1
    cdef int shrunk(self, np_conn *conn) except -1
    cdef int run_session(self, Connection face) except -1
    cdef int enqueue(self, np_task *task) except -1
