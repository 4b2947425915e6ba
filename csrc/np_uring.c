/* np_uring.c - the io_uring backend. The only file of the core that calls liburing.
 *
 * One ring per loop: SINGLE_ISSUER + DEFER_TASKRUN, so completions are made only inside our own
 * io_uring_enter, in the thread that enabled the ring. A turn is one enter: it submits what was
 * armed and waits for the next batch. See np_backend.h for the verbs and io_uring_enter(2).
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "np_backend.h"
#include "np_bufring.h"
#include "np_compat.h"
#include "np_oplist.h"

#define NP_URING_BUF_GROUP 0
#define NP_URING_IOV_SCRATCH_COUNT 4096 /* iovecs of the sends of one submission */
#define NP_URING_SUBMIT_RETRIES_COUNT 4
#define NP_URING_WAIT_MAX_S 1000000000 /* thirty years; much more overflows the kernel's clock */

struct np_uring {
    struct np_backend_head head;
    struct io_uring ring;
    struct np_bufring bufs;      /* opened with the first RECV */
    struct np_config config;
    struct np_stats stats;
    struct np_oplist unpushed;   /* QUEUED: no submission entry was free */
    struct np_oplist starved;    /* QUEUED: RECVs that found no buffer */
    struct np_oplist starved_fed; /* QUEUED: RECVs that ended too, but had received something */
    struct np_oplist done;       /* ended without the kernel: their event is still to be taken */
    struct iovec *iovs;          /* scratch, valid until the next submission */
    struct msghdr *msgs;
    uint32_t iovs_used, msgs_used;
    struct np_event *carried;    /* of the rings before a move to another thread */
    uint32_t carried_count, carried_taken;
    struct np_bufring *carried_bufs; /* what they point into: one per move */
    uint32_t carried_bufs_count;
    uint32_t features;
    int wake_fd;
    pid_t owner_tid;             /* 0 until enabled */
    bool ring_open, forked, wake_armed;
};

static struct np_uring *self(struct np_backend *be) { return (struct np_uring *)be; }

static unsigned ring_flags(const struct np_uring *u)
{
    return IO_URING_READ_ONCE(*u->ring.sq.kflags);
}

static bool is_starving(const struct np_uring *u)
{
    return u->starved.count || u->starved_fed.count;
}

/* ---- ring set-up --------------------------------------------------------------------------- */

/* io_uring_setup; waits a little for memory of closed rings, see NP_RING_RETRY_NS. */
static int ring_setup(struct np_uring *u, struct io_uring_params *params)
{
    const struct timespec pause = {.tv_nsec = NP_RING_RETRY_NS};
    for (int retries = 0;; retries++) {
        memset(params, 0, sizeof(*params));
        params->flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                        IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                        IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL;
        params->cq_entries = u->config.cq_entries;
        int err = io_uring_queue_init_params(u->config.sq_entries, &u->ring, params);
        if (err != -ENOMEM || retries == NP_RING_RETRY_MAX_COUNT)
            return err;
        nanosleep(&pause, NULL);
    }
}

static int ring_open(struct np_uring *u)
{
    struct io_uring_params params;
    int err = ring_setup(u, &params);
    if (err < 0)
        return err;
    u->ring_open = true;
    u->owner_tid = 0;
    u->wake_armed = false;
    if (!(params.features & IORING_FEAT_EXT_ARG) || !(params.features & IORING_FEAT_NODROP))
        return -ENOSYS;
    return 0;
}

static int bufs_open_as(struct np_uring *u, bool incremental)
{
    uint32_t count = incremental ? NP_BUF_DEFAULT_COUNT : NP_BUF_WHOLE_COUNT;
    uint32_t bytes = incremental ? NP_BUF_DEFAULT_BYTES : NP_BUF_WHOLE_BYTES;
    int err = np_bufring_open(&u->bufs, u->config.buf_count ? u->config.buf_count : count,
                              u->config.buf_bytes ? u->config.buf_bytes : bytes);
    if (err < 0)
        return err;
    struct np_buf_reg reg;
    memset(&reg, 0, sizeof(reg));
    reg.ring_addr = (uintptr_t)u->bufs.entries;
    reg.ring_entries = u->bufs.count;
    reg.bgid = NP_URING_BUF_GROUP;
    reg.flags = incremental ? NP_IOU_PBUF_RING_INC : 0;
    err = io_uring_register_buf_ring(&u->ring, (struct io_uring_buf_reg *)&reg, 0);
    if (err < 0) {
        np_bufring_close(&u->bufs);
        return err;
    }
    u->features |= NP_FEATURE_BUF_RING | (incremental ? NP_FEATURE_BUF_INC : 0);
    return 0;
}

