# cython: language_level=3, freethreading_compatible=True
"""The transports of connect_read_pipe and connect_write_pipe: pipes, FIFOs, sockets, terminals.

Both poll and then make one system call for each readiness. A write is tried at once, as asyncio's
is: what the pipe does not take is kept and leaves when the pipe has room. A write transport also
watches for the reader's going away.

The descriptor is made nonblocking, and stays so: with a terminal or an inherited pipe this is seen
by everybody who shares it, as with asyncio.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    ECANCELED, NP_CLOSING, NP_LOST, PyContext_CopyCurrent, iovec, np_event, np_life, np_pipe_read,
    np_pipe_write, np_sock_close)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport PIPE_BULK_BYTES, PIPE_SCRATCH_BYTES
from netpoll._native.poll cimport POLLIN, POLLRDHUP
from netpoll._native.seal cimport seal_types
from netpoll._native.transport.bulk_reader cimport (
    bulk_ends, bulk_enter, bulk_leave, bulk_receive)
from netpoll._native.transport.endpoint cimport (
    CANCELLED, GIVEN_UP, NOT_READING, OWN_FLAGS, PAUSED, STARTED, Endpoint)
from netpoll._native.transport.out_queue cimport out_push_bytes
from netpoll._native.transport.sending cimport (
    count_lost_write, exact_bytes, exact_pieces, on_sent, write_now)
from netpoll._native.transport.stream_reader cimport Sink, adopt_reader, adopt_stream_reader

import asyncio
import errno
import os
import stat
from asyncio import log


cdef enum:  # PipeTransport.flags beside those of Endpoint
    SHARED = OWN_FLAGS          # fd is our duplicate: another transport has the number
    WATCHED = OWN_FLAGS << 1    # a write transport that is told of the reader's end

cdef object ReadTransport = asyncio.ReadTransport
cdef object WriteTransport = asyncio.WriteTransport


cdef int number_of(object pipe) except? -1:
    """The descriptor's number, or -1 when the user has closed the pipe."""
    try:
        return pipe.fileno()
    except ValueError:
        return -1


cdef class PipeTransport(Endpoint):
    """What both directions have in common: birth, and the pipe object, which is the closer."""
    cdef dict extra
    cdef object __weakref__

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
        self.file = pipe
        self.fd = fd
        self.extra = {**(extra or {}), "pipe": pipe}
        self.context = PyContext_CopyCurrent()
        self.set_protocol(protocol)
        loop.own_fd(fd, self)
        loop.soon(self._begin, (waiter,))
        return 0

    def _begin(self, waiter):
        self.flags |= STARTED
        try:
            self.call_protocol("connection_made", (self,))
        finally:  # an interrupt out of the protocol ends the turn, not the connection
            self.read_again()
            if waiter is not None and not waiter.cancelled():
                waiter.set_result(None)

    # ---- the end ------------------------------------------------------------------------------

    cdef int close_number(self, int fd) except -1:
        pipe = self.file
        self.file = None
        if self.flags & SHARED:
            np_sock_close(fd)
            if pipe is not None and self.loop.fd_owner(number_of(pipe)) is None:
                pipe.close()
        elif pipe is not None:  # else the program has closed it
            pipe.close()
        return 0

    cdef str medium(self):
        return "pipe"

    # ---- what is known about it ---------------------------------------------------------------

    def get_extra_info(self, name, default=None):
        """'pipe': the object that the transport was made of."""
        return self.extra.get(name, default)

    @property
    def _pipe(self):
        return self.file

    @_pipe.setter
    def _pipe(self, value):
        """Programs that have closed the pipe themselves set None, as on asyncio."""
        if value is not None:
            raise AttributeError("the pipe of a transport cannot be replaced, only given up: None")
        self.flags |= GIVEN_UP
        self.file = None

    @property
    def _fileno(self):
        return self.fd

    @property
    def _extra(self):
        return self.extra


