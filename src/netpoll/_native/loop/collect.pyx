# cython: language_level=3, freethreading_compatible=True
"""What a loop that does not run refers to, for the garbage collector (loop/collect.pxd).

    loop ─► queued handles, timers, inbox ─► callbacks, arguments, contexts ─► ... ─► loop
         ─► operations in flight ─► their owners
         ─► who has something to do before the next system call

A loop that was dropped unclosed is found that way, whatever waits in it. asyncio's __del__ then
warns and closes it, which ends the operations before anything is freed.
"""

from netpoll._core cimport Loop
from netpoll._native.c cimport (
    NP_COOKIE_STRUCT, NP_EV_MORE, NP_FREE, NP_OP_CHUNK_SLOTS, PyObject, inquiry, np_event, np_head,
    np_inbox_peek, np_inbox_node, np_op, np_op_at, np_op_slab, traverseproc, visitproc)
from netpoll._native.handle cimport Handle, InboxItem, timer_place
from netpoll._native.loop.collect cimport is_running, replace_clear, replace_traverse, visit_handle
from netpoll._native.loop.watcher cimport Watcher

from libc.stdint cimport uint32_t, uintptr_t


cdef inline int visit_cookie(void *cookie, visitproc visit, void *arg) noexcept:
    """The reference of an operation to its owner, if it has one (_core.pxd)."""
    if cookie is NULL or <uintptr_t>cookie & NP_COOKIE_STRUCT:
        return 0
    return visit(<PyObject*>cookie, arg)


cdef inline int visit_queued(PyObject *item, visitproc visit, void *arg) noexcept:
    # A reader's or writer's handle is its watcher's, and may be queued as well.
    return 0 if (<Handle>item).is_permanent else visit_handle(item, visit, arg)


cdef int visit_queues(PyObject *loop, visitproc visit, void *arg) noexcept:
    cdef PyObject **ready = (<Loop>loop).ready
    cdef uint32_t mask = (<Loop>loop).ready_cap - 1
    cdef np_inbox_node *node
    cdef uint32_t i
    cdef int err = 0
    for i in range((<Loop>loop).ready_count):
        err = visit_queued(ready[((<Loop>loop).ready_head + i) & mask], visit, arg)
        if err:
            return err
    for i in range((<Loop>loop).timers.count):
        err = visit_handle(timer_place((<Loop>loop).timers.slots[i].timer), visit, arg)
        if err:
            return err
    node = np_inbox_peek(&(<Loop>loop).inbox)
    while node is not NULL:
        err = visit_queued((<InboxItem*>node).handle, visit, arg)
        if err:
            return err
        node = node.next
    for i in range((<Loop>loop).dirty_next, (<Loop>loop).dirty_count):
        err = visit((<Loop>loop).dirty[i], arg)
        if err:
            return err
    return 0


cdef int visit_operations(PyObject *loop, visitproc visit, void *arg) noexcept:
    cdef np_op_slab *slab
    cdef np_op *op
    cdef np_event *event
    cdef uint32_t slot
    cdef int i, err = 0
    if (<Loop>loop).be is NULL:
        return 0
    slab = &np_head((<Loop>loop).be).slab
    if slab.live_count:
        for slot in range(slab.chunks_count * NP_OP_CHUNK_SLOTS):
            op = np_op_at(slab, slot)
            if op.state != NP_FREE:
                err = visit_cookie(op.owner, visit, arg)
                if err:
                    return err
    for i in range((<Loop>loop).events_next, (<Loop>loop).events_count):
        event = &(<Loop>loop).events[i]
        if not event.flags & NP_EV_MORE:  # the operation's reference, not yet dropped
            err = visit_cookie(event.owner, visit, arg)
            if err:
                return err
    return 0


cdef int traverse_loop(PyObject *loop, visitproc visit, void *arg) noexcept:
    cdef int err = 0
    if not is_running(loop):
        err = visit_queues(loop, visit, arg)
        if err == 0:
            err = visit_operations(loop, visit, arg)
    return err if err else generated_loop(loop, visit, arg)


cdef int clear_loop(PyObject *loop) noexcept:
    """Of a loop whose __del__ did not close it: nothing may stay in the kernel, or in a queue."""
    close_unclosed(loop)
    return generated_clear(loop)


cdef int close_unclosed(PyObject *loop) noexcept:
    if (<Loop>loop).be is not NULL:
        (<Loop>loop)._close_native()
    return 0


cdef int traverse_watcher(PyObject *watcher, visitproc visit, void *arg) noexcept:
    cdef PyObject *handle = <PyObject*>(<Watcher>watcher).handle
    cdef int err = 0
    if handle is not NULL and handle is not <PyObject*>None:
        err = visit_handle(handle, visit, arg)
    return err if err else generated_watcher(watcher, visit, arg)


cdef traverseproc generated_loop = replace_traverse(Loop, traverse_loop)
cdef inquiry generated_clear = replace_clear(Loop, clear_loop)
cdef traverseproc generated_watcher = replace_traverse(Watcher, traverse_watcher)
