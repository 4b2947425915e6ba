# cython: language_level=3, freethreading_compatible=True
"""The worker of a server: the connections of one loop, and what happens to them.

    event of a connection -> its unread flow -> the handler -> its outbound flow -> end of the turn:
    one send operation for each connection that wrote, all of them in the turn's one system call

A connection is a struct np_conn (np_conn.h), and its operations lead here by their cookie. Its
beginning and its end, and who keeps the struct alive in between, are server/lifetime.pyx's subject.
"""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EAGAIN, ENOMEM
from libc.stdint cimport int64_t, uint32_t, uintptr_t

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    ECANCELED, NP_CONN_CALLED, NP_CONN_CANCELLED, NP_CONN_CHOKED, NP_CONN_CHUNK_COUNT,
    NP_CONN_CLOSING, NP_CONN_CORKED, NP_CONN_DIRTY, NP_CONN_EOF, NP_CONN_FULL, NP_CONN_LOST,
    NP_CONN_OPEN, NP_CONN_PAUSED, NP_CONN_SHUT, NP_EV_MORE, NP_EV_NONEMPTY, NP_EV_NO_ZC, NP_IOV_MAX,
    NP_OP_POLL, NP_OP_RECV, NP_OP_SEND, NP_OWNER_BUF, NP_OWNER_MASK, NP_POLL_KEEP, NP_TASK_PUSH,
    PyObject, PyObject_CallOneArg, Py_DECREF, np_buf, np_buf_hold, np_bufring,
    np_bufring_free_count, np_chunk, np_conn, np_conn_at, np_conn_in, np_conn_of, np_conn_pin,
    np_conn_slab_close, np_conn_slab_init, np_event, np_flow, np_flow_at, np_flow_gather,
    np_flow_get, np_flow_push, np_flow_put, np_flow_shed, np_head, np_iov_advance, np_owner_drop,
    np_sock_close, np_sock_sendfile, np_sock_shutdown, np_task, np_task_claim, np_task_pause,
    np_task_wake)
from netpoll._native.failing cimport os_error, reraise
from netpoll._native.limits cimport BULK_ENTER_BYTES, FILE_BUDGET_BYTES, REST_COPY_BYTES
from netpoll._native.poll cimport POLLOUT
from netpoll._native.seal cimport seal_types
from netpoll._native.server.bulk cimport Receiver
from netpoll._native.server.connection cimport Connection, Driver, FileSpan, unpin
from netpoll._native.server.idle cimport WHEEL_IDLE_TICKS, Wheel
from netpoll._native.server.session cimport Session, make_session

import errno

cdef enum:
    SHUT_WR = 1