cdef class ReadPipeTransport(PipeTransport):
    """Reads from a pipe, with the interface of asyncio.ReadTransport."""
    cdef Sink reader      # the StreamReader behind the protocol, served natively; else None

    # isinstance(transport, asyncio.ReadTransport) holds.
    @property
    def __class__(self):
        return ReadTransport

    cdef list activity(self):
        if self.loop._closed:
            return ["open"]
        return ["polling" if self.read_op and not self.flags & (PAUSED | CANCELLED) else "idle"]

    def set_protocol(self, protocol):
        self.protocol = protocol
        self.reader = adopt_reader(protocol, self) if self.flags & STARTED else None

    def _begin(self, waiter):
        self.reader = adopt_reader(self.protocol, self)
        PipeTransport._begin(self, waiter)

    cdef int arm_read(self) except -1:
        try:
            self.read_op = self.poll(POLLIN)
        except PermissionError:  # EPERM, epoll: a device that is always ready (/dev/null)
            self.loop.soon(self._read_unpolled, None)
        except OSError as exc:
            self.failed(exc, "read")
        return 0

    def _read_unpolled(self):
        if not self.read_op and not self.flags & NOT_READING:
            self.read_once()

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        self.read_op = 0
        if self.flags & NOT_READING:
            return self.op_ended()  # resume_reading() polls again
        if event.res == -ECANCELED or self.is_holding():
            return self.read_again()
        if event.res < 0:
            return self.failed(os_error(event.res), "read")
        return self.read_once()

    cdef int read_once(self) except -1:
        cdef char scratch[PIPE_SCRATCH_BYTES]
        cdef ptrdiff_t got
        cdef Sink reader = self.reader  # kept alive: it may be replaced while it is fed
        try:
            if self.bulk.left:
                got = self.read_bulk()
            else:
                got = np_pipe_read(self.fd, scratch, PIPE_SCRATCH_BYTES)
                if got == PIPE_SCRATCH_BYTES:
                    bulk_enter(self.loop, &self.bulk)
                if got > 0 and reader is not None:
                    reader.feed(scratch, got)
                elif got > 0:
                    self.deliver(PyBytes_FromStringAndSize(scratch, got))
        finally:  # an interrupt out of the protocol ends the turn, not the reading
            self.read_again()
        if got == 0 and not self.flags & NP_CLOSING:
            return self.end_of_stream()
        if got < 0 and got != -EAGAIN and not self.flags & NP_CLOSING:
            return self.failed(os_error(got), "read")
        return 0

    cdef ptrdiff_t read_bulk(self) except? -1:
        cdef ptrdiff_t got
        received = bulk_receive(self.loop, self.fd, np_pipe_read, PIPE_BULK_BYTES, &got)
        if received is not None:
            if bulk_ends(&self.bulk.left, got > PIPE_SCRATCH_BYTES):
                bulk_leave(self.loop, &self.bulk)
            self.deliver(received)
        return got

    cdef int deliver(self, bytes data) except -1:
        cdef Sink reader = self.reader
        if reader is not None:
            return reader.feed_bytes(data)
        return self.call_protocol("data_received", (data,))

    cdef int end_of_stream(self) except -1:
        if self.loop._debug:
            log.logger.info("%r was closed by peer", self)
        self.flags |= np_life(NP_CLOSING)
        self.loop.soon(self._call_eof_received, None)
        return self.lose(None)

    def _call_eof_received(self):
        self.call_protocol("eof_received")

    cdef int fail(self, object exc, str message) except -1:
        """EIO is how a terminal tells that its other side was closed: nobody's surprise."""
        if isinstance(exc, OSError) and exc.errno != errno.EIO:
            self.report(message, exc)
            return self.force_close(exc)
        return Endpoint.fail(self, exc, message)

    cdef int forget(self) except -1:
        self.reader = None
        return Endpoint.forget(self)


cdef class WritePipeTransport(PipeTransport):
    """Writes to a pipe, with the interface of asyncio.WriteTransport."""
    # isinstance(transport, asyncio.WriteTransport) holds.
    @property
    def __class__(self):
        return WriteTransport

    def pause_reading(self):
        """There is nothing to read: NotImplementedError, as asyncio's pipes have it."""
        raise NotImplementedError("a pipe that is written to has nothing to read")

    def resume_reading(self):
        """There is nothing to read: NotImplementedError, as asyncio's pipes have it."""
        raise NotImplementedError("a pipe that is written to has nothing to read")

    cdef list activity(self):
        if self.loop._closed:
            return ["open"]
        return ["polling" if self.write_op else "idle", f"bufsize={self.out.iov.total_bytes}"]

    # What is read for is the end of the reader, while there is something to write.

    cdef int arm_read(self) except -1:
        if self.flags & WATCHED:  # not a terminal: its reader may come back
            try:
                self.read_op = self.poll(POLLRDHUP)
            except OSError as exc:
                self.failed(exc, "write")
        return 0

    cdef int stop_reading(self) except -1:
        return Endpoint.stop_reading(self) if self.flags & NP_LOST else 0

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        if event.op == self.write_op:
            return on_sent(self, event)
        self.read_op = 0
        if self.flags & NP_LOST or event.res == -ECANCELED:
            return self.op_ended()
        if self.loop._debug:
            log.logger.info("%r was closed by peer", self)
        return self.force_close(BrokenPipeError() if self.out.iov.count else None)

    # ---- writing ------------------------------------------------------------------------------

    def write(self, data):
        """Sends bytes in order. What the pipe does not take at once is kept: a bytes object as it
        is, anything that can still change as a copy."""
        cdef bytes exact = exact_bytes(data)
        if PyBytes_GET_SIZE(exact) and not self.is_over():
            out_push_bytes(&self.out.iov, exact)
            self.press()

    def writelines(self, list_of_data):
        """Sends several pieces, in order, as few system calls as the kernel allows."""
        cdef list pieces = exact_pieces(list_of_data)
        if not any(pieces) or self.is_over():
            return
        for piece in pieces:
            if piece:
                out_push_bytes(&self.out.iov, piece)
        self.press()

    cdef bint is_over(self) except -1:
        if self.flags & NP_CLOSING:
            count_lost_write(&self.out.lost_writes_count, "pipe closed by peer or "
                             "os.write(pipe, data) raised exception.")
            return True
        return False

    cdef int press(self) except -1:
        """The first try, and the protocol's pause above the mark."""
        write_now(self)
        return self.hold_high()

    cdef int flush(self) except -1:
        """What an interrupt out of the protocol has left, when the turn is over."""
        return write_now(self)

    cdef ptrdiff_t send_call(self, const iovec *iov, int n) noexcept nogil:
        return np_pipe_write(self.fd, iov, n)

    # ---- closing ------------------------------------------------------------------------------

    def can_write_eof(self):
        return True

    def write_eof(self):
        """A pipe ends by being closed: the same as close()."""
        self.close()


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
