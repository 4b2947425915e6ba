# cython: language_level=3, freethreading_compatible=True
"""What happens to a server's connections, below their handlers: how one begins, sends and ends.

    begin ──> announced ──> lose ──────────> its operations' last events ──> finish
                            on_close, once                                   fd closed, struct back

Handlers, hooks, iterators and finalisers are the user's code, and may end any connection, also the
one that they are called for. So whoever looks at a connection again after a call that may run such
code, or lose it, pins it before (np_conn_pin, np_conn.h) and unpins it after. In between the struct
stays, NP_LOST in its flags tells that it is over (np_life.h), and flows are fetched anew. What
enters from outside pins: events, the turn's queues, timers, the methods of Connection. What they
call need not.

What is written in a turn leaves at its end: one send for each connection that wrote, all of them in
the turn's one system call. A shipment is a zero-copy send: it refers to everything that the kernel
reads until the kernel says that it has let go, which may be long after the connection went on, or
ended. Whether a connection's sends ask for zero-copy at all is decided by np_zc.h, from what the
kernel reports of them.
"""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uintptr_t

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport (
    NP_CLOSING, NP_CONN_CALLED, NP_CONN_CANCELLED, NP_CONN_CHOKED, NP_CONN_CORKED, NP_CONN_DIRTY,
    NP_CONN_EOF, NP_CONN_FULL, NP_CONN_NOT_READING, NP_CONN_OPEN, NP_CONN_SHUT, NP_CONN_TIMED,
    NP_EV_MORE, NP_EV_NOTIF, NP_EV_NO_ZC, NP_IOV_MAX, NP_LOST, NP_OP_POLL, NP_OP_RECV, NP_OP_SEND,
    NP_OWNER_MASK, NP_POLL_KEEP, NP_SEND_QUIET, NP_TASK_PUSH, NP_ZC_REGISTERED_MIN_BYTES, PyObject,
    Py_DECREF, Py_INCREF, np_chunk, np_conn, np_conn_at, np_conn_cookie, np_conn_get, np_conn_in,
    np_conn_is_pinned, np_conn_of, np_conn_pin, np_conn_put, np_conn_slab_close, np_conn_slab_init,
    np_event, np_flow, np_flow_gather, np_flow_put, np_head, np_iov_advance, np_is_again, np_life,
    np_op, np_op_alloc, np_op_udata, np_region_of, np_sock_close, np_sock_reset_at_close,
    np_sock_send, np_sock_sendfile, np_sock_shutdown, np_task, np_task_claim, np_task_is_queued,
    np_task_pause, np_task_wake, np_udata, np_zc_report, np_zc_wants)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport FILE_BUDGET_BYTES, SHIPMENTS_MAX_COUNT
from netpoll._native.poll cimport POLLIN, POLLOUT
from netpoll._native.seal cimport seal_types
from netpoll._native.server.idle cimport WHEEL_IDLE_TICKS
from netpoll._native.transport.endpoint cimport last_event_of
from netpoll._native.transport.out_queue cimport forget_owner, out_clear

cdef enum:
    SHUT_WR = 1

# Has the events that somebody has met before their turn, and does nothing.
cdef Completion NOBODY = Completion.__new__(Completion)


cdef class Face:
    cdef int drained(self) except -1:
        """Less is unsent than before."""
        return 0


cdef class FileSpan:
    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            np_sock_close(self.fd)


cdef class Shipment(Completion):
    """A zero-copy send."""
    cdef Host host
    cdef np_conn *conn          # while its serial is the one below
    cdef uint32_t serial
    cdef list owners            # of the memory that the kernel reads

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        cdef np_conn *conn = self.conn
        cdef Host host = self.host
        _owners = self.owners  # what they free, they free when all else is done
        if not event.flags & NP_EV_MORE:
            self.owners = None
        if conn.serial == self.serial and conn.fd >= 0:
            np_zc_report(&conn.zc, event.flags)
            if not event.flags & NP_EV_MORE:
                conn.task.flags -= 1
        if event.flags & NP_EV_NOTIF:
            return 0
        np_conn_pin(conn)
        try:
            return host.on_sent(conn, event)
        finally:
            unpin(host, conn)

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        _owners = self.owners
        if not event.flags & NP_EV_MORE:
            self.owners = None
        if event.flags & NP_EV_NOTIF:
            return 0
        return self.host.ended_with_loop(self.conn, False)


