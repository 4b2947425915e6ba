# cython: language_level=3, freethreading_compatible=True
"""What every transport is: somebody's protocol, called in a context, behind watermarks.

Streams (sending.pyx, stream.pyx), datagrams (datagram.pyx) and pipes (pipe.pyx) add how they send,
receive and end.
"""

from libc.errno cimport ENOENT, EPERM

from netpoll._native.c cimport (
    NP_CANCEL_SETTLE, NP_EV_MORE, PyContext_Enter, PyContext_Exit, PyObject, Py_XDECREF, inquiry,
    np_head)
from netpoll._native.limits cimport HIGH_WATER_DEFAULT_BYTES
from netpoll._native.numbers cimport watermarks, whole_bytes
from netpoll._native.loop.collect cimport replace_clear
from netpoll._native.seal cimport seal_types


cdef np_event *last_event_of(Loop loop, np_udata op) noexcept:
    """The last event of the operation, if it is in the batch and not handed out yet; or NULL."""
    cdef int i
    for i in range(loop.events_next, loop.events_count):
        if loop.events[i].op == op and not loop.events[i].flags & NP_EV_MORE:
            return &loop.events[i]
    return NULL


cdef bint is_inherited(Loop loop) noexcept:
    """In a forked child: what waits to be sent is the parent's to send."""
    return loop.be is not NULL and np_head(loop.be).is_abandoned


cdef int clear_endpoint(PyObject *transport) noexcept:
    return forget_attributes(transport, generated_clear)


cdef int drop_attributes(object transport) noexcept:
    """Undoes the dict that Cython makes; the first attribute makes another."""
    cdef PyObject **slot = attributes_of(transport)
    Py_XDECREF(slot[0])
    slot[0] = NULL
    return 0


cdef class Endpoint(Transport):
    def __cinit__(self):
        drop_attributes(self)
        self.fd = -1
        self.high_bytes = HIGH_WATER_DEFAULT_BYTES
        self.low_bytes = HIGH_WATER_DEFAULT_BYTES // 4

    def __repr__(self):
        info = [type(self).__name__]
        if self.fd < 0:
            info.append("closed")
        elif self.flags & CLOSING:
            info.append("closing")
        info.append(f"fd={self.fd}")
        if self.fd >= 0:
            info += self.activity()
        return f"<{' '.join(info)}>"

    cdef list activity(self):
        """What is armed, in the words of asyncio's transports; while there is an fd."""
        raise NotImplementedError

    # ---- the protocol: called in our context; it may call us back from there -------------------

    cdef bint enter(self) except -1:
        if self.flags & ENTERED:
            return False
        PyContext_Enter(<PyObject*>self.context)
        self.flags |= ENTERED
        return True

    cdef int leave(self, bint entered) except -1:
        if entered:
            self.flags &= ~ENTERED
            PyContext_Exit(<PyObject*>self.context)
        return 0

    cdef int call_protocol(self, str name, tuple args=()) except -1:
        """A callback whose exceptions are reported and end nothing."""
        try:
            entered = self.enter()
            try:
                getattr(self.protocol, name)(*args)
            finally:
                self.leave(entered)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.report(f"protocol.{name}() failed", exc)
        return 0

    cdef int report(self, str message, object exc) except -1:
        """The protocol's own mistakes go to the loop's exception handler."""
        self.loop.call_exception_handler({
            "message": message,
            "exception": exc,
            "transport": self,
            "protocol": self.protocol,
        })
        return 0

    def get_protocol(self):
        return self.protocol

    # ---- watermarks ---------------------------------------------------------------------------

    cdef size_t unsent_bytes(self) noexcept:
        return 0

    cdef int press(self) except -1:
        """More waits than the high watermark allows: send what goes, else pause the protocol."""
        return 0

    cdef int catch_up(self) except -1:
        """Sends what asyncio would have sent by now, for who looks: it sends within write()."""
        return 0

    def get_write_buffer_size(self):
        """Bytes not yet taken by the kernel; of datagrams also their headers."""
        self.catch_up()
        return self.unsent_bytes()

    def get_write_buffer_limits(self):
        return (self.low_bytes, self.high_bytes)

    def set_write_buffer_limits(self, high=None, low=None):
        """Watermarks, in bytes: above high the protocol is paused, at low it is resumed."""
        high, low = watermarks(high, low, HIGH_WATER_DEFAULT_BYTES)
        self.high_bytes = whole_bytes(high)
        self.low_bytes = whole_bytes(low)
        if self.unsent_bytes() > self.high_bytes:
            self.press()

    # ---- the end ------------------------------------------------------------------------------

    cdef bint let_go(self, np_udata op) except -1:
        """Has the kernel let go of the fd, as far as this operation goes. False: not yet.

        The operation was cancelled; its last event may still be on its way to us.
        """
        if op == 0 or self.loop.be is NULL or last_event_of(self.loop, op) is not NULL:
            return True
        cdef int err = self.loop.ops.cancel(self.loop.be, op, NP_CANCEL_SETTLE)
        return err >= 0 or err == -ENOENT or err == -EPERM  # EPERM: abandoned, the parent has it

    # ---- what asyncio and programs look at ------------------------------------------------------

    def is_closing(self):
        return bool(self.flags & CLOSING)

    @property
    def _protocol_paused(self):
        return bool(self.flags & PROTOCOL_PAUSED)

    @property
    def _paused(self):
        return bool(self.flags & PAUSED)

    @property
    def _closing(self):
        return bool(self.flags & CLOSING)

    @property
    def _loop(self):
        return self.loop

    @property
    def _protocol(self):
        return self.protocol

    @_protocol.setter
    def _protocol(self, value):
        self.set_protocol(value)

    @property
    def _high_water(self):
        return self.high_bytes

    @property
    def _low_water(self):
        return self.low_bytes


cdef inquiry generated_clear = replace_clear(Endpoint, clear_endpoint)

seal_types(globals())
