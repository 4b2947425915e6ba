# cython: language_level=3, freethreading_compatible=True
"""The coroutine of a request: stepped in the dispatch of the bytes that brought the request.

It is a session (server/session.pyx) whose end is not the end of a connection. Most requests are
answered in their first step. So a task is put on the list of asyncio.all_tasks() when it waits for
the first time: before that nobody but its own coroutine runs, and asyncio.current_task() has it.
"""

from netpoll._native.c cimport PyContext_CopyCurrent
from netpoll._native.http.wire cimport Exchange
from netpoll._native.limits cimport HTTP_ERROR_GROUPS_MAX_COUNT
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.session cimport Session

from asyncio import tasks as aio_tasks

cdef object register_task = aio_tasks._register_task


cdef RequestTask make_task(Exchange exchange, Connection face, object coro):
    cdef RequestTask task = RequestTask.__new__(RequestTask)
    task.host = face.host
    task.connection = face
    task.exchange = exchange
    task.coro = coro
    task.context = PyContext_CopyCurrent()
    return task


cdef bint is_of_the_end(object error) except -1:
    """It is what send() says when the client has gone, or what was raised because of that:
    frameworks have exceptions of their own for it, and task groups make a group of it."""
    return comes_from_the_end(error, set(), HTTP_ERROR_GROUPS_MAX_COUNT)


cdef bint comes_from_the_end(object error, set passed, int groups_left_count) except -1:
    """passed: the id() of each that led here. What an exception was raised from may be a ring, and
    as long as a program likes: this does not recurse but for groups, which may be in groups."""
    while error is not None and not isinstance(error, ConnectionResetError):
        if id(error) in passed:
            return False
        passed.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            if groups_left_count == 0:
                return False
            for one in error.exceptions:
                if not comes_from_the_end(one, passed.copy(), groups_left_count - 1):
                    return False
            return True
        error = error.__cause__ if error.__cause__ is not None else error.__context__
    return error is not None


cdef class RequestTask(Session):
    def __repr__(self):
        state = self._state.lower() if self.is_done or not self.cancels_count else "cancelling"
        return f"<netpoll request {state} name={self.get_name()!r} of {self.connection!r}>"

    def get_name(self):
        return self.name or "netpoll-request"

    cdef int resume(self) except -1:
        return 0 if self.is_done else self.run_soon()

    cdef int suspend(self, object what) except -1:
        if not self.is_known:
            self.is_known = True
            register_task(self)
            self.host.sessions.add(self)
        return Session.suspend(self, what)

    cdef int part(self, object error) except -1:
        cdef Exchange exchange = self.exchange
        self.exchange = None
        if self.is_known:
            self.host.sessions.discard(self)
        return exchange.finished(error)


seal_types(globals())
