# cython: language_level=3, freethreading_compatible=True
"""The asyncio.Server that a transport belongs to waits, when it is closed, until it is told."""

import asyncio

# Since Python 3.12.3 and 3.13 a server knows its transports; before it only counted them.
cdef bint SERVER_KNOWS = asyncio.base_events.Server._attach.__code__.co_argcount == 2


cdef int attach(object server, object transport) except -1:
    if SERVER_KNOWS:
        server._attach(transport)
    else:
        server._attach()
    return 0


cdef int detach(object server, object transport) except -1:
    """server: None for a transport that has none."""
    if server is None:
        return 0
    if SERVER_KNOWS:
        server._detach(transport)
    else:
        server._detach()
    return 0
