# cython: language_level=3, freethreading_compatible=True
"""The HTTP side of a connection: requests are read where they arrived, answers are written.

    unread flow -> np_http1_read, in place -> Application.begin
        -> write_head, write_data, end_answer -> outbound flow -> one send

One request is with the application at a time; those that the peer has sent behind it wait unread,
and are read when it is answered. A Wire exists while its connection has something to do: between
two requests a connection is a struct np_conn and nothing else (Service.put_back).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen

from netpoll._native.c cimport (
    NP_CONN_CHOKED, NP_CONN_EOF, NP_CONN_PAUSED, NP_OWNER_HEAP, iovec, np_iov_piece,
    np_sock_reset_at_close)
from netpoll._native.http.answer_head cimport Fields, Framing, HeadWriter, checked_fields
from netpoll._native.http.c cimport (
    NP_ANSWER_CHUNK_MAX_BYTES, NP_HTTP_DONE, NP_HTTP_EXPECTS, NP_HTTP_E_CROWDED, NP_HTTP_FULL,
    NP_HTTP_HEAD, NP_HTTP_KEEP_ALIVE, NP_HTTP_MORE, np_answer_chunk, np_answer_has_body, np_body,
    np_body_begin, np_body_is_over, np_body_parse, np_body_read, np_http1_begin, np_http1_close,
    np_http1_open, np_http1_read, np_http_default_limits, np_http_fault_of, np_http_field)
from netpoll._native.http.encoder cimport Encoder
from netpoll._native.http.request_head cimport HeaderPairs
from netpoll._native.http.request_limits cimport set_limits
from netpoll._native.limits cimport (
    HTTP_INLINE_BYTES, HTTP_PENDING_MAX_BYTES, HTTP_REQUESTS_TURN_COUNT, HTTP_SPANS_COUNT,
    HTTP_UNREAD_MAX_BYTES)
from netpoll._native.loop.awaitable cimport Awaitable, install_awaitable_slots
from netpoll._native.seal cimport seal_types
from netpoll._native.server.addresses cimport Addresses
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.host cimport FileSpan

import errno


cdef class Application:
    """Answers nothing: what a server does whose application is not known."""

    cdef int begin(self, Wire wire) except -1:
        """The head of a request is read: wire.request, in place until take_head."""
        wire.take_head()
        wire.write_whole(404, None, b"")
        return 0


cdef class Exchange:
    cdef int body_arrived(self) except -1:
        """There is more to read: of the request's body, which may have ended, or of what comes
        after a switch."""
        return 0

    cdef int disconnected(self) except -1:
        """The peer sends no more, or the connection is over (wire is None then)."""
        return 0

    cdef int finished(self, object error) except -1:
        """Its coroutine has ended, with an error or None."""
        return 0

    cdef int tick(self) except -1:
        """Once a second after a switch."""
        return 0

    cdef int stopping(self) except -1:
        """The server stops with grace, after a switch."""
        return 0


# ---- what the connections of a worker share -----------------------------------------------------

cdef class Service:
    def __cinit__(self, Application application, dict limits, str server, fields, write_lines,
                  str lines_form):
        self.application = application
        self.addresses = Addresses.__new__(Addresses)
        self.arrivals = Arrivals.__new__(Arrivals)
        self.now_tick = 1  # 0: a Wire's time has not begun
        self.limits = np_http_default_limits()
        set_limits(&self.limits, limits)
        self.header_pairs = HeaderPairs.__new__(HeaderPairs)
        self.heads = HeadWriter.__new__(HeadWriter, server, fields)
        if write_lines is not None:
            self.lines = AccessLines.__new__(AccessLines, write_lines, lines_form, self.addresses)

    cdef int put_back(self, Connection face, Wire wire) except -1:
        """Between two requests, with nothing of the next one read, nobody needs it."""
        if wire.stage != STAGE_HEAD or wire.exchange is not None or wire.request.own is not NULL \
                or face.unread_bytes():
            return 0
        face.state = None
        wire.face = None
        if self.spare is None:
            self.spare = wire
        return 0


# ---- one connection -----------------------------------------------------------------------------

def resume(Connection face):
    """It has waited for the others; what is unread is delivered at the end of this turn."""
    if face.conn is not NULL:
        face.resume_reading()


cdef class Wire:
    def __cinit__(self, Service service):
        self.service = service
        self.fields = <np_http_field*>calloc(service.limits.fields_max_count + 1,
                                             sizeof(np_http_field))
        if self.fields is NULL:
            raise MemoryError
        np_http1_open(&self.request, self.fields, &service.limits)

    def __dealloc__(self):
        np_http1_close(&self.request)
        free(self.fields)

    cdef int advance(self) except -1:
        """Reads and answers what is there, until more has to come or an answer takes longer."""
        cdef Exchange exchange      # held: its request may end within the call
        cdef Connection face = self.face
        cdef int left_count = HTTP_REQUESTS_TURN_COUNT
        if self.is_advancing:
            return 0  # whoever does it sees the next request, too
        self.is_advancing = True
        try:
            while self.stage == STAGE_HEAD and self.face is face and face.unread_bytes() \
                    and not face.closed and not face.conn.flags & NP_CONN_CHOKED:
                if left_count == 0:
                    face.pause_reading()
                    face.host.loop.soon(resume, (face,))
                    break
                left_count -= 1
                if not self.read_head():
                    break
        finally:
            self.is_advancing = False
        if self.face is not face or not face.unread_bytes():
            return 0
        if self.stage == STAGE_OVER:
            face.skip()
            self.heard_tick = self.service.now_tick
        elif self.stage == STAGE_SWITCHED:
            exchange = self.exchange
            exchange.body_arrived()
        elif self.stage == STAGE_ANSWER:
            exchange = self.exchange
            if exchange is not None and not self.has_all():
                exchange.body_arrived()
            # The next requests wait unread, up to here: who does not read does not see the end.
            if self.face is face and self.stage == STAGE_ANSWER and not self.is_done \
                    and face.unread_bytes() > HTTP_UNREAD_MAX_BYTES:
                face.pause_reading()
        return 0

    cdef bint is_paused(self) noexcept:
        return self.face.conn is not NULL and self.face.conn.flags & NP_CONN_PAUSED != 0

    cdef int read_head(self) except -1:
        """1: a request was read, and the application has it."""
        cdef size_t taken_bytes = 0
        cdef int result
        result = np_http1_read(&self.request, &self.face.unread().iov, &taken_bytes)
        if result == NP_HTTP_MORE:
            if self.since_tick == 0:
                self.since_tick = self.service.now_tick
            self.face.drop_head(taken_bytes)
            return 0
        if result < 0:
            self.refuse(result)
            return 0
        self.head_bytes = taken_bytes
        self.service.requests_count += 1
        self.stage = STAGE_ANSWER
        self.since_tick = self.service.now_tick
        self.wants_body = False
        self.has_head = self.is_done = self.is_encoded = self.is_chunked = self.is_refused = False
        self.offers_switch, self.trailers = False, None
        self.has_body = True
        self.keeps_alive = self.request.flags & NP_HTTP_KEEP_ALIVE and not self.service.is_stopping
        self.expects = self.request.flags & NP_HTTP_EXPECTS != 0
        self.left_bytes = -1
        self.status = self.sent_bytes = 0
        np_body_begin(&self.body, &self.request)
        if self.service.lines is not None:
            self.noted = self.service.lines.begin(
                self.face, &self.request, self.service.forwarded)
        if self.service.meter is not None:
            self.began_ns = self.service.meter.begin()
        if self.service.ids is not None:
            self.request_id = self.service.ids.of(&self.request)
        if self.service.coding is not None:
            self.coding = self.service.coding.accepted(&self.request)
        if self.service.arrivals.turns_away(self.face.host, self.face.conn):
            self.refuse(-NP_HTTP_E_CROWDED)
            return 0
        self.service.application.begin(self)
        if self.face is not None:
            self.take_head()
        return 1

    cdef int take_head(self) except -1:
        """The head is not looked at any more: its memory goes, and the body is next."""
        cdef size_t size = self.head_bytes
        if size:
            self.head_bytes = 0
            self.face.drop_head(size)
        return 0

    cdef int refuse(self, int fault) except -1:
        """Answers a request that has a fault, and ends: nothing is read from here any more."""
        cdef bint is_cut = self.stage == STAGE_ANSWER and not self.is_done and self.ends_with_us()
        cdef Exchange exchange
        cdef Connection face = self.face
        self.service.faults_count += 1
        if self.service.meter is not None:
            self.service.meter.refused(fault)
        self.is_refused = True
        if self.service.lines is not None and self.stage == STAGE_HEAD:
            self.noted = self.service.lines.begin(face, NULL, None)
        self.stage = STAGE_OVER
        if not self.has_head:
            self.has_head = True
            self.status = np_http_fault_of(fault).status
            self.sent_bytes = 0
            if np_answer_has_body(self.request.method, self.status):
                self.sent_bytes = strlen(np_http_fault_of(fault).sentence) + 1
            self.put_bytes(self.service.heads.fault(fault, self.request.method))
            face.pushed()
        self.settle()
        if face.unread_bytes():
            face.skip()
        exchange = self.exchange
        if exchange is not None:
            exchange.disconnected()
        return self.reset() if is_cut else self.linger()

    cdef int settle(self) except -1:
        """The answer is over, complete or not."""
        cdef Encoder encoder = self.encoder
        noted = self.noted
        if self.service.meter is not None:
            self.service.meter.end(self.request.method, self.status, &self.began_ns)
        if noted is not None:
            self.noted = None
            self.service.lines.end(noted, self.status, self.sent_bytes)
        if encoder is not None:
            self.encoder = None
            encoder.drop()
        return 0

    cdef int linger(self) except -1:
        """Ends our side, and drops what the peer still sends until it ends its own: closed with
        bytes unread, the kernel would send a reset, and the peer might never see the answer."""
        cdef Connection face = self.face
        self.stage = STAGE_OVER
        self.since_tick = self.heard_tick = self.service.now_tick
        if face is None or face.conn is NULL:
            return 0
        if face.conn.flags & NP_CONN_EOF:
            face.close()
            return 0
        face.shutdown()
        if self.is_paused():
            face.resume_reading()
        return 0

    # ---- the request's body -------------------------------------------------------------------

    cdef bint has_all(self) noexcept:
        """The whole body is read."""
        return np_body_is_over(&self.body)

    cdef bint is_here(self) noexcept:
        """What is left of the body has come, and has no fault. Nothing is read."""
        cdef iovec spans[HTTP_SPANS_COUNT]
        cdef np_body ahead = self.body
        cdef const uint8_t *piece
        cdef size_t size, taken_bytes
        cdef uint32_t i
        cdef int count, result = NP_HTTP_MORE
        for i in range(self.face.unread().iov.count if self.face.unread_bytes() else 0):
            piece = np_iov_piece(&self.face.unread().iov, i, &size)
            result = NP_HTTP_FULL
            while result == NP_HTTP_FULL:
                result = np_body_parse(&ahead, piece, size, spans, HTTP_SPANS_COUNT, &count,
                                       &taken_bytes)
                piece += taken_bytes
                size -= taken_bytes
            if result != NP_HTTP_MORE:
                break
        return result == NP_HTTP_DONE

    cdef bytes read_body(self):
        """A copy of what is there of the body; b"" when nothing is. None: it had a fault, which is
        answered."""
        cdef iovec spans[HTTP_SPANS_COUNT]
        cdef size_t taken_bytes
        cdef Py_ssize_t total_bytes
        cdef int i, count, result = NP_HTTP_FULL
        cdef char *at
        cdef Connection face = self.face
        parts = []
        while result == NP_HTTP_FULL and not self.has_all() and face is not None \
                and self.face is face and face.unread_bytes():
            result = np_body_read(&self.body, &face.unread().iov, spans, HTTP_SPANS_COUNT, &count,
                                  &taken_bytes)
            if result < 0:
                self.refuse(result)
                return None
            total_bytes = 0
            for i in range(count):
                total_bytes += spans[i].iov_len
            if total_bytes:
                data = PyBytes_FromStringAndSize(NULL, total_bytes)
                at = PyBytes_AS_STRING(data)
                for i in range(count):
                    memcpy(at, spans[i].iov_base, spans[i].iov_len)
                    at += spans[i].iov_len
                parts.append(data)
            face.drop_head(taken_bytes)
        if self.face is face and face is not None and self.is_paused() \
                and face.unread_bytes() <= HTTP_UNREAD_MAX_BYTES:
            face.resume_reading()
        if len(parts) == 1:
            return parts[0]
        return b"".join(parts)

    cdef int say_continue(self) except -1:
        """The application wants the body: a peer that waits to be asked for it is asked."""
        if self.expects:
            self.expects = False
            if not self.has_head and self.face is not None:
                self.put_bytes(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.face.pushed()
        return 0

    # ---- the answer ---------------------------------------------------------------------------

    cdef int check_open(self) except -1:
        if self.stage != STAGE_ANSWER or self.face is None or self.face.conn is NULL:
            raise ConnectionResetError("the connection of this request is over")
        return 0

    cdef int push_heap(self, uint8_t *memory, size_t size) except -1:
        """Sends memory of malloc, which is the connection's from here on."""
        try:
            self.face.push(memory + NP_OWNER_HEAP, memory, size)
        except BaseException:
            free(memory)
            raise
        self.face.pushed()
        return 0

    cdef int put_bytes(self, bytes data) except -1:
        return self.face.push_bytes(data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef int write_head(self, int status, object fields, int64_t length_bytes) except -1:
        """fields: pairs of bytes, or None. length_bytes: of the body; -1: not known."""
        return self.write(status, fields, length_bytes, None)

    cdef int write_whole(self, int status, object fields, bytes body) except -1:
        self.write(status, fields, PyBytes_GET_SIZE(body), body)
        return self.end_answer()

    cdef int write(self, int status, object fields, int64_t length_bytes, bytes body) except -1:
        """The head and, if it is known, the body, as few pieces as make sense.

        Raises ValueError for a field that would not be one, or whose length is not the body's.
        """
        cdef Py_ssize_t inline_bytes = 0
        cdef Fields told
        cdef Framing framing
        cdef uint8_t *memory
        cdef uint8_t *at
        cdef Connection face
        cdef list pairs
        if not 200 <= status <= 999 and not self.offers_switch:
            raise ValueError(f"the status of an answer is 200 to 999, not {status}")
        pairs = checked_fields(fields, &told)
        self.check_open()
        if self.has_head:
            raise RuntimeError("the head of this answer was written already")
        self.has_body = np_answer_has_body(self.request.method, status)
        if told.length_bytes >= 0 and length_bytes >= 0 and self.has_body \
                and told.length_bytes != length_bytes:
            raise ValueError(
                f"Content-Length is {told.length_bytes}, and the body has {length_bytes} bytes")
        if told.closes or self.service.is_draining:
            self.keeps_alive = False
        if not self.has_all() and not self.is_here() \
                and (body is not None or self.expects or told.length_bytes >= 0):
            self.keeps_alive = False  # what is not here yet will hardly be waited for: end_answer
        self.left_bytes = told.length_bytes if told.length_bytes >= 0 else length_bytes
        if self.request_id is not None:
            self.service.ids.tell(self.request_id, pairs, &told)
        if self.service.coding is not None:
            body = self.service.coding.begin(self, status, pairs, &told, body,
                                             body is None and length_bytes >= 0)
        self.check_open()  # both have run code, which may have ended the connection
        if body is not None and self.encoder is None and self.has_body \
                and PyBytes_GET_SIZE(body) <= HTTP_INLINE_BYTES:
            inline_bytes = PyBytes_GET_SIZE(body)
        memory = <uint8_t*>malloc(self.service.heads.max_bytes(&told) + inline_bytes)
        if memory is NULL:
            raise MemoryError
        framing = self.framing_of(status, &told)
        at = self.service.heads.put(memory, status, pairs, &told, &framing)
        if inline_bytes:
            memcpy(at, PyBytes_AS_STRING(body), inline_bytes)
            at += inline_bytes
        self.has_head = True
        self.status = status
        face = self.face
        self.push_heap(memory, at - memory)
        if body is not None:
            if self.encoder is not None:
                return self.write_data(body)
            self.left_bytes = 0
            if self.has_body:
                self.sent_bytes = PyBytes_GET_SIZE(body)
            if self.has_body and not inline_bytes and body:
                self.put_bytes(body)
                face.pushed()  # counts it: a peer that does not read is not read from
        return 0

    cdef Framing framing_of(self, int status, const Fields *told) noexcept:
        """How long the body is, and whether the connection goes on and as what. RFC 9110 8.6 and
        9112 6.1: 204 has no length; 304 and HEAD may say the one that the body would have."""
        cdef Framing framing
        framing.length_bytes = -1
        framing.is_chunked = False
        cdef bint is_known = self.has_body or told.length_bytes >= 0
        if self.request.method == NP_HTTP_HEAD and status != 304:
            # Nothing as the body of HEAD does not say that GET has none.
            is_known = is_known or self.left_bytes > 0
        if self.left_bytes >= 0 and not self.is_encoded and status != 204 and is_known:
            framing.length_bytes = self.left_bytes
        elif self.has_body and self.request.minor:
            self.is_chunked = framing.is_chunked = True
        elif self.has_body:
            self.keeps_alive = False  # of HTTP/1.0: the end of the connection is the body's
        framing.offers_switch = self.offers_switch
        framing.closes = not self.keeps_alive
        framing.keeps_alive = self.keeps_alive and not self.request.minor
        return framing

    cdef int write_switch(self, list fields) except -1:
        """101 (Switching Protocols): from here on the exchange reads and writes what it likes."""
        self.check_open()
        self.offers_switch = self.keeps_alive = True
        try:
            self.write(101, fields, -1, None)
        finally:
            self.offers_switch = False
        if self.service.meter is not None:
            self.service.meter.end(self.request.method, self.status, &self.began_ns)
        self.stage = STAGE_SWITCHED
        self.seen_pending_bytes = 0
        # What came with the handshake is delivered at the end of this turn.
        if self.is_paused():
            self.face.resume_reading()
        elif not self.is_advancing and self.face.unread_bytes():
            self.face.host.queue_run(self.face.conn)
        return 0

    cdef int write_data(self, object data) except -1:
        """A part of the body. Raises ValueError for more than Content-Length has promised."""
        cdef Encoder encoder
        if type(data) is not bytes:
            data = bytes(memoryview(data))  # its length is that of its bytes; TypeError for a str
        if not data:
            return 0
        self.check_open()
        self.promise(PyBytes_GET_SIZE(data))
        encoder = self.encoder
        if encoder is not None:
            return encoder.write(data)
        return self.put_data(data) if self.has_body else 0

    cdef int put_data(self, bytes data) except -1:
        """A part of the body as it is sent."""
        cdef uint8_t line[NP_ANSWER_CHUNK_MAX_BYTES]
        cdef uint8_t *end
        cdef Connection face = self.face
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if size == 0 or face is None:
            return 0
        self.sent_bytes += size
        try:
            if self.is_chunked:
                end = np_answer_chunk(line, size)
                self.put_bytes(PyBytes_FromStringAndSize(<char*>line, end - line))
            self.put_bytes(data)
            if self.is_chunked:
                self.put_bytes(b"\r\n")
        finally:
            face.pushed()
        return 0

    cdef int write_span(self, FileSpan span, int64_t offset, int64_t size) except -1:
        """A part of the body that is in a file: sendfile(2). One that is to be encoded is read."""
        cdef uint8_t line[NP_ANSWER_CHUNK_MAX_BYTES]
        cdef uint8_t *end
        cdef Encoder encoder
        if size == 0:
            return 0
        self.check_open()
        self.promise(size)
        encoder = self.encoder
        if encoder is not None:
            return encoder.write_span(span, offset, size)
        if not self.has_body:
            return 0
        self.sent_bytes += size
        if self.is_chunked:
            end = np_answer_chunk(line, size)
            self.put_bytes(PyBytes_FromStringAndSize(<char*>line, end - line))
        self.face.push_span(span, offset, size)
        if self.is_chunked:
            self.put_bytes(b"\r\n")
        return 0

    cdef object room(self):
        """What an application awaits that writes faster than its peer reads; None: it need not."""
        cdef Connection face = self.face
        cdef Encoder encoder = self.encoder
        cdef Room room
        wait = encoder.room() if encoder is not None else None
        if wait is not None or face is None or face.pending <= HTTP_PENDING_MAX_BYTES:
            return wait
        room = Room.__new__(Room)
        room.wire = self
        room.face = face
        return room

    cdef int wake_senders(self) except -1:
        cdef Awaitable one
        waiting = self.senders
        self.senders = None
        if waiting is not None:
            for one in waiting:
                one.resume()
        return 0

    cdef int promise(self, int64_t size) except -1:
        """So many bytes of the body are written. ValueError: more than Content-Length has said."""
        if self.left_bytes >= 0:
            if size > self.left_bytes:
                raise ValueError(
                    f"the body has {size - self.left_bytes} bytes more than its Content-Length")
            self.left_bytes -= size
        return 0

    cdef int end_answer(self) except -1:
        """All of the answer is written: the next request, or the end of the connection.

        Raises ValueError, and ends the connection, when less was written than was promised.
        """
        cdef Connection face = self.face
        cdef Encoder encoder
        if self.is_done:
            return 0
        self.is_done = True
        if face is None:
            return 0
        if self.has_body and self.left_bytes > 0:
            missing_bytes = self.left_bytes
            self.abort()
            raise ValueError(f"the body has {missing_bytes} bytes less than its Content-Length")
        encoder = self.encoder
        if encoder is not None and (not encoder.end() or self.face is not face):
            return 0
        if self.is_chunked and self.has_body:
            self.put_bytes(self.trailers or b"0\r\n\r\n")
            face.pushed()
        self.settle()
        self.exchange = None
        self.take_head()
        if not self.has_all() and self.read_body() is None:
            return 0  # its fault has closed the connection
        if not self.has_all():
            return self.linger()  # a body that nobody wanted would be read as the next request
        if not self.keeps_alive or self.service.is_stopping:
            if self.service.is_draining:
                return self.linger()  # the next request may be on its way already
            self.stage = STAGE_OVER
            face.close()
            return 0
        self.stage = STAGE_HEAD
        self.has_head = False
        self.since_tick = 0
        np_http1_begin(&self.request)
        if self.is_paused():
            face.resume_reading()  # what is unread is delivered at the end of this turn
        elif not self.is_advancing:
            if face.unread_bytes():
                face.host.queue_run(face.conn)
            elif face.conn.flags & NP_CONN_EOF:
                face.close()
            else:
                self.service.put_back(face, self)
        return 0

    cdef int fail(self) except -1:
        """The application has failed: 500, or the end of an answer that has begun."""
        if self.has_head:
            return self.abort()
        self.keeps_alive = False
        return self.write_whole(500, [(b"content-type", b"text/plain; charset=utf-8")],
                                b"Internal Server Error")

    cdef int abort(self) except -1:
        """An answer that cannot be completed must not look complete: the connection ends, with a
        reset where its end would be the body's (HTTP/1.0)."""
        cdef Connection face = self.face
        cdef bint resets = self.ends_with_us()
        if self.stage == STAGE_OVER:
            return 0  # refused: the peer still has to see why
        self.settle()
        self.stage = STAGE_OVER
        self.since_tick = self.service.now_tick
        self.keeps_alive = False
        if face is None or face.conn is NULL:
            return 0
        if resets:
            return self.reset()
        face.close()
        return 0

    cdef bint ends_with_us(self) noexcept:
        """The answer's body ends where the connection does."""
        return self.has_head and self.has_body and not self.is_chunked and self.left_bytes < 0

    cdef int reset(self) except -1:
        cdef Connection face = self.face
        self.stage = STAGE_OVER
        if face is not None and face.conn is not NULL:
            np_sock_reset_at_close(face.conn.fd)
            face.abort(ConnectionAbortedError(
                errno.ECONNABORTED, "the application has not completed its answer"))
        return 0


cdef class Room(Awaitable):
    """An await of room for more of an answer. Any number of tasks may send: one awaits the
    connection's drain(), and wakes the others, of which another one does."""

    cdef int check(self) except -1:
        """Raises what somebody is told whose answer nobody takes any more."""
        return 0

    cdef object step(self):
        cdef Connection face = self.face
        cdef Awaitable drain = self.drain
        face.host.check_thread()
        self.check()
        if drain is None and face.conn is not NULL and face.draining is not None:
            if self.wire.senders is None:
                self.wire.senders = []
            self.wire.senders.append(self)
            return self.wait_on(face.host.loop)
        if drain is None:
            drain = self.drain = face.drain()
        future = drain.step()
        if not drain.is_done:
            return future
        self.is_done = True
        self.drain = None
        self.wire.wake_senders()
        return None

    cdef int abandon(self) except -1:
        if not self.face.host.is_its_thread():
            return 0  # refused there
        drain = self.drain
        self.drain = None
        if drain is not None:
            drain.close()
            self.wire.wake_senders()  # another one takes it over
        elif self.wire.senders is not None and self in self.wire.senders:
            self.wire.senders.remove(self)
        return 0


install_awaitable_slots(Room, "send")
seal_types(globals(), (Application,))
