# cython: language_level=3, freethreading_compatible=True
"""Running tasks: what a worker does per task. What runs once per scheduler is in sched.py.

    post, spawn ─► record ─► csrc/sched/np_sched.c ─► run_batch (GIL) ─► run_posted, run_task
                                  ▲                                     │ suspended: whoever is
                                  └──────── wake_task ◄─────────────────┘ awaited wakes it

A worker takes the GIL once and runs what is queued; it gives it up when nothing is, and now and
then for others.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from netpoll._native.c cimport (
    NP_HOME_ANY, NP_LANES, PYGEN_ERROR, PYGEN_NEXT, PYGEN_RETURN, PyCoro_CheckExact, PyIter_Send,
    PyObject, PyObject_Call, PyObject_CallNoArgs, PyObject_CallOneArg, PySendResult, Py_DECREF,
    Py_INCREF, Py_XDECREF, np_task, np_task_claim, np_task_is_queued, np_task_lane, np_task_pause,
    np_task_wake)
from netpoll._native.failing cimport reraise
from netpoll._native.limits cimport SLICE_COUNT
from netpoll._native.sched.alarm cimport fire_alarms
from netpoll._native.sched.c cimport (
    NP_ALARM_NEVER_NS, NP_IDLE_STOP, NP_WAIT_BUCKETS, NP_WORKERS_MAX_COUNT, np_alarms_next_ns,
    np_lock_drop, np_lock_take, np_sched_close, np_sched_config, np_sched_injected_count,
    np_sched_live_count, np_sched_now_ns, np_sched_offer, np_sched_open, np_sched_records_count,
    np_sched_set_clock, np_sched_stop, np_worker, np_worker_end, np_worker_idle, np_worker_next,
    np_worker_numbers, np_worker_push, np_worker_put, np_worker_queued_count, np_worker_read_stats,
    np_worker_steal, np_worker_was_stale)
from netpoll._native.sched.context cimport (
    enter_own, enter_snapshot, is_context_changed, leave_context)
from netpoll._native.sched.home cimport enter_loop, is_still_waiting, leave_loop, wait_for_future
from netpoll._native.sched.task cimport (
    KIND_NATIVE, KIND_POST, KIND_TASK, KIND_TICKET, Core, Suspension, Task, Worker,
    claim_suspended, end_suspended, finish, forks, push_entry, register, set_thread_worker,
    show_suspended, thread_worker)
from netpoll._native.seal cimport seal_types

import asyncio
import sys


cdef object CancelledError = asyncio.CancelledError
cdef object set_running_loop = asyncio._set_running_loop
cdef tuple LANE_NAMES = ("CONTROL", "HIGH", "NORMAL", "LOW")


# ---- running ----------------------------------------------------------------------------------

cdef inline object call(PyObject *fn, PyObject *arguments, int form):
    cdef PyObject *result
    if form == ARGUMENTS_NONE:
        result = PyObject_CallNoArgs(fn)
    elif form == ARGUMENTS_ONE:
        result = PyObject_CallOneArg(fn, arguments)
    else:
        result = PyObject_Call(fn, arguments, NULL)
    if result is NULL:
        reraise()
    value = <object>result
    Py_DECREF(result)
    return value


cdef int run_posted(SchedulerCore core, Worker *worker, np_task *record) except -1:
    """A posted function. The record goes back first: the function may post the next one."""
    cdef PyObject *fn = <PyObject*>record.run
    cdef PyObject *argument = <PyObject*>record.argument
    cdef PyObject *snapshot = <PyObject*>record.context
    cdef int form = record.flags
    np_worker_put(worker.native, record)
    try:
        if not core.is_cancelling:
            enter_snapshot(&worker.contexts, snapshot)
            call(fn, argument, form)
    except BaseException as exc:
        core._report({"message": "a posted function failed", "exception": exc,
                      "callback": <object>fn})
    finally:
        Py_DECREF(fn)
        Py_XDECREF(argument)
        Py_DECREF(snapshot)
        if worker.contexts.entered is not NULL and is_context_changed(&worker.contexts):
            leave_context(&worker.contexts)
    return 0


cdef int keep_context(Worker *worker, Task task) except -1:
    """After a step: variables that the task has set are its own from now on."""
    if worker.contexts.entered is NULL:
        return 0
    if not task.owns_context and is_context_changed(&worker.contexts) and not task.is_done:
        task.context = <object>worker.contexts.entered
        task.owns_context = True
    if task.owns_context or is_context_changed(&worker.contexts):
        leave_context(&worker.contexts)
    return 0


cdef int begin(Task task) except -1:
    """A function's call. What a coroutine function returns is driven as a coroutine."""
    cdef object target = task.target
    cdef object arguments = task.arguments
    task.target = task.arguments = None
    if arguments is None:
        value = call(<PyObject*>target, NULL, ARGUMENTS_NONE)
    else:
        value = call(<PyObject*>target, <PyObject*>arguments, ARGUMENTS_TUPLE)
    if PyCoro_CheckExact(<PyObject*>value):
        task.target = value
        task.is_coroutine = True
    else:
        finish(task, value, None)
    return 0


