# cython: language_level=3, freethreading_compatible=True
"""What a worker's connections refer to, for the garbage collector (loop/collect.pxd).

    worker ─► spare face
           ─► struct np_conn ─► its face ─► state, session, awaits, leases
           ─► struct np_flow ─► blocks of pools

The loop refers to the worker while it has connections (Loop.hosts).
"""

from netpoll._native.c cimport (
    NP_CONN_CHUNK_COUNT, NP_OWNER_MASK, PyObject, Py_DECREF, inquiry, np_chunk, np_conn,
    np_conn_at, np_flow, np_flow_at, traverseproc, visitproc)
from netpoll._native.loop.collect cimport is_running, replace_clear, replace_traverse
from netpoll._native.server.connection cimport Connection
from netpoll._native.server.worker cimport Worker

from libc.stdint cimport uint32_t, uintptr_t


cdef int visit_flow(np_flow *flow, visitproc visit, void *arg) noexcept:
    cdef np_chunk *chunk
    cdef uint32_t i
    cdef int err = 0
    for i in range(flow.iov.count):
        chunk = &flow.iov.chunks[(flow.iov.head + i) & (flow.iov.cap - 1)]
        if chunk.owner is not NULL and not <uintptr_t>chunk.owner & NP_OWNER_MASK:
            err = visit(<PyObject*>chunk.owner, arg)
            if err:
                return err
    return 0


cdef int visit_connections(PyObject *worker, visitproc visit, void *arg) noexcept:
    cdef np_conn *conn
    cdef np_flow *flow
    cdef uint32_t i
    cdef int err = 0
    if (<Worker>worker).spare is not NULL:
        err = visit((<Worker>worker).spare, arg)
    if (<Worker>worker).slab.live_count:
        for i in range((<Worker>worker).slab.chunks_count * NP_CONN_CHUNK_COUNT):
            conn = np_conn_at(&(<Worker>worker).slab, i)
            if err == 0 and conn.fd >= 0 and conn.task.argument is not NULL:
                err = visit(<PyObject*>conn.task.argument, arg)
    if (<Worker>worker).slab.flow_live_count:
        for i in range((<Worker>worker).slab.flow_chunks_count * NP_CONN_CHUNK_COUNT):
            flow = np_flow_at(&(<Worker>worker).slab, i)
            if err == 0 and flow.live:
                err = visit_flow(flow, visit, arg)
    return err


cdef int traverse_worker(PyObject *worker, visitproc visit, void *arg) noexcept:
    cdef int err = 0
    if not is_running(<PyObject*>(<Worker>worker).loop):
        err = visit_connections(worker, visit, arg)
    return err if err else generated_worker(worker, visit, arg)


cdef int clear_worker(PyObject *worker) noexcept:
    """Its loop is closed, or garbage as well: nothing comes for its connections any more, and their
    faces must not lead to structs that go with the worker."""
    forget_faces(worker)
    return generated_clear(worker)


cdef int forget_faces(PyObject *worker) noexcept:
    cdef PyObject *spare = (<Worker>worker).spare
    cdef PyObject *face
    cdef np_conn *conn
    cdef uint32_t i
    (<Worker>worker).spare = NULL
    for i in range((<Worker>worker).slab.chunks_count * NP_CONN_CHUNK_COUNT):
        conn = np_conn_at(&(<Worker>worker).slab, i)
        face = <PyObject*>conn.task.argument
        if conn.fd >= 0 and face is not NULL:
            conn.task.argument = NULL
            (<Connection>face).conn = NULL
            Py_DECREF(face)
    if spare is not NULL:
        Py_DECREF(spare)
    return 0


cdef traverseproc generated_worker = replace_traverse(Worker, traverse_worker)
cdef inquiry generated_clear = replace_clear(Worker, clear_worker)
