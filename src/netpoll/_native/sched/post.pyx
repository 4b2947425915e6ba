# cython: language_level=3, freethreading_compatible=True
"""post and spawn: what puts something to run into a scheduler, from any thread.

They are vectorcall methods of SchedulerCore (PEP 590), added when this module is imported: their
arguments stay on the caller's stack.
"""

cimport cython
from libc.stdint cimport uint32_t

from netpoll._native.c cimport (
    NP_HAS_GIL, NP_HOME_ANY, NP_LANE_NORMAL, PyCoro_CheckExact, PyMethodDef, PyObject,
    PyObject_GC_UnTrack, PyTuple_GET_ITEM, PyTuple_GET_SIZE, Py_DECREF, Py_INCREF, Py_XDECREF,
    np_task, np_task_init, np_task_set_lane, np_task_wake)
from netpoll._native.methods cimport add_method
from netpoll._native.sched.c cimport (
    np_sched_get, np_sched_live_add, np_sched_offer, np_sched_put, np_worker_get, np_worker_push)
from netpoll._native.sched.context cimport shared_context
from netpoll._native.sched.run cimport (
    ARGUMENTS_NONE, ARGUMENTS_ONE, ARGUMENTS_TUPLE, SchedulerCore)
from netpoll._native.sched.task cimport KIND_POST, KIND_TASK, Task, Worker, check_lane, forks


cdef struct Options:
    int lane
    uint32_t home
    PyObject *name


cdef int read_options(SchedulerCore self, PyObject *const *values, PyObject *kwnames,
                      bint is_spawn, Options *options) except -1:
    cdef Py_ssize_t i
    cdef long value
    for i in range(PyTuple_GET_SIZE(<object>kwnames)):
        key = <object>PyTuple_GET_ITEM(<object>kwnames, i)
        if key == "priority":
            value = <object>values[i]
            check_lane(value)
            options.lane = value
        elif is_spawn and key == "affinity":
            if <object>values[i] is None:
                continue
            value = <object>values[i]
            if not 0 <= value < self.workers_count:
                raise ValueError(f"affinity must be the index of a worker, 0 to "
                                 f"{self.workers_count - 1}, not {value}")
            options.home = <uint32_t>value
        elif is_spawn and key == "name":
            options.name = values[i]
        else:
            raise TypeError(f"unexpected keyword argument {key!r}; pass it with functools.partial "
                            "if it is the function's")
    return 0


cdef inline object stack_tuple(PyObject *const *args, Py_ssize_t count):
    return tuple([<object>args[i] for i in range(count)])


cdef int stopped(str doing) except -1:
    raise RuntimeError(f"cannot {doing}: the scheduler has been shut down")


cdef object context_here(SchedulerCore core, Worker *worker):
    if worker is not NULL:
        return shared_context(&worker.contexts.posted)
    with cython.critical_section(core):
        return shared_context(&core.posted)


cdef int post_record(SchedulerCore self, PyObject *const *args, Py_ssize_t count,
                     int lane) except -1:
    cdef Worker *worker = self.worker_here()
    cdef object context = context_here(self, worker)
    cdef object argument = None
    cdef np_task *record
    if count > 2:
        argument = stack_tuple(args + 1, count - 1)
    record = np_worker_get(worker.native) if worker is not NULL else np_sched_get(self.sched)
    if record is NULL:
        raise MemoryError("no memory for a task")
    record.kind = KIND_POST
    record.home = NP_HOME_ANY
    np_task_set_lane(record, lane)
    record.run = args[0]
    record.context = <void*>context
    record.argument = NULL
    record.flags = ARGUMENTS_NONE
    if count == 2:
        record.flags = ARGUMENTS_ONE
        record.argument = args[1]
    elif count > 2:
        record.flags = ARGUMENTS_TUPLE
        record.argument = <void*>argument
    Py_INCREF(args[0])
    Py_INCREF(<PyObject*>context)
    if record.argument is not NULL:
        Py_INCREF(<PyObject*>record.argument)
    if worker is not NULL:
        np_worker_push(worker.native, record)
    elif np_sched_offer(self.sched, record) < 0:
        Py_DECREF(args[0])
        Py_DECREF(<PyObject*>context)
        Py_XDECREF(<PyObject*>record.argument)
        np_sched_put(self.sched, record)
        stopped("post")
    return 0


