# The seam of transport/stream_reader.pyx: what the transport calls.

from netpoll._core cimport Completion
from netpoll._native.loop.awaitable cimport Awaitable


cdef class Sink(Completion):
    """A protocol that takes received bytes natively: a stream's buffer, or TLS."""
    cdef int feed(self, const char *data, Py_ssize_t size) except -1
    cdef int feed_bytes(self, bytes data) except -1
    cdef int sent(self) except -1
    cdef bint woken(self) except -1


cdef class ReaderCore(Sink):
    """The buffer of one StreamReader: `head` from head_offset on, then `tail`."""
    cdef bytes head             # one received piece, handed on uncopied when a read takes it whole
    cdef Py_ssize_t head_offset
    cdef bytearray tail
    cdef object transport       # None: nobody to pause
    cdef object loop
    cdef object exception       # what the next read raises
    cdef ReadOp op              # the read that waits
    cdef size_t double_limit_bytes  # 2 * the limit, which may be a fraction
    cdef bint eof, paused
    cdef bint is_replaced       # feed_data is the program's: asyncio's own code feeds it
    cdef bint is_native         # the transport is a Transport

    cdef Py_ssize_t available(self) noexcept
    cdef bytearray join(self)
    cdef bytes take(self, Py_ssize_t size)
    cdef int set_transport(self, object transport) except -1
    cdef int wake(self) except -1
    cdef object pull(self, Py_ssize_t size)
    cdef int fed(self) except -1
    cdef int resume_if_low(self) except -1
    cdef Py_ssize_t find(self, bytes separator, Py_ssize_t start) except -2


cdef class ReadOp(Awaitable):
    """One read(), readexactly(), readuntil() or readline(): the awaitable that it returns."""
    cdef ReaderCore core
    cdef object reader          # kept alive: its protocol knows it only weakly
    cdef bytes separator
    cdef Py_ssize_t size        # bytes asked for
    cdef Py_ssize_t offset      # UNTIL, LINE: the separator is not before this
    cdef int kind

    cdef object attempt(self)
    cdef object attempt_until(self)
    cdef int overrun(self, str message, Py_ssize_t consumed) except -1
    cdef bint satisfied(self) except -1


cdef bint is_buffered(object protocol) except -1
cdef Sink adopt_reader(object protocol, object transport)
cdef ReaderCore adopt_stream_reader(object reader, object transport)
