# The seam of memory/pool.pyx: what transports may use of pools and their buffers.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netpoll._core cimport Loop
from netpoll._native.c cimport np_block, np_pool


cdef class BufferPool:
    cdef np_pool pool
    cdef readonly object config
    cdef bint is_open
    cdef dict last_stats        # of the closed pool
    cdef object loops           # that this memory was offered to
    cdef object refusals        # loop -> why its ring has not registered it

    cdef int check_open(self) except -1
    cdef int check_unused(self) except -1
    cdef int detach_native(self, Loop loop) except -1
    cdef bint is_registered(self, Loop loop) noexcept


cdef class PoolBlock:
    """One block of a pool: goes back when the last reference to this object does. What a send
    that is under way keeps."""
    cdef BufferPool pool
    cdef np_block block


cdef class Buffer:
    # Read by transports after seal(); written here.
    cdef PoolBlock block        # None: released
    cdef uint8_t *base
    cdef Py_ssize_t capacity_bytes, written_bytes, length_bytes
    cdef int exports_count, writers_count
    cdef readonly bint committed

    cdef int check_held(self) except -1
    # Commits what was written, if that was not done yet: the bytes to send are base[:length_bytes]
    # from here on, for as long as somebody refers to the block that is returned.
    cdef PoolBlock seal(self)
