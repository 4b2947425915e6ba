# cython: language_level=3, freethreading_compatible=True
"""Tasks: their result, their cancellation, what they wait for, and how they are woken.

What runs them is in sched/run.pyx. Nothing here relies on the GIL: a task runs in one place at a
time (the states of np_task.h), what several threads may write is guarded by the task's critical
section, and the flag that says "done" is stored last and loaded first.
"""

cimport cython

from netpoll._native.c cimport (
    NP_HAS_GIL, NP_LANES, NP_TASK_LEAVE, NP_TASK_PUSH, NP_TASK_PUSH_TICKET, PYGEN_NEXT,
    PYGEN_RETURN, PyErr_SetObject, PyExc_StopIteration, PyObject, PyObject_GC_IsTracked,
    PyObject_GC_Track, PyObject_IS_GC, PyTypeObject, Py_DECREF, Py_INCREF, np_task, np_task_claim,
    np_task_finish, np_task_is_queued, np_task_lane, np_task_revoke, np_task_set_lane, np_task_wake)
from netpoll._native.failing cimport reraise
from netpoll._native.limits cimport INHERIT_MAX_COUNT
from netpoll._native.sched.c cimport (
    np_flag_get, np_flag_set, np_lock_drop, np_lock_take, np_sched_get, np_sched_live_add,
    np_sched_push, np_thread_worker, np_thread_worker_set, np_worker_get, np_worker_push)
from netpoll._native.seal cimport seal_types

import asyncio
import os
from _thread import allocate_lock


cdef object CancelledError = asyncio.CancelledError
cdef object running_loop = asyncio._get_running_loop
cdef tuple LANE_NAMES = ("CONTROL", "HIGH", "NORMAL", "LOW")


cdef str shown(object thing):
    """Its repr; who tells of a failure must not fail at that."""
    try:
        return repr(thing)
    except Exception:
        return object.__repr__(thing)


# ---- the scheduler, as tasks know it ----------------------------------------------------------

# Counts forks: the threads of a scheduler stay behind in the parent.
cdef uint32_t fork_count = 0


def _after_fork_in_child():
    global fork_count
    fork_count += 1


os.register_at_fork(after_in_child=_after_fork_in_child)


cdef uint32_t forks() noexcept:
    return fork_count


cdef Worker *thread_worker() noexcept:
    """What the calling thread works for, or NULL."""
    return <Worker*>np_thread_worker()


cdef void set_thread_worker(Worker *worker) noexcept:
    np_thread_worker_set(worker)


cdef class Core:
    cdef int check_usable(self) except -1:
        if self.fork_generation != fork_count:
            raise RuntimeError("this scheduler was made before a fork: its threads are the "
                               "parent's; make a new one in the child")
        return self.check_made()

    cdef int check_made(self) except -1:
        if self.sched is NULL:
            raise RuntimeError("Scheduler.__init__ was not called")
        return 0

    cdef Worker *worker_here(self) noexcept:
        """The calling thread's worker, if it is one of this scheduler's."""
        cdef Worker *worker = <Worker*>np_thread_worker()
        if worker is not NULL and worker.core is <PyObject*>self:
            return worker
        return NULL


# ---- what tasks wait for ----------------------------------------------------------------------

cdef class Suspension:
    cdef int attach(self, Task waiter) except -1:
        """Keeps the waiter, to wake it; or returns 1 when there is nothing to wait for."""
        return 1

    cdef int detach(self, Task waiter) except -1:
        """The waiter waits for it no more."""
        return 0


cdef object asked(Suspension what, bint *is_asked):
    """What an await gives to the task. Who only iterates would get it without end."""
    if is_asked[0]:
        raise RuntimeError(
            f"{type(what).__name__.lower()} can only be awaited in a task of a Scheduler")
    is_asked[0] = True
    return what


