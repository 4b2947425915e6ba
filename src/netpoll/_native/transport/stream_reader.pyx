# cython: language_level=3, freethreading_compatible=True
"""asyncio's streams, served natively: the same classes to the user, none of their Python per read.

When a transport meets an unmodified asyncio.StreamReaderProtocol, the StreamReader's class is
exchanged for a subclass whose hot methods are here, and likewise the StreamWriter's that a server
hands to its callback. The private attributes that asyncio's own code and others look at (_buffer,
_eof, _exception, _paused) are still there, as properties over the same state.

A read is an awaitable with the coroutine protocol (PEP 492): it can be awaited, made a task,
passed to wait_for. Bytes leave the buffer only when the reading task has resumed, so a cancelled
read loses nothing.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongAndOverflow
from libc.string cimport memcpy

from netpoll._core cimport Completion
from netpoll._native.c cimport memmem
from netpoll._native.limits cimport PULL_MIN_BYTES
from netpoll._native.numbers cimport doubled_bytes
from netpoll._native.loop.awaitable cimport Awaitable, install_awaitable_slots
from netpoll._native.loop.ready cimport Ready, ready_as
from netpoll._native.seal cimport seal_types
from netpoll._native.transport.base cimport Transport
from netpoll._native.transport.endpoint cimport is_plain

import asyncio
from types import MethodType

cdef object BufferedProtocol = asyncio.BufferedProtocol
cdef object BaseReader = asyncio.StreamReader
cdef object BaseWriter = asyncio.StreamWriter
cdef object BaseProtocol = asyncio.StreamReaderProtocol
cdef object IncompleteReadError = asyncio.IncompleteReadError
cdef object LimitOverrunError = asyncio.LimitOverrunError
# What a program may have put others in the place of: then they are called.
cdef object PROTOCOL_DATA_RECEIVED = BaseProtocol.data_received
cdef object READER_FEED_DATA = BaseReader.feed_data
cdef object READER_READ = BaseReader.read
cdef object READER_READEXACTLY = BaseReader.readexactly
cdef object READER_READLINE = BaseReader.readline
cdef object READER_READUNTIL = BaseReader.readuntil
cdef object WRITER_DRAIN = BaseWriter.drain
cdef object WRITER_WRITE = BaseWriter.write

cdef enum:  # ReadOp.kind
    READ = 1
    EXACTLY
    UNTIL
    LINE
    ANY     # anything new: what asyncio's own coroutines wait for

cdef dict NAMES = {READ: "read", EXACTLY: "readexactly", UNTIL: "readuntil", LINE: "readuntil",
                   ANY: "read"}


cdef class Sink(Completion):
    cdef int feed(self, const char *data, Py_ssize_t size) except -1:
        """Bytes out of memory that is not ours to keep."""
        return self.feed_bytes(PyBytes_FromStringAndSize(data, size))

    cdef int feed_bytes(self, bytes data) except -1:
        """Bytes in an object."""
        return 0

    cdef int sent(self) except -1:
        """The transport has sent something."""
        return 0

    cdef bint woken(self) except -1:
        """Bulk data is there. True: a task has been woken that will receive it (pull)."""
        return False


cdef class ReaderCore(Sink):
    cdef Py_ssize_t available(self) noexcept:
        cdef Py_ssize_t size = PyByteArray_GET_SIZE(self.tail)
        if self.head is not None:
            size += PyBytes_GET_SIZE(self.head) - self.head_offset
        return size

    cdef bytearray join(self):
        """All in one bytearray: what reads across pieces need."""
        cdef Py_ssize_t head_size
        if self.head is not None:
            head_size = PyBytes_GET_SIZE(self.head) - self.head_offset
            if PyByteArray_GET_SIZE(self.tail):
                self.tail[0:0] = self.head[self.head_offset:]
            else:
                PyByteArray_Resize(self.tail, head_size)
                memcpy(PyByteArray_AS_STRING(self.tail),
                       PyBytes_AS_STRING(self.head) + self.head_offset, head_size)
            self.head = None
        return self.tail

    cdef bytes take(self, Py_ssize_t size):
        """Removes `size` bytes (no more than there are) from the front."""
        cdef bytes data
        cdef Py_ssize_t head_size
        if self.head is not None:
            head_size = PyBytes_GET_SIZE(self.head) - self.head_offset
            if size <= head_size:
                if size == head_size:
                    if self.head_offset == 0:
                        data = self.head
                    else:
                        data = PyBytes_FromStringAndSize(
                            PyBytes_AS_STRING(self.head) + self.head_offset, size)
                    self.head = None
                else:
                    data = PyBytes_FromStringAndSize(
                        PyBytes_AS_STRING(self.head) + self.head_offset, size)
                    self.head_offset += size
                return data
            self.join()
        data = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(self.tail), size)
        del self.tail[:size]
        return data

    cdef Py_ssize_t find(self, bytes separator, Py_ssize_t start) except -2:
        """Where the separator begins, searching from `start`; -1 when it is not there."""
        cdef const char *base
        cdef const char *at
        cdef Py_ssize_t size
        if self.head is not None and PyByteArray_GET_SIZE(self.tail) == 0:
            base = PyBytes_AS_STRING(self.head) + self.head_offset
            size = PyBytes_GET_SIZE(self.head) - self.head_offset
        else:
            self.join()
            base = PyByteArray_AS_STRING(self.tail)
            size = PyByteArray_GET_SIZE(self.tail)
        if start >= size:
            return -1
        at = <const char*>memmem(base + start, size - start, PyBytes_AS_STRING(separator),
                                 PyBytes_GET_SIZE(separator))
        return -1 if at is NULL else at - base

    cdef int feed(self, const char *data, Py_ssize_t size) except -1:
        """Bytes out of memory that is not ours to keep."""
        cdef Py_ssize_t old
        if self.head is None and PyByteArray_GET_SIZE(self.tail) == 0:
            self.head = PyBytes_FromStringAndSize(data, size)
            self.head_offset = 0
        else:
            old = PyByteArray_GET_SIZE(self.tail)
            PyByteArray_Resize(self.tail, old + size)
            memcpy(PyByteArray_AS_STRING(self.tail) + old, data, size)
        return self.fed()

    cdef int feed_bytes(self, bytes data) except -1:
        if PyBytes_GET_SIZE(data) == 0:
            return 0
        if self.head is None and PyByteArray_GET_SIZE(self.tail) == 0:
            self.head = data
            self.head_offset = 0
        else:
            self.tail += data
        return self.fed()

    cdef int fed(self) except -1:
        cdef ReadOp op = self.op
        if op is not None:
            if not op.satisfied():
                return 0  # it waits for more: no pausing at the limit either
            self.wake()
        if self.transport is not None and not self.paused \
                and <size_t>self.available() > self.double_limit_bytes:
            self.paused = True
            self.transport.pause_reading()
        return 0

    cdef int set_transport(self, object transport) except -1:
        self.transport = transport
        self.is_native = isinstance(transport, Transport)
        return 0

    cdef int wake(self) except -1:
        cdef ReadOp op = self.op
        if op is not None:
            self.op = None
            op.resume()
        return 0

    cdef bint woken(self) except -1:
        """A read with room for much receives itself, when its task runs."""
        if (self.op is None or self.op.kind != READ or self.op.size < PULL_MIN_BYTES
                or self.available() or not self.is_native):
            return False
        self.wake()
        return True

    cdef object pull(self, Py_ssize_t size):
        """What a read of `size` bytes that finds nothing buffered receives by itself, or None."""
        cdef Transport transport
        if not self.is_native:
            return None
        transport = <Transport>self.transport  # held: what is called may exchange it
        return transport.pull(size)

    cdef int resume_if_low(self) except -1:
        if self.paused and <size_t>self.available() <= self.double_limit_bytes // 2:
            self.paused = False
            self.transport.resume_reading()
        return 0


# ---- the awaitable ----------------------------------------------------------------------------

cdef class ReadOp(Awaitable):
    cdef str called(self):
        return "StreamReader." + ("readline" if self.kind == LINE else NAMES[self.kind])

    cdef object step(self):
        cdef ReaderCore core = self.core
        value = self.attempt()
        if value is not None or (self.kind == ANY and self.future is not None):
            self.is_done = True
            return value
        if core.op is not None:
            raise RuntimeError(f"{NAMES[self.kind]}() called while another coroutine is already "
                               "waiting for incoming data")
        if core.paused:  # everything that is there is not enough
            core.paused = False
            core.transport.resume_reading()
        core.op = self
        return self.wait_on(core.loop)

    cdef int abandon(self) except -1:
        cdef Transport transport
        if self.core.op is self:
            self.core.op = None
        elif self.core.is_native:
            transport = <Transport>self.core.transport
            transport.unpull()  # the task was woken, and is cancelled
        return 0

    cdef object attempt(self):
        """The result if it is complete, None if not."""
        cdef ReaderCore core = self.core
        cdef Py_ssize_t there
        if core.exception is not None and (self.kind != ANY or self.future is not None):
            raise core.exception
        if not core.eof and core.available() == 0:
            value = core.pull(self.size if self.kind == READ else 0)
            if value is not None:
                return value
        if self.kind == ANY:
            return None
        if self.kind >= UNTIL:
            return self.attempt_until()
        there = core.available()
        if self.kind == READ:
            if there == 0:
                return b"" if core.eof else None
            value = core.take(min(self.size, there))
        elif there >= self.size:
            value = core.take(self.size)
        elif core.eof:
            raise IncompleteReadError(core.take(there), self.size)
        else:
            return None
        if core.paused:
            core.resume_if_low()
        return value

    cdef object attempt_until(self):
        cdef ReaderCore core = self.core
        cdef Py_ssize_t there = core.available()
        cdef Py_ssize_t length = PyBytes_GET_SIZE(self.separator)
        cdef Py_ssize_t at = -1
        if there - self.offset >= length:
            at = core.find(self.separator, self.offset)
        if at >= 0:
            if <size_t>at > core.double_limit_bytes // 2:
                self.overrun("Separator is found, but chunk is longer than limit", at)
            value = core.take(at + length)
            if core.paused:
                core.resume_if_low()
            return value
        self.offset = max(self.offset, there + 1 - length)
        if self.offset > 0 and <size_t>self.offset > core.double_limit_bytes // 2:
            self.overrun("Separator is not found, and chunk exceed the limit", self.offset)
        if not core.eof:
            return None
        if self.kind == LINE:
            return core.take(there)
        raise IncompleteReadError(core.take(there), None)

    cdef int overrun(self, str message, Py_ssize_t consumed) except -1:
        """The limit is passed: readuntil leaves the bytes, readline drops the line."""
        cdef ReaderCore core = self.core
        if self.kind == LINE:
            tail = core.join()
            if tail.startswith(self.separator, consumed):
                del tail[:consumed + len(self.separator)]
            else:
                tail.clear()
            core.resume_if_low()
            raise ValueError(message)
        raise LimitOverrunError(message, consumed)

    cdef bint satisfied(self) except -1:
        """Whether what is there now ends the wait."""
        cdef ReaderCore core = self.core
        cdef Py_ssize_t there, length, at
        if self.kind == READ or self.kind == ANY:
            return True
        there = core.available()
        if self.kind == EXACTLY:
            return there >= self.size
        length = PyBytes_GET_SIZE(self.separator)
        if there - self.offset < length:
            return False
        at = core.find(self.separator, self.offset)
        if at >= 0:
            self.offset = at  # the task that wakes finds it at once
            return True
        self.offset = there + 1 - length
        return <size_t>self.offset > core.double_limit_bytes // 2


install_awaitable_slots(ReadOp, "StreamReader.read")
cdef Ready DRAINED = ready_as("StreamWriter.drain")  # there was nothing to wait for


# ---- the classes ------------------------------------------------------------------------------

cdef ReadOp new_op(object reader, int kind, Py_ssize_t size, bytes separator):
    cdef ReadOp op = ReadOp.__new__(ReadOp)
    op.core = <ReaderCore?>reader._core
    op.reader = reader
    op.kind = kind
    op.size = size
    op.separator = separator
    return op


cdef inline Py_ssize_t word(object n) except? -1:
    """-1 when n is no int, or one that no word holds: then asyncio's own code has to see to it."""
    cdef int overflow
    return PyLong_AsLongAndOverflow(n, &overflow) if type(n) is int else -1


