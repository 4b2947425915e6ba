# cython: language_level=3, freethreading_compatible=True
"""Connections that a proxy makes: each says first whose it is (the PROXY protocol, np_proxy.h).

    accepted ─► Doors.enter ─► header read, no byte more ─► Host.admitted: a connection with names

The header stands before everything else, TLS included. It is looked at in the socket, and only its
own bytes are taken out, so that what follows is received as on any other connection. Who is not
trusted, says something else, or says it too slowly, is closed.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport (
    ECANCELED, NP_OP_POLL, NP_POLL_KEEP, NP_PROXY_MAX_BYTES, np_event, np_peer, np_proxy,
    np_proxy_read, np_sock_close, np_sock_peek, np_sock_peer, np_sock_recv)
from netpoll._native.failing cimport os_error
from netpoll._native.poll cimport POLLIN
from netpoll._native.seal cimport seal_types
from netpoll._native.server.host cimport Host
from netpoll._native.server.networks cimport Networks

import socket as py_socket

cdef int _AF_UNSPEC = int(py_socket.AF_UNSPEC)
cdef int _AF_INET = int(py_socket.AF_INET)


cdef class Doors:
    """Those of a worker that have not said yet whose they are.

    networks: of proxies, whose word counts.
    """

    def __cinit__(self, Networks networks not None, double timeout_s):
        self.networks = networks
        self.waiting = set()
        self.timeout_s = timeout_s

    cdef int enter(self, Host host, int fd) except -1:
        """A connected, nonblocking socket, which is ours from here on."""
        cdef np_peer peer
        cdef Door door = Door.__new__(Door)
        door.doors = self
        door.host = host
        door.fd = fd
        door.seen = b""
        self.waiting.add(door)
        np_sock_peer(fd, &peer)
        if not self.networks.have(&peer):
            return door.refuse("it does not come from a trusted proxy")
        return door.look()

    cdef int close_all(self) except -1:
        """The worker stops, or is gone."""
        cdef Door door
        for door in list(self.waiting):
            door.refuse(None)
        return 0

    cdef int forget(self) except -1:
        """In a forked child: the copies of the descriptors, and nothing else."""
        cdef Door door
        for door in self.waiting:
            np_sock_close(door.fd)
            door.fd = -1
        return 0


cdef class Door(Completion):
    """One connection, until its header is read."""

    cdef int look(self) except -1:
        cdef uint8_t data[NP_PROXY_MAX_BYTES]
        cdef np_proxy proxy
        cdef size_t seen_bytes = PyBytes_GET_SIZE(self.seen)
        cdef ptrdiff_t size, taken_bytes
        memcpy(data, PyBytes_AS_STRING(self.seen), seen_bytes)
        taken_bytes = np_sock_peek(self.fd, data + seen_bytes, NP_PROXY_MAX_BYTES - seen_bytes)
        if taken_bytes == -EAGAIN:
            return self.wait()
        if taken_bytes <= 0:
            return self.refuse(None)  # it has gone
        size = np_proxy_read(data, seen_bytes + taken_bytes, &proxy)
        if size < 0:
            return self.refuse("it does not begin with a header of the PROXY protocol")
        if size:
            taken_bytes = size - <ptrdiff_t>seen_bytes
        if np_sock_recv(self.fd, data + seen_bytes, taken_bytes) != taken_bytes:
            return self.refuse(None)
        if not size:
            self.seen = PyBytes_FromStringAndSize(<char*>data, seen_bytes + taken_bytes)
            return self.wait()
        fd = self.fd
        self.fd = -1
        self.leave()
        return self.host.admitted(fd, name_of(&proxy.source), name_of(&proxy.target))

    cdef int wait(self) except -1:
        """For more of the header."""
        if self.timer is None:
            self.timer = self.host.loop.call_later(self.doors.timeout_s, self._is_late)
        try:
            self.op = self.host.loop.arm(NP_OP_POLL, self.fd, self, POLLIN | NP_POLL_KEEP)
        except Exception as exc:
            return self.refuse(exc)
        return 0

    def _is_late(self):
        self.timer = None
        if self.fd >= 0:
            self.refuse("its header of the PROXY protocol does not come")

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        self.op = 0
        if self.fd < 0:
            return 0
        if event.res > 0:
            return self.look()
        return self.refuse(None if event.res == -ECANCELED else os_error(event.res))

    cdef int refuse(self, object why) except -1:
        """Closes it. why: for the log, which has the first one only: there may be many."""
        cdef int fd = self.fd
        self.fd = -1
        if fd >= 0 and self.host.loop.be is not NULL:
            self.host.loop.ops.forget(self.host.loop.be, fd)
        self.leave()
        if fd >= 0:
            np_sock_close(fd)
            self.host.ended_count += 1
            if self.host.closed_hook is not None:
                self.host.closed_hook()
        if why is not None and not self.doors.has_told:
            self.doors.has_told = True
            self.host.loop.call_exception_handler({
                "message": f"netpoll.Server: a connection is refused: {why} (told once)"})
        return 0

    cdef int leave(self) except -1:
        self.doors.waiting.discard(self)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.op and self.host.loop.be is not NULL:
            self.host.loop.cancel(self.op)
        return 0


cdef object name_of(np_peer *peer):
    """As socket.getpeername() gives it; None: the connection's own counts."""
    if peer.family == _AF_UNSPEC:
        return None
    size = 4 if peer.family == _AF_INET else 16
    address = py_socket.inet_ntop(
        peer.family, PyBytes_FromStringAndSize(<char*>peer.address, size))
    return (address, peer.port) if size == 4 else (address, peer.port, 0, 0)


seal_types(globals())
