# The seam of sched/context.pyx: which context variables a task runs with.

from netpoll._native.c cimport PyObject


cdef struct Contexts:
    PyObject *posted    # a context that posts share while the poster's variables do not change
    PyObject *snapshot  # what `entered` is a copy of; NULL: it is a task's own
    PyObject *entered   # NULL: none


cdef object shared_context(PyObject **shared)
cdef int enter_snapshot(Contexts *contexts, PyObject *snapshot) except -1
cdef int enter_own(Contexts *contexts, object context) except -1
cdef int leave_context(Contexts *contexts) except -1
cdef bint is_context_changed(Contexts *contexts) noexcept
