# The seam of _server.pyx.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from netpoll._bulk cimport Receiver
from netpoll._c cimport PyObject, np_conn, np_event, np_task, np_udata
from netpoll._connection cimport Connection
from netpoll._core cimport Loop
from netpoll._wheel cimport Wheel


cdef class Worker(Receiver):
    cdef object handler, on_connect, on_close, closed_hook
    cdef bint is_session, is_stopping
    cdef set sessions
    cdef PyObject *spare        # a face that nobody uses, kept for the next handler call
    cdef np_task *runs          # connections whose handler is to run at the end of this turn
    cdef np_task *last_run
    cdef np_task *running_task
    cdef bint is_marked         # in the loop's list for the end of the turn
    cdef Wheel wheel            # None: no idle time-out
    cdef uint16_t tick
    cdef double tick_s
    cdef object ticker
    # Read by the dealer, in whatever thread: dealt is its own, ended is this worker's.
    cdef uint64_t dealt_count, ended_count
    cdef uint64_t accepted_count, idle_closed_count, full_closed_count
    cdef uint64_t shed_bytes, file_bytes, recv_bytes, sent_bytes

    cdef np_conn *begin(self, int fd) except? NULL
    cdef int adopt(self, int fd) except -1
    cdef int announce(self, np_conn *conn) except -1
    cdef int arrived(self, np_conn *conn, int event_flags) except -1
    cdef int end_of_stream(self, np_conn *conn) except -1
    cdef int deliver(self, np_conn *conn) except -1
    cdef int call_on_data(self, np_conn *conn) except -1
    cdef int after_handler(self, np_conn *conn, Connection face) except -1
    cdef Connection face_of(self, np_conn *conn)
    cdef int drop_face(self, np_conn *conn, Connection face) except -1
    cdef int mark(self) except -1
    cdef int run_queue(self) except -1
    cdef int flush_dirty(self) except -1
    cdef int flush_file(self, np_conn *conn) except -1
    cdef int wait_writable(self, np_conn *conn) except -1
    cdef int shrunk(self, np_conn *conn) except -1
    cdef int all_sent(self, np_conn *conn) except -1
    cdef int drop_flow(self, np_conn *conn, bint unread) except -1
    cdef int lose(self, np_conn *conn, object error) except -1
    cdef int tell_lost(self, np_conn *conn, object error) except -1
    cdef int finish(self, np_conn *conn) except -1
    cdef int run_session(self, Connection face) except -1
    cdef int enqueue(self, np_task *task) except -1
