# The seam of sched/offload.pyx.

from netpoll._native.c cimport np_task
from netpoll._native.sched.run cimport SchedulerCore


cdef class Outbox:
    cdef object loop
    cdef list replies           # (ConnectionTask, bytes) that wait for the owner
    cdef bint is_scheduled

    cdef int put(self, ConnectionTask task, object reply) except -1


cdef class ConnectionTask:
    cdef np_task node
    cdef SchedulerCore core
    cdef Outbox outbox
    cdef object handler, write, fail
    cdef list messages          # received, and not handled yet
    cdef Py_ssize_t next_message
    cdef public bint tells_all  # also the handler's None reaches write: the owner waits for room
    cdef object __weakref__

    cdef int push(self) except -1
    cdef int run(self) except -1
    cdef object take(self)
