# cython: language_level=3, freethreading_compatible=True
"""What the access log is told of requests. Lines are made of it later, many at once."""

from libc.stdint cimport int64_t, uint32_t
from libc.time cimport time

from netpoll._native.c cimport np_clock_ns
from netpoll._native.http.c cimport (
    NP_FIELD_REFERER, NP_FIELD_USER_AGENT, np_http1, np_http_field)
from netpoll._native.http.request_head cimport text_of
from netpoll._native.limits cimport HTTP_NOTES_COUNT
from netpoll._native.seal cimport seal_types
from netpoll._native.http.forwarded cimport Forwarded
from netpoll._native.server.addresses cimport Addresses
from netpoll._native.server.connection cimport Connection


cdef bytes line_of(const np_http1 *request):
    cdef int64_t start = request.method_name.at
    line = text_of(request, start, request.target.at + request.target.bytes - start)
    return line + (b" HTTP/1.1" if request.minor else b" HTTP/1.0")


cdef class AccessNotes:
    """The notes of one worker. write: a function that takes a list of them, about once a second or
    when there are many. A note is (request, status, bytes, second, nanoseconds); its request is
    (peer, nanosecond of its begin, first line, Referer, User-Agent), the last three bytes or None.
    """

    def __cinit__(self, write not None, Addresses addresses not None):
        self.write = write
        self.notes = []
        self.addresses = addresses

    cdef tuple begin(self, Connection face, const np_http1 *request, Forwarded forwarded):
        """request: NULL when its head could not be read."""
        cdef const np_http_field *field
        cdef uint32_t i
        line = referer = agent = None
        if request is not NULL:
            line = line_of(request)
            for i in range(request.fields_count):
                field = &request.fields[i]
                if field.id == NP_FIELD_USER_AGENT:
                    agent = text_of(request, field.value_at, field.value_bytes)
                elif field.id == NP_FIELD_REFERER:
                    referer = text_of(request, field.value_at, field.value_bytes)
        if len(self.notes) >= HTTP_NOTES_COUNT and not self.is_called:
            self.is_called = True
            face.host.loop.call_soon(self.flush_now)  # what is written to may be anybody's code
        client = self.addresses.client(face)
        if forwarded is not None and request is not NULL:
            client = forwarded.told(request, client, None)[0]
        peer = client[0] if client is not None else "-"
        return peer, np_clock_ns(), line, referer, agent

    cdef int end(self, tuple begun, int status, int64_t sent_bytes) except -1:
        self.notes.append(
            (begun, status, sent_bytes, time(NULL), np_clock_ns() - <int64_t>begun[1]))
        return 0

    def flush_now(self):
        self.is_called = False
        self.flush()

    cdef int flush(self) except -1:
        notes = self.notes
        if notes:
            self.notes = []
            self.write(notes)
        return 0


seal_types(globals())
