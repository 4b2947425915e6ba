# cython: language_level=3, freethreading_compatible=True
"""The transports of connect_read_pipe and connect_write_pipe: pipes, FIFOs, sockets, terminals.

Both poll and then make one system call for each readiness. A write is tried at once, as asyncio's
is: what the pipe does not take is kept and leaves when the pipe has room. A write transport also
watches for the reader's going away.

The descriptor is made nonblocking, and stays so: with a terminal or an inherited pipe this is seen
by everybody who shares it, as with asyncio.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN
from libc.stdint cimport uint16_t

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    ECANCELED, NP_OP_POLL, NP_POLL_KEEP, PyContext_CopyCurrent, PyObject, Py_DECREF, iovec,
    np_bytes_renew, np_event, np_iov, np_iov_close, np_iov_gather, np_iov_init, np_pipe_read,
    np_pipe_write, np_sock_close, np_udata)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport (
    BULK_LEAVE_COUNT, GATHER_COUNT, NOGIL_BYTES, PIPE_BULK_BYTES, PIPE_SCRATCH_BYTES)
from netpoll._native.poll cimport POLLIN, POLLOUT, POLLRDHUP
from netpoll._native.seal cimport seal_types
from netpoll._native.transport.chain cimport chain_advance, chain_clear, chain_push
from netpoll._native.transport.endpoint cimport (
    CLOSING, ENDPOINT_FLAGS_END, LOST, PAUSED, PROTOCOL_PAUSED, STARTED, Endpoint)
from netpoll._native.transport.stream_reader cimport Sink, adopt_reader, adopt_stream_reader

import asyncio
import errno
import os
import stat
import warnings
from asyncio import constants, log


cdef enum:  # PipeTransport.flags beside those of Endpoint
    BULK = ENDPOINT_FLAGS_END           # reads into fresh bytes objects
    SHARED = ENDPOINT_FLAGS_END << 1    # fd is our duplicate: another transport has the number
    WATCHED = ENDPOINT_FLAGS_END << 2   # a write transport that is told of the reader's end

cdef object ReadTransport = asyncio.ReadTransport
cdef object WriteTransport = asyncio.WriteTransport
cdef int LOG_THRESHOLD_COUNT = constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES


cdef int number_of(object pipe) except? -1:
    """The descriptor's number, or -1 when the user has closed the pipe."""
    try:
        return pipe.fileno()
    except ValueError:
        return -1


