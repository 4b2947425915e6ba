# The seam of sched/worker_loop.pyx.

from netpoll._core cimport Loop
from netpoll._native.sched.c cimport np_worker
from netpoll._native.sched.run cimport SchedulerCore


cdef class RingLoop(Loop):
    cdef SchedulerCore core     # None: no worker sleeps in this loop
    cdef np_worker *native
    cdef unsigned int index
    cdef bint has_more          # tasks are queued; the last turn's share is used up
    cdef bint is_ending         # the scheduler is over: only the loop's own work is left
