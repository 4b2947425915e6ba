# cython: language_level=3, freethreading_compatible=True
"""The reader of requests, without a connection: bytes in, events out.

It makes the calls that a server makes (np_http1.h, np_body.h), on a flow of unread pieces as a
connection has one, so what the tests feed here is read as it will be there.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free

from netpoll._native.c cimport (
    PyObject, Py_DECREF, Py_INCREF, iovec, np_iov, np_iov_advance, np_iov_close, np_iov_grow,
    np_iov_init, np_iov_pop, np_iov_push)
from netpoll._native.http.c cimport (
    NP_HTTP_CHUNKED, NP_HTTP_DONE, NP_HTTP_EXPECTS, NP_HTTP_FULL, NP_HTTP_HAS_LENGTH,
    NP_HTTP_KEEP_ALIVE, NP_HTTP_UPGRADES, NP_HTTP_WEBSOCKET, np_body, np_body_begin, np_body_read,
    np_field_unquote, np_http1, np_http1_begin, np_http1_close, np_http1_open, np_http1_read,
    np_http_default_limits, np_http_fault_of, np_http_field, np_http_limits, np_http_span)
from netpoll._native.http.request_limits cimport set_limits
from netpoll._native.limits cimport HTTP_SPANS_COUNT
from netpoll._native.seal cimport seal_types


cdef class RequestParser:
    """Reads requests one after the other; feed() returns what the bytes completed."""

    cdef np_http_limits limits
    cdef np_http1 request
    cdef np_http_field *fields
    cdef np_body body
    cdef np_iov unread
    cdef bint is_in_body
    cdef bint is_reading
    cdef object fault  # the event that ends everything, or None

    def __cinit__(self, *, line_max_bytes: int | None = None, head_max_bytes: int | None = None,
                  fields_max_count: int | None = None, body_max_bytes: int | None = None):
        np_iov_init(&self.unread)
        self.limits = np_http_default_limits()
        given = {"line_max_bytes": line_max_bytes, "head_max_bytes": head_max_bytes,
                 "fields_max_count": fields_max_count, "body_max_bytes": body_max_bytes}
        set_limits(&self.limits,
                   {name: value for name, value in given.items() if value is not None})
        self.fields = <np_http_field*>calloc(self.limits.fields_max_count + 1,
                                             sizeof(np_http_field))
        if self.fields is NULL:
            raise MemoryError
        np_http1_open(&self.request, self.fields, &self.limits)

    def __dealloc__(self):
        self.drop_all()
        np_iov_close(&self.unread)
        np_http1_close(&self.request)
        free(self.fields)

    @cython.critical_section
    def feed(self, data: bytes) -> list:
        """("head", dict), ("data", bytes), ("end",), and after a fault for ever one
        ("fault", name, status, section, sentence)."""
        events = []
        if self.is_reading:
            raise RuntimeError("RequestParser.feed() is running")
        if self.fault is not None:
            return [self.fault]
        self.is_reading = True
        try:
            self.push(data)
            self.read(events)
        finally:
            self.is_reading = False
        return events

    cdef int push(self, bytes data) except -1:
        if not data:
            return 0
        if self.unread.count == self.unread.cap and np_iov_grow(&self.unread) < 0:
            raise MemoryError
        np_iov_push(&self.unread, <void*>data, PyBytes_AS_STRING(data), len(data))
        Py_INCREF(<PyObject*>data)
        return 0

    cdef int drop(self, size_t taken_bytes) except -1:
        cdef void *owner
        while np_iov_advance(&self.unread, taken_bytes, &owner, 1) == 1:
            taken_bytes = 0
            Py_DECREF(<PyObject*>owner)
        return 0

    cdef int drop_all(self) except -1:
        cdef void *owner
        while True:
            owner = np_iov_pop(&self.unread)
            if owner is NULL:
                return 0
            Py_DECREF(<PyObject*>owner)

    cdef int read(self, list events) except -1:
        cdef size_t taken_bytes
        cdef int result = NP_HTTP_DONE
        while result == NP_HTTP_DONE and (self.is_in_body or self.unread.count):
            if self.is_in_body:
                result = self.read_body(events)
            else:
                result = np_http1_read(&self.request, &self.unread, &taken_bytes)
                if result == NP_HTTP_DONE:
                    events.append(("head", self.head()))
                    np_body_begin(&self.body, &self.request)
                    self.is_in_body = True
                if result >= 0:
                    self.drop(taken_bytes)
        if result < 0:
            self.fault = fault_event(result)
            events.append(self.fault)
            self.drop_all()
        return 0

    cdef int read_body(self, list events) except? -1:
        """What is there of the body, as one event."""
        cdef iovec spans[HTTP_SPANS_COUNT]
        cdef size_t taken_bytes
        cdef int i, count, result = NP_HTTP_FULL
        parts = []
        while result == NP_HTTP_FULL:
            result = np_body_read(&self.body, &self.unread, spans, HTTP_SPANS_COUNT, &count,
                                  &taken_bytes)
            for i in range(count):
                parts.append(PyBytes_FromStringAndSize(<char*>spans[i].iov_base,
                                                       <Py_ssize_t>spans[i].iov_len))
            self.drop(taken_bytes)
        if parts:
            events.append(("data", b"".join(parts)))
        if result == NP_HTTP_DONE:
            events.append(("end",))
            np_http1_begin(&self.request)
            self.is_in_body = False
        return result

    cdef bytes text(self, np_http_span span):
        return PyBytes_FromStringAndSize(<const char*>self.request.base + span.at, span.bytes)

    cdef dict head(self):
        cdef np_http1 *request = &self.request
        cdef np_http_field *field
        cdef uint32_t i
        fields = []
        for i in range(request.fields_count):
            field = &request.fields[i]
            fields.append((self.text(np_http_span(field.name_at, field.name_bytes)),
                           self.text(np_http_span(field.value_at, field.value_bytes))))
        return {
            "method": self.text(request.method_name),
            "target": self.text(request.target),
            "authority": self.text(request.authority),
            "path": unquote(self.text(request.path)),
            "query": self.text(request.query),
            "minor": request.minor,
            "fields": fields,
            "content_length": (request.content_length if request.flags & NP_HTTP_HAS_LENGTH
                               else None),
            "chunked": bool(request.flags & NP_HTTP_CHUNKED),
            "keep_alive": bool(request.flags & NP_HTTP_KEEP_ALIVE),
            "expects": bool(request.flags & NP_HTTP_EXPECTS),
            "upgrades": bool(request.flags & NP_HTTP_UPGRADES),
            "websocket": bool(request.flags & NP_HTTP_WEBSOCKET),
        }


cdef tuple fault_event(int fault):
    what = np_http_fault_of(fault)
    return ("fault", what.name.decode(), what.status, what.section.decode(),
            what.sentence.decode())


def unquote(path: bytes) -> bytes:
    """Decodes the percent signs of a path."""
    cdef int is_ascii
    cdef bytes target = PyBytes_FromStringAndSize(NULL, len(path))
    cdef size_t size_bytes = np_field_unquote(<const uint8_t*>PyBytes_AS_STRING(path), len(path),
                                              <uint8_t*>PyBytes_AS_STRING(target), &is_ascii)
    return target[:size_bytes]


seal_types(globals(), (RequestParser,))