cdef object take_cancel(Task task):
    """The exception that a cancel() has asked for."""
    with cython.critical_section(task):
        task.must_cancel = False
        message = task.cancel_message
    return CancelledError() if message is None else CancelledError(message)


cdef PySendResult throw_cancel(Task task, PyObject **value) except? PYGEN_ERROR:
    """One step of a coroutine, with CancelledError instead of a value."""
    try:
        yielded = task.target.throw(take_cancel(task))
    except StopIteration as stop:
        result = stop.value
        Py_INCREF(<PyObject*>result)
        value[0] = <PyObject*>result
        return PYGEN_RETURN
    Py_INCREF(<PyObject*>yielded)
    value[0] = <PyObject*>yielded
    return PYGEN_NEXT


cdef int step(Task task) except -1:
    """Runs the task until it ends or waits."""
    cdef PyObject *value = NULL
    cdef PySendResult sent
    if not task.is_coroutine:
        begin(task)
        if not task.is_coroutine:
            return 0
    if task.must_cancel:
        sent = throw_cancel(task, &value)
    else:
        sent = PyIter_Send(<PyObject*>task.target, <PyObject*>None, &value)
        if sent == PYGEN_ERROR:
            reraise()
    result = <object>value
    Py_DECREF(value)
    if sent == PYGEN_RETURN:
        finish(task, result, None)
    else:
        suspend(task, result)
    return 0


cdef int suspend(Task task, object awaited) except -1:
    if not task.is_registered:
        register(task)
        if (<SchedulerCore>task.core).is_cancelling:
            task.must_cancel = True     # the shutdown has not found it in the registry
    error = wait_for(task, awaited)
    while error is not None:    # the coroutine hears of it where it stands, and may go on there
        task.waiting_on = None
        try:
            awaited = task.target.throw(take_cancel(task) if task.must_cancel else error)
        except StopIteration as stop:
            return finish(task, stop.value, None)
        error = wait_for(task, awaited)
    return 0


cdef object wait_for(Task task, object awaited):
    """The task waits for this; or the reason why it cannot."""
    if awaited is None:     # a bare yield: back to the end of the queue
        np_task_wake(&task.node)
        return None
    if not isinstance(awaited, Suspension):
        suspension = wait_for_future(task, awaited)
        if suspension is None:
            return RuntimeError(
                f"a task of a Scheduler cannot await {awaited!r}; it can await tasks, sleep(), "
                "yield_now() and coroutines made of these. What belongs to an event loop is "
                "awaited in that loop, or in a task bound (affinity) to the worker whose loop it "
                "is")
        awaited = suspension
    with cython.critical_section(task):
        task.waiting_on = awaited
    try:
        if (<Suspension>awaited).attach(task):
            np_task_wake(&task.node)
        if task.must_cancel:
            # cancel() came before there was anything to detach, or between the two lines above.
            with cython.critical_section(task):
                task.waiting_on = None
            (<Suspension>awaited).detach(task)
            np_task_wake(&task.node)
    except Exception as exc:
        return exc
    return None


