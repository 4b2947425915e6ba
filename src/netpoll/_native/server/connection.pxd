# The seam of server/connection.pyx.

from libc.stdint cimport int64_t, uint8_t

from netpoll._native.c cimport np_conn, np_flow
from netpoll._native.loop.awaitable cimport Awaitable
from netpoll._native.server.host cimport FileSpan, Host
from netpoll._native.server.lease cimport Lease, Lender


cdef enum WaitKind:
    WAIT_FILL = 1
    WAIT_EXACTLY
    WAIT_UNTIL
    WAIT_DRAIN


cdef class Driver:
    """What runs a connection's coroutine (server/session.pyx)."""
    cdef int resume(self) except -1


cdef class Connection(Lender):
    cdef Driver session         # None in on_data style
    cdef Wait reading           # the await in progress, beside that of drain()
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
    cdef Lease lend(self, Py_ssize_t size, bint consumes)
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
    cdef int push_span(self, FileSpan span, int64_t offset, int64_t size) except -1
    cdef int pushed(self) except -1
    cdef int wake(self, Wait wait) except -1


cdef class Wait(Awaitable):
    cdef Connection connection
    cdef Py_ssize_t size, seen_bytes
    cdef bytes separator
    cdef uint8_t kind
    cdef bint is_offered        # to who drives the coroutine: a session, else a task

    cdef object result(self, np_conn *conn)
    cdef int forget(self) except -1


cdef Connection face_of(Host host, np_conn *conn)
cdef int drop_face(Host host, np_conn *conn, Connection face) except -1
