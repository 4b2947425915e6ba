/* np_uring_queue.c - places in the submission queue, and the gather lists of their entries.
 *
 * Nothing here knows what an entry says. A queue that is full is submitted early, so that a place
 * is free; a gather list stays until the kernel has read its entry.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/uring/np_uring.h"

#define NP_URING_SUBMIT_RETRIES_COUNT 4

void np_uring_after_submit(struct np_uring *u)
{
    const struct io_uring_sq *sq = &u->ring.sq;
    unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
    bool is_empty = head == sq->sqe_tail;
    if (is_empty)
        u->quiets_submitted = u->quiets_count;
    if (is_empty && !u->unpushed.count) {
        np_iovring_retire(&u->iovs, u->iovs.head);
        u->iovs_unordered = false;
    } else if (head != u->sq_seen && !u->iovs_unordered && u->iovs.count) {
        np_iovring_retire(&u->iovs, u->iov_ends[(head - 1) & sq->ring_mask]);
    }
    u->sq_seen = head;
}

bool np_uring_make_room(struct np_uring *u, uint32_t count)
{
    if (!u->owner_tid)
        return false;
    u->head.counts.sq_full++;
    for (int i = 0; i < NP_URING_SUBMIT_RETRIES_COUNT; i++) {
        int n = np_uring_submit_queue(u);
        if (n > 0) {
            np_uring_wait_read(u, u->ring.sq.ring_entries - count);
            np_uring_after_submit(u);
            return io_uring_sq_space_left(&u->ring) >= count;
        }
        if (n != -EINTR)
            break;
    }
    return false;
}

/* Message and iovecs stay until the kernel has read them (IORING_FEAT_SUBMIT_STABLE): the one with
 * its entry, the others with the ring that they were drawn from. */
struct msghdr *np_uring_message(struct np_uring *u, const struct np_op *op)
{
    uint32_t entry = (u->ring.sq.sqe_tail - 1) & u->ring.sq.ring_mask;
    struct msghdr *msg = &u->msgs[entry];
    memset(msg, 0, sizeof(*msg));
    msg->msg_iov = (struct iovec *)(uintptr_t)op->iov;
    msg->msg_iovlen = op->iov_count;
    u->iov_end = u->iov_ends[entry] = op->iov_end;
    return msg;
}

static int open_iovs(struct np_uring *u)
{
    uint32_t entries = u->ring.sq.ring_entries;
    if (!u->msgs)
        u->msgs = malloc(sizeof(*u->msgs) * entries);
    if (!u->iov_ends)
        u->iov_ends = calloc(entries, sizeof(*u->iov_ends));
    if (!u->msgs || !u->iov_ends)
        return -ENOMEM;
    /* Entries that are in the queue already carry no gather list. */
    return np_iovring_open(&u->iovs, u->config.iov_count);
}

/* A span for a gather list; submits when there is no room. */
static struct iovec *draw_iovs(struct np_uring *u, uint32_t count, uint32_t *end)
{
    if (count > u->iovs.count)
        return NULL; /* no submission would make room for that */
    struct iovec *span = np_iovring_draw(&u->iovs, count, end);
    if (span || !u->owner_tid)
        return span;
    if (np_uring_submit_queue(u) < 0)
        return NULL;
    np_uring_wait_read(u, 0);
    np_uring_after_submit(u);
    return np_iovring_draw(&u->iovs, count, end);
}

int np_uring_place(struct np_uring *u, struct np_op *op, const struct iovec *iov, int iov_count)
{
    if (iov_count == 1) {
        op->iov_count = 0;
        op->buf = iov->iov_base;
        /* The submission entry's length has 32 bits; what is left over is a partial send. */
        op->len_bytes = iov->iov_len < NP_SEND_MAX_BYTES ? iov->iov_len : NP_SEND_MAX_BYTES;
        return 0;
    }
    int err = u->iovs.count ? 0 : open_iovs(u);
    if (err < 0)
        return err;
    struct iovec *span = draw_iovs(u, (uint32_t)iov_count, &op->iov_end);
    if (!span)
        return -EBUSY;
    memcpy(span, iov, sizeof(*iov) * (size_t)iov_count);
    op->iov = span;
    op->iov_count = (uint32_t)iov_count;
    op->len_bytes = 0;
    for (int i = 0; i < iov_count; i++)
        op->len_bytes += iov[i].iov_len;
    return 0;
}

void np_uring_finish_unsubmitted(struct np_uring *u, struct np_op *op, int res)
{
    op->res = res;
    op->submitted = 0;
    np_oplist_push(&u->done, &u->head.slab, op);
}
