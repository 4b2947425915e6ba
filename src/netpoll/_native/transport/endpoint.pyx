# cython: language_level=3, freethreading_compatible=True
"""What every transport is: a descriptor and its life, somebody's protocol, called in a context.

csrc/base/np_life.h draws the life. Its steps are taken here, and only here:

    CLOSING   close()
    LOST      lose(): all was sent, abort(), an error, or the end of the stream
    GONE      connection_lost() was called; the last operation's end closes the descriptor

Streams, datagrams and pipes add how they receive and send.
"""

from libc.errno cimport ENOENT, EPERM
from libc.stdint cimport uint16_t, uint32_t

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    NP_CANCEL_SETTLE, NP_CLOSING, NP_EV_MORE, NP_GONE, NP_LOST, NP_OP_POLL, NP_POLL_KEEP,
    PyContext_Enter, PyContext_Exit, PyObject, Py_XDECREF, inquiry, iovec, np_event, np_head,
    np_iov_close, np_life, np_sock_close, np_sock_send, np_udata)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport HIGH_WATER_DEFAULT_BYTES
from netpoll._native.numbers cimport watermarks, whole_bytes
from netpoll._native.loop.collect cimport replace_clear
from netpoll._native.poll cimport POLLOUT
from netpoll._native.seal cimport seal_types
from netpoll._native.transport.bulk_reader cimport bulk_leave
from netpoll._native.transport.out_queue cimport out_clear, out_init

import warnings
from asyncio import log

