# cython: language_level=3, freethreading_compatible=True
"""TLS over a stream transport: the layer that is its protocol. Above it: tls/transport.pyx.

The layer keeps to the behaviour of asyncio's SSLProtocol as programs can see it: when callbacks
come, with which exceptions, what is reported where. docs/tls.md lists where it does better.

In   Ciphertext comes as memory that is lent (the ring's buffer, the bytes of a direct read) and is
     decrypted straight into the bytes object, or the BufferedProtocol's buffer, that the user gets.
     Only what a pause leaves over is kept.
Out  What is written in a turn is encrypted at its end, in as few records as it fits in, and leaves
     in one send. Large amounts are encrypted and sent at once, in batches, and no faster than the
     socket takes them: what waits, waits as the caller's own bytes objects.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_CONTIG, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport SIZE_MAX

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit, PyObject, np_iov_close, np_iov_init)
from netpoll._native.limits cimport (
    LOST_WRITES_MAX_COUNT, TLS_BATCH_BYTES, TLS_BELOW_HIGH_BYTES, TLS_BELOW_LOW_BYTES,
    TLS_RECORD_BYTES, WRITE_NOW_BYTES)
from netpoll._native.seal cimport seal_types
from netpoll._native.tls.engine cimport TLS_AGAIN, TLS_FAILED, TLS_MORE
from netpoll._native.tls.records cimport next_record
from netpoll._native.transport.endpoint cimport is_plain
from netpoll._native.transport.out_queue cimport out_advance, out_clear, out_push_bytes
from netpoll._native.transport.sending cimport count_lost_write, write_now
from netpoll._native.transport.stream cimport StreamTransport
from netpoll._native.transport.stream_reader cimport Sink, adopt_reader, is_buffered

import asyncio
import ssl as py_ssl
from asyncio import log


cdef object SSLError = py_ssl.SSLError
cdef tuple AGAIN_ERRORS = (py_ssl.SSLWantReadError, py_ssl.SSLWantWriteError,
                           py_ssl.SSLSyscallError)


cdef class TlsLayer(Sink):
    """The protocol of the transport below; all state of a TLS connection."""

    def __cinit__(self):
        np_iov_init(&self.plain)

    def __dealloc__(self):
        out_clear(&self.plain)
        np_iov_close(&self.plain)

    def __repr__(self):
        return f"<{type(self).__name__} over {self.below!r}>"

    # The protocol above is called in the context of the transport below.

    cdef bint enter(self) except -1:
        if type(self.info) is StreamTransport:  # `native`, also when that has gone in between
            return (<StreamTransport>self.info).enter()
        if self.lower is not None:
            return self.lower.enter()
        if self.flags & ENTERED or self.context is None:
            return False
        PyContext_Enter(<PyObject*>self.context)
        self.flags |= ENTERED
        return True

    cdef int leave(self, bint entered) except -1:
        if not entered:
            return 0
        if type(self.info) is StreamTransport:
            return (<StreamTransport>self.info).leave(True)
        if self.lower is not None:
            return self.lower.leave(True)
        self.flags &= ~ENTERED
        PyContext_Exit(<PyObject*>self.context)
        return 0

    cdef int set_app_protocol(self, object protocol) except -1:
        self.protocol = protocol
        if is_buffered(protocol):
            self.flags |= BUFFERED
        else:
            self.flags &= ~BUFFERED
        if self.flags & ESTABLISHED:
            self.reader = adopt_reader(protocol, self.transport)
        return 0

    cdef int wake(self, object exc) except -1:
        waiter = self.waiter
        self.waiter = None
        if waiter is None or waiter.cancelled():
            return 0
        if exc is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(exc)
        return 0

    cdef int stop_timer(self) except -1:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return 0

    cdef int fatal(self, object exc, str message) except -1:
        """Ends the connection. System errors, which TLS's are too, are only for the debug log."""
        self.offer()
        below = self.below
        if below is not None:
            below._force_close(exc)
        if isinstance(exc, OSError):
            if self.loop._debug:
                log.logger.debug("%r: %s", self, message, exc_info=exc)
        elif not isinstance(exc, asyncio.CancelledError):
            self.loop.call_exception_handler({
                "message": message,
                "exception": exc,
                "transport": below,
                "protocol": self,
            })
        return 0

    # ---- what the transport below calls -------------------------------------------------------

    def connection_made(self, transport):
        self.below = self.info = transport
        if type(transport) is StreamTransport:
            self.native = <StreamTransport>transport
            self.native.out.high_bytes = SIZE_MAX  # it tells us of every send instead
        else:
            lower = getattr(transport, "_ssl_protocol", None)
            if type(lower) is TlsLayer:  # TLS in TLS: one connection, one context
                self.lower = <TlsLayer>lower
            else:
                self.context = PyContext_CopyCurrent()
        if self.loop._debug:
            log.logger.debug("%r starts SSL handshake", self)
            self.handshake_start_s = self.loop.time()
        self.state = HANDSHAKE
        self.timer = self.loop.call_later(self.handshake_timeout_s, self._handshake_is_late)
        self.take()

    def connection_lost(self, exc):
        cdef bint was_made = self.state != HANDSHAKE and self.flags & MADE
        self.state = UNWRAPPED
        self.lost_writes_count = min(self.lost_writes_count + 1, LOST_WRITES_MAX_COUNT)
        self.flags |= CLOSED
        if was_made:
            self.flags &= ~MADE
            self.loop.call_soon(self.protocol.connection_lost, exc)
        self.drop_plain()
        self.below = None
        self.native = None
        self.protocol = None
        self.reader = None
        self.transport = None
        self.wake(exc)
        self.stop_timer()

    cdef int feed(self, const char *data, Py_ssize_t size) except -1:
        self.session.feed(data, size)
        return self.take()

    cdef int feed_bytes(self, bytes data) except -1:
        self.session.feed(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return self.take()

    def data_received(self, data):
        """From a transport that is not one of ours."""
        cdef bytes exact = bytes(data)
        self.feed_bytes(exact)

    cdef int take(self) except -1:
        try:
            self.advance()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal(exc, "Fatal error: protocol.buffer_updated() call failed.")
        finally:
            self.session.settle()
        return 0

    cdef int advance(self) except -1:
        if self.state == WRAPPED:
            self.do_read()
        elif self.state == HANDSHAKE:
            self.do_handshake()
        elif self.state == FLUSHING:
            self.do_flush()
        elif self.state == SHUTDOWN:
            self.do_shutdown()
        return 0

    def eof_received(self):
        """TCP's end. What may truncate data is for the protocol above to judge, as in asyncio."""
        self.flags |= EOF_CAME
        if self.loop._debug:
            log.logger.debug("%r received EOF", self)
        try:
            if self.state == HANDSHAKE:
                self.handshake_failed(ConnectionResetError())
            elif self.state == WRAPPED:
                self.state = FLUSHING
                if self.flags & PAUSED:
                    return True  # resume_reading() goes on from here
                self.do_flush()
            elif self.state == FLUSHING:
                self.do_flush()
            elif self.state == SHUTDOWN:
                self.do_shutdown()
        except Exception:
            if self.below is not None:
                self.below.close()
            raise

    def pause_writing(self):
        """From a transport that is not one of ours."""
        self.flags |= BELOW_FULL

    def resume_writing(self):
        self.flags &= ~BELOW_FULL
        self.encrypt(False)

    cdef int sent(self) except -1:
        """Our transport below has sent something."""
        if self.plain.total_bytes and not self.flags & ENCRYPTING \
                and self.native.out.iov.total_bytes <= TLS_BELOW_LOW_BYTES:
            return self.encrypt(False)
        if self.flags & WRITING_PAUSED:
            return self.control_writing()
        return 0

    # ---- handshake ----------------------------------------------------------------------------

    def _handshake_is_late(self):
        self.timer = None
        if self.state == HANDSHAKE:
            self.fatal(ConnectionAbortedError(
                f"SSL handshake is taking longer than {self.handshake_timeout_s} seconds: "
                "aborting the connection"), "Fatal error on transport")

    cdef int do_handshake(self) except -1:
        try:
            self.session.sslobj.do_handshake()
        except AGAIN_ERRORS:
            return self.send_output()
        except SSLError as exc:
            return self.handshake_failed(exc)
        return self.handshake_done()

    cdef int handshake_failed(self, object exc) except -1:
        self.stop_timer()
        self.send_goodbye()  # the alert tells the peer why
        self.state = UNWRAPPED
        self.fatal(exc, "SSL handshake failed on verifying the certificate"
                   if isinstance(exc, py_ssl.CertificateError) else "SSL handshake failed")
        return self.wake(exc)

    cdef int handshake_done(self) except -1:
        self.stop_timer()
        self.state = WRAPPED
        self.flags |= ESTABLISHED
        if self.loop._debug:
            log.logger.debug("%r: SSL handshake took %.1f ms", self,
                             (self.loop.time() - self.handshake_start_s) * 1e3)
        self.reader = adopt_reader(self.protocol, self.transport)
        self.send_output()
        if not self.flags & MADE:
            self.flags |= MADE
            entered = self.enter()
            try:
                self.protocol.connection_made(self.transport)
            finally:
                self.leave(entered)
        self.wake(None)
        self.pressed()
        if self.session.has_more():
            # After the task that wakes: it may look at ALPN's choice before there is data.
            self.loop.soon(self._resumed, None)
        return 0

    # ---- receiving ----------------------------------------------------------------------------

    cdef int do_read(self) except -1:
        cdef int status = TLS_MORE
        try:
            while status == TLS_MORE and not self.flags & PAUSED \
                    and (self.state == WRAPPED
                         or self.state == FLUSHING and not self.flags & CLOSED):
                status = self.read_buffered() if self.flags & BUFFERED else self.read_once()
            if self.plain.total_bytes and not self.flags & DIRTY:
                self.pressed()  # a write that had to wait for a read
            elif self.session.output_bytes():
                self.send_output()  # an answer of OpenSSL's own
            self.control_reading()
        except Exception as exc:
            self.fatal(exc, "Fatal error on SSL protocol")
        return 0

    cdef int read_once(self) except -1:
        """All that can be decrypted, in one piece."""
        cdef bytes data = self.session.read_all()
        cdef int status = self.session.status
        if PyBytes_GET_SIZE(data):
            self.deliver(data)
        return status if status <= TLS_MORE else self.read_ended(status)

    cdef int deliver(self, bytes data) except -1:
        cdef Sink reader = self.reader  # kept alive: it may be replaced while it is fed
        if reader is not None:
            return reader.feed_bytes(data)
        entered = self.enter()
        try:
            self.protocol.data_received(data)
        finally:
            self.leave(entered)
        return 0

    cdef int read_buffered(self) except -1:
        """One buffer of a BufferedProtocol."""
        cdef Py_buffer view
        cdef Py_ssize_t got
        cdef int status
        if not self.session.has_more():
            return TLS_AGAIN
        entered = self.enter()
        try:
            buffer = self.protocol.get_buffer(self.session.left())
            PyObject_GetBuffer(buffer, &view, PyBUF_CONTIG)
            try:
                if view.len == 0:
                    raise RuntimeError("get_buffer() returned an empty buffer")
                got = self.session.read_into(<char*>view.buf, view.len)
                status = self.session.status
            finally:
                PyBuffer_Release(&view)
            if got:
                self.protocol.buffer_updated(got)
        finally:
            self.leave(entered)
        return status if status <= TLS_MORE else self.read_ended(status)

    cdef int read_ended(self, int status) except -1:
        if status == TLS_FAILED:
            exc = self.session.error
            self.session.error = None
            raise exc
        self.call_eof_received()
        self.start_shutdown()
        return status

    cdef int call_eof_received(self) except -1:
        if not self.flags & MADE or self.flags & EOF_TOLD:
            return 0
        self.flags |= EOF_TOLD
        try:
            entered = self.enter()
            try:
                keep_open = self.protocol.eof_received()
            finally:
                self.leave(entered)
            if keep_open:
                log.logger.warning("returning true from eof_received() has no effect when "
                                   "using ssl")
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fatal(exc, "Error calling eof_received()")
        return 0

    cdef int control_reading(self) except -1:
        """What a pause leaves undecrypted is bounded: then the transport below pauses too."""
        cdef Py_ssize_t size
        if not self.flags & (PAUSED | BELOW_PAUSED) or self.below is None:
            return 0
        size = self.session.left()
        if self.flags & BELOW_PAUSED:
            if size <= self.read_low_bytes:
                self.flags &= ~BELOW_PAUSED
                self.below.resume_reading()
        elif size >= self.read_high_bytes:
            self.flags |= BELOW_PAUSED
            self.below.pause_reading()
        return 0

    def _resumed(self):
        if self.state != HANDSHAKE:
            self.take()

    # ---- sending ------------------------------------------------------------------------------

    cdef int write_bytes(self, bytes data) except -1:
        if self.state != WRAPPED and self.state != HANDSHAKE:
            return count_lost_write(&self.lost_writes_count, "SSL connection is closed")
        if PyBytes_GET_SIZE(data) == 0:
            return 0
        out_push_bytes(&self.plain, data)
        return self.pressed()

    cdef int pressed(self) except -1:
        """There may be something to encrypt: now, or at the end of the turn."""
        if not self.plain.total_bytes:
            return 0
        if self.state == WRAPPED and (self.plain.total_bytes >= WRITE_NOW_BYTES
                                      or <Py_ssize_t>self.plain.total_bytes >= self.high_bytes
                                      or self.loop.running_ident == 0):
            return self.encrypt(False)
        if self.state == WRAPPED and not self.flags & DIRTY:
            self.flags |= DIRTY
            self.loop.mark_dirty(self)
        return self.control_writing()

    cdef int on_turn_end(self, Loop loop) except -1:
        self.flags &= ~DIRTY
        if self.state == WRAPPED and self.plain.total_bytes:
            self.encrypt(False)
        return 0

    cdef Py_ssize_t waiting_bytes(self) except -1:
        """Written and not yet sent by our transport below, or not yet given to another one."""
        cdef Py_ssize_t size = self.plain.total_bytes + self.session.output_bytes()
        if self.native is not None:
            size += self.native.out.iov.total_bytes
        return size

    cdef int encrypt(self, bint all) except -1:
        """Encrypts and hands down, as long as it is taken; `all`: in any case."""
        if self.flags & ENCRYPTING or self.state != WRAPPED and self.state != FLUSHING:
            return 0
        self.flags |= ENCRYPTING
        try:
            while self.plain.total_bytes:
                if self.native is not None:
                    if self.native.out.iov.total_bytes >= TLS_BELOW_HIGH_BYTES and not all:
                        break
                elif self.flags & BELOW_FULL and not all:
                    break
                if not self.encrypt_batch():
                    break
        except Exception as exc:
            self.fatal(exc, "Fatal error on SSL protocol")
        finally:
            self.flags &= ~ENCRYPTING
        return self.control_writing()

    cdef bint encrypt_batch(self) except -1:
        """One batch; False when OpenSSL has to read before it can write."""
        cdef Py_ssize_t room = min(<Py_ssize_t>self.plain.total_bytes, TLS_BATCH_BYTES)
        cdef Py_ssize_t took = 1
        self.session.begin_output(room)
        try:
            while room > 0 and took > 0 and self.plain.count:
                took = self.encrypt_next(room)
                room -= took
                self.consumed(took)
        finally:
            self.send_output()
        return took > 0

    cdef Py_ssize_t encrypt_next(self, Py_ssize_t most) except -1:
        """The first of what is to be written; small pieces together, as one record."""
        cdef char record[TLS_RECORD_BYTES]
        cdef const char *data = NULL
        cdef Py_ssize_t size = next_record(&self.plain, most, record, &data)
        _kept = <object>self.plain.chunks[self.plain.head].owner  # OpenSSL may call who drops it
        return self.session.write(data, size)

    cdef int consumed(self, Py_ssize_t size) except -1:
        if self.plain.count:  # else it was dropped, while OpenSSL had it
            out_advance(&self.plain, size)
        if not self.plain.count:
            np_iov_close(&self.plain)  # an idle connection holds nothing
        return 0

    cdef int send_output(self) except -1:
        cdef bytes data = self.session.take_output()
        cdef StreamTransport native = self.native  # kept alive while it calls us, and we the user
        if PyBytes_GET_SIZE(data) == 0 or self.below is None:
            return 0
        if native is not None and is_plain(native):
            return native.write_bytes(data)
        self.below.write(data)
        return 0

    cdef int offer(self) except -1:
        """Before the connection is dropped: what was written is encrypted and given to the socket,
        as asyncio would have done within write(). Calls nobody; errors are those of its end."""
        if self.flags & ENCRYPTING or self.state != WRAPPED and self.state != FLUSHING:
            return 0
        self.flags |= ENCRYPTING
        try:
            while self.plain.total_bytes and self.encrypt_batch():
                if self.native is None:
                    if self.flags & BELOW_FULL:
                        break
                elif self.native.out.iov.total_bytes >= TLS_BELOW_HIGH_BYTES:
                    break
        except Exception as exc:
            if self.loop._debug:
                log.logger.debug("%r: unsent data is lost", self, exc_info=exc)
        finally:
            self.flags &= ~ENCRYPTING
        return 0

    cdef int catch_up(self) except -1:
        """What was written goes to the socket now, not at the end of the turn."""
        cdef StreamTransport native
        if self.flags & WRITING_PAUSED:
            return 0
        if self.plain.total_bytes:
            self.encrypt(False)
        native = self.native
        if native is not None:
            native.catch_up()
        return 0

    cdef int control_writing(self) except -1:
        cdef Py_ssize_t size
        if self.protocol is None or self.below is None or self.flags & ENCRYPTING:
            return 0
        size = self.waiting_bytes()
        if self.flags & WRITING_PAUSED:
            if size <= self.low_bytes:
                self.flags &= ~WRITING_PAUSED
                self.call_protocol("resume_writing")
        elif size >= self.high_bytes and size > self.low_bytes and self.state != UNWRAPPED:
            self.flags |= WRITING_PAUSED
            self.call_protocol("pause_writing")
        return 0

    cdef int call_protocol(self, str name) except -1:
        try:
            entered = self.enter()
            try:
                getattr(self.protocol, name)()
            finally:
                self.leave(entered)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({
                "message": f"protocol.{name}() failed",
                "exception": exc,
                "transport": self.transport,
                "protocol": self,
            })
        return 0

    # ---- the end ------------------------------------------------------------------------------

    cdef int start_shutdown(self) except -1:
        if self.state == HANDSHAKE:
            return self.abort(None)
        if self.state != WRAPPED:
            return 0
        self.flags |= CLOSED
        self.state = FLUSHING
        self.start_shutdown_timer()
        return self.do_flush()

    cdef int start_shutdown_timer(self) except -1:
        """Until connection_lost: a peer that has said goodbye need not read what is still to go."""
        if self.timer is None:
            self.timer = self.loop.call_later(self.shutdown_timeout_s, self._shutdown_is_late)
        return 0

    def _shutdown_is_late(self):
        self.timer = None
        if self.state == FLUSHING or self.state == SHUTDOWN:
            self.below._force_close(asyncio.TimeoutError("SSL shutdown timed out"))

    cdef int do_flush(self) except -1:
        """What came before the peer's end is read, what was written is sent; then goodbye. After
        close() nothing more is delivered, as asyncio.BaseTransport.close() has it."""
        self.do_read()
        if self.state != FLUSHING:
            return 0
        self.encrypt(True)
        if self.state != FLUSHING:  # encrypting failed
            return 0
        self.state = SHUTDOWN
        return self.do_shutdown()

    cdef int do_shutdown(self) except -1:
        """Says goodbye once; then drops what still comes until the peer says it too."""
        try:
            if not self.flags & EOF_CAME:
                if not self.said_goodbye():
                    return 0
        except SSLError as exc:
            return self.shutdown_done(exc)
        self.send_goodbye()
        self.call_eof_received()
        return self.shutdown_done(None)

    cdef bint said_goodbye(self) except -1:
        """True when both sides have said it."""
        if self.session.has_more():
            self.session.read_all()  # nobody wants it any more
            self.control_reading()
            if self.session.status == TLS_FAILED:
                self.read_ended(TLS_FAILED)
        try:
            self.session.sslobj.unwrap()
        except AGAIN_ERRORS:
            self.send_goodbye()
            return False
        return True

    cdef int send_goodbye(self) except -1:
        """At once: it is the last thing sent, and get_write_buffer_size() is 0 after it."""
        cdef StreamTransport native
        self.send_output()
        native = self.native
        if native is not None:
            write_now(native)
        return 0

    cdef int shutdown_done(self, object exc) except -1:
        if exc is not None:
            self.stop_timer()
            return self.fatal(exc, "Fatal error on transport")
        cdef StreamTransport native = self.native
        if native is not None:
            self.start_shutdown_timer()
            native.close()
        elif self.below is not None:
            self.start_shutdown_timer()
            self.loop.call_soon(self.below.close)
        return 0

    cdef int abort(self, object exc) except -1:
        self.offer()
        self.state = UNWRAPPED
        self.drop_plain()
        if self.below is not None:
            self.below._force_close(exc)
        return 0

    cdef int drop_plain(self) except -1:
        out_clear(&self.plain)
        return 0

    def feed_early(self, bytes data):
        """Ciphertext that came before the connection was ours; before connection_made."""
        if data:
            self.session.feed(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            self.session.settle()

    # ---- what the transport above asks --------------------------------------------------------

    # Names of asyncio's SSLProtocol that programs read; docs/compatibility.md has the list.

    @property
    def _app_transport(self):
        return self.transport

    @property
    def _app_protocol(self):
        return self.protocol

    @property
    def _sslcontext(self):
        return self.sslcontext

    @property
    def _sslobj(self):
        return self.session.sslobj

    @property
    def _loop(self):
        return self.loop

    @property
    def _extra(self):
        """What get_extra_info() knows, as a dict: a copy."""
        transport = self.transport
        names = ("sslcontext", "ssl_object", "peercert", "cipher", "compression")
        if transport is None or not self.flags & ESTABLISHED:
            names = names[:1]
        return {name: self.sslcontext if name == "sslcontext" else transport.get_extra_info(name)
                for name in names}

    @property
    def _transport(self):
        return self.below


seal_types(globals())
