# The seam of transport/stream.pyx.

from libc.stdint cimport uint16_t

from netpoll._native.c cimport np_event, np_peer
from netpoll._native.transport.endpoint cimport Endpoint
from netpoll._native.transport.stream_reader cimport Sink


cdef class StreamTransport(Endpoint):
    # Set once, by the maker.
    cdef object server
    cdef dict extra
    cdef np_peer peer
    cdef np_peer own            # our own name, once the connection has ended
    # Where received bytes go, if not to the protocol.
    cdef Sink reader            # takes them natively: a stream's buffer, TLS; else None
    cdef bytes part             # of a message that a shared buffer's end cut in two
    cdef int stash_end          # how the stream failed while paused: see STASH_*
    cdef uint16_t heard_turn    # loop.turns, the last bits, when bytes came last
    cdef object empty_waiter    # sendfile waits for the queue to run empty
    cdef object __weakref__

    cdef int begin(self) except -1
    cdef int call_made(self) except -1
    cdef int on_recv(self, np_event *event) except -1
    cdef int on_bytes(self, np_event *event) except -1
    cdef int receive_ended(self, int res) except -1
    cdef int on_readable(self, np_event *event) except -1
    cdef int take(self, const char *data, Py_ssize_t size) except -1
    cdef int deliver(self, bytes data) except -1
    cdef Py_ssize_t deliver_buffered(self, const char *data, Py_ssize_t size) except -1
    cdef int join_part(self, np_event *event) except -1
    cdef int take_part(self) except -1
    cdef int read_direct(self) except -1
    cdef object receive(self, Py_ssize_t want, ptrdiff_t *got)
    cdef int read_into_protocol(self) except -1
    cdef int end_of_stream(self, int end) except -1
    cdef int note_size(self, Py_ssize_t got) except -1
    cdef int check_writable(self, str method) except -1
    cdef int lost_write(self, bytes data) except -1
    cdef object remember(self, str name, object value)