/* Incremental buffers where the kernel has them (few and large), else whole ones (many, small). */
static int bufs_open(struct np_uring *u)
{
    if (!(u->config.features_off & NP_FEATURE_BUF_INC)) {
        int err = bufs_open_as(u, true);
        if (err != -EINVAL)
            return err;
    }
    return bufs_open_as(u, false);
}

static void close_carried(struct np_uring *u)
{
    for (uint32_t i = 0; i < u->carried_bufs_count; i++)
        np_bufring_close(&u->carried_bufs[i]);
    free(u->carried_bufs);
    free(u->carried);
    u->carried_bufs = NULL;
    u->carried = NULL;
    u->carried_bufs_count = u->carried_count = u->carried_taken = 0;
}

static void uring_close(struct np_backend *be)
{
    struct np_uring *u = self(be);
    if (u->ring_open)
        io_uring_queue_exit(&u->ring);
    np_bufring_close(&u->bufs);
    close_carried(u);
    np_op_slab_close(&u->head.slab, u->forked);
    free(u->iovs);
    free(u->msgs);
    free(u);
}

static int uring_open(struct np_backend **out, const struct np_config *config, int wake_fd)
{
    if (config->features_off & NP_FEATURE_DEFER_TASKRUN)
        return -EOPNOTSUPP; /* without it a ring cannot move to another thread: see move_ring */
    struct np_uring *u = calloc(1, sizeof(*u));
    if (!u)
        return -ENOMEM;
    u->head.ops = &np_uring_ops;
    np_op_slab_init(&u->head.slab);
    u->config = *config;
    if (!u->config.sq_entries)
        u->config.sq_entries = NP_SQ_DEFAULT_ENTRIES;
    if (!u->config.cq_entries)
        u->config.cq_entries = NP_CQ_DEFAULT_ENTRIES;
    u->wake_fd = wake_fd;
    u->features = NP_FEATURE_DEFER_TASKRUN | NP_FEATURE_RECV_MULTI | NP_FEATURE_ACCEPT_MULTI;
    u->features &= ~config->features_off;
    int err = ring_open(u);
    if (err < 0) {
        uring_close((struct np_backend *)u);
        return err;
    }
    *out = (struct np_backend *)u;
    return 0;
}

static void uring_forked(struct np_backend *be) { self(be)->forked = true; }

/* ---- submission ---------------------------------------------------------------------------- */

/* The scratch is free again once nothing that waits for a submission points into it. */
static void after_submit(struct np_uring *u)
{
    if (io_uring_sq_ready(&u->ring))
        return;
    u->msgs_used = 0;
    if (!u->unpushed.count)
        u->iovs_used = 0;
}

/* A free submission entry; submits early when the queue is full. NULL: try again next turn. */
static struct io_uring_sqe *get_sqe(struct np_uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (NP_LIKELY(sqe != NULL))
        return sqe;
    if (!u->owner_tid)
        return NULL;
    u->stats.sq_full++;
    for (int i = 0; i < NP_URING_SUBMIT_RETRIES_COUNT; i++) {
        u->stats.enters++;
        int n = io_uring_submit(&u->ring);
        if (n > 0) {
            after_submit(u);
            return io_uring_get_sqe(&u->ring);
        }
        if (n != -EINTR)
            break;
    }
    return NULL;
}

