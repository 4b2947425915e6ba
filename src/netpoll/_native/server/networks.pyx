# cython: language_level=3, freethreading_compatible=True
"""Networks of proxies whose word counts (csrc/server/np_proxy.h)."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netpoll._native.c cimport np_network, np_networks_have, np_peer
from netpoll._native.seal cimport seal_types

import ipaddress
import socket as py_socket

cdef int _AF_UNSPEC = int(py_socket.AF_UNSPEC)
cdef int _AF_INET = int(py_socket.AF_INET)
cdef int _AF_INET6 = int(py_socket.AF_INET6)


cdef class Networks:
    """words: addresses and networks with commas between them, or "*" for everybody. Raises
    ValueError for what is none.

    The peer of a Unix socket is always trusted: the permissions of the socket's file say who that
    may be.
    """

    def __cinit__(self, str words not None):
        cdef list parts = [word.strip() for word in words.split(",") if word.strip()]
        cdef bytes address
        self.each = <np_network*>calloc(len(parts) + 1, sizeof(np_network))
        if self.each is NULL:
            raise MemoryError
        for word in parts:
            if word != "*":  # else family 0, which has every address
                network = ipaddress.ip_network(word)
                address = network.network_address.packed
                self.each[self.count].family = _AF_INET if network.version == 4 else _AF_INET6
                self.each[self.count].bits = network.prefixlen
                memcpy(self.each[self.count].address, PyBytes_AS_STRING(address), len(address))
            self.count += 1

    def __dealloc__(self):
        free(self.each)

    cdef bint have(self, np_peer *peer) noexcept:
        return peer.family == _AF_UNSPEC or np_networks_have(self.each, self.count, peer)


seal_types(globals(), (Networks,))
