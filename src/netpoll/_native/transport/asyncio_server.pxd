# The seam of transport/asyncio_server.pyx.


cdef int attach(object server, object transport) except -1
cdef int detach(object server, object transport) except -1
