# Direct reads: how a stream, a pipe or a connection of the server receives while much arrives.
#
# Small receives pass through shared memory and are copied once. A large one begins a run of direct
# reads, recv(2) into the memory that the bytes stay in; a run of small ones ends it. `left` is how
# many small reads are left before that; 0: no direct reads.

from libc.stdint cimport uint16_t, uint32_t

from netpoll._core cimport Loop
from netpoll._native.limits cimport BULK_LEAVE_COUNT

# np_sock_recv or np_pipe_read.
ctypedef ptrdiff_t (*receive_call)(int fd, void *into, size_t size) noexcept nogil


cdef struct BulkReader:
    uint32_t size_bytes         # of the next direct read
    uint16_t left


cdef inline bint bulk_ends(uint16_t *left, bint is_large) noexcept:
    """Notes a direct read. True: that was one small read too many."""
    left[0] = BULK_LEAVE_COUNT if is_large else left[0] - 1
    return left[0] == 0


cdef int bulk_enter(Loop loop, BulkReader *reader) except -1
cdef int bulk_leave(Loop loop, BulkReader *reader) except -1
cdef object bulk_receive(Loop loop, int fd, receive_call receive, Py_ssize_t want, ptrdiff_t *got)