cdef class Join(Suspension):
    """Awaited, it waits until a task is done, however it ends."""
    cdef Task task
    cdef bint is_asked

    def __cinit__(self, Task task):
        self.task = task

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if np_flag_get(&self.task.is_done):
            raise StopIteration
        return asked(self, &self.is_asked)

    cdef int attach(self, Task waiter) except -1:
        self.is_asked = False
        return self.task.attach(waiter)

    cdef int detach(self, Task waiter) except -1:
        return self.task.detach(waiter)


# ---- tasks ------------------------------------------------------------------------------------

cdef class Task(Suspension):
    """What spawn() returns: a function's or coroutine's run, its result, and its cancellation."""

    @property
    def priority(self):
        """The task's own priority, 0 (CONTROL) to 3 (LOW); it may run at a higher, inherited one.
        """
        return <int>self.base_lane

    @property
    def effective_priority(self):
        """The priority that it runs at: its own, or that of a task that awaits it."""
        return <int>np_task_lane(&self.node)

    @property
    def name(self):
        return self.task_name if self.task_name is not None else f"Task-{id(self):x}"

    @property
    def scheduler(self):
        return self.core

    def __repr__(self):
        state = "pending"
        if np_flag_get(&self.is_done):
            state = "done"
            if self.error is not None:
                is_cancelled = isinstance(self.error, CancelledError)
                state = "cancelled" if is_cancelled else f"failed {shown(self.error)}"
        lane = LANE_NAMES[np_task_lane(&self.node)]
        return f"<netpoll.Task {self.name} {lane} {state}>"

    def __del__(self):
        if (self.error is not None and not self.is_retrieved
                and not isinstance(self.error, CancelledError)):
            self.core._report({
                "message": "Task exception was never retrieved",
                "exception": self.error, "task": self})

    def done(self):
        """Whether it has a result, an exception, or was cancelled. From any thread."""
        return bool(np_flag_get(&self.is_done))

    def cancelled(self):
        return bool(np_flag_get(&self.is_done)) and isinstance(self.error, CancelledError)

    def set_priority(self, int priority):
        """Changes the priority, also while the task is queued. From any thread."""
        check_lane(priority)
        cdef int before = np_task_lane(&self.node)
        self.base_lane = priority
        if priority < before:
            raise_lane(self, priority)
        else:
            np_task_set_lane(&self.node, priority)

    def cancelling(self):
        """How many cancel() calls have not been taken back by uncancel()."""
        return self.cancel_requests

    def uncancel(self):
        """Takes one cancel() back: for code that has handled the CancelledError."""
        with cython.critical_section(self):
            if self.cancel_requests:
                self.cancel_requests -= 1
                if not self.cancel_requests:
                    self.must_cancel = False
            return self.cancel_requests

    def cancel(self, msg=None):
        """Ends the task: one that has not begun never will; a coroutine gets CancelledError where
        it waits; a function that runs is not stopped. From any thread.

        Returns False when the task is done already.
        """
        cdef Suspension waiting_on = None
        if np_task_revoke(&self.node):
            if self.is_coroutine:
                self.target.close()     # or it would warn that it was never awaited
            finish(self, None, CancelledError() if msg is None else CancelledError(msg))
            return True
        with cython.critical_section(self):
            if self.is_done:
                return False
            self.cancel_requests += 1
            self.must_cancel = True
            self.cancel_message = msg
            waiting_on = self.waiting_on
            self.waiting_on = None
        if waiting_on is not None:
            waiting_on.detach(self)
        wake_task(self)
        return True

    def add_done_callback(self, fn):
        """Calls fn(task) when the task is done, in the thread that ends it; at once if it is."""
        if add_waiter(self, fn):
            fn(self)

    def remove_done_callback(self, fn):
        """Returns how many were removed."""
        return remove_waiter(self, fn)

    def result(self, timeout=None):
        """The result; waits for it up to `timeout` seconds, or without end.

        Raises the task's exception, CancelledError if it was cancelled, TimeoutError, and
        RuntimeError in a task of the same scheduler, whose worker it would block: await it there.
        """
        self.wait_done(timeout)
        return outcome(self)

    def exception(self, timeout=None):
        """The exception that ended the task, or None. Waits and raises as result() does."""
        self.wait_done(timeout)
        self.is_retrieved = True
        if isinstance(self.error, CancelledError):
            raise self.error
        return self.error

    cdef int wait_done(self, timeout) except -1:
        if np_flag_get(&self.is_done):
            return 0
        if self.core.worker_here() is not NULL:
            raise RuntimeError(
                "result() of a task that is not done would block its own scheduler's worker; "
                "make the caller a coroutine and await the task")
        self.core.check_usable()
        if self.core.sched.config.is_virtual:
            self.core._run_until_done(self)     # nobody else would
            return 0
        lock = allocate_lock()
        lock.acquire()

        def release(_task):
            lock.release()

        if add_waiter(self, release):
            return 0
        try:
            acquired = lock.acquire() if timeout is None else lock.acquire(True, max(timeout, 0))
        finally:
            remove_waiter(self, release)
        if not acquired:
            raise TimeoutError(f"{self!r} was not done within {timeout} s")
        return 0

    def __await__(self):
        return self

    def __iter__(self):
        """As of asyncio's: once what to wait for. Who only iterates would get it without end."""
        if not np_flag_get(&self.is_done):
            yield self.__next__()
            if not np_flag_get(&self.is_done):
                raise RuntimeError("a Task can be awaited, but not iterated over")
        return outcome(self)

    def __next__(self):
        cdef PyObject *result = NULL
        if task_am_send(<PyObject*>self, NULL, &result) == PYGEN_NEXT:
            value = <object>result
            Py_DECREF(result)
            return value
        value = <object>result
        Py_DECREF(result)
        if isinstance(value, (tuple, BaseException)):
            value = StopIteration(value)  # else it would be taken for the arguments
        PyErr_SetObject(PyExc_StopIteration, <PyObject*>value)
        reraise()

    cdef int attach(self, Task waiter) except -1:
        if self is waiter:
            raise RuntimeError(f"{self!r} cannot wait for itself")
        if add_waiter(self, waiter):
            return 1
        raise_lane(self, np_task_lane(&waiter.node))
        return 0

    cdef int detach(self, Task waiter) except -1:
        remove_waiter(self, waiter)
        return 0


