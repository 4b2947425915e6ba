# cython: language_level=3, freethreading_compatible=True
"""Receiving in bulk: connections that move large messages leave the ring of small buffers.

A receive of BULK_ENTER_BYTES or more moves its connection here: the loop waits for readiness, then
calls recv(2) into one large buffer, hands it to the handler, and sends what that wrote at once. The
buffer is free again before the next connection is read, so that all of them pass through the same
memory, which stays in the cache; with receives that the kernel completes by itself, the bytes of
every connection that is ready lie in memory before the first of them is looked at. A run of small
reads brings a connection back.
"""

from libc.errno cimport EAGAIN
from libc.stdint cimport int32_t, uint32_t, uint8_t
from libc.string cimport memset

from netpoll._native.c cimport (
    ECANCELED, NP_CONN_CANCELLED, NP_CONN_CLOSING, NP_CONN_DIRTY, NP_CONN_LOST, NP_EV_MORE,
    NP_OP_POLL, NP_OP_RECV, NP_POLL_KEEP, np_bufring_at, np_bufring_buf, np_bufring_close,
    np_bufring_consume, np_bufring_open, np_bufring_peek, np_bufring_recycle, np_bufring_rewind,
    np_conn, np_conn_at, np_conn_pin, np_event, np_sock_recv)
from netpoll._native.limits cimport (
    BULK_BUF_BYTES, BULK_BUF_COUNT, BULK_ENTER_BYTES, BULK_LEAVE_BYTES, BULK_LEAVE_COUNT,
    BULK_ROOM_MIN_BYTES, CACHE_LINE_BYTES, RUSH_MIN_BYTES)
from netpoll._native.poll cimport POLLIN
from netpoll._native.seal cimport seal_types
from netpoll._native.server.connection cimport unpin
from netpoll._native.server.shipment cimport Sender


