# The seam of server/session.pyx.

from netpoll._native.server.connection cimport Connection, Driver
from netpoll._native.server.host cimport Host


cdef class Session(Driver):
    cdef Host host
    cdef Connection connection
    cdef object coro, context
    cdef object waits_for       # an asyncio future, or None
    cdef object cancel_message
    cdef object value           # what it is to meet when it goes on; at its end, what came of it
    cdef object name
    cdef list callbacks         # of add_done_callback: (function, context)
    cdef object __weakref__
    cdef Py_ssize_t cancels_count
    cdef bint is_running, must_cancel
    cdef bint is_native         # suspended in an await of ours
    cdef bint is_soon           # the loop's queue has a _run of it
    cdef bint is_done, is_cancelled, has_failed
    cdef public bint _asyncio_future_blocking

    cdef int run(self) except -1
    cdef object step(self)
    cdef int suspend(self, object what) except -1
    cdef object refusal(self, object what)
    cdef int run_soon(self) except -1
    cdef int finish(self, object error) except -1
    cdef int part(self, object error) except -1
    cdef bint is_expected(self, object error) except -1
    cdef int end(self) except -1


cdef Session make_session(Host host, Connection connection, object coro)