cdef class Worker(Receiver):
    """The connections that one loop serves.

    options: max_pending_bytes, max_unread_bytes, max_retained_bytes, idle_timeout_s (None: never),
    when_full ("close" or "raise"), pool: a function that gives the BufferPool.
    """

    def __cinit__(self, Loop loop, handler, bint is_session, on_connect, on_close, dict options):
        self.loop = loop
        self.handler = handler
        self.is_session = is_session
        self.on_connect = on_connect
        self.on_close = on_close
        self.max_pending_bytes = options["max_pending_bytes"]
        self.max_unread_bytes = options["max_unread_bytes"]
        self.max_retained_bytes = options["max_retained_bytes"]
        self.raises_when_full = options["when_full"] == "raise"
        self.make_pool = options["pool"]
        self.may_ship = loop.backend == "uring"
        self.closed_hook = options["ended"]
        self.sessions = set()
        self.dealt = []
        np_conn_slab_init(&self.slab)
        idle_timeout_s = options["idle_timeout_s"]
        if idle_timeout_s is not None:
            self.wheel = Wheel.__new__(Wheel)
            self.wheel.slab = &self.slab
            self.tick_s = idle_timeout_s / WHEEL_IDLE_TICKS

    def __dealloc__(self):
        np_conn_slab_close(&self.slab, True)
        if self.spare is not NULL:
            Py_DECREF(self.spare)

    def _start(self):
        """In the loop's thread, before the first connection."""
        self.thread_id = PyThread_get_thread_ident()
        self.loop.keepers.append(self)
        if self.wheel is not None:
            self.ticker = self.loop.call_later(self.tick_s, self._on_tick)

    # ---- birth --------------------------------------------------------------------------------

    def _adopt_dealt(self):
        while self.dealt:
            self.adopt(self.dealt.pop(0))

    cdef int close_dealt(self) except -1:
        while self.dealt:
            self.ended_count += 1
            np_sock_close(self.dealt.pop(0))
        return 0

    cdef Connection adopt_quietly(self, int fd):
        cdef Connection face
        self.dealt_count += 1
        cdef np_conn *conn = self.begin(fd)
        if conn is NULL:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the server takes no connections now")
        try:
            face = self.face_of(conn)
        finally:
            unpin(self, conn)
        return face

    cdef int adopt(self, int fd) except -1:
        cdef np_conn *conn = self.begin(fd)
        if conn is not NULL:
            try:
                self.announce(conn)
            finally:
                unpin(self, conn)
        return 0

    cdef int announce(self, np_conn *conn) except -1:
        """The connection is the user's from now on."""
        if self.on_connect is None and not self.is_session:
            return 0
        cdef Connection face = self.face_of(conn)
        if conn.flags & NP_CONN_LOST:
            return 0
        conn.flags |= NP_CONN_CALLED
        try:
            if self.on_connect is not None:
                self.on_connect(face)
            if self.is_session and not conn.flags & NP_CONN_LOST:
                self.begin_session(face)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.handler_failed("on_connect() failed", exc, face)
            self.lose(conn, exc)
        finally:
            conn.flags &= ~NP_CONN_CALLED
            self.after_handler(conn, face)
        return 0

    def begin_session(self, Connection face):
        cdef Session session = make_session(self, face, self.handler(face))
        self.sessions.add(session)
        session.run()

    cdef int session_ended(self, Driver session, object error) except -1:
        self.sessions.discard(session)
        if error is not None:
            self.handler_failed("a session failed", error, (<Session>session).connection)
        return 0

    # ---- receiving ----------------------------------------------------------------------------

    cdef int stop_reading(self, np_conn *conn) except -1:
        if conn.task.spare and not conn.flags & NP_CONN_CANCELLED:
            conn.flags |= NP_CONN_CANCELLED
            self.loop.cancel(conn.task.spare)
        return 0

    cdef int read_again(self, np_conn *conn) except -1:
        """Receiving goes on, if nothing speaks against it; what waits to be read is delivered."""
        if conn.flags & (NP_CONN_PAUSED | NP_CONN_CHOKED | NP_CONN_FULL | NP_CONN_LOST
                         | NP_CONN_CLOSING):
            return 0
        if np_conn_in(conn) is not NULL and not self.is_session \
                and not conn.flags & NP_CONN_CALLED:
            self.queue_run(conn)
        if not conn.task.spare and not conn.flags & NP_CONN_EOF:
            self.start_reading(conn)
        return 0

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        cdef np_conn *conn = np_conn_of(event.owner)
        np_conn_pin(conn)
        try:
            return self.happened(conn, event)
        finally:
            unpin(self, conn)

    cdef int happened(self, np_conn *conn, np_event *event) except -1:
        if event.kind == NP_OP_RECV:
            if not event.flags & NP_EV_MORE:
                conn.task.spare = 0
            if event.res >= BULK_ENTER_BYTES:
                self.measured(conn, event.res)
            return self.received(conn, event)
        if event.op == conn.task.spare:
            return self.on_readable(conn, event)
        conn.out.op = 0
        conn.out.sending = 0
        if conn.flags & NP_CONN_LOST:
            return self.drop_flow(conn, False)
        if event.kind == NP_OP_SEND:
            return self.took(conn, event.res)
        return self.flush(conn, False)  # POLL: the socket has room

    cdef int on_bytes(self, np_conn *conn, np_event *event) except -1:
        cdef np_flow *flow
        cdef np_buf *buf = event.buf
        if conn.flags & NP_CONN_CLOSING:
            return 0
        self.recv_bytes += event.res
        flow = np_conn_in(conn)
        if flow is NULL:
            flow = np_flow_get(&self.slab)
            if flow is NULL:
                return self.lose(conn, MemoryError())
            conn.task.context = flow
        if not self.buffers_count:
            self.buffers_count = np_head(self.loop.be).bufs.count
        if np_flow_push(flow, <void*>(<uintptr_t>buf + NP_OWNER_BUF), event.data, event.res) < 0:
            return self.lose(conn, MemoryError())
        np_buf_hold(buf)
        return self.arrived(conn, event.flags)

    cdef int arrived(self, np_conn *conn, int event_flags) except -1:
        """There is more in the unread flow than before."""
        if self.is_session \
                and <Py_ssize_t>np_conn_in(conn).iov.total_bytes > self.max_unread_bytes:
            conn.flags |= NP_CONN_FULL
            self.stop_reading(conn)
            self.deliver(conn)
        elif conn.flags & (NP_CONN_PAUSED | NP_CONN_CHOKED | NP_CONN_FULL):
            self.stop_reading(conn)
        elif event_flags & NP_EV_NONEMPTY and event_flags & NP_EV_MORE:
            self.queue_run(conn)  # more of it is on its way in this batch
        else:
            self.deliver(conn)
        return 0

    cdef int receive_ended(self, np_conn *conn, int res) except -1:
        """No receive is in flight any more: another one is, or will be, or the connection ends."""
        if conn.flags & (NP_CONN_CLOSING | NP_CONN_EOF):
            return 0
        if res == 0:
            return self.end_of_stream(conn)
        if res < 0 and res != -ECANCELED:
            return self.lose(conn, os_error(res))
        return self.read_again(conn)

    cdef int end_of_stream(self, np_conn *conn) except -1:
        cdef Connection face
        conn.flags |= NP_CONN_EOF
        if self.is_session:
            if conn.task.argument is not NULL:
                face = <Connection>conn.task.argument
                if face.reading is not None:
                    face.wake(face.reading)
            return 0
        if conn.flags & (NP_CONN_PAUSED | NP_CONN_CHOKED) and np_conn_in(conn) is not NULL:
            return 0  # resume_reading() delivers what is there, and then this
        if np_conn_in(conn) is not NULL:
            self.call_on_data(conn)
        return self.close_conn(conn)

    cdef int deliver(self, np_conn *conn) except -1:
        """Unread bytes to whoever wants them."""
        cdef Connection face
        if not self.is_session:
            if conn.flags & (NP_CONN_PAUSED | NP_CONN_CHOKED | NP_CONN_CLOSING):
                return 0
            self.call_on_data(conn)
            if conn.flags & NP_CONN_EOF and not conn.flags & (NP_CONN_PAUSED | NP_CONN_LOST):
                self.close_conn(conn)
            return 0
        if conn.task.argument is NULL:
            return 0
        face = <Connection>conn.task.argument
        if face.session is not None and (<Session>face.session).is_native:
            if face.reading is not None and face.reading.future is None:
                (<Session>face.session).run()
        if face.reading is not None and face.reading.future is not None:
            face.wake(face.reading)
        return 0

    cdef int call_on_data(self, np_conn *conn) except -1:
        cdef Connection face = self.face_of(conn)
        cdef PyObject *result
        if conn.flags & NP_CONN_LOST:
            return 0
        conn.flags |= NP_CONN_CALLED
        try:
            result = PyObject_CallOneArg(<PyObject*>self.handler, <PyObject*>face)
            if result is NULL:
                reraise()
            Py_DECREF(result)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.handler_failed("on_data() failed", exc, face)
            self.lose(conn, exc)
        finally:
            conn.flags &= ~NP_CONN_CALLED
            self.after_handler(conn, face)
        return 0

    cdef int after_handler(self, np_conn *conn, Connection face) except -1:
        """Leases end, what was not read is kept, and the face is let go of."""
        cdef np_flow *flow
        cdef int64_t copied_bytes
        if face.leases is not NULL and not self.is_session:
            try:
                face.end_leases(self.loop, False)
            except (BufferError, MemoryError) as exc:  # memoryviews that outlive the handler
                self.fail_conn(conn, exc)
        if conn.flags & NP_CONN_LOST:
            return 0
        flow = np_conn_in(conn)
        if flow is not NULL and flow.iov.total_bytes:
            if not self.is_session and <Py_ssize_t>flow.iov.total_bytes > self.max_unread_bytes:
                return self.lose(conn, BufferError(
                    f"the handler left {flow.iov.total_bytes} bytes unread, more than "
                    f"max_unread_bytes = {self.max_unread_bytes}"))
            if flow.iov.total_bytes <= REST_COPY_BYTES:
                copied_bytes = np_flow_shed(flow)
                if copied_bytes < 0:
                    return self.lose(conn, MemoryError())
                self.shed_bytes += copied_bytes
        self.drop_face(conn, face)
        return 0

    cdef int consumed(self, np_conn *conn) except -1:
        """Bytes were read: the flow may be empty, and a full connection may receive again."""
        cdef np_flow *flow = np_conn_in(conn)
        cdef Connection face
        conn.tick = self.tick
        if flow is not NULL and flow.iov.count == 0:
            conn.task.context = NULL
            np_flow_put(&self.slab, flow)
            flow = NULL
        if conn.flags & NP_CONN_FULL:
            face = <Connection>conn.task.argument
            if (flow is NULL or 2 * <Py_ssize_t>flow.iov.total_bytes <= self.max_unread_bytes) \
                    and face.retained_bytes <= self.max_retained_bytes:
                conn.flags &= ~NP_CONN_FULL
                self.read_again(conn)
        return 0

    # ---- the end of the turn ------------------------------------------------------------------

    cdef int mark(self) except -1:
        if not self.is_marked:
            self.loop.mark_dirty(self)
            self.is_marked = True
        return 0

    cdef int queue_run(self, np_conn *conn) except -1:
        """The connection's handler runs at the end of this turn, once."""
        if np_task_wake(&conn.task) == NP_TASK_PUSH:
            self.enqueue(&conn.task)
        return 0

    cdef int enqueue(self, np_task *task) except -1:
        task.next = NULL
        if self.last_run is NULL:
            self.runs = task
        else:
            self.last_run.next = task
        self.last_run = task
        return self.mark()

    cdef int run_queue(self) except -1:
        """Runs what is queued now; who is queued meanwhile has the next turn."""
        cdef np_task *task
        cdef np_task *last = self.last_run
        cdef np_conn *conn
        cdef bint is_last = False
        while self.runs is not NULL and not is_last:
            task = self.runs
            is_last = task is last
            conn = <np_conn*>task  # its first member
            self.runs = task.next
            if self.runs is NULL:
                self.last_run = NULL
            np_conn_pin(conn)
            try:
                if np_task_claim(task, True):
                    self.run_conn(conn)
            finally:
                unpin(self, conn)
        return 0

    cdef int run_conn(self, np_conn *conn) except -1:
        try:
            if conn.flags & NP_CONN_LOST:
                pass
            elif not self.is_session:
                if np_conn_in(conn) is not NULL:
                    self.deliver(conn)
            elif conn.task.argument is not NULL:
                self.run_session(<Connection>conn.task.argument)
        finally:
            if np_task_pause(&conn.task) == NP_TASK_PUSH:
                self.enqueue(&conn.task)
        return 0

    cdef int run_session(self, Connection face) except -1:
        if face.reading is not None and face.reading.future is not None:
            face.wake(face.reading)
        if face.session is not None:
            (<Session>face.session).run()
        return 0

    cdef int on_turn_end(self, Loop loop) except -1:
        cdef np_bufring *bufs = &np_head(loop.be).bufs
        self.is_marked = False
        if self.runs is not NULL:
            self.run_queue()
        if self.dirty:
            self.flush_dirty()
        if self.slab.flow_live_count and bufs.count \
                and np_bufring_free_count(bufs) * 8 <= bufs.count:
            self.evacuate()
        return 0

    cdef int evacuate(self) except -1:
        """The kernel is short of receive buffers: what waits in them is copied out, except what it
        is sending right now."""
        cdef uint32_t i
        cdef np_flow *flow
        cdef int64_t copied_bytes
        for i in range(self.slab.flow_chunks_count * NP_CONN_CHUNK_COUNT):
            flow = np_flow_at(&self.slab, i)
            if flow.live and flow.iov.count > flow.sending:
                copied_bytes = np_flow_shed(flow)
                if copied_bytes < 0:
                    raise MemoryError
                self.shed_bytes += copied_bytes
        return 0

    # ---- sending ------------------------------------------------------------------------------

    cdef int send_soon(self, np_conn *conn) except -1:
        if conn.out is not NULL and <Py_ssize_t>conn.out.iov.total_bytes > self.max_pending_bytes:
            conn.flags |= NP_CONN_CHOKED  # who does not read is not read from
        if conn.flags & (NP_CONN_DIRTY | NP_CONN_LOST):
            return 0
        conn.flags |= NP_CONN_DIRTY
        conn.next = self.dirty
        self.dirty = conn.index + 1
        return self.mark()

    cdef int flush_dirty(self) except -1:
        cdef uint32_t at = self.dirty
        cdef np_conn *conn
        self.dirty = 0
        try:
            while at:
                conn = np_conn_at(&self.slab, at - 1)
                at = conn.next
                self.flush_step(conn, False)
        finally:
            self.requeue(at)
        return 0

    cdef int send_now(self, np_conn *conn) except -1:
        return self.flush(conn, True)

    cdef int flush(self, np_conn *conn, bint now) except -1:
        """What was written, as one operation; `now`: by a plain call."""
        cdef np_flow *flow = conn.out
        cdef size_t total_bytes
        cdef int n
        if flow is NULL or flow.op or conn.flags & (NP_CONN_CORKED | NP_CONN_LOST):
            return 0
        n = np_flow_gather(flow, self.iov, NP_IOV_MAX, &total_bytes)
        if n == 0:
            return self.flush_file(conn) if flow.iov.count else self.all_sent(conn)
        return self.launch(conn, n, total_bytes, now)

    cdef int shipped(self, np_conn *conn, np_event *event) except -1:
        """The result of a zero-copy send; its memory is its own affair."""
        conn.out.op = 0
        conn.out.sending = 0
        if conn.flags & NP_CONN_LOST:
            return self.drop_flow(conn, False)
        return self.flush(conn, False) if event.flags & NP_EV_NO_ZC else self.took(conn, event.res)

    cdef int flush_file(self, np_conn *conn) except -1:
        cdef np_flow *flow = conn.out
        cdef np_chunk *chunk = &flow.iov.chunks[flow.iov.head]
        cdef FileSpan span = <FileSpan><void*>(<uintptr_t>chunk.owner & ~<uintptr_t>NP_OWNER_MASK)
        cdef size_t size = chunk.len_bytes - flow.iov.skip_bytes
        cdef int64_t offset = <int64_t>chunk.base + <int64_t>flow.iov.skip_bytes
        cdef int fd = conn.fd, file_fd = span.fd
        cdef ptrdiff_t sent
        if size > FILE_BUDGET_BYTES:
            size = FILE_BUDGET_BYTES
        with nogil:
            sent = np_sock_sendfile(fd, file_fd, offset, size)
        if sent == 0:
            return self.lose(conn, EOFError("a file became shorter while it was being sent"))
        if sent > 0:
            self.file_bytes += sent
        return self.took(conn, sent)

    cdef int took(self, np_conn *conn, Py_ssize_t res) except -1:
        """A send has ended: res bytes, or -errno."""
        cdef void *owners[NP_IOV_MAX]
        cdef void *reference
        cdef np_flow *flow = conn.out
        cdef int n, i
        if res < 0:
            if res == -EAGAIN or res == -ENOMEM:
                return self.wait_writable(conn)
            return self.lose(conn, os_error(<int>res))
        self.sent_bytes += res
        conn.tick = self.tick
        # A send has NP_IOV_MAX pieces at most, so that the flow is true again before the first
        # owner goes, which may run any code.
        n = np_iov_advance(&flow.iov, res, owners, NP_IOV_MAX)
        if flow.iov.count == 0:
            conn.out = NULL
            np_flow_put(&self.slab, flow)
        for i in range(n):
            reference = np_owner_drop(owners[i])
            if reference is not NULL:
                Py_DECREF(<PyObject*>reference)
        if conn.out is NULL:
            return self.all_sent(conn)
        if conn.flags & NP_CONN_CHOKED or conn.task.argument is not NULL:
            self.shrunk(conn)
        return self.send_soon(conn)

    cdef int wait_writable(self, np_conn *conn) except -1:
        try:
            conn.out.op = self.arm_op(conn, NP_OP_POLL, POLLOUT | NP_POLL_KEEP)
        except Exception as exc:
            return self.lose(conn, exc)
        return self.mark()  # a look at the ring: what waits here keeps buffers

    cdef int shrunk(self, np_conn *conn) except -1:
        """Less is pending than before: an await of drain() may end, reading may go on."""
        cdef Connection face
        cdef Py_ssize_t pending_bytes = conn.out.iov.total_bytes if conn.out is not NULL else 0
        if conn.flags & NP_CONN_CHOKED and 2 * pending_bytes <= self.max_pending_bytes:
            conn.flags &= ~NP_CONN_CHOKED
            self.read_again(conn)
        if conn.task.argument is not NULL:
            face = <Connection>conn.task.argument
            if face.draining is not None:
                face.wake(face.draining)
        return 0

    cdef int all_sent(self, np_conn *conn) except -1:
        if conn.out is not NULL and conn.out.iov.count == 0 and not conn.out.op:
            self.drop_flow(conn, False)  # of a write() of nothing
        if conn.flags & NP_CONN_CHOKED or conn.task.argument is not NULL:
            self.shrunk(conn)
        if conn.flags & NP_CONN_LOST or conn.out is not NULL:
            return 0
        if conn.flags & NP_CONN_CLOSING:
            return self.lose(conn, None)
        if conn.flags & NP_CONN_SHUT:
            np_sock_shutdown(conn.fd, SHUT_WR)
        return 0

    # ---- the end --------------------------------------------------------------------------------

    cdef int close_conn(self, np_conn *conn) except -1:
        if conn.flags & (NP_CONN_CLOSING | NP_CONN_LOST):
            return 0
        conn.flags |= NP_CONN_CLOSING
        conn.flags &= ~NP_CONN_CORKED
        self.stop_reading(conn)
        if conn.out is NULL:
            return self.lose(conn, None)
        return self.send_soon(conn)

    cdef int fail_conn(self, np_conn *conn, object error) except -1:
        cdef bint is_full
        np_conn_pin(conn)
        try:
            is_full = isinstance(error, BufferError)  # which may run code of the error's class
            if is_full and not conn.flags & NP_CONN_LOST:
                self.full_closed_count += 1
            return self.lose(conn, error)
        finally:
            unpin(self, conn)

    def _on_tick(self):
        """Ends those that made no progress for idle_timeout_s."""
        cdef np_conn *conn
        self.ticker = self.loop.call_later(self.tick_s, self._on_tick)
        self.wheel.advance()
        self.tick = self.wheel.tick
        while True:
            conn = self.wheel.pop_idle()
            if conn is NULL:
                return
            self.idle_closed_count += 1
            self.lose(conn, TimeoutError(errno.ETIMEDOUT, "no progress within idle_timeout_s"))

    # ---- stopping and reporting ---------------------------------------------------------------

    def _begin_stop(self):
        """No more connections; those that have nothing to do end now, the others when they have
        done it."""
        cdef uint32_t i
        cdef np_conn *conn
        self.is_stopping = True
        for i in range(self.slab.chunks_count * NP_CONN_CHUNK_COUNT):
            conn = np_conn_at(&self.slab, i)
            if conn.flags & NP_CONN_OPEN and conn.fd >= 0 and not self.is_session:
                self.close_conn(conn)

    def _abort_all(self):
        """Ends what is left, all of it; then raises what an on_close() has."""
        cdef uint32_t i
        cdef np_conn *conn
        failed = None
        for session in list(self.sessions):
            session.cancel()
        for i in range(self.slab.chunks_count * NP_CONN_CHUNK_COUNT):
            conn = np_conn_at(&self.slab, i)
            if conn.flags & NP_CONN_OPEN and conn.fd >= 0:
                try:
                    self.lose(conn, ConnectionAbortedError(
                        errno.ECONNABORTED, "the server stopped"))
                except BaseException as exc:
                    failed = exc
        if failed is not None:
            raise failed

    def _end(self):
        if self in self.loop.keepers:
            self.loop.keepers.remove(self)
        if self.ticker is not None:
            self.ticker.cancel()
            self.ticker = None

    @property
    def is_empty(self):
        """No connection and no session is left."""
        return self.slab.live_count == 0 and not self.sessions

    def stats(self):
        return {
            "connections": self.slab.live_count, "accepted": self.accepted_count,
            "sessions": len(self.sessions), "flows": self.slab.flow_live_count,
            "recv_bytes": self.recv_bytes, "sent_bytes": self.sent_bytes,
            "file_bytes": self.file_bytes, "copied_bytes": self.user_copied_bytes,
            "shed_bytes": self.shed_bytes, "bulk_reads": self.bulk_reads_count,
            "handler_errors": self.handler_errors_count,
            "idle_closed": self.idle_closed_count, "full_closed": self.full_closed_count,
        }


seal_types(globals(), (Worker,))
