/* np_uring_submit.c - operations on their way to the kernel: arming, sending, cancelling.
 *
 * An operation is QUEUED until there is a submission entry for it, and the kernel's from then on
 * (np_op.h). Entries are submitted by the turn's one io_uring_enter; only a full queue goes early.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "io/uring/np_uring.h"

static void fill_send(struct np_uring *u, struct io_uring_sqe *sqe, struct np_op *op)
{
    /* WAITALL makes a short send a failure, which is reported even by a quiet one. */
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (op->quiet ? MSG_WAITALL : 0);
    if (op->iov_count == 0) {
        io_uring_prep_send(sqe, op->fd, op->buf, op->len_bytes, flags);
        return;
    }
    io_uring_prep_sendmsg(sqe, op->fd, np_uring_message(u, op), flags);
}

static void fill(struct np_uring *u, struct io_uring_sqe *sqe, struct np_op *op)
{
    switch (op->kind) {
    case NP_OP_ACCEPT:
        /* One request a connection. A multishot request keeps its place at the head of the socket's
         * queue of exclusive waiters: of several processes that share a listening socket, one would
         * get every connection. Armed again, it stands at the end, and they take turns. */
        io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        break;
    case NP_OP_RECV:
        if (u->head.features & NP_FEATURE_RECV_MULTI)
            io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
        else
            io_uring_prep_recv(sqe, op->fd, NULL, 0, 0);
        io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
        sqe->buf_group = NP_URING_BUF_GROUP;
        break;
    case NP_OP_SEND:
        fill_send(u, sqe, op);
        if (op->quiet)
            io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
        break;
    case NP_OP_POLL:
        if (op->fed) /* edges */
            io_uring_prep_poll_multishot(sqe, op->fd, op->poll_mask & NP_POLL_BITS);
        else
            io_uring_prep_poll_add(sqe, op->fd, op->poll_mask & NP_POLL_BITS);
        break;
    case NP_OP_TRANSMIT:
        np_uring_fill_transmit(u, sqe, op);
        break;
    default:
        NP_ASSERT(!"unknown operation kind");
    }
    io_uring_sqe_set_data64(sqe, np_op_udata(op));
    op->sqe_index = u->ring.sq.sqe_tail - 1;
    np_op_mark_kernel(op);
    u->head.counts.submissions++;
}

void np_uring_push(struct np_uring *u, struct np_op *op)
{
    /* Behind those that wait already: the order of arming is the order of submission. */
    struct io_uring_sqe *sqe = u->unpushed.count ? NULL : np_uring_get_sqe(u);
    if (NP_LIKELY(sqe != NULL))
        fill(u, sqe, op);
    else
        np_oplist_push(&u->unpushed, &u->head.slab, op);
}

void np_uring_push_waiting(struct np_uring *u)
{
    while (u->unpushed.count) {
        struct np_op *op = np_op_at(&u->head.slab, u->unpushed.head - 1);
        if (op->kind == NP_OP_SQE) {
            if (!np_uring_push_group(u))
                return;
            continue;
        }
        if (op->state == NP_ORPHAN) {
            np_oplist_pop(&u->unpushed, &u->head.slab);
            np_uring_finish_unsubmitted(u, op, -ECANCELED);
            continue;
        }
        struct io_uring_sqe *sqe = np_uring_get_sqe(u);
        if (!sqe)
            return;
        np_oplist_pop(&u->unpushed, &u->head.slab);
        fill(u, sqe, op);
    }
}

static void push_starved_list(struct np_uring *u, struct np_oplist *starved)
{
    struct np_oplist waiting = *starved;
    memset(starved, 0, sizeof(*starved));
    struct np_op *op;
    while ((op = np_oplist_pop(&waiting, &u->head.slab)) != NULL) {
        op->fed = 0;
        if (op->state == NP_ORPHAN)
            np_uring_finish_unsubmitted(u, op, -ECANCELED);
        else
            np_uring_push(u, op);
    }
}

/* Buffers came back: the RECVs that ended for want of them start again, longest waiting first.
 * Those that got some of the last buffers are behind those that got none: a RECV drains its socket
 * before it ends, so the first in the queue would take all buffers each time. */
