# The seam of server/shipment.pyx.

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport np_conn, np_event, np_udata
from netpoll._native.server.connection cimport Connection, Host
from netpoll._native.server.lifetime cimport Keeper


cdef class Shipment(Completion):
    cdef Host host
    cdef np_conn *conn          # while its serial is the one below
    cdef uint32_t serial
    cdef list owners            # of the memory that the kernel reads


cdef class Sender(Keeper):
    """What a worker does with single operations."""
    cdef bint may_ship          # the backend has zero-copy sends
    cdef uint32_t launches_count

    cdef int took(self, np_conn *conn, Py_ssize_t res) except -1
    cdef int launch(self, np_conn *conn, int n, size_t total_bytes, bint now) except -1
    cdef int shipped(self, np_conn *conn, np_event *event) except -1
    cdef int ship(self, np_conn *conn, int n) except -1
    cdef np_udata arm_op(self, np_conn *conn, uint8_t kind, uint32_t argument) except 0
