# cython: language_level=3, freethreading_compatible=True
"""What streams (transport/stream_reader.pyx) ask of the transports below them, plain or TLS.

It stands in a file of its own so that streams need not know the transports, which know them.
"""

from netpoll._core cimport Completion
from netpoll._native.seal cimport seal_types


cdef class Transport(Completion):
    cdef int write_bytes(self, bytes data) except -1:
        """write(), of a bytes object."""
        self.write(data)
        return 0

    cdef object pull(self, Py_ssize_t size):
        """What a read of `size` bytes that finds nothing buffered receives by itself, or None."""
        return None

    cdef int unpull(self) except -1:
        """The task that was woken to receive (Sink.woken) does not: the transport receives."""
        return 0


seal_types(globals())
