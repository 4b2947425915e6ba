# cython: language_level=3, freethreading_compatible=True
"""The worker of a server: receiving, and the handlers of the connections of one loop.

    event of a connection -> its unread flow -> the handler -> its outbound flow -> end of the turn

A connection is a struct np_conn (np_conn.h), and its operations lead here by their cookie. What
happens to it below its handler is server/host.pyx's subject.

A receive of BULK_ENTER_BYTES or more moves a connection to direct reads: the loop waits for
readiness, then calls recv(2) into one large buffer, hands it to the handler, and sends what that
wrote at once. The buffer is free again before the next connection is read, so that all of them pass
through the same memory, which stays in the cache; with receives that the kernel completes by
itself, the bytes of every connection that is ready lie in memory before the first of them is looked
at. A run of small reads brings a connection back.
"""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EAGAIN
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uintptr_t
from libc.string cimport memset

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    ECANCELED, NP_CLOSING, NP_CONN_CALLED, NP_CONN_CANCELLED, NP_CONN_CHOKED,
    NP_CONN_CHUNK_COUNT, NP_CONN_EOF, NP_CONN_FULL, NP_CONN_HELD, NP_CONN_OPEN, NP_CONN_PAUSED,
    NP_EV_MORE, NP_EV_NONEMPTY, NP_LOST, NP_OP_RECV, NP_OWNER_BUF, NP_TASK_PUSH, PyObject,
    PyObject_CallOneArg, Py_DECREF, np_buf, np_buf_hold, np_bufring, np_bufring_at,
    np_bufring_buf, np_bufring_close, np_bufring_consume, np_bufring_free_count,
    np_bufring_open, np_bufring_peek, np_bufring_recycle, np_bufring_rewind, np_conn,
    np_conn_at, np_conn_in, np_conn_of, np_conn_pin, np_event, np_flow, np_flow_at, np_flow_get,
    np_flow_join, np_flow_push, np_flow_shed, np_head, np_is_again, np_sock_close, np_sock_recv,
    np_task, np_task_claim, np_task_pause)
from netpoll._native.failing cimport os_error, reraise
from netpoll._native.limits cimport (
    BULK_BUF_BYTES, BULK_BUF_COUNT, BULK_ENTER_BYTES, BULK_LEAVE_BYTES, BULK_LEAVE_COUNT,
    BULK_ROOM_MIN_BYTES, CACHE_LINE_BYTES, REST_COPY_BYTES, RUSH_MIN_BYTES)
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection, drop_face, face_of
from netpoll._native.server.door cimport Doors
from netpoll._native.server.host cimport Host, unpin
from netpoll._native.server.idle cimport WHEEL_IDLE_TICKS, Wheel
from netpoll._native.server.protocol cimport Protocol
from netpoll._native.server.session cimport Session, make_session
from netpoll._native.transport.bulk_reader cimport bulk_ends

import errno

