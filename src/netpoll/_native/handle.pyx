# cython: language_level=3, freethreading_compatible=True
"""Handles: one scheduled callback each, what call_soon and call_later return.

Handles are not the garbage collector's business: there are as many as callbacks, and looking at
them was half of the cost of call_soon. They cannot leak by a cycle, because a pending one is the
loop's, which shows the collector what it refers to (loop/collect.pyx), and a handle that has run or
was cancelled refers to nothing any more (release_handle), not even to its loop.
"""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident

from netpoll._native.c cimport (
    PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit, PyObject, PyObject_CallNoArgs,
    PyObject_CallOneArg, PyObject_Vectorcall, PyTupleObject, PyTuple_GET_ITEM, PyTuple_GET_SIZE,
    Py_DECREF, np_timer, np_timer_remove)
from netpoll._native.failing cimport reraise
from netpoll._native.seal cimport seal_types

import asyncio
import threading
from asyncio import events as aio_events
from asyncio import format_helpers

cdef object AioHandle = asyncio.Handle
cdef object AioTimerHandle = asyncio.TimerHandle
# From Python 3.14 on, what call_soon_threadsafe returns keeps cancel() and cancelled() of another
# thread waiting while the callback runs: who has cancelled knows that it does not run any more.
cdef object AioThreadSafeHandle = getattr(aio_events, "_ThreadSafeHandle", None)
# id of a running handle -> the threading.Event of those who wait for its end
cdef dict idle_events = {}


cdef class HandleOwner:
    cdef bint is_ours(self) noexcept:
        """True in the thread that runs the loop, and in any while it does not run."""
        return self.running_ident == 0 or PyThread_get_thread_ident() == self.running_ident


@cython.no_gc
@cython.freelist(256)
cdef class Handle:
    """One scheduled callback: what call_soon returns. The interface of asyncio.Handle."""

    # isinstance(handle, asyncio.Handle) holds: programs and debuggers ask for it.
    @property
    def __class__(self):
        return AioThreadSafeHandle if self.is_shared else AioHandle

    @property
    def _callback(self):
        return self.callback

    @property
    def _args(self):
        if self.is_cancelled:
            return None
        if self.arguments_count == 1:
            return (self.arguments,)
        return self.arguments if self.arguments_count else ()

    @property
    def _context(self):
        return self.context

    @property
    def _cancelled(self):
        return self.is_cancelled

    @property
    def _loop(self):
        return self.loop

    def cancel(self):
        drop_callback(self)

    def cancelled(self):
        if self.is_shared:
            wait_until_idle(self)
        return bool(self.is_cancelled)

    def get_context(self):
        return self.context

    def _run(self):
        cdef HandleOwner loop = self.loop
        if loop is not None:  # else it has run
            run_handle(loop, self)

    def _repr_info(self):
        info = [self.__class__.__name__]
        if self.is_cancelled:
            info.append("cancelled")
        if self.callback is not None:
            info.append(format_helpers._format_callback_source(self.callback, self._args))
        return info

    def __repr__(self):
        return f"<{' '.join(self._repr_info())}>"


@cython.no_gc
cdef class DebugHandle(Handle):
    """A handle that remembers where it was made: what the loop hands out in debug mode."""

    def cancel(self):
        if not self.is_cancelled:
            self.text = repr(self)
            drop_callback(self)

    def _repr_info(self):
        info = Handle._repr_info(self)
        if self._source_traceback:
            frame = self._source_traceback[-1]
            info.append(f"created at {frame[0]}:{frame[1]}")
        return info

    def __repr__(self):
        return self.text if self.text is not None else f"<{' '.join(self._repr_info())}>"


@cython.no_gc
cdef class TimerHandle(Handle):
    """A callback with a deadline: what call_later and call_at return."""

    @property
    def __class__(self):
        return AioTimerHandle

    @property
    def _when(self):
        return self.when()

    @property
    def _scheduled(self):
        return self.timer.pos != 0

    def when(self):
        """The deadline, in seconds of loop.time(): an int if call_at() was given one."""
        return int(self.when_s) if self.is_whole else self.when_s

    def cancel(self):
        cdef HandleOwner loop = self.loop
        if self.is_cancelled:
            return
        drop_callback(self)
        if self.timer.pos and loop.is_ours():  # else it stays until it is due
            np_timer_remove(&loop.timers, &self.timer)
            Py_DECREF(<PyObject*>self)

    def _repr_info(self):
        info = ["TimerHandle"]
        if self.is_cancelled:
            info.append("cancelled")
        info.append(f"when={self.when()}")
        if self.callback is not None:
            info.append(format_helpers._format_callback_source(self.callback, self._args))
        if self._source_traceback:
            frame = self._source_traceback[-1]
            info.append(f"created at {frame[0]}:{frame[1]}")
        return info

    def __hash__(self):
        return hash(self.when_s)

    def __eq__(self, other):
        if isinstance(other, AioTimerHandle):
            return (self.when_s == other.when() and self.callback == other._callback
                    and self._args == other._args and self.is_cancelled == other._cancelled)
        return NotImplemented

    def __lt__(self, other):
        return self.when_s < other.when() if isinstance(other, AioTimerHandle) else NotImplemented

    def __gt__(self, other):
        return self.when_s > other.when() if isinstance(other, AioTimerHandle) else NotImplemented

    def __le__(self, other):
        if isinstance(other, AioTimerHandle):
            return self.when_s < other.when() or self.__eq__(other)
        return NotImplemented

    def __ge__(self, other):
        if isinstance(other, AioTimerHandle):
            return self.when_s > other.when() or self.__eq__(other)
        return NotImplemented


