# The seam of transport/endpoint.pyx.

from libc.stdint cimport uint16_t, uint32_t

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    NP_CLOSING, NP_LIFE_BITS, PyObject, PyTypeObject, Py_DECREF, Py_TYPE, Py_XDECREF, inquiry,
    iovec, np_event, np_udata)
from netpoll._native.transport.base cimport Transport
from netpoll._native.transport.bulk_reader cimport BulkReader
from netpoll._native.transport.out_queue cimport OutQueue


cdef enum:  # Endpoint.flags: the bits of its life (np_life.h), and
    PAUSED = 1 << NP_LIFE_BITS      # pause_reading()
    RESUMING = PAUSED << 1          # what comes, or waits, is for the turn after held_turn
    EOF_SEEN = PAUSED << 2          # the peer has shut its side
    CANCELLED = PAUSED << 3         # read_op was asked to end
    STARTED = PAUSED << 4           # connection_made was called
    ENTERED = PAUSED << 5           # the protocol is being called, in our context
    PROTOCOL_PAUSED = PAUSED << 6   # pause_writing() was called
    DIRTY = PAUSED << 7             # in the loop's list for the end of the turn
    SENDING = PAUSED << 8           # write_op is a SEND; else a POLL for POLLOUT
    FLUSHING = PAUSED << 9          # what is written now is sent by a loop up the stack
    READING = PAUSED << 10          # in a run of direct reads: what is written waits for its end
    GIVEN_UP = PAUSED << 11         # the program has closed the file itself
    DRAINING = PAUSED << 12         # in the event that says that there is room again
    OWN_FLAGS = PAUSED << 13        # those of a subclass begin here
    # Why nothing is received. What is received all the same is stashed, unless it is the end.
    NOT_READING = NP_CLOSING | PAUSED | EOF_SEEN
    HOLDING_BACK = PAUSED | RESUMING


cdef class Endpoint(Transport):
    """What the transports of sockets and pipes have in common: a descriptor, its life, a protocol.
    How it receives and sends is the subclass's."""
    cdef Loop loop
    cdef object protocol, context
    cdef object file            # the Python object that owns fd; None: the number is ours
    cdef object error           # what connection_lost will get
    cdef list stash             # received while paused; None: nothing waits
    cdef dict __dict__          # NULL until somebody puts an attribute on it
    cdef int fd                 # -1 once closed
    cdef uint32_t flags
    cdef np_udata read_op       # at most one: a RECV, or a POLL
    cdef np_udata write_op      # at most one: a SEND, or a POLL for POLLOUT
    cdef OutQueue out
    cdef BulkReader bulk
    cdef uint16_t held_turn     # loop.turns, the last bits, when reading was put off to the next

    cdef bint enter(self) except -1
    cdef int leave(self, bint entered) except -1
    cdef int call_protocol(self, str name, tuple args=*) except -1
    cdef int report(self, str message, object exc) except -1
    cdef list activity(self)
    cdef int mark(self) except -1
    cdef np_udata poll(self, uint32_t bits) except? 0
    cdef int arm_read(self) except -1
    cdef int read_again(self) except -1
    cdef int stop_reading(self) except -1
    cdef bint has_stash(self) noexcept
    cdef bint is_holding(self) noexcept
    cdef int hold(self) except -1
    cdef int deliver_stash(self) except -1
    cdef int hold_high(self) except -1
    cdef int release_low(self) except -1
    cdef int press(self) except -1
    cdef int flush(self) except -1
    cdef int catch_up(self) except -1
    cdef int offer(self) except -1
    cdef ptrdiff_t send_call(self, const iovec *iov, int n) noexcept nogil
    cdef int wait_writable(self) except -1
    cdef int sent(self) except -1
    cdef int sent_all(self) except -1
    cdef int drop_out(self) except -1
    cdef str medium(self)
    cdef int failed(self, object exc, str doing) except -1
    cdef int fail(self, object exc, str message) except -1
    cdef int force_close(self, object exc) except -1
    cdef int lose(self, object exc) except -1
    cdef int end(self, object exc) except -1
    cdef int lost(self) except -1
    cdef int forget(self) except -1
    cdef int op_ended(self) except -1
    cdef bint let_go(self, np_udata op) except -1
    cdef int close_fd(self) except -1
    cdef int close_number(self, int fd) except -1


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
