/* np_faulty.c - the verbs of the wrapper, see np_faulty.h.
 *
 * Each turn takes the real backend's events, does to them what the dice say, and keeps them in one
 * queue; what is due leaves it in order. So events of one operation never overtake each other, and
 * an event that was made up is one more in the queue.
 */
#include "testing/np_faulty.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "io/uring/np_sqe.h"
#include "testing/np_fault_plan.h"

#define NP_FAULTY_DELAY_MAX_TURNS 4
#define NP_FAULTY_NOTICE_MAX_TURNS 48
#define NP_FAULTY_FEW_MAX_COUNT 3

struct held { /* an event that is to be delivered */
    struct np_event event;
    uint64_t due; /* turn */
};

struct late { /* a cancel that was asked for */
    np_udata op;
    uint64_t due;
};

struct ended { /* what an operation is to end with */
    np_udata op;
    int32_t res;
};

struct np_faulty {
    struct np_backend_ops ops; /* first: what np_head(be)->ops points to */
    const struct np_backend_ops *inner;
    struct np_dice dice;
    uint64_t turn;
    uint64_t made_up_count; /* operations that the real backend has never seen */
    uint32_t features;      /* those of the real backend */
    bool is_uring;
    bool was_busy; /* the last turn submitted nothing */
    struct held *held;
    uint32_t held_count, held_cap;
    struct late *late;
    uint32_t late_count, late_cap;
    struct ended *ends;
    uint32_t ends_count, ends_cap;
    struct np_buf **lent; /* of the events of the last turn */
    uint32_t lent_count, lent_cap;
    struct np_event batch[NP_HARVEST_MAX_EVENTS];
    struct iovec iov[NP_IOV_MAX];
};

static struct np_faulty *self(struct np_backend *be)
{
    return (struct np_faulty *)(uintptr_t)np_head(be)->ops;
}

static bool is_off(struct np_backend *be)
{
    return np_head(be)->is_abandoned;
}

/* Room for one more. Tests that run out of memory for their own tools end here. */
static void *grown(void *items, uint32_t count, uint32_t *cap, size_t item_bytes)
{
    if (count < *cap)
        return items;
    *cap = *cap ? *cap * 2 : 16;
    items = realloc(items, *cap * item_bytes);
    NP_ASSERT(items != NULL);
    return items;
}

static int32_t one_of(struct np_faulty *f, const int32_t *errors, uint32_t count)
{
    return -errors[np_dice_below(&f->dice, count)];
}

