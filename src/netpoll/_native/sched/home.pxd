# The seam of sched/home.pyx: tasks that wait for futures of their worker's event loop.

from netpoll._native.c cimport np_task
from netpoll._native.sched.task cimport Suspension, Task, Worker


cdef class FutureWait(Suspension):
    cdef object future
    cdef object loop
    cdef Task task          # None: it does not wait any more


cdef object wait_for_future(Task task, object awaited)
cdef bint is_still_waiting(object suspension)
cdef int enter_loop(Worker *worker, Task task) except -1
cdef int leave_loop(Worker *worker, Task task) except -1
