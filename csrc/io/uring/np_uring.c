/* np_uring.c - the io_uring backend: the turn and the table of verbs.
 *
 * One ring per loop: SINGLE_ISSUER + DEFER_TASKRUN, so completions are made only inside our own
 * io_uring_enter, in the thread that enabled the ring. A turn is one enter: it submits what was
 * armed and waits for the next batch. See np_backend.h for the verbs, np_uring.h for the files that
 * share this work, and io_uring_enter(2).
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/np_compat.h"
#include "io/uring/np_uring.h"

/* ---- open and close ------------------------------------------------------------------------- */

static void uring_close(struct np_backend *be)
{
    struct np_uring *u = np_uring_self(be);
    if (u->ring_open)
        io_uring_queue_exit(&u->ring);
    np_bufring_close(&u->head.bufs);
    np_uring_close_carried(u);
    np_uring_free_images(u);
    np_op_slab_close(&u->head.slab, u->head.is_abandoned);
    np_iovring_close(&u->iovs);
    free(u->iov_ends);
    free(u->msgs);
    free(u->quiets);
    free(u);
}

static int uring_open(struct np_backend **out, const struct np_config *config, int wake_fd)
{
    if (config->features_off & NP_FEATURE_DEFER_TASKRUN)
        return -EOPNOTSUPP; /* without it a ring cannot move to another thread: see np_uring_move */
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
    if (!u->config.iov_count)
        u->config.iov_count = NP_IOVRING_DEFAULT_COUNT;
    u->wake_fd = wake_fd;
    u->head.features = NP_FEATURE_DEFER_TASKRUN | NP_FEATURE_RECV_MULTI | NP_FEATURE_SEND_ZC |
                       NP_FEATURE_SENDMSG_ZC | NP_FEATURE_ZC_FIXED | NP_FEATURE_ZC_FIXED_VEC |
                       NP_FEATURE_NO_IOWAIT;
    if (np_uring_is_polled(u))
        u->head.features = (u->head.features & ~(uint32_t)NP_FEATURE_DEFER_TASKRUN) |
                           NP_FEATURE_SQPOLL;
    u->head.features &= ~config->features_off;
    int err = np_uring_ring_open(u);
    if (err < 0) {
        uring_close((struct np_backend *)u);
        return err;
    }
    *out = (struct np_backend *)u;
    return 0;
}

/* ---- the turn ------------------------------------------------------------------------------ */