class StreamReader(asyncio.StreamReader):
    """asyncio.StreamReader over a native buffer. Made by the transport, never by the user."""

    def read(self, n=-1):
        cdef Py_ssize_t size = word(n)
        if size > 0:
            return new_op(self, READ, size, None)
        return BaseReader.read(self, n)

    def readexactly(self, n):
        cdef Py_ssize_t size = word(n)
        if size > 0:
            return new_op(self, EXACTLY, size, None)
        return BaseReader.readexactly(self, n)

    def readline(self):
        return new_op(self, LINE, 0, b"\n")

    def readuntil(self, separator=b"\n"):
        if type(separator) is bytes and separator:
            return new_op(self, UNTIL, 0, separator)
        return BaseReader.readuntil(self, separator)

    def _wait_for_data(self, func_name):
        return new_op(self, ANY, 0, None)

    def _feed_data(self, data):
        cdef ReaderCore core = self._core
        assert not core.eof, "feed_data after feed_eof"
        core.feed_bytes(bytes(data))

    # Programs put another in its place, on one reader: ciphers, meters. Then the protocol's own
    # data_received() calls it, as on asyncio.

    @property
    def feed_data(self):
        return self.__dict__.get("feed_data", self._feed_data)

    @feed_data.setter
    def feed_data(self, value):
        cdef ReaderCore core = self._core
        self.__dict__["feed_data"] = value
        core.is_replaced = True
        if core.transport is not None:
            core.transport.set_protocol(core.transport.get_protocol())

    @feed_data.deleter
    def feed_data(self):
        try:
            del self.__dict__["feed_data"]
        except KeyError:
            raise AttributeError("feed_data") from None

    def _wakeup_waiter(self):
        cdef ReaderCore core = self._core
        core.wake()

    def set_exception(self, exc):
        cdef ReaderCore core = self._core
        core.exception = exc
        core.wake()

    def set_transport(self, transport):
        BaseReader.set_transport(self, transport)
        cdef ReaderCore core = self._core
        core.set_transport(transport)

    def at_eof(self):
        cdef ReaderCore core = self._core
        return bool(core.eof) and core.available() == 0

    @property
    def _buffer(self):
        cdef ReaderCore core = self._core
        return core.join()

    @_buffer.setter
    def _buffer(self, value):
        cdef ReaderCore core = self._core
        core.head = None
        core.tail = value if type(value) is bytearray else bytearray(value)

    @property
    def _eof(self):
        cdef ReaderCore core = self._core
        return bool(core.eof)

    @_eof.setter
    def _eof(self, value):
        cdef ReaderCore core = self._core
        core.eof = value

    @property
    def _exception(self):
        cdef ReaderCore core = self._core
        return core.exception

    @_exception.setter
    def _exception(self, value):
        cdef ReaderCore core = self._core
        core.exception = value

    @property
    def _paused(self):
        cdef ReaderCore core = self._core
        return bool(core.paused)

    @_paused.setter
    def _paused(self, value):
        cdef ReaderCore core = self._core
        core.paused = value

    @property
    def _limit(self):
        return self.__dict__["_limit"]

    @_limit.setter
    def _limit(self, value):
        cdef ReaderCore core = self._core
        core.double_limit_bytes = doubled_bytes(value)
        self.__dict__["_limit"] = value

    @property
    def _waiter(self):
        cdef ReaderCore core = self._core
        return None if core.op is None else core.op.future

    @_waiter.setter
    def _waiter(self, value):
        if value is not None:
            raise AttributeError("the waiter of a native StreamReader is made by its reads")


