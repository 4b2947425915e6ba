# cython: language_level=3, freethreading_compatible=True
"""The calls that asyncio programs make most: call_soon and its kind, create_future.

They are methods of the loop in the vectorcall protocol (PEP 590): the arguments come from the
caller's stack, and there is no tuple for the one argument that callbacks mostly have.
"""

from netpoll._core cimport Loop, future_of
from netpoll._native.c cimport (
    NP_HAS_GIL, PyMethodDef, PyObject, Py_INCREF, np_clock_ns, np_inbox_is_empty)
from netpoll._native.handle cimport (
    Handle, TimerHandle, handle_from_call, set_arguments, set_items)
from netpoll._native.methods cimport add_method

from asyncio import futures

# Up to here each whole number of seconds is a double.
cdef double WHOLE_MAX_S = 2.0 ** 53


cdef PyObject *soon_from_stack(PyObject *loop, PyObject *const *args, Py_ssize_t count,
                               PyObject *kwnames) except NULL:
    cdef Loop self = <Loop>loop
    cdef Handle handle = handle_from_call(self, "call_soon", False, args, count, kwnames)
    if NP_HAS_GIL or self.is_ours():
        if not np_inbox_is_empty(&self.inbox):
            self._take_inbox()  # they came first
        self.push_ready(handle)
    else:
        self.post(handle)
    Py_INCREF(<PyObject*>handle)
    return <PyObject*>handle


cdef PyObject *threadsafe_from_stack(PyObject *loop, PyObject *const *args, Py_ssize_t count,
                                     PyObject *kwnames) except NULL:
    cdef Loop self = <Loop>loop
    cdef Handle handle = handle_from_call(self, "call_soon_threadsafe", True, args, count,
                                          kwnames)
    self.post(handle)
    Py_INCREF(<PyObject*>handle)
    return <PyObject*>handle


def call_at(Loop self not None, when, callback, *args, context=None):
    """With keywords, of a closed loop, or in debug mode: see timer_from_call."""
    if when is None:
        raise TypeError("when cannot be None")
    return checked_timer(self, "call_at", when, when, callback, args, context)


def call_later(Loop self not None, delay, callback, *args, context=None):
    if delay is None:
        raise TypeError("delay must not be None")
    when_s = np_clock_ns() * 1e-9 + <double>delay
    return checked_timer(self, "call_later", when_s, None, callback, args, context)


cdef TimerHandle checked_timer(Loop self, str name, double when_s, object when, object callback,
                               tuple args, object context):
    if self._closed or self._debug:
        self.check_closed()
        self._check_thread()
        self._check_callback(callback, name)
    cdef TimerHandle handle = self._new_timer(when_s, callback, context)
    handle.is_whole = type(when) is int and -WHOLE_MAX_S < handle.when_s < WHOLE_MAX_S
    set_arguments(handle, args or None)
    self._start_timer(handle)
    return handle


cdef TimerHandle timer_from_call(Loop self, bint is_delay, PyObject *const *args,
                                 Py_ssize_t count, PyObject *kwnames):
    cdef TimerHandle handle
    cdef double when_s
    kind = type(<object>args[0]) if count >= 2 and kwnames is NULL else None
    if (kind is float or kind is int and is_delay) and not self._closed and not self._debug:
        when_s = <double><object>args[0] + (np_clock_ns() * 1e-9 if is_delay else 0)
        handle = self._new_timer(when_s, <object>args[1], None)
        set_items(handle, args + 2, count - 2)
        self._start_timer(handle)
        return handle
    positional = tuple([<object>args[i] for i in range(count)])
    names = () if kwnames is NULL else <tuple><object>kwnames
    keywords = {name: <object>args[count + i] for i, name in enumerate(names)}
    full = call_later if is_delay else call_at
    return full(self, *positional, **keywords)


cdef PyObject *later_from_stack(PyObject *loop, PyObject *const *args, Py_ssize_t count,
                                PyObject *kwnames) except NULL:
    cdef TimerHandle handle = timer_from_call(<Loop>loop, True, args, count, kwnames)
    Py_INCREF(<PyObject*>handle)
    return <PyObject*>handle


cdef PyObject *at_from_stack(PyObject *loop, PyObject *const *args, Py_ssize_t count,
                             PyObject *kwnames) except NULL:
    cdef TimerHandle handle = timer_from_call(<Loop>loop, False, args, count, kwnames)
    Py_INCREF(<PyObject*>handle)
    return <PyObject*>handle


cdef PyObject *future_from_stack(PyObject *loop, PyObject *const *args, Py_ssize_t count,
                                 PyObject *kwnames) except NULL:
    if count or kwnames is not NULL:
        raise TypeError("create_future() takes no arguments")
    future = future_of(<Loop>loop, futures.Future)
    Py_INCREF(<PyObject*>future)
    return <PyObject*>future


cdef struct Methods:
    PyMethodDef call_soon, call_soon_threadsafe, call_later, call_at, create_future


# CPython keeps the address of a method's definition, once for each type that has the method.
cdef Methods of_loop, of_event_loop


cdef int add_calls(type owner, Methods *methods) except -1:
    add_method(
        owner, &methods.call_soon, "call_soon", <void*>soon_from_stack,
        "call_soon($self, callback, *args, context=None)\n--\n\n"
        "Runs callback(*args) in the next turn. Only from the loop's thread.\n\n"
        "Returns a Handle with cancel(). Raises RuntimeError when the loop is closed.")
    add_method(
        owner, &methods.call_soon_threadsafe, "call_soon_threadsafe",
        <void*>threadsafe_from_stack,
        "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
        "call_soon from any thread; wakes the loop if it sleeps.")
    add_method(
        owner, &methods.call_later, "call_later", <void*>later_from_stack,
        "call_later($self, delay, callback, *args, context=None)\n--\n\n"
        "Runs callback(*args) after `delay` seconds. Returns a TimerHandle with cancel().")
    add_method(
        owner, &methods.call_at, "call_at", <void*>at_from_stack,
        "call_at($self, when, callback, *args, context=None)\n--\n\n"
        "Runs callback(*args) at `when`, in seconds of loop.time().")
    add_method(
        owner, &methods.create_future, "create_future", <void*>future_from_stack,
        "create_future($self)\n--\n\n"
        "A new asyncio.Future of this loop.")
    return 0


def own_calls(type event_loop):
    """Makes the calls methods of EventLoop itself.

    A call looks whether `self` is of the method's type. It is that type, and not one derived from
    it: CPython does not walk the bases.
    """
    add_calls(event_loop, &of_event_loop)


add_calls(Loop, &of_loop)
