# cython: language_level=3, freethreading_compatible=True
"""Sessions: the coroutine of a connection, driven by the connection's own events.

An await on the connection suspends natively: when its bytes are there the coroutine goes on within
the same dispatch, without a future, a callback or a task. Anything else that it awaits is asyncio's
and comes back by the future's callback. To everybody else a session is an asyncio.Task: it is the
current task in its coroutine and one of asyncio.all_tasks(), it can be cancelled, awaited, waited
for and referred to weakly, and has a task's methods and the private names that anyio reads.
"""

from netpoll._native.c cimport (
    NP_CLOSING, PYGEN_ERROR, PYGEN_NEXT, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit,
    PyIter_Send, PyObject, Py_DECREF, np_conn)
from netpoll._native.failing cimport reraise
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection, Driver, Wait
from netpoll._native.server.host cimport Host

import asyncio
import inspect
from asyncio import base_tasks
from asyncio import tasks as aio_tasks

cdef object CancelledError = asyncio.CancelledError
cdef object InvalidStateError = asyncio.InvalidStateError
cdef object enter_task = aio_tasks._enter_task
cdef object leave_task = aio_tasks._leave_task
cdef object register_task = aio_tasks._register_task

cdef object RETURNED = object()

# What ends a session without a word: somebody ends it, or the loop does and raises this itself.
cdef tuple QUIET_ERRORS = (CancelledError, GeneratorExit, SystemExit, KeyboardInterrupt)


cdef Session make_session(Host host, Connection connection, object coro):
    cdef Session session = Session.__new__(Session)
    session.host = host
    session.connection = connection
    session.coro = coro
    session.context = PyContext_CopyCurrent()
    connection.session = session
    register_task(session)
    return session