cdef int run_task(SchedulerCore core, Worker *worker, Task task) except -1:
    """One step of a claimed task."""
    cdef bint has_entered = False
    worker.task = <PyObject*>task
    if not task.has_begun:
        task.has_begun = True
        if core.is_cancelling:
            if task.is_coroutine:
                task.target.close()
            finish(task, None, CancelledError())
            worker.task = NULL
            return 0
    try:
        if task.waiting_on is not None and not resumes(task):
            worker.task = NULL
            push_entry(task, np_task_pause(&task.node))
            return 0
        if task.owns_context:
            enter_own(&worker.contexts, task.context)
        else:
            enter_snapshot(&worker.contexts, <PyObject*>task.context)
        if worker.loop is not NULL and task.node.home != NP_HOME_ANY:
            has_entered = True
            enter_loop(worker, task)
        step(task)
    except BaseException as exc:
        if task.is_done:
            raise  # not its own: the scheduler's exception handler, told of a callback's, raised it
        finish(task, None, exc)
    finally:
        worker.task = NULL
        if has_entered:
            leave_loop(worker, task)
    keep_context(worker, task)
    if not task.is_done:
        push_entry(task, np_task_pause(&task.node))
    return 0


cdef bint resumes(Task task) except -1:
    """A task that waited for something was woken: whether it goes on."""
    with cython.critical_section(task):
        if not task.must_cancel and is_still_waiting(task.waiting_on):
            return False
        task.waiting_on = None
    return True


cdef inline int dispatch(SchedulerCore core, Worker *worker, np_task *record) except -1:
    """Runs what an entry of a queue stands for."""
    cdef int kind = record.kind
    cdef PyObject *owner
    if kind == KIND_POST:
        return run_posted(core, worker, record)
    if kind == KIND_NATIVE:
        return (<NativeRun>record.run)(record)
    owner = <PyObject*>record.run
    if kind == KIND_TICKET:
        np_worker_put(worker.native, record)
    elif np_task_lane(record) > record.flags and np_task_is_queued(record):
        # It has lost priority since it was queued: it goes to the end of its new lane.
        record.flags = np_task_lane(record)
        np_worker_push(worker.native, record)
        np_worker_was_stale(worker.native)
        return 0
    try:
        if np_task_claim(&(<Task>owner).node, kind == KIND_TASK):
            run_task(core, worker, <Task>owner)
        else:
            np_worker_was_stale(worker.native)
    finally:
        Py_DECREF(owner)
    return 0


cdef int look_around(SchedulerCore core, Worker *worker) except -1:
    """Every SLICE_COUNT tasks: other threads get their turn at the interpreter's pace.

    Python functions give the GIL up by themselves when somebody waits for it; functions in C do
    not, and a free-threaded interpreter that stops its threads waits for them likewise.
    """
    cdef int64_t now_ns = np_sched_now_ns(core.sched)
    worker.slice_count = 0
    if now_ns >= core.slice_end_ns:
        with nogil:
            pass
        core.slice_end_ns = now_ns + <int64_t>(sys.getswitchinterval() * 1e9)
    return 0


cdef int run_batch(SchedulerCore core, Worker *worker) except -1:
    """Runs what is queued, until nothing is, or the worker is to go into a ring."""
    cdef np_task *record
    while not worker.is_boarding:
        if np_alarms_next_ns(&core.sched.alarms) != NP_ALARM_NEVER_NS:
            fire_alarms(core)
        record = np_worker_next(worker.native)
        if record is NULL:
            return 0
        dispatch(core, worker, record)
        worker.slice_count += 1
        if worker.slice_count >= SLICE_COUNT:
            look_around(core, worker)
    return 0


cdef int run_slice(SchedulerCore core, uint32_t index, uint32_t tasks_count,
                   int64_t time_ns) except -1:
    """A share of what is queued, for a worker that has a loop to turn, too: 1 if there is more."""
    cdef Worker *worker = &core.workers[index]
    cdef int64_t end_ns = 0
    cdef np_task *record
    try:
        while tasks_count:
            if np_alarms_next_ns(&core.sched.alarms) != NP_ALARM_NEVER_NS:
                fire_alarms(core)
            record = np_worker_next(worker.native)
            if record is NULL:
                return 0
            if not end_ns:
                # A task that may be stolen has no loop; one that is bound to the worker enters it.
                set_running_loop(None)
                end_ns = np_sched_now_ns(core.sched) + time_ns
            dispatch(core, worker, record)
            tasks_count -= 1
            if np_sched_now_ns(core.sched) >= end_ns:
                return 1
        return 1
    finally:
        if end_ns:
            leave_context(&worker.contexts)
            set_running_loop(<object>worker.loop)


# ---- the scheduler ----------------------------------------------------------------------------

