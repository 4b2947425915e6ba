/* np_uring_harvest.c - completions into events; what a completion means for its operation. */
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/np_compat.h"
#include "io/np_inbox.h"
#include "io/uring/np_uring.h"

/* The kernel notes the bits that an fd was woken with and does not look again when it reports them.
 * What the caller did in between may have used them up: its own send, its own receive. */
static bool has_passed(struct np_uring *u, const struct np_op *op, int res)
{
    if (!u->is_late || res <= 0 || op->state == NP_ORPHAN || !(op->poll_mask & NP_POLL_LEVEL))
        return false;
    struct pollfd now = {.fd = op->fd, .events = (short)(op->poll_mask & NP_POLL_BITS)};
    return poll(&now, 1, 0) == 0;
}

/* Beside what is asked for, the kernel's POLL reports POLLRDHUP: once the peer has shut its sending
 * side, a POLL for room would end at once each time, whether there is room or not. Such a one is
 * armed again as a multishot POLL, which waits for edges: it says POLLRDHUP once, and then what
 * changes. The first real answer is kept, the POLL is cancelled, and its end is the one event. */
static int complete_poll(struct np_uring *u, struct np_op *op, const struct io_uring_cqe *cqe,
                         struct np_event *event)
{
    const int wanted = (int)(op->poll_mask & NP_POLL_BITS) | POLLERR | POLLHUP | POLLNVAL;
    int res = cqe->res;
    bool is_answer = res > 0 && (res & wanted) && !has_passed(u, op, res);
    if (cqe->flags & IORING_CQE_F_MORE) {
        if (is_answer && !op->is_answered) {
            op->is_answered = 1;
            op->res = res;
            if (op->state != NP_ORPHAN)
                (void)np_uring_cancel((struct np_backend *)u, np_op_udata(op), 0);
        }
        return 0;
    }
    if (op->is_answered) {
        res = op->res;
    } else if (res > 0 && !is_answer && op->state != NP_ORPHAN) {
        op->fed = op->fed || !(res & wanted);
        np_op_mark_queued(op);
        np_uring_push(u, op);
        return 0;
    }
    np_op_emit(event, op, res, 0);
    np_op_free(&u->head.slab, op);
    return 1;
}

static inline uint16_t buffer_id(const struct io_uring_cqe *cqe)
{
    return (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
}

/* Of a completion with a buffer: where its bytes are. */
static inline uint8_t *consume(struct np_uring *u, const struct io_uring_cqe *cqe)
{
    bool rest = (u->head.features & NP_FEATURE_BUF_INC) && (cqe->flags & NP_IORING_CQE_F_BUF_MORE);
    return np_bufring_consume(&u->head.bufs, buffer_id(cqe), cqe->res > 0 ? (uint32_t)cqe->res : 0,
                              rest);
}

/* A RECV has ended for want of a buffer. That is backpressure, not an error: it starts again when
 * buffers have come back. */
static __attribute__((noinline, cold)) int starve(struct np_uring *u, struct np_op *op)
{
    u->head.counts.enobufs++;
    if (op->state == NP_ORPHAN) {
        np_uring_finish_unsubmitted(u, op, -ECANCELED);
        return 0;
    }
    np_op_mark_queued(op);
    np_oplist_push(op->fed ? &u->starved_fed : &u->starved, &u->head.slab, op);
    return 0;
}

static int complete_recv(struct np_uring *u, struct np_op *op, const struct io_uring_cqe *cqe,
                         struct np_event *event)
{
    int res = cqe->res;
    int flags = cqe->flags & IORING_CQE_F_SOCK_NONEMPTY ? NP_EV_NONEMPTY : 0;
    bool more = cqe->flags & IORING_CQE_F_MORE;
    uint8_t *data = NULL;
    struct np_buf *buf = NULL;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        buf = np_bufring_buf(&u->head.bufs, buffer_id(cqe));
        data = consume(u, cqe);
    }
    if (NP_LIKELY(res > 0)) {
        u->head.counts.recv_bytes += (uint64_t)res;
        op->fed = 1;
    }
    if (NP_LIKELY(more)) {
        np_op_emit_bytes(event, op, data, buf, res, flags | NP_EV_MORE);
        return 1;
    }
    if (res == -ENOBUFS)
        return starve(u, op);
    if (res <= 0 || op->state == NP_ORPHAN) {
        np_op_emit_bytes(event, op, data, buf, res, flags);
        np_op_free(&u->head.slab, op);
        return 1;
    }
    /* A multishot that the kernel ended early, or a kernel without multishot: it starts again with
     * the next turn, behind those that got nothing in this. */
    np_op_emit_bytes(event, op, data, buf, res, flags | NP_EV_MORE);
    np_op_mark_queued(op);
    np_oplist_push(&u->starved_fed, &u->head.slab, op);
    return 1;
}