cdef class PipeTransport(Endpoint):
    """What both directions have in common: birth, one POLL, the end."""
    cdef object pipe            # the user's object, which owns the number; None once closed
    cdef object error           # what connection_lost will get
    cdef dict extra
    cdef np_udata op            # reading, or watching for the reader's end
    cdef object __weakref__

    def __del__(self):
        if self.fd < 0:
            return
        if self.pipe is not None:  # as asyncio: who gave the pipe up has closed it
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
        self.close_fd()

    cdef list activity(self):
        return ["open"] if self.loop._closed else self.state()

    cdef list state(self):
        raise NotImplementedError

    # ---- birth --------------------------------------------------------------------------------

    cdef int open(self, Loop loop, object pipe, object protocol, object waiter,
                  object extra) except -1:
        """Takes the pipe over. Raises ValueError for what cannot be polled; nothing is kept then.

        connection_made, the polling and the waiter follow in the next turn.
        """
        cdef int fd = pipe.fileno()
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
            raise ValueError("Pipe transport is for pipes, sockets and character devices only.")
        os.set_blocking(fd, False)
        if loop.fd_owner(fd) is not None:
            # One socket or terminal for both directions: each transport polls and closes its own.
            fd = os.dup(fd)
            self.flags |= SHARED
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            self.flags |= WATCHED
        self.loop = loop
        self.pipe = pipe
        self.fd = fd
        self.extra = {**(extra or {}), "pipe": pipe}
        self.context = PyContext_CopyCurrent()
        self.set_protocol(protocol)
        loop.own_fd(fd, self)
        loop.soon(self._begin, (waiter,))
        return 0

    cdef int begin(self) except -1:
        raise NotImplementedError

    def _begin(self, waiter):
        self.flags |= STARTED
        try:
            self.call_protocol("connection_made", (self,))
        finally:  # an interrupt out of the protocol ends the turn, not the connection
            if not self.flags & CLOSING:
                self.begin()
            if waiter is not None and not waiter.cancelled():
                waiter.set_result(None)

    # ---- the end ------------------------------------------------------------------------------

    cdef int force_close(self, object exc) except -1:
        raise NotImplementedError

    cdef int lose(self, object exc) except -1:
        """connection_lost(exc) follows in the next turn."""
        if self.flags & LOST:
            return 0
        self.flags |= LOST | CLOSING
        self.error = exc
        self.loop.cancel(self.op)
        if self.loop._closed:  # nobody will be called any more, but the fd is not kept
            self.close_fd()
            self.loop.check_closed()
        self.loop.soon(self._call_connection_lost, None)
        return 0

    def _call_connection_lost(self):
        try:
            if self.flags & STARTED:
                entered = self.enter()
                try:
                    self.protocol.connection_lost(self.error)
                finally:
                    self.leave(entered)
        finally:
            self.protocol = None
            self.error = None
            self.close_fd()

    cdef int close_fd(self) except -1:
        """Closes the number, now: what was in flight has been cancelled, and is not waited for."""
        cdef int fd = self.fd
        if fd < 0:
            return 0
        self.fd = -1
        self.let_go(self.op)
        if self.loop.be is not NULL and self.loop.is_ours() and self.loop.fd_owner(fd) is self:
            self.loop.ops.forget(self.loop.be, fd)
        self.loop.disown_fd(fd, self)
        pipe = self.pipe
        self.pipe = None
        if self.flags & SHARED:
            np_sock_close(fd)
            if pipe is not None and self.loop.fd_owner(number_of(pipe)) is None:
                pipe.close()
        elif pipe is not None:  # else the program has closed it (_pipe = None)
            pipe.close()
        return 0

    def abort(self):
        """Closes at once; what is unsent is dropped."""
        self.force_close(None)

    # ---- what is known about it ---------------------------------------------------------------

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_extra_info(self, name, default=None):
        """'pipe': the object that the transport was made of."""
        return self.extra.get(name, default)

    @property
    def _lent(self):
        return False

    @property
    def _pipe(self):
        return self.pipe

    @_pipe.setter
    def _pipe(self, value):
        """Programs that have closed the pipe themselves set None, as on asyncio."""
        if value is not None:
            raise AttributeError("the pipe of a transport cannot be replaced, only given up: None")
        self.pipe = None

    @property
    def _fileno(self):
        return self.fd

    @property
    def _extra(self):
        return self.extra


