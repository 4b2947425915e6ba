# The seam of server/lifetime.pyx.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from netpoll._native.c cimport PyObject, np_conn, np_task
from netpoll._native.server.connection cimport Connection, Host
from netpoll._native.server.idle cimport Wheel


cdef class Keeper(Host):
    """Begins and ends a worker's connections."""
    cdef object on_close, closed_hook
    cdef bint is_stopping
    cdef PyObject *spare        # a face that nobody uses, kept for the next handler call
    cdef np_task *runs          # connections whose handler is to run at the end of this turn
    cdef np_task *last_run
    cdef uint32_t dirty         # index + 1 of the first connection with something to send
    cdef Wheel wheel            # None: no idle time-out
    cdef uint16_t tick
    # Read by the dealer, in whatever thread: dealt is its own, ended is this worker's.
    cdef uint64_t dealt_count, ended_count
    cdef uint64_t accepted_count, handler_errors_count

    cdef int arm_recv(self, np_conn *conn) except -1
    cdef np_conn *begin(self, int fd) except? NULL
    cdef Connection face_of(self, np_conn *conn)
    cdef int drop_face(self, np_conn *conn, Connection face) except -1
    cdef int lose(self, np_conn *conn, object error) except -1
    cdef int tell_lost(self, np_conn *conn, object error) except -1
    cdef int part(self, np_conn *conn) noexcept
    cdef int drop_flow(self, np_conn *conn, bint unread) except -1
    cdef int ended_with_loop(self, np_conn *conn, bint receiving) except -1
    cdef int forget_queues(self) except -1
    cdef int handler_failed(self, str message, object exc, Connection face) except -1