static void fill_send(struct np_uring *u, struct io_uring_sqe *sqe, struct np_op *op)
{
    const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    if (op->iov_count == 0) {
        io_uring_prep_send(sqe, op->fd, op->buf, op->len_bytes, flags);
        return;
    }
    /* Stays until the submission: the kernel reads it there (IORING_FEAT_SUBMIT_STABLE). */
    NP_ASSERT(u->msgs_used < u->ring.sq.ring_entries);
    struct msghdr *msg = &u->msgs[u->msgs_used++];
    memset(msg, 0, sizeof(*msg));
    msg->msg_iov = &u->iovs[op->iov_first];
    msg->msg_iovlen = op->iov_count;
    io_uring_prep_sendmsg(sqe, op->fd, msg, flags);
}

static void fill(struct np_uring *u, struct io_uring_sqe *sqe, struct np_op *op)
{
    switch (op->kind) {
    case NP_OP_ACCEPT:
        if (u->features & NP_FEATURE_ACCEPT_MULTI)
            io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        else
            io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        break;
    case NP_OP_RECV:
        if (u->features & NP_FEATURE_RECV_MULTI)
            io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
        else
            io_uring_prep_recv(sqe, op->fd, NULL, 0, 0);
        io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
        sqe->buf_group = NP_URING_BUF_GROUP;
        break;
    case NP_OP_TAKE:
        io_uring_prep_recv(sqe, op->fd, NULL, op->len_bytes, 0);
        io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
        sqe->buf_group = NP_URING_BUF_GROUP;
        break;
    case NP_OP_SEND:
        fill_send(u, sqe, op);
        break;
    case NP_OP_POLL:
        io_uring_prep_poll_add(sqe, op->fd, op->poll_mask & NP_POLL_BITS);
        break;
    default:
        NP_ASSERT(!"unknown operation kind");
    }
    io_uring_sqe_set_data64(sqe, np_op_udata(op));
    if (op->kind != NP_OP_SEND)
        op->sqe_index = u->ring.sq.sqe_tail - 1;
    op->state = NP_KERNEL;
    op->submitted = 1;
    u->stats.submissions++;
}

static void push(struct np_uring *u, struct np_op *op)
{
    /* Behind those that wait already: the order of arming is the order of submission. */
    struct io_uring_sqe *sqe = u->unpushed.count ? NULL : get_sqe(u);
    if (NP_LIKELY(sqe != NULL))
        fill(u, sqe, op);
    else
        np_oplist_push(&u->unpushed, &u->head.slab, op);
}

static void finish_unsubmitted(struct np_uring *u, struct np_op *op, int res)
{
    op->res = res;
    op->submitted = 0;
    np_oplist_push(&u->done, &u->head.slab, op);
}

/* Operations that waited for a submission entry, as far as there is room now. */
static void push_waiting(struct np_uring *u)
{
    while (u->unpushed.count) {
        struct np_op *op = np_op_at(&u->head.slab, u->unpushed.head - 1);
        if (op->state == NP_ORPHAN) {
            np_oplist_pop(&u->unpushed, &u->head.slab);
            finish_unsubmitted(u, op, -ECANCELED);
            continue;
        }
        struct io_uring_sqe *sqe = get_sqe(u);
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
            finish_unsubmitted(u, op, -ECANCELED);
        else
            push(u, op);
    }
}

/* Buffers came back: the RECVs that ended for want of them start again, longest waiting first.
 * Those that got some of the last buffers are behind those that got none: a RECV drains its socket
 * before it ends, so the first in the queue would take all buffers each time. */
static void push_starved(struct np_uring *u)
{
    push_starved_list(u, &u->starved);
    push_starved_list(u, &u->starved_fed);
}

static void arm_wake(struct np_uring *u)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    if (!sqe)
        return; /* tried again next turn */
    io_uring_prep_poll_multishot(sqe, u->wake_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, NP_UDATA_WAKE);
    u->wake_armed = true;
}

static bool takes_buffer(const struct np_op *op)
{
    return op->kind == NP_OP_RECV || op->kind == NP_OP_TAKE;
}

static int uring_arm(struct np_backend *be, struct np_op *op)
{
    struct np_uring *u = self(be);
    int err = u->forked ? -EPERM : 0; /* the queue is the parent's too: not one entry more */
    if (err == 0 && takes_buffer(op) && !u->bufs.count)
        err = bufs_open(u);
    if (err < 0) {
        np_op_free(&u->head.slab, op);
        return err;
    }
    push(u, op);
    return 0;
}

