# cython: language_level=3, freethreading_compatible=True
"""Accepting: one Acceptor for each listening socket of a server.

Out of descriptors or memory it pauses for a second, as asyncio does; the backlog keeps who comes
meanwhile. A connection whose making fails closes alone.
"""

from libc.errno cimport ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM

from netpoll._c cimport (
    ECANCELED, NP_EV_MORE, NP_OP_ACCEPT, PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit,
    PyObject, np_event, np_sock_close, np_sock_nodelay, np_sock_peer)
from netpoll._core cimport Completion, Loop
from netpoll._endpoint cimport CLOSING, os_error
from netpoll._seal cimport seal_types
from netpoll._transport cimport StreamTransport, attach, detach

import socket as py_socket
from asyncio import trsock

cdef enum:
    ACCEPT_RETRY_DELAY_S = 1

cdef int _AF_UNIX = int(py_socket.AF_UNIX)


cdef class Acceptor(Completion):
    """Accepts on one listening socket of a server, for as long as it serves."""

    def __cinit__(self, Loop loop, sock, factory, server, ssl_options):
        self.loop = loop
        self.sock = sock
        self.factory = factory
        self.server = server
        self.ssl_options = ssl_options
        self.fd = sock.fileno()
        self.context = PyContext_CopyCurrent()
        if sock.family != _AF_UNIX:
            np_sock_nodelay(self.fd)  # accepted connections inherit it
        self.arm()

    cdef int arm(self) except -1:
        self.op = self.loop.arm(NP_OP_ACCEPT, self.fd, self, 0)
        return 0

    def _retry(self):
        self.retry = None
        if not self.is_closed:
            self.arm()

    def stop(self):
        """Ends accepting and closes the listening socket at once."""
        if self.is_closed:
            return
        self.is_closed = True
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        if self.op and self.loop.be is not NULL:
            self.loop.ops.settle(self.loop.be, self.op)
        if self.loop.be is not NULL and self.sock.fileno() == self.fd:
            self.loop.ops.forget(self.loop.be, self.fd)
        self.sock.close()

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        cdef int res = event.res
        if not event.flags & NP_EV_MORE:
            self.op = 0
        if self.is_closed:
            if res >= 0:
                np_sock_close(res)
            return 0
        if res < 0:
            return self.accept_failed(res)
        self.accepted(res)
        if not self.op and not self.is_closed and self.retry is None:
            self.arm()
        return 0

    # Within the event, not a turn later as in asyncio: the next accept is submitted with the next
    # system call, and a process that is busy in connection_made must leave the connections that
    # come meanwhile to the others that share the socket (docs/turn.md).

    cdef int accepted(self, int fd) except -1:
        """A new connection. What fails in its making closes it, and it alone."""
        cdef StreamTransport transport
        if self.ssl_options is not None:
            self._make_ssl(py_socket.socket(fileno=fd))
            return 0
        transport = StreamTransport.__new__(StreamTransport)
        transport.loop = self.loop
        transport.fd = fd
        try:
            self.loop.own_fd(fd, transport)
            attach(self.server, transport)
            self._make(transport)
        except BaseException as exc:
            self.failed(transport, exc)
        return 0

    def _make(self, StreamTransport transport):
        if transport.flags & CLOSING:
            return  # the server has closed its clients meanwhile
        try:
            PyContext_Enter(<PyObject*>self.context)
            try:
                transport.context = PyContext_CopyCurrent()
                protocol = self.factory()
            finally:
                PyContext_Exit(<PyObject*>self.context)
            transport.set_protocol(protocol)
            np_sock_peer(transport.fd, &transport.peer)
            transport._begin(None)
        except BaseException as exc:
            self.failed(transport, exc)

    cdef int failed(self, StreamTransport transport, object exc) except -1:
        cdef int fd = transport.fd
        if fd >= 0:
            self.loop.disown_fd(fd, transport)
            detach(transport)
            transport.fd = -1
            np_sock_close(fd)
        return self.report_failed(exc)

    cdef int report_failed(self, object exc) except -1:
        if isinstance(exc, (SystemExit, KeyboardInterrupt)):
            raise exc
        self.loop.call_exception_handler({
            "message": "Error on transport creation for incoming connection",
            "exception": exc,
            "socket": trsock.TransportSocket(self.sock),
        })
        return 0

    def _make_ssl(self, conn):
        if self.is_closed:  # meanwhile: a closed server takes no connection
            conn.close()
            return
        try:
            self.accept_ssl(conn)
        except BaseException as exc:
            conn.close()
            self.report_failed(exc)

    cdef int accept_ssl(self, object conn) except -1:
        conn.setblocking(False)
        PyContext_Enter(<PyObject*>self.context)
        try:
            self.loop._make_ssl_transport(
                conn, self.factory(), server_side=True, server=self.server, **self.ssl_options)
        finally:
            PyContext_Exit(<PyObject*>self.context)
        return 0

    cdef int accept_failed(self, int err) except -1:
        if err == -ECANCELED or err == -ECONNABORTED:
            self.arm()
            return 0
        # Out of descriptors or memory: accepting pauses; the backlog keeps who comes meanwhile.
        message = ("socket.accept() out of system resource"
                   if err in (-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM) else "socket.accept() failed")
        self.loop.call_exception_handler({
            "message": message,
            "exception": os_error(err),
            "socket": trsock.TransportSocket(self.sock),
        })
        self.retry = self.loop.call_later(ACCEPT_RETRY_DELAY_S, self._retry)
        return 0


seal_types(globals(), (Acceptor,))
