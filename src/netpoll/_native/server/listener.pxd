# The seam of server/listener.pyx.

from libc.stdint cimport uint64_t

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport np_udata


cdef class Listener(Completion):
    cdef Loop loop
    cdef object sock, told
    cdef list workers
    cdef int fd
    cdef np_udata op
    cdef bint is_closed, is_paused
    cdef object retry
    cdef Py_ssize_t max_connections
    cdef list waiting           # accepted beyond max_connections: fds that nobody serves yet
    cdef uint64_t pauses_count

    cdef int arm(self) except -1
    cdef int deal(self, int fd) except -1
    cdef int go_on(self) except -1
    cdef int failed(self, int err) except -1
    cdef Py_ssize_t load(self) except -1
