# The seam of server/listener.pyx.

from libc.stdint cimport uint64_t

from netpoll._native.server.seats cimport Seats
from netpoll._native.transport.acceptor cimport Accepting


cdef class Listener(Accepting):
    cdef object told
    cdef list workers
    cdef bint is_paused
    cdef Py_ssize_t connections_max_count
    cdef list waiting           # accepted beyond connections_max_count: fds that nobody serves yet
    cdef uint64_t pauses_count
    cdef Seats seats            # of the processes that share the socket; None: nobody does
    cdef bint has_yielded       # the others could have taken who waits
    cdef int fruitless_count    # how often they have not, one time after the other

    cdef int on_waiting(self) except -1
    cdef int take(self, int fd) except -1
    cdef int deal(self, int fd) except -1
    cdef bint is_full(self) except -1
    cdef int go_on(self) except -1
    cdef int failed(self, int err) except -1
    cdef Py_ssize_t load(self) except -1