cdef class SchedulerCore(Core):
    """The native half of netpoll.Scheduler (sched.py has the other)."""

    def _open(self, uint32_t workers_count, uint32_t deque_slots, seed, bint is_virtual,
              bint is_lazy):
        cdef np_sched_config config
        cdef unsigned long long seed_bits = seed & 0xFFFFFFFFFFFFFFFF
        cdef uint32_t i
        if self.sched is not NULL:
            raise RuntimeError("a Scheduler is made once")
        if not 1 <= workers_count <= NP_WORKERS_MAX_COUNT:
            raise ValueError(f"workers must be 1 to {NP_WORKERS_MAX_COUNT}, not {workers_count}")
        memset(&config, 0, sizeof(config))
        config.workers_count = workers_count
        config.deque_slots = deque_slots
        config.seed = seed_bits
        config.is_virtual = is_virtual
        config.is_lazy = is_lazy
        self.fork_generation = forks()
        self.workers = <Worker*>calloc(workers_count, sizeof(Worker))
        if self.workers is NULL or np_sched_open(&self.sched, &config) < 0:
            raise MemoryError("no memory for a scheduler")
        self.workers_count = workers_count
        for i in range(workers_count):
            self.workers[i].native = &self.sched.workers[i]
            self.workers[i].core = <PyObject*>self

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.workers_count):
            Py_XDECREF(self.workers[i].contexts.posted)
        Py_XDECREF(self.posted)
        free(self.workers)
        if self.sched is not NULL:
            np_sched_close(self.sched)

    cdef Worker *worker_at(self, uint32_t index, bint is_virtual) except NULL:
        """A worker of the kind that a method is for."""
        self.check_made()
        if index >= self.workers_count:
            raise IndexError(f"there are {self.workers_count} workers")
        if bool(self.sched.config.is_virtual) != is_virtual:
            raise RuntimeError("only virtual workers take steps; only others have threads")
        return &self.workers[index]

    cdef int push_native(self, np_task *task) noexcept:
        """Queues a record of KIND_NATIVE: 0, or -ESHUTDOWN."""
        cdef Worker *worker = self.worker_here()
        if worker is NULL:
            return np_sched_offer(self.sched, task)
        np_worker_push(worker.native, task)
        return 0

    # -- workers --------------------------------------------------------------------------------

    cdef int live(self, uint32_t index) except -1:
        """The life of worker `index`: the calling thread returns when the scheduler is stopped."""
        cdef Worker *worker = self.worker_at(index, False)
        cdef np_worker *native = worker.native
        cdef int found
        if worker.has_thread:
            raise RuntimeError("this worker has a thread already")
        worker.has_thread = True
        set_thread_worker(worker)
        try:
            while True:
                run_batch(self, worker)
                leave_context(&worker.contexts)
                if worker.is_boarding:
                    worker.is_boarding = False
                    self._live_in_loop(index)
                    continue
                show_suspended(self)
                worker.is_idle = True
                with nogil:
                    found = np_worker_idle(native)
                worker.is_idle = False
                if found == NP_IDLE_STOP:
                    if not self._has_unused_loop(index):
                        return 0
                    self._live_in_loop(index)
        finally:
            leave_context(&worker.contexts)
            set_thread_worker(NULL)
            np_worker_end(native)

    def _board(self, uint32_t index):
        """As a task of worker `index`: its loop is ready for it."""
        self.worker_at(index, False).is_boarding = True

    def _step(self, uint32_t index):
        """Virtual workers: runs at most one task as worker `index`; whether there was one."""
        cdef Worker *worker = self.worker_at(index, True)
        cdef Worker *before = thread_worker()
        cdef np_task *record
        if self.worker_here() is not NULL:
            raise RuntimeError("a task cannot turn its own scheduler: it would run within itself")
        set_thread_worker(worker)
        try:
            fire_alarms(self)
            record = np_worker_next(worker.native)
            if record is NULL and np_worker_steal(worker.native):
                record = np_worker_next(worker.native)
            if record is NULL:
                return False
            dispatch(self, worker, record)
            return True
        finally:
            leave_context(&worker.contexts)
            set_thread_worker(before)
            show_suspended(self)

    def _end_workers(self):
        """Virtual workers: as when their threads end."""
        cdef uint32_t i
        self.worker_at(0, True)
        for i in range(self.workers_count):
            np_worker_end(self.workers[i].native)

    def _now_ns(self):
        self.check_made()
        return np_sched_now_ns(self.sched)

    def _next_alarm_ns(self):
        """The earliest deadline, or None."""
        self.check_made()
        cdef int64_t next_ns = np_alarms_next_ns(&self.sched.alarms)
        return None if next_ns == NP_ALARM_NEVER_NS else next_ns

    def _set_clock_ns(self, int64_t now_ns):
        self.worker_at(0, True)
        np_sched_set_clock(self.sched, now_ns)

    def _stop(self, bint cancel):
        """No new work from outside; with `cancel`, what has not begun never will."""
        self.check_usable()
        self.is_stopped = True
        if cancel:
            self.is_cancelling = True
        np_sched_stop(self.sched)
        if cancel:
            for task in self._suspended():
                task.cancel()

    def _suspended(self):
        """The tasks that wait for something, or have: a list."""
        cdef PyObject *item
        found = []
        # References first, objects after: nothing may be called while the lock is held.
        cdef Py_ssize_t count = 0, i
        cdef PyObject **items
        np_lock_take(&self.registry_lock)
        item = self.registry
        while item is not NULL:
            count += 1
            item = (<Task>item).registry_next
        items = <PyObject**>calloc(count + 1, sizeof(PyObject*))
        if items is not NULL:
            item = self.registry
            for i in range(count):
                Py_INCREF(item)
                items[i] = item
                item = (<Task>item).registry_next
        np_lock_drop(&self.registry_lock)
        if items is NULL:
            raise MemoryError
        for i in range(count):
            found.append(<object>items[i])
            Py_DECREF(items[i])
        free(items)
        return found

    def _abandon(self):
        """Its last reference is gone, and all workers sleep: what waits for something ends here,
        by GeneratorExit, and then the workers. The number of these tasks; None: it was shut down,
        or is a parent process's."""
        cdef Task task
        cdef list claimed = []
        cdef uint32_t i
        cdef bint is_closed = self.is_stopped
        if self.sched is NULL or self.fork_generation != forks() or self.is_abandoned \
                or is_closed and np_sched_live_count(self.sched) == 0:
            return None
        self.is_abandoned = self.is_cancelling = True
        np_sched_stop(self.sched)
        for task in self._suspended():
            if claim_suspended(task):
                claimed.append(task)
            else:
                task.cancel()       # it has been woken: its worker tells it
        for task in claimed:        # when none can be woken any more
            end_suspended(task)
        if self.sched.config.is_virtual:
            for i in range(self.workers_count):
                while self._step(i):    # what has not begun is dropped
                    pass
            self._end_workers()
        return None if is_closed else len(claimed)

    def _live_count(self):
        self.check_made()
        return np_sched_live_count(self.sched)

    def _record_count(self):
        """Records in use; while workers run, also those in their caches."""
        self.check_made()
        return np_sched_records_count(self.sched)

    def _counters(self):
        """What stats() shows: (per worker dicts, injector's depth per lane)."""
        cdef np_worker_numbers numbers
        cdef uint32_t i
        cdef int lane, bucket
        self.check_made()
        workers = []
        for i in range(self.workers_count):
            np_worker_read_stats(self.workers[i].native, &numbers)
            workers.append({
                "executed": numbers.executed,
                "stolen": numbers.stolen,
                "parked": numbers.parked,
                "woken": numbers.woken,
                "overflowed": numbers.overflowed,
                "queued": {LANE_NAMES[lane]: np_worker_queued_count(self.workers[i].native, lane)
                           for lane in range(NP_LANES)},
                "wait_ns": {LANE_NAMES[lane]: [numbers.waits[lane][bucket]
                                               for bucket in range(NP_WAIT_BUCKETS)]
                            for lane in range(NP_LANES)},
            })
        injected = {LANE_NAMES[lane]: np_sched_injected_count(self.sched, lane)
                    for lane in range(NP_LANES)}
        return workers, injected


def work(list place, uint32_t index):
    """What a worker's thread runs. place: a list of the scheduler alone, which is taken out: the
    worker holds it by one reference, which the garbage collector is told of (sched/collect.pyx)."""
    cdef SchedulerCore core = place.pop()
    core.live(index)


seal_types(globals(), (SchedulerCore,))