void np_uring_push_starved(struct np_uring *u)
{
    push_starved_list(u, &u->starved);
    push_starved_list(u, &u->starved_fed);
}

static void end_starved_list(struct np_uring *u, struct np_oplist *starved)
{
    struct np_oplist waiting = *starved;
    memset(starved, 0, sizeof(*starved));
    struct np_op *op;
    while ((op = np_oplist_pop(&waiting, &u->head.slab)) != NULL) {
        if (op->state == NP_ORPHAN)
            np_uring_finish_unsubmitted(u, op, -ECANCELED);
        else
            np_oplist_push(starved, &u->head.slab, op);
    }
}

void np_uring_end_starved(struct np_uring *u)
{
    u->starved_cancelled = false;
    end_starved_list(u, &u->starved);
    end_starved_list(u, &u->starved_fed);
}

void np_uring_arm_wake(struct np_uring *u)
{
    struct io_uring_sqe *sqe = np_uring_get_sqe(u);
    if (!sqe)
        return; /* tried again next turn */
    io_uring_prep_poll_multishot(sqe, u->wake_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, NP_UDATA_WAKE);
    u->wake_armed = true;
}

int np_uring_arm(struct np_backend *be, struct np_op *op)
{
    struct np_uring *u = np_uring_self(be);
    /* An abandoned queue is somebody else's too: not one entry more. */
    int err = u->head.is_abandoned ? -EPERM : 0;
    if (err == 0 && op->kind == NP_OP_RECV && !u->head.bufs.count)
        err = np_uring_bufs_open(u);
    if (err < 0) {
        np_op_free(&u->head.slab, op);
        return err;
    }
    np_uring_push(u, op);
    return 0;
}

/* Notes a quiet send, so that its end is found out. False: no memory, it must report itself. */
static bool note_quiet(struct np_uring *u, np_udata udata)
{
    if (u->quiets_count == u->quiets_cap) {
        uint32_t cap = u->quiets_cap ? u->quiets_cap * 2 : 256;
        np_udata *quiets = realloc(u->quiets, sizeof(*quiets) * cap);
        if (!quiets)
            return false;
        u->quiets = quiets;
        u->quiets_cap = cap;
    }
    u->quiets[u->quiets_count++] = udata;
    return true;
}

/* No room for the gather list in this submission: the plain call does the same work. */
static int send_directly(struct np_uring *u, struct np_op *op, const struct iovec *iov,
                         int iov_count, int32_t *res)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)iov_count};
    ssize_t n = sendmsg(op->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    *res = n < 0 ? -errno : (int32_t)n;
    np_op_free(&u->head.slab, op);
    return 1;
}

int np_uring_send(struct np_backend *be, int fd, void *owner, const struct iovec *iov,
                  int iov_count, int flags, int32_t *res, np_udata *out)
{
    struct np_uring *u = np_uring_self(be);
    if (u->head.is_abandoned) {
        *res = -EPERM;
        return 1;
    }
    bool transmits = flags & NP_SEND_TRANSMITS;
    NP_DCHECK(!(flags & NP_SEND_QUIET) || flags == NP_SEND_QUIET);
    struct np_op *op = np_op_alloc(&u->head.slab, transmits ? NP_OP_TRANSMIT : NP_OP_SEND, fd,
                                   owner);
    if (!op)
        return -ENOMEM;
    if (np_uring_place(u, op, iov, iov_count) < 0) {
        if (!transmits)
            return send_directly(u, op, iov, iov_count, res);
        np_uring_place(u, op, iov, 1); /* a partial send needs no list */
    }
    *out = np_op_udata(op);
    if (transmits)
        op->send_flags = (uint8_t)flags;
    /* A polling thread's silence says nothing: it may not have come to it yet. */
    else if ((flags & NP_SEND_QUIET) && !np_uring_is_polled(u) &&
             op->len_bytes <= NP_SEND_MAX_BYTES)
        op->quiet = note_quiet(u, *out);
    np_uring_push(u, op);
    return 0;
}

/* Cancels by the register call, which needs no entry; `waits` until a request that is being worked
 * on is done. 0 whatever became of the target: its own completion tells. */