static bool has_room(struct np_uring *u, uint32_t iov_count)
{
    return iov_count <= NP_URING_IOV_SCRATCH_COUNT - u->iovs_used &&
           u->msgs_used < u->ring.sq.ring_entries && io_uring_sq_space_left(&u->ring) > 0;
}

/* Room in the scratch for the iovecs of one more send; submits when there is none. */
static int reserve_iovs(struct np_uring *u, uint32_t count)
{
    if (!u->iovs) {
        u->iovs = malloc(sizeof(*u->iovs) * NP_URING_IOV_SCRATCH_COUNT);
        u->msgs = malloc(sizeof(*u->msgs) * u->ring.sq.ring_entries);
        if (!u->iovs || !u->msgs)
            return -ENOMEM;
    }
    if (has_room(u, count))
        return 0;
    u->stats.enters++;
    int n = io_uring_submit(&u->ring);
    if (n < 0)
        return n;
    after_submit(u);
    return has_room(u, count) ? 0 : -EBUSY;
}

static int uring_send(struct np_backend *be, int fd, void *owner, const struct iovec *iov,
                      int iov_count, int32_t *res, np_udata *out)
{
    struct np_uring *u = self(be);
    if (u->forked) {
        *res = -EPERM;
        return 1;
    }
    if (iov_count > 1) {
        int err = u->unpushed.count ? -EBUSY : reserve_iovs(u, (uint32_t)iov_count);
        if (err < 0) {
            /* No room in this submission: the plain call does the same work. */
            struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)iov_count};
            ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
            *res = n < 0 ? -errno : (int32_t)n;
            return 1;
        }
    }
    struct np_op *op = np_op_alloc(&u->head.slab, NP_OP_SEND, fd, owner);
    if (!op)
        return -ENOMEM;
    if (iov_count > 1) {
        op->iov_first = u->iovs_used;
        op->iov_count = (uint32_t)iov_count;
        memcpy(&u->iovs[u->iovs_used], iov, sizeof(*iov) * (size_t)iov_count);
        u->iovs_used += (uint32_t)iov_count;
    } else {
        op->iov_count = 0;
        op->buf = iov->iov_base;
        /* The submission entry's length has 32 bits; what is left over is a partial send. */
        op->len_bytes = iov->iov_len < NP_SEND_MAX_BYTES ? iov->iov_len : NP_SEND_MAX_BYTES;
    }
    *out = np_op_udata(op);
    push(u, op);
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
    unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
    if (!op->submitted || op->kind == NP_OP_SEND || op->sqe_index - head >= sq->sqe_tail - head)
        return 0;
    struct io_uring_sqe *sqe = &sq->sqes[op->sqe_index & sq->ring_mask];
    NP_ASSERT(sqe->user_data == np_op_udata(op));
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, NP_UDATA_CANCEL);
    finish_unsubmitted(u, op, -ECANCELED);
    return 1;
}

static int uring_cancel(struct np_backend *be, np_udata target)
{
    struct np_uring *u = self(be);
    if (u->forked)
        return -EPERM;
    struct np_op *op = np_op_find(&u->head.slab, target);
    if (!op)
        return -ENOENT;
    if (op->state == NP_ORPHAN)
        return 0;
    bool in_kernel = op->state == NP_KERNEL;
    op->state = NP_ORPHAN;
    if (!in_kernel || take_back(u, op))
        return 0; /* found in its list before it is submitted */
    struct io_uring_sqe *sqe = get_sqe(u);
    if (sqe) {
        io_uring_prep_cancel64(sqe, target, 0);
        io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
        io_uring_sqe_set_data64(sqe, NP_UDATA_CANCEL);
        return 0;
    }
    /* No entry to be had even by submitting: ask by the register call, which needs none. */
    int err = sync_cancel(u, target, false);
    if (err < 0)
        op->state = NP_KERNEL; /* not asked after all: the caller may try again */
    return err;
}