static int complete_accept(struct np_uring *u, struct np_op *op, const struct io_uring_cqe *cqe,
                           struct np_event *event)
{
    bool goes_on = op->state != NP_ORPHAN && cqe->res >= 0;
    np_op_emit(event, op, cqe->res, goes_on ? NP_EV_MORE : 0);
    if (goes_on) {
        np_op_mark_queued(op);
        np_uring_push(u, op);
    } else {
        np_op_free(&u->head.slab, op);
    }
    return 1;
}

static int complete_send(struct np_uring *u, struct np_op *op, const struct io_uring_cqe *cqe,
                         struct np_event *event)
{
    if (cqe->res > 0)
        u->head.counts.send_bytes += (uint64_t)cqe->res;
    np_op_emit(event, op, cqe->res, 0);
    np_op_free(&u->head.slab, op);
    return 1;
}

/* One completion of one of our operations. Returns how many events it made: 0 or 1. */
static int complete(struct np_uring *u, struct np_op *op, const struct io_uring_cqe *cqe,
                    struct np_event *event)
{
    switch (op->kind) {
    case NP_OP_RECV:
        return complete_recv(u, op, cqe, event);
    case NP_OP_SEND:
        return complete_send(u, op, cqe, event);
    case NP_OP_POLL:
        return complete_poll(u, op, cqe, event);
    case NP_OP_ACCEPT:
        return complete_accept(u, op, cqe, event);
    case NP_OP_TRANSMIT:
        np_uring_complete_transmit(u, op, cqe, event);
        return 1;
    default:
        np_uring_complete_sqe(u, op, cqe, event);
        return 1;
    }
}

/* Of a completion whose operation is gone: what came with it must not leak. */
static void drop_stale(struct np_uring *u, struct io_uring_cqe *cqe)
{
    u->head.counts.stale++;
    if (cqe->flags & IORING_CQE_F_BUFFER)
        consume(u, cqe);
    if (np_udata_kind(cqe->user_data) == NP_OP_ACCEPT && cqe->res >= 0)
        close(cqe->res);
}

/* Quick sends end when they are submitted and say so only if they failed: those that the kernel
 * has had, once all that it said is heard, have sent everything. */
int np_uring_end_quiets(struct np_uring *u, struct np_event *events, int max)
{
    if (u->quiets_submitted == 0 || io_uring_cq_ready(&u->ring) ||
        (np_uring_flags(u) & IORING_SQ_CQ_OVERFLOW))
        return 0;
    int n = 0;
    uint32_t taken = 0, kept = 0;
    for (; taken < u->quiets_submitted && n < max; taken++) {
        struct np_op *op = np_op_find(&u->head.slab, u->quiets[taken]);
        if (!op)
            continue; /* it failed, and was reported */
        if (!op->submitted) {
            u->quiets[kept++] = u->quiets[taken];
            continue;
        }
        u->head.counts.send_bytes += op->len_bytes;
        np_op_emit(&events[n++], op, (int)op->len_bytes, 0);
        np_op_free(&u->head.slab, op);
    }
    u->quiets_count -= taken - kept;
    memmove(u->quiets + kept, u->quiets + taken, sizeof(*u->quiets) * (u->quiets_count - kept));
    u->quiets_submitted -= taken;
    return n;
}

int np_uring_harvest(struct np_uring *u, struct np_event *events, int max)
{
    int n = 0;
    unsigned seen = 0, head;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(&u->ring, head, cqe)
    {
        if (n == max)
            break;
        seen++;
        np_udata udata = cqe->user_data;
        if (np_udata_kind(udata) >= NP_UDATA_RESERVED) {
            if (udata == NP_UDATA_WAKE) {
                np_inbox_drain_wake(u->wake_fd);
                u->wake_armed = cqe->flags & IORING_CQE_F_MORE;
            } else if (np_udata_kind(udata) == NP_UDATA_REGION_KIND) {
                np_uring_region_released(u, udata);
            }
            continue; /* a cancel's own completion says nothing about its target */
        }
        struct np_op *op = np_op_find(&u->head.slab, udata);
        if (NP_LIKELY(op != NULL))
            n += complete(u, op, cqe, &events[n]);
        else
            drop_stale(u, cqe);
    }
    io_uring_cq_advance(&u->ring, seen);
    u->head.counts.completions += seen;
    return n;
}
