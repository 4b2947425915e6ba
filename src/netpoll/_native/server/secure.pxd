# The seam of server/secure.pyx.

from libc.stdint cimport uint64_t, uint8_t

from netpoll._native.c cimport np_chunk, np_conn, np_event, np_flow
from netpoll._native.limits cimport TLS_RECORD_BYTES
from netpoll._native.server.worker cimport Worker
from netpoll._native.tls.engine cimport Session as TlsSession


cdef class Secured:
    """What a connection has beside its struct while it speaks TLS."""
    cdef TlsSession session
    cdef object timer           # of the handshake
    cdef Py_ssize_t cipher_bytes    # of the outbound flow's first piece: encrypted, not yet sent
    cdef bint is_shaken         # the handshake is done
    cdef bint is_announced      # and the user knows of the connection
    cdef bint said_goodbye


cdef class SecureWorker(Worker):
    cdef object context
    cdef double handshake_timeout_s
    cdef list secured           # Secured or None, by the connection's index
    cdef uint8_t scratch[TLS_RECORD_BYTES]
    cdef uint64_t encrypted_bytes, handshakes_count, failed_handshakes_count

    cdef int on_cipher(self, np_conn *conn, np_event *event, Secured side) except -1
    cdef int keep_plain(self, np_conn *conn, bytes data) except -1
    cdef int shake(self, Secured side) except -1
    cdef int put_output(self, np_conn *conn, Secured side) except -1
    cdef int put_first(self, np_conn *conn, Secured side, bytes data) except -1
    cdef int broke(self, np_conn *conn, Secured side, object error) except -1
    cdef int encrypt(self, np_conn *conn, Secured side) except -1
    cdef Py_ssize_t next_piece(self, np_flow *flow, Py_ssize_t most, const char **data) except -1
    cdef Py_ssize_t read_file(self, np_chunk *chunk, size_t skip_bytes, Py_ssize_t size) except -1
    cdef int say_goodbye(self, np_conn *conn, Secured side) except -1
