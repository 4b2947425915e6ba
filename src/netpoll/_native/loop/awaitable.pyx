# cython: language_level=3, freethreading_compatible=True
"""Native awaitables: what stream reads and socket calls return.

They have the coroutine protocol (PEP 492), so they can be awaited, made a task, passed to wait_for.
A subclass writes step(); what it waits for is an ordinary asyncio.Future, so any Task can drive it.
"""

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport (
    PYGEN_NEXT, PYGEN_RETURN, Py_INCREF, PyErr_SetObject, PyExc_StopIteration, PyObject,
    PyTypeObject)
from netpoll._native.seal cimport seal_types

import asyncio

cdef object Future = asyncio.Future
cdef dict CALLED = {}


cdef class Awaitable(Completion):
    cdef object step(self):
        """The value of the await, with is_done set; or the future to wait for. Here: nothing to
        wait for."""
        self.is_done = True

    cdef str called(self):
        """Who made it."""
        return CALLED[type(self)]

    cdef int abandon(self) except -1:
        """The await ends without a value: it was cancelled, closed or has failed."""
        return 0

    cdef object wait_on(self, object loop):
        """A fresh future for step() to return: resume() ends the wait."""
        self.future = (<Loop>loop).new_future() if isinstance(loop, Loop) else Future(loop=loop)
        self.future._asyncio_future_blocking = True
        self.is_waiting = True
        return self.future

    cdef int resume(self) except -1:
        """The awaiting task goes on, unless none waits or it was cancelled meanwhile."""
        if self.is_waiting:
            self.is_waiting = False
            if not self.future.done():
                self.future.set_result(None)
        return 0

    @property
    def __qualname__(self):
        """As of a coroutine: repr() of a task shows it."""
        return self.called()

    @property
    def __name__(self):
        return self.called().rpartition(".")[2]

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        result = awaitable_step(self)
        if self.is_done:
            raise StopIteration(result)
        return result

    def throw(self, typ, val=None, tb=None):
        self.close()
        if val is None:
            val = typ() if isinstance(typ, type) else typ
        elif isinstance(val, tuple):
            val = typ(*val)
        elif not isinstance(val, BaseException):
            val = typ(val)
        raise val.with_traceback(tb) if tb is not None else val

    def close(self):
        if not self.is_done:
            self.is_done = True
            self.is_waiting = False
            self.future = None
            self.abandon()


cdef object awaitable_step(Awaitable self):
    if self.is_done:
        raise RuntimeError("cannot reuse already awaited coroutine")
    if self.is_waiting and not self.future.done():
        raise RuntimeError("coroutine is being awaited already")
    try:
        result = self.step()
    except BaseException:
        self.close()
        raise
    if self.is_done:
        self.future = None
    return result


# The slots that the interpreter's SEND uses, without a Python frame or traceback on the way.

cdef int awaitable_am_send(PyObject *self, PyObject *value, PyObject **out) except -1:
    out[0] = NULL
    result = awaitable_step(<Awaitable>self)
    Py_INCREF(<PyObject*>result)
    out[0] = <PyObject*>result
    return PYGEN_RETURN if (<Awaitable>self).is_done else PYGEN_NEXT


cdef PyObject *awaitable_iternext(PyObject *self) except NULL:
    result = awaitable_step(<Awaitable>self)
    if (<Awaitable>self).is_done:
        if isinstance(result, tuple) or isinstance(result, BaseException):
            result = StopIteration(result)  # else it would be taken for the arguments
        PyErr_SetObject(PyExc_StopIteration, <PyObject*>result)
        return NULL
    Py_INCREF(<PyObject*>result)
    return <PyObject*>result


cdef int install_awaitable_slots(object cls, str called) except -1:
    """For each type; called: the method that makes its objects, for repr() of tasks."""
    cdef PyTypeObject *slots = <PyTypeObject*>cls
    slots.tp_as_async.am_send = <void*>awaitable_am_send
    slots.tp_iternext = <void*>awaitable_iternext
    CALLED[cls] = called
    return 0


seal_types(globals())
