# cython: language_level=3, freethreading_compatible=True
"""Tasks that are bound to a worker with a ring: what they await of that worker's event loop.

A task that may be stolen cannot use an event loop, which belongs to a thread. One that has a home
can: it always runs there. To asyncio it is the current task while it runs, so that asyncio.timeout
and asyncio.TaskGroup work in it, and a future that it awaits wakes it by its callback.
"""

cimport cython

from netpoll._native.c cimport NP_HOME_ANY
from netpoll._native.sched.task cimport Suspension, Task, Worker, thread_worker, wake_task
from netpoll._native.seal cimport seal_types

import asyncio
from asyncio import tasks as aio_tasks

cdef object set_running_loop = asyncio._set_running_loop
cdef object enter_task = aio_tasks._enter_task
cdef object leave_task = aio_tasks._leave_task


cdef class FutureWait(Suspension):
    """Waits for a future of the loop of the task's own worker."""

    cdef int attach(self, Task waiter) except -1:
        self.task = waiter
        self.future.add_done_callback(self._woken)
        return 0

    cdef int detach(self, Task waiter) except -1:
        """The task is being cancelled, from any thread: so is what it waits for, in its own."""
        with cython.critical_section(self):
            self.task = None
        try:
            self.loop.call_soon_threadsafe(self.future.cancel)
        except RuntimeError:
            pass    # the loop is closed
        return 0

    def _woken(self, _future):
        cdef Task task
        with cython.critical_section(self):
            task = self.task
            self.task = None
        if task is not None:
            wake_task(task)


cdef object wait_for_future(Task task, object awaited):
    """The FutureWait for what `task` awaits; None when it is nothing that it can wait for."""
    cdef Worker *worker = thread_worker()
    cdef FutureWait wait
    if worker.loop is NULL or task.node.home == NP_HOME_ANY:
        return None
    if not getattr(awaited, "_asyncio_future_blocking", None):
        return None
    if awaited.get_loop() is not <object>worker.loop:
        return None
    awaited._asyncio_future_blocking = False
    wait = FutureWait.__new__(FutureWait)
    wait.future = awaited
    wait.loop = <object>worker.loop
    return wait


cdef bint is_still_waiting(object suspension):
    """Whether a task that was woken goes back to sleep: a future must not be asked too early."""
    return type(suspension) is FutureWait and not (<FutureWait>suspension).future.done()


cdef int enter_loop(Worker *worker, Task task) except -1:
    """`task` is about to run: its worker's loop runs, and it is the current task there."""
    set_running_loop(<object>worker.loop)
    enter_task(<object>worker.loop, task)
    return 0


cdef int leave_loop(Worker *worker, Task task) except -1:
    leave_task(<object>worker.loop, task)
    set_running_loop(None)
    return 0


seal_types(globals())
