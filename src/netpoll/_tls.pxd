# The seam of _tls.pyx.

from netpoll._tlslayer cimport TlsLayer


cdef class TlsTransport:
    cdef TlsLayer layer
    cdef object __weakref__
