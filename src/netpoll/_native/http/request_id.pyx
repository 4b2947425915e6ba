# cython: language_level=3, freethreading_compatible=True
"""A name for each request, by which the logs of several programs are put together."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint8_t

from netpoll._native.http.answer_head cimport Fields
from netpoll._native.http.c cimport (
    NP_ANSWER_FIELD_EXTRA_BYTES, NP_FIELD_OTHER, np_answer_check, np_http1, np_http_field_id)
from netpoll._native.http.request_head cimport text_of
from netpoll._native.limits cimport HTTP_REQUEST_ID_MAX_BYTES
from netpoll._native.seal cimport seal_types

import os
import re

# What goes into a log as it is, and into the application: nothing that quotes or ends anything.
cdef object SANE = re.compile(rb"[A-Za-z0-9._~+/=:@-]+").fullmatch


cdef class RequestIds:
    """Of one worker. name: of the field that has the id in requests and in answers."""

    def __cinit__(self, bytes name not None):
        cdef const uint8_t *at
        self.name = name.lower()
        at = <const uint8_t*>PyBytes_AS_STRING(self.name)
        if np_answer_check(at, PyBytes_GET_SIZE(self.name), at, 0):
            raise ValueError(f"not a name of a field: {name!r}")
        self.number = np_http_field_id(at, PyBytes_GET_SIZE(self.name))
        self.prefix = os.urandom(8).hex().encode()

    cdef bytes of(self, const np_http1 *request):
        """That of the request, if it is one and sane, or a new one."""
        cdef bytes found = None
        cdef uint32_t i
        for i in range(request.fields_count):
            field = &request.fields[i]
            if field.id != self.number or field.name_bytes != PyBytes_GET_SIZE(self.name):
                continue
            if self.number == NP_FIELD_OTHER and text_of(
                    request, field.name_at, field.name_bytes).lower() != self.name:
                continue
            if found is not None or field.value_bytes > HTTP_REQUEST_ID_MAX_BYTES:
                return self.make()
            found = text_of(request, field.value_at, field.value_bytes)
        return found if found is not None and SANE(found) else self.make()

    cdef bytes make(self):
        self.made_count += 1
        return self.prefix + f"{self.made_count:016x}".encode()

    cdef int put(self, list headers, bytes request_id) except -1:
        """Into an application's pairs, instead of what the peer has sent."""
        headers[:] = [pair for pair in headers if (<tuple>pair)[0] != self.name]
        headers.append((self.name, request_id))
        return 0

    cdef int tell(self, bytes request_id, list pairs, Fields *told) except -1:
        """Into the fields of an answer (checked_fields), unless the application has said it."""
        for name, _ in pairs:
            if len(name) == PyBytes_GET_SIZE(self.name) and (<bytes>name).lower() == self.name:
                return 0
        pairs.append((self.name, request_id))
        told.bytes += PyBytes_GET_SIZE(self.name) + PyBytes_GET_SIZE(request_id) \
            + NP_ANSWER_FIELD_EXTRA_BYTES
        return 0


seal_types(globals(), (RequestIds,))
