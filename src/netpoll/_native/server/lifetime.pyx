# cython: language_level=3, freethreading_compatible=True
"""The life of a server's connections: how one begins, how it ends, and when its struct goes back.

    begin ──> announced ──> lose ──────────> its operations' last events ──> finish
                            on_close, once                                   fd closed, struct back

Handlers, hooks, iterators and finalisers are the user's code, and may end any connection, also the
one that they are called for. So whoever looks at a connection again after a call that may run such
code, or lose it, pins it before (np_conn_pin, np_conn.h) and unpins it after. In between the struct
stays, NP_CONN_LOST in its flags tells that it is over, and flows are fetched anew. What enters from
outside pins: events, the turn's queues, timers, the methods of Connection. What they call need not.
"""


from netpoll._core cimport Loop
from netpoll._native.c cimport (
    NP_CONN_CLOSING, NP_CONN_DIRTY, NP_CONN_LOST, NP_CONN_OPEN, NP_CONN_TIMED, NP_EV_MORE,
    PyObject, Py_DECREF, Py_INCREF, Py_REFCNT, np_conn, np_conn_at, np_conn_get,
    np_conn_in, np_conn_is_pinned, np_conn_of, np_conn_pin, np_conn_put, np_event, np_flow,
    np_flow_put, np_iov_pop, np_owner_drop, np_sock_close, np_sock_reset_at_close, np_task,
    np_task_claim, np_task_is_queued, np_task_pause)
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection, Host, unpin
from netpoll._native.server.idle cimport WHEEL_IDLE_TICKS


