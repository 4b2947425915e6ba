# cython: language_level=3, freethreading_compatible=True
"""loop.sock_*: one completion each, and nothing lost when the waiting task is cancelled.

Each call first tries the system call itself: when it need not wait, there is nothing to schedule.
When it must, it arms one POLL and does the call after the task has resumed. So neither a received
byte nor an accepted connection exists before somebody is there to take it; a receive that the
kernel did on its own could finish just as its task is cancelled, and its bytes would have nowhere
to go.
"""

from cpython.buffer cimport (
    PyBUF_CONTIG, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer)
from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EAGAIN, EBADF
from libc.stdint cimport uint32_t
from libc.string cimport strerror

from netpoll._c cimport (
    NP_OP_POLL, Py_DECREF, PyBytes_New, PyObject, _PyBytes_Resize, iovec, np_event, np_sock_error,
    np_sock_recv, np_sock_send, np_udata)
from netpoll._core cimport Awaitable, Loop, install_awaitable_slots

cdef enum:
    POLLIN = 1
    POLLOUT = 4


cdef object os_error(ptrdiff_t err):
    return OSError(-err, strerror(<int>-err).decode())


cdef class SockOp(Awaitable):
    """One call on a nonblocking socket. attempt() does it and sets is_done, or must wait."""
    cdef Loop loop
    cdef object sock
    cdef int fd
    cdef uint32_t mask
    cdef np_udata op

    cdef object attempt(self):
        raise NotImplementedError

    cdef object step(self):
        if self.op:
            raise RuntimeError("this socket call is being awaited already")
        cdef int fd = self.sock.fileno()
        if fd != self.fd and self.future is not None:
            raise OSError(EBADF, "Bad file descriptor: the socket was closed meanwhile")
        self.fd = fd
        result = self.attempt()
        if self.is_done:
            return result
        self.op = self.loop.arm(NP_OP_POLL, self.fd, self, self.mask)
        return self.wait_on(self.loop)

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        self.op = 0
        # An error of the fd resumes the task too: its own call reports it best.
        if self.future is not None and not self.future.done():
            self.future.set_result(None)
        return 0

    cdef int abandon(self) except -1:
        if self.op:
            self.loop.cancel(self.op)
        return 0


cdef class RecvOp(SockOp):
    cdef Py_ssize_t size

    cdef object attempt(self):
        cdef PyObject *data = PyBytes_New(NULL, self.size)
        cdef char *base = PyBytes_AS_STRING(<object>data)
        cdef ptrdiff_t got
        with nogil:
            got = np_sock_recv(self.fd, base, self.size)
        if got < 0:
            Py_DECREF(data)
            if got == -EAGAIN:
                return None
            raise os_error(got)
        if got < self.size:
            _PyBytes_Resize(&data, got)
        received = <object>data
        Py_DECREF(data)
        self.is_done = True
        return received


cdef class RecvIntoOp(SockOp):
    cdef object buffer

    cdef object attempt(self):
        cdef Py_buffer view
        cdef ptrdiff_t got
        PyObject_GetBuffer(self.buffer, &view, PyBUF_CONTIG)
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

    cdef object attempt(self):
        cdef iovec iov
        cdef ptrdiff_t n
        while self.sent < self.view.len:
            iov.iov_base = <char*>self.view.buf + self.sent
            iov.iov_len = self.view.len - self.sent
            with nogil:
                n = np_sock_send(self.fd, &iov, 1)
            if n == -EAGAIN:
                return None
            if n < 0:
                raise os_error(n)
            self.sent += n
        self.is_done = True
        return None


cdef class CallOp(SockOp):
    """Any method of the socket, by name, that raises BlockingIOError when it must wait."""
    cdef str method
    cdef tuple args

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


for _cls in (RecvOp, RecvIntoOp, SendAllOp, CallOp, AcceptOp, ConnectOp):
    install_awaitable_slots(_cls)


cdef SockOp begin(SockOp op, Loop loop, object sock, uint32_t mask):
    op.loop = loop
    op.sock = sock
    op.fd = sock.fileno()
    op.mask = mask
    return op


def recv(Loop loop, sock, Py_ssize_t size):
    """Awaitable: up to `size` bytes, b"" at the end of the stream."""
    cdef RecvOp op = RecvOp.__new__(RecvOp)
    if size < 0:
        raise ValueError("negative buffersize in recv")
    op.size = size
    return begin(op, loop, sock, POLLIN)


def recv_into(Loop loop, sock, buffer):
    """Awaitable: bytes written into buffer."""
    cdef RecvIntoOp op = RecvIntoOp.__new__(RecvIntoOp)
    op.buffer = buffer
    return begin(op, loop, sock, POLLIN)


def sendall(Loop loop, sock, data):
    """Awaitable: None once everything was taken. The buffer is held until then."""
    cdef SendAllOp op = SendAllOp.__new__(SendAllOp)
    PyObject_GetBuffer(data, &op.view, PyBUF_SIMPLE)
    op.has_view = True
    return begin(op, loop, sock, POLLOUT)


def accept(Loop loop, sock):
    """Awaitable: (connection, address); the connection is nonblocking."""
    return begin(AcceptOp.__new__(AcceptOp), loop, sock, POLLIN)


def connect(Loop loop, sock, address):
    """Awaitable: None once connected to the resolved address."""
    cdef ConnectOp op = ConnectOp.__new__(ConnectOp)
    op.address = address
    return begin(op, loop, sock, POLLOUT)


def call_in(Loop loop, sock, str method, *args):
    """Awaitable: sock.method(*args), a receiving method."""
    cdef CallOp op = CallOp.__new__(CallOp)
    op.method = method
    op.args = args
    return begin(op, loop, sock, POLLIN)


def call_out(Loop loop, sock, str method, *args):
    """Awaitable: sock.method(*args), a sending method."""
    cdef CallOp op = CallOp.__new__(CallOp)
    op.method = method
    op.args = args
    return begin(op, loop, sock, POLLOUT)