cdef int drop_callback(Handle handle) except -1:
    """Cancels. Any thread may: the loop's takes what it needs in one step, before it runs it."""
    while True:
        with cython.critical_section(handle):
            if not handle.is_running or handle.loop.is_ours():
                handle.is_cancelled = True
                handle.callback = None
                handle.arguments = None
                handle.context = None
                if not handle.is_running:
                    handle.loop = None
                return 0
        wait_until_idle(handle)


cdef int wait_until_idle(Handle handle) except -1:
    """Waits for the end of a shared callback that another thread runs.

    The event is there before is_running is looked at, and run_handle looks for events after it has
    cleared is_running: one of the two sees the other.
    """
    cdef bint waits
    cdef HandleOwner loop
    with cython.critical_section(handle):
        waits = handle.is_running
        loop = handle.loop
    if not waits or loop.is_ours():
        return 0
    event = idle_events.setdefault(id(handle), threading.Event())
    with cython.critical_section(handle):
        waits = handle.is_running
    if waits:
        event.wait()
    else:
        idle_events.pop(id(handle), None)
    return 0


cdef int end_shared(Handle handle) except -1:
    """The callback has ended: lets go those who wait for it."""
    with cython.critical_section(handle):
        handle.is_running = False
    if idle_events:
        event = idle_events.pop(id(handle), None)
        if event is not None:
            event.set()
    return 0


cdef Handle new_handle(HandleOwner loop, object callback, tuple args, object context):
    cdef Handle handle
    if loop._debug:
        handle = DebugHandle.__new__(DebugHandle)
        (<DebugHandle>handle)._source_traceback = format_helpers.extract_stack()
    else:
        handle = Handle.__new__(Handle)
    handle.loop = loop
    handle.callback = callback
    set_arguments(handle, args)
    handle.context = PyContext_CopyCurrent() if context is None else context
    return handle


cdef Handle handle_from_call(HandleOwner self, str name, bint is_shared,
                             PyObject *const *args, Py_ssize_t count, PyObject *kwnames):
    """The handle of call_soon(callback, *args, context=None): PEP 590 arguments."""
    cdef Handle handle
    cdef PyObject *context = NULL
    cdef PyObject *callback = args[0] if count else NULL
    cdef Py_ssize_t i
    if kwnames is not NULL:
        for i in range(PyTuple_GET_SIZE(<object>kwnames)):
            key = <object>PyTuple_GET_ITEM(<object>kwnames, i)
            if key == "context":
                context = args[count + i]
            elif key == "callback" and callback is NULL:
                callback = args[i]
            else:
                raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
    if callback is NULL:
        raise TypeError(f"{name}() missing 1 required positional argument: 'callback'")
    if self._closed or self._debug:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if not is_shared:
            self._check_thread()
        self._check_callback(<object>callback, name)
        handle = DebugHandle.__new__(DebugHandle)
        (<DebugHandle>handle)._source_traceback = format_helpers.extract_stack()
    else:
        handle = Handle.__new__(Handle)
    handle.loop = self
    handle.is_shared = is_shared and AioThreadSafeHandle is not None
    handle.callback = <object>callback
    if count > 1:
        set_items(handle, args + 1, count - 1)
    if context is NULL or context == <PyObject*>None:
        handle.context = PyContext_CopyCurrent()
    else:
        handle.context = <object>context
    return handle


cdef int run_handle(HandleOwner loop, Handle handle) except -1:
    """Runs the callback in its context; its exception goes to the loop's exception handler."""
    cdef PyObject *result
    cdef object callback, arguments, context  # kept alive here if it cancels itself
    cdef int count
    with cython.critical_section(handle):
        if handle.is_cancelled:
            return 0
        callback = handle.callback
        arguments = handle.arguments
        context = handle.context
        count = handle.arguments_count
        handle.is_running = handle.is_shared
    try:
        PyContext_Enter(<PyObject*>context)
        try:
            if count == 1:
                result = PyObject_CallOneArg(<PyObject*>callback, <PyObject*>arguments)
            elif count == 0:
                result = PyObject_CallNoArgs(<PyObject*>callback)
            else:
                result = PyObject_Vectorcall(<PyObject*>callback, tuple_items(<tuple>arguments),
                                             count, NULL)
            if result is NULL:
                reraise()
            Py_DECREF(result)
        finally:
            PyContext_Exit(<PyObject*>context)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        args = (arguments,) if count == 1 else arguments if count else ()
        loop._callback_failed(handle, callback, args, exc)
    finally:
        if handle.is_shared:
            end_shared(handle)
    return 0


cdef inline PyObject **tuple_items(tuple args) noexcept:
    return (<PyTupleObject*>args).ob_item


cdef TimerHandle timer_owner(np_timer *timer):
    """The handle that embeds this timer."""
    return <TimerHandle><void*>(<char*>timer - TIMER_OFFSET)


cdef PyObject *timer_place(np_timer *timer) noexcept:
    """The same, borrowed."""
    return <PyObject*>(<char*>timer - TIMER_OFFSET)


cdef Py_ssize_t _timer_offset():
    cdef TimerHandle handle = TimerHandle.__new__(TimerHandle)
    return <char*>&handle.timer - <char*><PyObject*>handle


cdef Py_ssize_t TIMER_OFFSET = _timer_offset()


seal_types(globals())
