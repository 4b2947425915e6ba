# The seam of server/protocol.pyx.

from netpoll._native.c cimport np_conn
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.host cimport Host


cdef class Protocol:
    cdef int on_begin(self, Host host, np_conn *conn) except -1
    cdef int on_data(self, Connection face) except -1
    cdef int on_eof(self, Connection face) except -1
    cdef int on_lost(self, Connection face) except -1
    cdef int on_tick(self, Host host) except -1
    cdef int before_idle(self, Host host) except -1
    cdef int on_drain(self, Host host) except -1
    cdef int on_stop(self, Host host) except -1
