# cython: language_level=3, freethreading_compatible=True
"""The transport that a program has of a TLS connection, and the making of one.

What it does is in tls/layer.pyx, in tls/engine.pyx what OpenSSL does; docs/tls.md is for users.
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport SIZE_MAX

from netpoll._core cimport Loop
from netpoll._native.c cimport PyObject, inquiry
from netpoll._native.numbers cimport watermarks, whole_bytes
from netpoll._native.loop.collect cimport replace_clear
from netpoll._native.seal cimport seal_types
from netpoll._native.tls.engine cimport open_session
from netpoll._native.tls.layer cimport CLOSED, ESTABLISHED, MADE, PAUSED, WRITING_PAUSED, TlsLayer
from netpoll._native.transport.endpoint cimport drop_attributes, forget_attributes
from netpoll._native.transport.out_queue cimport out_push_bytes

import warnings
from asyncio import constants, sslproto

cdef object warn = warnings.warn  # the module is empty when the interpreter ends
cdef object AsyncioTransport = sslproto._SSLProtocolTransport
cdef object SendfileMode = constants._SendfileMode.FALLBACK
cdef object WRITE_HIGH_BYTES = constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE * 1024
cdef object READ_HIGH_BYTES = constants.FLOW_CONTROL_HIGH_WATER_SSL_READ * 1024


cdef object positive(object seconds, object default, str name):
    if seconds is None:
        return default
    if seconds <= 0:
        raise ValueError(f"{name} should be a positive number, got {seconds}")
    return seconds


cdef Py_ssize_t mark(object limit) except? 0:
    """Here, as in asyncio's TLS, a watermark is passed when it is reached: rounded up."""
    cdef size_t whole = whole_bytes(limit)
    if whole >= SIZE_MAX // 2:
        return SIZE_MAX // 2
    return <Py_ssize_t>whole + (limit != whole)


