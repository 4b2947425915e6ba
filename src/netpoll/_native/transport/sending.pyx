# cython: language_level=3, freethreading_compatible=True
"""The sending half of a stream transport: what is written leaves in order, and uncopied.

Small writes collect until the end of the turn and leave as one operation; from WRITE_NOW_BYTES on
they are sent at once, and what the socket does not take waits for POLLOUT. Whatever could show that
a write has not left yet sends it before (catch_up, offer). A bytes object is kept until the kernel
has taken it; anything that can still change is copied by write().
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.errno cimport EAGAIN
from libc.stdint cimport int32_t

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    NP_OP_POLL, NP_POLL_KEEP, PyObject, Py_INCREF, iovec, np_iov_close, np_iov_gather, np_iov_init,
    np_event, np_sock_send, np_sock_shutdown)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport GATHER_COUNT, NOGIL_BYTES, WRITE_NOW_BYTES
from netpoll._native.poll cimport POLLOUT
from netpoll._native.seal cimport seal_types
from netpoll._native.transport.chain cimport chain_advance, chain_clear, chain_push
from netpoll._native.transport.endpoint cimport (
    CLOSING, LOST, PROTOCOL_PAUSED, Endpoint, is_inherited, last_event_of)

import socket as py_socket
from asyncio import log

cdef enum:
    SHUT_WR = 1


cdef class SendingTransport(Endpoint):
    """What StreamTransport is, as far as it sends. It knows nothing of receiving."""

    def __cinit__(self):
        np_iov_init(&self.out)

    def __dealloc__(self):
        chain_clear(&self.out)
        np_iov_close(&self.out)

    def write(self, data):
        """Sends bytes in order, without waiting. A bytes object is kept, not copied; anything
        that can still change is copied now."""
        cdef bytes exact
        self.loop.check_ours()
        if isinstance(data, bytes):
            exact = <bytes>data
        elif isinstance(data, (bytearray, memoryview)):
            exact = bytes(data)
        else:
            raise TypeError("data argument must be a bytes-like object, "
                            f"not {type(data).__name__!r}")
        self.write_bytes(exact)

    cdef int write_bytes(self, bytes data) except -1:
        if self.flags & (EOF_ASKED | CLOSING | LENT):
            if self.flags & LENT:
                raise RuntimeError("unable to write; sendfile is in progress")
            if self.flags & EOF_ASKED:
                raise RuntimeError("Cannot call write() after write_eof()")
            if self.flags & LOST:
                return self.warn_lost(data)
        if PyBytes_GET_SIZE(data) == 0:
            return 0
        self.push(data)
        return self.check_watermarks()

    cdef int warn_lost(self, bytes data) except -1:
        if PyBytes_GET_SIZE(data):
            if self.lost_writes_count >= 5:
                log.logger.warning("socket.send() raised exception.")
            else:
                self.lost_writes_count += 1
        return 0

    def writelines(self, list_of_data):
        """Sends several pieces, in order, as few system calls as the kernel allows."""
        self.loop.check_ours()
        if self.flags & EOF_ASKED:
            raise RuntimeError("Cannot call writelines() after write_eof()")
        if self.flags & LENT:
            raise RuntimeError("unable to writelines; sendfile is in progress")
        cdef list pieces = [p if type(p) is bytes else bytes(memoryview(p)) for p in list_of_data]
        if self.flags & LOST:
            self.warn_lost(b"".join(pieces))
            return
        for piece in pieces:
            if piece:
                self.push(piece)
        self.check_watermarks()

    cdef int push(self, object data) except -1:
        """Appends one piece; it leaves at the end of the turn at the latest."""
        chain_push(&self.out, data)
        if not self.flags & DIRTY and not self.write_op:
            self.flags |= DIRTY
            self.loop.mark_dirty(self)
        return 0

    cdef int check_watermarks(self) except -1:
        """After new bytes: large amounts leave at once; above the mark the protocol pauses."""
        if self.flags & READING:
            return 0
        if not self.write_op and (self.out.total_bytes >= WRITE_NOW_BYTES
                                  or self.out.total_bytes > self.high_bytes
                                  or self.loop.running_ident == 0):  # no end of a turn may come
            self.write_now()
        if self.out.total_bytes > self.high_bytes and not self.flags & (PROTOCOL_PAUSED | ABORTED):
            self.flags |= PROTOCOL_PAUSED
            self.call_protocol("pause_writing")
        return 0

    cdef int on_turn_end(self, Loop loop) except -1:
        self.flags &= ~DIRTY
        return self.flush()

    cdef int flush(self) except -1:
        """What was written in this turn, as one operation."""
        cdef iovec iov[GATHER_COUNT]
        cdef int32_t res
        cdef int n, done
        if self.write_op or not self.out.count or self.flags & ABORTED:
            return 0
        if self.loop._stopping or self.out.count > GATHER_COUNT:
            return self.write_now()  # no turn may follow, and one operation would not do
        n = np_iov_gather(&self.out, iov, GATHER_COUNT)
        done = self.loop.ops.send(self.loop.be, self.fd, <void*>self, iov, n, 0, &res,
                                  &self.write_op)
        if done == 0:
            Py_INCREF(<PyObject*>self)  # the operation's
            self.flags |= SENDING
            return 0
        return self.took(res if done > 0 else -EAGAIN)

    cdef int write_now(self) except -1:
        """Direct calls until all is sent or the socket is full."""
        cdef iovec iov[GATHER_COUNT]
        cdef ptrdiff_t sent
        cdef int n
        cdef int fd = self.fd
        while self.out.count and not self.write_op and not self.flags & ABORTED:
            n = np_iov_gather(&self.out, iov, GATHER_COUNT)
            if self.out.total_bytes >= NOGIL_BYTES:
                with nogil:
                    sent = np_sock_send(fd, iov, n)
            else:
                sent = np_sock_send(fd, iov, n)
            self.took(sent)
        return 0

    cdef int took(self, ptrdiff_t sent_bytes) except -1:
        """A send ended: sent_bytes is a count or -errno."""
        if sent_bytes < 0:
            if sent_bytes != -EAGAIN:
                return self.fail(os_error(<int>sent_bytes),
                                 "Fatal write error on socket transport")
            try:
                self.write_op = self.loop.arm(NP_OP_POLL, self.fd, self, POLLOUT | NP_POLL_KEEP)
            except OSError as exc:
                self.fail(exc, "Fatal write error on socket transport")
            return 0
        chain_advance(&self.out, sent_bytes)
        self.sent()
        if self.flags & PROTOCOL_PAUSED and self.out.total_bytes <= self.low_bytes:
            self.flags &= ~PROTOCOL_PAUSED
            self.call_protocol("resume_writing")
        if self.out.count == 0:
            return self.wrote_all()
        if not self.flags & DIRTY and not self.write_op:
            self.flags |= DIRTY
            self.loop.mark_dirty(self)
        return 0

    # asyncio sends within write(). Who cannot tell the difference gets one operation for all that a
    # turn writes (benchmarks/NEGATIVE.md has the figures); who could is served as if it were so.

    cdef bint heard(self, np_event *said) except -1:
        """Whether nothing of ours is in the kernel's hands, and what the SEND said if it was."""
        cdef np_event *event = NULL
        said.op = 0
        if self.write_op:
            if self.flags & SENDING:
                event = last_event_of(self.loop, self.write_op)
            if event is NULL:
                return False
            said[0] = event[0]
            event.op = 0  # when its turn comes it is known already
            self.write_op = 0
            self.flags &= ~SENDING
        return True

    cdef int catch_up(self) except -1:
        """What was written goes to the socket now, not at the end of the turn."""
        cdef np_event said
        if not self.out.count or self.flags & (PROTOCOL_PAUSED | ABORTED | LOST) \
                or is_inherited(self.loop) or not self.heard(&said):
            return 0
        if said.op:
            self.took(said.res)
        return self.write_now()

    cdef int offer(self) except -1:
        """Before what is unsent is dropped: the socket takes of it what it would have taken when it
        was written. Calls nobody. 0, or the errno with which sending failed."""
        cdef iovec iov[GATHER_COUNT]
        cdef np_event said
        cdef ptrdiff_t sent
        cdef int n
        cdef int fd = self.fd
        if not self.out.count or fd < 0 or is_inherited(self.loop) or not self.heard(&said):
            return 0
        sent = said.res if said.op else 0
        while True:
            if sent < 0:
                return 0 if sent == -EAGAIN else <int>-sent
            chain_advance(&self.out, sent)
            if not self.out.count:
                return 0
            n = np_iov_gather(&self.out, iov, GATHER_COUNT)
            with nogil:
                sent = np_sock_send(fd, iov, n)

    cdef int wrote_all(self) except -1:
        if self.flags & LENT and not self.empty_waiter.done():
            self.empty_waiter.set_result(None)
        if self.flags & (EOF_ASKED | CLOSING) and not self.flags & LOST:
            if self.flags & CLOSING:
                self.lose(None)
            else:
                np_sock_shutdown(self.fd, SHUT_WR)
        return 0

    cdef int drop_out(self) except -1:
        """Forgets what is unsent; not while the kernel reads it."""
        if not self.flags & SENDING:
            chain_clear(&self.out)
        return 0

    def write_eof(self):
        """Shuts our side once everything written has left."""
        self.loop.check_ours()
        if self.flags & (CLOSING | EOF_ASKED):
            return
        self.flags |= EOF_ASKED
        if self.out.count:
            self.catch_up()
        else:
            np_sock_shutdown(self.fd, SHUT_WR)

    # loop.sendfile writes to the socket itself, once what was written before has left.

    def _make_empty_waiter(self):
        if self.flags & LENT:
            raise RuntimeError("Empty waiter is already set")
        self.flags |= LENT
        self.empty_waiter = self.loop.create_future()
        if not self.out.count:
            self.empty_waiter.set_result(None)
        return self.empty_waiter

    def _reset_empty_waiter(self):
        self.flags &= ~LENT
        self.empty_waiter = None

    @property
    def _lent(self):
        return bool(self.flags & LENT)

    @property
    def _empty_waiter(self):
        return self.empty_waiter

    # Names of asyncio's own that programs read; docs/compatibility.md has the list.

    @property
    def _sock(self):
        if self.fd < 0:
            return None
        self.catch_up()
        return self._socket()

    @property
    def _sock_fd(self):
        return self.fd

    @property
    def _eof(self):
        return bool(self.flags & EOF_ASKED)

    @property
    def _conn_lost(self):
        return bool(self.flags & LOST) + self.lost_writes_count

    def _socket(self):
        if self.sock is None:
            made = py_socket.socket(fileno=self.fd)
            if self.sock is None and self.fd == made.fileno():
                self.sock = made
                made.setblocking(False)
            else:  # an audit hook has asked for it, too, or closed it: the number has one owner
                made.detach()
        return self.sock

    def _detach_socket(self):
        """Its maker gave up: the number is ours alone, and the maker's object a shell."""
        if self.sock is not None and self.fd >= 0:
            self.sock.detach()
            self.sock = None

    def can_write_eof(self):
        return True

    cdef size_t unsent_bytes(self) noexcept:
        return self.out.total_bytes

    cdef int press(self) except -1:
        return self.check_watermarks()

    # ---- closing; the last three are the whole transport's -------------------------------------

    def abort(self):
        """Closes at once; what the socket has not room for is dropped."""
        self.loop.check_ours()
        self.force_close(None)

    cdef int fail(self, object exc, str message) except -1:
        """An error that ends this connection, and only this one."""
        if isinstance(exc, OSError):
            if self.loop._debug:
                log.logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self.report(message, exc)
        return self.force_close(exc)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        self.fail(exc, message)

    def _force_close(self, exc):
        self.force_close(exc)

    cdef int sent(self) except -1:
        """The socket has taken something."""
        return 0

    cdef int force_close(self, object exc) except -1:
        raise NotImplementedError

    cdef int lose(self, object exc) except -1:
        raise NotImplementedError


seal_types(globals())
