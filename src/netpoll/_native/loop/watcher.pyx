# cython: language_level=3, freethreading_compatible=True, binding=True
"""add_reader and add_writer: a POLL that is armed again each time it has fired.

The handler runs at the event's own place in the batch, as asyncio's runs at its handle's place in
the queue. What asyncio does with that handle holds here too: whoever removes or replaces a handler
between the readiness and the call takes the call away, and the new handler waits for a new poll.
docs/turn.md has the whole order.
"""

from netpoll._core cimport Completion, Loop, drop_owner
from netpoll._native.c cimport (
    ECANCELED, NP_OP_POLL, NP_POLL_ASIDE, NP_POLL_LEVEL, PyObject, Py_INCREF, np_event)
from netpoll._native.handle cimport Handle, new_handle
from netpoll._native.limits cimport WATCH_RETRY_MS
from netpoll._native.poll cimport POLLIN, POLLOUT
from netpoll._native.seal cimport seal_types

from errno import EBADF as _EBADF, ENOMEM, ENOSPC


cdef int EBADF = _EBADF


cdef bint is_short(object error):
    """There is no memory for a POLL, or no watch (epoll_ctl(2)), which may pass."""
    return isinstance(error, MemoryError) or error.errno in (ENOMEM, ENOSPC)


cdef class Spent(Completion):
    """The owner of an event that has been handed out before its place in the batch came."""

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        return 0


cdef Spent SPENT = Spent.__new__(Spent)


cdef class Watcher(Completion):
    """A registered reader or writer."""

    @property
    def _handle(self):
        return self.handle

    cdef int arm(self, Loop loop) except -1:
        self.op = loop.arm(NP_OP_POLL, self.fd, self, self.mask | self.options)
        return 0

    cdef int on_turn_end(self, Loop loop) except -1:
        self.has_fired = False
        self._watch_again(loop)
        return 0

    def _watch_again(self, Loop loop not None):
        if self.handle is None or self.op:
            return
        try:
            self.arm(loop)
        except (OSError, MemoryError) as exc:
            # Else its callback has closed the fd: there is nothing to watch any more.
            if is_short(exc):
                loop.call_later(WATCH_RETRY_MS / 1000, self._watch_again, loop)

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        cdef Watcher other
        cdef Handle handle
        if not self.fired(loop, event):
            return 0
        other = (loop._readers if self.mask == POLLOUT else loop._writers).get(self.fd)
        if other is None or not other.op or not other.take_event(loop):
            return loop.run_now(self.handle)
        # Ready both ways: the reader first, then the writer, wherever their events are.
        if self.mask == POLLOUT:
            self, other = other, self
        handle = other.handle
        loop.run_now(self.handle)
        if other.handle is handle:  # else it was removed, or replaced by one that has to wait
            loop.run_now(handle)
        return 0

    cdef bint fired(self, Loop loop, np_event *event) except -1:
        """Whether the handler is to be called."""
        self.op = 0
        if self.handle is None or event.res == -ECANCELED or event.res == -EBADF:
            return False
        if event.res >= 0 and not self.has_fired:
            # Armed again when the turn is over: until then the fd may still be ready. Asked for
            # before the handler runs, so that an interrupt out of it loses nothing.
            loop.mark_dirty(self)
            self.has_fired = True
        # Errors of the fd are readiness too: the callback's own call will meet them.
        return True

    cdef bint take_event(self, Loop loop) except -1:
        """Takes this watcher's event out of the batch, if it is there. True: it has fired."""
        cdef np_event *event
        cdef np_event taken
        cdef int i
        for i in range(loop.events_next, loop.events_count):
            event = &loop.events[i]
            if event.op == self.op:
                taken = event[0]
                Py_INCREF(<PyObject*>SPENT)  # as the event's own reference to its owner
                event.owner = <void*>SPENT
                drop_owner(taken.owner)
                return self.fired(loop, &taken)
        return False

    cdef int retire(self, Loop loop) except -1:
        """The handler does not run any more, not even for an event that is here already."""
        cdef Handle handle = self.handle
        self.handle = None
        if self.op:
            loop.cancel(self.op)
        handle.cancel()  # last: it may let go of objects whose finalisers use the loop
        return 0


# These are methods of the loop: loop.py puts them into its class.

def add_watcher(Loop self, int fd, bint writer, callback, args, bint aside=False):
    """Calls callback(*args) whenever fd is readable (or writable). Returns its handle.

    aside: no callback of the loop makes it ready, so it need not be looked at in every turn.
    """
    cdef dict watchers = self._writers if writer else self._readers
    self.check_ours()
    cdef Handle handle = new_handle(self, callback, args or None, None)
    cdef Watcher watcher, old
    cdef Handle before
    handle.is_permanent = True
    self.check_closed()
    old = watchers.get(fd)
    if old is not None and old.has_fired:
        before = old.handle
        old.handle = handle  # it is not armed: what comes next comes from a new poll
        before.cancel()  # last: it may let go of objects whose finalisers use the loop
        return handle
    watcher = Watcher.__new__(Watcher)
    watcher.fd = fd
    watcher.mask = POLLOUT if writer else POLLIN
    watcher.options = NP_POLL_LEVEL | (NP_POLL_ASIDE if aside else 0)
    watcher.handle = handle
    try:
        watcher.arm(self)
    except OSError as exc:
        if old is None or is_short(exc):
            raise  # else the fd was closed: asyncio, which does not ask anew, does not notice
    watchers[fd] = watcher
    if old is not None:
        # A new POLL, too: the event of the old one may be in the batch already, or the fd was
        # closed and is another file's now.
        old.retire(self)
    return handle


def remove_watcher(Loop self, int fd, bint writer):
    """True if there was one."""
    self.check_ours()
    cdef Watcher watcher = (self._writers if writer else self._readers).pop(fd, None)
    if watcher is None:
        return False
    watcher.retire(self)
    return True


seal_types(globals())
