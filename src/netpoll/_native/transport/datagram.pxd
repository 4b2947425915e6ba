# The seam of transport/datagram.pyx.

from libc.stdint cimport uint32_t

from netpoll._native.c cimport PyObject
from netpoll._native.transport.address cimport DatagramMemory
from netpoll._native.transport.endpoint cimport Endpoint


cdef class DatagramTransport(Endpoint):
    # Set once, by the maker.
    cdef object address         # where everything goes, when that was said at birth
    cdef dict extra
    cdef DatagramMemory memory
    cdef int socket_family
    cdef bint is_connected, gro
    cdef int burst_count        # how many the next receive asks for
    cdef uint32_t gso_max_bytes
    cdef object received        # its datagram_received, during a burst
    cdef object interrupt       # KeyboardInterrupt or SystemExit out of a protocol, to be raised
    cdef object retry           # a timer, where POLLOUT would fire for nothing
    cdef object __weakref__

    cdef int on_readable(self) except -1
    cdef int receive(self) except -1
    cdef int empty_stash(self) except -1
    cdef int read(self) except -1
    cdef int read_by_socket(self) except -1
    cdef int deliver_message(self, int index) except -1
    cdef int deliver(self, const char *data, Py_ssize_t size, object address) except -1
    cdef int hand_over(self, object data, object address) except -1
    cdef int tell_error(self, object exc) except -1
    cdef bint takes_address(self, object addr) noexcept
    cdef int on_room(self) except -1
    cdef int send_late(self, bytes data, object addr) except -1
    cdef int push(self, bytes data, PyObject *target) except -1
    cdef int drop_oldest(self, uint32_t count) noexcept
    cdef int flushed(self) except -1
    cdef int send_burst(self) except -1
    cdef int send_by_socket(self) except -1