static int sync_cancel(struct np_uring *u, np_udata target, bool waits)
{
    struct io_uring_sync_cancel_reg reg;
    memset(&reg, 0, sizeof(reg));
    reg.addr = target;
    reg.fd = -1;
    reg.timeout.tv_sec = reg.timeout.tv_nsec = waits ? -1 : 0;
    int err = io_uring_register_sync_cancel(&u->ring, &reg);
    return err == -EALREADY || err == -ENOENT || err == -ETIME || err >= 0 ? 0 : err;
}

/* An operation whose submission entry the kernel has not read yet is taken back: by the time it is
 * read the fd may be closed and its number another file's. 1 when that was so. */
static int take_back(struct np_uring *u, struct np_op *op)
{
    const struct io_uring_sq *sq = &u->ring.sq;
    if (!op->submitted || op->kind == NP_OP_SEND || op->grouped || !np_uring_is_unread(u, op))
        return 0;
    struct io_uring_sqe *sqe = &sq->sqes[op->sqe_index & sq->ring_mask];
    NP_ASSERT(sqe->user_data == np_op_udata(op));
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, NP_UDATA_CANCEL);
    np_uring_finish_unsubmitted(u, op, -ECANCELED);
    return 1;
}

/* By an entry, or where there is none to be had even by submitting, by the register call. */
static int ask_for_cancel(struct np_uring *u, np_udata target)
{
    struct io_uring_sqe *sqe = np_uring_get_sqe(u);
    if (!sqe)
        return sync_cancel(u, target, false);
    io_uring_prep_cancel64(sqe, target, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
    io_uring_sqe_set_data64(sqe, NP_UDATA_CANCEL);
    return 0;
}

/* Where a filter refuses the register call, or it has no memory. An entry is carried out as it is
 * submitted, and ends all that waits for a file; it does not wait for what is being worked on. */
static int settle_by_entry(struct np_uring *u, struct np_op *op)
{
    int err = ask_for_cancel(u, np_op_udata(op));
    int n = err < 0 ? err : np_uring_submit_queue(u);
    np_uring_wait_read(u, 0);
    if (n < 0)
        return n;
    np_uring_after_submit(u);
    return 0;
}

/* Only an operation that the kernel works on keeps its file; of any other there is nothing to wait
 * for. */
static int settle(struct np_uring *u, struct np_op *op)
{
    np_op_mark_orphan(op);
    int n = np_uring_submit_queue(u); /* it may be in the queue still */
    np_uring_wait_read(u, 0);
    if (n >= 0)
        np_uring_after_submit(u);
    int err = sync_cancel(u, np_op_udata(op), true);
    if (NP_UNLIKELY(err < 0))
        err = settle_by_entry(u, op);
    /* Its completion is posted; running the deferred work frees the request and its file. */
    io_uring_get_events(&u->ring);
    return err;
}

int np_uring_cancel(struct np_backend *be, np_udata target, int flags)
{
    struct np_uring *u = np_uring_self(be);
    if (u->head.is_abandoned)
        return -EPERM;
    struct np_op *op = np_op_find(&u->head.slab, target);
    if (!op)
        return -ENOENT;
    if (op->state == NP_SENT)
        return 0; /* it holds no file any more, and the memory comes back in its own time */
    if ((flags & NP_CANCEL_SETTLE) && op->submitted && u->owner_tid)
        return settle(u, op);
    if (op->grouped && op->submitted)
        np_uring_advance_chains(u); /* and asked for again, if it has been before */
    else if (op->state == NP_ORPHAN)
        return 0;
    bool in_kernel = op->submitted;
    int err = in_kernel && !take_back(u, op) ? ask_for_cancel(u, target) : 0;
    if (err < 0)
        return err; /* not asked: the caller may try again */
    /* In no entry: it is found in its list, at the latest before it is submitted. */
    np_op_mark_orphan(op);
    if (!in_kernel && op->kind == NP_OP_RECV)
        u->starved_cancelled = true;
    return 0;
}

void np_uring_forget(struct np_backend *be, int fd)
{
    (void)be;
    (void)fd; /* the kernel keeps nothing of an fd but its operations */
}
