# cython: language_level=3, freethreading_compatible=True
"""One TLS session without a socket: ciphertext in, plaintext out, and the other way round.

The session is always made by the ssl module: context.wrap_bio gives an ssl.SSLObject, and it is
this object that does the handshake, verifies, calls the SNI callback, says goodbye and answers
every question. Only the data path has two engines:

  native  OpenSSL's SSL_read and SSL_write, called directly on the SSL that the SSLObject owns, in
          the very library that Python's _ssl is linked with (csrc/tls/np_openssl.h), over a BIO
          that reads from and writes to lent memory (csrc/tls/np_bio.h).
  ssl     the SSLObject's own read and write over two ssl.MemoryBIO, as asyncio does it. For
          interpreters where the first cannot be proven safe, and for contexts with a message
          callback, whose exceptions only _ssl can report.

NETPOLL_TLS=native or =ssl insists on one; engine() says which is used and why.

The native engine trusts nothing that it has not compared: the functions must come from the library
that ssl.OPENSSL_VERSION names, and the pointer that it takes out of an SSLObject must lead back to
this very object, to its context and to its two BIOs, each time.

When OpenSSL reports an error, the same call is made once more through _ssl: OpenSSL repeats its
verdict, and _ssl makes the exception that it has always made of it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ
from libc.limits cimport INT_MAX
from libc.stdint cimport uintptr_t
from libc.string cimport memcpy, memset

from netpoll._native.c cimport PyObject, Py_DECREF, Py_INCREF, _PyBytes_Resize
from netpoll._native.limits cimport (
    TLS_NOGIL_BYTES, TLS_READ_BYTES, TLS_RECORD_BYTES, TLS_RECORD_OVERHEAD_BYTES)
from netpoll._native.seal cimport seal_types
from netpoll._native.tls.c cimport (
    NP_BIO_CTRL_DUP, NP_BIO_CTRL_FLUSH, NP_BIO_CTRL_PENDING, NP_BIO_CTRL_WPENDING,
    NP_BIO_FLAGS_RETRY_ALL, NP_BIO_FLAGS_RETRY_READ, NP_BIO_TYPE_SOURCE_SINK,
    NP_SSL_ERROR_WANT_READ, NP_SSL_ERROR_WANT_WRITE, NP_SSL_ERROR_ZERO_RETURN, RTLD_LAZY,
    RTLD_NOLOAD, PyCFunction_GetFunction, dlopen, np_bio, np_bio_drop_spill, np_bio_lend_in,
    np_bio_lend_out, np_bio_put, np_bio_take, np_openssl, np_openssl_load)

import os
import ssl as py_ssl


cdef object SSLWantReadError = py_ssl.SSLWantReadError
cdef object SSLWantWriteError = py_ssl.SSLWantWriteError
cdef object SSLZeroReturnError = py_ssl.SSLZeroReturnError
cdef object SSLSyscallError = py_ssl.SSLSyscallError
cdef tuple AGAIN_ERRORS = (SSLWantReadError, SSLWantWriteError, SSLSyscallError)
cdef object MemoryBIO = py_ssl.MemoryBIO
cdef object SSLInner = py_ssl._ssl._SSLSocket


# ---- which engine -----------------------------------------------------------------------------

cdef np_openssl LIB
cdef void *BIO_METHOD = NULL
cdef str ENGINE = None
cdef str REASON = None


cdef int bio_read(void *bio, char *into, int size) noexcept nogil:
    cdef np_bio *window = <np_bio*>LIB.BIO_get_data(bio)
    cdef size_t got
    LIB.BIO_clear_flags(bio, NP_BIO_FLAGS_RETRY_ALL)
    if size <= 0:
        return 0
    got = 0 if window is NULL else np_bio_take(window, into, size)
    if got == 0:
        LIB.BIO_set_flags(bio, NP_BIO_FLAGS_RETRY_READ)
        return -1
    return <int>got


cdef int bio_write(void *bio, const char *data, int size) noexcept nogil:
    cdef np_bio *window = <np_bio*>LIB.BIO_get_data(bio)
    LIB.BIO_clear_flags(bio, NP_BIO_FLAGS_RETRY_ALL)
    if size <= 0:
        return 0
    if window is NULL:
        return size  # the connection is gone; only its ssl_object is still there
    return size if np_bio_put(window, data, size) == 0 else -1


cdef long bio_control(void *bio, int command, long number, void *pointer) noexcept nogil:
    cdef np_bio *window
    if command == NP_BIO_CTRL_FLUSH or command == NP_BIO_CTRL_DUP:
        return 1
    if command == NP_BIO_CTRL_PENDING or command == NP_BIO_CTRL_WPENDING:
        window = <np_bio*>LIB.BIO_get_data(bio)
        if window is NULL:
            return 0
        if command == NP_BIO_CTRL_PENDING:
            return window.in_bytes
        return window.out_bytes + window.spill_bytes
    return 0


cdef str load_native():
    """Fills LIB; None when all is well, else the reason why it is not."""
    global BIO_METHOD
    import _ssl
    cdef void *handle
    cdef void *home = NULL
    cdef bytes path
    file = getattr(_ssl, "__file__", None)
    if file is not None:
        path = os.fsencode(file)
        handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD)
    else:  # built into the interpreter
        home = PyCFunction_GetFunction(_ssl.RAND_status)
        handle = dlopen(NULL, RTLD_LAZY)
    if handle is NULL:
        return "the library of Python's ssl module cannot be opened a second time"
    if np_openssl_load(&LIB, handle, home) < 0:
        return "the OpenSSL of Python's ssl module does not show its functions (it is built in)"
    if LIB.OpenSSL_version(0).decode() != py_ssl.OPENSSL_VERSION:
        return "another OpenSSL than that of Python's ssl module was found"
    BIO_METHOD = LIB.BIO_meth_new(NP_BIO_TYPE_SOURCE_SINK, b"netpoll")
    if BIO_METHOD is NULL or not LIB.BIO_meth_set_read(BIO_METHOD, bio_read) \
            or not LIB.BIO_meth_set_write(BIO_METHOD, bio_write) \
            or not LIB.BIO_meth_set_ctrl(BIO_METHOD, bio_control):
        return "OpenSSL has no memory for a BIO method"
    return None


cdef int choose() except -1:
    global ENGINE, REASON
    wanted = os.environ.get("NETPOLL_TLS", "auto")
    if wanted not in ("auto", "native", "ssl"):
        raise ValueError(f"NETPOLL_TLS is {wanted!r}; it must be auto, native or ssl")
    if wanted == "ssl":
        ENGINE, REASON = "ssl", "NETPOLL_TLS=ssl"
        return 0
    problem = load_native()
    if problem is None:
        context = py_ssl.SSLContext(py_ssl.PROTOCOL_TLS_SERVER)
        if native_session(context, True, None) is None:
            problem = "an ssl.SSLObject of this Python is laid out in a way not known here"
    if problem is None:
        ENGINE, REASON = "native", f"{py_ssl.OPENSSL_VERSION}, the one Python's ssl module uses"
    elif wanted == "native":
        raise RuntimeError(f"NETPOLL_TLS=native, but {problem}; unset it to use the ssl module")
    else:
        ENGINE, REASON = "ssl", problem
    return 0


def choose_again() -> None:
    """Looks at NETPOLL_TLS again; sessions that are there keep their engine. For tests."""
    choose()


def engine() -> tuple[str, str]:
    """("native" or "ssl", why): how TLS data is encrypted and decrypted in this process."""
    if ENGINE is None:
        choose()
    return ENGINE, REASON


# ---- making one -------------------------------------------------------------------------------

cdef Py_ssize_t HEAD_BYTES = object.__basicsize__


cdef inline void **fields_of(object thing):
    """What an object of a C type holds, after its head."""
    return <void**>(<char*><PyObject*>thing + HEAD_BYTES)


cdef void *ssl_of(object inner, object context, object incoming, object outgoing):
    """The SSL* of a _ssl._SSLSocket; NULL unless everything fits.

    The object's fields are (Socket, ssl, ctx, ...), in every CPython from 3.7 to 3.14.
    """
    cdef void **fields = fields_of(inner)
    cdef void *ssl
    cdef Py_ssize_t known_bytes = HEAD_BYTES + 3 * sizeof(void*)
    if type(inner).__basicsize__ < known_bytes or fields[0] is not NULL \
            or fields[2] is not <void*>context:
        return NULL
    ssl = fields[1]
    if ssl is NULL or <uintptr_t>ssl % sizeof(void*):
        return NULL
    if LIB.SSL_get_ex_data(ssl, 0) is not <void*>inner \
            or LIB.SSL_get_SSL_CTX(ssl) is not fields_of(context)[0] \
            or LIB.SSL_get_rbio(ssl) is not fields_of(incoming)[0] \
            or LIB.SSL_get_wbio(ssl) is not fields_of(outgoing)[0]:
        return NULL
    return ssl


cdef NativeSession native_session(object context, bint server_side, object server_hostname):
    """A session of the native engine, or None where it cannot be one."""
    cdef NativeSession session
    cdef void *ssl
    incoming, outgoing = MemoryBIO(), MemoryBIO()
    sslobj = context.wrap_bio(incoming, outgoing, server_side=server_side,
                              server_hostname=server_hostname)
    inner = getattr(sslobj, "_sslobj", None)
    if type(inner) is not SSLInner:
        return None
    context = inner.context  # what a wrapper around a context has really used
    if context._msg_callback is not None:
        return None
    ssl = ssl_of(inner, context, incoming, outgoing)
    if ssl is NULL:
        return None
    session = NativeSession.__new__(NativeSession)
    session.sslobj = sslobj
    session.inner = inner
    session.bio = LIB.BIO_new(BIO_METHOD)
    if session.bio is NULL:
        raise MemoryError
    LIB.BIO_set_data(session.bio, &session.window)
    LIB.BIO_set_init(session.bio, 1)
    LIB.BIO_up_ref(session.bio)  # one for the SSL, one for us
    LIB.SSL_set_bio(ssl, session.bio, session.bio)
    session.ssl = ssl
    return session


cdef Session open_session(object context, bint server_side, object server_hostname):
    """A new session. Raises what context.wrap_bio raises."""
    cdef Session session = None
    if ENGINE is None:
        choose()
    if ENGINE == "native":
        session = native_session(context, server_side, server_hostname)
    if session is None:
        session = Session.__new__(Session)
        session.incoming = MemoryBIO()
        session.outgoing = MemoryBIO()
        session.sslobj = context.wrap_bio(session.incoming, session.outgoing,
                                          server_side=server_side,
                                          server_hostname=server_hostname)
        session.inner = getattr(session.sslobj, "_sslobj", None) or session.sslobj
    return session


# ---- the portable engine ----------------------------------------------------------------------

cdef class Session:
    """The ssl module's engine; NativeSession overrides what moves data."""

    cdef int feed(self, const char *data, Py_ssize_t size) except -1:
        """Ciphertext that came. Its memory is used until settle()."""
        self.incoming.write(PyMemoryView_FromMemory(<char*>data, size, PyBUF_READ))
        return 0

    cdef int settle(self) except -1:
        """Keeps what was fed and not read: the memory goes back to its owner."""
        return 0

    cdef Py_ssize_t left(self) except -1:
        """Ciphertext that was fed and not read, bytes."""
        return self.incoming.pending

    cdef bint has_more(self) except -1:
        """Whether a read could find something."""
        return self.incoming.pending or self.inner.pending()

    cdef bytes read_all(self):
        """All plaintext that has arrived; `status` says how it ended."""
        cdef list pieces = []
        while True:
            data = self.read_python(TLS_READ_BYTES)
            if not data:
                break
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    cdef Py_ssize_t read_into(self, char *into, Py_ssize_t size) except -1:
        """Plaintext into memory of the caller; `status` says how it ended."""
        cdef Py_ssize_t got = 0
        while got < size:
            data = self.read_python(size - got)
            if not data:
                return got
            memcpy(into + got, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
            got += PyBytes_GET_SIZE(data)
        self.status = TLS_MORE
        return got

    cdef bytes read_python(self, Py_ssize_t size):
        """One read through the ssl module; b"" when there is none, and `status` says why."""
        cdef bytes data
        try:
            data = self.inner.read(size)
            if PyBytes_GET_SIZE(data) > size:  # of an SSLObject that is not ssl's
                raise ValueError(f"read({size}) has returned {len(data)} bytes")
        except AGAIN_ERRORS:
            self.status = TLS_AGAIN
            return b""
        except SSLZeroReturnError:  # the peer's goodbye, after ours
            self.status = TLS_END
            return b""
        except Exception as exc:
            self.status = TLS_FAILED
            self.error = exc
            return b""
        self.status = TLS_MORE if data else TLS_END
        return data

    cdef int begin_output(self, Py_ssize_t plain_bytes) except -1:
        """So much plaintext follows; take_output() ends it."""
        return 0

    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size) except -1:
        """Encrypts; returns how many bytes it took, 0 when it has to read first."""
        return self.write_python(data, size)

    cdef Py_ssize_t write_python(self, const char *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t taken
        try:
            if type(self.inner) is SSLInner:
                piece = PyMemoryView_FromMemory(<char*>data, size, PyBUF_READ)
            else:
                # An sslobject_class of somebody else, who may keep what he gets: only bytes.
                piece = PyBytes_FromStringAndSize(data, size)
            taken = self.inner.write(piece)
        except AGAIN_ERRORS:
            return 0
        if not 0 <= taken <= size:
            raise ValueError(f"write() of {size} bytes has returned {taken}")
        return taken

    cdef bytes take_output(self):
        """Ciphertext to be sent."""
        return self.outgoing.read()

    cdef Py_ssize_t output_bytes(self) except -1:
        return self.outgoing.pending

    cdef bytes own_certificate(self):
        """The certificate that we have shown to the peer, in DER. None: nobody can tell, and the
        ssl module cannot."""
        return None


# ---- the native engine ------------------------------------------------------------------------

cdef class NativeSession(Session):

    def __cinit__(self):
        memset(&self.window, 0, sizeof(self.window))

    def __dealloc__(self):
        if self.bio is not NULL:
            LIB.BIO_set_data(self.bio, NULL)  # the SSLObject may live on
            LIB.BIO_free(self.bio)
        np_bio_drop_spill(&self.window)

    cdef int feed(self, const char *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t kept
        cdef bytes joined
        if self.held is None:
            np_bio_lend_in(&self.window, data, size)
            return 0
        kept = self.window.in_bytes
        joined = PyBytes_FromStringAndSize(NULL, kept + size)
        memcpy(PyBytes_AS_STRING(joined), self.window.data, kept)
        memcpy(PyBytes_AS_STRING(joined) + kept, data, size)
        np_bio_lend_in(&self.window, PyBytes_AS_STRING(joined), kept + size)
        self.held = joined
        return 0

    cdef int settle(self) except -1:
        cdef bytes rest = None
        if self.window.in_bytes == 0:
            self.held = None
        elif self.held is None:
            rest = PyBytes_FromStringAndSize(<const char*>self.window.data, self.window.in_bytes)
            np_bio_lend_in(&self.window, PyBytes_AS_STRING(rest), self.window.in_bytes)
            self.held = rest
        return 0

    cdef Py_ssize_t left(self) except -1:
        return self.window.in_bytes

    cdef bytes own_certificate(self):
        cdef void *certificate = LIB.SSL_get_certificate(self.ssl)
        cdef int size = -1 if certificate is NULL else LIB.i2d_X509(certificate, NULL)
        cdef unsigned char *at
        if size <= 0:
            return None
        data = PyBytes_FromStringAndSize(NULL, size)
        at = <unsigned char*>PyBytes_AS_STRING(data)
        LIB.i2d_X509(certificate, &at)
        return data

    cdef bint has_more(self) except -1:
        return self.window.in_bytes != 0 or LIB.SSL_pending(self.ssl) != 0

    cdef Py_ssize_t drain(self, char *into, Py_ssize_t size) noexcept nogil:
        """SSL_read until the room is full or all that was fed is used."""
        cdef Py_ssize_t got = 0
        cdef size_t before
        cdef int n, err
        self.status = TLS_MORE
        LIB.ERR_clear_error()  # somebody else's errors would be taken for ours
        while got < size:
            before = self.window.in_bytes
            n = LIB.SSL_read(self.ssl, into + got, <int>min(size - got, <Py_ssize_t>INT_MAX))
            if n > 0:
                got += n
                self.inside_bytes = 0
                if self.window.in_bytes == 0 and LIB.SSL_pending(self.ssl) == 0:
                    self.status = TLS_AGAIN
                    break
                continue
            err = LIB.SSL_get_error(self.ssl, n)
            if err == NP_SSL_ERROR_WANT_READ or err == NP_SSL_ERROR_WANT_WRITE:
                self.inside_bytes = self.inside_bytes + before - self.window.in_bytes
                self.status = TLS_AGAIN
            elif err == NP_SSL_ERROR_ZERO_RETURN:
                self.status = TLS_END
            else:
                self.status = TLS_FAILED
            break
        return got

    cdef Py_ssize_t read_into(self, char *into, Py_ssize_t size) except -1:
        cdef Py_ssize_t got
        if self.window.in_bytes >= TLS_NOGIL_BYTES:
            with nogil:
                got = self.drain(into, size)
        else:
            got = self.drain(into, size)
        if self.status == TLS_FAILED:
            data = self.read_python(size - got)
            if data:
                memcpy(into + got, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
                got += PyBytes_GET_SIZE(data)
        return got

    cdef bytes read_all(self):
        cdef list pieces = None
        cdef bytes data = None
        cdef Py_ssize_t got, room
        cdef PyObject *raw
        while True:
            room = self.window.in_bytes + LIB.SSL_pending(self.ssl)
            if room == 0:
                self.status = TLS_AGAIN
                break
            room += self.inside_bytes  # plaintext is never longer than its ciphertext
            data = PyBytes_FromStringAndSize(NULL, room)
            got = self.read_into(PyBytes_AS_STRING(data), room)
            if got < room:
                raw = <PyObject*>data
                Py_INCREF(raw)
                data = None
                _PyBytes_Resize(&raw, got)
                data = <bytes>raw
                Py_DECREF(raw)
            if self.status != TLS_MORE:
                break
            if pieces is None:
                pieces = []
            pieces.append(data)
            data = None
        if pieces is None:
            return b"" if data is None else data
        if data is not None:
            pieces.append(data)
        return b"".join(pieces)

    cdef int begin_output(self, Py_ssize_t plain_bytes) except -1:
        cdef Py_ssize_t records = plain_bytes // TLS_RECORD_BYTES + 2
        if self.window.spill_bytes:
            return 0  # what was put before must leave before; all of it spills
        self.output = PyBytes_FromStringAndSize(
            NULL, plain_bytes + records * TLS_RECORD_OVERHEAD_BYTES)
        np_bio_lend_out(&self.window, PyBytes_AS_STRING(self.output),
                        PyBytes_GET_SIZE(self.output))
        return 0

    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size) except -1:
        cdef int n
        cdef int part = <int>min(size, <Py_ssize_t>INT_MAX)
        LIB.ERR_clear_error()
        if part >= TLS_NOGIL_BYTES:
            with nogil:
                n = LIB.SSL_write(self.ssl, data, part)
        else:
            n = LIB.SSL_write(self.ssl, data, part)
        if n > 0:
            return n
        n = LIB.SSL_get_error(self.ssl, n)
        if n == NP_SSL_ERROR_WANT_READ or n == NP_SSL_ERROR_WANT_WRITE:
            return 0
        return self.write_python(data, part)

    cdef bytes take_output(self):
        cdef bytes data = b""
        cdef PyObject *raw
        cdef Py_ssize_t size
        if self.output is not None:
            size = self.window.out_bytes
            np_bio_lend_out(&self.window, NULL, 0)
            raw = <PyObject*>self.output
            Py_INCREF(raw)
            self.output = None
            _PyBytes_Resize(&raw, size)
            data = <bytes>raw
            Py_DECREF(raw)
        if self.window.spill_bytes:
            data = data + (<char*>self.window.spill)[:self.window.spill_bytes]
            np_bio_drop_spill(&self.window)
        return data

    cdef Py_ssize_t output_bytes(self) except -1:
        return self.window.out_bytes + self.window.spill_bytes


seal_types(globals())
