# cython: language_level=3, freethreading_compatible=True
"""A worker's ring: an event loop that runs its scheduler's tasks; either can wake it.

    turn: wait in the ring (np_worker_doze) ─► completions, callbacks ─► tasks, a bounded share
               ▲ woken by the kernel, by the loop's inbox, or by a push into the scheduler

The ring belongs to its worker's thread. Tasks that a connection's event makes go into the worker's
own queue, where idle workers steal them; the connection stays.
"""

from libc.stdint cimport int64_t

from netpoll._core cimport Loop
from netpoll._native.c cimport PyObject
from netpoll._native.limits cimport ENDING_WAIT_NS, TURN_TASKS_COUNT, TURN_TASKS_NS
from netpoll._native.sched.c cimport (
    np_worker_alight, np_worker_doze, np_worker_has_own, np_worker_is_over, np_worker_ride,
    np_worker_rouse)
from netpoll._native.sched.run cimport SchedulerCore, run_slice
from netpoll._native.seal cimport seal_types


cdef class RingLoop(Loop):
    """The native half of a worker's event loop (sched.py has the other)."""

    def _ride(self, SchedulerCore core, unsigned int index):
        """The worker `index`, whose thread calls this, sleeps here from now on."""
        if self.core is not None or index >= core.workers_count \
                or core.worker_here() is not &core.workers[index] \
                or core.workers[index].loop is not NULL:
            raise RuntimeError("only a worker can sleep in a loop, and only in one")
        self.core = core
        self.index = index
        self.native = core.workers[index].native
        core.workers[index].loop = <PyObject*>self
        np_worker_ride(self.native, &self.inbox)

    def _alight(self):
        """The worker leaves: the loop may be closed."""
        if self.core is None:
            return
        if self.core.worker_here() is not &self.core.workers[self.index]:
            raise RuntimeError("this loop is left by the worker that sleeps in it")
        if self._in_turn:
            raise RuntimeError("a loop that runs cannot be left")
        np_worker_alight(self.native)
        self.core.workers[self.index].loop = NULL
        self.core = None

    def _end(self):
        """The scheduler has nothing left: the loop goes on for its own sake until it is stopped."""
        self.is_ending = True

    @property
    def _is_over(self):
        return self.native is not NULL and bool(np_worker_is_over(self.native))

    cdef int64_t _timeout_ns(self) noexcept:
        if self.core is not None and (self.has_more or np_worker_has_own(self.native)):
            return 0
        return Loop._timeout_ns(self)

    cdef int _wait(self, int64_t timeout_ns) except -1:
        cdef bint is_dozing = False
        if self.core is None:
            return Loop._wait(self, timeout_ns)
        if self.is_ending and np_worker_is_over(self.native):
            # What its last callbacks may still queue comes from this thread, or can wait a moment.
            if timeout_ns < 0 or timeout_ns > ENDING_WAIT_NS:
                timeout_ns = ENDING_WAIT_NS
        elif timeout_ns:
            with nogil:
                is_dozing = np_worker_doze(self.native, &timeout_ns)
            if not is_dozing:
                timeout_ns = 0
        try:
            Loop._wait(self, timeout_ns)
        finally:
            if is_dozing:
                np_worker_rouse(self.native)
        return 0

    cdef int _turn(self) except -1:
        Loop._turn(self)
        if self.core is None:
            return 0
        self.has_more = True    # also after an exception
        self.has_more = run_slice(self.core, self.index, TURN_TASKS_COUNT, TURN_TASKS_NS)
        if not self.has_more and not self.is_ending and np_worker_is_over(self.native):
            self._stopping = True
        return 0


seal_types(globals(), (RingLoop,))
