# cython: language_level=3, freethreading_compatible=True
"""Accepting: one Acceptor for each listening socket of a server.

As on asyncio a poll says that somebody waits, and everybody who waits is accepted within its event.
An ACCEPT operation would take connections while the program is busy, of those too that another
process on the same socket could serve at once.

Out of descriptors or memory it pauses for a second, as asyncio does; the backlog keeps who comes
meanwhile. A connection whose making fails closes alone.
"""

from libc.errno cimport (
    EAGAIN, ECONNABORTED, EHOSTDOWN, EHOSTUNREACH, EINTR, EMFILE, ENETDOWN, ENETUNREACH, ENFILE,
    ENOBUFS, ENOMEM, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPROTO)

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport (
    ECANCELED, NP_CANCEL_SETTLE, NP_OP_POLL, NP_POLL_KEEP, PyContext_Copy, PyContext_CopyCurrent,
    PyContext_Enter, PyContext_Exit, PyObject, np_event, np_peer, np_sock_accept, np_sock_close,
    np_sock_nodelay)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport ACCEPT_RETRY_DELAY_S
from netpoll._native.poll cimport POLLIN
from netpoll._native.seal cimport seal_types
from netpoll._native.transport.asyncio_server cimport attach, detach
from netpoll._native.transport.stream cimport StreamTransport

import socket as py_socket
from asyncio import trsock

cdef int _AF_UNIX = int(py_socket.AF_UNIX)


cdef bint is_exhausted(int err) noexcept:
    """Out of descriptors or memory: it may be better in a second."""
    return err in (-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM)


cdef bint is_of_the_peer(int err) noexcept:
    """Nobody was accepted, and nothing is wrong here: a signal came first, or the connection has
    failed while it waited, whose error is accept's then (accept(2), "Error handling")."""
    return err in (-EINTR, -ECONNABORTED, -ENETDOWN, -EPROTO, -ENOPROTOOPT, -EHOSTDOWN, -ENONET,
                   -EHOSTUNREACH, -EOPNOTSUPP, -ENETUNREACH)


cdef class Accepting(Completion):
    """What accepts on a listening socket, here and in the server."""

    cdef int arm(self) except -1:
        self.op = self.loop.arm(NP_OP_POLL, self.fd, self, POLLIN | NP_POLL_KEEP)
        return 0

    cdef int arm_again(self) except -1:
        """Without memory for that it is tried again, as without memory for a connection."""
        try:
            self.arm()
        except (OSError, MemoryError) as exc:
            self.loop.call_exception_handler({
                "message": "accepting stops for a moment", "exception": exc,
                "socket": trsock.TransportSocket(self.sock)})
            self.pause()
        return 0

    cdef int pause(self) except -1:
        """The backlog keeps who comes meanwhile."""
        self.retry = self.loop.call_later(ACCEPT_RETRY_DELAY_S, self._retry)
        return 0

    cdef int end_pause(self) except -1:
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        return 0

    def _retry(self):
        self.retry = None
        if not self.is_closed and not self.op:
            self.arm_again()

    def end(self):
        """Ends accepting. The listening socket is left to who made it. In the loop's thread."""
        if self.is_closed:
            return
        self.is_closed = True
        self.end_pause()
        if self.loop.be is not NULL:
            if self.op:
                self.loop.ops.cancel(self.loop.be, self.op, NP_CANCEL_SETTLE)
            if self.sock.fileno() == self.fd:
                self.loop.ops.forget(self.loop.be, self.fd)

    def stop(self):
        """Ends accepting and closes the listening socket at once. In the loop's thread."""
        self.end()
        self.sock.close()


