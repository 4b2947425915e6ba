# The seam of server/host.pyx: what happens to the connections of a worker, below their handlers.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport (
    NP_IOV_MAX, PyObject, iovec, np_conn, np_conn_slab, np_conn_unpin, np_event, np_task, np_udata)
from netpoll._native.server.idle cimport Wheel


cdef class Face:
    """What stands for a connection while somebody looks at it: server/connection.pyx."""
    cdef Host host
    cdef np_conn *conn          # NULL: the connection is over
    cdef Py_ssize_t retained_bytes  # in leases
    cdef object draining        # an await of drain(); else None

    cdef int drained(self) except -1


cdef class Host(Completion):
    cdef Loop loop
    cdef uint64_t thread_id     # of the thread that runs the loop
    cdef np_conn_slab slab
    cdef Py_ssize_t pending_max_bytes, unread_max_bytes, retained_max_bytes
    cdef bint raises_when_full, is_session, is_stopping
    cdef object on_close, closed_hook
    cdef set sessions
    # The turn.
    cdef np_task *runs          # connections whose handler is to run at the end of this turn
    cdef np_task *last_run
    cdef uint32_t dirty         # index + 1 of the first connection with something to send
    cdef bint is_marked         # in the loop's list for the end of the turn
    cdef np_conn *running       # whose coroutine is being driven, or NULL
    # Idle time-outs.
    cdef Wheel wheel            # None: there are none
    cdef uint16_t tick
    # Connections that a proxy speaks for: index -> (serial, peername, sockname); or None.
    cdef dict names
    # Memory.
    cdef PyObject *spare        # a face that nobody uses, kept for the next handler call
    cdef Py_ssize_t buffers_count, leased_chunks    # of the ring; of it in retained leases
    cdef object make_pool       # called with the loop for the BufferPool of reserve()
    cdef object pool            # that pool, once it was asked for
    # Sending.
    cdef iovec iov[NP_IOV_MAX]  # of the send that is being made
    cdef bint may_ship          # the backend has zero-copy sends
    cdef uint32_t launches_count
    # Read by the dealer, in whatever thread: dealt is its own, the others are this worker's. Each
    # is written in one thread only.
    cdef uint64_t dealt_count, adopted_count, ended_count
    cdef uint64_t accepted_count, handler_errors_count, full_closed_count
    cdef uint64_t user_copied_bytes, sent_bytes, file_bytes

    cdef bint is_its_thread(self) noexcept
    cdef int check_thread(self) except -1
    cdef object tls_of(self, np_conn *conn)
    cdef bytes certificate_of(self, np_conn *conn)
    cdef int handler_failed(self, str message, object exc, Face face) except -1
    cdef int session_ended(self, object session, Face face, object error) except -1
    # Beginning and ending.
    cdef int admitted(self, int fd, object peername, object sockname) except -1
    cdef np_conn *begin(self, int fd) except? NULL
    cdef int close_conn(self, np_conn *conn) except -1
    cdef int fail_conn(self, np_conn *conn, object error) except -1
    cdef int lose(self, np_conn *conn, object error) except -1
    cdef int tell_lost(self, np_conn *conn, object error) except -1
    cdef int part(self, np_conn *conn) noexcept
    cdef int drop_flow(self, np_conn *conn, bint unread) except -1
    cdef int finish(self, np_conn *conn) except -1
    cdef int ended_with_loop(self, np_conn *conn, bint receiving) except -1
    cdef int forget_queues(self) except -1
    # Receiving.
    cdef np_udata arm_op(self, np_conn *conn, uint8_t kind, uint32_t argument) except 0
    cdef int arm_recv(self, np_conn *conn) except -1
    cdef int start_reading(self, np_conn *conn) except -1
    cdef int stop_reading(self, np_conn *conn) except -1
    cdef int read_again(self, np_conn *conn) except -1
    cdef int hold_ends(self, np_conn *conn) except -1
    cdef int consumed(self, np_conn *conn) except -1
    # The end of the turn.
    cdef int mark(self) except -1
    cdef int queue_run(self, np_conn *conn) except -1
    cdef int enqueue(self, np_task *task) except -1
    cdef int send_soon(self, np_conn *conn) except -1
    cdef int flush_dirty(self, size_t least_bytes, bint now) except -1
    # Sending.
    cdef Py_ssize_t make_room(self, np_conn *conn) except -1
    cdef int meet_send(self, np_conn *conn) except -1
    cdef int flush(self, np_conn *conn, bint now) except -1
    cdef int launch(self, np_conn *conn, int n, size_t total_bytes, bint now) except -1
    cdef int ship(self, np_conn *conn, int n, size_t total_bytes) except -1
    cdef int flush_file(self, np_conn *conn) except -1
    cdef int on_sent(self, np_conn *conn, np_event *event) except -1
    cdef int took(self, np_conn *conn, Py_ssize_t res) except -1
    cdef int wait_writable(self, np_conn *conn) except -1
    cdef int shrunk(self, np_conn *conn) except -1
    cdef int all_sent(self, np_conn *conn) except -1


cdef inline int unpin(Host host, np_conn *conn) except -1:
    """The partner of np_conn_pin."""
    return host.finish(conn) if np_conn_unpin(conn) else 0


cdef class FileSpan:
    """A file that is being sent: its own descriptor, closed when nobody sends from it any more."""
    cdef int fd
