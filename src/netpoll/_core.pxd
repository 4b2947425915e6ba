# The seam of _core.pyx: what the transports and socket operations may use of the loop.

from cpython.object cimport PyObject_Call
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t

from netpoll._native.away cimport Away
from netpoll._native.c cimport (
    NP_COOKIE_STRUCT, NP_HARVEST_MAX_EVENTS, PyObject, Py_DECREF, iovec, np_backend,
    np_backend_ops, np_event, np_inbox, np_stats, np_timer, np_udata)
from netpoll._native.fd_table cimport FdTables
from netpoll._native.handle cimport Handle, TimerHandle


cdef enum:
    # What on_event returns when none of the program's code has run in it: an await goes on in the
    # next turn, for instance. Any other value says nothing.
    ON_EVENT_QUIET = 1


cdef class Completion:
    """Something that owns operations: its on_event gets their completions."""
    cdef int on_event(self, Loop loop, np_event *event) except -1
    cdef int on_turn_end(self, Loop loop) except -1
    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1


# The cookie of an operation is a Completion, to which the operation holds a reference; or, with
# NP_COOKIE_STRUCT, a C struct whose first word is one. Then nothing is counted: who frees the
# struct waits for the last event. A connection of the server needs no Python object that way.

cdef inline Completion owner_of(void *cookie):
    if <uintptr_t>cookie & NP_COOKIE_STRUCT:
        return <Completion>(<PyObject**>(<uintptr_t>cookie - NP_COOKIE_STRUCT))[0]
    return <Completion>cookie


cdef inline void drop_owner(void *cookie) noexcept:
    if not <uintptr_t>cookie & NP_COOKIE_STRUCT:
        Py_DECREF(<PyObject*>cookie)


cdef class Loop(FdTables):
    # Read by everybody, written here.
    cdef np_backend *be
    cdef const np_backend_ops *ops
    cdef readonly str backend
    cdef public bint _stopping
    cdef readonly bint _in_turn
    cdef public object _thread_id
    # The queue of callbacks: a ring of Handle references.
    cdef PyObject **ready
    cdef uint32_t ready_head, ready_count, ready_cap
    # Whoever has something to do before the turn's system call (writes, watchers to arm again).
    cdef PyObject **dirty
    cdef uint32_t dirty_next, dirty_count, dirty_cap    # from dirty_next on: to be done
    cdef list hosts             # workers of servers that have connections: these lead to them
    cdef bint has_called        # something of the program's has run since the last wait
    cdef bint is_ending         # _close_native() has begun
    cdef bint is_away           # in the kernel, without the GIL
    cdef Away away              # who is woken when it is
    cdef list buffer_pools      # None, or those registered with our ring: they outlive it
    cdef np_inbox inbox
    cdef uint64_t turns
    cdef np_event events[NP_HARVEST_MAX_EVENTS]
    cdef int events_count, events_next
    cdef np_stats last_stats    # of the closed backend
    cdef readonly dict _readers, _writers
    cdef uint32_t fork_generation
    cdef double resolution_s
    cdef dict future_arguments
    cdef public object slow_callback_duration, _task_factory
    cdef object __weakref__

    cdef int check_closed(self) except -1
    cdef int check_open(self) except -1
    cdef int check_ours(self) except -1
    cdef int enter_turn(self) except -1
    cdef int post(self, Handle handle) except -1
    cdef int _grow_ready(self) except -1
    cdef int _end_turn(self) except -1
    cdef TimerHandle _new_timer(self, double when_s, object callback, object context)
    cdef int _start_timer(self, TimerHandle handle) except -1
    cpdef int _add_timer(self, TimerHandle handle) except -1
    cdef int _settle(self) except -1
    cdef int64_t _timeout_ns(self) noexcept
    cdef int _turn(self) except -1
    cdef int _wait(self, int64_t timeout_ns) except -1
    cdef int _dispatch(self) except -1
    cdef int _not_forked(self) except -1
    cdef int _take_inbox(self) except -1
    cdef int _fire_timers(self) except -1
    cdef int _run_ready(self, uint32_t count) except -1
    cdef int run_now(self, Handle handle) except -1
    cdef int _drop_queues(self) except -1
    cdef int _end_operations(self) except -1
    cdef int _drop_event(self, np_event *event) except -1
    cdef int push_ready(self, Handle handle) except -1
    cdef object new_future(self)
    cdef Handle soon(self, object callback, tuple args)
    cdef np_udata arm(self, uint8_t kind, int fd, Completion owner, uint32_t argument) except? 0
    cdef int cancel(self, np_udata op) except -1
    cdef int mark_dirty(self, Completion who) except -1


cdef inline object future_of(Loop loop, object kind):
    """A new future of this loop: kind is asyncio's type, or what a program has put in its place."""
    # A closed loop has no arguments: they lead to it, and it would wait for the collector.
    if loop.future_arguments is None:
        return kind(loop=loop)
    return PyObject_Call(kind, (), loop.future_arguments)
