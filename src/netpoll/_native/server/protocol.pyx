# cython: language_level=3, freethreading_compatible=True
"""Native code in the place of a handler: what a worker tells it of its connections.

A handler in Python is a function that is called with a connection when bytes are there. A protocol
hears the same without a call through the interpreter, and more: of the end of what the peer sends,
and of the end of the connection. What it keeps for a connection is the connection's `state`; a
connection without state needs no Python object while it is idle.
"""

from netpoll._native.c cimport np_conn
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.host cimport Host


cdef class Protocol:
    """Reads nothing, and closes: what a protocol does unless it says otherwise."""

    cdef int on_begin(self, Host host, np_conn *conn) except -1:
        """A connection was accepted; with TLS its handshake is done."""
        return 0

    cdef int on_data(self, Connection face) except -1:
        """Bytes are there to read; what is left unread stays, and is there again with the next."""
        face.close()
        return 0

    cdef int on_eof(self, Connection face) except -1:
        """The peer has shut its side: no more bytes will come than those that are there."""
        face.close()
        return 0

    cdef int on_lost(self, Connection face) except -1:
        """The connection is over: `error` says why, and nothing can be written."""
        return 0

    cdef int on_tick(self, Host host) except -1:
        """Once a second."""
        return 0

    cdef int before_idle(self, Host host) except -1:
        """Those that made no progress within the idle time-out are going to be ended: who is busy
        otherwise gets the tick of now."""
        return 0

    cdef int on_drain(self, Host host) except -1:
        """Nobody new comes, and others serve in the server's place: who is here may leave in its
        own time, without losing anything. on_stop follows."""
        return 0

    cdef int on_stop(self, Host host) except -1:
        """The server stops with grace: what is left when that is over is aborted."""
        return 0


seal_types(globals(), (Protocol,))
