# The seam of server/names.pyx.

from netpoll._native.c cimport np_conn
from netpoll._native.server.host cimport Host


cdef enum End:  # the place of its name in Host.names
    PEER_NAME = 1
    SOCK_NAME


cdef tuple said_names(Host host, np_conn *conn)
cdef object end_name(Host host, np_conn *conn, End end)