cdef int task_am_send(PyObject *self, PyObject *value, PyObject **out) except -1:
    """The slot that an await uses: the result, or what to wait for."""
    cdef Task task = <Task>self
    cdef Worker *worker
    out[0] = NULL
    if np_flag_get(&task.is_done):
        result = outcome(task)
        Py_INCREF(<PyObject*>result)
        out[0] = <PyObject*>result
        return PYGEN_RETURN
    worker = thread_worker()
    loop = running_loop()
    if (worker is not NULL and worker.task is not NULL
            and (loop is None or <PyObject*>loop is worker.loop)):
        Py_INCREF(self)
        out[0] = self
    elif loop is not None:
        future = loop_future(task, loop)
        Py_INCREF(<PyObject*>future)
        out[0] = <PyObject*>future
    else:
        raise RuntimeError("a Task is awaited by a task or in an event loop; "
                           "elsewhere call its result()")
    return PYGEN_NEXT


(<PyTypeObject*>Task).tp_as_async.am_send = <void*>task_am_send


cdef object loop_future(Task task, loop):
    """For a task of an event loop: a future of that loop that ends with `task`."""
    future = loop.create_future()

    def in_loop():
        if not future.done():
            future.set_result(None)

    def when_done(_task):
        try:
            loop.call_soon_threadsafe(in_loop)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits in it any more

    future.add_done_callback(lambda _future: remove_waiter(task, when_done))
    if add_waiter(task, when_done):
        in_loop()
    future._asyncio_future_blocking = True
    return future


cdef inline object outcome(Task task):
    """The result of a task that is done; or raises its exception."""
    if task.error is None:
        return task.result_value
    task.is_retrieved = True
    raise task.error


