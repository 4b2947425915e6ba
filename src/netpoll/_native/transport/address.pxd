# The seam of transport/address.pyx: socket addresses as the kernel and as Python have them.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from netpoll._native.c cimport PyObject, np_dgram_in, np_peer, sockaddr

cdef enum:
    ADDRESS_MAX_BYTES = 112     # a sockaddr_un, the longest of those made here
    CACHE_SETS = 256            # of two entries each


cdef class Address:
    cdef readonly object key    # the tuple, str, bytes or None that Python has for it
    cdef uint32_t size_bytes
    cdef uint8_t raw[ADDRESS_MAX_BYTES]

    cdef uint16_t family(self) noexcept


cdef struct Alias:
    PyObject *key
    PyObject *address


cdef class DatagramMemory:
    cdef np_dgram_in *received
    cdef PyObject *by_name[2 * CACHE_SETS]
    cdef Alias by_key[2 * CACHE_SETS]

    cdef Address named(self, const uint8_t *raw, uint32_t size_bytes)
    cdef Address find(self, object key, int family)
    cdef int remember(self, object key, Address address) except -1


cdef bint is_native(int family) noexcept
cdef object kept_name(np_peer *name, object default)
cdef dict keep_name(dict extra, str key, int fd, np_peer *name)
cdef object closed_socket(int family)