cdef class Worker(Host):
    """The connections that one loop serves.

    options: limits: a netpoll.ServerLimits; pool: a function that gives the BufferPool; ended:
    called when a connection has ended; proxies: the arguments of Doors, when a proxy makes the
    connections, or None.
    """

    def __cinit__(self, Loop loop, handler, bint is_session, on_connect, on_close, dict options):
        self.loop = loop
        self.handler = handler
        self.protocol = handler if isinstance(handler, Protocol) else None
        self.is_session = is_session
        self.on_connect = on_connect
        self.on_close = on_close
        limits = options["limits"]
        self.pending_max_bytes = limits.pending_max_bytes
        self.unread_max_bytes = limits.unread_max_bytes
        self.retained_max_bytes = limits.retained_max_bytes
        self.raises_when_full = limits.when_full == "raise"
        self.make_pool = options["pool"]
        self.may_ship = loop.backend == "uring"
        self.closed_hook = options["ended"]
        self.dealt = []
        if options["proxies"] is not None:
            networks, timeout_s = options["proxies"]
            self.doors = Doors.__new__(Doors, networks, timeout_s)
            self.names = {}
        memset(&self.bulk, 0, sizeof(self.bulk))
        if limits.idle_timeout_s is not None:
            self.wheel = Wheel.__new__(Wheel)
            self.wheel.slab = &self.slab
            self.tick_s = limits.idle_timeout_s / WHEEL_IDLE_TICKS

    def __dealloc__(self):
        np_bufring_close(&self.bulk)

    def _start(self):
        """In the loop's thread, before the first connection."""
        self.thread_id = PyThread_get_thread_ident()
        if self.wheel is not None:
            self.ticker = self.loop.call_later(self.tick_s, self._on_tick)
        if self.protocol is not None:
            self.second = self.loop.call_later(1.0, self._on_second)

    def _on_second(self):
        self.second = self.loop.call_later(1.0, self._on_second)
        self.protocol.on_tick(self)

    # ---- birth --------------------------------------------------------------------------------

    def _adopt_dealt(self):
        while self.dealt:
            self.adopt(self.dealt.pop(0))

    cdef int close_dealt(self) except -1:
        while self.dealt:
            self.ended_count += 1
            np_sock_close(self.dealt.pop(0))
        return 0

    cdef int adopt(self, int fd) except -1:
        if self.doors is not None and not self.is_stopping:
            return self.doors.enter(self, fd)
        return self.admitted(fd, None, None)

    cdef int admitted(self, int fd, object peername, object sockname) except -1:
        cdef np_conn *conn = self.begin(fd)
        if conn is not NULL:
            try:
                if peername is not None:
                    self.names[conn.index] = (conn.serial, peername, sockname)
                self.announce(conn)
            finally:
                unpin(self, conn)
        return 0

    cdef int announce(self, np_conn *conn) except -1:
        """The connection is the user's from now on."""
        if self.protocol is not None:
            self.protocol.on_begin(self, conn)
        if self.on_connect is None and not self.is_session:
            return 0
        cdef Connection face = face_of(self, conn)
        if conn.flags & NP_LOST:
            return 0
        conn.flags |= NP_CONN_CALLED
        try:
            if self.on_connect is not None:
                self.on_connect(face)
            if self.is_session and not conn.flags & NP_LOST:
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

    # ---- receiving ----------------------------------------------------------------------------

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
        return self.on_sent(conn, event)

    cdef int received(self, np_conn *conn, np_event *event) except -1:
        """What a receive brought; its end, when it is its last event (task.spare is 0 then)."""
        cdef int res = event.res
        cdef bint is_last = not event.flags & NP_EV_MORE
        try:
            if res > 0:
                self.on_bytes(conn, event)
        finally:  # on every path: who is neither read from nor ended would hang for ever
            if is_last:
                self.receive_ended(conn, res)
        return 0

    cdef int on_bytes(self, np_conn *conn, np_event *event) except -1:
        cdef np_flow *flow
        cdef np_buf *buf = event.buf
        cdef int joined
        if conn.flags & NP_CLOSING:
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
        joined = np_flow_join(flow, event.data, event.res)
        if joined < 0 or not joined and np_flow_push(
                flow, <void*>(<uintptr_t>buf + NP_OWNER_BUF), event.data, event.res) < 0:
            return self.lose(conn, MemoryError())
        if joined:
            self.shed_bytes += event.res
        else:
            np_buf_hold(buf)
        self.mark()  # a look at the ring: what waits here keeps buffers
        return self.arrived(conn, event.flags)

    cdef int arrived(self, np_conn *conn, int event_flags) except -1:
        """There is more in the unread flow than before."""
        if self.is_session \
                and <Py_ssize_t>np_conn_in(conn).iov.total_bytes > self.unread_max_bytes:
            conn.flags |= NP_CONN_FULL
            self.stop_reading(conn)
            self.deliver(conn)
        elif conn.flags & NP_CONN_HELD:
            self.stop_reading(conn)
        elif event_flags & NP_EV_NONEMPTY and event_flags & NP_EV_MORE:
            self.queue_run(conn)  # more of it is on its way in this batch
        else:
            self.deliver(conn)
        return 0

    cdef int receive_ended(self, np_conn *conn, int res) except -1:
        """No receive is in flight any more: another one is, or will be, or the connection ends."""
        if conn.flags & (NP_CLOSING | NP_CONN_EOF):
            return 0
        if res == 0:
            return self.end_of_stream(conn)
        if res < 0 and res != -ECANCELED and not np_is_again(res):
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
        if np_conn_in(conn) is not NULL and not self.is_held_up(conn):
            self.call_on_data(conn)
        if np_conn_in(conn) is not NULL and self.is_held_up(conn) or self.awaits_resume(conn):
            return 0  # when reading goes on, what is there is delivered, and then this
        return self.tell_eof(conn)

    cdef bint is_held_up(self, np_conn *conn) noexcept:
        return conn.flags & (NP_CONN_PAUSED | NP_CONN_CHOKED) != 0

    cdef bint awaits_resume(self, np_conn *conn) noexcept:
        """A handler has paused reading, for an answer that comes later, say. A protocol knows what
        to do with an end in a pause."""
        return self.protocol is None and conn.flags & NP_CONN_PAUSED != 0

    cdef int tell_eof(self, np_conn *conn) except -1:
        """All that the peer has sent was delivered: the connection closes, or what a protocol
        does."""
        cdef Connection face
        if self.protocol is None or conn.flags & NP_LOST:
            return self.close_conn(conn)
        face = face_of(self, conn)
        try:
            self.protocol.on_eof(face)
        finally:
            drop_face(self, conn, face)
        return 0

    cdef int deliver(self, np_conn *conn) except -1:
        """Unread bytes to whoever wants them."""
        cdef Connection face
        if not self.is_session:
            if conn.flags & (NP_CONN_PAUSED | NP_CONN_CHOKED | NP_CLOSING):
                return 0
            if np_conn_in(conn) is not NULL:
                self.call_on_data(conn)
            if conn.flags & NP_CONN_EOF and not conn.flags & (NP_CONN_PAUSED | NP_LOST) \
                    and not (np_conn_in(conn) is not NULL and self.is_held_up(conn)):
                self.tell_eof(conn)
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
        cdef Connection face = face_of(self, conn)
        cdef PyObject *result
        if conn.flags & NP_LOST:
            return 0
        conn.flags |= NP_CONN_CALLED
        try:
            if self.protocol is not None:
                self.protocol.on_data(face)
            else:
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
        if conn.flags & NP_LOST:
            return 0
        flow = np_conn_in(conn)
        if flow is not NULL and flow.iov.total_bytes:
            if not self.is_session and <Py_ssize_t>flow.iov.total_bytes > self.unread_max_bytes:
                return self.lose(conn, BufferError(
                    f"the handler left {flow.iov.total_bytes} bytes unread, more than "
                    f"unread_max_bytes = {self.unread_max_bytes}"))
            if flow.iov.total_bytes <= REST_COPY_BYTES:
                copied_bytes = np_flow_shed(flow)
                if copied_bytes < 0:
                    return self.lose(conn, MemoryError())
                self.shed_bytes += copied_bytes
        drop_face(self, conn, face)
        return 0

    cdef int tell_lost(self, np_conn *conn, object error) except -1:
        cdef Connection face = face_of(self, conn)
        face.error = error
        try:
            if self.protocol is not None:
                self.protocol.on_lost(face)
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

    # ---- the end of the turn ------------------------------------------------------------------

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
            if conn.flags & NP_LOST:
                pass
            elif not self.is_session:
                if np_conn_in(conn) is not NULL \
                        or self.protocol is None and conn.flags & NP_CONN_EOF:
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
        self.is_marked = True  # what comes meanwhile has the next turn, however fast a peer reads
        try:
            if self.runs is not NULL:
                self.run_queue()
            if self.dirty:
                self.flush_dirty(0, False)
        except BaseException:  # SystemExit, say: the others are not to wait for something to happen
            self.is_marked = False
            if self.runs is not NULL or self.dirty:
                self.mark()
            raise
        self.is_marked = False
        if self.dirty and loop._stopping:
            self.mark()  # no turn may follow
        elif (self.runs is not NULL or self.dirty) and not self.goes_on:
            loop.soon(self._go_on, None)
            self.goes_on = True
        if self.slab.flow_live_count and bufs.count \
                and np_bufring_free_count(bufs) * 8 <= bufs.count:
            for host in loop.hosts:  # whoever keeps them: all are short of them
                (<Worker>host).evacuate()
        return 0

    def _go_on(self):
        """The turn in which this runs has asked the kernel for events."""
        self.goes_on = False
        self.mark()

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

    # ---- direct reads -------------------------------------------------------------------------

    cdef int measured(self, np_conn *conn, int size) except -1:
        """The connection has received so much at once: it may change its way of receiving."""
        if conn.bulk == 0:
            if size < BULK_ENTER_BYTES:
                return 0
            conn.bulk = BULK_LEAVE_COUNT
        elif not bulk_ends(&conn.bulk, size >= BULK_LEAVE_BYTES):
            return 0
        return self.stop_reading(conn)  # and it starts again, the other way

    cdef int on_readable(self, np_conn *conn, np_event *event) except -1:
        """The POLL of a connection in bulk has ended."""
        conn.task.spare = 0
        if event.res < 0 or conn.flags & (NP_CONN_CANCELLED | NP_CLOSING):
            return self.receive_ended(conn, event.res if event.res < 0 else -ECANCELED)
        if not self.bulk.count and np_bufring_open(
                &self.bulk, BULK_BUF_COUNT, BULK_BUF_BYTES) < 0:
            return self.lose(conn, MemoryError())
        return self.receive_bulk(conn, event)

    cdef int receive_bulk(self, np_conn *conn, np_event *event) except -1:
        cdef uint32_t room_bytes = 0, used_bytes
        cdef ptrdiff_t size
        cdef Py_ssize_t most
        cdef int bid
        cdef int fd = conn.fd
        cdef uint8_t *into
        np_bufring_recycle(&self.bulk)
        np_bufring_rewind(&self.bulk)
        bid = np_bufring_peek(&self.bulk, BULK_ROOM_MIN_BYTES, &room_bytes)
        if bid < 0:
            self.evacuate()
            np_bufring_recycle(&self.bulk)
            bid = np_bufring_peek(&self.bulk, BULK_ROOM_MIN_BYTES, &room_bytes)
            if bid < 0:  # leases keep all of them: the loop's ring has others
                conn.bulk = 0
                return self.read_again(conn)
        into = np_bufring_at(&self.bulk, bid)
        # What is answered to one read, with what is pending already, stays below the limit of both.
        most = max(self.pending_max_bytes // 2, <Py_ssize_t>BULK_LEAVE_BYTES)
        most = min(most, <Py_ssize_t>room_bytes)
        with nogil:
            size = np_sock_recv(fd, into, most)
        if size == -EAGAIN:
            return self.read_again(conn)
        event.res = <int32_t>size
        event.data = into
        event.buf = np_bufring_buf(&self.bulk, bid)
        event.flags = 0
        if size <= 0:
            return self.received(conn, event)
        used_bytes = (<uint32_t>size + CACHE_LINE_BYTES - 1) & ~<uint32_t>(CACHE_LINE_BYTES - 1)
        np_bufring_consume(&self.bulk, bid, used_bytes,
                           room_bytes - used_bytes >= BULK_ROOM_MIN_BYTES)
        self.bulk_reads_count += 1
        # Now, so that who stops reading in the handler has something to cancel, and the struct
        # stays; the kernel looks at it when the turn ends.
        self.start_reading(conn)
        event.flags = NP_EV_MORE
        self.measured(conn, event.res)
        self.received(conn, event)
        # Much that was written leaves at once: its memory is wanted.
        return self.flush_dirty(RUSH_MIN_BYTES, True)

    # ---- idle time-outs -----------------------------------------------------------------------

    def _on_tick(self):
        """Ends those that made no progress for idle_timeout_s."""
        cdef np_conn *conn
        self.ticker = self.loop.call_later(self.tick_s, self._on_tick)
        self.wheel.advance()
        self.tick = self.wheel.tick
        if self.protocol is not None:
            self.protocol.before_idle(self)
        while True:
            conn = self.wheel.pop_idle()
            if conn is NULL:
                return
            self.idle_closed_count += 1
            self.lose(conn, TimeoutError(errno.ETIMEDOUT, "no progress within idle_timeout_s"))

    # ---- stopping and reporting ---------------------------------------------------------------

    def _begin_drain(self):
        """No more connections; those that are here leave when they like, a protocol's when it
        says so."""
        if self.protocol is not None:
            self.protocol.on_drain(self)

    def _begin_stop(self):
        """No more connections; those that have nothing to do end now, the others when they have
        done it."""
        cdef uint32_t i
        cdef np_conn *conn
        failed = None
        self.is_stopping = True
        if self.doors is not None:
            self.doors.close_all()
        if self.protocol is not None:
            self.protocol.on_stop(self)
            return
        for i in range(self.slab.chunks_count * NP_CONN_CHUNK_COUNT):
            conn = np_conn_at(&self.slab, i)
            if conn.flags & NP_CONN_OPEN and conn.fd >= 0 and not self.is_session:
                try:
                    self.close_conn(conn)
                except BaseException as exc:  # of an on_close()
                    failed = exc
        if failed is not None:
            raise failed

    def _abort_all(self):
        """Ends what is left, all of it; then raises what an on_close() has."""
        cdef uint32_t i
        cdef np_conn *conn
        failed = None
        if self.doors is not None:
            self.doors.close_all()
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
        if self.ticker is not None:
            self.ticker.cancel()
            self.ticker = None
        if self.second is not None:
            self.second.cancel()
            self.second = None

    @property
    def is_empty(self):
        """No connection and no session is left."""
        return self.slab.live_count == 0 and not self.sessions \
            and (self.doors is None or not self.doors.waiting)

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
