# What the garbage collector must be told: references that are kept where it cannot look.
#
# Cython generates tp_traverse for attributes that are objects. References in arrays of PyObject*,
# in operations in flight, in C structs of connections and tasks, and those of handles (which are
# no business of the collector's, handle.pyx) are visited by a function of ours, which is put in
# front of the generated one. Subclasses call the slot of their base, so they have it, too.
#
# Rules of such a function: one visit for each reference that is held, never one more (the
# collector would free what is in use); no reference is taken or dropped, nothing is called that
# could (without a GIL the collector keeps its own numbers in the objects meanwhile). One that is
# not visited is only kept alive. Whatever may let Python code in leaves the arrays true before it.

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    PyObject, PyTypeObject, Py_TPFLAGS_HAVE_GC, inquiry, np_timer, traverseproc, visitproc)
from netpoll._native.handle cimport Handle, TimerHandle, timer_place


cdef inline traverseproc replace_traverse(type cls, traverseproc ours) except NULL:
    """Puts ours in front of what cls has, which is returned: ours has to call it."""
    cdef PyTypeObject *slots = <PyTypeObject*>cls
    cdef traverseproc generated = slots.tp_traverse
    if not slots.tp_flags & Py_TPFLAGS_HAVE_GC or generated is NULL:
        raise TypeError(f"the garbage collector does not see {cls.__name__}")
    slots.tp_traverse = ours
    return generated


cdef inline inquiry replace_clear(type cls, inquiry ours) except NULL:
    cdef PyTypeObject *slots = <PyTypeObject*>cls
    cdef inquiry generated = slots.tp_clear
    if generated is NULL:
        raise TypeError(f"the garbage collector does not clear {cls.__name__}")
    slots.tp_clear = ours
    return generated


cdef inline bint is_running(PyObject *loop) noexcept:
    """A loop that runs is in use, and all that it refers to: there is nothing to find out. What is
    in flight changes meanwhile, without the GIL."""
    return loop is not NULL and loop is not <PyObject*>None and (
        (<Loop>loop).running_ident != 0 or (<Loop>loop).is_away)


cdef inline int visit_handle(PyObject *item, visitproc visit, void *arg) noexcept:
    """What a handle that waits refers to. One that has run or was cancelled refers to nothing."""
    cdef int err = visit(<PyObject*>(<Handle>item).callback, arg)
    if err == 0:
        err = visit(<PyObject*>(<Handle>item).arguments, arg)
    if err == 0:
        err = visit(<PyObject*>(<Handle>item).context, arg)
    if err == 0:
        err = visit(<PyObject*>(<Handle>item).loop, arg)
    return err
