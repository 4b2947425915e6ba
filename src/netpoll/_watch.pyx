# cython: language_level=3, freethreading_compatible=True
"""add_reader and add_writer: a POLL that is armed again each time it has fired.

The handler runs at the event's own place in the batch, as asyncio's runs at its handle's place in
the queue. What asyncio does with that handle holds here too: whoever removes or replaces a handler
between the readiness and the call takes the call away, and the new handler waits for a new poll.
docs/turn.md has the whole order.
"""

from netpoll._c cimport (
    ECANCELED, NP_OP_POLL, PyObject, Py_INCREF, np_event, np_udata)
from netpoll._core cimport Completion, Loop, drop_owner
from netpoll._handles cimport Handle, new_handle

from errno import EBADF as _EBADF

cdef enum:
    POLLIN = 1
    POLLOUT = 4

cdef int EBADF = _EBADF


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
        self.op = loop.arm(NP_OP_POLL, self.fd, self, self.mask)
        return 0

    cdef int arm_again(self, Loop loop) except -1:
        """Not before the turn is over: until then the fd may still be ready."""
        if not self.has_fired:
            loop.mark_dirty(self)
            self.has_fired = True
        return 0

    cdef int on_turn_end(self, Loop loop) except -1:
        self.has_fired = False
        if self.handle is not None and not self.op:
            try:
                self.arm(loop)
            except OSError:
                pass  # its callback has closed the fd: there is nothing to watch any more
        return 0

    cdef int on_event(self, Loop loop, np_event *event) except -1:
        cdef Handle handle = self.handle
        self.op = 0
        if handle is None or event.res == -ECANCELED or event.res == -EBADF:
            return 0
        if event.res >= 0:
            self.arm_again(loop)  # first, so that an interrupt out of the callback loses nothing
        if self.mask == POLLOUT:
            self.run_reader_first(loop)
            if self.handle is not handle:
                return 0  # by the reader: removed, or replaced by one that has to wait
        # Errors of the fd are readiness too: the callback's own call will meet them.
        return loop.run_now(handle)

    cdef int run_reader_first(self, Loop loop) except -1:
        """Of one fd that is ready both ways the reader goes first, wherever its event is."""
        cdef np_event *event
        cdef np_event taken
        cdef int i
        cdef Watcher reader = loop._readers.get(self.fd)
        if reader is None or not reader.op:
            return 0
        for i in range(loop.events_next, loop.events_count):
            event = &loop.events[i]
            if event.op == reader.op:
                taken = event[0]
                Py_INCREF(<PyObject*>SPENT)  # as the event's own reference to its owner
                event.owner = <void*>SPENT
                drop_owner(taken.owner)
                return reader.on_event(loop, &taken)
        return 0

    cdef int retire(self, Loop loop) except -1:
        """The handler does not run any more, not even for an event that is here already."""
        self.handle.cancel()
        self.handle = None
        if self.op:
            loop.cancel(self.op)
        return 0


# These are methods of the loop: loop.py puts them into its class.

def add_watcher(Loop self, int fd, bint writer, callback, args):
    """Calls callback(*args) whenever fd is readable (or writable). Returns its handle."""
    cdef dict watchers = self._writers if writer else self._readers
    self.check_ours()
    cdef Handle handle = new_handle(self, callback, args or None, None)
    cdef Watcher watcher, old
    handle.is_permanent = True
    self.check_closed()
    old = watchers.get(fd)
    if old is not None and old.has_fired:
        old.handle.cancel()
        old.handle = handle  # it is not armed: what comes next comes from a new poll
        return handle
    watcher = Watcher.__new__(Watcher)
    watcher.fd = fd
    watcher.mask = POLLOUT if writer else POLLIN
    watcher.handle = handle
    try:
        watcher.arm(self)
    except OSError:
        if old is None:
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