cdef class ReadPipeTransport(PipeTransport):
    """Reads from a pipe, with the interface of asyncio.ReadTransport."""
    cdef Sink reader      # the StreamReader behind the protocol, served natively; else None
    cdef uint16_t small_reads_count

    # isinstance(transport, asyncio.ReadTransport) holds.
    @property
    def __class__(self):
        return ReadTransport

    cdef list state(self):
        return ["polling" if self.op and not self.flags & (PAUSED | CLOSING) else "idle"]

    def set_protocol(self, protocol):
        self.protocol = protocol
        self.reader = adopt_reader(protocol, self) if self.flags & STARTED else None

    cdef int begin(self) except -1:
        if self.reader is None:
            self.reader = adopt_reader(self.protocol, self)
        return self.read_again()

    cdef int read_again(self) except -1:
        if self.op or self.flags & (PAUSED | CLOSING):
            return 0
        try:
            self.op = self.loop.arm(NP_OP_POLL, self.fd, self, POLLIN | NP_POLL_KEEP)
        except PermissionError:  # EPERM, epoll: a device that is always ready (/dev/null)
            self.loop.soon(self._read_unpolled, None)
        except OSError as exc:
            self.fail(exc)
        return 0

    def _read_unpolled(self):
        if not self.op and not self.flags & (PAUSED | CLOSING):
            self.read_once()

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        self.op = 0
        if self.flags & (PAUSED | CLOSING):
            return 0  # resume_reading() polls again
        if event.res < 0 and event.res != -ECANCELED:
            return self.fail(os_error(event.res))
        if event.res == -ECANCELED:
            return self.read_again()
        return self.read_once()

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        self.op = 0
        return 0

    cdef int read_once(self) except -1:
        cdef char scratch[PIPE_SCRATCH_BYTES]
        cdef ptrdiff_t got
        cdef Sink reader = self.reader  # kept alive: it may be replaced while it is fed
        try:
            if self.flags & BULK:
                got = self.read_bulk()
            else:
                got = np_pipe_read(self.fd, scratch, PIPE_SCRATCH_BYTES)
                if got == PIPE_SCRATCH_BYTES:
                    self.enter_bulk()
                if got > 0 and reader is not None:
                    reader.feed(scratch, got)
                elif got > 0:
                    self.deliver(PyBytes_FromStringAndSize(scratch, got))
        finally:  # an interrupt out of the protocol ends the turn, not the reading
            if not self.flags & CLOSING:
                self.read_again()
        if got == 0 and not self.flags & CLOSING:
            return self.end_of_stream()
        if got < 0 and got != -EAGAIN and not self.flags & CLOSING:
            return self.fail(os_error(<int>got))
        return 0

    cdef ptrdiff_t read_bulk(self) except? -1:
        cdef PyObject *data = self.loop.take_bulk(PIPE_BULK_BYTES)
        cdef char *base = PyBytes_AS_STRING(<object>data)
        cdef ptrdiff_t got
        cdef int fd = self.fd
        with nogil:
            got = np_pipe_read(fd, base, PIPE_BULK_BYTES)
        if got <= 0:
            Py_DECREF(data)
            return got
        if 2 * got >= PIPE_BULK_BYTES:
            np_bytes_renew(data, got)
            received = <object>data
        else:  # who keeps a small message must not keep much memory with it
            received = PyBytes_FromStringAndSize(base, got)
        Py_DECREF(data)
        if got > PIPE_SCRATCH_BYTES:
            self.small_reads_count = 0
        else:
            self.small_reads_count += 1
            if self.small_reads_count == BULK_LEAVE_COUNT:
                self.leave_bulk()
        self.deliver(received)
        return got

    cdef int enter_bulk(self) except -1:
        self.flags |= BULK
        self.small_reads_count = 0
        self.loop.bulk_users_count += 1
        return 0

    cdef int leave_bulk(self) except -1:
        if self.flags & BULK:
            self.flags &= ~BULK
            self.loop.bulk_users_count -= 1
            if not self.loop.bulk_users_count:
                self.loop.drop_bulk()
        return 0

    cdef int deliver(self, bytes data) except -1:
        cdef Sink reader = self.reader
        if reader is not None:
            return reader.feed_bytes(data)
        return self.call_protocol("data_received", (data,))

    cdef int end_of_stream(self) except -1:
        if self.loop._debug:
            log.logger.info("%r was closed by peer", self)
        self.flags |= CLOSING
        self.loop.soon(self._call_eof_received, None)
        return self.lose(None)

    def _call_eof_received(self):
        self.call_protocol("eof_received")

    def pause_reading(self):
        """No data_received until resume_reading()."""
        if not self.flags & PAUSED:
            self.flags |= PAUSED
            if self.op:
                self.loop.mark_dirty(self)

    cdef int on_turn_end(self, Loop loop) except -1:
        if self.flags & PAUSED:
            loop.cancel(self.op)  # as in asyncio, a paused one is not kept alive by its loop
        return 0

    def resume_reading(self):
        if self.flags & CLOSING or not self.flags & PAUSED:
            return
        self.flags &= ~PAUSED
        if self.flags & STARTED:
            self.read_again()

    def is_reading(self):
        return not self.flags & (CLOSING | PAUSED)

    def close(self):
        """Stops reading; then connection_lost(None)."""
        self.lose(None)

    cdef int force_close(self, object exc) except -1:
        return self.lose(exc)

    cdef int fail(self, object exc) except -1:
        """A read error. EIO is how a terminal tells that its other side was closed."""
        if exc.errno != errno.EIO:
            self.report("Fatal read error on pipe transport", exc)
        elif self.loop._debug:
            log.logger.debug("%r: Fatal read error on pipe transport", self, exc_info=exc)
        return self.lose(exc)

    cdef int close_fd(self) except -1:
        self.leave_bulk()
        self.reader = None
        return PipeTransport.close_fd(self)


