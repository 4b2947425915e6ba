# The seam of transport/datagram.pyx.

from libc.stdint cimport uint32_t

from netpoll._native.c cimport PyObject, np_event, np_udata
from netpoll._native.transport.address cimport Address, DatagramMemory
from netpoll._native.transport.endpoint cimport Endpoint


cdef struct Outgoing:
    PyObject *data      # exact bytes
    PyObject *target    # NULL: where the socket is connected; an Address; or what sendto() got


cdef class DatagramTransport(Endpoint):
    # Set once, by the maker.
    cdef object sock
    cdef object address         # where everything goes, when that was said at birth
    cdef dict extra
    cdef DatagramMemory memory
    cdef int socket_family
    cdef bint is_connected, gro
    cdef int burst_count        # how many the next receive asks for
    # Receiving.
    cdef object received        # its datagram_received, during a burst
    cdef np_udata read_op, write_op
    cdef list stash             # (data, address): taken from the socket, not delivered yet
    cdef object interrupt       # KeyboardInterrupt or SystemExit out of a protocol, to be raised
    # Sending: a ring of what the socket has not taken, oldest first.
    cdef Outgoing *out
    cdef uint32_t out_head, out_count, out_cap
    cdef size_t out_bytes
    cdef uint32_t gso_max_bytes
    cdef uint32_t lost_writes_count
    cdef object retry           # a timer, where POLLOUT would fire for nothing
    cdef object error           # what connection_lost will get
    cdef object __weakref__

    cdef int arm_read(self) except -1
    cdef int on_readable(self) except -1
    cdef int read(self) except -1
    cdef int read_by_socket(self) except -1
    cdef int deliver_message(self, int index) except -1
    cdef int deliver(self, const char *data, Py_ssize_t size, object address) except -1
    cdef int hand_over(self, object data, object address) except -1
    cdef int tell_error(self, object exc) except -1
    cdef int send_late(self, bytes data, object addr) except -1
    cdef int push(self, bytes data, PyObject *target) except -1
    cdef int grow_out(self) except -1
    cdef int drop_first(self) except -1
    cdef int drop_oldest(self, int count) except -1
    cdef int drop_out(self) except -1
    cdef int flush(self) except -1
    cdef int send_burst(self) except -1
    cdef int send_by_socket(self) except -1
    cdef int wait_writable(self) except -1
    cdef int check_watermarks(self) except -1
    cdef int fail(self, object exc, str message) except -1
    cdef int force_close(self, object exc) except -1
    cdef int lose(self, object exc) except -1
    cdef int op_ended(self) except -1
    cdef int close_fd(self) except -1
