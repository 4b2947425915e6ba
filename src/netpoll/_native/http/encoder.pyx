# cython: language_level=3, freethreading_compatible=True
"""What encodes the body of one answer. This one drops it; http/compression.pyx has another one."""

from libc.stdint cimport int64_t

from netpoll._native.http.answer_head cimport Fields
from netpoll._native.http.c cimport np_http1
from netpoll._native.seal cimport seal_types
from netpoll._native.server.host cimport FileSpan


cdef class AnswerCoding:
    cdef object accepted(self, const np_http1 *request):
        """The coding that the peer likes best, or None."""
        return None

    cdef bytes begin(self, object wire, int status, list pairs, Fields *told, bytes body,
                     bint is_file):
        """Changes the fields of an answer that is encoded. Returns the body: encoded, for a
        wire.encoder, or None when it is not known yet. wire: a Wire."""
        return body


cdef class Encoder:
    cdef int write(self, bytes data) except -1:
        """A part of the body, which is put into the wire now or later."""
        return 0

    cdef int write_span(self, FileSpan span, int64_t offset, int64_t size) except -1:
        """A part that is in a file."""
        return 0

    cdef bint end(self) except -1:
        """That was all. False: not all of it is put yet; wire.end_answer() follows."""
        return True

    cdef object room(self):
        """An awaitable that ends when most of what was written is put; None: it is."""
        return None

    cdef int drop(self) except -1:
        """Nobody wants the answer any more."""
        return 0


seal_types(globals(), (AnswerCoding,))
