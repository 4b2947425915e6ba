# cython: language_level=3, freethreading_compatible=True
"""Zero-copy sends of a server's connections.

A shipment is one such send: it refers to everything that the kernel reads until the kernel says
that it has let go (np_backend.h, send), which may be long after the connection went on, or
ended. Whether a connection's sends ask for zero-copy at all is decided by np_zc.h, from what the
kernel reports of them.
"""

from libc.stdint cimport int32_t, uint32_t, uint8_t, uintptr_t

from netpoll._core cimport Completion, Loop
from netpoll._native.c cimport (
    NP_CONN_CHOKED, NP_CONN_CLOSING, NP_CONN_SHUT, NP_EV_MORE, NP_EV_NOTIF, NP_OWNER_MASK,
    NP_SEND_QUIET, NP_ZC_REGISTERED_MIN_BYTES, PyObject, Py_INCREF, np_chunk, np_conn,
    np_conn_cookie, np_conn_pin, np_event, np_flow, np_head, np_op, np_op_alloc, np_op_udata,
    np_region_of, np_sock_send, np_udata, np_zc_report, np_zc_wants)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport SHIPMENTS_MAX_COUNT
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport Connection, unpin
from netpoll._native.server.lifetime cimport Keeper


cdef class Shipment(Completion):
    cdef int on_event(self, Loop loop, np_event *event) except -1:
        cdef np_conn *conn = self.conn
        cdef Sender host = <Sender>self.host
        _owners = self.owners  # what they free, they free when all else is done
        if not event.flags & NP_EV_MORE:
            self.owners = None
        if conn.serial == self.serial and conn.fd >= 0:
            np_zc_report(&conn.zc, event.flags)
            if not event.flags & NP_EV_MORE:
                conn.task.flags -= 1
        if event.flags & NP_EV_NOTIF:
            return 0
        np_conn_pin(conn)
        try:
            return host.shipped(conn, event)
        finally:
            unpin(host, conn)

    cdef int on_loop_closed(self, Loop loop, np_event *event) except -1:
        _owners = self.owners
        if not event.flags & NP_EV_MORE:
            self.owners = None
        if event.flags & NP_EV_NOTIF:
            return 0
        return (<Sender>self.host).ended_with_loop(self.conn, False)


cdef class Sender(Keeper):
    cdef int took(self, np_conn *conn, Py_ssize_t res) except -1:
        raise NotImplementedError

    cdef int launch(self, np_conn *conn, int n, size_t total_bytes, bint now) except -1:
        """Sends what self.iov was filled with: the first n pieces of the outbound flow."""
        cdef np_flow *flow = conn.out
        cdef int32_t res = 0
        cdef int done, how = 0
        self.launches_count += 1
        if now or self.loop._stopping:
            return self.took(conn, np_sock_send(conn.fd, self.iov, n))
        if self.may_ship and total_bytes >= NP_ZC_REGISTERED_MIN_BYTES and self.ship(conn, n):
            return 0
        # Nobody needs to hear of the end of a send that leaves nothing behind and ends nothing.
        if <uint32_t>n == flow.iov.count and not conn.flags & (
                NP_CONN_CLOSING | NP_CONN_SHUT | NP_CONN_CHOKED) \
                and (conn.task.argument is NULL
                     or (<Connection>conn.task.argument).draining is None):
            how = NP_SEND_QUIET
        done = self.loop.ops.send(self.loop.be, conn.fd, np_conn_cookie(conn), self.iov, n, how,
                                  &res, &flow.op)
        if done == 0:
            flow.sending = n
            return 0
        return self.took(conn, res if done > 0 else done)

    cdef int shipped(self, np_conn *conn, np_event *event) except -1:
        raise NotImplementedError

    cdef int ship(self, np_conn *conn, int n) except -1:
        """Sends the first n pieces by zero-copy, if that is what this connection wants.

        1: under way, or put off. 0: not wanted, or not possible now.
        """
        cdef np_flow *flow = conn.out
        cdef np_chunk *chunk
        cdef Shipment shipment
        cdef size_t total_bytes = 0
        cdef int32_t res = 0
        cdef int i, how
        cdef uint32_t launches_count = self.launches_count
        for i in range(n):
            chunk = &flow.iov.chunks[(flow.iov.head + i) & (flow.iov.cap - 1)]
            if <uintptr_t>chunk.owner & NP_OWNER_MASK:
                return 0  # received or copied memory: short-lived, and better not kept for long
            total_bytes += chunk.len_bytes
        if conn.task.flags == SHIPMENTS_MAX_COUNT:
            return 0
        how = np_zc_wants(&conn.zc, total_bytes,
                          np_region_of(np_head(self.loop.be), self.iov, n) >= 0, conn.task.flags)
        if how == 0:
            return 0
        shipment = Shipment.__new__(Shipment)
        shipment.host = self
        shipment.conn = conn
        shipment.serial = conn.serial
        shipment.owners = [
            <object>flow.iov.chunks[(flow.iov.head + i) & (flow.iov.cap - 1)].owner
            for i in range(n)]
        if self.launches_count != launches_count or conn.out is not flow or flow.op:
            # To make these objects may run the garbage collector, and that anything: self.iov is
            # not what it was.
            self.send_soon(conn)
            return 1
        if self.loop.ops.send(self.loop.be, conn.fd, <void*>shipment, self.iov, n, how,
                              &res, &flow.op) != 0:
            return 0
        Py_INCREF(<PyObject*>shipment)  # the operation's
        flow.sending = n
        conn.task.flags += 1
        return 1

    cdef np_udata arm_op(self, np_conn *conn, uint8_t kind, uint32_t argument) except 0:
        """Starts an operation of a connection; its events come by the connection's cookie."""
        cdef np_op *op
        cdef np_udata udata
        cdef int err
        if self.loop.be is NULL:
            raise RuntimeError("Event loop is closed")
        op = np_op_alloc(&np_head(self.loop.be).slab, kind, conn.fd, np_conn_cookie(conn))
        if op is NULL:
            raise MemoryError("no memory for an operation")
        op.poll_mask = argument
        udata = np_op_udata(op)
        err = self.loop.ops.arm(self.loop.be, op)
        if err < 0:
            raise os_error(err)
        return udata


seal_types(globals())
