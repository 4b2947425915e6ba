# The seam of _sending.pyx: what the whole transport and the streams use of its sending half.

from libc.stdint cimport uint16_t, uint32_t

from netpoll._c cimport np_iov, np_udata
from netpoll._core cimport Completion, Loop


cdef enum:  # SendingTransport.flags, of both halves
    CLOSING = 1 << 0        # close() or abort(): no more reading
    LOST = 1 << 1           # connection_lost is in the loop's queue, or was called
    PAUSED = 1 << 2         # pause_reading()
    CANCELLED = 1 << 3      # read_op was asked to end
    EOF_SEEN = 1 << 4       # the peer has shut its side
    EOF_ASKED = 1 << 5      # write_eof()
    BUFFERED = 1 << 6       # a BufferedProtocol
    BULK = 1 << 7           # direct reads
    DIRTY = 1 << 8          # in the loop's list for the end of the turn
    PROTOCOL_PAUSED = 1 << 9
    STARTED = 1 << 10       # connection_made was called
    ABORTED = 1 << 11       # what is unsent is dropped
    SENDING = 1 << 12       # write_op is a SEND; else a POLL for POLLOUT
    GONE = 1 << 13          # connection_lost was called; the fd closes with the last operation
    READING = 1 << 16       # in a run of direct reads: writes wait for its end
    ENTERED = 1 << 17       # the protocol is being called, in our context
    LENT = 1 << 15          # the socket is being written to by sendfile
    RESUMING = 1 << 14      # the stash will be delivered by a callback in the loop's queue
    PULLING = 1 << 18       # readable; the task that reads has been woken and will receive itself


cdef class SendingTransport(Completion):
    cdef Loop loop
    cdef object context
    cdef object sock            # the Python socket that owns fd; None: fd is ours
    cdef object protocol
    cdef int fd                 # -1 once closed
    cdef uint32_t flags
    cdef np_udata write_op      # at most one: a SEND, or a POLL for POLLOUT
    cdef np_iov out
    cdef size_t high_bytes, low_bytes
    cdef uint16_t lost_writes_count
    cdef object empty_waiter    # sendfile waits for the chain to run empty

    cdef bint enter(self) except -1
    cdef int leave(self, bint entered) except -1
    cdef int push(self, object data) except -1
    cdef int write_bytes(self, bytes data) except -1
    cdef int flush(self) except -1
    cdef int write_now(self) except -1
    cdef int took(self, ptrdiff_t sent_bytes) except -1
    cdef int wrote_all(self) except -1
    cdef int warn_lost(self, bytes data) except -1
    cdef int call_protocol(self, str name) except -1
    cdef int drop_out(self) except -1
    cdef int check_watermarks(self) except -1
    cdef int sent(self) except -1
    cdef int fail(self, object exc, str message) except -1
    cdef int complain(self, object exc, str message) except -1
    cdef int force_close(self, object exc) except -1
    cdef int lose(self, object exc) except -1


cdef object os_error(int err)
