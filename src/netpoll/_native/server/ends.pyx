# cython: language_level=3, freethreading_compatible=True
"""How the connections of a worker end with its loop, whatever state that is in.

    end_connections   before the loop is closed: handlers and sessions hear of it
    close_rest        when it is closed: what the kernel did not give back in an orderly way
    forget            in a forked child: the copies of the descriptors, and nothing else
"""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport uint32_t

from netpoll._native.c cimport (
    NP_CONN_CHUNK_COUNT, NP_CONN_DIRTY, np_conn, np_conn_at, np_sock_close)
from netpoll._native.server.session cimport Session
from netpoll._native.server.worker cimport Worker


def end_connections(Worker worker not None):
    """Every connection is over, and every session's coroutine closed. In the thread that closes
    the loop. The first exception that is not an Exception is raised when all are."""
    cdef Session session
    worker.is_stopping = True
    worker.thread_id = PyThread_get_thread_ident()
    failed = None
    try:
        worker._abort_all()
    except BaseException as exc:
        failed = exc
    for session in list(worker.sessions):
        try:
            session.end()
        except BaseException as exc:
            failed = failed or exc
    if failed is not None:
        raise failed


def close_rest(Worker worker not None):
    """The loop is closed, and with it the backend: nobody else closes these any more."""
    cdef uint32_t i
    cdef np_conn *conn
    worker.is_over = True
    worker.close_dealt()
    if worker.doors is not None:
        worker.doors.close_all()
    worker.forget_queues()
    for i in range(worker.slab.chunks_count * NP_CONN_CHUNK_COUNT):
        conn = np_conn_at(&worker.slab, i)
        if conn.fd < 0 or not conn.flags:
            continue
        if conn.out is not NULL and conn.out.sending:
            # A ring that was given up may still read what it was to send: that stays.
            np_sock_close(conn.fd)
            conn.fd = -1
            continue
        conn.task.spare = 0
        conn.flags &= ~NP_CONN_DIRTY
        if conn.out is not NULL:
            conn.out.op = 0
        worker.lose(conn, None)
        worker.drop_flow(conn, False)
        worker.finish(conn)


def forget(Worker worker not None):
    """The connections are the parent's: the child closes its copies of their descriptors."""
    cdef uint32_t i
    cdef np_conn *conn
    worker.is_over = True
    worker.close_dealt()
    if worker.doors is not None:
        worker.doors.forget()
    for i in range(worker.slab.chunks_count * NP_CONN_CHUNK_COUNT):
        conn = np_conn_at(&worker.slab, i)
        if conn.flags and conn.fd >= 0:
            np_sock_close(conn.fd)
            conn.fd = -1


def is_session_of(task, list workers):
    """The task is a session of one of these workers."""
    for worker in workers:
        if task in (<Worker>worker).sessions:
            return True
    return False