cdef object warn = warnings.warn  # the module is empty when the interpreter ends


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
        out_init(&self.out)

    def __dealloc__(self):
        out_clear(&self.out.iov)
        np_iov_close(&self.out.iov)

    def __del__(self):
        if self.fd < 0:
            return
        # Accepted when the loop ended: nobody was told of it. Or, as on asyncio, nobody cares.
        if self.protocol is None or self.flags & GIVEN_UP:
            self.close_fd()
            return
        text = repr(self)
        # What is in flight refers to us: then the loop is garbage, too, and has not been closed.
        self.loop.cancel(self.read_op)
        self.loop.cancel(self.write_op)
        self.close_fd()
        self.forget()
        warn(f"unclosed transport {text}", ResourceWarning, source=self)

    def __repr__(self):
        info = [type(self).__name__]
        if self.fd < 0:
            info.append("closed")
        elif self.flags & NP_CLOSING:
            info.append("closing")
        info.append(f"fd={self.fd}")
        if self.fd >= 0:
            info += self.activity()
        return f"<{' '.join(info)}>"

    cdef list activity(self):
        """What is armed, in the words of asyncio's transports; while there is an fd."""
        reading = self.read_op and not self.flags & (PAUSED | CANCELLED)
        return ["read=polling" if reading else "read=idle",
                f"write=<{'polling' if self.write_op else 'idle'}, "
                f"bufsize={self.out.iov.total_bytes}>"]

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

    def set_protocol(self, protocol):
        self.protocol = protocol

    # ---- the turn, and operations -------------------------------------------------------------

    cdef int mark(self) except -1:
        """There is something to do at the end of the turn."""
        if not self.flags & DIRTY:
            self.flags |= DIRTY
            self.loop.mark_dirty(self)
        return 0

    cdef int on_turn_end(self, Loop loop) except -1:
        self.flags &= ~DIRTY
        if self.flags & PAUSED:
            self.stop_reading()  # as in asyncio, a paused one is not kept alive by its loop
        return self.flush()

    cdef np_udata poll(self, uint32_t bits) except? 0:
        return self.loop.arm(NP_OP_POLL, self.fd, self, bits | NP_POLL_KEEP)

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        if event.op == self.read_op:
            self.read_op = 0
        elif event.op == self.write_op:
            self.write_op = 0
            self.flags &= ~SENDING
        return self.op_ended()

    # ---- receiving ----------------------------------------------------------------------------

    cdef int arm_read(self) except -1:
        return 0

    # asyncio does not poll for a paused transport. What a poll has found already is not received,
    # and found again by the poll after resume_reading(). Here it may be in our hands by then: it
    # waits in the stash, for the batch of the turn after (docs/turn.md).

    cdef bint is_holding(self) noexcept:
        """Whether what comes in is to wait: reading is paused, or was resumed in this turn, or
        something waits already."""
        if self.flags & RESUMING and self.held_turn != <uint16_t>self.loop.turns \
                and not self.has_stash():
            self.flags &= ~RESUMING
        return self.flags & HOLDING_BACK != 0

    cdef int hold(self) except -1:
        """What comes in, or waits, is for the next turn."""
        self.flags |= RESUMING
        self.held_turn = <uint16_t>self.loop.turns
        return 0

    cdef int deliver_stash(self) except -1:
        """Gives the program what waits. It has resumed reading in an earlier turn."""
        return 0

    cdef int read_again(self) except -1:
        """Receiving goes on, unless the program or the stream has ended it."""
        cdef bint has_stash
        if self.flags & NOT_READING or not self.flags & STARTED:
            return 0
        has_stash = self.has_stash()
        if self.read_op == 0:
            if has_stash and self.held_turn != <uint16_t>self.loop.turns:
                return self.deliver_stash()
            self.flags &= ~CANCELLED
            self.arm_read()
        if has_stash:
            return self.stop_reading()  # its last event is in the batch of the next turn
        return 0

    cdef int stop_reading(self) except -1:
        if self.read_op and not self.flags & CANCELLED:
            self.flags |= CANCELLED
            self.loop.cancel(self.read_op)
        return 0

    cdef bint has_stash(self) noexcept:
        """Something that came while the protocol had paused us waits for it."""
        return self.stash is not None

    def pause_reading(self):
        """Nothing is received until resume_reading(). Bytes that are on their way are kept."""
        self.loop.check_ours()
        if not self.flags & (NP_CLOSING | PAUSED):
            self.flags |= PAUSED
            if self.read_op:
                self.mark()

    def resume_reading(self):
        """Receiving goes on, with the next turn. Who has heard the end hears it again."""
        self.loop.check_ours()
        if self.flags & NP_CLOSING or not self.flags & PAUSED:
            return
        self.flags &= ~(PAUSED | EOF_SEEN)
        self.hold()
        self.read_again()

    def is_reading(self):
        return not self.flags & (NP_CLOSING | PAUSED)

    # ---- sending, and watermarks --------------------------------------------------------------

    cdef int flush(self) except -1:
        """Sends what was written in this turn."""
        return 0

    cdef int catch_up(self) except -1:
        """Sends what asyncio would have sent by now, for who looks: it sends within write()."""
        return 0

    cdef int offer(self) except -1:
        """Before what is unsent is dropped: the socket takes of it what it would have taken when it
        was written. 0, or the errno with which sending failed."""
        return 0

    cdef ptrdiff_t send_call(self, const iovec *iov, int n) noexcept nogil:
        """The system call that sends."""
        return np_sock_send(self.fd, iov, n)

    cdef int wait_writable(self) except -1:
        try:
            self.write_op = self.poll(POLLOUT)
        except OSError as exc:
            self.failed(exc, "write")
        return 0

    cdef int sent(self) except -1:
        """Something was sent."""
        return 0

    cdef int sent_all(self) except -1:
        """Nothing is left to be sent."""
        if not self.flags & NP_CLOSING:
            return 0
        if self.flags & NP_LOST or not self.flags & DRAINING:
            return self.lose(None)
        self.end(None)
        self._call_connection_lost()  # as asyncio's, in the event in which the last byte left
        return 0

    cdef int drop_out(self) except -1:
        """Forgets what is unsent; not while the kernel reads it."""
        if not self.flags & SENDING:
            out_clear(&self.out.iov)
        return 0

    cdef int hold_high(self) except -1:
        """More waits than the high watermark allows: the protocol is to write no more."""
        if self.out.iov.total_bytes > self.out.high_bytes \
                and not self.flags & (PROTOCOL_PAUSED | NP_LOST | FLUSHING):
            self.flags |= PROTOCOL_PAUSED
            self.call_protocol("pause_writing")
        return 0

    cdef int release_low(self) except -1:
        """Something has left: the protocol may write again."""
        if self.flags & PROTOCOL_PAUSED and self.out.iov.total_bytes <= self.out.low_bytes:
            self.flags &= ~PROTOCOL_PAUSED
            self.call_protocol("resume_writing")
        return 0

    cdef int press(self) except -1:
        """The high watermark has come down below what waits."""
        return self.hold_high()

    def get_write_buffer_size(self):
        """Bytes not yet taken by the kernel; of datagrams also their headers."""
        self.catch_up()
        return self.out.iov.total_bytes

    def get_write_buffer_limits(self):
        return (self.out.low_bytes, self.out.high_bytes)

    def set_write_buffer_limits(self, high=None, low=None):
        """Watermarks, in bytes: above high the protocol is paused, at low it is resumed."""
        high, low = watermarks(high, low, HIGH_WATER_DEFAULT_BYTES)
        self.out.high_bytes = whole_bytes(high)
        self.out.low_bytes = whole_bytes(low)
        if self.out.iov.total_bytes > self.out.high_bytes:
            self.press()

    # ---- the end ------------------------------------------------------------------------------

    def close(self):
        """Stops reading; sends what was written; then connection_lost(None)."""
        self.loop.check_ours()
        if self.flags & NP_CLOSING or self.fd < 0:
            return
        self.unpull()
        if self.flags & NP_CLOSING:
            return
        self.flags |= np_life(NP_CLOSING)
        self.stop_reading()
        self.catch_up()
        if not self.out.iov.count and not self.flags & FLUSHING:
            self.lose(None)

    def abort(self):
        """Closes at once; what the socket has not room for is dropped."""
        self.loop.check_ours()
        self.force_close(None)

    cdef str medium(self):
        """What it reads and writes, in the words of asyncio's messages."""
        return "socket"

    cdef int failed(self, object exc, str doing) except -1:
        """Reading or writing has failed, says the kernel."""
        return self.fail(exc, f"Fatal {doing} error on {self.medium()} transport")

    cdef int fail(self, object exc, str message) except -1:
        """An error that ends this transport, and only this one."""
        if isinstance(exc, OSError):
            if self.loop._debug:
                log.logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self.report(message, exc)
        return self.force_close(exc)

    def _fatal_error(self, exc, message="Fatal error on transport"):
        self.fail(exc, message)

    def _force_close(self, exc):
        self.force_close(exc)

    cdef int force_close(self, object exc) except -1:
        cdef int err
        if self.flags & NP_LOST:
            return 0
        err = self.offer()
        if err and exc is None:
            exc = os_error(err)
        self.stop_reading()
        return self.lose(exc)

    cdef int lose(self, object exc) except -1:
        """connection_lost(exc) follows, as soon as asyncio's would."""
        if self.flags & NP_LOST:
            return 0
        self.end(exc)
        self.loop.soon(self._call_connection_lost, None)
        return 0

    cdef int end(self, object exc) except -1:
        """Nothing is received or sent any more."""
        self.flags |= np_life(NP_LOST)
        self.error = exc
        self.stop_reading()
        if not self.flags & SENDING:  # a SEND does not wait
            self.loop.cancel(self.write_op)
        self.drop_out()
        self.lost()
        if self.loop._closed:  # nobody will be called any more, but the fd is not kept
            self.flags |= np_life(NP_GONE)
            self.op_ended()
            self.forget()
            self.loop.check_closed()
        return 0

    cdef int lost(self) except -1:
        """Nothing is sent any more: who waits for that hears of it."""
        return 0

    def _call_connection_lost(self):
        try:
            if self.flags & STARTED:
                entered = self.enter()
                try:
                    self.protocol.connection_lost(self.error)
                finally:
                    self.leave(entered)
        finally:
            self.flags |= np_life(NP_GONE)
            try:
                self.forget()
            finally:
                if self.let_go(self.read_op) and self.let_go(self.write_op):
                    self.close_fd()

    cdef int forget(self) except -1:
        """Lets go of what belongs to the program."""
        self.protocol = None
        self.stash = None
        self.error = None
        return 0

    cdef bint let_go(self, np_udata op) except -1:
        """Has the kernel let go of the fd, as far as this operation goes. False: not yet.

        The operation was cancelled; its last event may still be on its way to us.
        """
        if op == 0 or self.loop.be is NULL or last_event_of(self.loop, op) is not NULL:
            return True
        cdef int err = self.loop.ops.cancel(self.loop.be, op, NP_CANCEL_SETTLE)
        return err >= 0 or err == -ENOENT or err == -EPERM  # EPERM: abandoned, the parent has it

    cdef int op_ended(self) except -1:
        """The fd is closed when the user has let go of the transport and the kernel has too."""
        if self.flags & NP_GONE and not self.read_op and not self.write_op:
            self.close_fd()
        return 0

    cdef int close_fd(self) except -1:
        cdef int fd = self.fd
        if fd < 0:
            return 0
        self.fd = -1
        if self.bulk.left:
            bulk_leave(self.loop, &self.bulk)
        if self.loop.be is not NULL and self.loop.is_ours() and self.loop.fd_owner(fd) is self:
            self.loop.ops.forget(self.loop.be, fd)
        self.loop.disown_fd(fd, self)
        return self.close_number(fd)

    cdef int close_number(self, int fd) except -1:
        if self.file is None:
            np_sock_close(fd)
        else:
            self.file.close()  # the object is the closer: its number dies with it
        return 0

    # ---- what asyncio and programs look at ------------------------------------------------------

    _lent = False  # only a stream is written to by sendfile

    def is_closing(self):
        return bool(self.flags & NP_CLOSING)

    @property
    def _protocol_paused(self):
        return bool(self.flags & PROTOCOL_PAUSED)

    @property
    def _paused(self):
        return bool(self.flags & PAUSED)

    @property
    def _closing(self):
        return bool(self.flags & NP_CLOSING)

    @property
    def _conn_lost(self):
        return bool(self.flags & NP_LOST) + self.out.lost_writes_count

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
        return self.out.high_bytes

    @property
    def _low_water(self):
        return self.out.low_bytes


cdef inquiry generated_clear = replace_clear(Endpoint, clear_endpoint)

seal_types(globals())
