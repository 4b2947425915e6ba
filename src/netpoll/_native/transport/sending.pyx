# cython: language_level=3, freethreading_compatible=True
"""How streams and pipes send: what is written leaves in order, and uncopied.

Small writes collect until the end of the turn and leave as one operation; from WRITE_NOW_BYTES on
they are sent at once, and what the socket does not take waits for POLLOUT. Whatever could show that
a write has not left yet sends it before (catch_up, offer). A bytes object is kept until the kernel
has taken it; anything that can still change is copied by write(). Sends end here, too (on_sent).
"""

from libc.errno cimport EAGAIN
from libc.stdint cimport int32_t, uint16_t

from netpoll._native.c cimport (
    NP_LOST, NP_OP_SEND, PyObject, Py_INCREF, iovec, np_event, np_iov_gather, np_is_again,
    np_sock_send)
from netpoll._native.failing cimport os_error
from netpoll._native.limits cimport (
    GATHER_COUNT, LOST_WRITES_LOGGED_COUNT, LOST_WRITES_MAX_COUNT, NOGIL_BYTES, WRITE_NOW_BYTES)
from netpoll._native.transport.endpoint cimport (
    DIRTY, DRAINING, PROTOCOL_PAUSED, READING, SENDING, Endpoint, is_inherited, last_event_of)
from netpoll._native.transport.out_queue cimport out_advance, out_push_bytes

from asyncio import log


cdef bytes exact_bytes(object data):
    """What a transport keeps of what it is given: a bytes object as it is, else a copy, for it can
    still change."""
    if type(data) is bytes:
        return <bytes>data
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")


cdef list exact_pieces(object list_of_data):
    return [p if type(p) is bytes else bytes(memoryview(p)) for p in list_of_data]


cdef int count_lost_write(uint16_t *count, str warning) except -1:
    """A write to what is over is no error, as on asyncio; many of them are worth a line."""
    if count[0] >= LOST_WRITES_LOGGED_COUNT:
        log.logger.warning(warning)
    if count[0] < LOST_WRITES_MAX_COUNT:
        count[0] += 1
    return 0


cdef int push(Endpoint who, bytes data) except -1:
    """Appends one piece; it leaves at the end of the turn at the latest."""
    out_push_bytes(&who.out.iov, data)
    if not who.flags & DIRTY and not who.write_op:
        who.mark()
    return 0


cdef int pushed(Endpoint who) except -1:
    """After new bytes: large amounts leave at once; above the mark the protocol pauses."""
    if who.flags & READING:
        return 0
    if not who.write_op and (who.out.iov.total_bytes >= WRITE_NOW_BYTES
                             or who.out.iov.total_bytes > who.out.high_bytes
                             or who.loop.running_ident == 0):  # no end of a turn may come
        write_now(who)
    if who.out.iov.total_bytes > who.out.high_bytes:
        return who.hold_high()
    return 0


cdef int flush(Endpoint who) except -1:
    """What was written in this turn, as one operation."""
    cdef iovec iov[GATHER_COUNT]
    cdef int32_t res
    cdef int n, done
    if who.write_op or not who.out.iov.count or who.flags & NP_LOST:
        return 0
    if who.loop._stopping or who.out.iov.count > GATHER_COUNT:
        return write_now(who)  # no turn may follow, and one operation would not do
    n = np_iov_gather(&who.out.iov, iov, GATHER_COUNT)
    done = who.loop.ops.send(who.loop.be, who.fd, <void*>who, iov, n, 0, &res, &who.write_op)
    if done == 0:
        Py_INCREF(<PyObject*>who)  # the operation's
        who.flags |= SENDING
        return 0
    return took(who, res if done > 0 else -EAGAIN)


cdef int write_now(Endpoint who) except -1:
    """Direct calls until all is sent or the descriptor has no room."""
    cdef iovec iov[GATHER_COUNT]
    cdef ptrdiff_t sent
    cdef int n
    while who.out.iov.count and not who.write_op and not who.flags & NP_LOST:
        n = np_iov_gather(&who.out.iov, iov, GATHER_COUNT)
        if who.out.iov.total_bytes >= NOGIL_BYTES:
            with nogil:
                sent = who.send_call(iov, n)
        else:
            sent = who.send_call(iov, n)
        took(who, sent)
    return 0


cdef int took(Endpoint who, ptrdiff_t sent_bytes) except -1:
    """A send ended: sent_bytes is a count or -errno."""
    if sent_bytes < 0:
        if not np_is_again(sent_bytes):
            return who.failed(os_error(sent_bytes), "write")
        return who.wait_writable()
    out_advance(&who.out.iov, sent_bytes)
    try:
        who.sent()
        who.release_low()
    finally:  # an interrupt out of the protocol ends the turn, not the sending
        if who.out.iov.count == 0:
            who.sent_all()
        elif not who.flags & DIRTY and not who.write_op:
            who.mark()
    return 0


cdef int on_sent(Endpoint who, np_event *event) except -1:
    """A SEND has ended, or the POLL for room."""
    if event.op == 0:
        return 0  # heard() was there first
    who.write_op = 0
    if event.kind != NP_OP_SEND:
        if who.flags & NP_LOST:
            return who.op_ended()
        who.flags |= DRAINING
        try:
            return write_now(who)
        finally:
            who.flags &= ~DRAINING
    who.flags &= ~SENDING
    if who.flags & NP_LOST:
        who.drop_out()
        return who.op_ended()
    return took(who, event.res)


# asyncio sends within write(). Who cannot tell the difference gets one operation for all that a
# turn writes (benchmarks/NEGATIVE.md has the figures); who could is served as if it were so.

cdef bint heard(Endpoint who, np_event *said) except -1:
    """Whether nothing of ours is in the kernel's hands, and what the SEND said if it was."""
    cdef np_event *event = NULL
    said.op = 0
    if who.write_op:
        if who.flags & SENDING:
            event = last_event_of(who.loop, who.write_op)
        if event is NULL:
            return False
        said[0] = event[0]
        event.op = 0  # when its turn comes it is known already
        who.write_op = 0
        who.flags &= ~SENDING
    return True


cdef int catch_up(Endpoint who) except -1:
    """What was written goes to the socket now, not at the end of the turn."""
    cdef np_event said
    if not who.out.iov.count or who.flags & (PROTOCOL_PAUSED | NP_LOST) \
            or is_inherited(who.loop) or not heard(who, &said):
        return 0
    if said.op:
        took(who, said.res)
    return write_now(who)


cdef int offer(Endpoint who) except -1:
    """What the socket takes of what is to be dropped. Calls nobody."""
    cdef iovec iov[GATHER_COUNT]
    cdef np_event said
    cdef ptrdiff_t sent
    cdef int n
    cdef int fd = who.fd
    if not who.out.iov.count or fd < 0 or is_inherited(who.loop) or not heard(who, &said):
        return 0
    sent = said.res if said.op else 0
    while True:
        if sent < 0:
            return 0 if np_is_again(sent) else <int>-sent
        out_advance(&who.out.iov, sent)
        if not who.out.iov.count:
            return 0
        n = np_iov_gather(&who.out.iov, iov, GATHER_COUNT)
        with nogil:
            sent = np_sock_send(fd, iov, n)
