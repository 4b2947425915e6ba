# The seam of server/connection.pyx.

from libc.stdint cimport uint64_t, uint8_t

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport NP_IOV_MAX, iovec, np_conn, np_conn_slab, np_conn_unpin, np_flow
from netpoll._native.loop.awaitable cimport Awaitable
from netpoll._native.server.lease cimport Lease, Lender


cdef enum WaitKind:
    WAIT_FILL = 1
    WAIT_EXACTLY
    WAIT_UNTIL
    WAIT_DRAIN


cdef class Driver:
    """What runs a connection's coroutine (server/session.pyx)."""
    cdef int resume(self) except -1


cdef class Host(Completion):
    """What a connection needs of the worker that it belongs to (server/worker.pyx)."""
    cdef Loop loop
    cdef np_conn_slab slab
    cdef Py_ssize_t max_pending_bytes, max_unread_bytes, max_retained_bytes
    cdef Py_ssize_t buffers_count, leased_chunks    # of the ring; of it in retained leases
    cdef bint raises_when_full
    cdef object make_pool       # called with the loop for the BufferPool of reserve()
    cdef object pool            # that pool, once it was asked for
    cdef iovec iov[NP_IOV_MAX]  # of the send that is being made
    cdef uint64_t user_copied_bytes, pinned_bytes
    cdef uint64_t thread_id     # of the thread that runs the loop
    cdef np_conn *running       # whose coroutine is being driven, or NULL

    cdef int send_soon(self, np_conn *conn) except -1
    cdef int send_now(self, np_conn *conn) except -1
    cdef int consumed(self, np_conn *conn) except -1
    cdef int read_again(self, np_conn *conn) except -1
    cdef int stop_reading(self, np_conn *conn) except -1
    cdef int close_conn(self, np_conn *conn) except -1
    cdef int fail_conn(self, np_conn *conn, object error) except -1
    cdef int check_thread(self) except -1
    cdef int queue_run(self, np_conn *conn) except -1
    cdef object tls_of(self, np_conn *conn)
    cdef Connection adopt_quietly(self, int fd)
    cdef int session_ended(self, Driver session, object error) except -1
    cdef int finish(self, np_conn *conn) except -1


cdef inline int unpin(Host host, np_conn *conn) except -1:
    """The partner of np_conn_pin."""
    return host.finish(conn) if np_conn_unpin(conn) else 0


cdef class Connection(Lender):
    cdef Host host
    cdef np_conn *conn          # NULL: the connection is over
    cdef Driver session         # None in on_data style
    cdef Wait reading, draining  # awaits in progress
    cdef object error           # why it ended
    cdef public object state
    cdef object __weakref__

    cdef np_conn *live(self) except NULL
    cdef bint is_referred_to(self) noexcept
    cdef np_conn *ours(self) except NULL
    cdef np_flow *unread(self) noexcept
    cdef Py_ssize_t unread_bytes(self) noexcept
    cdef int drop_head(self, Py_ssize_t size) except -1
    cdef bytes copied_head(self, Py_ssize_t size)
    cdef Lease lease(self, Py_ssize_t size, bint consumes)
    cdef Py_ssize_t find(self, bytes sep, Py_ssize_t start) noexcept
    cdef Py_ssize_t wanted(self, object n) except -1
    cdef np_flow *outbound(self) except NULL
    cdef np_flow *writable(self) except NULL
    cdef int make_room(self) except -1
    cdef int push(self, void *owner, const void *base, size_t size) except -1
    cdef int push_data(self, object data) except -1
    cdef int push_bytes(self, object owner, const void *base, Py_ssize_t size) except -1
    cdef int push_view(self, object data) except -1
    cdef int push_lease(self, Lease lease) except -1
    cdef int pushed(self) except -1
    cdef int count_lease(self, Lease lease) noexcept
    cdef int wake(self, Wait wait) except -1


cdef class Wait(Awaitable):
    cdef Connection connection
    cdef Py_ssize_t size, seen_bytes
    cdef bytes separator
    cdef uint8_t kind
    cdef bint is_offered        # to who drives the coroutine: a session, else a task

    cdef object result(self, np_conn *conn)
    cdef int forget(self) except -1


cdef class FileSpan:
    """A file that is being sent: its own descriptor, closed when nobody sends from it any more."""
    cdef int fd