cdef inline int put_dirty(Host host, np_conn *conn) noexcept:
    conn.next = host.dirty
    host.dirty = conn.index + 1
    return 0


cdef int flush_step(Host host, np_conn *conn, bint now) except -1:
    """Of a connection that was taken out of the list of dirty ones."""
    conn.next = 0
    conn.flags &= ~NP_CONN_DIRTY
    np_conn_pin(conn)
    try:
        if conn.flags & NP_LOST:
            pass
        elif conn.out is not NULL and conn.out.iov.count:
            host.flush(conn, now)
        else:
            host.all_sent(conn)
    finally:
        unpin(host, conn)
    return 0


cdef class Host(Completion):
    """The connections of one loop."""

    def __cinit__(self, *args, **kwargs):
        self.sessions = set()
        np_conn_slab_init(&self.slab)

    def __dealloc__(self):
        np_conn_slab_close(&self.slab, True)
        if self.spare is not NULL:
            Py_DECREF(self.spare)

    cdef bint is_its_thread(self) noexcept:
        return PyThread_get_thread_ident() == self.thread_id

    cdef int check_thread(self) except -1:
        if not self.is_its_thread():
            raise RuntimeError(
                "this connection belongs to another thread: use "
                "connection.loop.call_soon_threadsafe(connection.write, data)")
        return 0

    cdef object tls_of(self, np_conn *conn):
        """The ssl.SSLObject of a connection that speaks TLS."""
        return None

    cdef bytes certificate_of(self, np_conn *conn):
        """What the server has shown to the peer of such a connection, in DER, if that is known."""
        return None

    cdef int handler_failed(self, str message, object exc, Face face) except -1:
        self.handler_errors_count += 1
        self.loop.call_exception_handler(
            {"message": f"netpoll.Server: {message}", "exception": exc, "connection": face})
        return 0

    cdef int session_ended(self, object session, Face face, object error) except -1:
        self.sessions.discard(session)
        if error is not None:
            self.handler_failed("a session failed", error, face)
        return 0

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
            conn.flags |= np_life(NP_LOST)
            self.handler_failed("a connection cannot be read from, it is closed", exc, None)
            unpin(self, conn)
            return NULL
        if self.wheel is not None:
            conn.tick = self.tick
            self.wheel.add(conn, WHEEL_IDLE_TICKS)
        return conn

    cdef int admitted(self, int fd, object peername, object sockname) except -1:
        """A connection begins that has said whose it is: names, or None for its own."""
        np_sock_close(fd)
        return 0

    # ---- receiving ----------------------------------------------------------------------------

    cdef np_udata arm_op(self, np_conn *conn, uint8_t kind, uint32_t argument) except 0:
        """Starts an operation of a connection; its events come by the connection's cookie."""
        cdef np_op *op
        cdef np_udata udata
        cdef int err
        if self.loop.be is NULL:
            raise RuntimeError("Event loop is closed")
        op = np_op_alloc(&np_head(self.loop.be).slab, kind, conn.fd, np_conn_cookie(conn))
        if op is NULL:
            raise MemoryError("no memory for an operation")
        op.poll_mask = argument
        udata = np_op_udata(op)
        err = self.loop.ops.arm(self.loop.be, op)
        if err < 0:
            raise os_error(err)
        return udata

    cdef int arm_recv(self, np_conn *conn) except -1:
        conn.flags &= ~NP_CONN_CANCELLED
        if conn.bulk:
            conn.task.spare = self.arm_op(conn, NP_OP_POLL, POLLIN | NP_POLL_KEEP)
        else:
            conn.task.spare = self.arm_op(conn, NP_OP_RECV, 0)
        return 0

    cdef int start_reading(self, np_conn *conn) except -1:
        """arm_recv; a connection that cannot be read from is lost."""
        try:
            self.arm_recv(conn)
        except Exception as exc:
            self.lose(conn, exc)
        return 0

    cdef int stop_reading(self, np_conn *conn) except -1:
        if conn.task.spare and not conn.flags & NP_CONN_CANCELLED:
            conn.flags |= NP_CONN_CANCELLED
            self.loop.cancel(conn.task.spare)
        return 0

    cdef int read_again(self, np_conn *conn) except -1:
        """Receiving goes on, if nothing speaks against it; what waits to be read is delivered."""
        if conn.flags & NP_CONN_NOT_READING:
            return 0
        if np_conn_in(conn) is not NULL and not self.is_session \
                and not conn.flags & NP_CONN_CALLED:
            self.queue_run(conn)
        if not conn.task.spare and not conn.flags & NP_CONN_EOF:
            self.start_reading(conn)
        return 0

    cdef int hold_ends(self, np_conn *conn) except -1:
        """One reason less to receive nothing. What came meanwhile, bytes or the end, was kept from
        the handler, or a session that waits for it, and perhaps no more will come: they look."""
        if not conn.flags & NP_CONN_NOT_READING \
                and (np_conn_in(conn) is not NULL if self.is_session else conn.flags & NP_CONN_EOF):
            self.queue_run(conn)
        return self.read_again(conn)

    cdef int consumed(self, np_conn *conn) except -1:
        """Bytes were read: the flow may be empty, and a full connection may receive again."""
        cdef np_flow *flow = np_conn_in(conn)
        cdef Face face
        conn.tick = self.tick
        if flow is not NULL and flow.iov.count == 0:
            conn.task.context = NULL
            np_flow_put(&self.slab, flow)
            flow = NULL
        if conn.flags & NP_CONN_FULL:
            face = <Face>conn.task.argument
            if (flow is NULL or 2 * <Py_ssize_t>flow.iov.total_bytes <= self.unread_max_bytes) \
                    and face.retained_bytes <= self.retained_max_bytes:
                conn.flags &= ~NP_CONN_FULL
                self.hold_ends(conn)
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

    cdef int send_soon(self, np_conn *conn) except -1:
        if conn.out is not NULL and <Py_ssize_t>conn.out.iov.total_bytes > self.pending_max_bytes:
            conn.flags |= NP_CONN_CHOKED  # who does not read is not read from
        if conn.flags & (NP_CONN_DIRTY | NP_LOST):
            return 0
        conn.flags |= NP_CONN_DIRTY
        put_dirty(self, conn)
        return self.mark()

    cdef int flush_dirty(self, size_t least_bytes, bint now) except -1:
        """Sends what was written; `now`: by plain calls. Of who wrote less than least_bytes later.
        """
        cdef uint32_t at = self.dirty
        cdef np_conn *conn
        self.dirty = 0
        try:
            while at:
                conn = np_conn_at(&self.slab, at - 1)
                at = conn.next
                if least_bytes and (conn.out is NULL or conn.out.iov.total_bytes < least_bytes
                                    or conn.flags & NP_LOST):
                    put_dirty(self, conn)
                else:
                    flush_step(self, conn, now)
        finally:  # the rest, after an exception in one of them
            while at:
                conn = np_conn_at(&self.slab, at - 1)
                at = conn.next
                put_dirty(self, conn)
        return 0

    # ---- sending ------------------------------------------------------------------------------

    cdef Py_ssize_t make_room(self, np_conn *conn) except -1:
        """Sends now: perhaps only this turn has written so much. Returns how many bytes still wait;
        those of a send whose end is not known do not: it is with this turn's events, or the next's.

        Of a pinned connection, which may be over then.
        """
        cdef np_flow *flow
        cdef Py_ssize_t waiting_bytes
        cdef uint32_t i
        self.meet_send(conn)
        self.flush(conn, True)
        flow = conn.out
        if flow is NULL or conn.flags & NP_LOST:
            return 0
        waiting_bytes = flow.iov.total_bytes
        if flow.sending:
            waiting_bytes += flow.iov.skip_bytes
        for i in range(flow.sending):
            waiting_bytes -= flow.iov.chunks[(flow.iov.head + i) & (flow.iov.cap - 1)].len_bytes
        return waiting_bytes

    cdef int meet_send(self, np_conn *conn) except -1:
        """The end of its send may stand in this turn's batch, behind the event that is being looked
        at: that of a quiet one always does (np_uring_end_quiets). It is met now."""
        cdef np_event *event = NULL
        cdef np_event met
        if conn.out is not NULL and conn.out.op:
            event = last_event_of(self.loop, conn.out.op)
        if event is NULL or event.kind != NP_OP_SEND:
            return 0
        met = event[0]
        event.owner = <void*>NOBODY
        event.op = 0
        event.flags |= NP_EV_MORE  # NOBODY's reference is not the operation's
        return self.on_sent(conn, &met)

    cdef int flush(self, np_conn *conn, bint now) except -1:
        """What was written, as one operation; `now`: by a plain call."""
        cdef np_flow *flow = conn.out
        cdef size_t total_bytes
        cdef int n
        if flow is NULL or flow.op or conn.flags & (NP_CONN_CORKED | NP_LOST):
            return 0
        n = np_flow_gather(flow, self.iov, NP_IOV_MAX, &total_bytes)
        if n == 0:
            return self.flush_file(conn) if flow.iov.count else self.all_sent(conn)
        return self.launch(conn, n, total_bytes, now)

    cdef int launch(self, np_conn *conn, int n, size_t total_bytes, bint now) except -1:
        """Sends what self.iov was filled with: the first n pieces of the outbound flow."""
        cdef np_flow *flow = conn.out
        cdef int32_t res = 0
        cdef int done, how = 0
        self.launches_count += 1
        if now or self.loop._stopping:
            return self.took(conn, np_sock_send(conn.fd, self.iov, n))
        if self.may_ship and total_bytes >= NP_ZC_REGISTERED_MIN_BYTES \
                and self.ship(conn, n, total_bytes):
            return 0
        # Nobody needs to hear of the end of a send that leaves nothing behind and ends nothing.
        if <uint32_t>n == flow.iov.count and not conn.flags & (
                NP_CLOSING | NP_CONN_SHUT | NP_CONN_CHOKED) \
                and (conn.task.argument is NULL
                     or (<Face>conn.task.argument).draining is None):
            how = NP_SEND_QUIET
        done = self.loop.ops.send(self.loop.be, conn.fd, np_conn_cookie(conn), self.iov, n, how,
                                  &res, &flow.op)
        if done == 0:
            flow.sending = n
            return 0
        return self.took(conn, res if done > 0 else done)

    cdef int ship(self, np_conn *conn, int n, size_t total_bytes) except -1:
        """Sends the first n pieces by zero-copy, if that is what this connection wants.

        1: under way, or put off. 0: not wanted, or not possible now.
        """
        cdef np_flow *flow = conn.out
        cdef np_chunk *chunk
        cdef Shipment shipment
        cdef int32_t res = 0
        cdef int i, how
        cdef uint32_t launches_count = self.launches_count
        for i in range(n):
            chunk = &flow.iov.chunks[(flow.iov.head + i) & (flow.iov.cap - 1)]
            if <uintptr_t>chunk.owner & NP_OWNER_MASK:
                return 0  # received or copied memory: short-lived, and better not kept for long
        if conn.task.flags == SHIPMENTS_MAX_COUNT:
            return 0
        how = np_zc_wants(&conn.zc, total_bytes,
                          np_region_of(np_head(self.loop.be), self.iov, n) >= 0, conn.task.flags)
        if how == 0:
            return 0
        shipment = Shipment.__new__(Shipment)
        shipment.host = self
        shipment.conn = conn
        shipment.serial = conn.serial
        shipment.owners = [
            <object>flow.iov.chunks[(flow.iov.head + i) & (flow.iov.cap - 1)].owner
            for i in range(n)]
        if self.launches_count != launches_count or conn.out is not flow or flow.op:
            # To make these objects may run the garbage collector, and that anything: self.iov is
            # not what it was.
            self.send_soon(conn)
            return 1
        if self.loop.ops.send(self.loop.be, conn.fd, <void*>shipment, self.iov, n, how,
                              &res, &flow.op) != 0:
            return 0
        Py_INCREF(<PyObject*>shipment)  # the operation's
        flow.sending = n
        conn.task.flags += 1
        return 1

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

    cdef int on_sent(self, np_conn *conn, np_event *event) except -1:
        """A send has ended, or the POLL for room."""
        conn.out.op = 0
        conn.out.sending = 0
        if conn.flags & NP_LOST:
            return self.drop_flow(conn, False)
        if event.kind == NP_OP_POLL or event.flags & NP_EV_NO_ZC:
            # With what the rest of this turn writes: behind a quiet send that would wait for a
            # turn that something else has to end.
            return self.send_soon(conn)
        return self.took(conn, event.res)

    cdef int took(self, np_conn *conn, Py_ssize_t res) except -1:
        """A send has ended: res bytes, or -errno."""
        cdef void *owners[NP_IOV_MAX]
        cdef np_flow *flow = conn.out
        cdef int n, i
        if res < 0:
            if np_is_again(res) or res == -ENOMEM:
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
            forget_owner(owners[i])
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
        cdef Face face
        cdef Py_ssize_t pending_bytes = conn.out.iov.total_bytes if conn.out is not NULL else 0
        if conn.flags & NP_CONN_CHOKED and 2 * pending_bytes <= self.pending_max_bytes:
            conn.flags &= ~NP_CONN_CHOKED
            self.hold_ends(conn)
        if conn.task.argument is not NULL:
            face = <Face>conn.task.argument
            face.drained()
        return 0

    cdef int all_sent(self, np_conn *conn) except -1:
        if conn.out is not NULL and conn.out.iov.count == 0 and not conn.out.op:
            self.drop_flow(conn, False)  # of a write() of nothing
        if conn.flags & NP_CONN_CHOKED or conn.task.argument is not NULL:
            self.shrunk(conn)
        if conn.flags & NP_LOST or conn.out is not NULL:
            return 0
        if conn.flags & NP_CLOSING:
            return self.lose(conn, None)
        if conn.flags & NP_CONN_SHUT:
            np_sock_shutdown(conn.fd, SHUT_WR)
        return 0

    # ---- the end ------------------------------------------------------------------------------

    cdef int close_conn(self, np_conn *conn) except -1:
        if conn.flags & NP_CLOSING:
            return 0
        conn.flags |= np_life(NP_CLOSING)
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
            if is_full and not conn.flags & NP_LOST:
                self.full_closed_count += 1
            return self.lose(conn, error)
        finally:
            unpin(self, conn)

    cdef int lose(self, np_conn *conn, object error) except -1:
        """The connection is over. error: None, or why."""
        if conn.flags & NP_LOST:
            return 0
        conn.flags |= np_life(NP_LOST)
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
        """Whoever knows of the connection hears of its end."""
        return self.part(conn)

    cdef int part(self, np_conn *conn) noexcept:
        """The connection and its face go on without each other."""
        cdef PyObject *face = <PyObject*>conn.task.argument
        if face is not NULL:
            conn.task.argument = NULL
            (<Face>face).conn = NULL
            Py_DECREF(face)
        return 0

    cdef int drop_flow(self, np_conn *conn, bint unread) except -1:
        """Forgets what is unread, or unsent; not while the kernel reads it."""
        cdef np_flow *flow = np_conn_in(conn) if unread else conn.out
        if flow is NULL or flow.sending:
            return 0
        if not flow.op:  # nobody else's from here on: letting go of an owner may run any code
            if unread:
                conn.task.context = NULL
            else:
                conn.out = NULL
        out_clear(&flow.iov)
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
        if self.names is not None:
            self.names.pop(conn.index, None)
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
            if conn.flags & NP_LOST:
                self.finish(conn)
        while self.runs is not NULL:
            task = self.runs
            self.runs = task.next
            conn = <np_conn*>task  # its first member
            if np_task_claim(task, True):
                np_task_pause(task)
            if conn.flags & NP_LOST:
                self.finish(conn)
        self.last_run = NULL
        return 0


seal_types(globals())