class StreamWriter(asyncio.StreamWriter):
    """asyncio.StreamWriter whose write and drain are native."""

    def write(self, data):
        transport = self._transport
        if type(data) is not bytes:
            transport.write(data)
        elif isinstance(transport, Transport) and is_plain(transport):
            (<Transport>transport).write_bytes(<bytes>data)
        else:  # of another make, or with a write of somebody's own
            transport.write(data)

    def drain(self):
        transport = self._transport
        reader = self._reader
        if type(reader) is not StreamReader or not isinstance(transport, Transport):
            return BaseWriter.drain(self)
        if (<ReaderCore>reader._core).exception is not None or transport.is_closing() \
                or self._protocol._paused:
            return BaseWriter.drain(self)
        return DRAINED


cdef class WriterExchange:
    """Stands before a server's client_connected_cb and makes its StreamWriter a native one."""
    cdef object callback

    def __call__(self, reader, writer):
        if type(writer) is BaseWriter and BaseWriter.write is WRITER_WRITE \
                and BaseWriter.drain is WRITER_DRAIN:
            writer.__class__ = StreamWriter
        return self.callback(reader, writer)


cdef bint is_buffered(object protocol) except -1:
    """A BufferedProtocol. uvloop's programs need not derive from it."""
    return isinstance(protocol, BufferedProtocol) or (
        hasattr(protocol, "get_buffer") and not hasattr(protocol, "data_received"))


