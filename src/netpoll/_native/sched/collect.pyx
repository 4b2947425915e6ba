# cython: language_level=3, freethreading_compatible=True
"""What a scheduler refers to while all its workers sleep, for the collector (loop/collect.pxd).

    a worker's thread ─► scheduler ─► tasks that have waited ─► coroutines ─► ... ─► scheduler
                                   ─► the heap of alarms ─► sleeps, time-outs ─► tasks
                                   ─► contexts that posts share

A worker holds the scheduler. While it sleeps, that is one reference which the scheduler owns, so to
say: when there is no other, nobody can give it work any more. Its __del__ then warns, ends what
waits, and the workers (SchedulerCore._abandon). While a worker runs, its scheduler is in use.
"""

from netpoll._native.c cimport PyObject, traverseproc, visitproc
from netpoll._native.loop.collect cimport replace_traverse
from netpoll._native.sched.alarm cimport timed_place
from netpoll._native.sched.run cimport SchedulerCore
from netpoll._native.sched.task cimport Task, Worker

from libc.stdint cimport uint32_t


cdef bint is_asleep(PyObject *core) noexcept:
    cdef Worker *worker
    cdef uint32_t i
    for i in range((<SchedulerCore>core).workers_count):
        worker = &(<SchedulerCore>core).workers[i]
        if worker.has_thread and not worker.is_idle:
            return False
    return not (<SchedulerCore>core).is_abandoned


cdef int visit_contexts(PyObject *core, visitproc visit, void *arg) noexcept:
    cdef PyObject *context = (<SchedulerCore>core).posted
    cdef uint32_t i
    cdef int err = 0
    if context is not NULL:
        err = visit(context, arg)
    for i in range((<SchedulerCore>core).workers_count):
        context = (<SchedulerCore>core).workers[i].contexts.posted
        if err == 0 and context is not NULL:
            err = visit(context, arg)
    return err


cdef int visit_waiting(PyObject *core, visitproc visit, void *arg) noexcept:
    cdef PyObject *task
    cdef uint32_t i
    cdef int err = 0
    for i in range((<SchedulerCore>core).workers_count):
        if err == 0 and (<SchedulerCore>core).workers[i].is_idle:
            err = visit(core, arg)
    task = (<SchedulerCore>core).registry
    while err == 0 and task is not NULL:
        err = visit(task, arg)
        task = (<Task>task).registry_next
    for i in range((<SchedulerCore>core).sched.alarms.heap.count):
        if err == 0:
            err = visit(timed_place((<SchedulerCore>core).sched.alarms.heap.slots[i].timer), arg)
    return err


cdef int traverse_core(PyObject *core, visitproc visit, void *arg) noexcept:
    cdef int err = 0
    if (<SchedulerCore>core).sched is not NULL:
        err = visit_contexts(core, visit, arg)
        if err == 0 and is_asleep(core):
            err = visit_waiting(core, visit, arg)
    return err if err else generated_core(core, visit, arg)


cdef traverseproc generated_core = replace_traverse(SchedulerCore, traverse_core)