cdef class TlsTransport(Transport):
    """What a program has of a TLS connection; the interface of asyncio.Transport."""

    # isinstance(transport, asyncio.Transport) holds, and for those who look for it, this one.
    @property
    def __class__(self):
        return AsyncioTransport

    _start_tls_compatible = True
    _sendfile_compatible = SendfileMode

    def __cinit__(self):
        drop_attributes(self)

    def __del__(self):
        if self.layer is not None and not self.layer.flags & CLOSED:
            self.layer.flags |= CLOSED
            warn(f"unclosed transport {self!r}", ResourceWarning, source=self)

    def __repr__(self):
        state = "closing " if self.is_closing() else ""
        return f"<{type(self).__name__} {state}over {self.layer.info!r}>"

    cdef int write_bytes(self, bytes data) except -1:
        return self.layer.write_bytes(data)

    def write(self, data):
        """Sends bytes in order, without waiting. A bytes object is kept, not copied; anything
        that can still change is copied now."""
        cdef bytes exact
        if isinstance(data, bytes):
            exact = <bytes>data
        elif isinstance(data, (bytearray, memoryview)):
            exact = bytes(data)
        else:
            raise TypeError("data: expecting a bytes-like instance, "
                            f"got {type(data).__name__}")
        if PyBytes_GET_SIZE(exact):
            self.layer.write_bytes(exact)

    def writelines(self, list_of_data):
        """Sends several pieces, in order."""
        cdef list pieces = [p if type(p) is bytes else bytes(memoryview(p)) for p in list_of_data]
        self.layer.write_bytes(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def write_eof(self):
        """TLS is closed as a whole. Raises NotImplementedError, as asyncio does."""
        raise NotImplementedError("a TLS connection cannot be closed for writing only; "
                                  "use close()")

    def can_write_eof(self):
        return False

    def get_write_buffer_size(self):
        """Bytes not yet taken by the kernel: plaintext that waits, and ciphertext below."""
        cdef TlsLayer layer = self.layer
        layer.catch_up()
        size = layer.waiting_bytes()
        if layer.native is None and layer.below is not None:
            size += layer.below.get_write_buffer_size()
        return size

    def get_write_buffer_limits(self):
        return (self.layer.low_bytes, self.layer.high_bytes)

    def set_write_buffer_limits(self, high=None, low=None):
        """Watermarks, in bytes: from high on the protocol is paused, at low it is resumed."""
        high, low = watermarks(high, low, WRITE_HIGH_BYTES)
        self.layer.high_bytes = mark(high)
        self.layer.low_bytes = mark(low)
        self.layer.control_writing()

    @property
    def _protocol_paused(self):
        return bool(self.layer.flags & WRITING_PAUSED)

    def is_reading(self):
        return not self.layer.flags & PAUSED

    def pause_reading(self):
        """No data_received until resume_reading()."""
        self.layer.flags |= PAUSED

    def resume_reading(self):
        cdef TlsLayer layer = self.layer
        if layer.flags & PAUSED:
            layer.flags &= ~PAUSED
            layer.loop.soon(layer._resumed, None)

    def get_read_buffer_size(self):
        """Received bytes that are not decrypted because reading is paused."""
        return self.layer.session.left()

    def get_read_buffer_limits(self):
        return (self.layer.read_low_bytes, self.layer.read_high_bytes)

    def set_read_buffer_limits(self, high=None, low=None):
        """How much may wait, in bytes, before the connection below is paused, too."""
        high, low = watermarks(high, low, READ_HIGH_BYTES)
        self.layer.read_high_bytes = mark(high)
        self.layer.read_low_bytes = mark(low)
        self.layer.control_reading()

    def is_closing(self):
        below = self.layer.below
        return bool(self.layer.flags & CLOSED) or (below is not None and below.is_closing())

    def close(self):
        """Sends what was written and says goodbye; connection_lost(None) when the peer has
        answered, or TimeoutError after ssl_shutdown_timeout."""
        if not self.layer.flags & CLOSED:
            self.layer.flags |= CLOSED
            try:
                self.layer.start_shutdown()
            finally:
                self.layer.session.settle()

    def abort(self):
        """Closes at once; what the socket has not room for is dropped."""
        self._force_close(None)

    def _force_close(self, exc):
        self.layer.flags |= CLOSED
        self.layer.abort(exc)

    def get_protocol(self):
        return self.layer.protocol

    def set_protocol(self, protocol):
        self.layer.set_app_protocol(protocol)

    def _test__append_write_backlog(self, data):
        """Written, but nobody is told to encrypt it: asyncio's own tests ask for this."""
        cdef TlsLayer layer = self.layer
        data = bytes(data)
        if data:
            out_push_bytes(&layer.plain, data)

    @property
    def _loop(self):
        return self.layer.loop

    @property
    def _ssl_protocol(self):
        return self.layer

    @property
    def _closed(self):
        return bool(self.layer.flags & CLOSED)

    def get_extra_info(self, name, default=None):
        """'sslcontext'; after the handshake 'ssl_object', 'peercert', 'cipher', 'compression'
        and 'ktls' (whether the kernel encrypts); else what the transport below knows."""
        cdef TlsLayer layer = self.layer
        if name == "sslcontext":
            return layer.sslcontext
        if name == "socket":
            layer.catch_up()
        if layer.flags & ESTABLISHED:
            sslobj = layer.session.sslobj
            if name == "ssl_object":
                return sslobj
            if name == "cipher":
                return sslobj.cipher()
            if name == "ktls":
                return False  # docs/tls.md says why
            if name == "compression":
                return sslobj.compression()
            if name == "peercert":
                try:
                    return sslobj.getpeercert()
                except ValueError:  # OpenSSL has given the session up
                    return default
        return default if layer.info is None else layer.info.get_extra_info(name, default)


def make_layer(Loop loop, protocol, sslcontext, waiter, *, server_side=False,
               server_hostname=None, call_connection_made=True, ssl_handshake_timeout=None,
               ssl_shutdown_timeout=None):
    """The protocol to give to a transport so that `protocol` speaks TLS over it.

    The handshake begins with connection_made; waiter, a future or None, gets its outcome.
    layer._app_transport is the transport above. Raises ValueError for time-outs that are not
    positive and for a server without context, and what sslcontext.wrap_bio raises.
    """
    cdef TlsLayer layer = TlsLayer.__new__(TlsLayer)
    cdef TlsTransport transport
    layer.handshake_timeout_s = positive(
        ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT, "ssl_handshake_timeout")
    layer.shutdown_timeout_s = positive(
        ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT, "ssl_shutdown_timeout")
    if not sslcontext:
        # ssl=True: the ssl module's defaults, by asyncio's own function.
        sslcontext = sslproto._create_transport_context(server_side, server_hostname)
    layer.loop = loop
    layer.sslcontext = sslcontext
    layer.waiter = waiter
    layer.session = open_session(sslcontext, server_side, None if server_side or
                                 not server_hostname else server_hostname)
    layer.high_bytes, layer.low_bytes = watermarks(None, None, WRITE_HIGH_BYTES)
    layer.read_high_bytes, layer.read_low_bytes = watermarks(None, None, READ_HIGH_BYTES)
    if not call_connection_made:
        layer.flags |= MADE
    transport = TlsTransport.__new__(TlsTransport)
    transport.layer = layer
    layer.transport = transport
    layer.set_app_protocol(protocol)
    return layer


cdef int clear_transport(PyObject *transport) noexcept:
    return forget_attributes(transport, generated_clear)


cdef inquiry generated_clear = replace_clear(TlsTransport, clear_transport)

seal_types(globals())
