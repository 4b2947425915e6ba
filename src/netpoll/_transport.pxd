# The seam of _transport.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from netpoll._c cimport np_event, np_iov, np_peer, np_udata
from netpoll._core cimport Completion, Loop
from netpoll._streams cimport Sink


cdef class StreamTransport(Completion):
    # Set once, by the maker.
    cdef Loop loop
    cdef object server, context
    cdef object sock            # the Python socket that owns fd; None: fd is ours
    cdef dict extra
    cdef np_peer peer
    cdef int fd                 # -1 once closed
    # Where received bytes go.
    cdef object protocol
    cdef Sink reader            # takes them natively: a stream's buffer, TLS; else None
    # The two directions: at most one operation each.
    cdef np_udata read_op, write_op
    cdef np_iov out
    cdef size_t high_bytes, low_bytes
    cdef bytes part             # of a message that a shared buffer's end cut in two
    cdef list stash             # received while paused
    cdef int stash_end          # how the stream ended while paused: see STASH_*
    cdef uint32_t flags
    cdef uint32_t bulk_bytes    # size of the next direct read
    cdef uint16_t small_reads_count
    cdef uint16_t lost_writes_count
    cdef object empty_waiter    # sendfile waits for the chain to run empty
    cdef object error           # what connection_lost will get
    cdef object __weakref__

    cdef int begin(self) except -1
    cdef int arm_read(self) except -1
    cdef int read_again(self) except -1
    cdef int stop_reading(self) except -1
    cdef int on_recv(self, np_event *event) except -1
    cdef int on_readable(self, np_event *event) except -1
    cdef int take(self, const char *data, Py_ssize_t size) except -1
    cdef int deliver(self, bytes data) except -1
    cdef Py_ssize_t deliver_buffered(self, const char *data, Py_ssize_t size) except -1
    cdef int join_part(self, np_event *event) except -1
    cdef int take_part(self) except -1
    cdef bint enter(self) except -1
    cdef int leave(self, bint entered) except -1
    cdef int read_direct(self) except -1
    cdef int read_into_protocol(self) except -1
    cdef int end_of_stream(self, int end) except -1
    cdef int push(self, object data) except -1
    cdef int write_bytes(self, bytes data) except -1
    cdef int flush(self) except -1
    cdef int write_now(self) except -1
    cdef int took(self, ptrdiff_t sent_bytes) except -1
    cdef int wrote_all(self) except -1
    cdef int warn_lost(self, bytes data) except -1
    cdef int note_size(self, Py_ssize_t got) except -1
    cdef int enter_bulk(self) except -1
    cdef int leave_bulk(self) except -1
    cdef int call_protocol(self, str name) except -1
    cdef int close_fd(self) except -1
    cdef object remember(self, str name, object value)
    cdef object peer_name(self, object default)
    cdef int drop_out(self) except -1
    cdef int check_watermarks(self) except -1
    cdef int fail(self, object exc, str message) except -1
    cdef int force_close(self, object exc) except -1
    cdef int lose(self, object exc) except -1
    cdef int op_ended(self) except -1


cdef int attach(object server, StreamTransport transport) except -1
cdef int detach(StreamTransport transport) except -1
cdef object os_error(int err)
