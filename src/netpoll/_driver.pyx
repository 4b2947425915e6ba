# cython: language_level=3, freethreading_compatible=True
"""Sessions: the coroutine of a connection, driven by the connection's own events.

An await on the connection suspends natively: when its bytes are there the coroutine goes on within
the same dispatch, without a future, a callback or a task. Anything else that it awaits is asyncio's
and comes back by the future's callback. To asyncio a session is the current task: cancel(),
asyncio.timeout() and TaskGroup work in it.
"""

from netpoll._c cimport (
    PYGEN_ERROR, PYGEN_NEXT, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit, PyIter_Send,
    PyObject, Py_DECREF, np_conn)
from netpoll._connection cimport Connection, Driver, Host, Wait

import asyncio
from asyncio import tasks as aio_tasks

cdef object CancelledError = asyncio.CancelledError
cdef object enter_task = aio_tasks._enter_task
cdef object leave_task = aio_tasks._leave_task


cdef Session make_session(Host host, Connection connection, object coro, object ended):
    cdef Session session = Session.__new__(Session)
    session.host = host
    session.connection = connection
    session.coro = coro
    session.ended = ended
    session.context = PyContext_CopyCurrent()
    connection.session = session
    return session


cdef class Session(Driver):
    """What asyncio.current_task() is within a session."""

    def __init__(self):
        raise TypeError("a session comes from a netpoll.Server")

    def __repr__(self):
        return f"<netpoll session of {self.connection!r}>"

    cdef int resume(self) except -1:
        """From anywhere in the loop's thread: it goes on at the end of this turn."""
        if self.is_done:
            return 0
        if self.connection.conn is not NULL:
            return self.host.queue_run(self.connection.conn)
        if not self.is_queued:  # the connection is over: the coroutine has still to hear of it
            self.is_queued = True
            self.host.loop.soon(self._run, None)
        return 0

    def _run(self):
        self.is_queued = False
        self.run()

    cdef int run(self) except -1:
        """Runs the coroutine to its next await. Not while any other coroutine runs."""
        cdef np_conn *before = self.host.running
        cdef Session alive = self  # at its end nobody else may refer to it
        if alive.is_done or self.is_running:
            return 0
        if self.waits_for is not None and not self.must_cancel:
            return 0  # asyncio's: its callback will come
        self.is_running = True
        self.is_native = False
        self.host.running = self.connection.conn
        PyContext_Enter(<PyObject*>self.context)
        enter_task(self.host.loop, self)
        try:
            what = self.step()
        except (SystemExit, KeyboardInterrupt) as exc:
            self.is_running = False
            self.finish(exc)
            raise
        except BaseException as exc:
            self.is_running = False
            return self.finish(exc)
        finally:
            leave_task(self.host.loop, self)
            PyContext_Exit(<PyObject*>self.context)
            self.host.running = before
            self.is_running = False
        return self.finish(None) if what is self else self.suspend(what)

    cdef object step(self):
        """What the coroutine awaits now; the session itself when it has returned."""
        cdef PyObject *out = NULL
        cdef int how
        if self.must_cancel:
            self.must_cancel = False
            self.waits_for = None
            message = self.cancel_message
            error = CancelledError() if message is None else CancelledError(message)
            try:
                return self.coro.throw(error)
            except StopIteration:
                return self
        how = PyIter_Send(<PyObject*>self.coro, <PyObject*>None, &out)
        if how == PYGEN_ERROR:
            reraise()
        if how == PYGEN_NEXT:
            what = <object>out
            Py_DECREF(out)
            return what
        Py_DECREF(out)
        return self

    cdef int suspend(self, object what) except -1:
        if type(what) is Wait:
            self.is_native = True
            if self.connection.leases is not NULL:
                self.connection.end_leases(True)
            if self.must_cancel:
                self.resume()
            return 0
        if what is None:  # asyncio.sleep(0)
            self.host.loop.soon(self._run, None)
        elif getattr(what, "_asyncio_future_blocking", None):
            what._asyncio_future_blocking = False
            self.waits_for = what
            what.add_done_callback(self._woken)
            if self.must_cancel and what.cancel(self.cancel_message):
                self.must_cancel = False
        else:
            self.coro.close()
            return self.finish(RuntimeError(f"a session cannot await {what!r}"))
        if self.connection.leases is not NULL:
            self.connection.end_leases(True)
        return 0

    def _woken(self, future):
        if self.waits_for is future:
            self.waits_for = None
            self.run()

    cdef int finish(self, object error) except -1:
        self.is_done = True
        self.coro = None
        self.waits_for = None
        ended = self.ended
        self.ended = None
        ended(self, error)
        return 0

    # ---- what asyncio asks of a current task --------------------------------------------------

    def cancel(self, msg=None):
        """CancelledError is raised in the coroutine where it waits. False when it has ended."""
        if self.is_done:
            return False
        self.cancels_count += 1
        if self.waits_for is not None and self.waits_for.cancel(msg):
            return True
        self.must_cancel = True
        self.cancel_message = msg
        if not self.is_running:
            self.resume()
        return True

    def cancelling(self):
        return self.cancels_count

    def uncancel(self):
        if self.cancels_count:
            self.cancels_count -= 1
            if self.cancels_count == 0:
                self.must_cancel = False
        return self.cancels_count

    def done(self):
        return bool(self.is_done)

    def get_coro(self):
        return self.coro

    def get_context(self):
        return self.context

    def get_loop(self):
        return self.host.loop

    def get_name(self):
        return self.name or "netpoll-session"

    def set_name(self, value):
        self.name = str(value)


cdef int reraise() except -1:
    """The C API has set an exception: hand it to Cython's error return."""
    return -1
