# The seam of loop/sock.pyx.

from libc.stdint cimport uint32_t

from netpoll._core cimport Loop
from netpoll._native.c cimport np_udata
from netpoll._native.loop.awaitable cimport Awaitable


cdef class SockOp(Awaitable):
    """One call on a nonblocking socket. attempt() does it and sets is_done, or must wait."""
    cdef Loop loop
    cdef object sock
    cdef int fd
    cdef uint32_t mask      # poll(2) bits to wait for
    cdef bint is_holding    # the socket stays open, closed or not
    cdef np_udata op

    cdef object attempt(self)
    cdef int hold(self) except -1
    cdef int unhold(self) except -1
    cdef bint is_closed(self) except -1