cdef bint is_own(object method, object function) except -1:
    """Whether a bound method is asyncio's."""
    return type(method) is MethodType and method.__func__ is function


cdef bint reads_are_own() except -1:
    """Whether those are that the native StreamReader has others for."""
    return BaseReader.read is READER_READ and BaseReader.readline is READER_READLINE \
        and BaseReader.readexactly is READER_READEXACTLY \
        and BaseReader.readuntil is READER_READUNTIL


cdef Sink adopt_reader(object protocol, object transport):
    """Who takes the bytes natively: the buffer of an unmodified StreamReaderProtocol's reader, or
    the protocol itself if it is a Sink. None for any other."""
    cdef ReaderCore core
    cdef WriterExchange exchange
    if isinstance(protocol, Sink):
        return <Sink>protocol
    if type(protocol) is not BaseProtocol \
            or not is_own(protocol.data_received, PROTOCOL_DATA_RECEIVED):
        return None
    known = type(protocol._stream_reader) is StreamReader
    core = adopt_stream_reader(protocol._stream_reader, transport)
    if core is None or known:
        return core
    callback = protocol._client_connected_cb
    if callback is not None:
        exchange = WriterExchange.__new__(WriterExchange)
        exchange.callback = callback
        protocol._client_connected_cb = exchange
    return core


cdef ReaderCore adopt_stream_reader(object reader, object transport):
    """Makes a fresh asyncio.StreamReader a native one; None when it is something else."""
    cdef ReaderCore core
    if type(reader) is StreamReader:
        core = reader._core
        core.set_transport(transport)
        return None if core.is_replaced else core
    if type(reader) is not BaseReader or reader._waiter is not None \
            or not is_own(reader.feed_data, READER_FEED_DATA) or not reads_are_own():
        return None
    state = reader.__dict__
    if type(state.get("_buffer")) is not bytearray:
        return None
    core = ReaderCore.__new__(ReaderCore)
    core.tail = state.pop("_buffer")
    core.eof = state.pop("_eof")
    core.exception = state.pop("_exception")
    core.paused = state.pop("_paused")
    state.pop("_waiter")
    core.double_limit_bytes = doubled_bytes(state["_limit"])
    core.loop = state["_loop"]
    core.set_transport(transport)
    state["_core"] = core
    reader.__class__ = StreamReader
    return core


seal_types(globals())
