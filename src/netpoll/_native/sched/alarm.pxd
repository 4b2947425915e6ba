# The seam of sched/alarm.pyx.

from netpoll._native.c cimport PyObject, np_timer
from netpoll._native.sched.task cimport Core, Suspension


cdef class Timed(Suspension):
    cdef np_timer timer
    cdef Core core
    cdef double delay_s

    cdef int arm(self, Core core) except -1
    cdef int disarm(self) except -1
    cdef int fire(self) except -1


cdef PyObject *timed_place(np_timer *timer) noexcept
cdef int fire_alarms(Core core) except -1
