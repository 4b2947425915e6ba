# The seam of _native/handle.pyx: what the loop uses of callbacks that are scheduled.

cimport cython

from netpoll._native.c cimport (
    PyObject, PyTuple_GET_ITEM, PyTuple_GET_SIZE, Py_DECREF, Py_REFCNT, np_inbox_node, np_timer,
    np_timer_heap)


cdef class HandleOwner:
    """What a handle knows of its loop."""
    cdef np_timer_heap timers
    cdef unsigned long running_ident    # of the thread that runs the loop, or 0
    cdef public bint _closed, _debug

    cdef bint is_ours(self) noexcept


cdef struct InboxItem:
    np_inbox_node node      # first: the inbox hands nodes back, and the node is the item
    PyObject *handle


cdef class Handle:
    cdef object callback, context
    cdef object arguments   # one argument as it is, several as a tuple: see arguments_count
    cdef int arguments_count
    cdef char is_shared         # call_soon_threadsafe's: others may wait until it has run
    cdef char is_running        # noted of shared ones only
    cdef HandleOwner loop       # None: it has run or was cancelled
    cdef bint is_cancelled
    cdef bint is_permanent      # runs more than once: a reader's or writer's
    cdef InboxItem inbox_item
    cdef object __weakref__


cdef class DebugHandle(Handle):
    cdef public object _source_traceback
    cdef str text           # repr kept when a cancelled handle drops its callback


cdef class TimerHandle(Handle):
    cdef np_timer timer
    cdef double when_s
    cdef bint is_whole          # call_at was given an int: so is when()
    cdef public object _source_traceback    # in debug mode


cdef int drop_callback(Handle handle) except -1
cdef Handle new_handle(HandleOwner loop, object callback, tuple args, object context)
cdef Handle handle_from_call(HandleOwner self, str name, bint is_shared,
                             PyObject *const *args, Py_ssize_t count, PyObject *kwnames)
cdef int run_handle(HandleOwner loop, Handle handle) except -1
cdef TimerHandle timer_owner(np_timer *timer)
cdef PyObject *timer_place(np_timer *timer) noexcept


cdef inline int set_arguments(Handle handle, tuple args) except -1:
    if args is None:
        return 0
    handle.arguments_count = <int>PyTuple_GET_SIZE(args)
    handle.arguments = <object>PyTuple_GET_ITEM(args, 0) if handle.arguments_count == 1 else args
    return 0


cdef inline int set_items(Handle handle, PyObject *const *args, Py_ssize_t count) except -1:
    """The same, from where PEP 590 has them."""
    cdef Py_ssize_t i
    handle.arguments_count = <int>count
    if count == 1:
        handle.arguments = <object>args[0]
    elif count > 1:
        handle.arguments = tuple([<object>args[i] for i in range(count)])
    return 0


cdef inline int release_handle(PyObject *item) except -1:
    """A handle that has run: one that somebody else keeps lets go of what it referred to."""
    cdef Handle handle
    if Py_REFCNT(item) > 1 and not (<Handle>item).is_permanent:
        handle = <Handle>item
        with cython.critical_section(handle):
            handle.callback = None
            handle.arguments = None
            handle.arguments_count = 0
            handle.context = None
            handle.loop = None
    Py_DECREF(item)
    return 0