cdef int add_waiter(Task task, object waiter) except -1:
    """1: the task is done, and nothing was added."""
    with cython.critical_section(task):
        if task.is_done:
            return 1
        if task.waiters is None:
            task.waiters = waiter
        elif type(task.waiters) is list:
            (<list>task.waiters).append(waiter)
        else:
            task.waiters = [task.waiters, waiter]
    return 0


cdef int remove_waiter(Task task, object waiter) except -1:
    cdef list before, kept
    with cython.critical_section(task):
        if type(task.waiters) is list:
            before = <list>task.waiters
            kept = [w for w in before if w is not waiter]
            if task.waiters is before:  # else it is done meanwhile
                task.waiters = kept
            return <int>(len(before) - len(kept))
        if task.waiters is waiter and waiter is not None:
            task.waiters = None
            return 1
    return 0


cdef int notify_waiter(Task task, object waiter) except -1:
    if type(waiter) is Task:
        return wake_task(<Task>waiter)
    try:
        waiter(task)
    except BaseException as exc:
        task.core._report({"message": f"a done callback of {task!r} failed",
                           "exception": exc, "task": task})
    return 0


cdef int notify_all(Task task, list waiters) except -1:
    """One that fails, for the exception handler has raised, does not keep the others waiting."""
    cdef object failed = None
    for waiter in waiters:
        try:
            notify_waiter(task, waiter)
        except BaseException as exc:
            failed = exc if failed is None else failed
    if failed is not None:
        raise failed
    return 0


cdef int finish(Task task, object result, object exception) except -1:
    """The task ends here, once; who waits for it is woken."""
    cdef object waiters
    if task.is_done:
        return 0
    if NP_HAS_GIL and (exception is not None or PyObject_IS_GC(<PyObject*>result)) \
            and not PyObject_GC_IsTracked(<PyObject*>task):
        # From now on it can be garbage, in a cycle through its result: new_task, sched/post.pyx.
        PyObject_GC_Track(<PyObject*>task)
    with cython.critical_section(task):
        task.result_value = result
        task.error = exception
        task.waiting_on = None
        waiters = task.waiters
        task.waiters = None
        np_flag_set(&task.is_done)
    np_task_finish(&task.node)
    task.target = task.arguments = task.context = None
    if task.is_registered:
        unregister(task)
    np_sched_live_add(task.core.sched, -1)  # before anybody hears of it: stats() shows it
    if type(waiters) is list:
        return notify_all(task, <list>waiters)
    return 0 if waiters is None else notify_waiter(task, waiters)


# ---- queueing ---------------------------------------------------------------------------------

cdef int check_lane(long lane) except -1:
    if not 0 <= lane < NP_LANES:
        raise ValueError(f"priority must be a Priority, 0 (CONTROL) to 3 (LOW), not {lane}")
    return 0


cdef int push_record(Core core, np_task *task) noexcept:
    """Of a task that is alive: it can be queued in a stopping scheduler, too."""
    cdef Worker *worker = core.worker_here()
    if worker is not NULL:
        np_worker_push(worker.native, task)
    else:
        np_sched_push(core.sched, task)
    return 0


cdef int push_ticket(Task task) except -1:
    """A second entry for a task: in the lane that it has now."""
    cdef Worker *worker = task.core.worker_here()
    cdef np_task *ticket = (np_worker_get(worker.native) if worker is not NULL
                            else np_sched_get(task.core.sched))
    if ticket is NULL:
        raise MemoryError
    Py_INCREF(<PyObject*>task)
    ticket.kind = KIND_TICKET
    ticket.run = <void*>task
    ticket.home = task.node.home
    np_task_set_lane(ticket, np_task_lane(&task.node))
    return push_record(task.core, ticket)


