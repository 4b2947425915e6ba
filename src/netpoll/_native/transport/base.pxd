# The seam of transport/base.pyx.

from netpoll._core cimport Completion


cdef class Transport(Completion):
    """What a StreamReader and a StreamWriter ask of a transport, whichever it is."""
    cdef int write_bytes(self, bytes data) except -1
    cdef object pull(self, Py_ssize_t size)
    cdef int unpull(self) except -1
