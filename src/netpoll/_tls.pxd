# The seam of _tls.pyx.

from netpoll._tlslayer cimport TlsLayer


cdef class TlsTransport:
    cdef TlsLayer layer
    cdef dict __dict__          # NULL until somebody puts an attribute on it
    cdef object __weakref__
