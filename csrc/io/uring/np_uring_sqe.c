/* np_uring_sqe.c - the verb `submit`: submission entries that a caller has filled in himself.
 *
 * An entry is pushed at once where there is room. Where there is none its image is kept, in one
 * allocation for all entries of the call, so that a chain (IOSQE_IO_LINK) always goes into the
 * queue in one piece: the kernel ends a chain where a submission ends.
 *
 * These operations differ from the others in three ways. They cannot be started a second time: a
 * write may have happened already. The kernel may hold their memory and fd until the last event,
 * whatever became of the task that waited. And what they do to the ring is refused where the
 * backend could not keep its promises: see refusal().
 */
#include "io/uring/np_uring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

NP_STATIC_ASSERT(sizeof(struct io_uring_sqe) == NP_SQE_BYTES, "rings are made without SQE128");

/* Why an entry cannot be submitted: -EINVAL, or 0. */
static int refusal(const struct io_uring_sqe *sqe)
{
    /* No completion, so no end; or one that waits for the end of every multishot before it. */
    if (sqe->flags & (IOSQE_CQE_SKIP_SUCCESS | IOSQE_IO_DRAIN))
        return -EINVAL;
    /* The buffers of that group are the loop's receive memory. */
    bool names_group = (sqe->flags & IOSQE_BUFFER_SELECT) ||
                       sqe->opcode == IORING_OP_PROVIDE_BUFFERS ||
                       sqe->opcode == IORING_OP_REMOVE_BUFFERS;
    return names_group && sqe->buf_group == NP_URING_BUF_GROUP ? -EINVAL : 0;
}

static void fill_sqe(struct np_uring *u, struct np_op *op, const struct io_uring_sqe *image)
{
    struct io_uring_sqe *sqe = np_uring_take_sqe(u);
    NP_ASSERT(sqe != NULL); /* there was room for all of them */
    memcpy(sqe, image, sizeof(*sqe));
    io_uring_sqe_set_data64(sqe, np_op_udata(op));
    op->buf = NULL;
    op->sqe_index = u->ring.sq.sqe_tail - 1;
    np_op_mark_kernel(op);
    u->head.counts.submissions++;
}

/* Makes the operations of a call: 0, or -ENOMEM with none of them left. */
static int alloc_ops(struct np_uring *u, uint32_t count, void *const *owners, np_udata *ops)
{
    for (uint32_t i = 0; i < count; i++) {
        struct np_op *op = np_op_alloc(&u->head.slab, NP_OP_SQE, -1, owners[i]);
        if (!op) {
            while (i-- > 0)
                np_op_free(&u->head.slab, np_op_find(&u->head.slab, ops[i]));
            return -ENOMEM;
        }
        op->group_count = (uint16_t)(count - i);
        op->grouped = count > 1;
        ops[i] = np_op_udata(op);
    }
    return 0;
}

int np_uring_submit(struct np_backend *be, const void *sqes, uint32_t count, void *const *owners,
                    np_udata *ops)
{
    struct np_uring *u = np_uring_self(be);
    const struct io_uring_sqe *from = sqes;
    if (u->head.is_abandoned)
        return -EPERM;
    if (count == 0 || count > u->ring.sq.ring_entries)
        return -E2BIG;
    for (uint32_t i = 0; i < count; i++)
        if (refusal(&from[i]) < 0)
            return -EINVAL;
    /* The last one must not reach for whatever is armed next. */
    if (from[count - 1].flags & (IOSQE_IO_LINK | IOSQE_IO_HARDLINK))
        return -EINVAL;
    bool now = !u->unpushed.count && np_uring_reserve(u, count);
    struct io_uring_sqe *image = NULL;
    if (!now) {
        image = malloc(sizeof(*image) * count);
        if (!image)
            return -ENOMEM;
        memcpy(image, from, sizeof(*image) * count);
    }
    if (alloc_ops(u, count, owners, ops) < 0) {
        free(image);
        return -ENOMEM;
    }
    np_op_find(&u->head.slab, ops[0])->buf = image; /* the first one's: it is pushed first */
    for (uint32_t i = 0; i < count; i++) {
        struct np_op *op = np_op_find(&u->head.slab, ops[i]);
        if (now)
            fill_sqe(u, op, &from[i]);
        else
            np_oplist_push(&u->unpushed, &u->head.slab, op);
    }
    return 0;
}

/* One of a call's operations was cancelled before any of them reached the kernel: none will. */
static bool is_cancelled(struct np_uring *u, const struct np_op *first)
{
    const struct np_op *op = first;
    for (uint32_t left = first->group_count;; left--) {
        if (op->state == NP_ORPHAN)
            return true;
        if (left == 1)
            return false;
        op = np_op_at(&u->head.slab, op->next - 1);
    }
}

bool np_uring_push_group(struct np_uring *u)
{
    struct np_op_slab *slab = &u->head.slab;
    struct np_op *first = np_op_at(slab, u->unpushed.head - 1);
    uint32_t count = first->group_count;
    bool cancelled = is_cancelled(u, first);
    if (!cancelled && !np_uring_reserve(u, count))
        return false;
    struct io_uring_sqe *image = (struct io_uring_sqe *)(uintptr_t)first->buf;
    for (uint32_t i = 0; i < count; i++) {
        struct np_op *op = np_oplist_pop(&u->unpushed, slab);
        NP_DCHECK(op && op->kind == NP_OP_SQE);
        op->buf = NULL;
        if (cancelled)
            np_uring_finish_unsubmitted(u, op, -ECANCELED);
        else
            fill_sqe(u, op, &image[i]);
    }
    free(image);
    return true;
}

void np_uring_advance_chains(struct np_uring *u)
{
    if (!u->owner_tid)
        return;
    if (np_uring_is_polled(u)) {
        np_uring_submit_queue(u);
        np_uring_wait_read(u, 0);
    } else {
        u->head.counts.enters++;
        io_uring_submit_and_get_events(&u->ring);
    }
    np_uring_after_submit(u);
}

void np_uring_complete_sqe(struct np_uring *u, struct np_op *op, const struct io_uring_cqe *cqe,
                           struct np_event *event)
{
    bool more = cqe->flags & IORING_CQE_F_MORE;
    np_op_emit(event, op, cqe->res, more ? NP_EV_MORE : 0);
    event->cqe_flags = cqe->flags;
    if (!more)
        np_op_free(&u->head.slab, op);
}

void np_uring_free_images(struct np_uring *u)
{
    struct np_op *op;
    while ((op = np_oplist_pop(&u->unpushed, &u->head.slab)) != NULL)
        if (op->kind == NP_OP_SQE)
            free((void *)(uintptr_t)op->buf);
}
