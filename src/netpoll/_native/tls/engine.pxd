# The seam of tls/engine.pyx: one TLS session without a socket.

from netpoll._native.tls.c cimport np_bio


cdef enum:  # Session.status, after a read
    TLS_AGAIN = 0       # everything that came has been read
    TLS_MORE = 1        # the room given was too small: there is more
    TLS_END = 2         # the peer has said goodbye (close_notify)
    TLS_FAILED = 3      # Session.error is to be raised, after what was read


cdef class Session:
    cdef readonly object sslobj         # ssl.SSLObject: what users get as "ssl_object"
    cdef object inner                   # its native part, or itself
    cdef object incoming, outgoing      # ssl.MemoryBIO; None in a NativeSession
    cdef object error
    cdef int status

    cdef int feed(self, const char *data, Py_ssize_t size) except -1
    cdef int settle(self) except -1
    cdef Py_ssize_t left(self) except -1
    cdef bint has_more(self) except -1
    cdef bytes read_all(self)
    cdef Py_ssize_t read_into(self, char *into, Py_ssize_t size) except -1
    cdef bytes read_python(self, Py_ssize_t size)
    cdef int begin_output(self, Py_ssize_t plain_bytes) except -1
    cdef Py_ssize_t write(self, const char *data, Py_ssize_t size) except -1
    cdef Py_ssize_t write_python(self, const char *data, Py_ssize_t size) except -1
    cdef bytes take_output(self)
    cdef Py_ssize_t output_bytes(self) except -1
    cdef bytes own_certificate(self)


cdef class NativeSession(Session):
    cdef void *ssl
    cdef void *bio
    cdef np_bio window
    cdef bytes held             # received and not yet read, in memory of our own
    cdef bytes output           # lent to the window
    cdef Py_ssize_t inside_bytes    # of an incomplete record, at most

    cdef Py_ssize_t drain(self, char *into, Py_ssize_t size) noexcept nogil


cdef Session open_session(object context, bint server_side, object server_hostname)
