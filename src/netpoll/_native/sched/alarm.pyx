# cython: language_level=3, freethreading_compatible=True
"""What happens at a time: sleeps of tasks, and alarms that call back in a worker.

One heap serves all workers (csrc/sched/np_alarm.h); who runs what is due is in sched/run.pyx.
"""

from libc.math cimport ceil
from libc.stdint cimport INT64_MAX, int64_t

from netpoll._native.c cimport PyObject, Py_DECREF, Py_INCREF, np_timer
from netpoll._native.sched.c cimport (
    np_alarms_add, np_alarms_pop_due, np_alarms_remove, np_flag_get, np_flag_set,
    np_sched_alarm_added, np_sched_now_ns)
from netpoll._native.seal cimport seal_types
from netpoll._native.sched.task cimport Core, Suspension, Task, asked, wake_task


cdef int64_t deadline_ns(Core core, double delay_s) noexcept:
    if delay_s >= 9.2e9:
        return INT64_MAX - 1
    return np_sched_now_ns(core.sched) + (<int64_t>ceil(delay_s * 1e9) if delay_s > 0 else 0)


cdef class Timed(Suspension):
    """Something with a deadline. Armed, it is kept alive by the heap."""

    cdef int arm(self, Core core) except -1:
        cdef int rc
        self.core = core
        self.timer.when_ns = deadline_ns(core, self.delay_s)
        Py_INCREF(<PyObject*>self)
        rc = np_alarms_add(&core.sched.alarms, &self.timer)
        if rc < 0:
            Py_DECREF(<PyObject*>self)
            raise MemoryError
        if rc:
            np_sched_alarm_added(core.sched)
        return 0

    cdef int disarm(self) except -1:
        if self.core is not None and np_alarms_remove(&self.core.sched.alarms, &self.timer):
            Py_DECREF(<PyObject*>self)
        return 0

    cdef int fire(self) except -1:
        """The deadline has come."""
        return 0


cdef Py_ssize_t timer_offset():
    cdef Timed timed = Timed.__new__(Timed)
    return <char*>&timed.timer - <char*><PyObject*>timed


cdef Py_ssize_t TIMER_OFFSET = timer_offset()


cdef class Sleep(Timed):
    """What sleep() returns: awaited once, by one task."""
    cdef Task task
    cdef char is_over
    cdef bint is_asked      # by a coroutine whose task has not attached itself yet

    def __cinit__(self, double delay_s):
        self.delay_s = delay_s

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if np_flag_get(&self.is_over):
            raise StopIteration
        return asked(self, &self.is_asked)

    cdef int attach(self, Task waiter) except -1:
        self.is_asked = False
        if np_flag_get(&self.is_over):
            return 1
        if self.core is None:
            self.task = waiter
            self.arm(waiter.core)
        elif self.task is not waiter:
            raise RuntimeError("this sleep() is being awaited already; call sleep() again")
        return 0

    cdef int detach(self, Task waiter) except -1:
        return self.disarm()

    cdef int fire(self) except -1:
        cdef Task task = self.task
        np_flag_set(&self.is_over)
        self.task = None
        return wake_task(task)


cdef class Alarm(Timed):
    """Calls back in a worker after `delay_s` seconds, unless cancel() comes first."""
    cdef object callback

    def __cinit__(self, Core core, double delay_s, callback):
        core.check_usable()
        self.delay_s = delay_s
        self.callback = callback
        self.arm(core)

    def cancel(self):
        self.disarm()

    cdef int fire(self) except -1:
        self.callback()
        return 0


cdef PyObject *timed_place(np_timer *timer) noexcept:
    """What a timer in the heap belongs to."""
    return <PyObject*>(<char*>timer - TIMER_OFFSET)


cdef int fire_alarms(Core core) except -1:
    cdef np_timer *timer
    cdef Timed timed
    cdef int64_t now_ns = np_sched_now_ns(core.sched)
    while True:
        timer = np_alarms_pop_due(&core.sched.alarms, now_ns)
        if timer is NULL:
            return 0
        timed = <Timed><void*>timed_place(timer)
        Py_DECREF(<PyObject*>timed)     # the heap's; `timed` holds one
        try:
            timed.fire()
        except BaseException as exc:
            core._report({"message": "an alarm's callback failed", "exception": exc})


seal_types(globals(), (Sleep, Alarm))
