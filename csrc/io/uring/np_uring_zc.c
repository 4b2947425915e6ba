/* np_uring_zc.c - sends that wait or are zero-copy: their entries, and what completions say.
 *
 * A zero-copy send has two completions: the result, with F_MORE when the kernel still reads the
 * memory, and then the notification (F_NOTIF) that it does not any more (io_uring_prep_send_zc(3)).
 * With REPORT_USAGE the notification says whether the bytes were copied on their way after all;
 * kernels before 6.2 do not know that flag and refuse the send.
 */
#include <errno.h>

#include "base/np_compat.h"
#include "io/uring/np_uring.h"

/* What a zero-copy send of this shape needs; the most particular feature has the highest bit. */
static uint32_t needed_features(const struct np_op *op)
{
    if (op->iov_count == 0)
        return NP_FEATURE_SEND_ZC | (op->region ? NP_FEATURE_ZC_FIXED : 0);
    return NP_FEATURE_SENDMSG_ZC | (op->region ? NP_FEATURE_ZC_FIXED | NP_FEATURE_ZC_FIXED_VEC : 0);
}

static bool has_needed(const struct np_uring *u, const struct np_op *op)
{
    return !(needed_features(op) & ~u->head.features);
}

/* Whether, and out of which region, `op` can be sent without copying. */
static bool prepare_zc(struct np_uring *u, struct np_op *op)
{
    op->region = 0;
    if (!(op->send_flags & NP_SEND_ZC))
        return false;
    struct iovec whole = {.iov_base = (void *)(uintptr_t)op->buf, .iov_len = op->len_bytes};
    int region = op->iov_count ? np_region_of(&u->head, op->iov, (int)op->iov_count)
                               : np_region_of(&u->head, &whole, 1);
    op->region = (uint8_t)(region + 1);
    if (!has_needed(u, op))
        op->region = 0; /* then as from any other memory */
    if (has_needed(u, op))
        return true;
    op->send_flags &= (uint8_t)~NP_SEND_ZC;
    return false;
}

void np_uring_fill_transmit(struct np_uring *u, struct io_uring_sqe *sqe, struct np_op *op)
{
    int flags = MSG_NOSIGNAL;
    if (!(op->send_flags & NP_SEND_WAIT))
        flags |= MSG_DONTWAIT;
    else if (op->send_flags & NP_SEND_ALL)
        flags |= MSG_WAITALL;
    bool is_zc = prepare_zc(u, op);
    if (op->iov_count == 0 && is_zc)
        io_uring_prep_send_zc(sqe, op->fd, op->buf, op->len_bytes, flags, 0);
    else if (op->iov_count == 0)
        io_uring_prep_send(sqe, op->fd, op->buf, op->len_bytes, flags);
    else if (is_zc)
        io_uring_prep_sendmsg_zc(sqe, op->fd, np_uring_message(u, op), (unsigned)flags);
    else
        io_uring_prep_sendmsg(sqe, op->fd, np_uring_message(u, op), (unsigned)flags);
    if (is_zc)
        sqe->ioprio |= NP_IORING_SEND_ZC_REPORT_USAGE;
    if (op->region) {
        sqe->ioprio |= IORING_RECVSEND_FIXED_BUF;
        sqe->buf_index = (uint16_t)(op->region - 1);
    }
}

/* Zero-copy as such was refused: by the socket (Unix), by RLIMIT_MEMLOCK (pinned pages count), or
 * by a kernel that does not know this form. In the last case nothing was even tried: no
 * notification follows, and no send of this shape asks again. */
static bool is_refused(struct np_uring *u, const struct np_op *op, int res, bool more)
{
    if (!(op->send_flags & NP_SEND_ZC))
        return false;
    if (res == -EOPNOTSUPP || res == -ENOMEM)
        return true;
    if (res != -EINVAL || more)
        return false;
    u->head.features &= ~(1u << (31 - __builtin_clz(needed_features(op))));
    return true;
}

static void complete_notice(struct np_uring *u, struct np_op *op, const struct io_uring_cqe *cqe,
                            struct np_event *event)
{
    bool copied = (uint32_t)cqe->res & NP_IORING_NOTIF_USAGE_ZC_COPIED;
    int flags = NP_EV_NOTIF;
    uint64_t *counter = &u->head.counts.zc_bytes;
    NP_DCHECK(op->state == NP_SENT);
    if (copied && (op->send_flags & NP_SEND_ALONE)) {
        flags |= NP_EV_COPIED;
        counter = &u->head.counts.copied_bytes;
    } else if (copied) {
        flags |= NP_EV_COPIED | NP_EV_UNSURE;
        counter = &u->head.counts.unsure_bytes;
    }
    *counter += (uint64_t)op->res;
    u->head.counts.notifs_pending--;
    np_op_emit(event, op, op->res, flags);
    np_op_free(&u->head.slab, op);
}

void np_uring_complete_transmit(struct np_uring *u, struct np_op *op,
                                const struct io_uring_cqe *cqe, struct np_event *event)
{
    if (cqe->flags & IORING_CQE_F_NOTIF) {
        complete_notice(u, op, cqe, event);
        return;
    }
    bool more = cqe->flags & IORING_CQE_F_MORE;
    int res = cqe->res, flags = more ? NP_EV_MORE : 0;
    if (is_refused(u, op, res, more)) {
        u->head.counts.zc_refused++;
        res = 0;
        flags |= NP_EV_NO_ZC;
    }
    uint32_t taken_bytes = res > 0 ? (uint32_t)res : 0;
    u->head.counts.send_bytes += taken_bytes;
    np_op_emit(event, op, res, flags);
    if (more) {
        op->res = (int32_t)taken_bytes;
        np_op_mark_sent(op);
        u->head.counts.notifs_pending++;
        return;
    }
    u->head.counts.copied_bytes += taken_bytes;
    np_op_free(&u->head.slab, op);
}
