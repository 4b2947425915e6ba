# cython: language_level=3, freethreading_compatible=True
"""Pages that the server answers itself, before its application: health, metrics."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from netpoll._native.http.c cimport NP_FIELD_ACCEPT, NP_HTTP_GET, NP_HTTP_HEAD
from netpoll._native.http.request_head cimport text_of
from netpoll._native.http.wire cimport Application, Wire
from netpoll._native.seal cimport seal_types


cdef class OwnPages(Application):
    """pages: path -> a function of the request's Accept (or None) that gives (status, fields,
    body). Other paths are the application's. report(message, error): tells of one that failed."""

    cdef Application inner
    cdef list pages             # (path, function)
    cdef object report

    def __cinit__(self, Application inner not None, dict pages not None, report):
        self.inner = inner
        self.pages = [(<bytes?>path, page) for path, page in pages.items()]
        self.report = report

    cdef int begin(self, Wire wire) except -1:
        cdef bytes path
        for path, page in self.pages:
            if <uint32_t>PyBytes_GET_SIZE(path) == wire.request.path.bytes and memcmp(
                    wire.request.base + wire.request.path.at, PyBytes_AS_STRING(path),
                    wire.request.path.bytes) == 0:
                return self.answer(wire, page)
        return self.inner.begin(wire)

    cdef int answer(self, Wire wire, object page) except -1:
        cdef uint32_t i
        accept = None
        for i in range(wire.request.fields_count):
            if wire.request.fields[i].id == NP_FIELD_ACCEPT:
                accept = text_of(&wire.request, wire.request.fields[i].value_at,
                                 wire.request.fields[i].value_bytes).decode("latin-1")
        wire.take_head()
        if wire.request.method != NP_HTTP_GET and wire.request.method != NP_HTTP_HEAD:
            return wire.write_whole(405, [(b"allow", b"GET, HEAD")], b"")
        try:
            status, fields, body = page(accept)
            return wire.write_whole(status, fields, body)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report("a page of the server itself failed", exc)
            return wire.abort() if wire.has_head else wire.write_whole(500, None, b"")


seal_types(globals(), (OwnPages,))