cdef PyObject *post(PyObject *core, PyObject *const *args, Py_ssize_t count,
                    PyObject *kwnames) except NULL:
    cdef SchedulerCore self = <SchedulerCore>core
    cdef Options options
    options.lane = NP_LANE_NORMAL
    if self.sched is NULL or self.fork_generation != forks():
        self.check_usable()
    if kwnames is not NULL:
        read_options(self, args + count, kwnames, False, &options)
    if count < 1:
        raise TypeError("post() missing 1 required positional argument: 'fn'")
    if not callable(<object>args[0]):
        raise TypeError(f"post() takes a function, not {<object>args[0]!r}; a coroutine is for "
                        "spawn()")
    post_record(self, args, count, options.lane)
    Py_INCREF(<PyObject*>None)
    return <PyObject*>None


cdef Task new_task(SchedulerCore self, Worker *worker, PyObject *const *args, Py_ssize_t count,
                   Options *options):
    cdef Task task = Task.__new__(Task)
    cdef object target = <object>args[0]
    # A task that is not done is held by a queue, its worker or the registry: it cannot be garbage,
    # and the collector need not look at it. With 10^6 of them that was a third of all time. Without
    # a GIL the collector visits untracked objects all the same, and comes the more often the fewer
    # tracked ones it finds: there it was a sixth of all time to hide them.
    if NP_HAS_GIL:
        PyObject_GC_UnTrack(<PyObject*>task)
    np_task_init(&task.node, KIND_TASK, options.lane)
    task.node.run = <void*>task
    task.node.home = options.home
    task.node.flags = options.lane
    task.base_lane = options.lane
    task.core = self
    if options.name is not NULL:
        task.task_name = <object>options.name
    if PyCoro_CheckExact(args[0]):
        if count > 1:
            raise TypeError("a coroutine has its arguments already; pass the coroutine function "
                            "to give them here")
        task.is_coroutine = True
    elif not callable(target):
        raise TypeError(f"spawn() takes a function, a coroutine function or a coroutine, not "
                        f"{target!r}")
    elif count > 1:
        task.arguments = stack_tuple(args + 1, count - 1)
    task.target = target
    task.context = context_here(self, worker)
    return task


cdef PyObject *spawn(PyObject *core, PyObject *const *args, Py_ssize_t count,
                     PyObject *kwnames) except NULL:
    cdef SchedulerCore self = <SchedulerCore>core
    cdef Worker *worker = self.worker_here()
    cdef Options options
    cdef Task task
    options.lane = NP_LANE_NORMAL
    options.home = NP_HOME_ANY
    options.name = NULL
    if self.sched is NULL or self.fork_generation != forks():
        self.check_usable()
    if kwnames is not NULL:
        read_options(self, args + count, kwnames, True, &options)
    if count < 1:
        raise TypeError("spawn() missing 1 required positional argument: 'target'")
    task = new_task(self, worker, args, count, &options)
    np_sched_live_add(self.sched, 1)
    np_task_wake(&task.node)
    Py_INCREF(<PyObject*>task)      # the queue's
    if worker is not NULL:
        np_worker_push(worker.native, &task.node)
    elif np_sched_offer(self.sched, &task.node) < 0:
        Py_DECREF(<PyObject*>task)
        np_sched_live_add(self.sched, -1)
        stopped("spawn")
    Py_INCREF(<PyObject*>task)
    return <PyObject*>task


cdef PyMethodDef post_def
cdef PyMethodDef spawn_def


add_method(
    SchedulerCore, &post_def, "post", <void*>post,
    "post($self, fn, /, *args, priority=Priority.NORMAL)\n--\n\n"
    "Runs fn(*args) in a worker; there is no result. From any thread.\n\n"
    "An exception goes to the scheduler's exception handler. Raises RuntimeError after close().")
add_method(
    SchedulerCore, &spawn_def, "spawn", <void*>spawn,
    "spawn($self, target, /, *args, priority=Priority.NORMAL, affinity=None, name=None)\n--\n\n"
    "Runs target(*args), or the coroutine `target`, in a worker; returns its Task. From any thread."
    "\n\naffinity: the index of the only worker that may run it.")