cdef class WritePipeTransport(PipeTransport):
    """Writes to a pipe, with the interface of asyncio.WriteTransport."""
    cdef np_iov out
    cdef np_udata write_op
    cdef int lost_writes_count

    # isinstance(transport, asyncio.WriteTransport) holds.
    @property
    def __class__(self):
        return WriteTransport

    def pause_reading(self):
        """There is nothing to read: NotImplementedError, as asyncio's pipes have it."""
        raise NotImplementedError

    def resume_reading(self):
        """There is nothing to read: NotImplementedError, as asyncio's pipes have it."""
        raise NotImplementedError

    def __cinit__(self):
        np_iov_init(&self.out)

    def __dealloc__(self):
        chain_clear(&self.out)
        np_iov_close(&self.out)

    cdef list state(self):
        return ["polling" if self.write_op else "idle", f"bufsize={self.out.total_bytes}"]

    cdef int begin(self) except -1:
        # A terminal is not watched: its reader may come back.
        if self.flags & WATCHED:
            try:
                self.op = self.loop.arm(NP_OP_POLL, self.fd, self, POLLRDHUP | NP_POLL_KEEP)
            except OSError as exc:
                self.fail(exc)
        return 0

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        if event.op == self.write_op:
            self.write_op = 0
            return 0 if self.flags & LOST else self.write_pending()
        self.op = 0
        if self.flags & LOST or event.res == -ECANCELED:
            return 0
        if self.loop._debug:
            log.logger.info("%r was closed by peer", self)
        return self.force_close(BrokenPipeError() if self.out.count else None)

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        if event.op == self.write_op:
            self.write_op = 0
        else:
            self.op = 0
        return 0

    # ---- writing ------------------------------------------------------------------------------

    def write(self, data):
        """Sends bytes in order. What the pipe does not take at once is kept: a bytes object as it
        is, anything that can still change as a copy."""
        cdef bytes exact
        if type(data) is bytes:
            exact = <bytes>data
        elif isinstance(data, (bytes, bytearray, memoryview)):
            exact = bytes(data)
        else:
            raise TypeError("data argument must be a bytes-like object, "
                            f"not {type(data).__name__!r}")
        if PyBytes_GET_SIZE(exact) == 0 or self.is_lost():
            return
        chain_push(&self.out, exact)
        self.write_all()

    def writelines(self, list_of_data):
        """Sends several pieces, in order, as few system calls as the kernel allows."""
        cdef list pieces = [p if type(p) is bytes else bytes(memoryview(p)) for p in list_of_data]
        if not any(pieces) or self.is_lost():
            return
        for piece in pieces:
            if piece:
                chain_push(&self.out, piece)
        self.write_all()

    cdef bint is_lost(self) except -1:
        if not self.flags & CLOSING:
            return False
        if self.lost_writes_count >= LOG_THRESHOLD_COUNT:
            log.logger.warning("pipe closed by peer or os.write(pipe, data) raised exception.")
        else:
            self.lost_writes_count += 1
        return True

    cdef int write_all(self) except -1:
        """After new bytes: the first try, and the protocol's pause above the mark."""
        if not self.write_op:
            self.write_pending()
        if self.out.total_bytes > self.high_bytes and not self.flags & (PROTOCOL_PAUSED | LOST):
            self.flags |= PROTOCOL_PAUSED
            self.call_protocol("pause_writing")
        return 0

    cdef int write_pending(self) except -1:
        """One system call; what is left waits for POLLOUT."""
        cdef iovec iov[GATHER_COUNT]
        cdef ptrdiff_t sent
        cdef int fd = self.fd
        cdef int n = np_iov_gather(&self.out, iov, GATHER_COUNT)
        if self.out.total_bytes >= NOGIL_BYTES:
            with nogil:
                sent = np_pipe_write(fd, iov, n)
        else:
            sent = np_pipe_write(fd, iov, n)
        if sent >= 0:
            self.took(sent)
        elif sent != -EAGAIN:
            return self.fail(os_error(<int>sent))
        if not self.out.count:
            return self.lose(None) if self.flags & CLOSING else 0
        if not self.write_op and not self.flags & LOST:
            try:
                self.write_op = self.loop.arm(NP_OP_POLL, self.fd, self, POLLOUT | NP_POLL_KEEP)
            except OSError as exc:
                self.fail(exc)
        return 0

    cdef int took(self, size_t sent_bytes) except -1:
        chain_advance(&self.out, sent_bytes)
        if self.flags & PROTOCOL_PAUSED and self.out.total_bytes <= self.low_bytes:
            self.flags &= ~PROTOCOL_PAUSED
            self.call_protocol("resume_writing")
        return 0

    @property
    def _conn_lost(self):
        return bool(self.flags & LOST) + self.lost_writes_count

    cdef size_t unsent_bytes(self) noexcept:
        return self.out.total_bytes

    cdef int press(self) except -1:
        return self.write_all()

    # ---- closing ------------------------------------------------------------------------------

    def can_write_eof(self):
        return True

    def write_eof(self):
        """A pipe ends by being closed: the same as close()."""
        self.close()

    def close(self):
        """Sends what was written; then connection_lost(None)."""
        if self.flags & CLOSING:
            return
        self.flags |= CLOSING
        if not self.out.count:
            self.lose(None)

    cdef int force_close(self, object exc) except -1:
        chain_clear(&self.out)
        self.loop.cancel(self.write_op)
        return self.lose(exc)

    cdef int fail(self, object exc) except -1:
        """A write error; that of a reader that has gone is nobody's surprise."""
        if self.loop._debug:
            log.logger.debug("%r: Fatal write error on pipe transport", self, exc_info=exc)
        return self.force_close(exc)

    cdef int close_fd(self) except -1:
        if self.fd >= 0:
            self.let_go(self.write_op)
        return PipeTransport.close_fd(self)


