# cython: language_level=3, freethreading_compatible=True
"""sock_sendfile: sendfile(2) whenever the socket has room, an awaitable while it has not.

Not splice through io_uring: the kernel hands every splice to a worker thread. See
benchmarks/NEGATIVE.md for the figures.
"""

from libc.errno cimport EAGAIN, ENOTCONN
from libc.stdint cimport int64_t
from libc.string cimport strerror

from netpoll._core cimport Loop
from netpoll._native.c cimport np_sock_sendfile
from netpoll._native.limits cimport SENDFILE_TURN_BYTES
from netpoll._native.loop.awaitable cimport install_awaitable_slots
from netpoll._native.loop.sock cimport SockOp
from netpoll._native.poll cimport POLLOUT
from netpoll._native.seal cimport seal_types

import asyncio
import io
import os


cdef object NotAvailable = asyncio.SendfileNotAvailableError


cdef class SendfileOp(SockOp):
    """One file on its way to one socket. The result is the number of bytes sent."""
    cdef object file            # kept open by being kept
    cdef int file_fd
    cdef int64_t offset         # of the next byte
    cdef int64_t count          # how many are wanted; -1: up to the end
    cdef int64_t size_bytes     # of the file, when it began; it may grow
    cdef int64_t sent_bytes

    cdef object attempt(self):
        cdef ptrdiff_t n = self.send()
        if n > 0 and self.offset >= self.size_bytes:
            n = self.send()  # the end, nearly always: it need not wait for a turn
        if n == 0:
            self.is_done = True
            self.place()
            return self.sent_bytes
        if n < 0 and n != -EAGAIN:
            raise self.error(<int>-n)
        return None

    cdef ptrdiff_t send(self) except? -1:
        """What may leave in this turn. 0: that was all; -errno, -EAGAIN among them; or a count."""
        cdef size_t size = SENDFILE_TURN_BYTES
        cdef ptrdiff_t n
        if self.count >= 0:
            size = min(size, <size_t>(self.count - self.sent_bytes))
            if size == 0:
                return 0
        with nogil:
            n = np_sock_sendfile(self.fd, self.file_fd, self.offset, size)
        if n > 0:
            self.offset += n
            self.sent_bytes += n
            if self.sent_bytes == self.count:
                return 0
        return n

    cdef object error(self, int err):
        """As asyncio: a refused first call means that this file cannot be sent this way."""
        if not self.sent_bytes:
            return NotAvailable("os.sendfile call failed")
        cause = OSError(err, strerror(err).decode())
        if err != ENOTCONN:
            return cause
        error = ConnectionError("socket is not connected", ENOTCONN)
        error.__cause__ = cause
        return error

    cdef int place(self) except -1:
        """The file's position is behind what was sent, however the sending ended.

        Also when nothing was, as in newer releases of asyncio: it tells how far the file is. What
        has no size may have no position.
        """
        if self.sent_bytes or self.size_bytes:
            os.lseek(self.file_fd, self.offset, os.SEEK_SET)
        return 0

    cdef int abandon(self) except -1:
        try:
            return SockOp.abandon(self)
        finally:
            self.place()


install_awaitable_slots(SendfileOp, "EventLoop.sock_sendfile")


def send_file(Loop loop, sock, file, offset, count):
    """Awaitable: bytes of file sent to the nonblocking stream socket sock.

    offset, count: where to begin, and how many bytes; None: up to the file's end. Raises
    SendfileNotAvailableError for what is not a regular file and where sendfile(2) refuses.
    """
    cdef SendfileOp op = SendfileOp.__new__(SendfileOp)
    try:
        op.file_fd = file.fileno()
        op.size_bytes = os.fstat(op.file_fd).st_size
    except (AttributeError, io.UnsupportedOperation, OSError):
        raise NotAvailable("not a regular file") from None
    op.loop = loop
    op.sock = sock
    op.file = file
    op.fd = sock.fileno()
    op.mask = POLLOUT
    op.offset = offset
    # An empty file is done before it has begun, also one that only pretends (in /proc).
    op.count = count if count else -1 if op.size_bytes else 0
    return op


seal_types(globals())
