# cython: language_level=3, freethreading_compatible=True
"""The face of a connection: what a handler of netpoll.Server works with.

A Connection exists while somebody looks at it; the connection itself is a struct np_conn
(np_conn.h). Received bytes are read where they are; what is written is kept, not copied, and leaves
at the end of the turn in one system call.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from netpoll._native.c cimport (
    NP_CLOSING, NP_CONN_CORKED, NP_CONN_EOF, NP_CONN_PAUSED, NP_CONN_SHUT, NP_LOST, NP_OWNER_FILE,
    NP_OWNER_HEAP, PyObject, PyTypeObject, Py_INCREF, Py_REFCNT, np_conn, np_conn_in, np_conn_pin,
    np_flow, np_flow_copy, np_flow_find, np_flow_get, np_flow_move, np_flow_push)
from netpoll._native.limits cimport HIGH_WATER_DEFAULT_BYTES
from netpoll._native.loop.awaitable cimport Awaitable
from netpoll._native.memory.pool cimport Buffer, PoolBlock
from netpoll._native.seal cimport seal_types
from netpoll._native.server.host cimport FileSpan, Host, unpin
from netpoll._native.server.lease cimport Lease, Lender
from netpoll._native.server.names cimport PEER_NAME, SOCK_NAME, end_name
from netpoll._native.transport.out_queue cimport out_advance

import asyncio
import errno
import os
import warnings
from asyncio import events as aio_events
from operator import index as index_of


cdef object get_running_loop = aio_events._get_running_loop


cdef int renamed(str name, str now) except -1:
    warnings.warn(f"Connection.{name}() is {now}() now", DeprecationWarning, stacklevel=1)
    return 0


cdef bytes separated(bytes separator):
    if not separator:
        raise ValueError("Separator should be at least one-byte string")  # as asyncio says it
    return separator


cdef class Driver:
    cdef int resume(self) except -1:
        """Goes on with the coroutine, if there is one."""
        return 0


# To make a face may run the garbage collector, and with it anything.

cdef Connection face_of(Host host, np_conn *conn):
    """The object that stands for the connection; the connection refers to it from now on."""
    cdef Connection face
    if conn.task.argument is not NULL:
        return <Connection>conn.task.argument
    if host.spare is not NULL:
        face = <Connection>host.spare
        conn.task.argument = host.spare  # with its reference
        host.spare = NULL
    else:
        face = Connection.__new__(Connection)
        if conn.task.argument is not NULL:
            return <Connection>conn.task.argument
        face.host = host
        conn.task.argument = <void*>face
        Py_INCREF(<PyObject*>face)
    face.conn = conn
    return face


cdef int drop_face(Host host, np_conn *conn, Connection face) except -1:
    """A face that nobody looks at any more is kept for the next handler call."""
    # Two references: the connection's, and the caller's variable.
    if Py_REFCNT(<PyObject*>face) > 2 or face.state is not None \
            or face.session is not None or face.leases is not NULL or face.is_referred_to() \
            or conn.task.argument is not <void*>face:
        return 0
    if host.spare is NULL:
        conn.task.argument = NULL
        face.conn = NULL
        host.spare = <PyObject*>face
    return 0


@cython.final
cdef class Connection(Lender):
    """One connection of a netpoll.Server. Handlers get it; nobody makes one.

    Everything belongs to the thread of the connection's worker (`loop`); other threads go through
    loop.call_soon_threadsafe. Methods of a connection that is over raise ConnectionError.
    """

    def __init__(self):
        raise TypeError("a Connection comes from a netpoll.Server")

    cdef np_conn *live(self) except NULL:
        if self.conn is NULL:
            raise ConnectionResetError("this connection is over") from self.error
        return self.conn

    cdef np_conn *ours(self) except NULL:
        """live(), for what only the connection's own thread may do."""
        cdef np_conn *conn = self.live()
        self.host.check_thread()
        return conn

    def __repr__(self):
        if self.conn is NULL:
            return "<netpoll.Connection closed>"
        return (f"<netpoll.Connection fd={self.conn.fd} available={self.available} "
                f"pending={self.pending}>")

    # ---- reading in place ---------------------------------------------------------------------

    cdef bint is_referred_to(self) noexcept:
        """Somebody has a weak reference to it: it stands for its connection until the end."""
        return (<void**>(<char*><void*>self + WEAK_REFERENCES_OFFSET))[0] is not NULL

    cdef inline np_flow *unread(self) noexcept:
        return np_conn_in(self.conn) if self.conn is not NULL else NULL

    cdef inline Py_ssize_t unread_bytes(self) noexcept:
        cdef np_flow *flow = self.unread()
        return flow.iov.total_bytes if flow is not NULL else 0

    @property
    def available(self):
        """Bytes that are here and not read yet."""
        return self.unread_bytes()

    @property
    def at_eof(self):
        """The peer has shut its side, and nothing is left to read."""
        return self.conn is NULL or (self.conn.flags & NP_CONN_EOF and not self.unread_bytes())

    cdef Py_ssize_t wanted(self, object n) except -1:
        """min(n, what is here). n may be an object whose __index__ runs, which may read or end
        this connection; so what is here is looked at after that."""
        cdef Py_ssize_t size, there
        if n is None:
            return self.unread_bytes()
        size = n
        if size < 0:
            raise ValueError("a number of bytes must not be negative")
        there = self.unread_bytes()
        return size if size < there else there

    cdef Lease lend(self, Py_ssize_t size, bint consumes):
        cdef Lease lease = Lease.__new__(Lease)
        size = min(size, self.unread_bytes())  # to make it may have run the garbage collector
        lease.loop = self.host.loop
        lease.thread_id = self.host.thread_id
        if size:
            lease.take(self.unread(), size, consumes)
        lease.enlist(self)
        if size and consumes:
            self.host.consumed(self.conn)
        return lease

    def peek_lease(self, n=None):
        """A Lease on the next n bytes (fewer if fewer are here), which stay unread."""
        return self.lend(self.wanted(n), False)

    def lease(self, n=None):
        """A Lease on the next n bytes (fewer if fewer are here; None: all), which are now read."""
        return self.lend(self.wanted(n), True)

    def skip(self, n=None):
        """Drops the next n bytes. Returns how many there were."""
        cdef Py_ssize_t size = self.wanted(n)
        self.drop_head(size)
        return size

    def take(self, n=None):
        """A copy of the next n bytes (fewer if fewer are here; None: all)."""
        return self.copied_head(self.wanted(n))

    def lease_until(self, bytes separator not None, max_bytes=None):
        """A Lease on everything up to the separator, and it: read. None while it is not here.

        max_bytes: ValueError when so many are here without it.
        """
        cdef Py_ssize_t end = self.find(separated(separator), 0)
        if end < 0:
            if max_bytes is not None and self.unread_bytes() >= max_bytes:
                raise ValueError(f"no separator within {max_bytes} bytes")
            return None
        return self.lend(end, True)

    def take_line(self):
        r"""A copy of the next line, its b"\n" included; None while it is not complete."""
        cdef Py_ssize_t end = self.find(b"\n", 0)
        return None if end < 0 else self.copied_head(end)

    # The names that these had before: see netpoll._former.

    def peek(self, n=None):
        renamed("peek", "peek_lease")
        return self.peek_lease(n)

    def next(self, n=None):
        renamed("next", "lease")
        return self.lease(n)

    def read(self, n=None):
        renamed("read", "take")
        return self.take(n)

    def until(self, separator, max_bytes=None):
        renamed("until", "lease_until")
        return self.lease_until(separator, max_bytes)

    def readline(self):
        renamed("readline", "take_line")
        return self.take_line()

    cdef int drop_head(self, Py_ssize_t size) except -1:
        if size == 0:
            return 0
        out_advance(&self.unread().iov, size)
        return self.host.consumed(self.conn)

    cdef bytes copied_head(self, Py_ssize_t size):
        data = PyBytes_FromStringAndSize(NULL, size)
        if size:
            np_flow_copy(self.unread(), PyBytes_AS_STRING(data), size)
        self.drop_head(size)
        return data

    cdef Py_ssize_t find(self, bytes sep, Py_ssize_t start) noexcept:
        """The offset behind the first sep at or after start; -1: not here."""
        cdef np_flow *flow = self.unread()
        if flow is NULL:
            return -1
        return np_flow_find(flow, <const uint8_t*>PyBytes_AS_STRING(sep), PyBytes_GET_SIZE(sep),
                            start)

    # ---- awaiting bytes -----------------------------------------------------------------------

    def fill(self, Py_ssize_t n=1):
        """Awaits until n bytes are here, or no more will come. Gives how many there are.

        Fewer than n: the peer has ended the stream. Raises ValueError for more than the server's
        unread_max_bytes; the connection's error when it is lost.
        """
        return self._wait(WAIT_FILL, n, None)

    def read_exactly(self, Py_ssize_t n):
        """Awaits n bytes and gives a copy. asyncio.IncompleteReadError when the stream ends."""
        return self._wait(WAIT_EXACTLY, n, None)

    def read_until(self, bytes separator not None=b"\n"):
        """Awaits the separator and gives a copy of everything up to it, and it.

        b"" at the end of the stream; asyncio.IncompleteReadError when it ends within a piece,
        asyncio.LimitOverrunError when unread_max_bytes are here without the separator.
        """
        return self._wait(WAIT_UNTIL, 0, separated(separator))

    def drain(self):
        """Awaits until most of what was written has been taken by the kernel."""
        return self._wait(WAIT_DRAIN, 0, None)

    def _wait(self, int kind, Py_ssize_t n, bytes separator or None):
        if n < 0 or (self.host is not None and n > self.host.unread_max_bytes):
            raise ValueError(f"{n} bytes: at most unread_max_bytes = "
                             f"{self.host.unread_max_bytes} can wait to be read")
        cdef Wait wait = Wait.__new__(Wait)
        wait.connection = self
        wait.kind = kind
        wait.size = n
        wait.separator = separator
        return wait

    cdef int wake(self, Wait wait) except -1:
        """What an await waits for may be there: its task or coroutine looks again."""
        if wait.future is not None:
            wait.resume()
        elif self.session is not None:
            self.session.resume()
        return 0

    # ---- writing ------------------------------------------------------------------------------

    @property
    def pending(self):
        """Bytes that were written and that the kernel has not taken yet."""
        if self.conn is NULL or self.conn.out is NULL:
            return 0
        return self.conn.out.iov.total_bytes

    cdef np_flow *outbound(self) except NULL:
        """The outbound flow, now: after anything that may run Python code it is another, or there
        is none any more."""
        cdef np_conn *conn = self.live()
        if conn.flags & (NP_CONN_SHUT | NP_LOST):
            raise ConnectionError("nothing can be written after shutdown() or close()")
        if conn.flags & NP_CLOSING:
            raise ConnectionError("nothing can be written after close()")
        if conn.out is NULL:
            conn.out = np_flow_get(&self.host.slab)
            if conn.out is NULL:
                raise MemoryError
        return conn.out

    cdef np_flow *writable(self) except NULL:
        """The outbound flow, if there is room for more by policy."""
        self.ours()
        cdef np_flow *flow = self.outbound()
        if <Py_ssize_t>flow.iov.total_bytes > 2 * self.host.pending_max_bytes:
            self.make_room()
            return self.outbound()
        return flow

    cdef int make_room(self) except -1:
        """BufferError if it is the peer that takes no more."""
        cdef np_conn *conn = self.conn
        cdef Py_ssize_t waiting_bytes
        np_conn_pin(conn)
        try:
            waiting_bytes = self.host.make_room(conn)
            if waiting_bytes <= 2 * self.host.pending_max_bytes:
                return 0
            error = BufferError(
                f"the peer does not read: {waiting_bytes} bytes wait to be sent, "
                f"pending_max_bytes is {self.host.pending_max_bytes}; await drain() in time")
            if not self.host.raises_when_full:
                self.host.fail_conn(conn, error)
            raise error
        finally:
            unpin(self.host, conn)

    cdef int push(self, void *owner, const void *base, size_t size) except -1:
        if np_flow_push(self.outbound(), owner, base, size) < 0:
            raise MemoryError
        return 0

    cdef int push_data(self, object data) except -1:
        """Appends one piece. The buffer protocol may run Python code: the flow comes after it."""
        cdef PoolBlock block
        if type(data) is bytes:
            return self.push_bytes(data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if type(data) is Lease:
            return self.push_lease(<Lease>data)
        if type(data) is Buffer:
            block = (<Buffer>data).seal()
            if (<Buffer>data).length_bytes:
                self.push(<void*>block, (<Buffer>data).base, (<Buffer>data).length_bytes)
                Py_INCREF(<PyObject*>block)
            return 0
        return self.push_view(data)

    cdef int push_bytes(self, object owner, const void *base, Py_ssize_t size) except -1:
        """Memory of a bytes object: it is immutable, and kept."""
        if size:
            self.push(<void*>owner, base, size)
            Py_INCREF(<PyObject*>owner)
        return 0

    cdef int push_view(self, object data) except -1:
        cdef Py_buffer view
        cdef uint8_t *copy
        owner = data.obj if type(data) is memoryview else None
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if type(owner) is bytes:
                return self.push_bytes(owner, view.buf, view.len)
            if view.len == 0:
                return 0
            copy = <uint8_t*>malloc(view.len)
            if copy is NULL:
                raise MemoryError
            memcpy(copy, view.buf, view.len)
            self.host.user_copied_bytes += view.len
            try:
                self.push(copy + NP_OWNER_HEAP, copy, view.len)
            except BaseException:
                free(copy)
                raise
        finally:
            PyBuffer_Release(&view)
        return 0

    cdef int push_lease(self, Lease lease) except -1:
        """The lease's holds become the flow's: received memory goes straight out again."""
        with cython.critical_section(lease.loop):
            self.host.user_copied_bytes += lease.settle(self.host.loop)
            lease.move_to(self.outbound())
        return lease.end()

    cdef int pushed(self) except -1:
        return self.host.send_soon(self.conn) if self.conn is not NULL else 0

    def write(self, data):
        """Sends one piece, in order, at the end of this turn.

        bytes, memoryviews of bytes and Leases are kept, not copied; what can still change
        (bytearray, array) is copied now, and counted. Raises BufferError, and closes the
        connection, when twice pending_max_bytes wait to be sent already and the peer does not read.
        """
        self.writable()
        try:
            self.push_data(data)
        finally:
            self.pushed()

    def writev(self, pieces):
        """write() for several pieces: bytes, memoryviews, Leases, pool buffers, in any mix.

        When a piece cannot be written, or the iterable raises, those before it are written. When
        the iterable ends the connection itself, the next piece raises ConnectionError.
        """
        self.writable()
        try:
            for data in pieces:
                self.push_data(data)
        finally:
            self.pushed()

    def forward(self, Lease lease=None):
        """Sends received memory as it is; the lease ends. Without one: all that is unread here.

        The lease may come from another connection: that is a proxy.
        """
        cdef np_flow *flow = self.writable()
        cdef np_flow *unread
        cdef int err = 0
        try:
            if lease is not None:
                self.push_lease(lease)
                return
            unread = self.unread()
            if unread is not NULL:
                err = np_flow_move(unread, flow, unread.iov.total_bytes)
                self.host.consumed(self.conn)
            if err < 0:
                raise MemoryError
        finally:
            self.pushed()

    def reserve(self, Py_ssize_t n):
        """A Buffer of n bytes of the server's pool, to fill and then write().

        Raises PoolExhaustedError when no block is free: some are when sends end.
        """
        self.live()
        if self.host.pool is None:
            self.host.pool = self.host.make_pool(self.host.loop)
        return self.host.pool.reserve(n)

    def sendfile(self, file, int64_t offset=0, count=None):
        """Sends count bytes (None: to the end) of an open file from offset on, by sendfile(2).

        In order with what is written. The file may be closed at once. Returns the count.
        """
        cdef FileSpan span = FileSpan.__new__(FileSpan)
        cdef int64_t size
        fd = file if isinstance(file, int) else file.fileno()
        size = max(0, os.fstat(fd).st_size - offset)
        if count is not None:
            size = min(size, <int64_t>index_of(count))
        if offset < 0 or size < 0:
            raise ValueError("offset and count must not be negative")
        if size:
            span.fd = os.dup(fd)
            self.push_span(span, offset, size)
        else:
            self.writable()
            self.pushed()
        return size

    cdef int push_span(self, FileSpan span, int64_t offset, int64_t size) except -1:
        """The same of an open file that several answers may share."""
        self.writable()  # from here on no Python code runs
        try:
            self.push(<void*>(<uintptr_t><void*>span + NP_OWNER_FILE), <void*>offset, size)
            Py_INCREF(<PyObject*>span)
        finally:
            self.pushed()
        return 0

    def cork(self):
        """Holds back what is written until uncork()."""
        self.ours().flags |= NP_CONN_CORKED

    def uncork(self):
        """Lets what was written leave, at the end of this turn."""
        self.ours().flags &= ~NP_CONN_CORKED
        self.host.send_soon(self.conn)

    def adopt(self, sock):
        """Makes a connected socket a connection of the same worker, and returns that.

        A plain handler is called for its bytes as for those of any connection; on_connect is not.
        In a server with sessions it has none: the coroutine that adopts it awaits its bytes. The
        socket object is detached: the connection is the closer.
        """
        cdef Host host
        cdef int fd
        self.ours()
        sock.setblocking(False)
        fd = sock.detach()
        if fd < 0:
            raise ValueError("a closed socket cannot be adopted")
        host = self.host
        host.adopted_count += 1
        cdef np_conn *conn = host.begin(fd)
        if conn is NULL:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the server takes no connections now")
        try:
            return face_of(host, conn)
        finally:
            unpin(host, conn)

    # ---- flow and end -------------------------------------------------------------------------

    def pause_reading(self):
        """No on_data, and no end, before resume_reading(); a bounded number of bytes arrives."""
        cdef np_conn *conn = self.ours()
        conn.flags |= NP_CONN_PAUSED
        self.host.stop_reading(conn)

    def resume_reading(self):
        cdef np_conn *conn = self.ours()
        if conn.flags & NP_CONN_PAUSED:
            conn.flags &= ~NP_CONN_PAUSED
            self.host.hold_ends(conn)

    def shutdown(self):
        """Ends our side of the stream when everything written has left; reading goes on."""
        cdef np_conn *conn = self.ours()
        conn.flags |= NP_CONN_SHUT
        self.host.send_soon(conn)

    def close(self):
        """Stops reading; ends when everything written has left. May be called again."""
        if self.conn is not NULL:
            self.host.close_conn(self.ours())

    def abort(self, error=None):
        """Ends at once; what is unsent is dropped. on_close gets the error."""
        if self.conn is not NULL:
            self.host.fail_conn(self.ours(), error)

    @property
    def closed(self):
        """The connection is over, or close() was called."""
        return self.conn is NULL or bool(self.conn.flags & NP_CLOSING)

    @property
    def loop(self):
        """The event loop of the worker that this connection belongs to."""
        return self.host.loop

    def fileno(self):
        """The socket's number; -1 when the connection is over. It stays the connection's."""
        return self.conn.fd if self.conn is not NULL else -1

    @property
    def ssl_object(self):
        """The ssl.SSLObject of a TLS connection, for its certificate, cipher and protocol; None
        for one without TLS, or that is over."""
        return self.host.tls_of(self.conn) if self.conn is not NULL else None

    @property
    def peername(self):
        """The peer's address as socket.getpeername() gives it; None when it is gone."""
        return end_name(self.host, self.conn, PEER_NAME)

    @property
    def sockname(self):
        """Our address; None when the connection is over."""
        return end_name(self.host, self.conn, SOCK_NAME)

    cdef int drained(self) except -1:
        return 0 if self.draining is None else self.wake(self.draining)


# Where in a Connection its weak references begin.
cdef Py_ssize_t WEAK_REFERENCES_OFFSET = (<PyTypeObject*>Connection).tp_weaklistoffset


@cython.final
cdef class Wait(Awaitable):
    """An await on a connection. A session's coroutine is resumed natively; a task by a future."""

    cdef object step(self):
        cdef Connection connection = self.connection
        cdef np_conn *conn = connection.conn
        result = self.result(conn)
        if self.is_done:
            self.forget()
            return result
        if conn is NULL:
            raise ConnectionResetError("this connection is over") from connection.error
        other = connection.draining if self.kind == WAIT_DRAIN else connection.reading
        if other is not None and other is not self:
            raise RuntimeError("another await of this kind is in progress on this connection")
        if self.kind == WAIT_DRAIN:
            connection.draining = self
        else:
            connection.reading = self
            connection.host.read_again(conn)
        if connection.host.running is conn and connection.session is not None:
            self.future = None
            self.is_waiting = False
            self.is_offered = True
            return self  # what drives the session knows that we will call it
        return self.wait_on(get_running_loop())

    cdef object result(self, np_conn *conn):
        cdef Connection connection = self.connection
        cdef Py_ssize_t there = connection.unread_bytes()
        cdef bint is_over = conn is NULL or conn.flags & NP_CONN_EOF
        cdef Py_ssize_t end
        if self.kind == WAIT_DRAIN:
            if conn is NULL:
                raise ConnectionResetError("this connection is over") from connection.error
            end = connection.pending
            mark_bytes = HIGH_WATER_DEFAULT_BYTES  # as asyncio's transports have by default
            if self.size:
                mark_bytes //= 4
            self.is_done = end <= mark_bytes
            self.size = 1
            return None
        if self.kind == WAIT_UNTIL:
            end = connection.find(self.separator, self.seen_bytes)
            if end >= 0:
                self.is_done = True
                return connection.copied_head(end)
            self.seen_bytes = max(0, there - len(self.separator) + 1)
            if there >= connection.host.unread_max_bytes:
                raise asyncio.LimitOverrunError(
                    f"no separator within {there} bytes (unread_max_bytes)", there)
        elif there >= self.size:
            self.is_done = True
            return there if self.kind == WAIT_FILL else connection.copied_head(self.size)
        if not is_over:
            return None
        if conn is NULL and connection.error is not None:
            raise ConnectionResetError("this connection is over") from connection.error
        self.is_done = True
        if self.kind == WAIT_FILL:
            return there
        if there == 0 and self.kind == WAIT_UNTIL:
            return b""
        raise asyncio.IncompleteReadError(
            connection.copied_head(there), self.size if self.kind == WAIT_EXACTLY else None)

    cdef int forget(self) except -1:
        if self.connection.reading is self:
            self.connection.reading = None
        elif self.connection.draining is self:
            self.connection.draining = None
        return 0

    cdef int abandon(self) except -1:
        return self.forget()

    # A task that begins to run within a session (an eager one) gets the await too, as the session
    # would. To a task it is a future, and becomes one when it is asked to call back.

    @property
    def _asyncio_future_blocking(self):
        return True if self.is_offered else None  # None: not a future

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value):
        self.is_offered = value

    def get_loop(self):
        return self.connection.host.loop

    def add_done_callback(self, function, *, context=None):
        self.wait_on(self.connection.host.loop)
        self.future._asyncio_future_blocking = False
        self.future.add_done_callback(function, context=context)

    def cancel(self, msg=None):
        return self.future is not None and self.future.cancel(msg)

    def done(self):
        return bool(self.is_done) if self.future is None else self.future.done()


seal_types(globals())
