/* np_uring_zc.c - registered memory, and sends that wait or are zero-copy.
 *
 * A zero-copy send has two completions: the result, with F_MORE when the kernel still reads the
 * memory, and then the notification (F_NOTIF) that it does not any more (io_uring_prep_send_zc(3)).
 * With REPORT_USAGE the notification says whether the bytes were copied on their way after all;
 * kernels before 6.2 do not know that flag and refuse the send.
 */
#include <errno.h>
#include <string.h>

#include "base/np_compat.h"
#include "io/uring/np_uring.h"

/* ---- registered memory --------------------------------------------------------------------- */

static int register_region(struct np_uring *u, uint32_t index, const void *base, size_t size_bytes)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)base, .iov_len = size_bytes};
    __u64 tag = size_bytes ? np_udata_pack(NP_UDATA_REGION_KIND, index, 1) : 0;
    int n = io_uring_register_buffers_update_tag(&u->ring, index, &iov, &tag, 1);
    return n < 0 ? n : n == 1 ? 0 : -EINVAL;
}

static int open_regions(struct np_uring *u)
{
    if (u->regions_open)
        return 0;
    int err = io_uring_register_buffers_sparse(&u->ring, NP_REGIONS_MAX_COUNT);
    u->regions_open = err >= 0;
    return err < 0 ? err : 0;
}

static int attach_region(struct np_uring *u, const uint8_t *base, size_t size_bytes)
{
    struct np_backend_head *head = &u->head;
    uint32_t index = 0;
    while (index < head->regions_used &&
           (head->regions[index].size_bytes || head->regions[index].is_releasing))
        index++;
    if (index == NP_REGIONS_MAX_COUNT)
        return -ENOSPC;
    int err = register_region(u, index, base, size_bytes);
    if (err < 0)
        return err;
    head->regions[index] = (struct np_region){.base = base, .size_bytes = size_bytes};
    if (index == head->regions_used)
        head->regions_used++;
    return 0;
}

int np_uring_attach(struct np_backend *be, void *base, size_t size_bytes)
{
    struct np_uring *u = np_uring_self(be);
    uint8_t *at = base;
    if (u->forked)
        return -EPERM;
    if (!(u->features & NP_FEATURE_ZC_FIXED))
        return -EOPNOTSUPP;
    int err = open_regions(u);
    for (size_t left_bytes = size_bytes; err == 0 && left_bytes;) {
        size_t piece_bytes = left_bytes < NP_REGION_MAX_BYTES ? left_bytes : NP_REGION_MAX_BYTES;
        err = attach_region(u, at, piece_bytes);
        if (err == 0) {
            at += piece_bytes;
            left_bytes -= piece_bytes;
        }
    }
    if (err < 0 && at != base)
        np_uring_detach(be, base, (size_t)(at - (uint8_t *)base));
    return err;
}

int np_uring_detach(struct np_backend *be, void *base, size_t size_bytes)
{
    struct np_uring *u = np_uring_self(be);
    struct np_backend_head *head = &u->head;
    int result = -ENOENT;
    if (u->forked)
        return -EPERM;
    for (uint32_t i = 0; i < head->regions_used; i++) {
        struct np_region *region = &head->regions[i];
        if (!region->size_bytes || (uintptr_t)region->base - (uintptr_t)base >= size_bytes)
            continue;
        int err = register_region(u, i, NULL, 0);
        if (err < 0)
            return err;
        *region = (struct np_region){.is_releasing = 1};
        result = 0;
    }
    return result;
}

void np_uring_region_released(struct np_uring *u, np_udata tag)
{
    uint32_t index = np_udata_slot(tag);
    NP_ASSERT(index < u->head.regions_used);
    u->head.regions[index].is_releasing = 0;
}

/* What the new ring refuses (RLIMIT_MEMLOCK: the old one's share may not be given back yet) is just
 * not registered any more; sends out of it go on as from any memory. */
void np_uring_move_regions(struct np_uring *u)
{
    u->regions_open = false;
    bool refused = np_regions_live(&u->head) > 0 && open_regions(u) < 0;
    for (uint32_t i = 0; i < u->head.regions_used; i++) {
        struct np_region *region = &u->head.regions[i];
        region->is_releasing = 0;
        if (!region->size_bytes)
            continue;
        if (refused || register_region(u, i, region->base, region->size_bytes) < 0)
            region->size_bytes = 0;
    }
}

/* ---- sends --------------------------------------------------------------------------------- */

int np_uring_transmit(struct np_backend *be, int fd, void *owner, const struct iovec *iov,
                      int iov_count, int flags, int32_t *res, np_udata *out)
{
    struct np_uring *u = np_uring_self(be);
    if (u->forked) {
        *res = -EPERM;
        return 1;
    }
    struct np_op *op = np_op_alloc(&u->head.slab, NP_OP_TRANSMIT, fd, owner);
    if (!op)
        return -ENOMEM;
    op->send_flags = (uint8_t)flags;
    if (np_uring_place(u, op, iov, iov_count) < 0)
        np_uring_place(u, op, iov, 1); /* no room for the list: a partial send goes without */
    *out = np_op_udata(op);
    np_uring_push(u, op);
    return 0;
}

/* What a zero-copy send of this shape needs; the most particular feature has the highest bit. */
static uint32_t needed_features(const struct np_op *op)
{
    if (op->iov_count == 0)
        return NP_FEATURE_SEND_ZC | (op->region ? NP_FEATURE_ZC_FIXED : 0);
    return NP_FEATURE_SENDMSG_ZC | (op->region ? NP_FEATURE_ZC_FIXED | NP_FEATURE_ZC_FIXED_VEC : 0);
}

static bool has_needed(const struct np_uring *u, const struct np_op *op)
{
    return !(needed_features(op) & ~u->features);
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
    int flags = MSG_NOSIGNAL | (op->send_flags & NP_SEND_MORE ? MSG_MORE : 0);
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
    u->features &= ~(1u << (31 - __builtin_clz(needed_features(op))));
    return true;
}

static void complete_notice(struct np_uring *u, struct np_op *op, const struct io_uring_cqe *cqe,
                            struct np_event *event)
{
    bool copied = (uint32_t)cqe->res & NP_IORING_NOTIF_USAGE_ZC_COPIED;
    int flags = NP_EV_NOTIF;
    uint64_t *counter = &u->stats.zc_bytes;
    NP_DCHECK(op->state == NP_SENT);
    if (copied && (op->send_flags & NP_SEND_ALONE)) {
        flags |= NP_EV_COPIED;
        counter = &u->stats.copied_bytes;
    } else if (copied) {
        flags |= NP_EV_COPIED | NP_EV_UNSURE;
        counter = &u->stats.unsure_bytes;
    }
    *counter += (uint64_t)op->res;
    u->stats.notifs_pending--;
    np_op_emit(event, op, NULL, op->res, flags);
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
        u->stats.zc_refused++;
        res = 0;
        flags |= NP_EV_NO_ZC;
    }
    uint32_t taken_bytes = res > 0 ? (uint32_t)res : 0;
    u->stats.send_bytes += taken_bytes;
    np_op_emit(event, op, NULL, res, flags);
    if (more) {
        op->res = (int32_t)taken_bytes;
        op->state = NP_SENT;
        op->submitted = 0; /* it holds nothing that a cancel could reach */
        u->stats.notifs_pending++;
        return;
    }
    u->stats.copied_bytes += taken_bytes;
    np_op_free(&u->head.slab, op);
}