cdef class Acceptor(Accepting):
    """Accepts on one listening socket of a loop's server, for as long as it serves."""

    def __cinit__(self, Loop loop, sock, factory, server, ssl_options, int backlog):
        self.loop = loop
        self.sock = sock
        self.factory = factory
        self.server = server
        self.ssl_options = ssl_options
        self.backlog = max(backlog, 1)
        self.unmade = []
        self.fd = sock.fileno()
        self.context = PyContext_CopyCurrent()
        if sock.family != _AF_UNIX:
            np_sock_nodelay(self.fd)  # accepted connections inherit it
        self.arm()

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        self.op = 0
        if self.is_closed:
            return 0
        try:
            if event.res > 0:
                self.accept_all()
            elif event.res != -ECANCELED:
                self.accept_failed(event.res)
        finally:
            if not self.op and not self.is_closed and self.retry is None:
                self.arm_again()
        return 0

    cdef int accept_all(self) except -1:
        """Everybody who waits, at most as many as the backlog keeps; more with the next turn."""
        cdef np_peer peer
        cdef int fd
        for _ in range(self.backlog):
            fd = np_sock_accept(self.fd, &peer)
            if fd == -EAGAIN or is_of_the_peer(fd):
                return 0
            if fd < 0:
                return self.accept_failed(fd)
            self.accepted(fd, &peer)
        return 0

    # As on asyncio the protocol is made a turn after the connection was accepted, and told of it in
    # the turn after that: what its factory posts runs before connection_made.

    cdef int accepted(self, int fd, np_peer *peer) except -1:
        cdef StreamTransport transport = StreamTransport.__new__(StreamTransport)
        transport.loop = self.loop
        transport.fd = fd
        transport.peer = peer[0]
        self.loop.own_fd(fd, transport)
        self.unmade.append(transport)
        if len(self.unmade) == 1:
            self.loop.soon(self._make_all, None)
        return 0

    def _make_all(self):
        """The connections of the last event. What fails closes one, and it alone."""
        cdef list unmade = self.unmade
        self.unmade = []
        unmade.reverse()
        try:
            while unmade:
                if self.ssl_options is None:
                    self.make(unmade.pop())
                else:
                    self.make_ssl(unmade.pop())
        finally:
            if unmade:  # an interrupt out of a factory: the others are made when the loop goes on
                unmade.reverse()
                self.unmade[:0] = unmade
                self.loop.soon(self._make_all, None)

    cdef int make(self, StreamTransport transport) except -1:
        try:
            transport.context = PyContext_Copy(<PyObject*>self.context)
            protocol = self.make_protocol(transport.context)
            if self.is_over():
                return self.drop(transport)
            transport.set_protocol(protocol)
            attach(self.server, transport)
            transport.server = self.server
        except BaseException as exc:
            self.drop(transport)
            return self.report_failed(exc)
        self.loop.soon(transport._begin, (None,))
        return 0

    cdef bint is_over(self) except -1:
        """The server is closed; not only accepting, which loop.remove_reader() ends, too."""
        return self.is_closed and self.sock.fileno() < 0

    cdef object make_protocol(self, object context):
        PyContext_Enter(<PyObject*>context)
        try:
            return self.factory()
        finally:
            PyContext_Exit(<PyObject*>context)

    cdef int drop(self, StreamTransport transport) except -1:
        cdef int fd = transport.fd
        if fd >= 0:
            self.loop.disown_fd(fd, transport)
            detach(transport.server, transport)
            transport.server = None
            transport.fd = -1
            np_sock_close(fd)
        return 0

    cdef int report_failed(self, object exc) except -1:
        if isinstance(exc, (SystemExit, KeyboardInterrupt)):
            raise exc
        self.loop.call_exception_handler({
            "message": "Error on transport creation for incoming connection",
            "exception": exc,
            "socket": trsock.TransportSocket(self.sock),
        })
        return 0

    cdef int make_ssl(self, StreamTransport transport) except -1:
        """The transport that has the fd so far gives it to the one below the TLS layer."""
        cdef int fd = transport.fd
        try:
            conn = py_socket.socket(fileno=fd)
        except BaseException as exc:  # an audit hook's
            self.drop(transport)
            return self.report_failed(exc)
        self.loop.disown_fd(fd, transport)
        transport.fd = -1
        try:
            conn.setblocking(False)
            context = PyContext_Copy(<PyObject*>self.context)
            protocol = self.make_protocol(context)
            if self.is_over():
                conn.close()
                return 0
            context.run(self.loop._make_ssl_transport, conn, protocol, server_side=True,
                        server=self.server, **self.ssl_options)
        except BaseException as exc:
            conn.close()
            self.report_failed(exc)
        return 0

    cdef int accept_failed(self, int err) except -1:
        message = ("socket.accept() out of system resource"
                   if is_exhausted(err) else "socket.accept() failed")
        self.loop.call_exception_handler({
            "message": message,
            "exception": os_error(err),
            "socket": trsock.TransportSocket(self.sock),
        })
        return self.pause()


seal_types(globals(), (Acceptor,))
