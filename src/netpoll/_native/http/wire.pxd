# The seam of http/wire.pyx: the HTTP side of a connection.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netpoll._native.http.access cimport AccessLines
from netpoll._native.http.answer_head cimport Fields, Framing, HeadWriter
from netpoll._native.http.arrivals cimport Arrivals
from netpoll._native.http.c cimport np_body, np_http1, np_http_field, np_http_limits
from netpoll._native.http.encoder cimport AnswerCoding, Encoder
from netpoll._native.http.meter cimport Meter
from netpoll._native.http.request_head cimport HeaderPairs
from netpoll._native.http.forwarded cimport Forwarded
from netpoll._native.http.request_id cimport RequestIds
from netpoll._native.loop.awaitable cimport Awaitable
from netpoll._native.server.addresses cimport Addresses
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.host cimport FileSpan, Host


cdef class Application:
    """What answers requests: http/raw.pyx and http/asgi.pyx have one each."""
    cdef int begin(self, Wire wire) except -1


cdef class Exchange:
    """A request that is being answered, beyond the call that its head was read in."""
    cdef Wire wire              # None: it is answered, or its connection is over
    cdef Host host              # of the connection. Only its thread may look at the wire

    cdef int body_arrived(self) except -1
    cdef int disconnected(self) except -1
    cdef int finished(self, object error) except -1
    cdef int tick(self) except -1
    cdef int stopping(self) except -1


cdef class Service:
    """What the connections of a worker share."""
    cdef Application application
    cdef Addresses addresses
    cdef Forwarded forwarded    # whom it believes who the client is; None: nobody
    cdef np_http_limits limits
    cdef HeadWriter heads
    cdef HeaderPairs header_pairs
    cdef AccessLines lines      # None: nobody keeps an access log
    cdef Wire spare             # one that no connection uses, or None
    # What a deployment asks for, or None.
    cdef Meter meter
    cdef RequestIds ids
    cdef AnswerCoding coding
    cdef Arrivals arrivals
    cdef uint32_t now_tick      # of a second
    cdef uint64_t requests_count, faults_count
    cdef bint is_draining, is_stopping

    cdef int put_back(self, Connection face, Wire wire) except -1


cdef enum Stage:
    STAGE_HEAD      # reading the head of a request, or waiting for one
    STAGE_ANSWER    # a request is with the application
    STAGE_SWITCHED  # the exchange reads, and it is not HTTP: WebSocket
    STAGE_OVER      # nothing is read any more


cdef class Wire:
    cdef Service service
    cdef Connection face        # None: the connection is over
    cdef np_http1 request
    cdef np_http_field *fields
    cdef np_body body
    cdef Exchange exchange      # of the request, when its answer takes longer than one call
    cdef uint8_t stage
    cdef bint is_advancing
    cdef uint32_t since_tick        # when the head began, or the last progress after it
    cdef uint32_t heard_tick        # of the last bytes that were dropped, when it is over
    cdef uint64_t seen_bytes, seen_pending_bytes  # received and unsent, at the last progress
    cdef bint wants_body            # the application waits for more of it
    cdef int64_t began_ns           # what the Meter knows of it; 0: nothing
    cdef bytes request_id
    cdef list senders               # that wait for room behind the one that awaits it, or None
    cdef object coding              # that the peer accepts, or None
    cdef size_t head_bytes      # of the request's head, which is still the first of what is unread
    cdef tuple noted            # the request's note, until its answer is over
    # The answer.
    cdef int status             # 0: it has no head yet
    cdef int64_t sent_bytes     # of its body
    cdef Encoder encoder
    cdef bint is_encoded        # its length is not the one that was told
    cdef bint has_head, is_done     # its head was written; all of it was
    cdef bint is_refused            # the server has answered: the request has a fault
    cdef bint is_chunked, has_body, keeps_alive
    cdef bytes trailers             # the last chunk, if it has fields behind it
    cdef bint expects               # 100 (Continue) has still to be said
    cdef bint offers_switch         # the head says "Upgrade: websocket"
    cdef int64_t left_bytes         # of Content-Length that were not written yet; -1: any

    cdef int advance(self) except -1
    cdef int check_open(self) except -1
    cdef bint is_paused(self) noexcept
    cdef int take_head(self) except -1
    cdef int read_head(self) except -1
    cdef int refuse(self, int fault) except -1
    cdef int linger(self) except -1
    cdef bint has_all(self) noexcept
    cdef bint is_here(self) noexcept
    cdef bytes read_body(self)
    cdef int say_continue(self) except -1
    cdef Framing framing_of(self, int status, const Fields *told) noexcept
    cdef int write_head(self, int status, object fields, int64_t length_bytes) except -1
    cdef int write_whole(self, int status, object fields, bytes body) except -1
    cdef int write_switch(self, list fields) except -1
    cdef int write_data(self, object data) except -1
    cdef int put_data(self, bytes data) except -1
    cdef object room(self)
    cdef int wake_senders(self) except -1
    cdef int settle(self) except -1
    cdef int write_span(self, FileSpan span, int64_t offset, int64_t size) except -1
    cdef int promise(self, int64_t size) except -1
    cdef int end_answer(self) except -1
    cdef int fail(self) except -1
    cdef int abort(self) except -1
    cdef bint ends_with_us(self) noexcept
    cdef int reset(self) except -1
    cdef int write(self, int status, object fields, int64_t length_bytes, bytes body) except -1
    cdef int push_heap(self, uint8_t *memory, size_t size) except -1
    cdef int put_bytes(self, bytes data) except -1


cdef class Room(Awaitable):
    cdef Wire wire              # whose senders wait: it may be another request's by then
    cdef Connection face
    cdef Awaitable drain        # the connection's await, which one of the senders has

    cdef int check(self) except -1
