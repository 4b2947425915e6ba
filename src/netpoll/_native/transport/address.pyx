# cython: language_level=3, freethreading_compatible=True
"""What the datagram transports of one loop share: receive memory, and addresses they know.

Making the tuple of a sender's address takes longer than the rest of a datagram's way through
Python, and so does reading an address that is to be sent to. So the last few hundred are kept:
  by_name  what the kernel says -> Address; two entries to a set, the older one leaves
  by_key   the Python object that sendto() was given -> Address. By identity: an entry keeps its
           object alive, and only objects that can never change are kept.
Equal addresses are the same Address object, which is how sends to one address are recognised.
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset, strlen

from netpoll._native.c cimport (
    INET6_ADDRSTRLEN, NP_SOCK_PATH_BYTES, Py_INCREF, Py_XDECREF, PyObject, htonl, htons, inet_ntop,
    inet_pton, np_dgram_in_close, np_dgram_in_open, np_peer, np_sock_name, ntohl, ntohs,
    sockaddr_in, sockaddr_in6)
from netpoll._native.seal cimport seal_types

import os
import socket as py_socket

cdef enum:
    INET_BYTES = 16
    INET6_BYTES = 28
    PATH_AT = 2             # offsetof(struct sockaddr_un, sun_path)
    PATH_MAX_BYTES = 108
    NETLINK_BYTES = 12      # struct sockaddr_nl: family, padding, pid, groups

cdef int _AF_INET = int(py_socket.AF_INET)
cdef int _AF_INET6 = int(py_socket.AF_INET6)
cdef int _AF_UNIX = int(py_socket.AF_UNIX)
cdef int _AF_NETLINK = int(py_socket.AF_NETLINK)

NATIVE_FAMILIES = (_AF_INET, _AF_INET6, _AF_UNIX, _AF_NETLINK)


cdef bint is_native(int family) noexcept:
    """Families whose addresses are made here; for others the socket module is asked."""
    return family == _AF_INET or family == _AF_INET6 or family == _AF_UNIX \
        or family == _AF_NETLINK


@cython.no_gc
@cython.final
cdef class Address:
    """One address, in both languages."""

    cdef uint16_t family(self) noexcept:
        cdef uint16_t family
        memcpy(&family, self.raw, sizeof(family))
        return family


# ---- from the kernel --------------------------------------------------------------------------

cdef object inet_text(int family, const void *address):
    cdef char text[INET6_ADDRSTRLEN]
    inet_ntop(family, address, text, INET6_ADDRSTRLEN)
    return text[:strlen(text)].decode("ascii")


cdef object unix_key(const uint8_t *path, uint32_t size_bytes):
    """As the socket module: a path is a str, an abstract name bytes."""
    if path[0] == 0:
        return (<const char*>path)[:size_bytes]
    return os.fsdecode((<const char*>path)[:size_bytes].split(b"\0", 1)[0])


cdef object key_of(const uint8_t *raw, uint32_t size_bytes):
    """The Python object for a sockaddr, as socket.recvfrom has it. Of a native family."""
    cdef const sockaddr_in *inet = <const sockaddr_in*>raw
    cdef const sockaddr_in6 *inet6 = <const sockaddr_in6*>raw
    cdef uint32_t netlink[2]
    cdef int family = inet.sin_family
    if family == _AF_INET:
        return (inet_text(family, raw + 4), ntohs(inet.sin_port))
    if family == _AF_INET6:
        return (inet_text(family, raw + 8), ntohs(inet6.sin6_port),
                ntohl(inet6.sin6_flowinfo), inet6.sin6_scope_id)
    if family == _AF_UNIX:
        return unix_key(raw + PATH_AT, size_bytes - PATH_AT) if size_bytes > PATH_AT else None
    memcpy(netlink, raw + 4, sizeof(netlink))
    return (netlink[0], netlink[1])


# ---- names of stream sockets ------------------------------------------------------------------

cdef object kept_name(np_peer *name, object default):
    """As the socket module has it; of Unix sockets those without a path."""
    if name.family == _AF_INET:
        return (inet_text(_AF_INET, name.address), name.port)
    if name.family == _AF_INET6:
        return (inet_text(_AF_INET6, name.address), name.port, name.flow_info, name.scope_id)
    return "" if name.family == _AF_UNIX else default


cdef dict keep_name(dict extra, str key, int fd, np_peer *name):
    """Fills *name, unless `extra` has it as `key`; with the path of a Unix socket goes `extra`."""
    cdef char path[NP_SOCK_PATH_BYTES]
    cdef size_t size
    if extra is not None and key in extra:
        return extra
    size = np_sock_name(fd, key == "peername", name, path)
    if not size:
        return extra
    return {**(extra or {}), key: unix_key(<const uint8_t*>path, <uint32_t>size)}


cdef object closed_socket(int family):
    """What is left of a socket object when its connection has ended. Raises OSError."""
    sock = py_socket.socket(family or _AF_UNIX)
    sock.close()
    return sock


# ---- from Python ------------------------------------------------------------------------------

cdef bint small_int(object value, uint64_t limit, uint32_t *out) except -1:
    """True and the value, if it is an exact int from 0 to limit."""
    if type(value) is not int or not 0 <= value <= limit:
        return False
    out[0] = value
    return True


cdef uint32_t read_inet(tuple key, uint8_t *raw) except? 0xffffffff:
    cdef sockaddr_in *inet = <sockaddr_in*>raw
    cdef uint32_t port = 0
    if len(key) != 2 or type(key[0]) is not str or not small_int(key[1], 0xffff, &port):
        return 0
    text = (<str>key[0]).encode("utf-8", "replace")
    if inet_pton(_AF_INET, <const char*>text, raw + 4) != 1:
        return 0
    inet.sin_family = <uint16_t>_AF_INET
    inet.sin_port = htons(<uint16_t>port)
    return INET_BYTES


cdef uint32_t read_inet6(tuple key, uint8_t *raw) except? 0xffffffff:
    cdef sockaddr_in6 *inet6 = <sockaddr_in6*>raw
    cdef uint32_t port = 0, flow_info = 0, scope_id = 0
    cdef Py_ssize_t count = len(key)
    if not 2 <= count <= 4 or type(key[0]) is not str or not small_int(key[1], 0xffff, &port):
        return 0
    if count > 2 and not small_int(key[2], 0xfffff, &flow_info):
        return 0
    if count > 3 and not small_int(key[3], 0xffffffff, &scope_id):
        return 0
    text = (<str>key[0]).encode("utf-8", "replace")
    if inet_pton(_AF_INET6, <const char*>text, raw + 8) != 1:
        return 0
    inet6.sin6_family = <uint16_t>_AF_INET6
    inet6.sin6_port = htons(<uint16_t>port)
    inet6.sin6_flowinfo = htonl(flow_info)
    inet6.sin6_scope_id = scope_id
    return INET6_BYTES


cdef uint32_t read_unix(object key, uint8_t *raw) except? 0xffffffff:
    cdef bytes path
    cdef uint16_t family = <uint16_t>_AF_UNIX
    if type(key) is str:
        path = os.fsencode(key)
        if b"\0" in path:
            return 0
    elif type(key) is bytes:
        path = <bytes>key
    else:
        return 0
    if not 0 < len(path) < PATH_MAX_BYTES:
        return 0
    memcpy(raw, &family, sizeof(family))
    memcpy(raw + PATH_AT, <const char*>path, len(path))
    return PATH_AT + <uint32_t>len(path)


cdef uint32_t read_netlink(tuple key, uint8_t *raw) except? 0xffffffff:
    cdef uint16_t family = <uint16_t>_AF_NETLINK
    cdef uint32_t fields[2]
    if len(key) != 2 or not small_int(key[0], 0xffffffff, &fields[0]) \
            or not small_int(key[1], 0xffffffff, &fields[1]):
        return 0
    memcpy(raw, &family, sizeof(family))
    memcpy(raw + 4, fields, sizeof(fields))
    return NETLINK_BYTES


cdef uint32_t read_key(object key, int family, uint8_t *raw) except? 0xffffffff:
    """Writes the sockaddr of a Python address; 0 when it is for the socket module to understand:
    a host's name, other types, values out of range."""
    if family == _AF_UNIX:
        return read_unix(key, raw)
    if type(key) is not tuple:
        return 0
    if family == _AF_INET:
        return read_inet(<tuple>key, raw)
    if family == _AF_INET6:
        return read_inet6(<tuple>key, raw)
    return read_netlink(<tuple>key, raw)


