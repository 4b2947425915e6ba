# cython: language_level=3, freethreading_compatible=True
"""Who talks with whom, for code that wants to know it of each message.

The kernel is asked once for each connection, and what many connections have in common is made
once: the host of the peer, our own end. An idle connection keeps 24 bytes here and no object of
its own; the tuple of a client is made when somebody looks at it.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from netpoll._native.c cimport Py_INCREF, Py_XDECREF, PyObject, np_peer, np_sock_peer
from netpoll._native.limits cimport ADDRESSES_KNOWN_MAX_COUNT
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.names cimport said_names

import socket as py_socket

cdef int _AF_UNSPEC = int(py_socket.AF_UNSPEC)


cdef class Addresses:
    """The addresses of one worker's connections."""

    def __cinit__(self):
        self.hosts = {}
        self.servers = {}

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.ends_count):
            Py_XDECREF(self.ends[i].host)
            Py_XDECREF(self.ends[i].server)
        free(self.ends)

    cdef tuple client(self, Connection face):
        """(host, port) of the peer; None when it has none, as over a Unix socket, or has gone
        before anybody asked."""
        cdef Ends *ends
        if face.conn is NULL:
            return None
        ends = self.ends_of(face)
        return (<object>ends.host, ends.port) if ends.host is not NULL else None

    cdef tuple server(self, Connection face):
        """(host, port) of our end, or (path, None) of a Unix socket; None when it has gone."""
        cdef size_t index
        cdef uint32_t serial
        cdef Ends *ends
        if face.conn is NULL:
            return None
        index = face.conn.index
        serial = face.conn.serial
        ends = self.ends_of(face)
        if ends.server is not NULL:
            return <tuple><object>ends.server
        server = self.own_end(face)
        ends = &self.ends[index]
        if ends.serial == serial and ends.server is NULL:
            Py_INCREF(<PyObject*>server)
            ends.server = <PyObject*>server
        return server

    cdef Ends *ends_of(self, Connection face) except NULL:
        """Of this connection; nothing is left of the one that was in its place before."""
        cdef size_t index = face.conn.index
        cdef uint32_t serial = face.conn.serial
        cdef Ends *ends
        cdef np_peer peer
        if index >= self.ends_count:
            self.grow(index + 1)
        ends = &self.ends[index]
        if ends.serial == serial:
            return ends
        names = said_names(face.host, face.conn)
        if names is not None:
            host, peer.port = names[1][0], names[1][1]
        else:
            np_sock_peer(face.conn.fd, &peer)
            host = self.host_of(face, &peer)
        ends = &self.ends[index]  # an audit hook may have run, and done anything
        forget(ends)
        ends.serial = serial
        ends.port = peer.port
        if host is not None:
            Py_INCREF(<PyObject*>host)
            ends.host = <PyObject*>host
        return ends

    cdef int grow(self, size_t least_count) except -1:
        cdef size_t count = max(least_count, self.ends_count + self.ends_count // 2, 64)
        cdef Ends *ends = <Ends*>realloc(self.ends, count * sizeof(Ends))
        if ends is NULL:
            raise MemoryError
        memset(&ends[self.ends_count], 0, (count - self.ends_count) * sizeof(Ends))
        self.ends = ends
        self.ends_count = count
        return 0

    cdef object host_of(self, Connection face, np_peer *peer):
        """As socket.getpeername() has it, whose words for IPv6 scopes are the system's."""
        cdef np_peer key_of = peer[0]
        if peer.family == _AF_UNSPEC:
            return None
        key_of.port = 0
        key_of.flow_info = 0
        key = PyBytes_FromStringAndSize(<char*>&key_of, sizeof(key_of))
        host = self.hosts.get(key)
        if host is None:
            name = face.peername
            if type(name) is tuple:
                host = name[0]
                remember(self.hosts, key, host)
        return host

    cdef tuple own_end(self, Connection face):
        name = face.sockname
        if type(name) is tuple:
            name = (name[0], name[1])
        elif name:
            name = (name, None)
        else:
            return None
        known = self.servers.get(name)
        if known is None:
            remember(self.servers, name, name)
            known = name
        return known


cdef void forget(Ends *ends) noexcept:
    cdef PyObject *host = ends.host
    cdef PyObject *server = ends.server
    memset(ends, 0, sizeof(Ends))
    Py_XDECREF(host)
    Py_XDECREF(server)


cdef int remember(dict known, object key, object value) except -1:
    """A peer may come from any number of addresses."""
    if len(known) >= ADDRESSES_KNOWN_MAX_COUNT:
        known.clear()
    known[key] = value
    return 0


seal_types(globals())
