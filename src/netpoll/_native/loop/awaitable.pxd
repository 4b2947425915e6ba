# The seam of loop/awaitable.pyx.

from netpoll._core cimport Completion
from netpoll._native.c cimport PyObject


cdef class Awaitable(Completion):
    """A native awaitable with the coroutine protocol (PEP 492); subclasses write step()."""
    cdef object future      # what the waiting task waits for; None before and after
    cdef bint is_done
    cdef bint is_waiting    # a task has been given the future and has not been resumed

    cdef object step(self)
    cdef str called(self)
    cdef int abandon(self) except -1
    cdef object wait_on(self, object loop)
    cdef int resume(self) except -1


cdef int install_awaitable_slots(object cls, str called) except -1