static int uring_has_work(struct np_backend *be)
{
    struct np_uring *u = np_uring_self(be);
    return u->carried_count || u->done.count || np_uring_is_starving(u) || u->unpushed.count ||
           u->quiets_count || !u->wake_armed || np_uring_unsubmitted(u) ||
           io_uring_cq_ready(&u->ring) ||
           (np_uring_flags(u) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

/* Gives memory back to the kernel and queues what waited; the start of every turn and flush. */
static void begin(struct np_uring *u)
{
    np_bufring_recycle(&u->head.bufs);
    if (NP_UNLIKELY(u->starved_cancelled))
        np_uring_end_starved(u);
    /* With every buffer held, a RECV would only end again: they wait for the first one back. */
    if (np_uring_is_starving(u) && np_bufring_has_room(&u->head.bufs))
        np_uring_push_starved(u);
    if (u->unpushed.count)
        np_uring_push_waiting(u);
    if (NP_UNLIKELY(!u->wake_armed))
        np_uring_arm_wake(u);
}

/* One io_uring_enter: submits the queue and waits for a completion, -1: without end. Not liburing's
 * io_uring_submit_and_wait_timeout, which has no place for IORING_ENTER_NO_IOWAIT, and goes back to
 * sleep, a Ctrl-C unheard, when a call without time-out submitted something and was interrupted.
 * Returns the number of submissions, if there were any, else what ended the wait. */
static int submit_and_wait(struct np_uring *u, int64_t timeout_ns)
{
    struct io_uring_sq *sq = &u->ring.sq;
    struct __kernel_timespec ts = {.tv_sec = timeout_ns / 1000000000,
                                   .tv_nsec = timeout_ns % 1000000000};
    struct io_uring_getevents_arg arg = {.ts = timeout_ns < 0 ? 0 : (uintptr_t)&ts};
    unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    unsigned count = 0;
    if (u->head.features & NP_FEATURE_NO_IOWAIT)
        flags |= NP_IORING_ENTER_NO_IOWAIT;
    if (!np_uring_is_polled(u)) { /* the kernel reads the entries inside the call */
        sq->sqe_head = sq->sqe_tail;
        __atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
        count = sq->sqe_tail - *sq->khead;
    }
    int n = io_uring_enter2((unsigned)u->ring.ring_fd, count, 1, flags, (sigset_t *)&arg,
                            sizeof(arg));
    return n > 0 && timeout_ns < 0 && !io_uring_cq_ready(&u->ring) ? -EINTR : n;
}

static int enter(struct np_uring *u, int64_t timeout_ns)
{
    if (np_uring_is_polled(u)) {
        int n = np_uring_submit_queue(u);
        bool is_over = np_uring_flags(u) & IORING_SQ_CQ_OVERFLOW;
        if (!is_over && (timeout_ns == 0 || np_uring_spin(u, timeout_ns)))
            return n;
    }
    u->head.counts.enters++;
    if (timeout_ns == 0)
        return io_uring_submit_and_get_events(&u->ring);
    return submit_and_wait(u, timeout_ns);
}

static int uring_turn(struct np_backend *be, struct np_event *events, int max, int64_t timeout_ns)
{
    struct np_uring *u = np_uring_self(be);
    if (u->head.is_abandoned)
        return -EPERM;
    NP_DCHECK(u->owner_tid != 0);
    if (NP_UNLIKELY(u->carried_count)) {
        int carried = np_uring_take_carried(u, events, max);
        if (carried)
            return carried;
    }
    u->is_late = io_uring_cq_ready(&u->ring) || np_uring_is_polled(u) ||
                 (np_uring_flags(u) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
    begin(u);
    int n = np_oplist_take(&u->done, &u->head.slab, events, max);
    /* The end of quiet sends is found out after the call: who waits for their memory cannot wait
     * for something else to happen. So it is with those that the last turn left: it had no room for
     * their events, or the kernel did not take them, and more may wait behind them by now. */
    if (n > 0 || io_uring_cq_ready(&u->ring) || u->quiets_left ||
        (u->quiets_count && np_uring_is_starving(u)))
        timeout_ns = 0;
    int err = 0;
    if (timeout_ns != 0 || np_uring_unsubmitted(u) ||
        (np_uring_flags(u) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {
        err = enter(u, timeout_ns);
        np_uring_after_submit(u);
    }
    n += np_uring_harvest(u, events + n, max - n);
    if (u->quiets_count)
        n += np_uring_end_quiets(u, events + n, max - n);
    u->quiets_left = u->quiets_count;
    if (n > 0 || err >= 0)
        return n;
    switch (err) {
    case -ETIME:  /* the time-out */
    case -EAGAIN: /* out of memory for requests: what was armed stays queued */
    case -EBUSY:  /* completions must be taken first: they have been */
        return 0;
    default:
        return err; /* -EINTR, or a ring that cannot be used */
    }
}

static int uring_flush(struct np_backend *be)
{
    struct np_uring *u = np_uring_self(be);
    if (u->head.is_abandoned || !u->owner_tid)
        return 0;
    begin(u);
    if (!np_uring_unsubmitted(u))
        return 0;
    int n = np_uring_submit_queue(u);
    np_uring_wait_read(u, 0);
    if (n < 0)
        return n == -EINTR || n == -EAGAIN || n == -EBUSY ? 0 : n;
    np_uring_after_submit(u);
    return 0;
}

static int uring_enable(struct np_backend *be)
{
    struct np_uring *u = np_uring_self(be);
    if (u->head.is_abandoned)
        return -EPERM;
    pid_t tid = (pid_t)syscall(SYS_gettid);
    if (u->owner_tid == tid)
        return 0;
    if (u->owner_tid && np_uring_is_polled(u)) {
        u->owner_tid = tid; /* nothing was ever done in the old thread's name */
        return 0;
    }
    if (u->owner_tid) {
        int err = np_uring_move(u);
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

const struct np_backend_ops np_uring_ops = {
    .name = "uring",
    .open = uring_open,
    .close = uring_close,
    .enable = uring_enable,
    .arm = np_uring_arm,
    .send = np_uring_send,
    .submit = np_uring_submit,
    .cancel = np_uring_cancel,
    .forget = np_uring_forget,
    .attach = np_uring_attach,
    .turn = uring_turn,
    .flush = uring_flush,
    .has_work = uring_has_work,
};
