# cython: language_level=3, freethreading_compatible=True, binding=True
"""loop.sock_*: one completion each, and nothing lost when the waiting task is cancelled.

Each call first tries the system call itself: when it need not wait, there is nothing to schedule.
When it must, it arms one POLL and does the call after the task has resumed: neither a received
byte nor an accepted connection exists before somebody is there to take it. A receive by the kernel
would spare a call, but what it brings for a task that is cancelled meanwhile has nowhere to go.

Two hints per fd spare work, and cost no more than time when they are wrong: DRAINED (the last
receive got less than it asked for, so there is no use in trying before waiting) and BULK (the last
one was large: receive into an object of the full size at once).
"""

from cpython.buffer cimport (
    PyBUF_CONTIG, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EBADF
from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport strerror

from netpoll._core cimport ON_EVENT_QUIET, Loop
from netpoll._native.c cimport (
    NP_OP_POLL, PyBytes_New, PyObject, PyTypeObject, Py_DECREF, _PyBytes_Resize, iovec, np_event,
    np_sock_error, np_sock_recv, np_sock_send)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport NOGIL_BYTES, SOCK_BULK_LEAVE_BYTES, SOCK_SCRATCH_BYTES
from netpoll._native.loop.awaitable cimport Awaitable, install_awaitable_slots
from netpoll._native.poll cimport POLLIN, POLLOUT
from netpoll._native.seal cimport seal_types

import socket as _py_socket
import ssl as _ssl


cdef enum:  # hints, per fd
    DRAINED = 1
    BULK = 2

cdef object PySocket = _py_socket.socket
# What makefile() counts in, and what close() leaves behind: slots of the class, which the calls
# below go to directly, as looking their names up takes several times as long.
cdef object IO_REFS = PySocket.__dict__["_io_refs"]
cdef object CLOSED = PySocket.__dict__["_closed"]
cdef object Slot = type(IO_REFS)
cdef PyTypeObject *SLOT = <PyTypeObject*>Slot
cdef object SSLSocket = _ssl.SSLSocket


cdef inline bint is_plain_buffer(object buffer):
    """To ask it for its memory runs nobody's code."""
    return type(buffer) is bytearray or type(buffer) is memoryview


cdef class SockOp(Awaitable):
    cdef object attempt(self):
        """The call itself. Here: none, the socket's readiness is all that is waited for."""
        self.is_done = self.future is not None

    cdef object step(self):
        if self.op:
            raise RuntimeError("this socket call is being awaited already")
        if self.is_holding and self.is_closed() and self.sock.fileno() != self.fd:
            raise OSError(EBADF, "Bad file descriptor: the socket was detached meanwhile")
        result = self.attempt()
        if self.is_done:
            self.unhold()
            return result
        self.op = self.loop.arm(NP_OP_POLL, self.fd, self, self.mask)
        self.hold()
        return self.wait_on(self.loop)

    cdef int hold(self) except -1:
        """A socket that is closed while a call waits on it stays open until the call has ended, the
        way it does under makefile(): the fd cannot become somebody else's meanwhile."""
        if not self.is_holding and issubclass(type(self.sock), PySocket):
            SLOT.tp_descr_set(IO_REFS, self.sock, SLOT.tp_descr_get(IO_REFS, self.sock, NULL) + 1)
            self.is_holding = True
        return 0

    cdef int unhold(self) except -1:
        if self.is_holding:
            self.is_holding = False
            SLOT.tp_descr_set(IO_REFS, self.sock, SLOT.tp_descr_get(IO_REFS, self.sock, NULL) - 1)
            if self.is_closed():
                self.sock.close()
        return 0

    cdef bint is_closed(self) except -1:
        return SLOT.tp_descr_get(CLOSED, self.sock, NULL)

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        self.op = 0
        # An error of the fd resumes the task too: its own call reports it best.
        self.resume()
        return ON_EVENT_QUIET

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        self.op = 0
        return self.unhold()

    cdef int abandon(self) except -1:
        if self.op:
            self.loop.cancel(self.op)
        return self.unhold()


cdef class RecvOp(SockOp):
    cdef Py_ssize_t size

    cdef object attempt(self):
        cdef char scratch[SOCK_SCRATCH_BYTES]
        cdef uint8_t *hints = self.loop.fd_hints(self.fd)
        cdef PyObject *data
        cdef char *base
        cdef ptrdiff_t got
        cdef Py_ssize_t size = self.size
        if size == 0:  # the kernel would wait for what it does not receive
            self.is_done = True
            return b""
        if hints is not NULL and hints[0] & DRAINED and self.future is None:
            return None
        if size <= SOCK_SCRATCH_BYTES or hints is NULL or not hints[0] & BULK:
            size = min(size, SOCK_SCRATCH_BYTES)
            got = np_sock_recv(self.fd, scratch, size)
            if got >= 0:
                if hints is not NULL:
                    hints[0] = DRAINED if got < size else BULK
                self.is_done = True
                return PyBytes_FromStringAndSize(scratch, got)
        else:
            data = PyBytes_New(NULL, size)
            base = PyBytes_AS_STRING(<object>data)
            with nogil:
                got = np_sock_recv(self.fd, base, size)
            hints = self.loop.fd_hints(self.fd)  # another thread may have made the table longer
            if got >= 0 and hints is not NULL:
                hints[0] = BULK if got >= SOCK_BULK_LEAVE_BYTES else 0
                if got < size:
                    hints[0] |= DRAINED
                if got < size:
                    _PyBytes_Resize(&data, got)
                received = <object>data
                Py_DECREF(data)
                self.is_done = True
                return received
            Py_DECREF(data)
        if got == -EAGAIN:
            return None
        raise os_error(got)


cdef class RecvIntoOp(SockOp):
    cdef object buffer

    cdef object attempt(self):
        cdef Py_buffer view
        cdef ptrdiff_t got
        PyObject_GetBuffer(self.buffer, &view, PyBUF_CONTIG)
        if not is_plain_buffer(self.buffer) and self.sock.fileno() != self.fd:
            # Its __buffer__ has closed the socket; the number may be another's by now.
            PyBuffer_Release(&view)
            raise OSError(EBADF, strerror(EBADF).decode())
        if view.len == 0:
            got = 0
        else:
            with nogil:
                got = np_sock_recv(self.fd, view.buf, view.len)
        PyBuffer_Release(&view)
        if got == -EAGAIN:
            return None
        if got < 0:
            raise os_error(got)
        self.is_done = True
        return got


cdef class SendAllOp(SockOp):
    cdef Py_buffer view
    cdef bint has_view
    cdef Py_ssize_t sent

    def __dealloc__(self):
        if self.has_view:
            PyBuffer_Release(&self.view)

    cdef int abandon(self) except -1:
        self.release()
        return SockOp.abandon(self)

    cdef int release(self) except -1:
        if self.has_view:
            self.has_view = False
            PyBuffer_Release(&self.view)
        return 0

    cdef object attempt(self):
        cdef iovec iov
        cdef ptrdiff_t n
        while self.sent < self.view.len:
            iov.iov_base = <char*>self.view.buf + self.sent
            iov.iov_len = self.view.len - self.sent
            if iov.iov_len >= NOGIL_BYTES:
                with nogil:
                    n = np_sock_send(self.fd, &iov, 1)
            else:
                n = np_sock_send(self.fd, &iov, 1)
            if n == -EAGAIN:
                return None
            if n < 0:
                raise os_error(n)
            self.sent += n
        self.release()
        self.is_done = True
        return None


cdef class CallOp(SockOp):
    """Any method of the socket, by name, that raises BlockingIOError when it must wait."""
    cdef str method
    cdef tuple args

    cdef str called(self):
        return "EventLoop.sock_" + self.method

    cdef object attempt(self):
        try:
            result = getattr(self.sock, self.method)(*self.args)
        except (BlockingIOError, InterruptedError):
            return None
        self.is_done = True
        return result


cdef class AcceptOp(SockOp):
    cdef object attempt(self):
        try:
            connection, address = self.sock.accept()
        except (BlockingIOError, InterruptedError):
            return None
        connection.setblocking(False)
        self.is_done = True
        return (connection, address)


cdef class ConnectOp(SockOp):
    cdef object address
    cdef bint started

    cdef object attempt(self):
        cdef int err
        if self.started:
            err = np_sock_error(self.fd)
            if err < 0:
                raise OSError(-err, f"Connect call failed {self.address}")
            self.is_done = True
            return None
        self.started = True
        try:
            self.sock.connect(self.address)
        except (BlockingIOError, InterruptedError):
            return None
        self.is_done = True
        return None


for _cls, _called in (
        (RecvOp, "recv"), (RecvIntoOp, "recv_into"), (SendAllOp, "sendall"), (CallOp, ""),
        (AcceptOp, "accept"), (ConnectOp, "connect")):
    install_awaitable_slots(_cls, "EventLoop.sock_" + _called)


cdef SockOp begin(SockOp op, Loop loop, object sock, uint32_t mask):
    if type(sock) is not PySocket and isinstance(sock, SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")
    if loop._debug and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")
    loop.check_ours()
    op.loop = loop
    op.sock = sock
    op.fd = sock.fileno()
    op.mask = mask
    return op


# These are methods of the loop: loop.py puts them into its class.

def sock_recv(Loop self, sock, Py_ssize_t n):
    """Awaitable: up to n bytes; b"" at the end of the stream."""
    cdef RecvOp op = RecvOp.__new__(RecvOp)
    if n < 0:
        raise ValueError("negative buffersize in recv")
    op.size = n
    return begin(op, self, sock, POLLIN)


def sock_recv_into(Loop self, sock, buf):
    """Awaitable: the number of bytes written into buf."""
    cdef RecvIntoOp op = RecvIntoOp.__new__(RecvIntoOp)
    op.buffer = buf
    return begin(op, self, sock, POLLIN)


def sock_recvfrom(Loop self, sock, bufsize):
    """Awaitable: (data, address) of one datagram."""
    return call(self, sock, POLLIN, "recvfrom", (bufsize,))


def sock_recvfrom_into(Loop self, sock, buf, nbytes=0):
    """Awaitable: (bytes written into buf, address) of one datagram."""
    return call(self, sock, POLLIN, "recvfrom_into", (buf, nbytes or len(buf)))


def sock_sendall(Loop self, sock, data):
    """Awaitable: None once the kernel has taken all of data. The buffer is held until then."""
    cdef SendAllOp op = SendAllOp.__new__(SendAllOp)
    PyObject_GetBuffer(data, &op.view, PyBUF_SIMPLE)
    op.has_view = True
    return begin(op, self, sock, POLLOUT)


def sock_sendto(Loop self, sock, data, address):
    """Awaitable: bytes sent to address as one datagram."""
    return call(self, sock, POLLOUT, "sendto", (data, address))


def sock_accept(Loop self, sock):
    """Awaitable: (connection, address); the connection is nonblocking."""
    return begin(AcceptOp.__new__(AcceptOp), self, sock, POLLIN)


def connect_resolved(Loop self, sock, address):
    """Awaitable: None once connected to an address that needs no resolving."""
    cdef ConnectOp op = ConnectOp.__new__(ConnectOp)
    op.address = address
    return begin(op, self, sock, POLLOUT)


cdef CallOp call(Loop loop, object sock, uint32_t mask, str method, tuple args):
    cdef CallOp op = CallOp.__new__(CallOp)
    op.method = method
    op.args = args
    return begin(op, loop, sock, mask)


seal_types(globals())
