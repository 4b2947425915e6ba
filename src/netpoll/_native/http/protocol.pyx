# cython: language_level=3, freethreading_compatible=True
"""HTTP/1.1 for the connections of one worker: what the worker tells of them, and their time-outs.

A connection that has something to do has a Wire (http/wire.pyx), which reads and answers.
"""

from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t

from netpoll._native.c cimport (
    NP_CONN_CHUNK_COUNT, NP_CONN_OPEN, np_conn, np_conn_at, np_conn_pin, np_sock_peer_has_ended)
from netpoll._native.http.c cimport NP_HTTP_E_TIMEOUT
from netpoll._native.http.encoder cimport AnswerCoding
from netpoll._native.http.forwarded cimport Forwarded
from netpoll._native.http.meter cimport Meter
from netpoll._native.http.request_id cimport RequestIds
from netpoll._native.http.request_limits cimport ticks_of
from netpoll._native.http.wire cimport (
    STAGE_ANSWER, STAGE_HEAD, STAGE_OVER, STAGE_SWITCHED, Application, Exchange, Service, Wire)
from netpoll._native.limits cimport HTTP_LINGER_MAX_S, HTTP_LINGER_S
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.host cimport Host, unpin
from netpoll._native.server.networks cimport Networks
from netpoll._native.server.protocol cimport Protocol

import errno


