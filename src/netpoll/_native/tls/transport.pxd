# The seam of tls/transport.pyx.

from netpoll._native.tls.layer cimport TlsLayer
from netpoll._native.transport.base cimport Transport


cdef class TlsTransport(Transport):
    cdef TlsLayer layer
    cdef dict __dict__          # NULL until somebody puts an attribute on it
    cdef object __weakref__
