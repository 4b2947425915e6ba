# cython: language_level=3, freethreading_compatible=True
"""Who the client of a request is, when a proxy in front says so: X-Forwarded-For and -Proto.

Anybody can send these fields. So they count only from peers that are trusted, and of a list of
addresses only those behind the last one that is not: what stands before it is what it said itself.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport uint8_t

from netpoll._native.c cimport np_forwarded_client, np_peer, np_peer_read
from netpoll._native.http.c cimport (
    NP_FIELD_X_FORWARDED_FOR, NP_FIELD_X_FORWARDED_PROTO, np_http1, np_http_field)
from netpoll._native.limits cimport ADDRESSES_KNOWN_MAX_COUNT
from netpoll._native.seal cimport seal_types
from netpoll._native.server.networks cimport Networks

import socket as py_socket

cdef int _AF_UNSPEC = int(py_socket.AF_UNSPEC)
cdef int _AF_INET = int(py_socket.AF_INET)
cdef dict SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


cdef class Forwarded:
    """Whom one worker believes."""

    def __cinit__(self, Networks networks not None):
        self.networks = networks
        self.known = {}

    cdef tuple told(self, const np_http1 *request, tuple client, str scheme):
        """(client, scheme) of a request, for those of its connection."""
        if not self.trusts(client):
            return client, scheme
        return self.client(request, client), self.scheme(request) or scheme

    cdef bint trusts(self, tuple client) except -1:
        """The peer (host, port) of a connection; None is that of a Unix socket."""
        cdef np_peer peer
        if client is None:
            return True
        known = self.known.get(client[0])
        if known is not None:
            return known
        host = client[0].encode("latin-1", "replace")
        known = np_peer_read(<const uint8_t*><char*>host, len(host), &peer) == 0 \
            and self.networks.have(&peer)
        if len(self.known) >= ADDRESSES_KNOWN_MAX_COUNT:
            self.known.clear()
        self.known[client[0]] = known
        return known

    cdef tuple client(self, const np_http1 *request, tuple client):
        """(host, port) of who has made the request; port 0 when nobody says it. client: the peer,
        which is trusted. The last field counts first, and the others if all of it are trusted."""
        cdef const np_http_field *field
        cdef const uint8_t *value
        cdef np_peer peer
        cdef size_t at = 0, size = 0
        cdef int result, i
        for i in range(<int>request.fields_count - 1, -1, -1):
            field = &request.fields[i]
            if field.id != NP_FIELD_X_FORWARDED_FOR:
                continue
            value = request.base + field.value_at
            result = np_forwarded_client(value, field.value_bytes, self.networks.each,
                                         self.networks.count, &at, &size, &peer)
            if result >= 0:
                client = (name_of(&peer, value + at, size), peer.port)
            if result > 0:
                break
        return client

    cdef str scheme(self, const np_http1 *request):
        """http or https, if a field says it; else None."""
        cdef const np_http_field *field
        cdef int i
        for i in range(<int>request.fields_count - 1, -1, -1):
            field = &request.fields[i]
            if field.id == NP_FIELD_X_FORWARDED_PROTO:
                word = PyUnicode_DecodeLatin1(
                    <const char*>request.base + field.value_at, field.value_bytes, NULL)
                return SCHEMES.get(word.strip().lower())
        return None


cdef str name_of(np_peer *peer, const uint8_t *text, size_t size):
    """The address; or what stands there instead of one ("unknown")."""
    if peer.family == _AF_UNSPEC:
        return PyUnicode_DecodeLatin1(<const char*>text, size, NULL)
    size = 4 if peer.family == _AF_INET else 16
    return py_socket.inet_ntop(
        peer.family, PyBytes_FromStringAndSize(<char*>peer.address, size))


seal_types(globals(), (Forwarded,))
