# cython: language_level=3, freethreading_compatible=True
"""The stream transport (TCP and Unix) and the acceptor that makes it.

Receiving has two strategies, chosen per connection by what arrives:
  ring  a multishot RECV out of the loop's shared buffers. One small copy into the bytes object
        that the protocol gets; an idle connection holds no memory.
  bulk  POLL, then recv(2) straight into the object that the protocol gets (a bytes object, or the
        BufferedProtocol's own buffer). Taken when a receive was large, left after a run of small
        ones.
Sending: small writes collect until the end of the turn and leave as one operation; from
WRITE_NOW_BYTES on they are sent at once, and what the socket does not take waits for POLLOUT.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_CONTIG, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN
from libc.stdint cimport int32_t, uint32_t, uint8_t
from libc.string cimport memcpy, strerror

from netpoll._c cimport (
    ECANCELED, NP_EV_MORE, NP_EV_NONEMPTY, NP_OP_POLL, NP_OP_RECV, NP_OP_SEND, NP_POLL_KEEP,
    PyContext_CopyCurrent, PyContext_Enter, PyContext_Exit, PyObject, Py_DECREF, Py_INCREF, iovec,
    np_bytes_renew, np_iov_advance, np_iov_close, np_iov_gather, np_iov_grow, np_iov_init,
    np_iov_pop, np_iov_push, np_sock_close, np_sock_nodelay, np_sock_peer, np_sock_recv,
    np_sock_send, np_sock_shutdown)
from netpoll._core cimport Completion, Loop
from netpoll._streams cimport Sink, adopt_reader

import asyncio
import socket as py_socket
import warnings
from asyncio import constants, log, trsock

cdef enum:
    POLLIN = 1
    POLLOUT = 4
    SHUT_WR = 1
    # A receive of this size or more sends the connection to direct reads (bulk). Below it, the copy
    # out of the shared buffer costs less than the extra poll and call; see benchmarks/README.md.
    BULK_ENTER_BYTES = 16 * 1024
    # This many direct reads in a row, each below BULK_LEAVE_BYTES, bring it back to the ring.
    BULK_LEAVE_COUNT = 8
    BULK_LEAVE_BYTES = 4 * 1024
    # Direct reads start small enough to stay below glibc's mmap threshold (128 KiB) and in cache.
    BULK_READ_MIN_BYTES = 64 * 1024
    BULK_READ_MAX_BYTES = 256 * 1024
    # Direct reads of one connection per turn, so that a flood does not starve the others. What is
    # written meanwhile leaves afterwards in one call: at 1 MiB messages that is a fifth of the CPU.
    READ_BUDGET_BYTES = 1024 * 1024
    # Pending bytes from which a write leaves at once instead of at the end of the turn.
    WRITE_NOW_BYTES = 32 * 1024
    # From this size on a direct call gives the GIL away.
    NOGIL_BYTES = 32 * 1024
    GATHER_COUNT = 64
    HIGH_WATER_DEFAULT_BYTES = 64 * 1024

cdef enum:  # StreamTransport.flags
    CLOSING = 1 << 0        # close() or abort(): no more reading
    LOST = 1 << 1           # connection_lost is in the loop's queue, or was called
    PAUSED = 1 << 2         # pause_reading()
    CANCELLED = 1 << 3      # read_op was asked to end
    EOF_SEEN = 1 << 4       # the peer has shut its side
    EOF_ASKED = 1 << 5      # write_eof()
    BUFFERED = 1 << 6       # a BufferedProtocol
    BULK = 1 << 7           # direct reads
    DIRTY = 1 << 8          # in the loop's list for the end of the turn
    PROTOCOL_PAUSED = 1 << 9
    STARTED = 1 << 10       # connection_made was called
    ABORTED = 1 << 11       # what is unsent is dropped
    SENDING = 1 << 12       # write_op is a SEND; else a POLL for POLLOUT
    GONE = 1 << 13          # connection_lost was called; the fd closes with the last operation
    READING = 1 << 16       # in a run of direct reads: writes wait for its end
    ENTERED = 1 << 17       # the protocol is being called, in our context
    LENT = 1 << 15          # the socket is being written to by sendfile
    RESUMING = 1 << 14      # the stash will be delivered by a callback in the loop's queue

cdef enum:  # stash_end
    STASH_OPEN = 1          # errnos are negative, the end of the stream is 0

cdef int _AF_INET = int(py_socket.AF_INET)
cdef int _AF_INET6 = int(py_socket.AF_INET6)
cdef int _AF_UNIX = int(py_socket.AF_UNIX)
cdef object BufferedProtocol = asyncio.BufferedProtocol
cdef object FlowControlMixin = asyncio.transports._FlowControlMixin
cdef object SendfileMode = constants._SendfileMode.TRY_NATIVE


# Since Python 3.12.3 and 3.13 a server knows its transports; before it only counted them.
cdef bint SERVER_KNOWS = asyncio.base_events.Server._attach.__code__.co_argcount == 2


cdef int attach(object server, StreamTransport transport) except -1:
    if SERVER_KNOWS:
        server._attach(transport)
    else:
        server._attach()
    transport.server = server
    return 0


cdef int detach(StreamTransport transport) except -1:
    server = transport.server
    transport.server = None
    if server is None:
        return 0
    if SERVER_KNOWS:
        server._detach(transport)
    else:
        server._detach()
    return 0


cdef object os_error(int err):
    return OSError(-err, strerror(-err).decode())


cdef class StreamTransport(Completion):
    """A connected stream socket, with the interface of asyncio.Transport."""

    # isinstance(transport, asyncio.Transport) holds, and asyncio's sendfile asks for this one.
    @property
    def __class__(self):
        return FlowControlMixin

    _start_tls_compatible = True
    _sendfile_compatible = SendfileMode

    def __cinit__(self):
        self.fd = -1
        self.stash_end = STASH_OPEN
        self.high_bytes = HIGH_WATER_DEFAULT_BYTES
        self.low_bytes = HIGH_WATER_DEFAULT_BYTES // 4
        self.bulk_bytes = BULK_READ_MIN_BYTES
        np_iov_init(&self.out)

    def __dealloc__(self):
        cdef void *owner
        while self.out.count:
            owner = np_iov_pop(&self.out)
            Py_DECREF(<PyObject*>owner)
        np_iov_close(&self.out)

    def __del__(self):
        if self.fd < 0:
            return
        text = repr(self)
        self.loop.disown_fd(self.fd, self)
        if self.sock is not None:
            self.sock.close()
        else:
            np_sock_close(self.fd)
        self.fd = -1
        detach(self)
        warnings.warn(f"unclosed transport {text}", ResourceWarning, source=self)

    def __repr__(self):
        info = [type(self).__name__]
        if self.fd < 0:
            info.append("closed")
        elif self.flags & CLOSING:
            info.append("closing")
        info.append(f"fd={self.fd}")
        if self.fd >= 0:
            reading = self.read_op and not self.flags & (PAUSED | CANCELLED)
            info.append("read=polling" if reading else "read=idle")
            info.append(f"write=<{'polling' if self.write_op else 'idle'}, "
                        f"bufsize={self.out.total_bytes}>")
        return f"<{' '.join(info)}>"

    # The protocol is called in the transport's own context; it may call us back from there.

    cdef bint enter(self) except -1:
        if self.flags & ENTERED:
            return False
        PyContext_Enter(<PyObject*>self.context)
        self.flags |= ENTERED
        return True

    cdef int leave(self, bint entered) except -1:
        if entered:
            self.flags &= ~ENTERED
            PyContext_Exit(<PyObject*>self.context)
        return 0

    # ---- birth --------------------------------------------------------------------------------

    cdef int begin(self) except -1:
        """connection_made, then reading. In the loop's thread, outside any callback."""
        self.flags |= STARTED
        self.reader = adopt_reader(self.protocol, self)
        try:
            entered = self.enter()
            try:
                self.protocol.connection_made(self)
            finally:
                self.leave(entered)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fail(exc, "Fatal error: protocol.connection_made() call failed.")
            return 0
        if not self.read_op and not self.flags & (CLOSING | PAUSED):
            self.arm_read()
        return 0

    def _begin(self, waiter):
        self.begin()
        if waiter is not None and not waiter.cancelled():
            waiter.set_result(None)

    # ---- receiving ----------------------------------------------------------------------------

    cdef int arm_read(self) except -1:
        self.flags &= ~CANCELLED
        try:
            if self.flags & BULK:
                self.read_op = self.loop.arm(NP_OP_POLL, self.fd, self, POLLIN | NP_POLL_KEEP)
            else:
                self.read_op = self.loop.arm(NP_OP_RECV, self.fd, self, 0)
        except OSError as exc:
            self.fail(exc, "Fatal read error on socket transport")
        return 0

    cdef int stop_reading(self) except -1:
        if self.read_op and not self.flags & CANCELLED:
            self.flags |= CANCELLED
            self.loop.cancel(self.read_op)
        return 0

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        if event.kind == NP_OP_RECV:
            return self.on_recv(event)
        if event.kind == NP_OP_SEND:
            self.write_op = 0
            self.flags &= ~SENDING
            if self.flags & ABORTED:
                self.drop_out()
                return self.op_ended()
            return self.took(event.res)
        if event.op == self.write_op:
            self.write_op = 0
            if self.flags & ABORTED:
                return self.op_ended()
            return self.write_now()
        return self.on_readable(event)

    cdef int on_recv(self, np_event *event) except -1:
        cdef Py_ssize_t size
        if event.res > 0:
            if not self.flags & CLOSING:
                size = event.res
                if self.part is not None:
                    size += PyBytes_GET_SIZE(self.part)
                if event.flags & NP_EV_NONEMPTY and event.flags & NP_EV_MORE \
                        and size < BULK_ENTER_BYTES \
                        and not self.flags & (BULK | PAUSED | RESUMING):
                    return self.join_part(event)
                if self.part is not None:
                    self.join_part(event)
                    self.take_part()
                else:
                    self.take(<const char*>event.data, event.res)
                if size >= BULK_ENTER_BYTES and not self.flags & (BULK | CLOSING):
                    self.enter_bulk()
                    self.stop_reading()  # its last event arms the POLL
            if event.flags & NP_EV_MORE:
                return 0
        self.read_op = 0
        if self.part is not None:
            self.take_part()
        if self.flags & CLOSING:
            return self.op_ended()
        if event.res <= 0 and event.res != -ECANCELED:
            return self.end_of_stream(event.res)
        if not self.flags & (PAUSED | RESUMING):
            self.arm_read()
        return 0

    # A shared buffer ended in the middle of what the socket held: the rest is the next event. The
    # peer's small messages stay whole, as they do with a buffer of one's own.

    cdef int join_part(self, np_event *event) except -1:
        data = PyBytes_FromStringAndSize(<char*>event.data, event.res)
        self.part = data if self.part is None else self.part + data
        return 0

    cdef int take_part(self) except -1:
        cdef bytes part = self.part
        self.part = None
        if self.flags & CLOSING:
            return 0
        return self.take(PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))

    cdef int on_readable(self, np_event *event) except -1:
        self.read_op = 0
        if self.flags & CLOSING:
            return self.op_ended()
        if self.flags & (PAUSED | RESUMING):
            return 0  # armed again behind the stash
        if event.res < 0 and event.res != -ECANCELED:
            return self.end_of_stream(event.res)
        if event.res > 0:
            self.flags |= READING
            try:
                if self.flags & BUFFERED:
                    self.read_into_protocol()
                else:
                    self.read_direct()
            finally:  # an interrupt out of the protocol ends the turn, not the reading
                self.flags &= ~READING
                self.read_again()
            if self.out.count:
                self.check_watermarks()
            return 0
        return self.read_again()

    cdef int read_again(self) except -1:
        if self.read_op == 0 and not self.flags & (CLOSING | PAUSED | RESUMING | EOF_SEEN):
            self.arm_read()
        return 0

    cdef int take(self, const char *data, Py_ssize_t size) except -1:
        """Received bytes: to the protocol, or aside while it has paused us."""
        cdef Py_ssize_t taken
        if self.flags & (PAUSED | RESUMING):
            if self.stash is None:
                self.stash = []
            self.stash.append(PyBytes_FromStringAndSize(data, size))
            # Only now: a pause that ends before anything arrives costs nothing.
            return self.stop_reading()
        if self.reader is not None:
            return self.reader.feed(data, size)
        if self.flags & BUFFERED:
            taken = self.deliver_buffered(data, size)
            if taken < size and not self.flags & CLOSING:
                self.take(data + taken, size - taken)  # it has paused us, or is another now
            return 0
        return self.deliver(PyBytes_FromStringAndSize(data, size))

    cdef int deliver(self, bytes data) except -1:
        if self.reader is not None:
            return self.reader.feed_bytes(data)
        try:
            entered = self.enter()
            try:
                self.protocol.data_received(data)
            finally:
                self.leave(entered)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fail(exc, "Fatal error: protocol.data_received() call failed.")
        return 0

    cdef Py_ssize_t deliver_buffered(self, const char *data, Py_ssize_t size) except -1:
        """Into the BufferedProtocol's buffers, for as long as it is one, reads and is not paused.

        Returns how many bytes it took.
        """
        cdef Py_buffer view
        cdef Py_ssize_t part, taken = 0
        cdef str message
        while taken < size and self.flags & BUFFERED and not self.flags & (PAUSED | CLOSING):
            message = "Fatal error: protocol.get_buffer() call failed."
            try:
                entered = self.enter()
                try:
                    buffer = self.protocol.get_buffer(size - taken)
                    PyObject_GetBuffer(buffer, &view, PyBUF_CONTIG)
                    part = min(view.len, size - taken)
                    memcpy(view.buf, data + taken, part)
                    PyBuffer_Release(&view)
                    if part == 0:
                        raise RuntimeError("get_buffer() returned an empty buffer")
                    taken += part
                    message = "Fatal error: protocol.buffer_updated() call failed."
                    self.protocol.buffer_updated(part)
                finally:
                    self.leave(entered)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self.fail(exc, message)
        return taken

    cdef int read_direct(self) except -1:
        """recv(2) into fresh bytes objects, within the turn's budget."""
        cdef Py_ssize_t budget = READ_BUDGET_BYTES
        cdef Py_ssize_t want
        cdef ptrdiff_t got
        cdef PyObject *data
        cdef char *base
        cdef int fd = self.fd
        while budget > 0 and not self.flags & (PAUSED | CLOSING | BUFFERED):
            want = self.bulk_bytes
            data = self.loop.take_bulk(want)
            base = PyBytes_AS_STRING(<object>data)
            with nogil:
                got = np_sock_recv(fd, base, want)
            if got <= 0:
                Py_DECREF(data)
                return 0 if got == -EAGAIN else self.end_of_stream(got)
            if got == want:
                self.bulk_bytes = BULK_READ_MAX_BYTES
            elif got < BULK_READ_MIN_BYTES:
                self.bulk_bytes = BULK_READ_MIN_BYTES
            if 2 * got >= want:
                np_bytes_renew(data, got)
                received = <object>data
            else:  # who keeps a small message must not keep much memory with it
                received = PyBytes_FromStringAndSize(base, got)
            Py_DECREF(data)
            budget -= got
            self.note_size(got)
            self.deliver(received)
            received = None  # it may be used again from here on
            if got < want:
                return 0  # emptied, as far as we know: the POLL will tell
        return 0

    cdef int note_size(self, Py_ssize_t got) except -1:
        """A run of small reads ends the direct reading."""
        if got >= BULK_LEAVE_BYTES:
            self.small_reads_count = 0
        else:
            self.small_reads_count += 1
            if self.small_reads_count >= BULK_LEAVE_COUNT:
                self.leave_bulk()
        return 0

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

    cdef int read_into_protocol(self) except -1:
        """recv(2) into the BufferedProtocol's own buffer."""
        cdef Py_ssize_t budget = READ_BUDGET_BYTES
        cdef Py_ssize_t want
        cdef ptrdiff_t got
        cdef Py_buffer view
        cdef int fd = self.fd
        cdef str message
        while budget > 0 and self.flags & BUFFERED and not self.flags & (PAUSED | CLOSING):
            message = "Fatal error: protocol.get_buffer() call failed."
            got = 0
            try:
                entered = self.enter()
                try:
                    buffer = self.protocol.get_buffer(-1)
                    PyObject_GetBuffer(buffer, &view, PyBUF_CONTIG)
                    want = view.len
                    if want:
                        with nogil:
                            got = np_sock_recv(fd, view.buf, want)
                    PyBuffer_Release(&view)
                    if want == 0:
                        raise RuntimeError("get_buffer() returned an empty buffer")
                    if got > 0:
                        self.note_size(got)
                        message = "Fatal error: protocol.buffer_updated() call failed."
                        self.protocol.buffer_updated(got)
                finally:
                    self.leave(entered)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                return self.fail(exc, message)
            if got <= 0:
                return 0 if got == -EAGAIN else self.end_of_stream(got)
            budget -= got
            if got < want:
                return 0
        return 0

    cdef int end_of_stream(self, int end) except -1:
        """end: 0, or -errno. While paused it waits, behind the bytes that wait."""
        if self.flags & (PAUSED | RESUMING):
            self.stash_end = end
            return 0
        if end < 0:
            return self.fail(os_error(end), "Fatal read error on socket transport")
        self.flags |= EOF_SEEN
        keep_open = False
        try:
            entered = self.enter()
            try:
                keep_open = self.protocol.eof_received()
            finally:
                self.leave(entered)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            return self.fail(exc, "Fatal error: protocol.eof_received() call failed.")
        if not keep_open:
            self.close()
        return 0

    def pause_reading(self):
        """No data_received until resume_reading(). Bytes that are on their way are kept."""
        self.loop.check_ours()
        if not self.flags & (CLOSING | PAUSED):
            self.flags |= PAUSED

    def resume_reading(self):
        self.loop.check_ours()
        if self.flags & CLOSING or not self.flags & PAUSED:
            return
        self.flags &= ~PAUSED
        if self.flags & RESUMING:
            return
        if self.stash or self.stash_end != STASH_OPEN:
            self.flags |= RESUMING
            self.loop.soon(self._deliver_stash, None)
        elif not self.read_op and self.flags & STARTED and not self.flags & EOF_SEEN:
            self.arm_read()

    def _deliver_stash(self):
        cdef bytes data
        cdef Py_ssize_t taken
        self.flags &= ~RESUMING
        while self.stash and not self.flags & (PAUSED | CLOSING):
            data = <bytes>self.stash.pop(0)
            if self.flags & BUFFERED:
                taken = self.deliver_buffered(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
                if taken < PyBytes_GET_SIZE(data):
                    self.stash.insert(0, data[taken:])
            else:
                self.deliver(data)
        if self.flags & (PAUSED | CLOSING):
            return
        if self.stash_end != STASH_OPEN:
            end = self.stash_end
            self.stash_end = STASH_OPEN
            self.end_of_stream(end)
        elif not self.read_op and not self.flags & EOF_SEEN:
            self.arm_read()

    def is_reading(self):
        return not self.flags & (CLOSING | PAUSED)

    # ---- sending ------------------------------------------------------------------------------

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
        if np_iov_push(&self.out, <void*>data, PyBytes_AS_STRING(data),
                       PyBytes_GET_SIZE(data)) < 0:
            if np_iov_grow(&self.out) < 0:
                raise MemoryError
            np_iov_push(&self.out, <void*>data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        Py_INCREF(<PyObject*>data)
        if not self.flags & DIRTY and not self.write_op:
            self.flags |= DIRTY
            self.loop.mark_dirty(self)
        return 0

    cdef int check_watermarks(self) except -1:
        """After new bytes: large amounts leave at once; above the mark the protocol pauses."""
        if self.flags & READING:
            return 0
        if not self.write_op and (self.out.total_bytes >= WRITE_NOW_BYTES
                                  or self.out.total_bytes > self.high_bytes):
            self.write_now()
        if self.out.total_bytes > self.high_bytes and not self.flags & (PROTOCOL_PAUSED | ABORTED):
            self.flags |= PROTOCOL_PAUSED
            self.call_protocol("pause_writing")
        return 0

    cdef int call_protocol(self, str name) except -1:
        """pause_writing or resume_writing; their exceptions do not close the connection."""
        try:
            entered = self.enter()
            try:
                getattr(self.protocol, name)()
            finally:
                self.leave(entered)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.loop.call_exception_handler({
                "message": f"protocol.{name}() failed",
                "exception": exc,
                "transport": self,
                "protocol": self.protocol,
            })
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
        done = self.loop.ops.send(self.loop.be, self.fd, <void*>self, iov, n, &res,
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
        cdef void *owners[GATHER_COUNT]
        cdef int finished, i
        if sent_bytes < 0:
            if sent_bytes != -EAGAIN:
                return self.fail(os_error(<int>sent_bytes),
                                 "Fatal write error on socket transport")
            try:
                self.write_op = self.loop.arm(NP_OP_POLL, self.fd, self, POLLOUT | NP_POLL_KEEP)
            except OSError as exc:
                self.fail(exc, "Fatal write error on socket transport")
            return 0
        while True:
            finished = np_iov_advance(&self.out, sent_bytes, owners, GATHER_COUNT)
            sent_bytes = 0
            for i in range(finished):
                Py_DECREF(<PyObject*>owners[i])
            if finished < GATHER_COUNT:
                break
        if self.reader is not None:
            self.reader.sent()
        if self.flags & PROTOCOL_PAUSED and self.out.total_bytes <= self.low_bytes:
            self.flags &= ~PROTOCOL_PAUSED
            self.call_protocol("resume_writing")
        if self.out.count == 0:
            return self.wrote_all()
        if not self.flags & DIRTY and not self.write_op:
            self.flags |= DIRTY
            self.loop.mark_dirty(self)
        return 0

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
        cdef void *owner
        if self.flags & SENDING:
            return 0
        while self.out.count:
            owner = np_iov_pop(&self.out)
            Py_DECREF(<PyObject*>owner)
        return 0

    def write_eof(self):
        """Shuts our side once everything written has left."""
        self.loop.check_ours()
        if self.flags & (CLOSING | EOF_ASKED):
            return
        self.flags |= EOF_ASKED
        if not self.out.count:
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

    def _socket(self):
        if self.sock is None:
            self.sock = py_socket.socket(fileno=self.fd)
            self.sock.setblocking(False)
        return self.sock

    def can_write_eof(self):
        return True

    def get_write_buffer_size(self):
        """Bytes not yet taken by the kernel."""
        return self.out.total_bytes

    def get_write_buffer_limits(self):
        return (self.low_bytes, self.high_bytes)

    def set_write_buffer_limits(self, high=None, low=None):
        """Watermarks, in bytes: above high the protocol is paused, at low it is resumed."""
        if high is None:
            high = 4 * low if low is not None else HIGH_WATER_DEFAULT_BYTES
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high_bytes = high
        self.low_bytes = low
        if self.out.total_bytes > self.high_bytes:
            self.check_watermarks()

    # ---- closing ------------------------------------------------------------------------------

    def is_closing(self):
        return bool(self.flags & CLOSING)

    def close(self):
        """Stops reading; sends what was written; then connection_lost(None)."""
        self.loop.check_ours()
        if self.flags & CLOSING or self.fd < 0:
            return
        self.flags |= CLOSING
        self.stop_reading()
        if not self.out.count:
            self.lose(None)

    def abort(self):
        """Closes at once; what is unsent is dropped."""
        self.loop.check_ours()
        self.force_close(None)

    cdef int fail(self, object exc, str message) except -1:
        """An error that ends this connection, and only this one."""
        if isinstance(exc, OSError):
            if self.loop._debug:
                log.logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self.loop.call_exception_handler({
                "message": message,
                "exception": exc,
                "transport": self,
                "protocol": self.protocol,
            })
        return self.force_close(exc)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        self.fail(exc, message)

    def _force_close(self, exc):
        self.force_close(exc)

    cdef int force_close(self, object exc) except -1:
        if self.flags & LOST:
            return 0
        self.flags |= CLOSING | ABORTED
        self.stop_reading()
        if self.write_op and not self.flags & SENDING:
            self.loop.cancel(self.write_op)
        self.drop_out()
        return self.lose(exc)

    cdef int lose(self, object exc) except -1:
        """connection_lost(exc) follows, as soon as asyncio's would."""
        if self.flags & LOST:
            return 0
        self.flags |= LOST
        self.error = exc
        if self.flags & LENT and not self.empty_waiter.done():
            self.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))
        if self.loop._closed:  # nobody will be called any more, but the fd is not kept
            self.flags |= GONE
            self.op_ended()
            detach(self)
            self.loop.check_closed()
        self.loop.soon(self._call_connection_lost, None)
        return 0

    cdef int op_ended(self) except -1:
        """The fd is closed when the user has let go of the connection and the kernel has too."""
        if self.flags & GONE and not self.read_op and not self.write_op:
            self.close_fd()
        return 0

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        if event.op == self.read_op:
            self.read_op = 0
        elif event.op == self.write_op:
            self.write_op = 0
            self.flags &= ~SENDING
        return self.op_ended()

    def _call_connection_lost(self):
        try:
            if self.flags & STARTED:
                entered = self.enter()
                try:
                    self.protocol.connection_lost(self.error)
                finally:
                    self.leave(entered)
        finally:
            self.flags |= GONE
            self.protocol = None
            self.reader = None
            self.stash = None
            self.error = None
            try:
                detach(self)
            finally:
                self.op_ended()

    cdef int close_fd(self) except -1:
        cdef int fd = self.fd
        if fd < 0:
            return 0
        self.fd = -1
        self.leave_bulk()
        if self.loop.be is not NULL and self.loop.fd_owner(fd) is self:
            self.loop.ops.forget(self.loop.be, fd)
        self.loop.disown_fd(fd, self)
        if self.sock is None:
            np_sock_close(fd)
        else:
            self.sock.close()  # the socket object is the closer: its number dies with it
        return 0

    # ---- what is known about it ---------------------------------------------------------------

    def get_protocol(self):
        return self.protocol

    def set_protocol(self, protocol):
        self.protocol = protocol
        if isinstance(protocol, BufferedProtocol):
            self.flags |= BUFFERED
        else:
            self.flags &= ~BUFFERED
        if self.flags & STARTED:
            self.reader = adopt_reader(protocol, self)

    @property
    def _protocol_paused(self):
        return bool(self.flags & PROTOCOL_PAUSED)

    @property
    def _loop(self):
        return self.loop

    @property
    def _extra(self):
        return self.extra if self.extra is not None else {}

    def get_extra_info(self, name, default=None):
        """'socket', 'peername', 'sockname', or what the maker of the transport added."""
        if self.extra is not None and name in self.extra:
            return self.extra[name]
        if name == "peername":
            return self.peer_name(default)
        if self.fd < 0 or name not in ("socket", "sockname"):
            return default
        if name == "socket":
            return self.remember("socket", trsock.TransportSocket(self._socket()))
        try:
            return self.remember("sockname", self._socket().getsockname())
        except OSError:
            return default

    cdef object remember(self, str name, object value):
        if self.extra is None:
            self.extra = {}
        self.extra[name] = value
        return value

    cdef object peer_name(self, object default):
        cdef np_peer *peer = &self.peer
        if peer.family == _AF_INET:
            return (py_socket.inet_ntop(_AF_INET, (<char*>peer.address)[:4]), peer.port)
        if peer.family == _AF_INET6:
            host = py_socket.inet_ntop(_AF_INET6, (<char*>peer.address)[:16])
            return (host, peer.port, peer.flow_info, peer.scope_id)
        if self.fd < 0:
            return default
        try:
            return self.remember("peername", self._socket().getpeername())
        except OSError:
            return default


def make_transport(Loop loop, sock, protocol, waiter, dict extra, server):
    """A transport over a connected, nonblocking Python socket, which it owns from now on.

    connection_made and the waiter follow in the next turn. The verb behind
    loop._make_socket_transport.
    """
    cdef StreamTransport transport = StreamTransport.__new__(StreamTransport)
    transport.loop = loop
    transport.sock = sock
    transport.extra = extra
    transport.fd = sock.fileno()
    transport.context = PyContext_CopyCurrent()
    transport.set_protocol(protocol)
    np_sock_peer(transport.fd, &transport.peer)
    if sock.family != _AF_UNIX:
        np_sock_nodelay(transport.fd)
    loop.own_fd(transport.fd, transport)
    if server is not None:
        attach(server, transport)
    loop.soon(transport._begin, (waiter,))
    return transport
