# The seam of server/seats.pyx.

from libc.stdint cimport int64_t

from netpoll._native.c cimport np_seat


cdef class Seats:
    cdef object memory          # mmap, shared with the processes that are forked
    cdef np_seat *seats
    cdef readonly int count
    cdef int own                # -1: none

    cdef int check(self, int index) except -1
    cdef bint has_one(self) noexcept
    cdef int publish(self, int64_t connections) noexcept
    cdef int leave_own(self) noexcept
    cdef bint is_heavy(self) noexcept
