# The seam of tls/layer.pyx.

from libc.stdint cimport uint16_t, uint32_t

from netpoll._core cimport Loop
from netpoll._native.c cimport np_iov
from netpoll._native.tls.engine cimport Session
from netpoll._native.transport.stream cimport StreamTransport
from netpoll._native.transport.stream_reader cimport Sink


cdef enum:  # TlsLayer.state
    UNWRAPPED = 0       # not begun, or over
    HANDSHAKE
    WRAPPED
    FLUSHING            # the peer's TCP side ended while reading was paused: data is left to read
    SHUTDOWN            # our goodbye is said, or about to be

cdef enum:  # TlsLayer.flags
    PAUSED = 1 << 0         # pause_reading()
    BELOW_PAUSED = 1 << 1   # we have paused the transport below
    BELOW_FULL = 1 << 2     # it has paused us
    WRITING_PAUSED = 1 << 3     # pause_writing() was called above
    EOF_CAME = 1 << 4
    DIRTY = 1 << 5          # in the loop's list for the end of the turn
    ENCRYPTING = 1 << 6
    BUFFERED = 1 << 7       # a BufferedProtocol
    MADE = 1 << 8           # connection_made was called above, or is not to be
    EOF_TOLD = 1 << 9       # eof_received was
    ESTABLISHED = 1 << 10   # the handshake was completed
    CLOSED = 1 << 11        # above: close() or abort(), or the connection is lost
    ENTERED = 1 << 12       # the protocol is being called, in our context


cdef class TlsLayer(Sink):
    # Set once, by the maker.
    cdef Loop loop
    cdef Session session
    cdef object sslcontext
    cdef object handshake_timeout_s, shutdown_timeout_s
    cdef object waiter
    # Below: any transport, and the same again when it is one of ours.
    cdef object below           # None before it is made and after it is lost
    cdef StreamTransport native
    cdef TlsLayer lower         # TLS in TLS: the layer below
    cdef object info            # whom get_extra_info asks, also afterwards
    # Above.
    cdef object protocol
    cdef Sink reader            # asyncio's StreamReaderProtocol, served natively; else None
    cdef object transport       # the TlsTransport
    cdef object context         # contextvars, for a transport below of another make
    cdef np_iov plain           # written and not yet encrypted
    cdef Py_ssize_t high_bytes, low_bytes, read_high_bytes, read_low_bytes
    cdef object timer           # of the handshake, then of the shutdown
    cdef double handshake_start_s
    cdef uint32_t flags
    cdef uint16_t state, lost_writes_count

    cdef bint enter(self) except -1
    cdef int leave(self, bint entered) except -1
    cdef int set_app_protocol(self, object protocol) except -1
    cdef int wake(self, object exc) except -1
    cdef int stop_timer(self) except -1
    cdef int fatal(self, object exc, str message) except -1
    cdef int advance(self) except -1
    cdef int do_handshake(self) except -1
    cdef int handshake_failed(self, object exc) except -1
    cdef int handshake_done(self) except -1
    cdef int take(self) except -1
    cdef int do_read(self) except -1
    cdef int read_once(self) except -1
    cdef int read_buffered(self) except -1
    cdef int deliver(self, bytes data) except -1
    cdef int read_ended(self, int status) except -1
    cdef int call_eof_received(self) except -1
    cdef int control_reading(self) except -1
    cdef int write_bytes(self, bytes data) except -1
    cdef int pressed(self) except -1
    cdef Py_ssize_t waiting_bytes(self) except -1
    cdef int encrypt(self, bint all) except -1
    cdef bint encrypt_batch(self) except -1
    cdef Py_ssize_t encrypt_next(self, Py_ssize_t most) except -1
    cdef int consumed(self, Py_ssize_t size) except -1
    cdef int offer(self) except -1
    cdef int catch_up(self) except -1
    cdef int send_output(self) except -1
    cdef int control_writing(self) except -1
    cdef int call_protocol(self, str name) except -1
    cdef int start_shutdown(self) except -1
    cdef int do_flush(self) except -1
    cdef int do_shutdown(self) except -1
    cdef bint said_goodbye(self) except -1
    cdef int send_goodbye(self) except -1
    cdef int start_shutdown_timer(self) except -1
    cdef int shutdown_done(self, object exc) except -1
    cdef int abort(self, object exc) except -1
    cdef int drop_plain(self) except -1
