# cython: language_level=3, freethreading_compatible=True
"""The loop's turn: one system call, one batch of completions, one pass over what is ready.

    writes of the last turn -> backend turn (no GIL) -> inbox -> callbacks -> events -> due timers

Everything that runs per event is here or in the transports; what runs once per loop, server or
connection is in loop.py. A loop belongs to the thread that runs it; call_soon_threadsafe and stop
through it are the only things another thread may use.
"""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from libc.errno cimport EINTR, ENOENT
from libc.math cimport ceil
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memset

from netpoll._native.away cimport release_away
from netpoll._native.c cimport (
    NP_EV_MORE, NP_FEATURE_ACCEPT_MULTI, NP_FEATURE_BUF_INC, NP_FEATURE_BUF_RING,
    NP_FEATURE_DEFER_TASKRUN, NP_FEATURE_NO_IOWAIT, NP_FEATURE_PWAIT2, NP_FEATURE_RECV_MULTI,
    NP_FEATURE_SENDMSG_ZC, NP_FEATURE_SEND_ZC, NP_FEATURE_SQPOLL, NP_FEATURE_ZC_FIXED,
    NP_FEATURE_ZC_FIXED_VEC, NP_FREE, NP_HAS_GIL, NP_OP_ACCEPT, NP_OP_CHUNK_SLOTS, NP_WAIT_MAX_NS,
    PyContext_CopyCurrent, PyErr_CheckSignals, Py_DECREF, Py_INCREF, np_backend_abandon,
    np_backend_head, np_backend_stats, np_clock_ns, np_config, np_epoll_ops, np_head,
    np_inbox_awake, np_inbox_close, np_inbox_is_empty, np_inbox_node, np_inbox_open, np_inbox_push,
    np_inbox_sleep, np_inbox_take, np_inbox_wake, np_op, np_op_alloc, np_op_at, np_op_udata,
    np_sock_close, np_timer_add, np_timer_heap_close, np_timer_heap_init, np_timer_peek,
    np_timer_pop_due, np_uring_ops)
from netpoll._native.failing cimport os_error
from netpoll._native.fd_table cimport FdTables
from netpoll._native.handle cimport (
    Handle, InboxItem, TimerHandle, new_handle, release_handle, run_handle, timer_owner)
from netpoll._native.limits cimport CLOSE_TURNS_MAX_COUNT, TIMER_RESOLUTION_NS
from netpoll._native.seal cimport seal_types

import asyncio
import os
import time
import weakref
from netpoll.errors import OPENED_BY, no_loop
from asyncio import format_helpers, tasks


NO_NESTING = (
    "a netpoll event loop cannot run within itself, as nest_asyncio makes asyncio's loop do: "
    "await what is to be run, or run it in a thread of its own")

cdef object Future = asyncio.Future
cdef object BaseEventLoop = asyncio.BaseEventLoop

FEATURES = {  # the names are config.FEATURES
    "defer_taskrun": NP_FEATURE_DEFER_TASKRUN, "buf_ring": NP_FEATURE_BUF_RING,
    "buf_inc": NP_FEATURE_BUF_INC, "recv_multi": NP_FEATURE_RECV_MULTI,
    "accept_multi": NP_FEATURE_ACCEPT_MULTI, "pwait2": NP_FEATURE_PWAIT2,
    "send_zc": NP_FEATURE_SEND_ZC, "sendmsg_zc": NP_FEATURE_SENDMSG_ZC,
    "zc_fixed": NP_FEATURE_ZC_FIXED, "zc_fixed_vec": NP_FEATURE_ZC_FIXED_VEC,
    "sqpoll": NP_FEATURE_SQPOLL, "no_iowait": NP_FEATURE_NO_IOWAIT,
}

# Counts forks: a loop made before one is the parent's, and the child must not touch its ring.
cdef uint32_t fork_count = 0
# All loops: the verbs of those that a child inherits must leave the parent's ring and set alone.
cdef object all_loops = weakref.WeakSet()
# Each is called with every new loop, before anything is in flight on it: netpoll.testing's.
ON_BIRTH = []
# Those that ran when a child inherited them: they go on, for the program's way out (asyncio.Runner
# cancels tasks, ends generators), and once the child has left their run, also wait for timers.
cdef object inherited_runs = weakref.WeakSet()
cdef object left_loops = weakref.WeakSet()


