# cython: language_level=3, freethreading_compatible=True
"""The datagram transport: UDP, Unix datagrams, netlink, and whatever else has datagrams.

Receiving: POLL, then recvmmsg(2) into memory that the loop's datagram transports share; each
datagram is copied once, into the bytes object that the protocol gets. Sending: what a turn writes
leaves at its end in as few sendmmsg(2) calls as it takes, segmented (GSO) where it can be. Nothing
of it is held by the kernel between two calls: see np_dgram.h.

Errors are asyncio's: those of the network go to protocol.error_received, and the transport goes
on; an address that makes no sense ends it.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN
from libc.stdint cimport uint8_t, uint32_t

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    ECANCELED, NP_CLOSING, NP_DGRAM_BURST_BYTES, NP_DGRAM_BURST_COUNT, NP_DGRAM_MAX_BYTES, NP_GONE,
    NP_LOST, PY_VECTORCALL_ARGUMENTS_OFFSET, PyBytes_AS_STRING, PyContext_CopyCurrent, PyObject,
    PyObject_Vectorcall, Py_DECREF, Py_INCREF, Py_XDECREF, np_chunk, np_dgram, np_dgram_at,
    np_dgram_gso_max_bytes, np_dgram_has_gro, np_dgram_out, np_dgram_recv, np_dgram_send, np_event,
    np_iov, np_iov_close, np_iov_pop, sockaddr)
from netpoll._native.failing cimport os_error, reraise
from netpoll._native.limits cimport (
    DATAGRAM_BUDGET_COUNT, DATAGRAM_BURST_MIN_COUNT, DATAGRAM_HEADER_BYTES, DATAGRAM_NOGIL_COUNT,
    DATAGRAM_OUT_KEPT_COUNT)
from netpoll._native.poll cimport POLLIN
from netpoll._native.seal cimport seal_types
from netpoll._native.transport.address cimport Address, DatagramMemory, is_native
from netpoll._native.transport.endpoint cimport (
    DIRTY, DRAINING, FLUSHING, HOLDING_BACK, NOT_READING, OWN_FLAGS, PROTOCOL_PAUSED, RESUMING,
    STARTED, Endpoint, is_inherited)
from netpoll._native.transport.out_queue cimport out_push
from netpoll._native.transport.sending cimport count_lost_write, exact_bytes

import asyncio
import socket as py_socket
from asyncio import trsock


# A Unix socket whose peer's queue is full is writable by its own account: POLLOUT fires at once,
# for nothing. Then the next attempt is after this time.
cdef double RETRY_S = 0.001

cdef enum:  # DatagramTransport.flags beside those of Endpoint
    FUTILE = OWN_FLAGS      # POLLOUT has fired, and nothing left since

cdef int _AF_NETLINK = int(py_socket.AF_NETLINK)


cdef inline int burst_of(uint32_t datagram_bytes) noexcept:
    """How many the memory in use has room for, were they all as large as this one."""
    cdef int count = <int>(<uint32_t>NP_DGRAM_BURST_BYTES // datagram_bytes)
    if count < DATAGRAM_BURST_MIN_COUNT:
        return DATAGRAM_BURST_MIN_COUNT
    return count if count < NP_DGRAM_BURST_COUNT else NP_DGRAM_BURST_COUNT


# A chunk of the queue is a datagram: its owner the bytes, its length theirs and a header's, its
# base a reference to whom it is for. NULL: where the socket is connected; an Address; or what
# sendto() got.

cdef inline np_chunk *datagram_at(np_iov *iov, uint32_t i) noexcept:
    return &iov.chunks[(iov.head + i) & (iov.cap - 1)]


class Kinds(asyncio.DatagramTransport, asyncio.Transport):
    """What a datagram transport is an instance of: of the one, as documented, and of the other,
    because asyncio's are, and programs ask for it."""


cdef object AioKinds = Kinds


