# The seam of server/door.pyx.

from netpoll._core cimport Completion
from netpoll._native.c cimport np_udata
from netpoll._native.server.host cimport Host
from netpoll._native.server.networks cimport Networks


cdef class Doors:
    cdef Networks networks
    cdef double timeout_s
    cdef set waiting
    cdef bint has_told          # of a connection that was refused

    cdef int enter(self, Host host, int fd) except -1
    cdef int close_all(self) except -1
    cdef int forget(self) except -1


cdef class Door(Completion):
    cdef Doors doors
    cdef Host host
    cdef int fd                 # -1: it is somebody else's
    cdef np_udata op
    cdef bytes seen             # of the header
    cdef object timer

    cdef int look(self) except -1
    cdef int wait(self) except -1
    cdef int refuse(self, object why) except -1
    cdef int leave(self) except -1