static int uring_settle(struct np_backend *be, np_udata target)
{
    struct np_uring *u = self(be);
    if (u->forked)
        return -EPERM;
    struct np_op *op = np_op_find(&u->head.slab, target);
    if (!op)
        return -ENOENT;
    if (!op->submitted || !u->owner_tid)
        return uring_cancel(be, target);
    op->state = NP_ORPHAN;
    u->stats.enters++;
    int n = io_uring_submit(&u->ring); /* it may be in the queue still */
    if (n >= 0)
        after_submit(u);
    int err = sync_cancel(u, target, true);
    /* Its completion is posted; running the deferred work frees the request and its file. */
    io_uring_get_events(&u->ring);
    return err;
}

static void uring_forget(struct np_backend *be, int fd)
{
    (void)be;
    (void)fd; /* the kernel keeps nothing of an fd but its operations */
}

/* ---- completion ---------------------------------------------------------------------------- */

static void drain_wake(struct np_uring *u)
{
    uint64_t counter;
    ssize_t n = read(u->wake_fd, &counter, sizeof(counter));
    (void)n; /* EAGAIN: an earlier read took it */
}

/* One completion of one of our operations. Returns how many events it made: 0 or 1. */
static int complete(struct np_uring *u, struct np_op *op, struct io_uring_cqe *cqe,
                    struct np_event *event)
{
    int res = cqe->res;
    uint8_t *data = NULL;
    bool more = cqe->flags & IORING_CQE_F_MORE;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        bool rest = (u->features & NP_FEATURE_BUF_INC) && (cqe->flags & NP_IORING_CQE_F_BUF_MORE);
        data = np_bufring_consume(&u->bufs, (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT),
                                  res > 0 ? (uint32_t)res : 0, rest);
    }
    if (takes_buffer(op) && res > 0) {
        u->stats.recv_bytes += (uint64_t)res;
        op->fed = 1;
    } else if (op->kind == NP_OP_SEND && res > 0) {
        u->stats.send_bytes += (uint64_t)res;
    }
    int flags = cqe->flags & IORING_CQE_F_SOCK_NONEMPTY ? NP_EV_NONEMPTY : 0;
    if (more) {
        np_op_emit(event, op, data, res, flags | NP_EV_MORE);
        return 1;
    }
    bool goes_on = op->state != NP_ORPHAN && ((op->kind == NP_OP_RECV && res > 0) ||
                                              (op->kind == NP_OP_ACCEPT && res >= 0));
    if (takes_buffer(op) && res == -ENOBUFS) {
        /* Backpressure, not an error: it starts again when buffers have come back. */
        u->stats.enobufs++;
        if (op->state == NP_ORPHAN) {
            finish_unsubmitted(u, op, -ECANCELED);
        } else {
            op->state = NP_QUEUED;
            op->submitted = 0;
            np_oplist_push(op->fed ? &u->starved_fed : &u->starved, &u->head.slab, op);
        }
        return 0;
    }
    if (goes_on) { /* a multishot that the kernel ended early, or a kernel without multishot */
        np_op_emit(event, op, data, res, flags | NP_EV_MORE);
        op->state = NP_QUEUED;
        op->submitted = 0;
        if (op->kind == NP_OP_RECV) /* with the next turn, behind those that got nothing in this */
            np_oplist_push(&u->starved_fed, &u->head.slab, op);
        else
            push(u, op);
        return 1;
    }
    np_op_emit(event, op, data, res, flags);
    np_op_free(&u->head.slab, op);
    return 1;
}

/* Of a completion whose operation is gone: what came with it must not leak. */
static void drop_stale(struct np_uring *u, struct io_uring_cqe *cqe)
{
    u->stats.stale++;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        bool rest = (u->features & NP_FEATURE_BUF_INC) && (cqe->flags & NP_IORING_CQE_F_BUF_MORE);
        np_bufring_consume(&u->bufs, (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT),
                           cqe->res > 0 ? (uint32_t)cqe->res : 0, rest);
    }
    if (np_udata_kind(cqe->user_data) == NP_OP_ACCEPT && cqe->res >= 0)
        close(cqe->res);
}