cdef class DatagramTransport(Endpoint):
    """A datagram socket, with the interface of asyncio.DatagramTransport."""

    # isinstance(transport, asyncio.DatagramTransport) holds.
    @property
    def __class__(self):
        return AioKinds

    def __cinit__(self):
        self.burst_count = NP_DGRAM_BURST_COUNT

    def __dealloc__(self):
        self.drop_out()

    # ---- birth --------------------------------------------------------------------------------

    def _begin(self, waiter):
        """connection_made, then reading: what asyncio does in three callbacks."""
        self.flags |= STARTED
        try:
            self.call_protocol("connection_made", (self,))
        finally:  # an interrupt out of the protocol ends the turn, not the endpoint
            if self.fd >= 0:
                self.gro = np_dgram_has_gro(self.fd)  # connection_made may have asked for it
            self.read_again()
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    # ---- receiving ----------------------------------------------------------------------------

    cdef int arm_read(self) except -1:
        try:
            self.read_op = self.poll(POLLIN)
        except OSError as exc:
            self.failed(exc, "read")
        return 0

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        if event.op == self.read_op:
            self.read_op = 0
            if self.flags & NP_CLOSING:
                return self.op_ended()
            if event.res < 0 and event.res != -ECANCELED:
                return self.failed(os_error(event.res), "read")
            return self.on_readable()
        self.write_op = 0
        if self.flags & NP_LOST:
            return self.op_ended()
        self.flags |= FUTILE
        return self.on_room()

    cdef int on_readable(self) except -1:
        if self.is_holding():
            return self.read_again()
        return self.receive()

    cdef int deliver_stash(self) except -1:
        self.flags &= ~RESUMING
        return self.receive()

    cdef int receive(self) except -1:
        """What waits in the stash, or else what the socket has."""
        entered = self.enter()
        try:
            self.received = self.protocol.datagram_received
            if self.stash is not None:
                self.empty_stash()
            elif is_native(self.socket_family):
                self.read()
            else:
                self.read_by_socket()
        finally:
            self.received = None
            self.leave(entered)
            self.read_again()
        if self.interrupt is not None:
            exc, self.interrupt = self.interrupt, None
            raise exc
        return 0

    cdef int read(self) except -1:
        """Bursts, within the turn's budget, until the socket is empty."""
        cdef int budget = DATAGRAM_BUDGET_COUNT
        cdef int want, got, i
        cdef uint32_t largest
        cdef np_dgram message
        while budget > 0 and not self.flags & (NOT_READING | RESUMING):
            want = self.burst_count
            with nogil:
                got = np_dgram_recv(self.memory.received, self.fd, want, self.gro)
            if got < 0:
                if got != -EAGAIN:
                    self.tell_error(os_error(got))
                return 0
            largest = 1
            for i in range(got):
                np_dgram_at(self.memory.received, i, &message)
                if message.len_bytes > largest:
                    largest = message.len_bytes
                self.deliver_message(i)
            self.burst_count = burst_of(largest)
            if got < want:
                return 0  # emptied, as far as we know: the POLL will tell
            budget -= got
        return 0

    cdef int deliver_message(self, int index) except -1:
        """One message of the burst: a datagram, or several that the kernel has put together."""
        cdef np_dgram message
        cdef uint32_t at, size
        np_dgram_at(self.memory.received, index, &message)
        address = None
        if message.name_bytes:
            address = self.memory.named(<const uint8_t*>message.name, message.name_bytes).key
        if not message.segment_bytes:
            return self.deliver(<const char*>message.data, message.len_bytes, address)
        for at in range(0, message.len_bytes, message.segment_bytes):
            size = min(message.segment_bytes, message.len_bytes - at)
            self.deliver(<const char*>message.data + at, size, address)
        return 0

    cdef int deliver(self, const char *data, Py_ssize_t size, object address) except -1:
        if self.flags & NP_CLOSING:
            return 0
        return self.hand_over(PyBytes_FromStringAndSize(data, size), address)

    cdef int hand_over(self, object data, object address) except -1:
        """One datagram to the protocol, or to the stash. Its exception concerns this one only."""
        cdef PyObject *arguments[3]
        cdef PyObject *result
        if self.flags & HOLDING_BACK:
            if self.stash is None:
                self.stash = []
            self.stash.append((data, address))
            return 0
        received = self.received  # it may set another protocol
        arguments[1] = <PyObject*>data
        arguments[2] = <PyObject*>address
        result = PyObject_Vectorcall(<PyObject*>received, &arguments[1],
                                     2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        if result is not NULL:
            Py_DECREF(result)
            return 0
        try:
            reraise()
        except (SystemExit, KeyboardInterrupt) as exc:
            self.interrupt = exc  # raised when the burst is safe
            self.hold()
        except BaseException as exc:
            self.report("Fatal error: protocol.datagram_received() call failed.", exc)
        return 0

    cdef int read_by_socket(self) except -1:
        """Families whose addresses only the socket module can read."""
        cdef int budget = NP_DGRAM_BURST_COUNT
        while budget > 0 and not self.flags & (NOT_READING | RESUMING):
            budget -= 1
            try:
                data, address = self.file.recvfrom(NP_DGRAM_MAX_BYTES)
            except (BlockingIOError, InterruptedError):
                return 0
            except OSError as exc:
                return self.tell_error(exc)
            self.hand_over(data, address)
        return 0

    cdef int tell_error(self, object exc) except -1:
        """error_received. What it raises goes to the exception handler, as in asyncio."""
        try:
            entered = self.enter()
            try:
                self.protocol.error_received(exc)
            finally:
                self.leave(entered)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as failure:
            self.report("protocol.error_received() call failed.", failure)
        return 0

    cdef int empty_stash(self) except -1:
        cdef list stash = self.stash
        self.stash = None
        for data, address in stash:
            if self.flags & NP_CLOSING:
                return 0
            self.hand_over(data, address)
        return 0

    # ---- sending ------------------------------------------------------------------------------

    def sendto(self, data, addr=None):
        """Sends one datagram, to addr or to where the socket is connected, without waiting.

        It leaves at the end of the turn, in order with the others. An empty one is sent, too. A
        bytes object is kept, not copied; anything that can still change is copied now. Errors of
        the network come to protocol.error_received. Raises TypeError when data is not bytes-like,
        ValueError when addr is not the remote address that the endpoint was made with.
        """
        cdef bytes exact = exact_bytes(data)
        cdef Address known
        cdef PyObject *target = NULL
        if self.address is not None:
            if addr is not None and addr != self.address:
                raise ValueError(f"Invalid address: must be None or {self.address}")
            addr = self.address
        if self.flags & NP_LOST:
            if self.address is None and not self.flags & NP_GONE:
                self.send_late(exact, addr)
                return
            count_lost_write(&self.out.lost_writes_count, "socket.send() raised exception.")
            return
        if self.takes_address(addr):
            target = <PyObject*>addr
            if is_native(self.socket_family) and addr is not None:
                known = self.memory.find(addr, self.socket_family)
                if known is not None:
                    target = <PyObject*>known
        self.push(exact, target)
        if self.out.iov.count >= NP_DGRAM_BURST_COUNT \
                or self.out.iov.total_bytes > self.out.high_bytes \
                or self.loop._thread_id is None:  # not running: no end of a turn to wait for
            self.flush()
        self.hold_high()

    cdef bint takes_address(self, object addr) noexcept:
        # A netlink socket has a peer from the start, the kernel, and can send to others, too.
        return not self.is_connected or (
            addr is not None and self.socket_family == _AF_NETLINK)

    cdef int send_late(self, bytes data, object addr) except -1:
        """Between close() and connection_lost: as on asyncio, unless the endpoint was made with a
        remote address."""
        try:
            if self.takes_address(addr):
                self.file.sendto(data, addr)
            else:
                self.file.send(data)
        except (BlockingIOError, InterruptedError):
            pass  # nobody waits for room any more
        except OSError as exc:
            self.tell_error(exc)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.fail(exc, "Fatal write error on datagram transport")
        return 0

    cdef int push(self, bytes data, PyObject *target) except -1:
        out_push(&self.out.iov, data, target, PyBytes_GET_SIZE(data) + DATAGRAM_HEADER_BYTES)
        if target is not NULL:
            Py_INCREF(target)
        if not self.flags & DIRTY and not self.write_op and self.retry is None:
            self.mark()
        return 0

    cdef int drop_oldest(self, uint32_t count) noexcept:
        """Of those that a call was made for. Meanwhile others may have come behind them, or all of
        them may have been dropped; after that none comes any more (NP_LOST)."""
        cdef PyObject *target
        while count and self.out.iov.count:
            target = <PyObject*>datagram_at(&self.out.iov, 0).base
            Py_DECREF(<PyObject*>np_iov_pop(&self.out.iov))
            Py_XDECREF(target)
            count -= 1
        return 0

    cdef int drop_out(self) except -1:
        return self.drop_oldest(self.out.iov.count)

    cdef int flush(self) except -1:
        """Sends until all has left or the socket is full. error_received may call us back."""
        if self.flags & (FLUSHING | NP_LOST) or self.write_op or self.retry is not None:
            return 0
        self.flags |= FLUSHING
        try:
            while self.out.iov.count and not self.write_op and self.retry is None:
                self.send_burst()
        finally:  # an interrupt out of the protocol ends the turn, not the sending
            self.flags &= ~FLUSHING
            if self.out.iov.count and not self.write_op and self.retry is None:
                self.mark()
        try:
            self.release_low()
        finally:
            self.flushed()
        return 0

    cdef int flushed(self) except -1:
        if self.out.iov.count:
            return 0
        if self.out.iov.cap > DATAGRAM_OUT_KEPT_COUNT:  # of a time when the socket was full
            np_iov_close(&self.out.iov)
        return self.sent_all()

    cdef int send_burst(self) except -1:
        """One system call for the oldest datagrams, up to one that is the socket module's."""
        cdef np_dgram_out items[NP_DGRAM_BURST_COUNT]
        cdef np_chunk *chunk
        cdef Address address
        cdef int count = 0, sent
        while count < NP_DGRAM_BURST_COUNT and <uint32_t>count < self.out.iov.count:
            chunk = datagram_at(&self.out.iov, count)
            items[count].data = PyBytes_AS_STRING(<object>chunk.owner)
            items[count].len_bytes = <uint32_t>PyBytes_GET_SIZE(<object>chunk.owner)
            items[count].name = NULL
            items[count].name_bytes = 0
            if chunk.base is not NULL:
                if type(<object><void*>chunk.base) is not Address:
                    break
                address = <Address><void*>chunk.base
                items[count].name = <const sockaddr*>address.raw
                items[count].name_bytes = address.size_bytes
            count += 1
        if count == 0:
            return self.send_by_socket()
        if count >= DATAGRAM_NOGIL_COUNT:
            with nogil:
                sent = np_dgram_send(self.fd, items, count, &self.gso_max_bytes)
        else:
            sent = np_dgram_send(self.fd, items, count, &self.gso_max_bytes)
        if sent == -EAGAIN:
            return self.wait_writable()
        self.flags &= ~FUTILE
        self.drop_oldest(1 if sent < 0 else sent)
        return self.tell_error(os_error(sent)) if sent < 0 else 0

    cdef int send_by_socket(self) except -1:
        """The oldest datagram, whose address only the socket module understands. The address may
        be made of the user's own objects, and these may end the transport."""
        cdef np_chunk *chunk = datagram_at(&self.out.iov, 0)
        data, target = <object>chunk.owner, <object><void*>chunk.base
        try:
            self.file.sendto(data, target)
        except (BlockingIOError, InterruptedError):
            return 0 if self.flags & NP_LOST else self.wait_writable()
        except OSError as exc:
            self.drop_oldest(1)
            return self.tell_error(exc)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.drop_oldest(1)
            return self.fail(exc, "Fatal write error on datagram transport")
        self.flags &= ~FUTILE
        return self.drop_oldest(1)

    cdef int wait_writable(self) except -1:
        if self.flags & FUTILE:
            self.retry = self.loop.call_later(RETRY_S, self._retry)
            return 0
        return Endpoint.wait_writable(self)

    def _retry(self):
        self.retry = None
        self.on_room()

    cdef int on_room(self) except -1:
        """The socket may have room for what it did not take before."""
        self.flags |= DRAINING
        try:
            return self.flush()
        finally:
            self.flags &= ~DRAINING

    cdef int press(self) except -1:
        self.flush()
        return self.hold_high()

    cdef int catch_up(self) except -1:
        """What sendto() has taken goes to the socket now, not at the end of the turn."""
        if not self.out.iov.count or self.flags & PROTOCOL_PAUSED or is_inherited(self.loop):
            return 0
        return self.flush()

    # ---- closing ------------------------------------------------------------------------------

    cdef int offer(self) except -1:
        """error_received may call us back, and end the transport."""
        self.catch_up()
        return 0

    cdef int lost(self) except -1:
        if self.retry is not None:
            self.retry.cancel()
            self.retry = None
        return 0

    cdef str medium(self):
        return "datagram"

    # ---- what is known about it ---------------------------------------------------------------

    def set_protocol(self, protocol):
        self.protocol = protocol
        if self.received is not None:
            self.received = protocol.datagram_received

    max_size = 256 * 1024

    @property
    def _sock(self):
        if self.fd < 0:
            return None
        self.catch_up()
        return self.file

    @property
    def _sock_fd(self):
        return self.fd

    @property
    def _address(self):
        return self.address

    @property
    def _extra(self):
        return self.extra

    def get_extra_info(self, name, default=None):
        """'socket', 'sockname', 'peername': as they were when the transport was made."""
        if name == "socket":
            self.catch_up()  # its user may write to it himself
        return self.extra.get(name, default)


def make_datagram_transport(Loop loop, DatagramMemory memory, sock, protocol, address, waiter,
                            dict extra or None):
    """A transport over a nonblocking Python socket, which it owns from now on.

    memory: the loop's DatagramMemory. address: where everything goes, or None. connection_made and
    the waiter follow in the next turn. The verb behind loop._make_datagram_transport.
    """
    cdef DatagramTransport transport = DatagramTransport.__new__(DatagramTransport)
    transport.loop = loop
    transport.memory = memory
    transport.file = sock
    transport.fd = sock.fileno()
    transport.socket_family = sock.family
    transport.address = address or None
    transport.protocol = protocol
    transport.context = PyContext_CopyCurrent()
    transport.extra = dict(extra or ())
    transport.extra["socket"] = trsock.TransportSocket(sock)
    for name, ask in (("sockname", sock.getsockname), ("peername", sock.getpeername)):
        if name not in transport.extra:
            try:
                transport.extra[name] = ask()
            except OSError:
                transport.extra[name] = None
    transport.is_connected = transport.extra["peername"] is not None
    transport.gso_max_bytes = np_dgram_gso_max_bytes(transport.fd)
    loop.own_fd(transport.fd, transport)
    loop.soon(transport._begin, (waiter,))
    return transport


seal_types(globals())
