# The seam of tls/transport.pyx.

from netpoll._native.tls.layer cimport TlsLayer


cdef class TlsTransport:
    cdef TlsLayer layer
    cdef dict __dict__          # NULL until somebody puts an attribute on it
    cdef object __weakref__