#define ONE_OF(f, ...)                                                                             \
    one_of(f, (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

/* ---- the queue of events -------------------------------------------------------------------- */

static bool is_last(const struct np_event *event)
{
    return !(event->flags & NP_EV_MORE);
}

/* An event is due at the earliest when those before it of the same operation are; entries of the
 * caller's may be linked, and count as one. */
static uint64_t not_before(const struct np_faulty *f, const struct np_event *event, uint64_t due)
{
    for (uint32_t i = 0; i < f->held_count; i++) {
        const struct held *held = &f->held[i];
        bool is_bound = held->event.op == event->op ||
                        (event->kind == NP_OP_SQE && held->event.kind == NP_OP_SQE);
        if (is_bound && held->due > due)
            due = held->due;
    }
    return due;
}

static void hold(struct np_backend *be, const struct np_event *event, uint64_t due)
{
    struct np_faulty *f = self(be);
    f->held = grown(f->held, f->held_count, &f->held_cap, sizeof(*f->held));
    f->held[f->held_count] = (struct held){.event = *event, .due = not_before(f, event, due)};
    f->held_count++;
    if (event->kind == NP_OP_RECV && event->buf)
        np_buf_hold(event->buf);
    if (is_last(event))
        np_head(be)->slab.live_count++; /* in flight, as far as anybody can tell */
}

/* The last event of an operation that the real backend does not have. */
static void hold_end(struct np_backend *be, uint8_t kind, void *owner, np_udata op, int32_t res,
                     int flags)
{
    struct np_event event = {
        .owner = owner, .op = op, .res = res, .kind = kind, .flags = (uint8_t)flags};
    hold(be, &event, self(be)->turn + 1 + np_dice_below(&self(be)->dice, 2));
}

static void lend(struct np_faulty *f, struct np_buf *buf)
{
    f->lent = grown(f->lent, f->lent_count, &f->lent_cap, sizeof(struct np_buf *));
    f->lent[f->lent_count++] = buf;
}

static void take_lent_back(struct np_faulty *f)
{
    for (uint32_t i = 0; i < f->lent_count; i++)
        np_buf_release(f->lent[i]);
    f->lent_count = 0;
}

/* What is due, oldest first, as far as there is room. */
static int deliver(struct np_backend *be, struct np_event *events, int max)
{
    struct np_faulty *f = self(be);
    uint32_t kept = 0;
    int n = 0;
    for (uint32_t i = 0; i < f->held_count; i++) {
        struct held *held = &f->held[i];
        if (n == max || held->due > f->turn) {
            f->held[kept++] = *held;
            continue;
        }
        events[n++] = held->event;
        if (held->event.kind == NP_OP_RECV && held->event.buf)
            lend(f, held->event.buf);
        if (is_last(&held->event))
            np_head(be)->slab.live_count--;
    }
    f->held_count = kept;
    return n;
}

static void reorder(struct np_faulty *f, struct np_event *events, int count)
{
    for (int i = 1; i < count; i++) {
        struct np_event *left = &events[i - 1], *right = &events[i];
        bool is_bound = left->op == right->op ||
                        (left->kind == NP_OP_SQE && right->kind == NP_OP_SQE) ||
                        (!f->is_uring && left->owner == right->owner);
        if (is_bound || !np_dice_strikes(&f->dice, NP_FAULT_REORDER))
            continue;
        struct np_event moved = *left;
        *left = *right;
        *right = moved;
    }
}

static bool holds_last(const struct np_faulty *f, np_udata op)
{
    for (uint32_t i = 0; i < f->held_count; i++)
        if (f->held[i].event.op == op && is_last(&f->held[i].event))
            return true;
    return false;
}

/* ---- what operations end with --------------------------------------------------------------- */

static struct ended *end_of(struct np_faulty *f, np_udata op)
{
    for (uint32_t i = 0; i < f->ends_count; i++)
        if (f->ends[i].op == op)
            return &f->ends[i];
    return NULL;
}

static void note_end(struct np_faulty *f, np_udata op, int32_t res)
{
    f->ends = grown(f->ends, f->ends_count, &f->ends_cap, sizeof(*f->ends));
    f->ends[f->ends_count++] = (struct ended){.op = op, .res = res};
}

static void forget_end(struct np_faulty *f, struct ended *end)
{
    *end = f->ends[--f->ends_count];
}

/* An operation that goes on is ended, as if the kernel had: its last event will say so. */
static void end_early(struct np_backend *be, const struct np_event *event)
{
    struct np_faulty *f = self(be);
    int32_t res;
    enum np_fault fault;
    if (!np_op_find(&np_head(be)->slab, event->op) || end_of(f, event->op))
        return;
    if (event->kind == NP_OP_ACCEPT) {
        fault = NP_FAULT_ACCEPT;
        res = ONE_OF(f, ECONNABORTED, EPROTO, ENETDOWN, EHOSTUNREACH, EINTR, EMFILE, ENOBUFS);
    } else {
        fault = np_dice_below(&f->dice, 2) ? NP_FAULT_EINTR_RECV : NP_FAULT_RECV_ERROR;
        res = fault == NP_FAULT_EINTR_RECV ? -EINTR : -ENOMEM;
    }
    if (!np_dice_draw(&f->dice, fault) || f->inner->cancel(be, event->op, 0) < 0)
        return;
    note_end(f, event->op, res);
}

static enum np_fault fault_of(const struct np_event *event, int32_t res)
{
    if (event->kind == NP_OP_ACCEPT)
        return NP_FAULT_ACCEPT;
    return res == -EINTR ? NP_FAULT_EINTR_RECV : NP_FAULT_RECV_ERROR;
}

/* The last event of one that was ended early, by us. What it still brought comes before its end. */
static void take_end(struct np_backend *be, struct np_event *event, struct ended *end)
{
    struct np_faulty *f = self(be);
    int32_t res = end->res;
    bool brings = event->kind == NP_OP_ACCEPT ? event->res >= 0 : event->res > 0;
    forget_end(f, end);
    if (event->kind != NP_OP_SQE && event->res != -ECANCELED && !brings)
        return; /* it has ended by itself: with the end of the stream, say */
    if (event->kind != NP_OP_SQE) {
        np_dice_count(&f->dice, fault_of(event, res));
        if (brings) {
            event->flags |= NP_EV_MORE;
            hold(be, event, f->turn);
            event->flags &= (uint8_t)~NP_EV_MORE;
        }
    }
    event->res = res;
    if (event->kind != NP_OP_SQE) {
        event->data = NULL;
        event->buf = NULL;
    }
}

/* ---- events of the real backend ------------------------------------------------------------- */

/* A receive that brought its bytes in two parts. */
static void split(struct np_backend *be, struct np_event *event, uint64_t due)
{
    struct np_faulty *f = self(be);
    struct np_event first = *event;
    int32_t size = 1 + (int32_t)np_dice_below(&f->dice, (uint32_t)event->res - 1);
    first.res = size;
    first.flags |= NP_EV_MORE;
    if (f->is_uring && np_dice_below(&f->dice, 2))
        first.flags |= NP_EV_NONEMPTY;
    hold(be, &first, due);
    event->data += size;
    event->res -= size;
    np_dice_count(&f->dice, NP_FAULT_SHORT_RECV);
}

/* Its readiness is promised to be one of now. The slot is free, and as the operation left it. */
static bool is_level(struct np_backend *be, const struct np_event *event)
{
    const struct np_op *op = np_op_at(&np_head(be)->slab, np_udata_slot(event->op));
    return event->kind == NP_OP_POLL && (op->poll_mask & NP_POLL_LEVEL);
}

static uint64_t due_of(struct np_backend *be, const struct np_event *event)
{
    struct np_faulty *f = self(be);
    if (event->flags & NP_EV_NOTIF && np_dice_strikes(&f->dice, NP_FAULT_LATE_NOTICE))
        return f->turn + 1 + np_dice_below(&f->dice, NP_FAULTY_NOTICE_MAX_TURNS);
    if (!is_level(be, event) && np_dice_strikes(&f->dice, NP_FAULT_DELAY))
        return f->turn + 1 + np_dice_below(&f->dice, NP_FAULTY_DELAY_MAX_TURNS);
    return f->turn;
}

static void take(struct np_backend *be, struct np_event *event)
{
    struct np_faulty *f = self(be);
    struct ended *end = f->ends_count && is_last(event) ? end_of(f, event->op) : NULL;
    uint64_t due = due_of(be, event);
    if (end)
        take_end(be, event, end);
    if (event->kind == NP_OP_RECV && event->res > 1 && np_dice_draw(&f->dice, NP_FAULT_SHORT_RECV))
        split(be, event, due);
    if (np_dice_below(&f->dice, 4) == 0 && !is_last(event) &&
        ((event->kind == NP_OP_RECV && event->res > 0) ||
         (event->kind == NP_OP_ACCEPT && event->res >= 0)))
        end_early(be, event);
    hold(be, event, due);
}

static void cancel_late(struct np_backend *be)
{
    struct np_faulty *f = self(be);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < f->late_count; i++) {
        if (f->late[i].due > f->turn)
            f->late[kept++] = f->late[i];
        else
            (void)f->inner->cancel(be, f->late[i].op, 0);
    }
    f->late_count = kept;
}

/* While this call lasts the ring has no multishot receives: what starts is one shot. */
static void set_one_shot(struct np_backend *be, bool is_one_shot)
{
    if (is_one_shot)
        np_head(be)->features &= ~(uint32_t)NP_FEATURE_RECV_MULTI;
    else
        np_head(be)->features |= self(be)->features & NP_FEATURE_RECV_MULTI;
}

static bool draws_one_shot(struct np_faulty *f)
{
    return f->is_uring && (f->features & NP_FEATURE_RECV_MULTI) &&
           np_dice_draw(&f->dice, NP_FAULT_ONE_SHOT);
}

/* Receives that wait to be started again, by this turn. */
static uint32_t waiting_receives(struct np_backend *be)
{
    const struct np_op_slab *slab = &np_head(be)->slab;
    uint32_t n = 0;
    for (uint32_t slot = 0; slot < slab->chunks_count * NP_OP_CHUNK_SLOTS; slot++) {
        const struct np_op *op = np_op_at(slab, slot);
        n += op->kind == NP_OP_RECV && op->state == NP_QUEUED;
    }
    return n;
}

/* The real backend's turn. Receives that it starts again may be one shot. */
static int inner_turn(struct np_backend *be, int most, int64_t timeout_ns)
{
    struct np_faulty *f = self(be);
    bool is_one_shot = draws_one_shot(f) && np_bufring_has_room(&np_head(be)->bufs);
    uint32_t count = is_one_shot ? waiting_receives(be) : 0;
    set_one_shot(be, is_one_shot);
    int n = f->inner->turn(be, f->batch, most, timeout_ns);
    set_one_shot(be, false);
    while (count-- > 0)
        np_dice_count(&f->dice, NP_FAULT_ONE_SHOT);
    return n;
}

/* ---- the verbs ------------------------------------------------------------------------------ */

static int faulty_turn(struct np_backend *be, struct np_event *events, int max, int64_t timeout_ns)
{
    struct np_faulty *f = self(be);
    if (is_off(be))
        return f->inner->turn(be, events, max, timeout_ns);
    f->turn++;
    take_lent_back(f);
    if (f->was_busy)
        timeout_ns = 0; /* what the kernel did not take may have ends that are waited for */
    f->was_busy = np_dice_strikes(&f->dice, NP_FAULT_BUSY);
    if (f->was_busy)
        return 0;
    cancel_late(be);
    bool is_interrupted = timeout_ns != 0 && np_dice_strikes(&f->dice, NP_FAULT_EINTR_WAIT);
    int most = max < NP_HARVEST_MAX_EVENTS ? max : NP_HARVEST_MAX_EVENTS;
    bool is_few = np_dice_draw(&f->dice, NP_FAULT_FEW);
    if (is_few && most > NP_FAULTY_FEW_MAX_COUNT)
        most = 1 + (int)np_dice_below(&f->dice, NP_FAULTY_FEW_MAX_COUNT);
    if (f->held_count || f->late_count || is_interrupted)
        timeout_ns = 0;
    int n = inner_turn(be, most, timeout_ns);
    if (is_few && n == most)
        np_dice_count(&f->dice, NP_FAULT_FEW);
    for (int i = 0; i < n; i++)
        take(be, &f->batch[i]);
    int delivered = deliver(be, events, max);
    reorder(f, events, delivered);
    if (delivered == 0 && is_interrupted)
        return -EINTR;
    return delivered || n > 0 ? delivered : n;
}

/* A readiness that is none, or is said again. */
static bool is_spurious(struct np_faulty *f, const struct np_op *op)
{
    int type;
    socklen_t size = sizeof(type);
    return op->kind == NP_OP_POLL && !(op->poll_mask & NP_POLL_LEVEL) &&
           (op->poll_mask & (POLLIN | POLLOUT)) && np_dice_draw(&f->dice, NP_FAULT_SPURIOUS) &&
           getsockopt(op->fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0;
}

/* What an operation that begins ends with at once: 0, no event, or its result. */
static int32_t end_at_once(struct np_faulty *f, const struct np_op *op)
{
    if (is_spurious(f, op)) {
        np_dice_count(&f->dice, NP_FAULT_SPURIOUS);
        return (int32_t)(op->poll_mask & (POLLIN | POLLOUT));
    }
    if (op->kind == NP_OP_ACCEPT && np_dice_strikes(&f->dice, NP_FAULT_ACCEPT))
        return ONE_OF(f, ECONNABORTED, EPROTO, ENETDOWN, EHOSTUNREACH, EINTR, EMFILE, ENOBUFS);
    if (op->kind == NP_OP_RECV && np_dice_strikes(&f->dice, NP_FAULT_EINTR_RECV))
        return -EINTR;
    if (op->kind == NP_OP_RECV && np_dice_strikes(&f->dice, NP_FAULT_RECV_ERROR))
        return -ENOMEM;
    return 0;
}

static int faulty_arm(struct np_backend *be, struct np_op *op)
{
    struct np_faulty *f = self(be);
    if (is_off(be))
        return f->inner->arm(be, op);
    int32_t res = end_at_once(f, op);
    if (res) {
        hold_end(be, op->kind, op->owner, np_op_udata(op), res, 0);
        np_op_free(&np_head(be)->slab, op);
        return 0;
    }
    if (np_dice_strikes(&f->dice, NP_FAULT_ARM_ERROR)) {
        np_op_free(&np_head(be)->slab, op);
        return f->is_uring ? -ENOMEM : ONE_OF(f, ENOMEM, ENOSPC);
    }
    bool is_one_shot = op->kind == NP_OP_RECV && draws_one_shot(f);
    set_one_shot(be, is_one_shot);
    int err = f->inner->arm(be, op);
    set_one_shot(be, false);
    if (err == 0 && is_one_shot)
        np_dice_count(&f->dice, NP_FAULT_ONE_SHOT);
    return err;
}

/* Pieces that are cut off somewhere: their number. */
static int cut(struct np_faulty *f, const struct iovec *iov, size_t total_bytes)
{
    size_t left_bytes = 1 + np_dice_roll(&f->dice) % (total_bytes - 1);
    int n = 0;
    while (left_bytes) {
        f->iov[n] = iov[n];
        if (f->iov[n].iov_len > left_bytes)
            f->iov[n].iov_len = left_bytes;
        left_bytes -= f->iov[n].iov_len;
        n++;
    }
    return n;
}

static size_t total_of(const struct iovec *iov, int iov_count)
{
    size_t total_bytes = 0;
    for (int i = 0; i < iov_count; i++)
        total_bytes += iov[i].iov_len;
    return total_bytes;
}

/* What a send says that has sent nothing: 1, or 0: it is one for the real backend. */
static int32_t send_nothing(struct np_faulty *f, int flags, int *event_flags)
{
    *event_flags = 0;
    if (np_dice_strikes(&f->dice, NP_FAULT_EINTR_SEND))
        return -EINTR;
    if (np_dice_strikes(&f->dice, NP_FAULT_EAGAIN_SEND))
        return -EAGAIN;
    if (np_dice_strikes(&f->dice, NP_FAULT_SEND_ERROR))
        return ONE_OF(f, ENOBUFS, ENOMEM);
    if ((flags & NP_SEND_ZC) && f->is_uring && np_dice_strikes(&f->dice, NP_FAULT_NO_ZC)) {
        *event_flags = NP_EV_NO_ZC;
        return 1;
    }
    return 0;
}

static int faulty_send(struct np_backend *be, int fd, void *owner, const struct iovec *iov,
                       int iov_count, int flags, int32_t *res, np_udata *out)
{
    struct np_faulty *f = self(be);
    int event_flags;
    if (is_off(be))
        return f->inner->send(be, fd, owner, iov, iov_count, flags, res, out);
    if (np_dice_strikes(&f->dice, NP_FAULT_NO_SLOT))
        return -ENOMEM;
    *res = send_nothing(f, flags, &event_flags);
    if (*res) {
        bool is_async = f->is_uring || (*res == -EAGAIN && (flags & NP_SEND_WAIT));
        uint8_t kind = flags & NP_SEND_TRANSMITS ? NP_OP_TRANSMIT : NP_OP_SEND;
        if (!is_async)
            return 1;
        /* "There is room now" is what a send that waits says of it; 0 with NO_ZC, too. */
        if (event_flags || (*res == -EAGAIN && (flags & NP_SEND_WAIT)))
            *res = 0;
        /* A slot that no slab has: nobody else's operation has this name. */
        *out = np_udata_pack(kind, NP_OP_MAX_SLOTS - 1, (uint32_t)++f->made_up_count | 1u << 31);
        hold_end(be, kind, owner, *out, *res, event_flags);
        return 0;
    }
    size_t total_bytes = total_of(iov, iov_count);
    if (total_bytes > 1 && np_dice_strikes(&f->dice, NP_FAULT_SHORT_SEND)) {
        iov_count = cut(f, iov, total_bytes);
        iov = f->iov;
        flags &= ~NP_SEND_QUIET; /* what was taken of a part is reported */
    }
    return f->inner->send(be, fd, owner, iov, iov_count, flags, res, out);
}

static int faulty_submit(struct np_backend *be, const void *sqes, uint32_t count,
                         void *const *owners, np_udata *ops)
{
    struct np_faulty *f = self(be);
    if (is_off(be) || !f->is_uring)
        return f->inner->submit(be, sqes, count, owners, ops);
    if (np_dice_strikes(&f->dice, NP_FAULT_NO_SLOT))
        return -ENOMEM;
    struct io_uring_sqe sqe;
    if (count != 1)
        return f->inner->submit(be, sqes, count, owners, ops); /* a chain */
    memcpy(&sqe, sqes, sizeof(sqe));
    int32_t res = 0;
    bool transfers = sqe.opcode == IORING_OP_READ || sqe.opcode == IORING_OP_WRITE;
    if (transfers || sqe.opcode == IORING_OP_FSYNC) {
        if (np_dice_strikes(&f->dice, NP_FAULT_EINTR_FILE))
            res = -EINTR;
        else if (np_dice_strikes(&f->dice, NP_FAULT_FILE_ERROR))
            res = -EIO;
    }
    if (res) {
        memset(&sqe, 0, sizeof(sqe));
        sqe.opcode = IORING_OP_NOP;
        sqe.fd = -1;
    } else if (transfers && sqe.len > 1 && np_dice_strikes(&f->dice, NP_FAULT_SHORT_FILE)) {
        sqe.len = 1 + np_dice_below(&f->dice, sqe.len - 1);
    }
    int err = f->inner->submit(be, &sqe, 1, owners, ops);
    if (err == 0 && res)
        note_end(f, ops[0], res);
    return err;
}

/* A cancel can be late where the kernel surely has the operation, or where the fd is the loop's. */
static bool may_be_late(struct np_faulty *f, const struct np_op *op)
{
    bool is_ours = op->kind == NP_OP_RECV || op->kind == NP_OP_ACCEPT ||
                   (op->kind == NP_OP_POLL && (op->poll_mask & NP_POLL_KEEP));
    return f->is_uring && is_ours && np_dice_draw(&f->dice, NP_FAULT_LATE_CANCEL);
}

static void drop_late(struct np_faulty *f, np_udata op)
{
    for (uint32_t i = 0; i < f->late_count; i++)
        if (f->late[i].op == op)
            f->late[i--] = f->late[--f->late_count];
}

static int faulty_cancel(struct np_backend *be, np_udata target, int flags)
{
    struct np_faulty *f = self(be);
    if (is_off(be))
        return f->inner->cancel(be, target, flags);
    if (holds_last(f, target))
        return 0; /* its end is on its way */
    struct ended *end = end_of(f, target);
    if (end && np_udata_kind(target) != NP_OP_SQE)
        forget_end(f, end); /* it is the caller now who ends it */
    const struct np_op *op = np_op_find(&np_head(be)->slab, target);
    if (op && !(flags & NP_CANCEL_SETTLE) && op->state == NP_KERNEL && may_be_late(f, op)) {
        f->late = grown(f->late, f->late_count, &f->late_cap, sizeof(*f->late));
        f->late[f->late_count++] = (struct late){
            .op = target, .due = f->turn + 1 + np_dice_below(&f->dice, NP_FAULTY_DELAY_MAX_TURNS)};
        np_dice_count(&f->dice, NP_FAULT_LATE_CANCEL);
        return 0;
    }
    drop_late(f, target);
    return f->inner->cancel(be, target, flags);
}

static void faulty_forget(struct np_backend *be, int fd)
{
    self(be)->inner->forget(be, fd);
}

static int faulty_attach(struct np_backend *be, void *base, size_t size_bytes, int how)
{
    struct np_faulty *f = self(be);
    if (how == NP_ATTACH_ON && f->is_uring && !is_off(be) &&
        np_dice_strikes(&f->dice, NP_FAULT_NO_MEMLOCK))
        return -ENOMEM;
    return f->inner->attach(be, base, size_bytes, how);
}

static int faulty_enable(struct np_backend *be)
{
    return self(be)->inner->enable(be);
}

static int faulty_flush(struct np_backend *be)
{
    return self(be)->inner->flush(be);
}

static int faulty_has_work(struct np_backend *be)
{
    struct np_faulty *f = self(be);
    return f->held_count || f->late_count || f->inner->has_work(be);
}

static void faulty_close(struct np_backend *be)
{
    struct np_faulty *f = self(be);
    struct np_backend_head *head = np_head(be);
    for (uint32_t i = 0; i < f->held_count; i++) {
        if (f->held[i].event.kind == NP_OP_RECV && f->held[i].event.buf)
            np_buf_release(f->held[i].event.buf);
        head->slab.live_count -= is_last(&f->held[i].event);
    }
    take_lent_back(f);
    head->ops = f->inner;
    f->inner->close(be);
    np_dice_close(&f->dice);
    free(f->held);
    free(f->late);
    free(f->ends);
    free(f->lent);
    free(f);
}

int np_faulty_wrap(struct np_backend *be, struct np_fault_plan *plan)
{
    struct np_backend_head *head = np_head(be);
    struct np_faulty *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->inner = head->ops;
    f->features = head->features;
    f->is_uring = strcmp(f->inner->name, "uring") == 0;
    f->ops = (struct np_backend_ops){
        .name = f->inner->name,
        .open = f->inner->open,
        .close = faulty_close,
        .enable = faulty_enable,
        .arm = faulty_arm,
        .send = faulty_send,
        .submit = faulty_submit,
        .cancel = faulty_cancel,
        .forget = faulty_forget,
        .attach = faulty_attach,
        .turn = faulty_turn,
        .flush = faulty_flush,
        .has_work = faulty_has_work,
    };
    np_dice_open(&f->dice, plan);
    head->ops = &f->ops;
    return 0;
}