cdef class Session(Driver):
    """What asyncio.current_task() is within a session: an asyncio.Task to everybody who asks."""

    def __init__(self):
        raise TypeError("a session comes from a netpoll.Server")

    # isinstance(session, asyncio.Task) is true: asyncio's own type cannot be a base, for its struct
    # is private. asyncio's C code looks at the real type, and takes the interface of any future.
    @property
    def __class__(self):
        return asyncio.Task

    def __repr__(self):
        state = self._state.lower() if self.is_done or not self.cancels_count else "cancelling"
        return f"<netpoll session {state} name={self.get_name()!r} of {self.connection!r}>"

    def __reduce__(self):
        raise TypeError("cannot pickle a session")

    # ---- running it ---------------------------------------------------------------------------

    cdef int resume(self) except -1:
        """From anywhere in the loop's thread: it goes on at the end of this turn."""
        if self.is_done:
            return 0
        if self.connection.conn is not NULL:
            return self.host.queue_run(self.connection.conn)
        return self.run_soon()  # the connection is over: the coroutine has still to hear of it

    cdef int run_soon(self) except -1:
        if not self.is_soon:
            self.host.loop.soon(self._run, None)
            self.is_soon = True
        return 0

    def _run(self):
        self.is_soon = False
        self.run()

    cdef int run(self) except -1:
        """Runs the coroutine to its next await. Not while any other coroutine runs."""
        cdef np_conn *before = self.host.running
        cdef Session alive = self  # at its end nobody else may refer to it
        if alive.is_done or self.is_running:
            return 0
        if self.is_soon or self.waits_for is not None:
            return 0  # asyncio's: its callback will come
        error = what = None
        enter_task(self.host.loop, self)
        self.is_running = True
        self.is_native = False
        self.host.running = self.connection.conn
        PyContext_Enter(<PyObject*>self.context)
        try:
            what = self.step()
        except BaseException as exc:
            error = exc
        finally:
            leave_task(self.host.loop, self)
            PyContext_Exit(<PyObject*>self.context)
            self.host.running = before
            self.is_running = False
        if error is None and what is not RETURNED:
            return self.suspend(what)
        self.finish(error)
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        return 0

    cdef object step(self):
        """What the coroutine awaits now; RETURNED when it has returned self.value."""
        cdef PyObject *out = NULL
        cdef int how
        if self.must_cancel or self.value is not None:
            error = self.value
            self.value = None
            if self.must_cancel and not isinstance(error, CancelledError):
                error = self._make_cancelled_error()
            self.must_cancel = False
            try:
                return self.coro.throw(error)
            except StopIteration as returned:
                self.value = returned.value
                return RETURNED
        how = PyIter_Send(<PyObject*>self.coro, <PyObject*>None, &out)
        if how == PYGEN_ERROR:
            reraise()
        what = <object>out
        Py_DECREF(out)
        if how == PYGEN_NEXT:
            return what
        self.value = what
        return RETURNED

    cdef int suspend(self, object what) except -1:
        if self.connection.leases is not NULL:
            try:
                self.connection.end_leases(self.host.loop, True)
            except BufferError as exc:  # it keeps more than it may: it is told where it waits
                if type(what) is not Wait and getattr(what, "_asyncio_future_blocking", None):
                    what._asyncio_future_blocking = False
                self.value = exc
                return self.resume()
        if type(what) is Wait:
            self.is_native = True
            if self.must_cancel:
                self.resume()
            return 0
        if what is None:  # asyncio.sleep(0)
            return self.run_soon()
        try:
            error = self.refusal(what)
            if error is None:
                what._asyncio_future_blocking = False
                what.add_done_callback(self._woken)
                self.waits_for = what
        except Exception as exc:
            error = exc
        if error is not None:
            self.value = error
            return self.run_soon()
        if self.must_cancel and what.cancel(msg=self.cancel_message):
            self.must_cancel = False
        return 0

    cdef object refusal(self, object what):
        """What asyncio.Task says to something that cannot be awaited; None: it can."""
        blocking = getattr(what, "_asyncio_future_blocking", None)
        if blocking is None:
            if inspect.isgenerator(what):
                return RuntimeError(f"yield was used instead of yield from for generator in task "
                                    f"{self!r} with {what!r}")
            return RuntimeError(f"Task got bad yield: {what!r}")
        if what.get_loop() is not self.host.loop:
            return RuntimeError(f"Task {self!r} got Future {what!r} attached to a different loop")
        if not blocking:
            return RuntimeError(f"yield was used instead of yield from in task {self!r} with "
                                f"{what!r}")
        if what is self:
            return RuntimeError(f"Task cannot await on itself: {self!r}")
        return None

    def _woken(self, future):
        if self.waits_for is not future:
            return
        self.waits_for = None
        try:
            future.result()
        except BaseException as exc:
            self.value = exc
        self.run()

    cdef int finish(self, object error) except -1:
        """The coroutine has ended: with self.value, or with an error."""
        if error is None and self.must_cancel:
            error = self._make_cancelled_error()  # asked for in its last step
        self.is_done = True
        self.must_cancel = False
        self.waits_for = None
        if error is not None:
            self.value = error
            self.is_cancelled = isinstance(error, CancelledError)
            self.has_failed = not self.is_cancelled
        callbacks = self.callbacks
        self.callbacks = None
        try:
            if callbacks is not None:
                for function, context in callbacks:
                    self.host.loop.call_soon(function, self, context=context)
        finally:
            self.part(error)
        return 0

    cdef int part(self, object error) except -1:
        """The connection goes its own way: it closes, or ends at once."""
        cdef Connection connection = self.connection
        connection.session = None
        self.host.session_ended(
            self, connection, None if error is None or self.is_expected(error) else error)
        if error is None:
            connection.close()
        else:
            connection.abort(error)
        return 0

    cdef bint is_expected(self, object error) except -1:
        """It comes from the end of the session's own connection. That of another connection, to a
        database or the other side of a proxy, is told."""
        cdef np_conn *conn = self.connection.conn
        if isinstance(error, ConnectionError):
            return conn is NULL or conn.flags & NP_CLOSING != 0
        return isinstance(error, QUIET_ERRORS) or conn is NULL and isinstance(error, EOFError)

    cdef int end(self) except -1:
        """Its loop is being closed: the coroutine is, too. What it awaits now is not waited for."""
        cdef Session alive = self
        if alive.is_done or self.is_running:
            return 0
        error = GeneratorExit()
        self.waits_for = self.value = None
        self.is_running = True
        PyContext_Enter(<PyObject*>self.context)
        try:
            self.coro.close()
        except BaseException as exc:
            error = exc
        finally:
            PyContext_Exit(<PyObject*>self.context)
            self.is_running = False
        return self.finish(error if isinstance(error, Exception) else CancelledError())

    # ---- the interface of asyncio.Task --------------------------------------------------------

    def cancel(self, msg=None):
        """CancelledError is raised in the coroutine where it waits. False when it has ended."""
        if self.is_done:
            return False
        self.cancels_count += 1
        if self.waits_for is not None and self.waits_for.cancel(msg=msg):
            return True
        if self.is_native and not self.is_running and self.value is None:
            # As the future that a task waits for: it is cancelled, whatever uncancel() says then.
            self.value = CancelledError() if msg is None else CancelledError(msg)
            self.resume()
            return True
        self.must_cancel = True
        self.cancel_message = msg
        if not self.is_running and self.waits_for is None and not self.is_soon:
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

    def cancelled(self):
        return bool(self.is_cancelled)

    def done(self):
        return bool(self.is_done)

    def result(self):
        """What the coroutine returned. Raises what it raised, InvalidStateError before its end."""
        if not self.is_done:
            raise InvalidStateError("Result is not ready.")
        if self.is_cancelled or self.has_failed:
            raise self.value.with_traceback(self.value.__traceback__)
        return self.value

    def exception(self):
        """What the coroutine raised, or None. InvalidStateError before its end."""
        if not self.is_done:
            raise InvalidStateError("Exception is not set.")
        if self.is_cancelled:
            raise self.value
        return self.value if self.has_failed else None

    def add_done_callback(self, function, *, context=None):
        """Calls function(session) in the loop when the coroutine has ended."""
        if context is None:
            context = PyContext_CopyCurrent()
        if self.is_done:
            self.host.loop.call_soon(function, self, context=context)
        elif self.callbacks is None:
            self.callbacks = [(function, context)]
        else:
            self.callbacks.append((function, context))

    def remove_done_callback(self, function):
        """Returns how many were removed."""
        before = self.callbacks or []
        kept = [pair for pair in before if pair[0] != function]
        self.callbacks = kept or None
        return len(before) - len(kept)

    def set_result(self, result):
        raise RuntimeError("Task does not support set_result operation")

    def set_exception(self, exception):
        raise RuntimeError("Task does not support set_exception operation")

    def __await__(self):
        if not self.is_done:
            self._asyncio_future_blocking = True
            yield self
        if not self.is_done:
            raise RuntimeError("await wasn't used with future")
        return self.result()

    def __iter__(self):
        return self.__await__()

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

    def get_stack(self, *, limit=None):
        """The frame where the coroutine is suspended, or its traceback's: see asyncio.Task."""
        return base_tasks._task_get_stack(self, limit)

    def print_stack(self, *, limit=None, file=None):
        return base_tasks._task_print_stack(self, limit, file)

    # ---- private names of asyncio.Task that its helpers, anyio and debuggers read --------------

    def _make_cancelled_error(self):
        if self.is_cancelled:
            return self.value
        message = self.cancel_message
        return CancelledError() if message is None else CancelledError(message)

    @property
    def _state(self):
        if not self.is_done:
            return "PENDING"
        return "CANCELLED" if self.is_cancelled else "FINISHED"

    @property
    def _loop(self):
        return self.host.loop

    @property
    def _coro(self):
        return self.coro

    @property
    def _callbacks(self):
        return None if self.callbacks is None else list(self.callbacks)

    @property
    def _exception(self):
        return self.value if self.has_failed else None

    @property
    def _result(self):
        return self.value if self.is_done and not self.has_failed else None

    @property
    def _must_cancel(self):
        return bool(self.must_cancel)

    @property
    def _fut_waiter(self):
        """What it waits for: an asyncio future, or the await on its connection."""
        if not self.is_native:
            return self.waits_for
        reading = self.connection.reading
        if reading is not None and reading.future is None:
            return reading
        return self.connection.draining

    @property
    def _cancel_message(self):
        return self.cancel_message

    @_cancel_message.setter
    def _cancel_message(self, value):
        self.cancel_message = value

    @property
    def _log_destroy_pending(self):
        return False  # its server knows it, and ends it

    @_log_destroy_pending.setter
    def _log_destroy_pending(self, value):
        pass

    @property
    def _log_traceback(self):
        return False  # and tells of its failure

    @_log_traceback.setter
    def _log_traceback(self, value):
        pass

    @property
    def _source_traceback(self):
        return None

    @property
    def _asyncio_awaited_by(self):
        return None


seal_types(globals())
