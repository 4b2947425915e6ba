# The seam of http/answer_head.pyx.

from libc.stdint cimport int64_t, uint8_t

from netpoll._native.http.c cimport np_date


cdef struct Fields:
    # What an application's fields say that is the server's concern, too.
    size_t bytes                # that they need
    int64_t length_bytes        # Content-Length; -1: not said
    bint has_date, has_server, closes


cdef struct Framing:
    # What a server says of the body and of the connection.
    int64_t length_bytes        # Content-Length; -1: not said
    bint is_chunked
    bint offers_switch          # "Upgrade: websocket"
    bint closes
    bint keeps_alive            # said to HTTP/1.0 only: later ones keep alive without


cdef list checked_fields(object fields, Fields *told)


cdef class HeadWriter:
    cdef np_date date
    cdef bytes server_field     # "server: netpoll\r\n"; empty: none
    cdef bytes more_fields      # of each answer; empty: none
    cdef bint has_date          # they say it

    cdef size_t max_bytes(self, const Fields *told) noexcept
    cdef uint8_t *put(self, uint8_t *at, int status, list pairs, const Fields *told,
                      const Framing *framing) noexcept
    cdef bytes fault(self, int fault, uint8_t method)
