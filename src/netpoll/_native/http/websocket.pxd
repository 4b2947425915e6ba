# The seam of http/websocket.pyx: a WebSocket, whoever speaks through it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netpoll._native.http.c cimport np_http1, np_utf8, np_ws, np_ws_frame
from netpoll._native.http.wire cimport Exchange, Room, Wire
from netpoll._native.loop.awaitable cimport Awaitable
from netpoll._native.server.connection cimport Connection


cdef class SocketRules:
    cdef uint64_t message_max_bytes     # 0: any
    cdef uint32_t ping_ticks, pong_ticks    # 0: no pings; no time-out
    cdef object agree           # agree(offers): what compresses, or None; None: nothing does


cdef class Handshake:
    cdef bytes accept           # what proves to the peer that its key was read
    cdef list subprotocols      # that the peer speaks, best first
    cdef str offers             # of extensions
    cdef int status             # of the refusal; 0: none

    cdef int refuse(self, Wire wire) except -1


cdef enum SocketState:
    SOCKET_ASKED        # the application has not answered the handshake yet
    SOCKET_OPEN
    SOCKET_CLOSING      # our close frame is written; that of the peer is awaited
    SOCKET_OVER         # nothing is sent or received any more


cdef class Socket(Exchange):
    cdef SocketRules rules
    cdef Handshake handshake
    cdef object report
    cdef uint8_t state
    cdef bint was_accepted
    # The frame that is being read, and the message that it is part of.
    cdef np_ws ws
    cdef np_ws_frame frame
    cdef np_utf8 utf8
    cdef bint has_frame, is_reading
    cdef uint8_t opcode         # of the message
    cdef bint is_compressed     # the message is
    cdef uint64_t payload_at    # bytes of the frame's payload that were read
    cdef bytes payload          # of the frame; None: it is dropped as it comes
    cdef list parts             # of the message: bytes, and bytearrays of small ones
    # Whole messages, and who waits.
    cdef object messages        # a deque of str and bytes
    cdef Py_ssize_t waiting_bytes
    cdef list receivers
    # The end, and the time until it.
    cdef readonly int close_code
    cdef readonly str close_reason
    cdef uint32_t since_tick    # of the last ping or bytes of the peer, or of our close frame
    cdef bint awaits_pong
    cdef object deflate         # what compresses, or None

    cdef int accept(self, str subprotocol, object headers) except -1
    cdef int deny(self, int status) except -1
    cdef int denied(self) except -1
    cdef int begin_close(self, int code, str reason) except -1
    cdef int ended(self, object error, str what) except -1
    cdef object take(self)
    cdef object wait(self, Awaitable one)
    cdef int forget(self, Awaitable one) except -1
    cdef object send_message(self, object message)
    cdef bint is_full(self) except -1
    cdef int read(self) except -1
    cdef int read_head(self, Connection face) except -1
    cdef int read_payload(self, Connection face) except -1
    cdef int unmask(self, Connection face, size_t size) except -1
    cdef int end_frame(self) except -1
    cdef int keep(self, bytes payload) except -1
    cdef int end_message(self) except -1
    cdef int peer_closes(self, bytes payload) except -1
    cdef int fail(self, int code) except -1
    cdef int over(self, int code, str reason) except -1
    cdef int leave(self) except -1
    cdef int write_frame(self, uint8_t first, bytes payload) except -1
    cdef int write_close(self, int code, bytes reason) except -1
    cdef int wake(self) except -1


cdef class Sent(Room):
    cdef Socket socket


cdef Handshake read_handshake(const np_http1 *request)
cdef int prepare(Socket socket, Wire wire, SocketRules rules, Handshake handshake,
                 object report) except -1