# ---- the memory -------------------------------------------------------------------------------

cdef inline uint32_t set_of_name(const uint8_t *raw, uint32_t size_bytes) noexcept:
    cdef uint64_t hashed = size_bytes, word
    cdef uint32_t at = 0
    while at + 8 <= size_bytes:
        memcpy(&word, raw + at, 8)
        hashed = (hashed ^ word) * <uint64_t>0x9E3779B97F4A7C15
        hashed ^= hashed >> 32
        at += 8
    while at < size_bytes:
        hashed = (hashed ^ raw[at]) * <uint64_t>0x9E3779B97F4A7C15
        hashed ^= hashed >> 32
        at += 1
    return <uint32_t>(hashed & (CACHE_SETS - 1))


cdef inline uint32_t set_of_key(PyObject *key) noexcept:
    cdef uint64_t hashed = <uint64_t><uintptr_t>key * <uint64_t>0x9E3779B97F4A7C15
    return <uint32_t>(hashed >> 32) & (CACHE_SETS - 1)


cdef inline bint is_named(PyObject *address, const uint8_t *raw, uint32_t size_bytes) noexcept:
    return address is not NULL and (<Address>address).size_bytes == size_bytes \
        and memcmp((<Address>address).raw, raw, size_bytes) == 0


@cython.final
cdef class DatagramMemory:
    """Of one loop, while it has datagram transports."""

    def __cinit__(self):
        self.received = np_dgram_in_open()
        if self.received is NULL:
            raise MemoryError("no memory to receive datagrams in")

    def __dealloc__(self):
        cdef int i
        np_dgram_in_close(self.received)
        for i in range(2 * CACHE_SETS):
            Py_XDECREF(self.by_name[i])
            Py_XDECREF(self.by_key[i].key)
            Py_XDECREF(self.by_key[i].address)

    cdef Address named(self, const uint8_t *raw, uint32_t size_bytes):
        """The Address of a sockaddr of a native family."""
        cdef PyObject **ways = &self.by_name[2 * set_of_name(raw, size_bytes)]
        cdef PyObject *second
        cdef Address address
        if is_named(ways[0], raw, size_bytes):
            return <Address>ways[0]
        if is_named(ways[1], raw, size_bytes):
            second = ways[1]
            ways[1] = ways[0]
            ways[0] = second
            return <Address>second
        address = Address.__new__(Address)
        address.size_bytes = size_bytes if size_bytes < ADDRESS_MAX_BYTES else ADDRESS_MAX_BYTES
        memcpy(address.raw, raw, address.size_bytes)
        address.key = key_of(address.raw, address.size_bytes)
        second = ways[1]
        ways[1] = ways[0]
        ways[0] = <PyObject*>address
        Py_INCREF(ways[0])
        Py_XDECREF(second)
        return address

    cdef Address find(self, object key, int family):
        """The Address of what sendto() was given; None when only the socket module knows."""
        cdef Alias *ways = &self.by_key[2 * set_of_key(<PyObject*>key)]
        cdef uint8_t raw[ADDRESS_MAX_BYTES]
        cdef uint32_t size_bytes
        cdef Address address
        cdef int i
        for i in range(2):
            if ways[i].key is <PyObject*>key:
                address = <Address>ways[i].address
                if address.family() == family:
                    return address
        memset(raw, 0, sizeof(raw))
        size_bytes = read_key(key, family, raw)
        if size_bytes == 0:
            return None
        address = self.named(raw, size_bytes)
        self.remember(key, address)
        return address

    cdef int remember(self, object key, Address address) except -1:
        """key is immutable all through: read_key took it."""
        cdef Alias *ways = &self.by_key[2 * set_of_key(<PyObject*>key)]
        cdef Alias oldest = ways[1]
        ways[1] = ways[0]
        Py_INCREF(<PyObject*>key)
        Py_INCREF(<PyObject*>address)
        ways[0].key = <PyObject*>key
        ways[0].address = <PyObject*>address
        Py_XDECREF(oldest.key)
        Py_XDECREF(oldest.address)
        return 0


seal_types(globals(), (DatagramMemory,))