cdef class Keeper(Host):
    cdef int arm_recv(self, np_conn *conn) except -1:
        raise NotImplementedError

    # ---- birth --------------------------------------------------------------------------------

    cdef np_conn *begin(self, int fd) except? NULL:
        """A connected, nonblocking socket becomes a connection: ours, whatever happens, and
        pinned. NULL: it is over already, and nobody has heard of it."""
        cdef np_conn *conn = NULL if self.is_stopping else np_conn_get(&self.slab, <void*>self, fd)
        if conn is NULL:
            self.ended_count += 1
            np_sock_close(fd)
            return NULL
        if self.slab.live_count == 1:
            self.loop.hosts.append(self)  # for the connections: their cookies lead here
        np_conn_pin(conn)
        conn.flags = NP_CONN_OPEN
        self.accepted_count += 1
        try:
            self.arm_recv(conn)
        except Exception as exc:
            conn.flags |= NP_CONN_LOST | NP_CONN_CLOSING
            self.handler_failed("a connection cannot be read from, it is closed", exc, None)
            unpin(self, conn)
            return NULL
        if self.wheel is not None:
            conn.tick = self.tick
            self.wheel.add(conn, WHEEL_IDLE_TICKS)
        return conn

    # ---- faces --------------------------------------------------------------------------------

    cdef Connection face_of(self, np_conn *conn):
        """The object that stands for the connection; the connection refers to it from now on.

        To make one may run the garbage collector, and with it anything.
        """
        cdef Connection face
        if conn.task.argument is not NULL:
            return <Connection>conn.task.argument
        if self.spare is not NULL:
            face = <Connection>self.spare
            conn.task.argument = self.spare  # with its reference
            self.spare = NULL
        else:
            face = Connection.__new__(Connection)
            if conn.task.argument is not NULL:
                return <Connection>conn.task.argument
            face.host = self
            conn.task.argument = <void*>face
            Py_INCREF(<PyObject*>face)
        face.conn = conn
        return face

    cdef int drop_face(self, np_conn *conn, Connection face) except -1:
        """A face that nobody looks at any more is kept for the next handler call."""
        # Two references: the connection's, and the caller's variable.
        if Py_REFCNT(<PyObject*>face) > 2 or face.state is not None \
                or face.session is not None or face.leases is not NULL or face.is_referred_to() \
                or conn.task.argument is not <void*>face:
            return 0
        if self.spare is NULL:
            conn.task.argument = NULL
            face.conn = NULL
            self.spare = <PyObject*>face
        return 0

    cdef int handler_failed(self, str message, object exc, Connection face) except -1:
        self.handler_errors_count += 1
        self.loop.call_exception_handler(
            {"message": f"netpoll.Server: {message}", "exception": exc, "connection": face})
        return 0

    # ---- the end ------------------------------------------------------------------------------

    cdef int lose(self, np_conn *conn, object error) except -1:
        """The connection is over. error: None, or why."""
        if conn.flags & NP_CONN_LOST:
            return 0
        conn.flags |= NP_CONN_LOST | NP_CONN_CLOSING
        np_conn_pin(conn)
        try:
            if conn.flags & NP_CONN_TIMED:
                self.wheel.remove(conn)
            self.stop_reading(conn)
            if conn.task.flags and conn.out is not NULL and conn.out.iov.count:
                # Cut off, with zero-copy sends that the kernel has not let go of: it would keep
                # their memory for as long as the peer does not read, and the loop's end with it.
                np_sock_reset_at_close(conn.fd)
            if conn.out is not NULL and conn.out.op and not conn.out.sending:
                self.loop.cancel(conn.out.op)  # a POLL; a SEND does not wait
            self.drop_flow(conn, False)
            if self.on_close is not None or conn.task.argument is not NULL:
                self.tell_lost(conn, error)
        finally:
            self.drop_flow(conn, True)
            unpin(self, conn)
        return 0

    cdef int tell_lost(self, np_conn *conn, object error) except -1:
        cdef Connection face = self.face_of(conn)
        face.error = error
        try:
            if self.on_close is not None:
                self.on_close(face, error)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.handler_failed("on_close() failed", exc, face)
        finally:
            try:
                face.end_leases(self.loop, False)
            except (BufferError, MemoryError):
                pass  # too much of it is looked at still; it is over anyway
            self.part(conn)
            if face.reading is not None:
                face.wake(face.reading)
            if face.draining is not None:
                face.wake(face.draining)
        return 0

    cdef int part(self, np_conn *conn) noexcept:
        """The connection and its face go on without each other."""
        cdef PyObject *face = <PyObject*>conn.task.argument
        if face is not NULL:
            conn.task.argument = NULL
            (<Connection>face).conn = NULL
            Py_DECREF(face)
        return 0

    cdef int drop_flow(self, np_conn *conn, bint unread) except -1:
        """Forgets what is unread, or unsent; not while the kernel reads it."""
        cdef np_flow *flow = np_conn_in(conn) if unread else conn.out
        cdef void *reference
        if flow is NULL or flow.sending:
            return 0
        if not flow.op:  # nobody else's from here on: letting go of an owner may run any code
            if unread:
                conn.task.context = NULL
            else:
                conn.out = NULL
        while flow.iov.count:
            reference = np_owner_drop(np_iov_pop(&flow.iov))
            if reference is not NULL:
                Py_DECREF(<PyObject*>reference)
        if not flow.op:
            np_flow_put(&self.slab, flow)
        return 0

    cdef int finish(self, np_conn *conn) except -1:
        """Of a connection that is over: closes the fd when nobody needs the struct any more."""
        cdef int fd = conn.fd
        cdef bint is_last
        if conn.task.spare or conn.out is not NULL or fd < 0 or conn.flags & NP_CONN_DIRTY \
                or np_task_is_queued(&conn.task) or np_conn_is_pinned(conn):
            return 0
        self.part(conn)
        conn.fd = -1
        if self.loop.be is not NULL:
            self.loop.ops.forget(self.loop.be, fd)
        np_sock_close(fd)
        np_conn_put(&self.slab, conn)
        self.ended_count += 1
        is_last = self.slab.live_count == 0
        try:
            if self.closed_hook is not None:
                self.closed_hook()
        finally:
            if is_last:
                self.loop.hosts.remove(self)
        return 0

    # ---- the end of the loop ------------------------------------------------------------------

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        """An operation that was in flight when the loop was closed has ended."""
        cdef np_conn *conn = np_conn_of(event.owner)
        if event.flags & NP_EV_MORE:
            return 0
        return self.ended_with_loop(conn, event.op == conn.task.spare)

    cdef int ended_with_loop(self, np_conn *conn, bint receiving) except -1:
        np_conn_pin(conn)
        try:
            if receiving:
                conn.task.spare = 0
            else:
                conn.out.op = 0
                conn.out.sending = 0
            self.forget_queues()
            self.lose(conn, None)
            self.drop_flow(conn, False)
        finally:
            unpin(self, conn)
        return 0

    cdef int forget_queues(self) except -1:
        """There is no end of a turn any more at which something could be run or sent."""
        cdef np_conn *conn
        cdef np_task *task
        while self.dirty:
            conn = np_conn_at(&self.slab, self.dirty - 1)
            self.dirty = conn.next
            conn.next = 0
            conn.flags &= ~NP_CONN_DIRTY
            if conn.flags & NP_CONN_LOST:
                self.finish(conn)
        while self.runs is not NULL:
            task = self.runs
            self.runs = task.next
            conn = <np_conn*>task  # its first member
            if np_task_claim(task, True):
                np_task_pause(task)
            if conn.flags & NP_CONN_LOST:
                self.finish(conn)
        self.last_run = NULL
        return 0


seal_types(globals())
