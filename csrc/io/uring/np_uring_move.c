/* np_uring_move.c - a loop that goes on in another thread: the ring is made anew, with its
 * operations. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/uring/np_uring.h"

void np_uring_close_carried(struct np_uring *u)
{
    for (uint32_t i = 0; i < u->carried_bufs_count; i++)
        np_bufring_close(&u->carried_bufs[i]);
    free(u->carried_bufs);
    free(u->carried);
    u->carried_bufs = NULL;
    u->carried = NULL;
    u->carried_bufs_count = u->carried_count = u->carried_taken = 0;
}

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
    u->carried_count += (uint32_t)np_uring_harvest(u, events + u->carried_count, (int)ready);
    return 0;
}

/* What cannot start again elsewhere: an entry of a caller's may be done already, a send that waits
 * in the kernel may have sent a part, and a notice comes only to the ring that asked for it. */
static bool is_bound(const struct np_uring *u, const struct np_op *op)
{
    if (op->state == NP_FREE)
        return false;
    if (op->kind == NP_OP_TRANSMIT && op->submitted)
        return op->sqe_index - *u->ring.sq.khead >= io_uring_sq_ready(&u->ring);
    return op->state == NP_SENT || (op->kind == NP_OP_SQE && op->submitted);
}

static bool holds_bound(const struct np_uring *u)
{
    const struct np_op_slab *slab = &u->head.slab;
    for (uint32_t slot = 0; slot < slab->chunks_count * NP_OP_CHUNK_SLOTS; slot++)
        if (is_bound(u, np_op_at(slab, slot)))
            return true;
    return false;
}

/* Quick sends that the kernel has carried out must not be sent again by the new ring. */
static int carry_quiets(struct np_uring *u)
{
    if (u->quiets_submitted == 0)
        return 0;
    struct np_event *events = realloc(u->carried,
                                      sizeof(*events) * (u->carried_count + u->quiets_submitted));
    if (!events)
        return -ENOMEM;
    u->carried = events;
    u->carried_count += (uint32_t)np_uring_end_quiets(u, events + u->carried_count,
                                                      (int)u->quiets_submitted);
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
        if (op->state == NP_ORPHAN) {
            bool is_answered = op->kind == NP_OP_POLL && op->is_answered;
            np_uring_finish_unsubmitted(u, op, is_answered ? op->res : -ECANCELED);
        } else {
            np_op_mark_queued(op);
            np_oplist_push(&u->unpushed, slab, op);
        }
    }
}

/* A ring belongs to the thread that enabled it. For another thread there is a new ring, and the
 * operations in flight move. Nothing of theirs can have happened unseen: with DEFER_TASKRUN work is
 * done only inside the owner's io_uring_enter, and what that posted is carried over. Requests of
 * a closed ring are cancelled without being carried out (io_uring_cancelation(7)). */
int np_uring_move(struct np_uring *u)
{
    if (np_uring_flags(u) & IORING_SQ_CQ_OVERFLOW)
        return -EBUSY; /* only the old thread can get at those: loud, rather than lost */
    struct np_bufring *bufs = realloc(u->carried_bufs, sizeof(*bufs) * (u->carried_bufs_count + 1));
    if (!bufs)
        return -ENOMEM;
    u->carried_bufs = bufs;
    int err = carry_completions(u);
    if (err < 0)
        return err;
    if (holds_bound(u))
        return -EBUSY; /* the old thread must run the loop until they have ended */
    err = carry_quiets(u);
    if (err < 0)
        return err;
    io_uring_queue_exit(&u->ring);
    u->ring_open = false;
    err = np_uring_ring_open(u);
    if (err < 0)
        return err;
    if (u->head.bufs.count) {
        u->carried_bufs[u->carried_bufs_count++] = u->head.bufs; /* carried events point into it */
        memset(&u->head.bufs, 0, sizeof(u->head.bufs));
        err = np_uring_bufs_open(u);
        if (err < 0)
            return err;
    }
    u->head.counts.moves++;
    np_uring_move_regions(u);
    u->sq_seen = 0; /* the old queue is gone; the iovecs are its operations' still */
    u->iovs_unordered = true;
    push_moved(u);
    return 0;
}

/* Memory of carried events stays until the turn after the one that delivered them. */
int np_uring_take_carried(struct np_uring *u, struct np_event *events, int max)
{
    uint32_t n = u->carried_count - u->carried_taken;
    if (n == 0) {
        np_uring_close_carried(u);
        return 0;
    }
    if (n > (uint32_t)max)
        n = (uint32_t)max;
    memcpy(events, u->carried + u->carried_taken, sizeof(*events) * n);
    u->carried_taken += n;
    return (int)n;
}
