# The seam of sched/run.pyx: what the server may use of the scheduler.

from libc.stdint cimport int64_t, uint32_t

from netpoll._native.c cimport np_task
from netpoll._native.sched.task cimport Core, Worker

# Of a KIND_POST record: what its `argument` is.
cdef enum Arguments:
    ARGUMENTS_NONE = 0
    ARGUMENTS_ONE = 1   # the argument
    ARGUMENTS_TUPLE = 2

# What the `run` of a KIND_NATIVE record points to: called with the GIL held, in a worker. Its
# `argument` is its own business; so are its errors.
ctypedef int (*NativeRun)(np_task *task) except -1


cdef class SchedulerCore(Core):
    cdef public object _handler     # sched.py's; what makes it a type that the collector sees
    cdef bint is_stopped, is_cancelling, is_abandoned
    cdef int64_t slice_end_ns

    cdef int live(self, uint32_t index) except -1
    cdef Worker *worker_at(self, uint32_t index, bint is_virtual) except NULL
    cdef int push_native(self, np_task *task) noexcept


cdef int run_slice(SchedulerCore core, uint32_t index, uint32_t tasks_count,
                   int64_t time_ns) except -1
