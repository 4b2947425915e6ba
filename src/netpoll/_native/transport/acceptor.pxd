# The seam of transport/acceptor.pyx.

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport np_event, np_peer, np_udata
from netpoll._native.transport.stream cimport StreamTransport


cdef class Accepting(Completion):
    cdef Loop loop
    cdef object sock
    cdef object retry           # timer handle while accepting is paused
    cdef np_udata op
    cdef int fd
    cdef bint is_closed

    cdef int arm(self) except -1
    cdef int arm_again(self) except -1
    cdef int pause(self) except -1
    cdef int end_pause(self) except -1


cdef bint is_exhausted(int err) noexcept
cdef bint is_of_the_peer(int err) noexcept


cdef class Acceptor(Accepting):
    cdef object factory, server, context
    cdef object ssl_options     # keyword arguments of _make_ssl_transport, or None
    cdef list unmade            # transports of the last event, without a protocol yet
    cdef int backlog            # accepted in one turn at most

    cdef int accepted(self, int fd, np_peer *peer) except -1
    cdef int make(self, StreamTransport transport) except -1
    cdef int make_ssl(self, StreamTransport transport) except -1
    cdef int accept_all(self) except -1
    cdef bint is_over(self) except -1
    cdef object make_protocol(self, object context)
    cdef int drop(self, StreamTransport transport) except -1
    cdef int report_failed(self, object exc) except -1
    cdef int accept_failed(self, int err) except -1
