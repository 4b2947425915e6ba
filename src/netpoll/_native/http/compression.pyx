# cython: language_level=3, freethreading_compatible=True
"""Answers that leave encoded: which, and by whom. One place for all interfaces.

    head written -> suits? -> small and whole: encoded now, with its length
                           -> else: part by part, each one flushed, so that a stream stays live
                              (a large part in a thread; what is written then waits behind it)
"""

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t

from netpoll._native.http.answer_head cimport Fields
from netpoll._native.http.c cimport (
    NP_ANSWER_FIELD_EXTRA_BYTES, NP_FIELD_ACCEPT_ENCODING, np_http1)
from netpoll._native.http.encoder cimport AnswerCoding, Encoder
from netpoll._native.http.request_head cimport text_of
from netpoll._native.http.wire cimport Wire
from netpoll._native.limits cimport FILE_BUDGET_BYTES, HTTP_MEDIA_TYPES_MAX_COUNT
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.host cimport FileSpan

import os

cdef bytes VARY = b"accept-encoding"


cdef class Compression(AnswerCoding):
    """Of one worker.

    choose(accepted): the coding for a value of Accept-Encoding, or None. coders: coding -> a
    function that makes an object with encode(data), finish() and whole(data). suits(media type):
    whether it is worth it. submit(function): runs it in a thread. report(message, error).
    """

    cdef object choose, suits, submit, report
    cdef dict coders
    cdef dict known             # value of Content-Type -> suits
    cdef Py_ssize_t min_bytes, thread_min_bytes

    def __cinit__(self, choose, dict coders not None, suits, submit, report,
                  Py_ssize_t min_bytes, Py_ssize_t thread_min_bytes):
        self.choose = choose
        self.coders = coders
        self.suits = suits
        self.submit = submit
        self.report = report
        self.known = {}
        self.min_bytes = min_bytes
        self.thread_min_bytes = thread_min_bytes

    cdef object accepted(self, const np_http1 *request):
        cdef uint32_t i
        cdef str value = None
        for i in range(request.fields_count):
            if request.fields[i].id == NP_FIELD_ACCEPT_ENCODING:
                more = text_of(request, request.fields[i].value_at,
                               request.fields[i].value_bytes).decode("latin-1")
                value = more if value is None else value + "," + more
        return self.choose(value) if value is not None else None

    cdef bytes begin(self, object answering, int status, list pairs, Fields *told, bytes body,
                     bint is_file):
        cdef Wire wire = <Wire?>answering
        cdef StreamEncoder encoder
        coding = wire.coding
        if status == 304:
            if coding is not None and weaken(pairs):  # as the answer that it stands for
                vary(pairs)
                measure(pairs, told)
            return body
        if is_file or status == 204 or status == 206 or not self.is_worth_it(pairs) \
                or 0 <= wire.left_bytes < self.min_bytes:
            return body
        vary(pairs)
        if coding is not None:
            weaken(pairs)
            drop(pairs, b"accept-ranges")  # parts would be of what is not encoded
            pairs.append((b"content-encoding", (<str>coding).encode()))
            told.length_bytes = -1
        measure(pairs, told)
        if coding is None:
            return body
        if not wire.has_body:
            wire.is_encoded = True
            return body
        coder = self.coders[coding]()
        if body is not None and PyBytes_GET_SIZE(body) < self.thread_min_bytes:
            body = <bytes?>coder.whole(body)
            wire.left_bytes = PyBytes_GET_SIZE(body)
            return body
        encoder = StreamEncoder.__new__(StreamEncoder)
        encoder.wire = wire
        encoder.face = wire.face
        encoder.compression = self
        encoder.coder = coder
        encoder.waiting = []
        encoder.drained = []
        wire.is_encoded = True
        wire.encoder = encoder
        return body

    cdef bint is_worth_it(self, list pairs) except -1:
        media_type = None
        for name, value in pairs:
            lower = (<bytes>name).lower()
            if lower == b"content-encoding" or lower == b"content-range" \
                    or lower == b"cache-control" and b"no-transform" in (<bytes>value).lower():
                return False
            if lower == b"content-type":
                media_type = value
        if media_type is None:
            return False
        found = self.known.get(media_type)
        if found is None:
            if len(self.known) >= HTTP_MEDIA_TYPES_MAX_COUNT:
                self.known.clear()
            found = self.known[media_type] = bool(self.suits(media_type))
        return found


# ---- fields of an answer: pairs of checked_fields -----------------------------------------------

