# cython: language_level=3, freethreading_compatible=True
"""The names of a connection's two ends: what a proxy has said of it, else the socket's."""

from netpoll._native.c cimport np_conn_pin
from netpoll._native.server.host cimport unpin

import socket as py_socket


cdef tuple said_names(Host host, np_conn *conn):
    """(serial, peername, sockname), as a proxy has said it of this connection; or None."""
    if conn is NULL or host.names is None:
        return None
    names = host.names.get(conn.index)
    return names if names is not None and names[0] == conn.serial else None


cdef object end_name(Host host, np_conn *conn, End end):
    """None when the connection is over."""
    if conn is NULL:
        return None
    names = said_names(host, conn)
    if names is not None:
        return names[<int>end]
    np_conn_pin(conn)  # its fd stays, whatever an audit hook does
    try:
        sock = py_socket.socket(fileno=conn.fd)
        try:
            return sock.getpeername() if end == PEER_NAME else sock.getsockname()
        finally:
            sock.detach()
    except OSError:
        return None
    finally:
        unpin(host, conn)