cdef int push_entry(Task task, int verdict) except -1:
    """What np_task_wake and np_task_pause ask for."""
    if verdict == NP_TASK_PUSH:
        Py_INCREF(<PyObject*>task)
        task.node.flags = np_task_lane(&task.node)
        push_record(task.core, &task.node)
    elif verdict == NP_TASK_PUSH_TICKET:
        push_ticket(task)
    return 0


cdef int wake_task(Task task) except -1:
    return push_entry(task, np_task_wake(&task.node))


cdef int raise_lane(Task task, int lane) except -1:
    """Priority inheritance: the task, what it waits for, what that waits for, and so on."""
    cdef int _step
    for _step in range(INHERIT_MAX_COUNT):
        if np_task_lane(&task.node) <= lane:
            return 0
        np_task_set_lane(&task.node, lane)
        if np_task_is_queued(&task.node):
            push_ticket(task)
        with cython.critical_section(task):
            waiting_on = task.waiting_on
        if type(waiting_on) is Join:
            task = (<Join>waiting_on).task
        elif type(waiting_on) is Task:
            task = <Task>waiting_on
        else:
            return 0
    return 0


# The registry: tasks that have waited. A queue holds a queued task, its worker a running one; one
# that waits is held by what it waits for, and by this list, so that shutdown finds it.

cdef int register(Task task) except -1:
    cdef Core core = task.core
    Py_INCREF(<PyObject*>task)
    task.is_registered = True
    np_lock_take(&core.registry_lock)
    task.registry_next = core.registry
    if core.registry is not NULL:
        (<Task>core.registry).registry_previous = <PyObject*>task
    core.registry = <PyObject*>task
    np_lock_drop(&core.registry_lock)
    return 0


cdef int unregister(Task task) except -1:
    cdef Core core = task.core
    np_lock_take(&core.registry_lock)
    if task.registry_previous is not NULL:
        (<Task>task.registry_previous).registry_next = task.registry_next
    else:
        core.registry = task.registry_next
    if task.registry_next is not NULL:
        (<Task>task.registry_next).registry_previous = task.registry_previous
    np_lock_drop(&core.registry_lock)
    task.registry_next = task.registry_previous = NULL
    task.is_registered = False
    Py_DECREF(<PyObject*>task)
    return 0


cdef void show_suspended(Core core) noexcept:
    """Before a worker sleeps: the collector may look at tasks that wait. A scheduler that nobody
    else refers to is garbage then, and they with it. New ones are in front of those shown."""
    cdef PyObject *task
    if not NP_HAS_GIL:
        return  # new_task has hidden none
    np_lock_take(&core.registry_lock)
    task = core.registry
    while task is not NULL and not PyObject_GC_IsTracked(task):
        PyObject_GC_Track(task)
        task = (<Task>task).registry_next
    np_lock_drop(&core.registry_lock)


cdef bint claim_suspended(Task task) noexcept:
    """Whether it waits: then nobody wakes it, or runs it, from now on."""
    cdef int verdict = np_task_wake(&task.node)
    return verdict != NP_TASK_LEAVE and np_task_claim(&task.node, verdict == NP_TASK_PUSH)


cdef int end_suspended(Task task) except -1:
    """A task that was claimed: it gets no further. asyncio's end likewise, with their loop."""
    cdef Suspension waiting_on
    with cython.critical_section(task):
        waiting_on = task.waiting_on
        task.waiting_on = None
    try:
        if waiting_on is not None:
            waiting_on.detach(task)
        if task.is_coroutine:
            task.target.close()
    except BaseException as exc:
        task.core._report({"message": f"{task!r} did not end with its scheduler",
                           "exception": exc, "task": task})
    return finish(task, None, CancelledError("its scheduler was dropped without close()"))


def current_task():
    """The Task that runs in this thread, or None."""
    cdef Worker *worker = thread_worker()
    if worker is NULL or worker.task is NULL:
        return None
    return <object>worker.task


def current_scheduler():
    """The Scheduler that this thread works for, or None."""
    cdef Worker *worker = thread_worker()
    return None if worker is NULL else <object>worker.core


seal_types(globals(), (Join,))