cdef class Receiver(Sender):
    def __cinit__(self, *args, **kwargs):
        memset(&self.bulk, 0, sizeof(self.bulk))

    def __dealloc__(self):
        np_bufring_close(&self.bulk)

    cdef int on_bytes(self, np_conn *conn, np_event *event) except -1:
        """event.res bytes have come. They are nobody's when the connection is closing."""
        raise NotImplementedError

    cdef int receive_ended(self, np_conn *conn, int res) except -1:
        raise NotImplementedError

    cdef int flush(self, np_conn *conn, bint now) except -1:
        raise NotImplementedError

    cdef int all_sent(self, np_conn *conn) except -1:
        raise NotImplementedError

    cdef int evacuate(self) except -1:
        raise NotImplementedError

    cdef int arm_recv(self, np_conn *conn) except -1:
        conn.flags &= ~NP_CONN_CANCELLED
        if conn.bulk:
            conn.task.spare = self.arm_op(conn, NP_OP_POLL, POLLIN | NP_POLL_KEEP)
        else:
            conn.task.spare = self.arm_op(conn, NP_OP_RECV, 0)
        return 0

    cdef int start_reading(self, np_conn *conn) except -1:
        """arm_recv; a connection that cannot be read from is lost."""
        try:
            self.arm_recv(conn)
        except Exception as exc:
            self.lose(conn, exc)
        return 0

    cdef int received(self, np_conn *conn, np_event *event) except -1:
        """What a receive brought; its end, when it is its last event (task.spare is 0 then)."""
        cdef int res = event.res
        cdef bint is_last = not event.flags & NP_EV_MORE
        try:
            if res > 0:
                self.on_bytes(conn, event)
        finally:  # on every path: who is neither read from nor ended would hang for ever
            if is_last:
                self.receive_ended(conn, res)
        return 0

    cdef int measured(self, np_conn *conn, int size) except -1:
        """The connection has received so much at once: it may change its way of receiving."""
        if conn.bulk == 0:
            if size < BULK_ENTER_BYTES:
                return 0
            conn.bulk = BULK_LEAVE_COUNT
        elif size >= BULK_LEAVE_BYTES:
            conn.bulk = BULK_LEAVE_COUNT
            return 0
        else:
            conn.bulk -= 1
            if conn.bulk:
                return 0
        return self.stop_reading(conn)  # and it starts again, the other way

    cdef int on_readable(self, np_conn *conn, np_event *event) except -1:
        """The POLL of a connection in bulk has ended."""
        conn.task.spare = 0
        if event.res < 0 or conn.flags & (NP_CONN_CANCELLED | NP_CONN_LOST | NP_CONN_CLOSING):
            return self.receive_ended(conn, event.res if event.res < 0 else -ECANCELED)
        if not self.bulk.count and np_bufring_open(
                &self.bulk, BULK_BUF_COUNT, BULK_BUF_BYTES) < 0:
            return self.lose(conn, MemoryError())
        return self.receive_bulk(conn, event)

    cdef int receive_bulk(self, np_conn *conn, np_event *event) except -1:
        cdef uint32_t room_bytes = 0, used_bytes
        cdef ptrdiff_t size
        cdef Py_ssize_t most
        cdef int bid
        cdef int fd = conn.fd
        cdef uint8_t *into
        np_bufring_recycle(&self.bulk)
        np_bufring_rewind(&self.bulk)
        bid = np_bufring_peek(&self.bulk, BULK_ROOM_MIN_BYTES, &room_bytes)
        if bid < 0:
            self.evacuate()
            np_bufring_recycle(&self.bulk)
            bid = np_bufring_peek(&self.bulk, BULK_ROOM_MIN_BYTES, &room_bytes)
            if bid < 0:  # leases keep all of them: the loop's ring has others
                conn.bulk = 0
                return self.read_again(conn)
        into = np_bufring_at(&self.bulk, bid)
        # What is answered to one read, with what is pending already, stays below the limit of both.
        most = max(self.max_pending_bytes // 2, <Py_ssize_t>BULK_LEAVE_BYTES)
        most = min(most, <Py_ssize_t>room_bytes)
        with nogil:
            size = np_sock_recv(fd, into, most)
        if size == -EAGAIN:
            return self.read_again(conn)
        event.res = <int32_t>size
        event.data = into
        event.buf = np_bufring_buf(&self.bulk, bid)
        event.flags = 0
        if size <= 0:
            return self.received(conn, event)
        used_bytes = (<uint32_t>size + CACHE_LINE_BYTES - 1) & ~<uint32_t>(CACHE_LINE_BYTES - 1)
        np_bufring_consume(&self.bulk, bid, used_bytes,
                           room_bytes - used_bytes >= BULK_ROOM_MIN_BYTES)
        self.bulk_reads_count += 1
        # Now, so that who stops reading in the handler has something to cancel, and the struct
        # stays; the kernel looks at it when the turn ends.
        self.start_reading(conn)
        event.flags = NP_EV_MORE
        self.measured(conn, event.res)
        self.received(conn, event)
        return self.rush()

    cdef int rush(self) except -1:
        """Much that was written leaves at once: its memory is wanted."""
        cdef uint32_t at = self.dirty
        cdef np_conn *conn
        self.dirty = 0
        try:
            while at:
                conn = np_conn_at(&self.slab, at - 1)
                at = conn.next
                if conn.out is not NULL and conn.out.iov.total_bytes >= RUSH_MIN_BYTES \
                        and not conn.flags & NP_CONN_LOST:
                    self.flush_step(conn, True)
                else:
                    conn.next = self.dirty
                    self.dirty = conn.index + 1
        finally:
            self.requeue(at)
        return 0

    cdef int flush_step(self, np_conn *conn, bint now) except -1:
        """Of a connection that was taken out of the list of dirty ones."""
        conn.next = 0
        conn.flags &= ~NP_CONN_DIRTY
        np_conn_pin(conn)
        try:
            if conn.flags & NP_CONN_LOST:
                pass
            elif conn.out is not NULL and conn.out.iov.count:
                self.flush(conn, now)
            else:
                self.all_sent(conn)
        finally:
            unpin(self, conn)
        return 0

    cdef int requeue(self, uint32_t at) except -1:
        """The rest of a list of dirty connections, after an exception in one of them."""
        cdef np_conn *conn
        while at:
            conn = np_conn_at(&self.slab, at - 1)
            at = conn.next
            conn.next = self.dirty
            self.dirty = conn.index + 1
        return 0


seal_types(globals())
