# The seam of _endpoint.pyx.

from libc.stdint cimport uint32_t

from netpoll._core cimport Completion, Loop


cdef enum:  # Endpoint.flags that every transport has; their own begin at ENDPOINT_FLAGS_END
    CLOSING = 1 << 0        # close() or abort(): no more reading
    LOST = 1 << 1           # connection_lost is in the loop's queue, or was called
    PAUSED = 1 << 2         # pause_reading()
    STARTED = 1 << 3        # connection_made was called
    ENTERED = 1 << 4        # the protocol is being called, in our context
    PROTOCOL_PAUSED = 1 << 5    # pause_writing() was called
    ENDPOINT_FLAGS_END = 1 << 8


cdef enum:
    HIGH_WATER_DEFAULT_BYTES = 64 * 1024


cdef class Endpoint(Completion):
    """What the transports of sockets and pipes have in common. It neither sends nor receives."""
    cdef Loop loop
    cdef object protocol, context
    cdef int fd                 # -1 once closed
    cdef uint32_t flags
    cdef size_t high_bytes, low_bytes

    cdef bint enter(self) except -1
    cdef int leave(self, bint entered) except -1
    cdef int call_protocol(self, str name, tuple args=*) except -1
    cdef int report(self, str message, object exc) except -1
    cdef list activity(self)
    cdef size_t unsent_bytes(self) noexcept
    cdef int press(self) except -1


cdef object os_error(int err)
