# cython: language_level=3, freethreading_compatible=True
"""Context variables of tasks, without a context for each of them.

Every task runs in a copy of its poster's context, as asyncio's callbacks do. A copy per task
would be more memory than the task itself, so posts share one as long as the poster's variables
are the same, and a worker stays in its copy until a task has changed a variable in it. "The same"
is one pointer: a context refers to an immutable map of its variables, and copies share that.
Where in the object it stands is found out here; if that fails, every task has its own copy.
"""

from netpoll._native.c cimport (
    PyContext_Copy, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit, PyObject, Py_DECREF,
    Py_INCREF, Py_XDECREF)

import contextvars
import gc


cdef Py_ssize_t find_variables_offset():
    cdef Py_ssize_t offset
    context = contextvars.Context()
    context.run(contextvars.ContextVar("netpoll").set, None)
    maps = [o for o in gc.get_referents(context) if type(o) is not contextvars.Context]
    if len(maps) != 1:
        return 0
    for offset in range(sizeof(void*), type(context).__basicsize__, sizeof(void*)):
        if (<void**>(<char*><void*>context + offset))[0] is <void*>maps[0]:
            return offset
    return 0


cdef Py_ssize_t VARIABLES_OFFSET = find_variables_offset()


cdef inline void *variables_of(PyObject *context) noexcept:
    return (<void**>(<char*>context + VARIABLES_OFFSET))[0]


cdef object shared_context(PyObject **shared):
    """A context to keep for a task: equal to the current one, never entered."""
    cdef object context = PyContext_CopyCurrent()
    cdef PyObject *before
    if VARIABLES_OFFSET:
        if (shared[0] is not NULL
                and variables_of(<PyObject*>context) is variables_of(shared[0])):
            return <object>shared[0]
        before = shared[0]
        Py_INCREF(<PyObject*>context)
        shared[0] = <PyObject*>context
        Py_XDECREF(before)      # which may run Python code, and the collector
    return context


cdef int leave_context(Contexts *contexts) except -1:
    cdef PyObject *context = contexts.entered
    cdef PyObject *snapshot = contexts.snapshot
    if context is not NULL:
        contexts.entered = contexts.snapshot = NULL
        try:
            PyContext_Exit(context)
        finally:  # last: finalisers of its variables
            Py_XDECREF(snapshot)
            Py_DECREF(context)
    return 0


cdef int enter_snapshot(Contexts *contexts, PyObject *snapshot) except -1:
    """Runs on in a copy of `snapshot`; often it does so already."""
    if contexts.snapshot is not snapshot:
        leave_context(contexts)
        context = PyContext_Copy(snapshot)
        PyContext_Enter(<PyObject*>context)
        Py_INCREF(<PyObject*>context)
        contexts.entered = <PyObject*>context
        Py_INCREF(snapshot)
        contexts.snapshot = snapshot
    return 0


cdef int enter_own(Contexts *contexts, object context) except -1:
    leave_context(contexts)
    PyContext_Enter(<PyObject*>context)
    Py_INCREF(<PyObject*>context)
    contexts.entered = <PyObject*>context
    return 0


cdef bint is_context_changed(Contexts *contexts) noexcept:
    return (not VARIABLES_OFFSET or contexts.snapshot is NULL
            or variables_of(contexts.entered) is not variables_of(contexts.snapshot))
