# cython: language_level=3, freethreading_compatible=True
"""The stream transport: TCP and Unix.

Receiving has two strategies, chosen per connection by what arrives:
  ring  a multishot RECV out of the loop's shared buffers. One small copy into the bytes object
        that the protocol gets; an idle connection holds no memory.
  bulk  POLL, then recv(2) straight into the object that the protocol gets (a bytes object, or the
        BufferedProtocol's own buffer). Taken when a receive was large, left after a run of small
        ones.
Sending is transport/sending.pyx's subject, the life and the end transport/endpoint.pyx's.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_CONTIG, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN
from libc.stdint cimport uint16_t
from libc.string cimport memcpy

from netpoll._core cimport ON_EVENT_QUIET, Loop
from netpoll._native.c cimport (
    ECANCELED, NP_CLOSING, NP_EV_MORE, NP_EV_NONEMPTY, NP_LOST, NP_OP_RECV, NP_OP_SEND,
    PyContext_CopyCurrent, np_is_again, np_sock_nodelay, np_sock_peer, np_sock_recv,
    np_sock_shutdown)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport (
    BULK_ENTER_BYTES, BULK_LEAVE_BYTES, BULK_READ_MAX_BYTES, BULK_READ_MIN_BYTES, PULL_MIN_BYTES,
    READ_BUDGET_BYTES)
from netpoll._native.poll cimport POLLIN
from netpoll._native.seal cimport seal_types
from netpoll._native.transport.address cimport closed_socket, keep_name, kept_name
from netpoll._native.transport.asyncio_server cimport attach, detach
from netpoll._native.transport.bulk_reader cimport (
    bulk_ends, bulk_enter, bulk_leave, bulk_receive)
from netpoll._native.transport.endpoint cimport (
    EOF_SEEN, HOLDING_BACK, OWN_FLAGS, PAUSED, READING, RESUMING, STARTED, Endpoint)
from netpoll._native.transport.sending cimport (
    catch_up as catch_up_sending, count_lost_write, exact_bytes, exact_pieces,
    flush as flush_sending, offer as offer_sending, on_sent, push, pushed)
from netpoll._native.transport.stream_reader cimport ReaderCore, Sink, adopt_reader, is_buffered

import asyncio
import socket as py_socket
from asyncio import constants, trsock


cdef enum:  # StreamTransport.flags beside those of Endpoint
    EOF_ASKED = OWN_FLAGS       # write_eof()
    BUFFERED = OWN_FLAGS << 1   # a BufferedProtocol
    LENT = OWN_FLAGS << 2       # the socket is being written to by sendfile
    PULLING = OWN_FLAGS << 3    # readable; the task that reads was woken and receives itself

cdef enum:
    SHUT_WR = 1

cdef enum:  # stash_end
    STASH_OPEN = 1          # errnos are negative, the end of the stream is 0

cdef int _AF_UNIX = int(py_socket.AF_UNIX)
cdef object FlowControlMixin = asyncio.transports._FlowControlMixin
cdef dict _NOTHING = {}
cdef object SendfileMode = constants._SendfileMode.TRY_NATIVE


cdef class StreamTransport(Endpoint):
    """A connected stream socket, with the interface of asyncio.Transport."""

    # isinstance(transport, asyncio.Transport) holds, and asyncio's sendfile asks for this one.
    @property
    def __class__(self):
        return FlowControlMixin

    _start_tls_compatible = True
    _sendfile_compatible = SendfileMode
    max_size = 256 * 1024       # as asyncio's transport says; programs read it

    def __cinit__(self):
        self.stash_end = STASH_OPEN
        self.bulk.size_bytes = BULK_READ_MIN_BYTES

    # ---- birth --------------------------------------------------------------------------------

    cdef int begin(self) except -1:
        """connection_made, then reading. In the loop's thread, outside any callback."""
        self.flags |= STARTED
        self.reader = adopt_reader(self.protocol, self)
        try:
            self.call_made()
        finally:  # an interrupt out of the protocol ends the turn, not the connection
            self.read_again()
        return 0

    cdef int call_made(self) except -1:
        try:
            entered = self.enter()
            try:
                self.protocol.connection_made(self)
            finally:
                self.leave(entered)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report("protocol.connection_made() failed", exc)  # asyncio goes on, too
        return 0

    def _begin(self, waiter):
        try:
            self.begin()
        finally:
            if waiter is not None and not waiter.cancelled():
                waiter.set_result(None)

    # ---- receiving ----------------------------------------------------------------------------

    cdef int arm_read(self) except -1:
        try:
            if self.bulk.left:
                self.read_op = self.poll(POLLIN)
            else:
                self.read_op = self.loop.arm(NP_OP_RECV, self.fd, self, 0)
        except OSError as exc:
            self.failed(exc, "read")
        return 0

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        if event.kind == NP_OP_RECV:
            return self.on_recv(event)
        if event.kind == NP_OP_SEND or event.op == self.write_op:
            return on_sent(self, event)
        return self.on_readable(event)

    cdef int on_recv(self, np_event *event) except -1:
        cdef bint is_last = not event.flags & NP_EV_MORE
        cdef int res = event.res
        if is_last:
            self.read_op = 0  # before the protocol is called: it may close, or pause and resume
        try:
            if res > 0 and not self.flags & NP_CLOSING:
                self.on_bytes(event)
        finally:  # an interrupt out of the protocol ends the turn, not the reading
            if is_last:
                self.receive_ended(res)
        if is_last or type(self.reader) is not ReaderCore:
            return 0
        return ON_EVENT_QUIET  # the bytes are in the StreamReader's buffer

    cdef int on_bytes(self, np_event *event) except -1:
        cdef Py_ssize_t size = event.res
        self.heard_turn = <uint16_t>self.loop.turns
        if self.part is not None:
            size += PyBytes_GET_SIZE(self.part)
        if event.flags & NP_EV_NONEMPTY and event.flags & NP_EV_MORE \
                and size < BULK_ENTER_BYTES \
                and not self.bulk.left and not self.is_holding():
            return self.join_part(event)
        if self.part is not None:
            self.join_part(event)
            self.take_part()
        else:
            self.take(<const char*>event.data, event.res)
        if size >= BULK_ENTER_BYTES and not self.bulk.left and not self.flags & NP_CLOSING:
            bulk_enter(self.loop, &self.bulk)
            self.stop_reading()  # its last event arms the POLL
        return 0

    cdef int receive_ended(self, int res) except -1:
        """No receive is in flight any more: another one is, or will be, or the stream ends."""
        if self.part is not None:
            self.take_part()
        if self.flags & NP_CLOSING:
            return self.op_ended()
        if res <= 0 and res != -ECANCELED and not np_is_again(res):
            return self.end_of_stream(res)
        return self.read_again()

    # A shared buffer ended in the middle of what the socket held: the rest is the next event. The
    # peer's small messages stay whole, as they do with a buffer of one's own.

    cdef int join_part(self, np_event *event) except -1:
        data = PyBytes_FromStringAndSize(<char*>event.data, event.res)
        self.part = data if self.part is None else self.part + data
        return 0

    cdef int take_part(self) except -1:
        cdef bytes part = self.part
        self.part = None
        if self.flags & NP_CLOSING:
            return 0
        return self.take(PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part))

    cdef int on_readable(self, np_event *event) except -1:
        cdef Sink reader
        self.read_op = 0
        if self.flags & NP_CLOSING:
            return self.op_ended()
        if self.flags & HOLDING_BACK and self.is_holding():
            return self.read_again()
        if event.res < 0 and event.res != -ECANCELED:
            return self.end_of_stream(event.res)
        reader = self.reader
        if event.res > 0:
            if reader is not None and reader.woken():
                self.flags |= PULLING
                return ON_EVENT_QUIET
            self.flags |= READING
            try:
                if self.flags & BUFFERED:
                    self.read_into_protocol()
                else:
                    self.read_direct()
            finally:  # an interrupt out of the protocol ends the turn, not the reading
                self.flags &= ~READING
                self.read_again()
            if self.out.iov.count:
                pushed(self)
            return 0
        return self.read_again()

    cdef int take(self, const char *data, Py_ssize_t size) except -1:
        """Received bytes: to the protocol, or aside while they have to wait."""
        cdef Py_ssize_t taken
        cdef Sink reader = self.reader  # kept alive: it may be replaced while it is fed
        if self.flags & HOLDING_BACK and self.is_holding():
            if self.stash is None:
                self.stash = []
            self.stash.append(PyBytes_FromStringAndSize(data, size))
            # Here or at the end of the turn: a pause that ends before costs nothing.
            return self.stop_reading()
        if reader is not None:
            return reader.feed(data, size)
        if self.flags & BUFFERED:
            taken = self.deliver_buffered(data, size)
            if taken < size and not self.flags & NP_CLOSING:
                self.take(data + taken, size - taken)  # it has paused us, or is another now
            return 0
        return self.deliver(PyBytes_FromStringAndSize(data, size))

    cdef int deliver(self, bytes data) except -1:
        cdef Sink reader = self.reader
        if reader is not None:
            return reader.feed_bytes(data)
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
        while taken < size and self.flags & BUFFERED \
                and not self.flags & (HOLDING_BACK | NP_CLOSING):
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
        while budget > 0 and not self.flags & (HOLDING_BACK | NP_CLOSING | BUFFERED):
            want = self.bulk.size_bytes
            received = self.receive(want, &got)
            if received is None:
                return 0 if got == -EAGAIN else self.end_of_stream(got)
            budget -= got
            self.heard_turn = <uint16_t>self.loop.turns
            self.deliver(received)
            received = None  # it may be used again from here on
            if got < want:
                return 0  # emptied, as far as we know: the POLL will tell
        return 0

    cdef object receive(self, Py_ssize_t want, ptrdiff_t *got):
        """One direct read. None when *got is 0 or -errno."""
        received = bulk_receive(self.loop, self.fd, np_sock_recv, want, got)
        if got[0] == want:
            self.bulk.size_bytes = BULK_READ_MAX_BYTES
        elif 0 < got[0] < BULK_READ_MIN_BYTES:
            self.bulk.size_bytes = BULK_READ_MIN_BYTES
        if received is not None:
            self.note_size(got[0])
        return received

    # A task that waits in reader.read() with room for much is woken when there is something, and
    # receives when it runs: what it then writes is still in the cache, and nothing is kept for it
    # meanwhile. Reading everything first and waking then cost a third more per byte.

    cdef object pull(self, Py_ssize_t size):
        """The reading task's own receive; None when it has to wait (or the stream has ended)."""
        cdef ptrdiff_t got
        if size < PULL_MIN_BYTES or not self.flags & PULLING:
            self.unpull()
            return None
        self.flags &= ~PULLING
        if self.flags & (NP_CLOSING | PAUSED):
            return None
        received = self.receive(self.bulk.size_bytes if size >= self.bulk.size_bytes
                                else BULK_READ_MIN_BYTES, &got)
        if received is None and got != -EAGAIN:
            self.end_of_stream(got)
        else:
            self.read_again()
        return received

    cdef int unpull(self) except -1:
        """The woken task does not receive after all: the bytes are kept for it as always."""
        if self.flags & PULLING:
            self.flags &= ~PULLING
            self.read_direct()
            self.read_again()
        return 0

    cdef int note_size(self, Py_ssize_t got) except -1:
        """A run of small reads ends the direct reading."""
        if self.bulk.left and bulk_ends(&self.bulk.left, got >= BULK_LEAVE_BYTES):
            bulk_leave(self.loop, &self.bulk)
        return 0

    cdef int read_into_protocol(self) except -1:
        """recv(2) into the BufferedProtocol's own buffer."""
        cdef Py_ssize_t budget = READ_BUDGET_BYTES
        cdef Py_ssize_t want
        cdef ptrdiff_t got
        cdef Py_buffer view
        cdef int fd = self.fd
        cdef str message
        while budget > 0 and self.flags & BUFFERED \
                and not self.flags & (HOLDING_BACK | NP_CLOSING):
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
                        self.heard_turn = <uint16_t>self.loop.turns
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
        """end: 0, or -errno. While paused it waits, behind the bytes that wait.

        asyncio finds the end a turn after the last bytes, so what data_received has posted runs
        before eof_received. The kernel says it again to who asks again.
        """
        if self.flags & HOLDING_BACK and self.is_holding():
            if end < 0:
                self.stash_end = end
            return self.read_again()
        if end == 0 and self.heard_turn == <uint16_t>self.loop.turns:
            return self.read_again()
        if end < 0:
            return self.failed(os_error(end), "read")
        self.flags |= EOF_SEEN
        keep_open = False
        try:
            entered = self.enter()
            try:
                keep_open = self.protocol.eof_received()
            finally:
                self.leave(entered)
        except (SystemExit, KeyboardInterrupt):
            self.flags &= ~EOF_SEEN
            self.read_again()  # the end is told again: it ends the turn, not the connection
            raise
        except BaseException as exc:
            return self.fail(exc, "Fatal error: protocol.eof_received() call failed.")
        if not keep_open:
            self.close()
            return 0
        self.flags |= EOF_SEEN  # whatever the protocol did about reading meanwhile, as on asyncio
        return self.stop_reading()

    cdef bint has_stash(self) noexcept:
        return self.stash_end != STASH_OPEN or Endpoint.has_stash(self)

    cdef int deliver_stash(self) except -1:
        """What waits, and what has come since: asyncio receives it all at once."""
        cdef ptrdiff_t got
        cdef Py_ssize_t taken
        cdef int end = self.stash_end
        cdef list stash = self.stash
        self.flags &= ~RESUMING
        self.stash = None
        self.stash_end = STASH_OPEN
        if stash is None:
            return self.end_of_stream(end)
        if end == STASH_OPEN:
            rest = PyBytes_FromStringAndSize(NULL, BULK_READ_MIN_BYTES)
            got = np_sock_recv(self.fd, PyBytes_AS_STRING(rest), BULK_READ_MIN_BYTES)
            if got > 0:
                stash.append(rest[:got])
            elif got < 0 and got != -EAGAIN:
                end = <int>got  # of the stream's end it is told again
        data = b"".join(stash)
        self.heard_turn = <uint16_t>self.loop.turns
        self.stash_end = end
        try:
            if self.flags & BUFFERED:
                taken = self.deliver_buffered(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
                if taken < PyBytes_GET_SIZE(data):
                    self.stash = [data[taken:]]
            else:
                self.deliver(data)
        finally:  # an interrupt out of the protocol ends the turn, not the reading
            if self.has_stash():
                self.hold()
            self.read_again()
        return 0

    # ---- sending ------------------------------------------------------------------------------

    def write(self, data):
        """Sends bytes in order, without waiting. A bytes object is kept, not copied; anything
        that can still change is copied now."""
        self.loop.check_ours()
        self.write_bytes(<bytes>data if type(data) is bytes else exact_bytes(data))

    cdef int write_bytes(self, bytes data) except -1:
        if self.flags & (EOF_ASKED | NP_LOST | LENT):
            self.check_writable("write")
            if self.flags & NP_LOST:
                return self.lost_write(data)
        if PyBytes_GET_SIZE(data) == 0:
            return 0
        push(self, data)
        return pushed(self)

    def writelines(self, list_of_data):
        """Sends several pieces, in order, as few system calls as the kernel allows."""
        self.loop.check_ours()
        self.check_writable("writelines")
        cdef list pieces = exact_pieces(list_of_data)
        if self.flags & NP_LOST:
            self.lost_write(b"".join(pieces))
            return
        for piece in pieces:
            if piece:
                push(self, piece)
        pushed(self)

    cdef int check_writable(self, str method) except -1:
        if self.flags & LENT:
            raise RuntimeError(f"unable to {method}; sendfile is in progress")
        if self.flags & EOF_ASKED:
            raise RuntimeError(f"Cannot call {method}() after write_eof()")
        return 0

    cdef int lost_write(self, bytes data) except -1:
        if PyBytes_GET_SIZE(data):
            count_lost_write(&self.out.lost_writes_count, "socket.send() raised exception.")
        return 0

    cdef int press(self) except -1:
        return pushed(self)

    cdef int flush(self) except -1:
        return flush_sending(self)

    cdef int catch_up(self) except -1:
        return catch_up_sending(self)

    cdef int offer(self) except -1:
        return offer_sending(self)

    cdef int sent(self) except -1:
        cdef Sink reader = self.reader
        if reader is not None:
            reader.sent()
        return 0

    cdef int sent_all(self) except -1:
        if self.flags & LENT and not self.empty_waiter.done():
            self.empty_waiter.set_result(None)
        if self.flags & EOF_ASKED and not self.flags & NP_CLOSING:
            np_sock_shutdown(self.fd, SHUT_WR)
            return 0
        return Endpoint.sent_all(self)

    def can_write_eof(self):
        return True

    def write_eof(self):
        """Shuts our side once everything written has left."""
        self.loop.check_ours()
        if self.flags & (NP_CLOSING | EOF_ASKED):
            return
        self.flags |= EOF_ASKED
        if self.out.iov.count:
            self.catch_up()
        else:
            np_sock_shutdown(self.fd, SHUT_WR)

    # loop.sendfile writes to the socket itself, once what was written before has left.

    def _make_empty_waiter(self):
        if self.flags & LENT:
            raise RuntimeError("Empty waiter is already set")
        self.flags |= LENT
        self.empty_waiter = self.loop.create_future()
        if not self.out.iov.count:
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

    # ---- closing ------------------------------------------------------------------------------

    cdef int lost(self) except -1:
        if self.flags & LENT and not self.empty_waiter.done():
            self.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))
        return 0

    cdef int forget(self) except -1:
        server = self.server
        Endpoint.forget(self)
        self.reader = self.server = None
        return detach(server, self)

    # ---- what is known about it ---------------------------------------------------------------

    def set_protocol(self, protocol):
        self.unpull()
        self.protocol = protocol
        if is_buffered(protocol):
            self.flags |= BUFFERED
        else:
            self.flags &= ~BUFFERED
        if self.flags & STARTED:
            self.reader = adopt_reader(protocol, self)

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

    def _socket(self):
        if self.file is None:
            made = py_socket.socket(fileno=self.fd)
            if self.file is None and self.fd == made.fileno():
                self.file = made
                made.setblocking(False)
            else:  # an audit hook has asked for it, too, or closed it: the number has one owner
                made.detach()
        return self.file

    def _detach_socket(self):
        """Its maker gave up: the number is ours alone, and the maker's object a shell."""
        if self.file is not None and self.fd >= 0:
            self.file.detach()
            self.file = None

    @property
    def _extra(self):
        for name in ("socket", "sockname", "peername"):
            if self.extra is None or name not in self.extra:
                self.remember(name, self.get_extra_info(name))
        return self.extra

    @property
    def _server(self):
        return self.server

    def get_extra_info(self, name, default=None):
        """'socket', 'peername', 'sockname', or what the maker of the transport added."""
        if name == "socket":
            self.catch_up()  # its user may shut it down, or write to it himself
        if self.extra is not None and name in self.extra:
            return self.extra[name]
        if name == "peername" and (self.peer.family or self.fd < 0):
            return kept_name(&self.peer, default)
        if name == "sockname" and self.fd < 0:
            return kept_name(&self.own, default)
        if name not in ("socket", "sockname", "peername"):
            return _NOTHING.get(name, default)  # what cannot be a key is refused, as by asyncio
        try:
            if name == "sockname":
                return self.remember("sockname", self._socket().getsockname())
            if name == "peername":
                return self.remember("peername", self._socket().getpeername())
            is_over = self.fd < 0 and self.file is None
            sock = closed_socket(self.own.family) if is_over else self._socket()
            return self.remember("socket", trsock.TransportSocket(sock))
        except OSError:
            return default

    cdef object remember(self, str name, object value):
        if self.extra is None:
            self.extra = {}
        self.extra[name] = value
        return value

    cdef int close_number(self, int fd) except -1:
        """asyncio asks for both names when a connection is made. They are known after its end."""
        self.extra = keep_name(self.extra, "sockname", fd, &self.own)
        if not self.peer.family:
            self.extra = keep_name(self.extra, "peername", fd, &self.peer)
        return Endpoint.close_number(self, fd)


def make_transport(Loop loop, sock, protocol, waiter, dict extra or None, server):
    """A transport over a connected, nonblocking Python socket, which it owns from now on.

    connection_made and the waiter follow in the next turn. The verb behind
    loop._make_socket_transport.
    """
    cdef StreamTransport transport = StreamTransport.__new__(StreamTransport)
    transport.loop = loop
    transport.file = sock
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
        transport.server = server
    loop.soon(transport._begin, (waiter,))
    return transport


seal_types(globals())