def _after_fork_in_child():
    global fork_count
    cdef Loop loop
    fork_count += 1
    for inherited in list(all_loops):
        loop = inherited
        if loop.be is not NULL:
            np_backend_abandon(loop.be)
        loop.events_next = loop.events_count  # what has come in is the parent's to handle
        if loop.running_ident and loop.is_ours():
            inherited_runs.add(loop)


os.register_at_fork(after_in_child=_after_fork_in_child)


cdef class Completion:
    cdef int on_event(self, Loop loop, np_event *event) except -1:
        """An operation has ended, or has something new."""
        return ON_EVENT_QUIET

    cdef int on_turn_end(self, Loop loop) except -1:
        """Of one that called mark_dirty(): the last moment before the turn's system call."""
        return 0

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        """The last event of an operation that was in flight when the loop was closed."""
        return 0


# ---- the loop ---------------------------------------------------------------------------------

cdef bint is_leaving(Loop loop) except -1:
    return loop.fork_generation != fork_count and loop in inherited_runs


cdef int wait_inherited(Loop loop, int64_t timeout_ns) except -1:
    """The wait of a loop in a child: for timers, once it is left, and for nothing that the parent
    waits for. A wait that could have no end is refused."""
    if timeout_ns < 0 or (timeout_ns and loop not in left_loops):
        loop._not_forked()
    time.sleep(timeout_ns * 1e-9)
    return 0


