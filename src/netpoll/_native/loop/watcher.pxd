# The seam of loop/watcher.pyx: add_reader's and add_writer's watchers.

from libc.stdint cimport uint32_t

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport np_event, np_udata
from netpoll._native.handle cimport Handle


cdef class Watcher(Completion):
    cdef Handle handle      # None: removed
    cdef int fd
    cdef uint32_t mask      # poll(2) bits
    cdef uint32_t options   # NP_POLL_LEVEL and others
    cdef np_udata op        # the armed POLL, or 0
    cdef bint has_fired     # in the loop's list: armed again before its next system call

    cdef int arm(self, Loop loop) except -1
    cdef bint fired(self, Loop loop, np_event *event) except -1
    cdef bint take_event(self, Loop loop) except -1
    cdef int retire(self, Loop loop) except -1
