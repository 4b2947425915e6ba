# The seam of transport/sending.pyx: how what has an OutQueue sends a stream of bytes.

from libc.stdint cimport uint16_t

from netpoll._native.c cimport np_event
from netpoll._native.transport.endpoint cimport Endpoint


cdef bytes exact_bytes(object data)
cdef list exact_pieces(object list_of_data)
cdef int count_lost_write(uint16_t *count, str warning) except -1
cdef int push(Endpoint who, bytes data) except -1
cdef int pushed(Endpoint who) except -1
cdef int flush(Endpoint who) except -1
cdef int write_now(Endpoint who) except -1
cdef int on_sent(Endpoint who, np_event *event) except -1
cdef int catch_up(Endpoint who) except -1
cdef int offer(Endpoint who) except -1
