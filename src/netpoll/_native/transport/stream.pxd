# The seam of transport/stream.pyx.

from libc.stdint cimport uint32_t

from netpoll._native.c cimport np_event, np_peer, np_udata
from netpoll._native.transport.sending cimport SendingTransport
from netpoll._native.transport.stream_reader cimport Sink


cdef class StreamTransport(SendingTransport):
    # Set once, by the maker.
    cdef object server
    cdef dict extra
    cdef np_peer peer
    # Where received bytes go, if not to the protocol.
    cdef Sink reader            # takes them natively: a stream's buffer, TLS; else None
    cdef np_udata read_op
    cdef bytes part             # of a message that a shared buffer's end cut in two
    cdef list stash             # received while paused
    cdef int stash_end          # how the stream ended while paused: see STASH_*
    cdef uint32_t bulk_bytes    # size of the next direct read
    cdef object error           # what connection_lost will get
    cdef object __weakref__

    cdef int begin(self) except -1
    cdef int call_made(self) except -1
    cdef int arm_read(self) except -1
    cdef int read_again(self) except -1
    cdef int stop_reading(self) except -1
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
    cdef int enter_bulk(self) except -1
    cdef int leave_bulk(self) except -1
    cdef int close_fd(self) except -1
    cdef object remember(self, str name, object value)
    cdef object peer_name(self, object default)
    cdef int op_ended(self) except -1


cdef int attach(object server, StreamTransport transport) except -1
cdef int detach(StreamTransport transport) except -1
