# The seam of _driver.pyx.

from netpoll._connection cimport Connection, Driver, Host


cdef class Session(Driver):
    cdef Host host
    cdef Connection connection
    cdef object coro, context
    cdef object waits_for       # an asyncio future, or None
    cdef object cancel_message
    cdef object ended           # called with (session, error) at the end
    cdef Py_ssize_t cancels_count
    cdef bint is_running, is_done, must_cancel, is_native   # suspended in an await of ours
    cdef bint is_queued
    cdef str name

    cdef int run(self) except -1
    cdef object step(self)
    cdef int suspend(self, object what) except -1
    cdef int finish(self, object error) except -1


cdef Session make_session(Host host, Connection connection, object coro, object ended)
