# The seam of transport/sending.pyx: what the whole transport uses of its sending half.

from libc.stdint cimport uint16_t

from netpoll._native.c cimport np_event, np_iov, np_udata
from netpoll._native.transport.endpoint cimport ENDPOINT_FLAGS_END, Endpoint


cdef enum:  # SendingTransport.flags beside those of Endpoint, of both halves
    CANCELLED = ENDPOINT_FLAGS_END  # read_op was asked to end
    EOF_SEEN = ENDPOINT_FLAGS_END << 1      # the peer has shut its side
    EOF_ASKED = ENDPOINT_FLAGS_END << 2     # write_eof()
    BUFFERED = ENDPOINT_FLAGS_END << 3      # a BufferedProtocol
    BULK = ENDPOINT_FLAGS_END << 4          # direct reads
    DIRTY = ENDPOINT_FLAGS_END << 5         # in the loop's list for the end of the turn
    ABORTED = ENDPOINT_FLAGS_END << 6       # what is unsent is dropped
    SENDING = ENDPOINT_FLAGS_END << 7       # write_op is a SEND; else a POLL for POLLOUT
    GONE = ENDPOINT_FLAGS_END << 8  # connection_lost was called: only the kernel may keep the fd
    RESUMING = ENDPOINT_FLAGS_END << 9  # the stash will be delivered by a callback in the queue
    LENT = ENDPOINT_FLAGS_END << 10         # the socket is being written to by sendfile
    READING = ENDPOINT_FLAGS_END << 11      # in a run of direct reads: writes wait for its end
    # Readable; the task that reads has been woken and will receive itself.
    PULLING = ENDPOINT_FLAGS_END << 12


cdef class SendingTransport(Endpoint):
    cdef object sock            # the Python socket that owns fd; None: fd is ours
    cdef np_udata write_op      # at most one: a SEND, or a POLL for POLLOUT
    cdef np_iov out
    cdef uint16_t lost_writes_count
    cdef uint16_t small_reads_count     # the other half's: there is room for it here
    cdef uint16_t heard_turn    # also its: loop.turns, the last bits, when bytes came last
    cdef object empty_waiter    # sendfile waits for the chain to run empty

    cdef int push(self, object data) except -1
    cdef int flush(self) except -1
    cdef int write_now(self) except -1
    cdef int took(self, ptrdiff_t sent_bytes) except -1
    cdef int wrote_all(self) except -1
    cdef int warn_lost(self, bytes data) except -1
    cdef int drop_out(self) except -1
    cdef int check_watermarks(self) except -1
    cdef int sent(self) except -1
    cdef bint heard(self, np_event *said) except -1
    cdef int offer(self) except -1
    cdef int fail(self, object exc, str message) except -1
    cdef int force_close(self, object exc) except -1
    cdef int lose(self, object exc) except -1
