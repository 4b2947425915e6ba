# The seam of transport/endpoint.pyx.

from libc.stdint cimport uint32_t

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    PyObject, PyTypeObject, Py_DECREF, Py_TYPE, Py_XDECREF, inquiry, np_event, np_udata)
from netpoll._native.transport.base cimport Transport


cdef enum:  # Endpoint.flags that every transport has; their own begin at ENDPOINT_FLAGS_END
    CLOSING = 1 << 0        # close() or abort(): no more reading
    LOST = 1 << 1           # connection_lost is in the loop's queue, or was called
    PAUSED = 1 << 2         # pause_reading()
    STARTED = 1 << 3        # connection_made was called
    ENTERED = 1 << 4        # the protocol is being called, in our context
    PROTOCOL_PAUSED = 1 << 5    # pause_writing() was called
    ENDPOINT_FLAGS_END = 1 << 8


cdef class Endpoint(Transport):
    """What the transports of sockets and pipes have in common. It neither sends nor receives."""
    cdef Loop loop
    cdef object protocol, context
    cdef int fd                 # -1 once closed
    cdef uint32_t flags
    cdef size_t high_bytes, low_bytes
    cdef dict __dict__          # NULL until somebody puts an attribute on it

    cdef bint enter(self) except -1
    cdef int leave(self, bint entered) except -1
    cdef int call_protocol(self, str name, tuple args=*) except -1
    cdef int report(self, str message, object exc) except -1
    cdef list activity(self)
    cdef size_t unsent_bytes(self) noexcept
    cdef int press(self) except -1
    cdef int catch_up(self) except -1
    cdef bint let_go(self, np_udata op) except -1


cdef np_event *last_event_of(Loop loop, np_udata op) noexcept
cdef bint is_inherited(Loop loop) noexcept
cdef int drop_attributes(object transport) noexcept


# Attributes of a program's own on one transport, and methods that it has replaced there. Cython
# makes the dict with the object; 64 bytes for each connection are too much for what few use.

cdef inline PyObject **attributes_of(object transport) noexcept:
    cdef PyObject *raw = <PyObject*>transport
    return <PyObject**>(<char*>raw + Py_TYPE(raw).tp_dictoffset)


cdef inline int forget_attributes(PyObject *transport, inquiry generated_clear) noexcept:
    """A transport's tp_clear. Cython's leaves None in the place of the dict, which is none: looking
    for an attribute would raise SystemError in the finalisers that run meanwhile."""
    cdef PyObject **slot = attributes_of(<object>transport)
    cdef PyObject *attributes = slot[0]
    cdef int err
    slot[0] = NULL
    Py_XDECREF(attributes)
    err = generated_clear(transport)
    if slot[0] is <PyObject*>None:
        slot[0] = NULL
        Py_DECREF(<PyObject*>None)
    return err


cdef inline bint is_plain(object transport) noexcept:
    """Nobody has put anything on it: its methods are those of its class."""
    return attributes_of(transport)[0] is NULL