static int harvest(struct np_uring *u, struct np_event *events, int max)
{
    int n = 0;
    unsigned seen = 0, head;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(&u->ring, head, cqe) {
        if (n == max)
            break;
        seen++;
        np_udata udata = cqe->user_data;
        if (np_udata_kind(udata) >= NP_UDATA_RESERVED) {
            if (udata == NP_UDATA_WAKE) {
                drain_wake(u);
                u->wake_armed = cqe->flags & IORING_CQE_F_MORE;
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
    u->stats.completions += seen;
    return n;
}

/* ---- threads ------------------------------------------------------------------------------- */

/* Completions that the old ring had posted: they are delivered before anything of the new one. */
static int carry_completions(struct np_uring *u)
{
    unsigned ready = io_uring_cq_ready(&u->ring);
    if (ready == 0)
        return 0;
    struct np_event *events = realloc(u->carried, sizeof(*events) * (u->carried_count + ready));
    if (!events)
        return -ENOMEM;
    u->carried = events;
    u->carried_count += (uint32_t)harvest(u, events + u->carried_count, (int)ready);
    return 0;
}

/* Every operation that the old ring still held starts again in the new one, in slot order. */
static void push_moved(struct np_uring *u)
{
    struct np_op_slab *slab = &u->head.slab;
    for (uint32_t slot = 0; slot < slab->chunks_count * NP_OP_CHUNK_SLOTS; slot++) {
        struct np_op *op = np_op_at(slab, slot);
        if (op->state != NP_KERNEL && !(op->state == NP_ORPHAN && op->submitted))
            continue;
        op->submitted = 0;
        if (op->state == NP_ORPHAN) {
            finish_unsubmitted(u, op, -ECANCELED);
        } else {
            op->state = NP_QUEUED;
            np_oplist_push(&u->unpushed, slab, op);
        }
    }
}

/* A ring belongs to the thread that enabled it. For another thread there is a new ring, and the
 * operations in flight move. Nothing of theirs can have happened unseen: with DEFER_TASKRUN work is
 * done only inside the owner's io_uring_enter, and what that posted is carried over. Requests of
 * a closed ring are cancelled without being carried out (io_uring_cancelation(7)). */
static int move_ring(struct np_uring *u)
{
    if (ring_flags(u) & IORING_SQ_CQ_OVERFLOW)
        return -EBUSY; /* only the old thread can get at those: loud, rather than lost */
    struct np_bufring *bufs =
        realloc(u->carried_bufs, sizeof(*bufs) * (u->carried_bufs_count + 1));
    if (!bufs)
        return -ENOMEM;
    u->carried_bufs = bufs;
    int err = carry_completions(u);
    if (err < 0)
        return err;
    io_uring_queue_exit(&u->ring);
    u->ring_open = false;
    err = ring_open(u);
    if (err < 0)
        return err;
    if (u->bufs.count) {
        u->carried_bufs[u->carried_bufs_count++] = u->bufs; /* carried events point into it */
        memset(&u->bufs, 0, sizeof(u->bufs));
        err = bufs_open(u);
        if (err < 0)
            return err;
    }
    u->stats.moves++;
    u->msgs_used = 0; /* the old queue is gone; the iovecs are its operations' still */
    push_moved(u);
    return 0;
}

/* Memory of carried events stays until the turn after the one that delivered them. */
static int take_carried(struct np_uring *u, struct np_event *events, int max)
{
    uint32_t n = u->carried_count - u->carried_taken;
    if (n == 0) {
        close_carried(u);
        return 0;
    }
    if (n > (uint32_t)max)
        n = (uint32_t)max;
    memcpy(events, u->carried + u->carried_taken, sizeof(*events) * n);
    u->carried_taken += n;
    return (int)n;
}

/* ---- the turn ------------------------------------------------------------------------------ */

static int uring_has_work(struct np_backend *be)
{
    struct np_uring *u = self(be);
    return u->carried_count || u->done.count || is_starving(u) || u->unpushed.count ||
           !u->wake_armed || io_uring_sq_ready(&u->ring) || io_uring_cq_ready(&u->ring) ||
           (ring_flags(u) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

/* Gives memory back to the kernel and queues what waited; the start of every turn and flush. */
static void begin(struct np_uring *u)
{
    np_bufring_recycle(&u->bufs);
    if (is_starving(u))
        push_starved(u);
    if (u->unpushed.count)
        push_waiting(u);
    if (NP_UNLIKELY(!u->wake_armed))
        arm_wake(u);
}

/* When a call submits and is then interrupted, the kernel returns the number of submissions, and
 * without a time-out liburing would go back to sleep: a Ctrl-C unheard. So there always is one. */
static int enter(struct np_uring *u, int64_t timeout_ns)
{
    struct io_uring_cqe *cqe;
    u->stats.enters++;
    if (timeout_ns == 0)
        return io_uring_submit_and_get_events(&u->ring);
    struct __kernel_timespec ts = {.tv_sec = NP_URING_WAIT_MAX_S};
    if (timeout_ns > 0) {
        ts.tv_sec = timeout_ns / 1000000000;
        ts.tv_nsec = timeout_ns % 1000000000;
    }
    int n = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
    return n > 0 && timeout_ns < 0 && !io_uring_cq_ready(&u->ring) ? -EINTR : n;
}

static int uring_turn(struct np_backend *be, struct np_event *events, int max, int64_t timeout_ns)
{
    struct np_uring *u = self(be);
    if (u->forked)
        return -EPERM;
    NP_DCHECK(u->owner_tid != 0);
    if (NP_UNLIKELY(u->carried_count)) {
        int carried = take_carried(u, events, max);
        if (carried)
            return carried;
    }
    begin(u);
    int n = np_oplist_take(&u->done, &u->head.slab, events, max);
    if (n > 0 || io_uring_cq_ready(&u->ring))
        timeout_ns = 0;
    int err = 0;
    if (timeout_ns != 0 || io_uring_sq_ready(&u->ring) ||
        (ring_flags(u) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {
        err = enter(u, timeout_ns);
        if (io_uring_sq_ready(&u->ring) == 0)
            after_submit(u);
    }
    n += harvest(u, events + n, max - n);
    if (n > 0 || err >= 0)
        return n;
    switch (err) {
    case -ETIME:   /* the time-out */
    case -EAGAIN:  /* out of memory for requests: what was armed stays queued */
    case -EBUSY:   /* completions must be taken first: they have been */
        return 0;
    default:
        return err; /* -EINTR, or a ring that cannot be used */
    }
}

static int uring_flush(struct np_backend *be)
{
    struct np_uring *u = self(be);
    if (u->forked || !u->owner_tid)
        return 0;
    begin(u);
    if (!io_uring_sq_ready(&u->ring))
        return 0;
    u->stats.enters++;
    int n = io_uring_submit(&u->ring);
    if (n < 0)
        return n == -EINTR || n == -EAGAIN || n == -EBUSY ? 0 : n;
    after_submit(u);
    return 0;
}

static int uring_enable(struct np_backend *be)
{
    struct np_uring *u = self(be);
    if (u->forked)
        return -EPERM;
    pid_t tid = (pid_t)syscall(SYS_gettid);
    if (u->owner_tid == tid)
        return 0;
    if (u->owner_tid) {
        int err = move_ring(u);
        if (err < 0)
            return err;
    }
    int err = io_uring_enable_rings(&u->ring);
    if (err < 0)
        return err;
    /* Not io_uring_register_ring_fd: the registration would keep a moved or closed ring alive as
     * long as the thread, and with one enter per turn it saves nothing that can be measured. */
    u->owner_tid = tid;
    return 0;
}

static void uring_stats(struct np_backend *be, struct np_stats *out)
{
    struct np_uring *u = self(be);
    *out = u->stats;
    out->ops_live = u->head.slab.live_count;
    out->bufs_total = u->bufs.count;
    out->bufs_free = u->bufs.count - u->bufs.retired_count;
    out->features = u->features;
    out->arena_kind = u->bufs.arena.kind;
}

const struct np_backend_ops np_uring_ops = {
    .name = "uring",
    .open = uring_open,
    .close = uring_close,
    .enable = uring_enable,
    .forked = uring_forked,
    .arm = uring_arm,
    .send = uring_send,
    .cancel = uring_cancel,
    .settle = uring_settle,
    .forget = uring_forget,
    .turn = uring_turn,
    .flush = uring_flush,
    .has_work = uring_has_work,
    .stats = uring_stats,
};