cdef class ChildPipe:
    """The protocol of one pipe to or from a child: tells the SubprocessTransport's protocol."""
    cdef object process         # the SubprocessTransport
    cdef int child_fd           # 0, 1 or 2
    cdef readonly object transport
    cdef readonly bint disconnected

    def __cinit__(self, process, int child_fd):
        self.process = process
        self.child_fd = child_fd

    def __repr__(self):
        return f"<{type(self).__name__} fd={self.child_fd} transport={self.transport!r}>"

    @property
    def pipe(self):
        return self.transport

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if self.process._started:
            self.process._protocol.pipe_data_received(self.child_fd, data)
        else:
            self.process._call(self.process._protocol.pipe_data_received, self.child_fd, data)

    def serve_reader(self, reader):
        """From here on what arrives goes straight to this StreamReader, if it is asyncio's."""
        if type(self.transport) is ReadPipeTransport:
            (<ReadPipeTransport>self.transport).reader = adopt_stream_reader(
                reader, self.transport)

    def eof_received(self):
        pass  # connection_lost follows by itself

    def pause_writing(self):
        self.process._protocol.pause_writing()

    def resume_writing(self):
        self.process._protocol.resume_writing()

    def connection_lost(self, exc):
        self.disconnected = True
        process = self.process
        self.process = None
        process._pipe_lost(self.child_fd, exc)


def make_read_transport(Loop loop, pipe, protocol, waiter=None, extra=None):
    """A transport that reads from pipe, which it owns from now on. Verb of connect_read_pipe.

    Raises ValueError for what cannot be polled (regular files), OSError for a bad descriptor.
    """
    cdef ReadPipeTransport transport = ReadPipeTransport.__new__(ReadPipeTransport)
    transport.open(loop, pipe, protocol, waiter, extra)
    return transport


def make_write_transport(Loop loop, pipe, protocol, waiter=None, extra=None):
    """A transport that writes to pipe, which it owns from now on. Verb of connect_write_pipe."""
    cdef WritePipeTransport transport = WritePipeTransport.__new__(WritePipeTransport)
    transport.open(loop, pipe, protocol, waiter, extra)
    return transport


seal_types(globals(), (ChildPipe,))
