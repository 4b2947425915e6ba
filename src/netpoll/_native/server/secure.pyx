# cython: language_level=3, freethreading_compatible=True
"""TLS of a server's connections: what a worker does differently when it has a certificate.

In   A connection's ciphertext is decrypted out of the receive buffer, into a bytes object that is
     a piece of the unread flow: handlers read and lease it there, as they do received bytes.
Out  The outbound flow holds plaintext, as it was written, and before that at most one piece that is
     encrypted already. A batch is encrypted when the one before has left, in as few records as it
     fits in, and no faster than the socket takes it.
End  close() sends what was written, then the goodbye (close_notify), and does not wait for the
     peer's. A goodbye of the peer is an end of stream.

Which engine encrypts is tls/engine.pyx's affair.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uintptr_t
from posix.unistd cimport pread

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    NP_CONN_CHUNK_COUNT, NP_CLOSING, NP_CONN_CORKED, NP_CONN_EOF, NP_LOST, NP_CONN_OPEN,
    NP_CONN_SHUT, NP_CONN_TLS, NP_OWNER_MASK, PyObject, Py_DECREF, Py_INCREF, iovec,
    np_chunk, np_conn, np_conn_at, np_conn_in, np_event, np_flow, np_flow_get, np_flow_join,
    np_flow_push,
    np_flow_push_front, np_iov_advance, np_life, np_owner_drop, np_sock_send)
from netpoll._native.limits cimport SECURE_BATCH_BYTES, SECURE_OWNERS_COUNT, TLS_RECORD_BYTES
from netpoll._native.seal cimport seal_types
from netpoll._native.server.host cimport FileSpan
from netpoll._native.server.worker cimport Worker
from netpoll._native.tls.engine cimport TLS_AGAIN, TLS_FAILED, open_session
from netpoll._native.tls.records cimport is_file, next_record

import ssl as py_ssl


cdef tuple AGAIN_ERRORS = (py_ssl.SSLWantReadError, py_ssl.SSLWantWriteError,
                           py_ssl.SSLSyscallError)
cdef object SSLError = py_ssl.SSLError


cdef class SecureWorker(Worker):
    """A worker whose accepted connections speak TLS; those that a handler adopts do not.

    options: those of a Worker; ssl, the server's ssl.SSLContext.
    """

    def __cinit__(self, Loop loop, handler, bint is_session, on_connect, on_close, dict options):
        self.context = options["ssl"]
        self.handshake_timeout_s = options["limits"].handshake_timeout_s
        self.secured = []

    cdef object tls_of(self, np_conn *conn):
        if not conn.flags & NP_CONN_TLS:
            return None
        side = <Secured>self.secured[conn.index]
        return None if side is None else (<Secured>side).session.sslobj

    cdef bytes certificate_of(self, np_conn *conn):
        if not conn.flags & NP_CONN_TLS:
            return None
        side = <Secured>self.secured[conn.index]
        return None if side is None else (<Secured>side).session.own_certificate()

    # ---- birth and handshake ------------------------------------------------------------------

    cdef int announce(self, np_conn *conn) except -1:
        """After the handshake, which begins now."""
        cdef Secured side = Secured.__new__(Secured)
        while len(self.secured) <= <Py_ssize_t>conn.index:
            self.secured.append(None)
        self.secured[conn.index] = side
        conn.flags |= NP_CONN_TLS
        try:
            side.session = open_session(self.context, True, None)
        except Exception as exc:
            return self.broke(conn, side, exc)
        if not conn.flags & NP_LOST:
            side.timer = self.loop.call_later(
                self.handshake_timeout_s, self._handshake_is_late, conn.index, side)
        return 0

    def _handshake_is_late(self, index, Secured side):
        side.timer = None
        if self.secured[index] is side:
            self.broke(np_conn_at(&self.slab, index), side,
                       TimeoutError("no TLS handshake within handshake_timeout_s"))

    cdef int shake(self, Secured side) except -1:
        try:
            side.session.sslobj.do_handshake()
        except AGAIN_ERRORS:
            return 0
        side.is_shaken = True
        self.handshakes_count += 1
        if side.timer is not None:
            side.timer.cancel()
            side.timer = None
        return 0

    cdef int broke(self, np_conn *conn, Secured side, object error) except -1:
        """TLS has failed: the peer is told why, if there is room, and the connection is over."""
        cdef iovec alert
        cdef bytes data
        if not side.is_shaken:
            self.failed_handshakes_count += 1
        if side.session is not None and not side.cipher_bytes:
            data = side.session.take_output()
            if PyBytes_GET_SIZE(data):
                alert.iov_base = PyBytes_AS_STRING(data)
                alert.iov_len = PyBytes_GET_SIZE(data)
                np_sock_send(conn.fd, &alert, 1)
        return self.lose(conn, error)

    # ---- receiving ----------------------------------------------------------------------------

    cdef int on_bytes(self, np_conn *conn, np_event *event) except -1:
        if not conn.flags & NP_CONN_TLS:
            return Worker.on_bytes(self, conn, event)
        if conn.flags & (NP_CLOSING | NP_CONN_EOF):
            return 0  # nobody's: also what comes after the peer's goodbye
        self.recv_bytes += event.res
        return self.on_cipher(conn, event, <Secured>self.secured[conn.index])

    cdef int receive_ended(self, np_conn *conn, int res) except -1:
        cdef Secured side
        if res == 0 and conn.flags & NP_CONN_TLS and not conn.flags & NP_LOST:
            side = <Secured>self.secured[conn.index]
            if not side.is_announced:
                return self.broke(conn, side, ConnectionResetError(
                    "the peer left during the TLS handshake"))
        return Worker.receive_ended(self, conn, res)

    cdef int on_cipher(self, np_conn *conn, np_event *event, Secured side) except -1:
        cdef TlsSession session = side.session
        cdef bytes data = b""
        cdef int status = TLS_AGAIN, event_flags = event.flags
        session.feed(<const char*>event.data, event.res)
        try:
            if not side.is_shaken:
                self.shake(side)
            if side.is_shaken:
                data = session.read_all()
                status = session.status
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:  # also of an SNI callback
            return self.broke(conn, side, exc)
        finally:
            session.settle()
        if conn.flags & NP_LOST:  # by a callback of the handshake
            return 0
        if session.output_bytes():
            self.put_output(conn, side)
        if side.is_shaken and not side.is_announced:
            side.is_announced = True
            Worker.announce(self, conn)
        if conn.flags & NP_CLOSING:
            return 0
        if conn.out is not NULL and not side.cipher_bytes:
            self.send_soon(conn)  # perhaps it had to read before it could write
        if PyBytes_GET_SIZE(data):
            self.keep_plain(conn, data)
            if conn.flags & NP_LOST:
                return 0
            self.arrived(conn, event_flags)
        if status <= 1 or conn.flags & NP_CLOSING:
            return 0
        if status == TLS_FAILED:
            return self.broke(conn, side, session.error)
        self.stop_reading(conn)
        return self.end_of_stream(conn)

    cdef int keep_plain(self, np_conn *conn, bytes data) except -1:
        cdef np_flow *flow = np_conn_in(conn)
        cdef int joined
        if flow is NULL:
            flow = np_flow_get(&self.slab)
            if flow is NULL:
                return self.lose(conn, MemoryError())
            conn.task.context = flow
        joined = np_flow_join(flow, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        if joined < 0 or not joined and np_flow_push(
                flow, <void*>data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) < 0:
            return self.lose(conn, MemoryError())
        if not joined:
            Py_INCREF(<PyObject*>data)
        return 0

    # ---- sending ------------------------------------------------------------------------------

    cdef int put_output(self, np_conn *conn, Secured side) except -1:
        """What OpenSSL has to say itself. While something is on its way it waits for that."""
        if side.cipher_bytes or conn.out is not NULL and conn.out.op:
            return 0
        self.put_first(conn, side, side.session.take_output())
        return self.send_soon(conn)

    cdef int put_first(self, np_conn *conn, Secured side, bytes data) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if size == 0:
            return 0
        if conn.out is NULL:
            conn.out = np_flow_get(&self.slab)
            if conn.out is NULL:
                raise MemoryError
        if np_flow_push_front(conn.out, <void*>data, PyBytes_AS_STRING(data), size) < 0:
            raise MemoryError
        Py_INCREF(<PyObject*>data)
        side.cipher_bytes = size
        return 0

    cdef int flush(self, np_conn *conn, bint now) except -1:
        cdef np_flow *flow = conn.out
        cdef np_chunk *first
        cdef Secured side
        if not conn.flags & NP_CONN_TLS:
            return Worker.flush(self, conn, now)
        if flow is NULL or flow.op or conn.flags & (NP_CONN_CORKED | NP_LOST):
            return 0
        side = <Secured>self.secured[conn.index]
        if not side.cipher_bytes:
            if not side.is_shaken:
                return 0
            try:
                self.encrypt(conn, side)
            except Exception as exc:
                return self.broke(conn, side, exc)
            if conn.out is not flow or flow.op:
                return 0  # what it let go of ran code that has closed, or sent, already
            if not side.cipher_bytes:
                return 0 if flow.iov.count else self.all_sent(conn)
        first = &flow.iov.chunks[flow.iov.head]
        self.iov[0].iov_base = <void*>(first.base + flow.iov.skip_bytes)
        self.iov[0].iov_len = first.len_bytes - flow.iov.skip_bytes
        return self.launch(conn, 1, self.iov[0].iov_len, now)

    cdef int encrypt(self, np_conn *conn, Secured side) except -1:
        """A batch of the outbound plaintext becomes the flow's first piece."""
        cdef np_flow *flow = conn.out
        cdef TlsSession session = side.session
        cdef Py_ssize_t left = min(<Py_ssize_t>flow.iov.total_bytes, <Py_ssize_t>SECURE_BATCH_BYTES)
        cdef Py_ssize_t size, taken
        cdef const char *data = NULL
        cdef list owners = []  # they go at the end: what lets go of them may run any code
        session.begin_output(left)
        while left > 0:
            size = self.next_piece(flow, left, &data)
            taken = session.write(data, size)
            if taken == 0:
                break  # OpenSSL has to read first: with the next bytes that come
            self.encrypted_bytes += taken
            forget_head(flow, taken, owners)
            left -= taken
        return self.put_first(conn, side, session.take_output())

    cdef Py_ssize_t next_piece(self, np_flow *flow, Py_ssize_t most, const char **data) except -1:
        """Where the next bytes to be encrypted are, and how many."""
        cdef np_chunk *chunk = &flow.iov.chunks[flow.iov.head]
        cdef size_t skip_bytes = flow.iov.skip_bytes
        if is_file(chunk):
            data[0] = <const char*>self.scratch
            return self.read_file(chunk, skip_bytes,
                                  min(<Py_ssize_t>(chunk.len_bytes - skip_bytes), most))
        return next_record(&flow.iov, most, <char*>self.scratch, data)

    cdef Py_ssize_t read_file(self, np_chunk *chunk, size_t skip_bytes, Py_ssize_t size) except -1:
        cdef FileSpan span = <FileSpan><void*>(<uintptr_t>chunk.owner & ~<uintptr_t>NP_OWNER_MASK)
        cdef int64_t offset = <int64_t>chunk.base + <int64_t>skip_bytes
        size = pread(span.fd, self.scratch, min(size, <Py_ssize_t>TLS_RECORD_BYTES), offset)
        if size <= 0:
            raise EOFError("a file became shorter, or unreadable, while it was being sent")
        self.file_bytes += size
        return size

    cdef int took(self, np_conn *conn, Py_ssize_t res) except -1:
        if conn.flags & NP_CONN_TLS and res > 0:
            (<Secured>self.secured[conn.index]).cipher_bytes -= res
        return Worker.took(self, conn, res)

    cdef int all_sent(self, np_conn *conn) except -1:
        cdef Secured side
        if conn.flags & NP_CONN_TLS and not conn.flags & NP_LOST:
            side = <Secured>self.secured[conn.index]
            if conn.flags & (NP_CLOSING | NP_CONN_SHUT) and side.is_announced:
                self.say_goodbye(conn, side)
            if side.session.output_bytes():
                self.put_output(conn, side)
        return Worker.all_sent(self, conn)

    # ---- the end ------------------------------------------------------------------------------

    cdef int say_goodbye(self, np_conn *conn, Secured side) except -1:
        if side.said_goodbye:
            return 0
        side.said_goodbye = True
        try:
            side.session.sslobj.unwrap()
        except AGAIN_ERRORS:
            pass  # the peer has not said it yet, and need not
        except (SSLError, ValueError):
            pass  # it has failed already: nothing can be said any more
        return 0

    cdef int close_conn(self, np_conn *conn) except -1:
        cdef Secured side
        if conn.flags & NP_CONN_TLS and not conn.flags & NP_CLOSING:
            side = <Secured>self.secured[conn.index]
            if side.is_announced:
                conn.flags |= np_life(NP_CLOSING)
                conn.flags &= ~NP_CONN_CORKED
                self.stop_reading(conn)
                return self.send_soon(conn)  # and then the goodbye
        return Worker.close_conn(self, conn)

    cdef int lose(self, np_conn *conn, object error) except -1:
        cdef Py_ssize_t index = conn.index  # of the secured one: the struct may be gone then
        cdef Secured side = None
        if conn.flags & NP_CONN_TLS and not conn.flags & NP_LOST:
            side = <Secured>self.secured[index]
            if side is not None and side.timer is not None:
                side.timer.cancel()
                side.timer = None
        try:
            Worker.lose(self, conn, error)
        finally:
            if side is not None and self.secured[index] is side:
                self.secured[index] = None
        return 0

    cdef int tell_lost(self, np_conn *conn, object error) except -1:
        if conn.flags & NP_CONN_TLS and not (<Secured>self.secured[conn.index]).is_announced:
            return 0  # nobody knows of it
        return Worker.tell_lost(self, conn, error)

    def _begin_stop(self):
        cdef uint32_t i
        cdef np_conn *conn
        Worker._begin_stop(self)
        for i in range(self.slab.chunks_count * NP_CONN_CHUNK_COUNT):
            conn = np_conn_at(&self.slab, i)
            if conn.flags & NP_CONN_OPEN and conn.flags & NP_CONN_TLS and conn.fd >= 0 \
                    and not conn.flags & NP_LOST \
                    and not (<Secured>self.secured[conn.index]).is_announced:
                self.lose(conn, None)

    def stats(self):
        return Worker.stats(self) | {
            "handshakes": self.handshakes_count,
            "failed_handshakes": self.failed_handshakes_count,
            "encrypted_bytes": self.encrypted_bytes,
        }


cdef int forget_head(np_flow *flow, size_t size, list kept) except -1:
    """Takes size bytes off; the objects that owned them are kept."""
    cdef void *owners[SECURE_OWNERS_COUNT]
    cdef void *reference
    cdef int n, i
    while True:
        n = np_iov_advance(&flow.iov, size, owners, SECURE_OWNERS_COUNT)
        size = 0
        for i in range(n):
            reference = np_owner_drop(owners[i])
            if reference is not NULL:
                kept.append(<object>reference)
                Py_DECREF(<PyObject*>reference)
        if n < SECURE_OWNERS_COUNT:
            return 0


seal_types(globals(), (SecureWorker,))