cdef class HttpProtocol(Protocol):
    """HTTP/1.1 for the connections of one worker.

    limits: line_max_bytes, head_max_bytes, fields_max_count, body_max_bytes.
    server: the value of the field Server; "" for none. fields: more of each answer, pairs of bytes.
    write_lines, lines_form: of an access log, see AccessLines. None: nobody keeps one.
    head_timeout_s: from the first byte of a head to its last; of a connection's first head, from
        the connection's beginning. stall_timeout_s: in which something of a body has to come that
        is waited for, or of an answer to be taken. None: any time.
    """

    cdef Service service
    cdef int head_ticks, stall_ticks    # time-outs, in ticks of a second; 0: none

    def __cinit__(self, Application application not None, dict limits not None,
                  str server not None, head_timeout_s, stall_timeout_s, fields=(),
                  write_lines=None, str lines_form=None):
        self.service = Service.__new__(Service, application, limits, server, fields, write_lines,
                                       lines_form)
        self.head_ticks = ticks_of(head_timeout_s)
        self.stall_ticks = ticks_of(stall_timeout_s)

    @property
    def requests(self):
        """How many were read."""
        return self.service.requests_count

    def flush_lines(self):
        if self.service.lines is not None:
            self.service.lines.flush()

    def believe(self, Networks networks):
        self.service.forwarded = Forwarded.__new__(Forwarded, networks)

    def serve_at_most(self, connections_count):
        """The requests of others are answered with 503."""
        self.service.arrivals.served_max_count = min(connections_count, UINT32_MAX)

    def equip(self, Meter meter or None, RequestIds ids or None, AnswerCoding coding or None):
        self.service.meter, self.service.ids, self.service.coding = meter, ids, coding

    cdef Wire wire_of(self, Connection face):
        cdef Wire wire
        if face.state is not None:
            return <Wire>face.state
        wire = self.service.spare
        if wire is not None:
            self.service.spare = None
        else:
            wire = Wire.__new__(Wire, self.service)
        wire.face = face
        face.state = wire
        wire.since_tick = self.service.arrivals.first_byte(face.conn)
        return wire

    cdef int on_begin(self, Host host, np_conn *conn) except -1:
        return self.service.arrivals.begin(host, conn, self.service.now_tick)

    cdef int on_tick(self, Host host) except -1:
        """Once a second: what takes too long ends. Who is between two requests is not looked at:
        the worker's wheel has the time-out of keep-alive. Who has not sent a byte is closed without
        a word: browsers open connections in advance, and take a 408 for the answer to what they
        send next."""
        cdef Wire wire
        cdef np_conn *conn
        cdef uint32_t i
        self.service.now_tick += 1
        self.flush_lines()
        for i in range(host.slab.chunks_count * NP_CONN_CHUNK_COUNT):
            conn = np_conn_at(&host.slab, i)
            if not conn.flags & NP_CONN_OPEN or conn.fd < 0:
                continue
            wire = None
            if conn.task.argument is not NULL:
                wire = <Wire>(<Connection>conn.task.argument).state
            if wire is None and not self.is_late(self.service.arrivals.tick_of(conn)):
                continue
            np_conn_pin(conn)
            try:
                if wire is not None:
                    self.look_at(wire)
                else:
                    host.close_conn(conn)
            finally:
                unpin(host, conn)
        return 0

    cdef int before_idle(self, Host host) except -1:
        """Who has a request is not idle, however long its answer takes."""
        cdef np_conn *conn
        cdef uint32_t i
        for i in range(host.slab.chunks_count * NP_CONN_CHUNK_COUNT):
            conn = np_conn_at(&host.slab, i)
            if conn.flags & NP_CONN_OPEN and conn.task.argument is not NULL \
                    and (<Connection>conn.task.argument).state is not None:
                conn.tick = host.tick
        return 0

    cdef bint is_late(self, uint32_t began_tick) noexcept:
        """A head that began then, or was waited for from then on, has taken too long."""
        return began_tick and self.head_ticks \
            and self.service.now_tick - began_tick > <uint32_t>self.head_ticks

    cdef int look_at(self, Wire wire) except -1:
        cdef uint32_t now_tick = self.service.now_tick
        cdef uint64_t pending_bytes
        cdef bint is_waiting
        cdef Exchange exchange = wire.exchange  # held: it may end the connection
        if wire.stage == STAGE_ANSWER and exchange is not None and wire.has_all() \
                and wire.is_paused() and np_sock_peer_has_ended(wire.face.conn.fd):
            exchange.disconnected()  # behind more requests than are read ahead
        if wire.stage == STAGE_OVER and not wire.face.pending:
            if now_tick - wire.heard_tick > HTTP_LINGER_S \
                    or now_tick - wire.since_tick > HTTP_LINGER_MAX_S:
                wire.face.close()
            return 0
        if wire.stage == STAGE_HEAD and not wire.face.pending:
            if wire.since_tick == 0:  # the next request waits to be looked at
                wire.since_tick = now_tick
            elif self.is_late(wire.since_tick):
                wire.refuse(-NP_HTTP_E_TIMEOUT)
            return 0
        if wire.stage == STAGE_SWITCHED:
            exchange.tick()
            if wire.stage != STAGE_SWITCHED or wire.face is None:
                return 0
        pending_bytes = wire.face.pending
        is_waiting = pending_bytes or wire.stage == STAGE_ANSWER and wire.wants_body
        if not is_waiting or wire.body.data_bytes != wire.seen_bytes \
                or pending_bytes != wire.seen_pending_bytes:
            wire.seen_bytes = wire.body.data_bytes
            wire.seen_pending_bytes = pending_bytes
            wire.since_tick = now_tick
        elif self.stall_ticks and now_tick - wire.since_tick > <uint32_t>self.stall_ticks:
            if pending_bytes:
                if self.service.meter is not None:
                    self.service.meter.stalled_count += 1
                wire.face.abort(TimeoutError(errno.ETIMEDOUT, "the peer does not take the answer"))
            else:
                wire.refuse(-NP_HTTP_E_TIMEOUT)
        return 0

    cdef int on_drain(self, Host host) except -1:
        """Each connection ends with its next answer, which says so. One that closed while it is
        idle could cross with a request of its peer."""
        self.service.is_draining = True
        return 0

    cdef int on_stop(self, Host host) except -1:
        """No further request: who is between two ends now, the others with their answer."""
        cdef Connection face
        cdef Wire wire
        cdef Exchange exchange
        cdef np_conn *conn
        cdef uint32_t i
        self.service.is_stopping = True
        for i in range(host.slab.chunks_count * NP_CONN_CHUNK_COUNT):
            conn = np_conn_at(&host.slab, i)
            if not conn.flags & NP_CONN_OPEN or conn.fd < 0:
                continue
            if conn.task.argument is not NULL:
                face = <Connection>conn.task.argument
                wire = <Wire>face.state
                if wire is not None and wire.stage == STAGE_ANSWER:
                    wire.keeps_alive = False
                    continue
                if wire is not None and wire.stage == STAGE_SWITCHED:
                    exchange = wire.exchange
                    exchange.stopping()
                    continue
            host.close_conn(conn)
        return 0

    cdef int on_data(self, Connection face) except -1:
        cdef Wire wire = self.wire_of(face)
        wire.advance()
        if wire.face is face:
            self.service.put_back(face, wire)
        return 0

    cdef int on_eof(self, Connection face) except -1:
        cdef Wire wire
        cdef Exchange exchange
        if face.state is None:
            face.close()
            return 0
        wire = <Wire>face.state
        if wire.stage == STAGE_ANSWER or wire.stage == STAGE_SWITCHED:
            # Who has shut its side may still want the answer.
            exchange = wire.exchange
            if exchange is not None:
                exchange.disconnected()
            return 0
        face.close()
        return 0

    cdef int on_lost(self, Connection face) except -1:
        cdef Wire wire
        cdef Exchange exchange
        if face.state is None:
            return 0
        wire = <Wire>face.state
        exchange = wire.exchange
        self.service.arrivals.left(face.conn)
        wire.settle()
        face.state = wire.exchange = wire.face = None
        wire.stage = STAGE_OVER
        if exchange is not None:
            exchange.wire = None
            exchange.disconnected()
        return 0


seal_types(globals(), (HttpProtocol,))
