# cython: language_level=3, freethreading_compatible=True
"""Connections as tasks: a handler runs in whichever worker is free, its connection stays at home.

    owner's loop: data_received ─► feed ─► record (64 bytes) ─► scheduler ─► handler(data)
          ▲                                                                     │ reply
          └── write, in the owner's turn ◄── outbox: one wake-up per batch ◄────┘

The ring, the fd and the buffers never leave their owner. What a handler gets is an immutable bytes
object; what it returns goes back through the owner's inbox, not by a system call of the thief: the
owner sends the replies of a turn together, in order with everything else that was written, and
sees the errors; a thief's own send would have to wait for what the owner has queued already.
"""

cimport cython

from netpoll._native.c cimport (
    NP_TASK_PUSH, PyObject, Py_DECREF, Py_INCREF, np_task, np_task_claim, np_task_init,
    np_task_pause, np_task_wake)
from netpoll._native.sched.run cimport SchedulerCore
from netpoll._native.sched.task cimport KIND_NATIVE, check_lane
from netpoll._native.seal cimport seal_types


cdef class Outbox:
    """The way back to one loop: replies of its connections, from any worker."""

    def __cinit__(self, loop):
        self.loop = loop
        self.replies = []

    cdef int put(self, ConnectionTask task, object reply) except -1:
        cdef bint is_first
        with cython.critical_section(self):
            self.replies.append((task, reply))
            is_first = not self.is_scheduled
            self.is_scheduled = True
        if is_first:
            try:
                self.loop.call_soon_threadsafe(self.flush)
            except RuntimeError:
                pass    # the loop is closed, and its connections with it
        return 0

    def flush(self):
        """In the owner's thread: everything that has come by now is written."""
        cdef ConnectionTask task
        with cython.critical_section(self):
            replies = self.replies
            self.replies = []
            self.is_scheduled = False
        failed = None
        for task, reply in replies:  # one that fails does not take the others with it
            try:
                tell(task, reply)
            except BaseException as exc:
                failed = failed or exc
        if failed is not None:
            raise failed


cdef int tell(ConnectionTask task, object reply) except -1:
    """A reply that cannot be written is the end of its connection, as a handler's exception is."""
    if not isinstance(reply, BaseException):
        try:
            task.write(reply)
            return 0
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            reply = exc
    task.fail(reply)
    return 0


cdef class ConnectionTask:
    """One connection's messages: handled one at a time and in order, by any worker.

    handler(data) -> bytes or None runs in a worker; write(reply), with tells_all also write(None),
    and fail(exception) run in the thread of the outbox's loop.
    """

    def __cinit__(self, SchedulerCore scheduler, Outbox outbox, handler, write, fail,
                  int priority):
        scheduler.check_usable()
        check_lane(priority)
        np_task_init(&self.node, KIND_NATIVE, priority)
        self.node.run = <void*>run_connection
        self.node.argument = <void*>self
        self.core = scheduler
        self.outbox = outbox
        self.handler = handler
        self.write = write
        self.fail = fail
        self.messages = []

    def feed(self, data):
        """A message has come. From the owner's thread.

        Raises RuntimeError when the scheduler has been shut down.
        """
        with cython.critical_section(self):
            self.messages.append(data)
        if np_task_wake(&self.node) == NP_TASK_PUSH:
            self.push()

    @property
    def pending(self):
        """Messages that wait for the handler."""
        with cython.critical_section(self):
            return len(self.messages) - self.next_message

    cdef int push(self) except -1:
        Py_INCREF(<PyObject*>self)      # the queue's
        if self.core.push_native(&self.node) < 0:
            Py_DECREF(<PyObject*>self)
            raise RuntimeError("cannot handle a message: the scheduler has been shut down")
        return 0

    cdef object take(self):
        """The oldest message; the list is cut when a good part of it is used up."""
        with cython.critical_section(self):
            data = self.messages[self.next_message]
            self.messages[self.next_message] = None
            self.next_message += 1
            if self.next_message == len(self.messages):
                self.messages = []
                self.next_message = 0
            elif self.next_message >= 64:
                del self.messages[:self.next_message]
                self.next_message = 0
            return data

    cdef int run(self) except -1:
        """One message; what else there is waits for its turn, as other connections do."""
        try:
            reply = self.handler(self.take())
        except BaseException as exc:
            reply = exc
        if reply is not None or self.tells_all:
            self.outbox.put(self, reply)
        if self.messages:
            np_task_wake(&self.node)
        return 0


cdef int run_connection(np_task *record) except -1:
    cdef ConnectionTask task = <ConnectionTask>record.argument
    Py_DECREF(<PyObject*>task)          # the queue's; `task` holds one
    if np_task_claim(record, True):
        try:
            task.run()
        except BaseException as exc:
            task.core._report({"message": f"{task!r} failed", "exception": exc})
        if np_task_pause(record) == NP_TASK_PUSH:
            task.push()
    return 0


seal_types(globals(), (Outbox, ConnectionTask))