cdef class Loop(FdTables):
    """The native half of netpoll.EventLoop (loop.py has the other)."""

    def __cinit__(self, *args, **kwargs):
        self.inbox.wake_fd = -1
        self.hosts = []
        self._readers = {}
        self._writers = {}
        self.future_arguments = {"loop": self}  # made once: a call with keywords makes a dict
        self.slow_callback_duration = 0.1
        self.fork_generation = fork_count
        self.resolution_s = time.get_clock_info("monotonic").resolution
        np_timer_heap_init(&self.timers)

    def _open_backend(self, str name, config):
        """Makes the backend. Raises OSError when the kernel refuses it, MemoryError."""
        cdef np_config c
        if self.backend is not None:
            raise RuntimeError("an event loop is made once")
        memset(&c, 0, sizeof(c))
        c.sq_entries = config.sq_entries
        c.cq_entries = config.cq_entries
        c.buf_count = config.buf_count
        c.buf_bytes = config.buf_bytes
        c.sqpoll_idle_ms = config.sqpoll_idle_ms
        for feature in config.features_off or ():
            c.features_off |= FEATURES[feature]
        cdef int err = np_inbox_open(&self.inbox)
        if err < 0:
            raise no_loop(-err, "eventfd2", "the wake-up eventfd of an event loop")
        self.ops = &np_uring_ops if name == "uring" else &np_epoll_ops
        err = self.ops.open(&self.be, &c, self.inbox.wake_fd)
        if err < 0:
            self.be = NULL
            np_inbox_close(&self.inbox)
            raise no_loop(-err, OPENED_BY[name], f"opening the {name} backend of an event loop")
        self.backend = name
        all_loops.add(self)
        for tell in ON_BIRTH:
            tell(self)

    def __dealloc__(self):
        cdef uint32_t i
        if self.be is not NULL:
            np_backend_abandon(self.be)  # never closed: operations may be left in it
            self.ops.close(self.be)
        if self.inbox.wake_fd >= 0:
            np_inbox_close(&self.inbox)
        for i in range(self.ready_count):
            Py_DECREF(self.ready[(self.ready_head + i) & (self.ready_cap - 1)])
        for i in range(self.dirty_next, self.dirty_count):
            Py_DECREF(self.dirty[i])
        free(self.ready)
        free(self.dirty)
        np_timer_heap_close(&self.timers)

    # -- queues ---------------------------------------------------------------------------------

    cdef int check_closed(self) except -1:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        return 0

    cdef inline int check_open(self) except -1:
        """There is a backend, and it is this process's."""
        if self.be is NULL or self.is_ending:
            raise RuntimeError("Event loop is closed")
        if self.fork_generation != fork_count:
            self._not_forked()
        return 0

    cdef int check_ours(self) except -1:
        """Without a GIL, another thread's call would corrupt memory: it is refused."""
        if not NP_HAS_GIL and not self.is_ours():
            raise RuntimeError(
                "a running event loop belongs to its thread; from another one use "
                "loop.call_soon_threadsafe() or asyncio.run_coroutine_threadsafe()")
        return 0

    cdef int post(self, Handle handle) except -1:
        """Puts a handle into the queue of a loop that may run in another thread."""
        handle.inbox_item.handle = <PyObject*>handle
        Py_INCREF(<PyObject*>handle)  # the inbox's
        np_inbox_push(&self.inbox, &handle.inbox_item.node)
        return 0

    def _running_in(self, ident):
        """Notes that the calling thread runs the loop, and the name that `threading` has for it,
        which is not its own where a program has replaced get_ident(). None: no thread does."""
        self.running_ident = 0 if ident is None else PyThread_get_thread_ident()
        self._thread_id = ident

    cdef int push_ready(self, Handle handle) except -1:
        if self.ready_count == self.ready_cap:
            self._grow_ready()
        Py_INCREF(<PyObject*>handle)
        self.ready[(self.ready_head + self.ready_count) & (self.ready_cap - 1)] = <PyObject*>handle
        self.ready_count += 1
        return 0

    cdef int _grow_ready(self) except -1:
        cdef uint32_t cap = self.ready_cap * 2 if self.ready_cap else 64
        cdef PyObject **ready = <PyObject**>malloc(cap * sizeof(PyObject*))
        cdef uint32_t i
        if ready is NULL:
            raise MemoryError
        for i in range(self.ready_count):
            ready[i] = self.ready[(self.ready_head + i) & (self.ready_cap - 1)]
        free(self.ready)
        self.ready = ready
        self.ready_head = 0
        self.ready_cap = cap
        return 0

    cdef int mark_dirty(self, Completion who) except -1:
        """who.on_turn_end is called before the next system call of the loop."""
        cdef PyObject **dirty
        cdef uint32_t cap
        if self.dirty_count == self.dirty_cap:
            cap = self.dirty_cap * 2 if self.dirty_cap else 64
            dirty = <PyObject**>realloc(self.dirty, cap * sizeof(PyObject*))
            if dirty is NULL:
                raise MemoryError
            self.dirty = dirty
            self.dirty_cap = cap
        Py_INCREF(<PyObject*>who)
        self.dirty[self.dirty_count] = <PyObject*>who
        self.dirty_count += 1
        return 0

    cdef int _end_turn(self) except -1:
        """Runs the dirty list. An entry that fails does not take the others with it."""
        cdef Completion who
        if self.fork_generation != fork_count:
            return 0  # what waits to be sent, or watched, is the parent's
        while self.dirty_next < self.dirty_count:
            who = <Completion>self.dirty[self.dirty_next]
            self.dirty_next += 1
            Py_DECREF(<PyObject*>who)
            try:
                who.on_turn_end(self)
            except (SystemExit, KeyboardInterrupt):
                raise  # what comes after it stays for the next call; it is not lost
            except BaseException as exc:
                self.call_exception_handler(
                    {"message": "Fatal error: flushing a transport failed", "exception": exc})
        self.dirty_next = self.dirty_count = 0
        return 0

    # -- operations -----------------------------------------------------------------------------

    cdef np_udata arm(self, uint8_t kind, int fd, Completion owner, uint32_t argument) except? 0:
        """Starts an operation; it holds a reference to owner until its last event.

        argument: POLL, the poll(2) bits, and NP_POLL_KEEP if the fd is ours.
        """
        cdef np_op *op
        cdef np_udata udata
        cdef int err
        self.check_open()
        op = np_op_alloc(&np_head(self.be).slab, kind, fd, <void*>owner)
        if op is NULL:
            raise MemoryError("no memory for an operation")
        op.poll_mask = argument
        udata = np_op_udata(op)
        err = self.ops.arm(self.be, op)
        if err < 0:
            raise os_error(err, f"fd {fd}")
        Py_INCREF(<PyObject*>owner)
        return udata

    cdef int cancel(self, np_udata op) except -1:
        cdef int err
        if self.be is not NULL and op and self.fork_generation == fork_count:
            err = self.ops.cancel(self.be, op, 0)
            if err < 0 and err != -ENOENT:
                raise os_error(err, "cancelling an operation")
        return 0

    # -- scheduling -----------------------------------------------------------------------------

    cdef Handle soon(self, object callback, tuple args):
        """call_soon for our own use."""
        self.check_closed()
        cdef Handle handle = new_handle(self, callback, args, None)
        if not np_inbox_is_empty(&self.inbox):
            self._take_inbox()
        self.push_ready(handle)
        return handle

    cdef TimerHandle _new_timer(self, double when_s, object callback, object context):
        cdef TimerHandle handle = TimerHandle.__new__(TimerHandle)
        if self.be is NULL:
            self.check_closed()  # by the number's __float__, say
        handle.loop = self
        handle.callback = callback
        handle.context = PyContext_CopyCurrent() if context is None else context
        handle.when_s = when_s
        if self._debug:
            handle._source_traceback = format_helpers.extract_stack()
        if when_s > 9.2e9:
            handle.timer.when_ns = INT64_MAX
        elif when_s > -9.2e9:
            handle.timer.when_ns = <int64_t>ceil(when_s * 1e9)
        else:
            handle.timer.when_ns = 0  # not a number, too: due at once, as on asyncio
        return handle

    cdef int _start_timer(self, TimerHandle handle) except -1:
        if NP_HAS_GIL or self.is_ours():
            self._add_timer(handle)
        else:
            self.post(new_handle(self, self._add_timer, (handle,), None))
        return 0

    cpdef int _add_timer(self, TimerHandle handle) except -1:
        if handle.is_cancelled or handle.timer.pos:
            return 0
        if np_timer_add(&self.timers, &handle.timer) < 0:
            raise MemoryError
        Py_INCREF(<PyObject*>handle)  # the heap's
        return 0

    def time(self):
        """The loop's clock: CLOCK_MONOTONIC, in seconds."""
        return np_clock_ns() * 1e-9

    cdef object new_future(self):
        return future_of(self, Future)

    def create_task(self, coro, *, name=None, context=None, **kwargs):
        """A new asyncio.Task of this loop, or what the task factory makes."""
        if self._task_factory is None:
            self.check_closed()
            if name is None and context is None and not kwargs:
                return tasks.Task(coro, loop=self)
            return tasks.Task(coro, loop=self, name=name, context=context, **kwargs)
        if name is not None:
            kwargs["name"] = name
        if context is not None:
            kwargs["context"] = context
        return BaseEventLoop.create_task(self, coro, **kwargs)

    # -- the turn -------------------------------------------------------------------------------

    def _enable(self):
        """The calling thread is going to run the loop."""
        if is_leaving(self):
            return
        self.check_open()
        cdef int err = self.ops.enable(self.be)
        if err < 0:
            raise os_error(err, "taking the event loop's ring to this thread")

    def _run_turns(self):
        """Runs turns until stop() was called; the last one is complete."""
        self.enter_turn()
        try:
            self._turn()
            while not self._stopping:
                self._turn()
        finally:  # SystemExit out of a callback is no reason to lose what others have written
            self._in_turn = False
            self._settle()

    @property
    def _is_inherited(self):
        """This is a child process, and the loop its parent's."""
        return self.fork_generation != fork_count

    def _run_patched_turns(self):
        """The same where a subclass, or a program, has put its own _run_once in place."""
        try:
            self._run_once()
            while not self._stopping:
                self._run_once()
        finally:
            self._settle()

    cdef int enter_turn(self) except -1:
        """The turn's places in queue and batch are its own: there is no turn within a turn."""
        self.check_closed()
        if not is_leaving(self):
            self.check_open()
        if self._in_turn:
            raise RuntimeError(NO_NESTING)
        self._in_turn = True
        self.has_called = True  # whatever came before this run
        return 0

    cdef int _not_forked(self) except -1:
        np_backend_abandon(self.be)
        raise RuntimeError("this event loop was made before a fork and belongs to the parent "
                           "process; make a new one in the child")

    cdef int _settle(self) except -1:
        """What callbacks of the last turn wrote leaves, though no turn follows."""
        cdef int err
        if self.be is NULL:
            return 0
        if self.fork_generation != fork_count:
            left_loops.add(self)
            return 0
        self._end_turn()
        with nogil:
            release_away(&self.away)
            err = self.ops.flush(self.be)
        if err < 0:
            raise os_error(err, "submitting to the kernel")
        return 0

    cdef int64_t _timeout_ns(self) noexcept:
        if self.ready_count or self._stopping or self.events_next < self.events_count:
            return 0
        cdef np_timer *timer = np_timer_peek(&self.timers)
        if timer is NULL:
            return -1
        return max(0, min(timer.when_ns - np_clock_ns(), NP_WAIT_MAX_NS))

    cdef int _turn(self) except -1:
        cdef int64_t timeout_ns
        self.turns += 1
        if self.dirty_count:
            self.has_called = True
            self._end_turn()
        # As late as can be: a signal between this and the wait is heard of when the wait has ended.
        # Where a callback is due, the interpreter looks itself.
        if not self.ready_count:
            PyErr_CheckSignals()
        timeout_ns = self._timeout_ns()
        # With callbacks waiting, ask only for what the program's code may have made ready.
        if self.events_next == self.events_count and (
                timeout_ns or self.away.count or self.has_called and self.ops.has_work(self.be)):
            self._wait(timeout_ns)
        # asyncio's order, see docs/turn.md: what was waiting before these events came, then the
        # events, then the timers that were due before any of it ran. What all of these schedule
        # waits for the next turn.
        if not np_inbox_is_empty(&self.inbox):
            self._take_inbox()
        cdef uint32_t count = self.ready_count, timers_count = 0
        if self.timers.count:
            self._fire_timers()
            timers_count = self.ready_count - count
        if count:
            self._run_ready(count)
        if self.events_next < self.events_count:
            self._dispatch()
        if timers_count:
            self._run_ready(timers_count)
        return 0

    cdef int _wait(self, int64_t timeout_ns) except -1:
        cdef int n
        if self.fork_generation != fork_count:
            return wait_inherited(self, timeout_ns)
        if timeout_ns and not np_inbox_sleep(&self.inbox):
            timeout_ns = 0  # something came in meanwhile
        self.is_away = True
        with nogil:
            release_away(&self.away)
            n = self.ops.turn(self.be, self.events, NP_HARVEST_MAX_EVENTS, timeout_ns)
        self.is_away = self.has_called = False
        np_inbox_awake(&self.inbox)
        self.events_next = 0
        self.events_count = n if n > 0 else 0
        if n < 0 and n != -EINTR:
            raise os_error(n, f"waiting for events ({self.backend})")
        PyErr_CheckSignals()
        return 0

    cdef int _dispatch(self) except -1:
        """Hands out the batch. The place in it is kept, so an interrupt loses no event."""
        cdef np_event *event
        cdef Completion owner
        while self.events_next < self.events_count:
            event = &self.events[self.events_next]
            self.events_next += 1
            owner = owner_of(event.owner)
            if not event.flags & NP_EV_MORE:
                drop_owner(event.owner)  # the operation's reference; `owner` still holds one
            try:
                if owner.on_event(self, event) != ON_EVENT_QUIET:
                    self.has_called = True
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:  # nobody's connection may end the loop
                self.has_called = True
                self.call_exception_handler(
                    {"message": f"Fatal error: a completion of {owner!r}", "exception": exc})
        return 0

    cdef int _take_inbox(self) except -1:
        cdef np_inbox_node *node = np_inbox_take(&self.inbox)
        cdef np_inbox_node *following
        cdef PyObject *handle
        while node is not NULL:
            following = node.next
            handle = (<InboxItem*>node).handle
            self.push_ready(<Handle>handle)
            Py_DECREF(handle)
            node = following
        return 0

    cdef int _fire_timers(self) except -1:
        cdef int64_t now_ns = np_clock_ns() + TIMER_RESOLUTION_NS
        cdef np_timer *timer
        cdef TimerHandle handle
        while True:
            timer = np_timer_pop_due(&self.timers, now_ns)
            if timer is NULL:
                return 0
            handle = timer_owner(timer)
            Py_DECREF(<PyObject*>handle)  # the heap's
            self.push_ready(handle)

    cdef int _run_ready(self, uint32_t count) except -1:
        """Runs the oldest `count` callbacks; what they schedule has to wait."""
        cdef PyObject *item
        self.has_called = True
        while count:
            count -= 1
            item = self.ready[self.ready_head]
            self.ready_head = (self.ready_head + 1) & (self.ready_cap - 1)
            self.ready_count -= 1
            try:
                if self._debug:
                    self.run_now(<Handle>item)
                else:
                    run_handle(self, <Handle>item)
            finally:
                release_handle(item)
        return 0

    cdef int run_now(self, Handle handle) except -1:
        """Runs one callback; in debug mode reports one that holds the loop up."""
        cdef double start_s, taken_s
        if not self._debug:
            return run_handle(self, handle)
        if handle.is_cancelled:
            return 0
        try:
            self._current_handle = handle
            start_s = np_clock_ns() * 1e-9
            run_handle(self, handle)
            taken_s = np_clock_ns() * 1e-9 - start_s
            if taken_s >= self.slow_callback_duration:
                self._callback_slow(handle, taken_s)
        finally:
            self._current_handle = None
        return 0

    # Debuggers, and code that steps a loop by hand, know asyncio's loops by these three.

    def _run_once(self):
        """One turn; waits if there is nothing to do."""
        self.enter_turn()
        try:
            self._enable()
            self._turn()
        finally:
            self._in_turn = False

    @property
    def _ready(self):
        """The callbacks that are due, oldest first: a copy."""
        cdef uint32_t i
        return [<object>self.ready[(self.ready_head + i) & (self.ready_cap - 1)]
                for i in range(self.ready_count)]

    @_ready.setter
    def _ready(self, value):
        pass  # BaseEventLoop sets its own queue up; ours is native

    @property
    def _scheduled(self):
        """The armed timers, in no particular order: a copy."""
        cdef uint32_t i
        return [timer_owner(self.timers.slots[i].timer) for i in range(self.timers.count)]

    @_scheduled.setter
    def _scheduled(self, value):
        pass

    # -- stop, close, report --------------------------------------------------------------------

    def _write_to_self(self):
        """Wakes the loop; safe from any thread and from signal handlers."""
        if self.inbox.wake_fd >= 0:
            np_inbox_wake(&self.inbox)

    def _close_native(self):
        """Ends every operation and closes the backend. The loop is not running."""
        if self.be is NULL or self.is_ending:
            return
        if self.running_ident or self._in_turn:
            raise RuntimeError("Cannot close a running event loop")
        self.is_ending = True  # what ends with it may run code that closes it, or uses it
        self._drop_queues()
        if self.fork_generation == fork_count:
            self._end_operations()
        else:
            np_backend_abandon(self.be)
        self.last_stats = np_backend_stats(np_head(self.be))
        self.ops.close(self.be)
        self.be = NULL
        for pool in self.buffer_pools or ():
            pool._forget(self)
        self.buffer_pools = None
        with cython.critical_section(self):  # a lease may be waking us
            np_inbox_close(&self.inbox)
            self.inbox.wake_fd = -1
        self.future_arguments = None

    cdef int _drop_queues(self) except -1:
        cdef PyObject *item
        cdef np_timer *timer
        cdef TimerHandle handle
        self._take_inbox()
        while self.ready_count:
            item = self.ready[self.ready_head]
            self.ready_head = (self.ready_head + 1) & (self.ready_cap - 1)
            self.ready_count -= 1
            release_handle(item)
        while self.dirty_count > self.dirty_next:
            self.dirty_count -= 1
            Py_DECREF(self.dirty[self.dirty_count])
        self.dirty_next = self.dirty_count = 0
        while True:
            timer = np_timer_pop_due(&self.timers, INT64_MAX)
            if timer is NULL:
                break
            handle = timer_owner(timer)
            release_handle(<PyObject*>handle)
        self._readers.clear()
        self._writers.clear()
        return 0

    cdef int _end_operations(self) except -1:
        """Cancels what is in flight and waits for the kernel to let go of it."""
        cdef np_backend_head *head = np_head(self.be)
        cdef np_op *op
        cdef uint32_t slot
        cdef int n = 0, turns = 0
        if head.slab.live_count:
            n = 1
            if self.ops.enable(self.be) < 0:
                np_backend_abandon(self.be)  # not in this thread: given up with its ring
                return 0
            for slot in range(head.slab.chunks_count * NP_OP_CHUNK_SLOTS):
                op = np_op_at(&head.slab, slot)
                if op.state != NP_FREE:
                    self.ops.cancel(self.be, np_op_udata(op), 0)
        while True:
            while self.events_next < self.events_count:
                self.events_next += 1
                self._drop_event(&self.events[self.events_next - 1])
            self.events_next = self.events_count = 0
            if turns == CLOSE_TURNS_MAX_COUNT:
                np_backend_abandon(self.be)
            # Without an operation there may be an event: carried over from another thread's ring.
            if not head.slab.live_count and n <= 0 or turns == CLOSE_TURNS_MAX_COUNT:
                return 0
            turns += 1
            n = self.ops.turn(self.be, self.events, NP_HARVEST_MAX_EVENTS,
                              1000000 if head.slab.live_count else 0)
            self.events_count = n if n > 0 else 0

    cdef int _drop_event(self, np_event *event) except -1:
        if event.kind == NP_OP_ACCEPT and event.res >= 0:
            np_sock_close(event.res)
        cdef Completion owner = owner_of(event.owner)
        if not event.flags & NP_EV_MORE:
            drop_owner(event.owner)
            try:
                owner.on_loop_closed(self, event)
            except BaseException as exc:  # the others have to be told, too
                self.call_exception_handler(
                    {"message": f"Fatal error: closing {owner!r} failed", "exception": exc})
        return 0


seal_types(globals(), (Loop,))
