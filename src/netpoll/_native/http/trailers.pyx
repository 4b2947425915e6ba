# cython: language_level=3, freethreading_compatible=True
"""Trailers: fields behind the body of an answer, which are known when the body is.

RFC 9110 6.5, RFC 9112 7.1.2. They need "chunked" framing, and a peer that has said "TE: trailers":
any other may drop them, so it is not sent any.
"""

from netpoll._native.http.answer_head cimport Fields, checked_fields
from netpoll._native.http.c cimport NP_HTTP_TAKES_TRAILERS, np_answer_has_body
from netpoll._native.http.wire cimport Wire
from netpoll._native.seal cimport seal_types

# RFC 9110 6.5.1: what frames or routes a message, says how its content is to be read, controls
# the answer or authenticates has to be known before the body.
cdef frozenset HEAD_ONLY = frozenset(
    b"age authorization cache-control connection content-encoding content-length content-range"
    b" content-type date expect expires host keep-alive location proxy-authenticate"
    b" proxy-authorization proxy-connection retry-after set-cookie te trailer transfer-encoding"
    b" upgrade vary warning www-authenticate".split())


cdef bint may_have_trailers(Wire wire, int status) noexcept:
    """An answer with this status, whose head is not written yet, unless it has a length."""
    return wire.request.minor and wire.request.flags & NP_HTTP_TAKES_TRAILERS != 0 \
        and np_answer_has_body(wire.request.method, status)


cdef bint has_trailers(Wire wire) noexcept:
    """The answer, whose head is written, has a place for them, and the peer takes them."""
    return wire.is_chunked and wire.has_body and wire.request.flags & NP_HTTP_TAKES_TRAILERS != 0


cdef bytes last_chunk(list fields):
    """What ends a chunked body, with these fields: pairs of bytes. Raises TypeError and ValueError
    for what is none, and for one that has to be in the head."""
    cdef Fields told
    for name, _ in fields:
        if isinstance(name, bytes) and (<bytes>name).lower() in HEAD_ONLY:
            raise ValueError(f"the field {name!r} has to be in the head, not in the trailers")
    lines = [name + b": " + value + b"\r\n" for name, value in checked_fields(fields, &told)]
    return b"0\r\n" + b"".join(lines) + b"\r\n"


seal_types(globals())
