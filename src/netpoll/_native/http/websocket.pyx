# cython: language_level=3, freethreading_compatible=True
"""A WebSocket (RFC 6455): frames are read where they arrived, messages go to the application.

    unread flow -> np_ws_read, in place -> np_ws_unmask, into the message's own bytes
        -> messages that wait -> Socket.take
    Socket.send_message -> head and payload -> outbound flow -> one send

The payload of a frame is copied once, while it is unmasked. A message in several frames is joined
at its end. What would be too large is refused with the head of the frame, before it is kept. When
too much waits for the application, frames stay unread and the peer is not read from.

asgi_websocket.pyx and raw_websocket.pyx give a Socket to applications.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeLatin1, PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy, memset

from netpoll._native.c cimport (
    NP_CONN_EOF, np_flow, np_flow_copy, np_iov_piece)
from netpoll._native.http.c cimport (
    NP_FIELD_SEC_WEBSOCKET_EXTENSIONS, NP_FIELD_SEC_WEBSOCKET_KEY, NP_FIELD_SEC_WEBSOCKET_PROTOCOL,
    NP_FIELD_SEC_WEBSOCKET_VERSION, NP_WS_ANSWER_HEAD_MAX_BYTES, NP_WS_BINARY, NP_WS_CLOSE,
    NP_WS_CONTROL_MAX_BYTES, NP_WS_FIN, NP_WS_HEAD_MAX_BYTES, NP_WS_PING, NP_WS_PONG,
    NP_WS_PROTOCOL_ERROR, NP_WS_RSV1, NP_WS_TEXT, NP_WS_TOO_BIG, np_http1, np_http_field,
    np_utf8_check, np_utf8_is_whole, np_ws_is_close_code, np_ws_is_key, np_ws_read, np_ws_unmask,
    np_ws_write)
from netpoll._native.http.request_limits cimport ticks_of
from netpoll._native.http.request_task cimport is_of_the_end
from netpoll._native.http.wire cimport Exchange, Wire
from netpoll._native.limits cimport (
    HTTP_INLINE_BYTES, HTTP_PENDING_MAX_BYTES, WEBSOCKET_CLOSE_S, WEBSOCKET_PART_MIN_BYTES,
    WEBSOCKET_WAITING_MAX_BYTES, WEBSOCKET_WAITING_MAX_COUNT)
from netpoll._native.loop.awaitable cimport Awaitable, install_awaitable_slots
from netpoll._native.loop.ready cimport READY
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection

import base64
import errno
import hashlib
from asyncio import CancelledError
from collections import deque

# Close codes (RFC 6455 7.4.1).
cdef enum:
    NORMAL = 1000
    GOING_AWAY = 1001
    NO_CODE = 1005      # a close frame that has none; never sent
    LOST = 1006         # no close frame came; never sent
    BAD_DATA = 1007
    FAILED = 1011
    CONTROL_BIT = 8     # of an opcode

cdef bytes ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
cdef bytes VERSION = b"13"

# What the handshake's own answer says.
cdef frozenset OWN_FIELDS = frozenset((
    b"connection", b"upgrade", b"content-length", b"transfer-encoding", b"sec-websocket-accept",
    b"sec-websocket-protocol", b"sec-websocket-extensions"))


cdef class SocketRules:
    """message_max_bytes: None: any. ping_interval_s: None: no pings of ours. ping_timeout_s: in
    which they have to be answered; None: any time. agree(offers): the extension's object for an
    offer of the peer, or None."""

    def __cinit__(self, message_max_bytes, ping_interval_s, ping_timeout_s, agree):
        self.message_max_bytes = message_max_bytes or 0
        self.ping_ticks = ticks_of(ping_interval_s)
        self.pong_ticks = ticks_of(ping_timeout_s)
        self.agree = agree


# ---- the handshake ------------------------------------------------------------------------------

cdef Handshake read_handshake(const np_http1 *request):
    """Of a request that has NP_HTTP_WEBSOCKET."""
    cdef Handshake handshake = Handshake.__new__(Handshake)
    cdef const np_http_field *field
    cdef const uint8_t *value
    cdef uint32_t i
    cdef int keys_count = 0
    cdef bint is_version = False
    names = []
    offers = []
    for i in range(request.fields_count):
        field = &request.fields[i]
        value = request.base + field.value_at
        if field.id == NP_FIELD_SEC_WEBSOCKET_KEY:
            keys_count += 1
            if np_ws_is_key(value, field.value_bytes):
                key = PyBytes_FromStringAndSize(<const char*>value, field.value_bytes)
                handshake.accept = base64.b64encode(hashlib.sha1(key + ACCEPT_GUID).digest())
        elif field.id == NP_FIELD_SEC_WEBSOCKET_VERSION:
            is_version = PyBytes_FromStringAndSize(
                <const char*>value, field.value_bytes) == VERSION
        elif field.id == NP_FIELD_SEC_WEBSOCKET_PROTOCOL:
            names.append(PyUnicode_DecodeLatin1(<const char*>value, field.value_bytes, NULL))
        elif field.id == NP_FIELD_SEC_WEBSOCKET_EXTENSIONS:
            offers.append(PyUnicode_DecodeLatin1(<const char*>value, field.value_bytes, NULL))
    handshake.subprotocols = [
        name.strip() for name in ",".join(names).split(",") if name.strip()]
    handshake.offers = ", ".join(offers)
    if not is_version:
        handshake.status = 426
    elif keys_count != 1 or handshake.accept is None:
        handshake.status = 400
    return handshake


cdef class Handshake:
    """What a request says about the WebSocket that it asks for."""

    cdef int refuse(self, Wire wire) except -1:
        """Answers one that has a fault: its status says which."""
        if self.status == 426:
            wire.offers_switch = True
            return wire.write_whole(426, [(b"sec-websocket-version", VERSION)],
                                    b"WebSocket is spoken in version 13 here.\n")
        return wire.write_whole(400, None, b"Sec-WebSocket-Key is not sixteen bytes in base64.\n")


cdef int prepare(Socket socket, Wire wire, SocketRules rules, Handshake handshake,
                 object report) except -1:
    """The wire's request is this socket's from here on."""
    socket.wire = wire
    socket.host = wire.face.host
    socket.rules = rules
    socket.handshake = handshake
    socket.report = report
    socket.messages = deque()
    socket.close_code = LOST
    socket.close_reason = ""
    wire.exchange = socket
    return 0


# ---- the socket ---------------------------------------------------------------------------------

cdef class Socket(Exchange):
    """What both kinds of applications have of a WebSocket."""

    cdef int accept(self, str subprotocol, object headers) except -1:
        """101. Raises ValueError for a field that is the server's, or is none."""
        cdef Wire wire = self.wire
        fields = [(b"sec-websocket-accept", self.handshake.accept)]
        if subprotocol is not None:
            fields.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        for name, value in headers:
            name = bytes(name)
            if name.lower() in OWN_FIELDS:
                raise ValueError(f"the server has this field of a handshake: {name!r}")
            fields.append((name, bytes(value)))
        if self.state != SOCKET_ASKED:  # the iteration may have run code
            raise ConnectionResetError("this handshake is over")
        if self.rules.agree is not None and self.handshake.offers:
            self.deflate = self.rules.agree(self.handshake.offers)
            if self.deflate is not None:
                fields.append((b"sec-websocket-extensions", self.deflate.answer))
        wire.write_switch(fields)
        self.state = SOCKET_OPEN
        self.was_accepted = True
        self.since_tick = wire.service.now_tick
        self.ws.message_max_bytes = self.rules.message_max_bytes
        self.ws.compresses = self.deflate is not None
        if wire.service.is_stopping:
            return self.begin_close(GOING_AWAY, "")
        return 0

    cdef int deny(self, int status) except -1:
        """An answer in the place of the handshake's, without a body."""
        self.wire.write_whole(status, None, b"")
        return self.denied()

    cdef int denied(self) except -1:
        """Such an answer is complete."""
        self.wire = None
        return self.over(LOST, "")

    cdef int begin_close(self, int code, str reason) except -1:
        """Our close frame. What waits to be received is dropped, and what still comes."""
        cdef bytes text = reason.encode()
        if not np_ws_is_close_code(code):
            raise ValueError(f"not a close code that may be sent: {code}")
        if len(text) > NP_WS_CONTROL_MAX_BYTES - 2:
            raise ValueError(
                f"the reason of a close has at most {NP_WS_CONTROL_MAX_BYTES - 2} bytes of UTF-8")
        if self.state != SOCKET_OPEN:
            return 0
        self.write_close(code, text)
        self.state = SOCKET_CLOSING
        self.close_code = code
        self.close_reason = reason
        self.since_tick = self.wire.service.now_tick
        self.messages.clear()
        self.waiting_bytes = 0
        self.parts = None
        self.wake()
        return self.read()

    cdef int ended(self, object error, str what) except -1:
        """The application's coroutine has ended: with an error, or None."""
        cdef Wire wire
        if error is not None and not isinstance(error, CancelledError) and not (
                self.state != SOCKET_OPEN
                and (isinstance(error, ConnectionError) or is_of_the_end(error))):
            self.report(f"the {what} failed", error)
        wire = self.wire
        if wire is None:
            return 0
        if self.state == SOCKET_OPEN:
            return self.begin_close(NORMAL if error is None else FAILED, "")
        if self.state == SOCKET_ASKED and error is None:
            self.report(f"the {what} returned without an answer to the handshake", None)
        if self.state != SOCKET_ASKED:
            return 0
        self.state = SOCKET_OVER
        if wire.has_head:
            return wire.abort()
        wire.fail()
        return self.denied()

    # ---- for the application ------------------------------------------------------------------

    cdef object take(self):
        """The next message, str or bytes; None: there is none now."""
        self.host.check_thread()
        if not self.messages:
            return None
        message = self.messages.popleft()
        self.waiting_bytes -= len(message)
        self.read()
        return message

    cdef object wait(self, Awaitable one):
        """What an await returns that found no message: it is asked again when there is one, and
        when the socket's state is another."""
        if self.receivers is None:
            self.receivers = []
        self.receivers.append(one)
        return one.wait_on(self.wire.face.host.loop)

    cdef int forget(self, Awaitable one) except -1:
        """That await has ended without a message."""
        if not self.host.is_its_thread():
            return 0  # refused there
        if self.receivers is not None and one in self.receivers:
            self.receivers.remove(one)
        return 0

    cdef object send_message(self, object message):
        """Sends a str or bytes. Gives the awaitable of a send: it waits while the peer does not
        take what was sent before."""
        cdef uint8_t first = NP_WS_FIN
        cdef bytes payload
        cdef Sent sent
        cdef Connection face
        self.host.check_thread()
        if type(message) is str:
            first |= NP_WS_TEXT
            payload = (<str>message).encode()
        elif isinstance(message, (bytes, bytearray, memoryview)):
            first |= NP_WS_BINARY
            payload = message if type(message) is bytes else bytes(message)
        else:
            raise TypeError(f"a message of a WebSocket is a str or bytes, not {message!r}")
        if self.state == SOCKET_OPEN:
            face = self.wire.face
            face.writable()  # or BufferError: nobody has awaited what was sent
            if self.deflate is not None:
                compressed = self.deflate.compress(payload)
                if compressed is not None:
                    first |= NP_WS_RSV1
                    payload = compressed
        if self.state != SOCKET_OPEN:
            raise ConnectionResetError("this WebSocket is closed")
        self.write_frame(first, payload)
        if <Py_ssize_t>face.pending <= HTTP_PENDING_MAX_BYTES:
            return READY
        sent = Sent.__new__(Sent)
        sent.socket = self
        sent.wire = self.wire
        sent.face = face
        return sent

    cdef int wake(self) except -1:
        cdef Awaitable one
        waiting = self.receivers
        self.receivers = None
        if waiting is not None:
            for one in waiting:
                one.resume()
        return 0

    # ---- what the wire says -------------------------------------------------------------------

    cdef int body_arrived(self) except -1:
        if self.state == SOCKET_OPEN:
            self.since_tick = self.wire.service.now_tick  # who sends is there: no ping is due
        return self.read()

    cdef int disconnected(self) except -1:
        cdef Wire wire = self.wire
        if wire is not None and self.state == SOCKET_OPEN:
            return self.read()  # which sees the end behind what is unread
        self.over(LOST, "")
        return wire.abort() if wire is not None else 0

    cdef int stopping(self) except -1:
        return self.begin_close(GOING_AWAY, "")

    cdef int tick(self) except -1:
        """A close frame that is not answered, a ping that is due, one that is not answered."""
        cdef Wire wire = self.wire
        cdef Connection face = wire.face
        cdef uint32_t now_tick = wire.service.now_tick
        cdef uint32_t past_ticks = now_tick - self.since_tick
        if self.state == SOCKET_CLOSING:
            if past_ticks > WEBSOCKET_CLOSE_S:
                face.abort(TimeoutError(errno.ETIMEDOUT, "the peer does not close"))
        elif self.is_full():
            self.since_tick = now_tick  # a pong may be among what we do not read
        elif self.awaits_pong:
            if self.rules.pong_ticks and past_ticks > self.rules.pong_ticks:
                if face.pending:  # it does not take anything, either
                    face.abort(TimeoutError(errno.ETIMEDOUT, "the peer does not answer pings"))
                else:
                    self.write_close(FAILED, b"no answer to a ping")
                    self.over(LOST, "")
                    self.leave()
        elif self.rules.ping_ticks and past_ticks >= self.rules.ping_ticks:
            self.awaits_pong = True
            self.since_tick = now_tick
            self.write_frame(NP_WS_FIN | NP_WS_PING, b"")
        return 0

    # ---- reading ------------------------------------------------------------------------------

    cdef bint is_full(self) except -1:
        """Enough waits for the application."""
        return self.state == SOCKET_OPEN and (
            self.waiting_bytes >= WEBSOCKET_WAITING_MAX_BYTES
            or len(self.messages) >= WEBSOCKET_WAITING_MAX_COUNT)

    cdef int read(self) except -1:
        """Reads the frames that are there, as far as the application may be behind."""
        cdef Wire wire = self.wire
        cdef Connection face
        cdef int result = 1
        if self.is_reading or wire is None or wire.face is None or wire.face.conn is NULL:
            return 0  # what runs within it, such as a finaliser, may close or take a message
        face = wire.face
        self.is_reading = True
        try:
            while result > 0 and face.unread_bytes() and not self.is_full() \
                    and (self.state == SOCKET_OPEN or self.state == SOCKET_CLOSING):
                if not self.has_frame:
                    result = self.read_head(face)
                if result > 0:
                    result = self.read_payload(face)
        finally:
            self.is_reading = False
        if result < 0:
            return self.fail(-result)
        if self.state != SOCKET_OPEN and self.state != SOCKET_CLOSING or face.conn is NULL:
            return 0
        if self.is_full():
            if not wire.is_paused():
                face.pause_reading()
        elif face.conn.flags & NP_CONN_EOF:
            self.over(LOST, "")
            wire.abort()
        elif wire.is_paused():
            face.resume_reading()
        return 0

    cdef int read_head(self, Connection face) except -1:
        """1: the head of a frame was read; 0: not all of it is there; a negative close code."""
        cdef uint8_t head[NP_WS_HEAD_MAX_BYTES]
        cdef size_t size = min(face.unread_bytes(), <Py_ssize_t>NP_WS_HEAD_MAX_BYTES)
        cdef int result
        np_flow_copy(face.unread(), head, size)
        result = np_ws_read(&self.ws, &self.frame, head, size)
        if result <= 0:
            return result
        face.drop_head(result)
        self.has_frame = True
        self.payload_at = 0
        if self.frame.opcode == NP_WS_TEXT or self.frame.opcode == NP_WS_BINARY:
            self.opcode = self.frame.opcode
            self.is_compressed = self.frame.is_compressed
            self.parts = []
            memset(&self.utf8, 0, sizeof(self.utf8))
        self.payload = None
        if self.state == SOCKET_OPEN or self.frame.opcode & CONTROL_BIT:
            # Memory that is not written to yet is only promised by the system.
            try:
                self.payload = PyBytes_FromStringAndSize(NULL, self.frame.payload_bytes)
            except (MemoryError, OverflowError):  # without a limit of ours
                return -NP_WS_TOO_BIG
        return 1

    cdef int read_payload(self, Connection face) except -1:
        """1: the frame is complete, and done; 0: not all of it is there; a negative close code."""
        cdef uint64_t left_bytes = self.frame.payload_bytes - self.payload_at
        cdef size_t size = min(left_bytes, <uint64_t>face.unread_bytes())
        cdef uint64_t before = self.payload_at
        if size:
            if self.payload is not None:
                self.unmask(face, size)
            self.payload_at += size
            face.drop_head(size)
            if self.payload is not None and self.opcode == NP_WS_TEXT and not self.is_compressed \
                    and not self.frame.opcode & CONTROL_BIT and not np_utf8_check(
                        &self.utf8, <const uint8_t*>PyBytes_AS_STRING(self.payload) + before, size):
                return -BAD_DATA
        if size < left_bytes:
            return 0
        self.has_frame = False
        return self.end_frame()

    cdef int unmask(self, Connection face, size_t size) except -1:
        """Copies the next bytes of the payload to their place, without their mask."""
        cdef np_flow *flow = face.unread()
        cdef uint8_t *to = <uint8_t*>PyBytes_AS_STRING(self.payload)
        cdef uint64_t at = self.payload_at
        cdef const uint8_t *piece
        cdef size_t piece_bytes
        cdef uint32_t i = 0
        while size:
            piece = np_iov_piece(&flow.iov, i, &piece_bytes)
            piece_bytes = min(piece_bytes, size)
            np_ws_unmask(to + at, piece, piece_bytes, self.frame.key, at)
            at += piece_bytes
            size -= piece_bytes
            i += 1
        return 0

    cdef int end_frame(self) except -1:
        """All of a frame is there: 1, or a negative close code."""
        cdef bytes payload = self.payload
        self.payload = None
        if self.frame.opcode == NP_WS_PING:
            if self.state == SOCKET_OPEN:
                self.write_frame(NP_WS_FIN | NP_WS_PONG, payload)
        elif self.frame.opcode == NP_WS_PONG:
            if self.awaits_pong:
                self.awaits_pong = False
                self.since_tick = self.wire.service.now_tick
        elif self.frame.opcode == NP_WS_CLOSE:
            return self.peer_closes(payload)
        elif self.state == SOCKET_OPEN:
            self.keep(payload)
            if self.frame.is_final:
                return self.end_message()
        return 1

    cdef int keep(self, bytes payload) except -1:
        """Of a message that goes on. Small parts are joined as they come, and empty ones are not
        kept: a list of them would take many times what the limit of a message allows."""
        if PyBytes_GET_SIZE(payload) >= WEBSOCKET_PART_MIN_BYTES or self.frame.is_final:
            self.parts.append(payload)
        elif payload:
            if not self.parts or type(self.parts[-1]) is not bytearray:
                self.parts.append(bytearray())
            (<bytearray>self.parts[-1]).extend(payload)
        return 0

    cdef int end_message(self) except -1:
        """All of a message is there: 1, or a negative close code."""
        cdef bytes data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts = None
        if self.is_compressed:
            try:
                data = self.deflate.decompress(data, self.ws.message_max_bytes)
            except OverflowError:
                return -NP_WS_TOO_BIG
            except ValueError:
                return -BAD_DATA
        message = data
        if self.opcode == NP_WS_TEXT:
            if not np_utf8_is_whole(&self.utf8):
                return -BAD_DATA
            try:
                message = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data),
                                               NULL)
            except UnicodeDecodeError:  # of a compressed one, which was not looked at as it came
                return -BAD_DATA
        if self.state == SOCKET_OPEN:  # still: decompressing has run code
            self.messages.append(message)
            self.waiting_bytes += len(message)
            self.wake()
        return 1

    cdef int peer_closes(self, bytes payload) except -1:
        """The peer's close frame: it is answered, unless it answers ours."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        cdef const uint8_t *at = <const uint8_t*>PyBytes_AS_STRING(payload)
        cdef int code = NO_CODE
        cdef bint was_open = self.state == SOCKET_OPEN
        reason = ""
        if size == 1:
            return -NP_WS_PROTOCOL_ERROR
        if size:
            code = at[0] << 8 | at[1]
            if not np_ws_is_close_code(code):
                return -NP_WS_PROTOCOL_ERROR
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                return -BAD_DATA
        if was_open:
            self.write_frame(NP_WS_FIN | NP_WS_CLOSE, payload[:2])
        self.over(code, reason)
        self.leave()
        return 1

    # ---- the end ------------------------------------------------------------------------------

    cdef int fail(self, int code) except -1:
        """The peer has broken a rule, and is told which."""
        if self.state == SOCKET_OPEN:
            self.write_close(code, b"")
        self.over(code, "")
        return self.leave()

    cdef int over(self, int code, str reason) except -1:
        """Who has closed first has said why."""
        if self.state == SOCKET_ASKED or self.state == SOCKET_OPEN:
            self.close_code = code
            self.close_reason = reason
        self.state = SOCKET_OVER
        self.payload = self.parts = None
        self.wake()
        return 0 if self.wire is None else self.wire.wake_senders()

    cdef int leave(self) except -1:
        """Ends our side; the peer ends its own, or is left after a while."""
        cdef Wire wire = self.wire
        cdef Connection face = wire.face if wire is not None else None
        if face is None:
            return 0
        if face.unread_bytes():
            face.skip()
        return wire.linger()

    # ---- writing ------------------------------------------------------------------------------

    cdef int write_frame(self, uint8_t first, bytes payload) except -1:
        """A small payload is copied behind its head: one piece to send instead of two."""
        cdef Wire wire = self.wire
        cdef Connection face = wire.face
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
        cdef Py_ssize_t inline_bytes = size if size <= HTTP_INLINE_BYTES else 0
        cdef uint8_t *memory = <uint8_t*>malloc(NP_WS_ANSWER_HEAD_MAX_BYTES + inline_bytes)
        cdef uint8_t *end
        if memory is NULL:
            raise MemoryError
        end = np_ws_write(memory, first, size)
        memcpy(end, PyBytes_AS_STRING(payload), inline_bytes)
        wire.push_heap(memory, end + inline_bytes - memory)
        if inline_bytes < size:
            wire.put_bytes(payload)
            face.pushed()  # counts it: a peer that does not read is not read from
        return 0

    cdef int write_close(self, int code, bytes reason) except -1:
        return self.write_frame(NP_WS_FIN | NP_WS_CLOSE, (<object>code).to_bytes(2, "big") + reason)


cdef class Sent(Room):
    """A send whose peer does not take what was sent."""

    cdef int check(self) except -1:
        cdef Socket socket = self.socket
        if socket.state == SOCKET_OVER or socket.wire is None or socket.wire.face is None:
            raise ConnectionResetError("this WebSocket is closed")
        return 0


install_awaitable_slots(Sent, "WebSocket.send")
seal_types(globals(), (SocketRules, Socket))