cdef int measure(list pairs, Fields *told) except -1:
    """What the changed fields need."""
    told.bytes = 0
    for name, value in pairs:
        told.bytes += PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value) + NP_ANSWER_FIELD_EXTRA_BYTES
    return 0


cdef int vary(list pairs) except -1:
    for name, value in pairs:
        if (<bytes>name).lower() == b"vary" and (VARY in (<bytes>value).lower()
                                                 or value == b"*"):
            return 0
    pairs.append((b"vary", VARY))
    return 0


cdef bint weaken(list pairs) except -1:
    """The same content in other bytes has a weak validator (RFC 9110 8.8.1). True: there is one."""
    cdef Py_ssize_t i
    for i in range(len(pairs)):
        name, value = pairs[i]
        if (<bytes>name).lower() == b"etag":
            if not (<bytes>value).startswith(b"W/"):
                pairs[i] = (name, b"W/" + value)
            return True
    return False


cdef int drop(list pairs, bytes wanted) except -1:
    pairs[:] = [pair for pair in pairs if (<bytes>(<tuple>pair)[0]).lower() != wanted]
    return 0


# ---- part by part -------------------------------------------------------------------------------

cdef class StreamEncoder(Encoder):
    cdef Wire wire              # None: nobody wants it any more
    cdef Connection face
    cdef Compression compression
    cdef object coder           # used by one thread at a time
    cdef list waiting           # parts behind the one that a thread has
    cdef list drained           # futures of those who wait for room
    cdef bint is_busy           # a thread has a part
    cdef bint has_ended

    cdef int write(self, bytes data) except -1:
        cdef Wire wire
        if self.is_busy:
            self.waiting.append(data)
        elif PyBytes_GET_SIZE(data) >= self.compression.thread_min_bytes:
            self.give(data)
        else:
            encoded = self.coder.encode(data)
            wire = self.wire  # that has run code, which may have ended the connection
            return wire.put_data(encoded) if wire is not None else 0
        return 0

    cdef int write_span(self, FileSpan span, int64_t offset, int64_t size) except -1:
        while size > 0:
            data = os.pread(span.fd, min(size, FILE_BUDGET_BYTES), offset)
            if not data:
                raise EOFError("a file became shorter while it was being sent")
            self.write(data)
            offset += len(data)
            size -= len(data)
        return 0

    cdef int give(self, bytes data) except -1:
        """To a thread."""
        loop = self.face.host.loop
        self.is_busy = True
        self.compression.submit(lambda: self._encode(loop, data))
        return 0

    def _encode(self, loop, data):
        """In a thread."""
        result, error = None, None
        try:
            result = self.coder.encode(data)
        except BaseException as exc:
            error = exc
        try:
            loop.call_soon_threadsafe(self._encoded, result, error)
        except RuntimeError:
            pass  # the loop is closed, and with it the connection

    def _encoded(self, result, error):
        """In the loop."""
        self.is_busy = False
        try:
            if error is not None:
                raise error
            self.go_on(result)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.failed(exc)

    cdef int go_on(self, bytes encoded) except -1:
        cdef Wire wire = self.wire
        if wire is None:
            return 0
        wire.put_data(encoded)
        if self.waiting:
            parts = self.waiting
            self.waiting = []
            self.give(b"".join(parts))
        elif self.has_ended:
            wire.is_done = False
            wire.end_answer()
        return self.wake()

    cdef int failed(self, object error) except -1:
        cdef Wire wire = self.wire
        self.compression.report("an answer could not be encoded", error)
        return wire.abort() if wire is not None else 0

    cdef int wake(self) except -1:
        futures = self.drained
        self.drained = []
        for future in futures:
            if not future.done():
                future.set_result(None)
        return 0

    cdef bint end(self) except -1:
        cdef Wire wire = self.wire
        if self.is_busy:
            self.has_ended = True
            wire.exchange = None  # the application has done its part
            if not wire.is_paused():
                self.face.pause_reading()
            return False
        encoded = self.coder.finish()
        if self.wire is None:  # that has run code, which has ended the connection
            return False
        self.wire = wire.encoder = None
        wire.put_data(encoded)
        return True

    cdef object room(self):
        if not self.is_busy:
            return None
        future = self.face.host.loop.create_future()
        self.drained.append(future)
        return future

    cdef int drop(self) except -1:
        self.wire = None
        self.waiting = []
        return self.wake()


seal_types(globals(), (Compression,))
