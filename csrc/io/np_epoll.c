/* np_epoll.c - the epoll backend: readiness turned into the completions of np_backend.h.
 *
 * The only file of the core that calls epoll. Two ways of registering an fd, see epoll_ctl(2):
 *   - while a RECV, an ACCEPT or a POLL with NP_POLL_KEEP is armed: level triggered, and interest
 *     that nobody has any more is withdrawn only when it fires (a paused and resumed reader, or one
 *     POLL after the other, costs no system call);
 *   - with other POLLs only: EPOLLONESHOT, armed anew by EPOLL_CTL_MOD for each of them.
 *     The fd may be the user's: if he closed it in between and the number was reused, MOD says
 *     ENOENT and we ADD.
 */
#define _GNU_SOURCE /* syscall */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/np_backend.h"
#include "io/np_inbox.h"
#include "io/np_oplist.h"
#include "base/np_refused.h"
#include "io/np_sock.h"
#include "io/np_timer.h"

#define NP_EPOLL_BATCH_COUNT 256
#define NP_EPOLL_WAKE_SEQ 0xffffffffu /* epoll_data of the wake-up eventfd */

NP_STATIC_ASSERT(EPOLLIN == POLLIN, "poll(2) bits are epoll bits");
NP_STATIC_ASSERT(EPOLLOUT == POLLOUT, "poll(2) bits are epoll bits");
NP_STATIC_ASSERT(EPOLLERR == POLLERR, "poll(2) bits are epoll bits");
NP_STATIC_ASSERT(EPOLLHUP == POLLHUP, "poll(2) bits are epoll bits");

struct np_epoll_fd {
    uint32_t ops;  /* slot + 1 of the newest operation on this fd, linked through next */
    uint32_t mask; /* what the kernel was told; 0 with added: told nothing, or fired already */
    uint32_t seq;  /* tells this registration's events from an earlier one's */
    bool added;    /* we once added it, and did not hear that it is gone */
    bool oneshot;
    bool passed; /* readiness that no operation wanted was let pass; see serve */
};

struct np_epoll {
    struct np_backend_head head;
    struct np_oplist done;   /* ended: their last event is still to be taken */
    struct np_epoll_fd *fds; /* indexed by fd */
    uint32_t fds_count;
    struct epoll_event batch[NP_EPOLL_BATCH_COUNT];
    int batch_count, batch_next; /* readiness of the last wait, not yet looked at from next on */
    bool has_polled;             /* the last wait was one that does not wait */
    uint32_t buf_count, buf_bytes, recv_max_bytes;
    int *starved; /* fds not asked for while every buffer is held */
    uint32_t starved_count, starved_cap;
    bool has_buffers; /* at the start of this turn */
    uint32_t seq;
    uint32_t watched_count; /* operations that callbacks of this thread can make ready */
    int64_t waited_ns;      /* when the last wait ended */
    int epoll_fd, wake_fd;
};

static struct np_epoll *self(struct np_backend *be)
{
    return (struct np_epoll *)be;
}

static void epoll_close(struct np_backend *be);

static int epoll_open(struct np_backend **out, const struct np_config *config, int wake_fd)
{
    struct np_epoll *e = calloc(1, sizeof(*e));
    if (!e)
        return -ENOMEM;
    e->head.ops = &np_epoll_ops;
    np_op_slab_init(&e->head.slab);
    e->wake_fd = wake_fd;
    e->head.features = (NP_FEATURE_RECV_MULTI | NP_FEATURE_ACCEPT_MULTI | NP_FEATURE_PWAIT2) &
                       ~config->features_off;
    e->buf_count = config->buf_count ? config->buf_count : NP_EPOLL_BUF_COUNT;
    e->buf_bytes = config->buf_bytes ? config->buf_bytes : NP_EPOLL_BUF_BYTES;
    e->recv_max_bytes = e->buf_bytes < NP_EPOLL_RECV_MAX_BYTES ? e->buf_bytes
                                                               : NP_EPOLL_RECV_MAX_BYTES;
    struct epoll_event event = {.events = EPOLLIN,
                                .data.u64 = (uint64_t)NP_EPOLL_WAKE_SEQ << 32 | (uint32_t)wake_fd};
    int err;
    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (e->epoll_fd < 0) {
        err = -errno;
        goto fail;
    }
    if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, wake_fd, &event) < 0) {
        err = -errno;
        goto fail;
    }
    *out = (struct np_backend *)e;
    return 0;
fail:
    epoll_close((struct np_backend *)e);
    return err;
}

static void epoll_close(struct np_backend *be)
{
    struct np_epoll *e = self(be);
    if (e->epoll_fd >= 0)
        close(e->epoll_fd);
    np_bufring_close(&e->head.bufs);
    free(e->starved);
    np_op_slab_close(&e->head.slab, e->head.is_abandoned);
    free(e->fds);
    free(e);
}

static int epoll_enable(struct np_backend *be)
{
    return self(be)->head.is_abandoned ? -EPERM : 0; /* an epoll set belongs to no thread */
}

/* ---- registration -------------------------------------------------------------------------- */

static int fd_table_grow(struct np_epoll *e, int fd)
{
    uint32_t count = e->fds_count ? e->fds_count : 64;
    /* The table is as large as the largest number: one that is no descriptor makes none. */
    if (fd < 0 || fcntl(fd, F_GETFD) < 0)
        return -EBADF;
    while (count <= (uint32_t)fd)
        count *= 2;
    struct np_epoll_fd *fds = realloc(e->fds, sizeof(*fds) * count);
    if (!fds)
        return -ENOMEM;
    memset(fds + e->fds_count, 0, sizeof(*fds) * (count - e->fds_count));
    e->fds = fds;
    e->fds_count = count;
    return 0;
}

static bool takes_mask(const struct np_op *op)
{
    return op->kind == NP_OP_POLL || op->kind == NP_OP_TRANSMIT;
}

static uint32_t op_mask(const struct np_op *op)
{
    return takes_mask(op) ? op->poll_mask & NP_POLL_BITS : (uint32_t)EPOLLIN;
}

/* Tells the kernel that `mask` is wanted of fd. 0 or -errno. */
static int fd_control(struct np_epoll *e, int fd, uint32_t mask, bool oneshot)
{
    struct np_epoll_fd *entry = &e->fds[fd];
    struct epoll_event event = {.events = mask | (oneshot ? EPOLLONESHOT : 0)};
    int verb = entry->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    for (int attempt = 0; attempt < 2; attempt++) {
        if (verb == EPOLL_CTL_ADD) {
            e->seq = e->seq + 1 == NP_EPOLL_WAKE_SEQ ? 0 : e->seq + 1;
            entry->seq = e->seq;
        }
        event.data.u64 = (uint64_t)entry->seq << 32 | (uint32_t)fd;
        e->head.counts.submissions++;
        if (epoll_ctl(e->epoll_fd, verb, fd, &event) == 0) {
            entry->added = true;
            entry->mask = mask;
            entry->oneshot = oneshot;
            return 0;
        }
        if (errno == ENOENT && verb == EPOLL_CTL_MOD)
            verb = EPOLL_CTL_ADD; /* closed behind our back; the number is another file's now */
        else if (errno == EEXIST && verb == EPOLL_CTL_ADD)
            verb = EPOLL_CTL_MOD;
        else
            break;
    }
    int err = -errno;
    entry->added = false;
    entry->mask = 0;
    return err;
}

static bool op_lasts(const struct np_op *op)
{
    return op->kind == NP_OP_RECV || op->kind == NP_OP_ACCEPT || (op->poll_mask & NP_POLL_KEEP);
}

/* What the operations of fd want, and whether one that lasts is among them. */
static uint32_t fd_wanted(struct np_epoll *e, int fd, bool *lasting)
{
    uint32_t mask = 0;
    *lasting = false;
    for (uint32_t i = e->fds[fd].ops; i;) {
        struct np_op *op = np_op_at(&e->head.slab, i - 1);
        mask |= op_mask(op);
        *lasting |= op_lasts(op);
        i = op->next;
    }
    return mask;
}

static bool is_watched(const struct np_op *op)
{
    return !takes_mask(op) || !(op->poll_mask & NP_POLL_ASIDE);
}

static void fd_link(struct np_epoll *e, struct np_op *op)
{
    struct np_epoll_fd *entry = &e->fds[op->fd];
    op->next = entry->ops;
    entry->ops = op->slot + 1;
    e->watched_count += is_watched(op);
}

static void fd_unlink(struct np_epoll *e, struct np_op *op)
{
    uint32_t *link = &e->fds[op->fd].ops;
    while (*link != op->slot + 1) {
        NP_ASSERT(*link != 0);
        link = &np_op_at(&e->head.slab, *link - 1)->next;
    }
    *link = op->next;
    op->next = 0;
    e->watched_count -= is_watched(op);
}

/* Readiness that no operation wants: withdraw the interest, so that it does not fire for ever. */
static void fd_silence(struct np_epoll *e, int fd)
{
    struct np_epoll_fd *entry = &e->fds[fd];
    bool lasting;
    uint32_t wanted = fd_wanted(e, fd, &lasting);
    if (wanted && wanted != entry->mask) {
        fd_control(e, fd, wanted, !lasting);
    } else if (!wanted && entry->added && !entry->oneshot) {
        e->head.counts.submissions++;
        epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        entry->added = false;
        entry->mask = 0;
    }
}

static int epoll_arm(struct np_backend *be, struct np_op *op)
{
    struct np_epoll *e = self(be);
    int err = 0;
    if (e->head.is_abandoned)
        err = -EPERM;
    else if (op->fd < 0)
        err = -EBADF;
    else if ((uint32_t)op->fd >= e->fds_count)
        err = fd_table_grow(e, op->fd);
    if (err == 0 && op->kind == NP_OP_RECV && !e->head.bufs.count)
        err = np_bufring_open(&e->head.bufs, e->buf_count, e->buf_bytes);
    if (err < 0)
        goto fail;
    fd_link(e, op);
    struct np_epoll_fd *entry = &e->fds[op->fd];
    entry->passed = false;
    bool lasting;
    uint32_t wanted = fd_wanted(e, op->fd, &lasting);
    /* A one-shot registration is always renewed: see the top of this file. */
    if (!lasting || entry->oneshot || (wanted & ~entry->mask)) {
        err = fd_control(e, op->fd, lasting ? wanted | entry->mask : wanted, !lasting);
        if (err < 0) {
            fd_unlink(e, op);
            goto fail;
        }
    }
    np_op_mark_kernel(op);
    return 0;
fail:
    np_op_free(&e->head.slab, op);
    return err;
}

/* The plain call, whatever was asked for: bytes taken, or -errno. */
static inline int32_t send_now(struct np_epoll *e, int fd, const struct iovec *iov, int iov_count)
{
    ssize_t n;
    if (iov_count == 1) {
        n = send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else {
        struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)iov_count};
        n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    e->head.counts.submissions++;
    if (n > 0)
        e->head.counts.send_bytes += (uint64_t)n;
    return n < 0 ? -errno : (int32_t)n;
}

/* A socket that is full is waited for, if that is asked for: when it has room the caller sends
 * again. */
static __attribute__((noinline)) int transmit(struct np_epoll *e, int fd, void *owner,
                                              const struct iovec *iov, int iov_count, int flags,
                                              int32_t *res, np_udata *out)
{
    *res = send_now(e, fd, iov, iov_count);
    if (*res == -EAGAIN && (flags & NP_SEND_WAIT)) {
        struct np_op *op = np_op_alloc(&e->head.slab, NP_OP_TRANSMIT, fd, owner);
        if (!op)
            return -ENOMEM;
        op->poll_mask = POLLOUT | NP_POLL_KEEP;
        *out = np_op_udata(op);
        *res = epoll_arm((struct np_backend *)e, op);
        return *res == 0 ? 0 : 1;
    }
    e->head.counts.completions++;
    if (*res > 0)
        e->head.counts.copied_bytes += (uint32_t)*res;
    return 1;
}

static int epoll_send(struct np_backend *be, int fd, void *owner, const struct iovec *iov,
                      int iov_count, int flags, int32_t *res, np_udata *out)
{
    struct np_epoll *e = self(be);
    if (e->head.is_abandoned) {
        *res = -EPERM;
        return 1;
    }
    if (NP_UNLIKELY(flags & NP_SEND_TRANSMITS))
        return transmit(e, fd, owner, iov, iov_count, flags, res, out);
    *res = send_now(e, fd, iov, iov_count);
    e->head.counts.completions++;
    return 1;
}

static int epoll_attach(struct np_backend *be, void *base, size_t size_bytes, int how)
{
    (void)be, (void)base, (void)size_bytes;
    return how == NP_ATTACH_ON ? -EOPNOTSUPP : -ENOENT; /* nothing to register memory with */
}

static int epoll_cancel(struct np_backend *be, np_udata target, int flags)
{
    struct np_epoll *e = self(be);
    (void)flags; /* to settle: an epoll set holds no file open */
    if (e->head.is_abandoned)
        return -EPERM;
    struct np_op *op = np_op_find(&e->head.slab, target);
    if (!op)
        return -ENOENT;
    if (op->state == NP_ORPHAN)
        return 0;
    np_op_mark_orphan(op);
    fd_unlink(e, op);
    op->res = -ECANCELED;
    np_oplist_push(&e->done, &e->head.slab, op);
    return 0;
}

static int epoll_submit(struct np_backend *be, const void *sqes, uint32_t count,
                        void *const *owners, np_udata *ops)
{
    (void)be, (void)sqes, (void)count, (void)owners, (void)ops;
    return -EOPNOTSUPP; /* there is no ring to put them in */
}

static void epoll_forget(struct np_backend *be, int fd)
{
    struct np_epoll *e = self(be);
    if (e->head.is_abandoned || fd < 0 || (uint32_t)fd >= e->fds_count)
        return;
    struct np_epoll_fd *entry = &e->fds[fd];
    while (entry->ops) { /* a watcher of the user's on an fd of ours: it ends here */
        struct np_op *op = np_op_at(&e->head.slab, entry->ops - 1);
        np_op_mark_orphan(op);
        op->res = -ECANCELED;
        fd_unlink(e, op);
        np_oplist_push(&e->done, &e->head.slab, op);
    }
    if (entry->added) {
        e->head.counts.submissions++;
        epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    }
    memset(entry, 0, sizeof(*entry)); /* the next registration has another seq */
}

/* ---- completion ---------------------------------------------------------------------------- */

static int finish(struct np_epoll *e, struct np_op *op, int res, struct np_event *event)
{
    fd_unlink(e, op);
    np_op_emit(event, op, res, 0);
    np_op_free(&e->head.slab, op);
    return 1;
}

/* One receive into a buffer with room for recv_max_bytes. Returns events made: 0 (nothing there
 * after all) or 1. */
static int do_recv(struct np_epoll *e, struct np_op *op, int bid, uint32_t room_bytes,
                   struct np_event *event)
{
    uint8_t *at = np_bufring_at(&e->head.bufs, (uint16_t)bid);
    ssize_t n = recv(op->fd, at, e->recv_max_bytes, MSG_DONTWAIT);
    if (n > 0) {
        uint32_t used_bytes = ((uint32_t)n + 63) & ~63u; /* the next one: its own cache line */
        if (used_bytes > room_bytes)
            used_bytes = room_bytes;
        np_bufring_consume(&e->head.bufs, (uint16_t)bid, used_bytes,
                           room_bytes - used_bytes >= e->recv_max_bytes);
        e->head.counts.recv_bytes += (uint64_t)n;
        np_op_emit_bytes(event, op, at, np_bufring_buf(&e->head.bufs, (uint16_t)bid), (int)n,
                         NP_EV_MORE);
        return 1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return finish(e, op, n < 0 ? -errno : 0, event);
}

static int do_accept(struct np_epoll *e, struct np_op *op, struct np_event *events, int max)
{
    int n = 0;
    if (max > NP_EPOLL_ACCEPT_MAX_PER_TURN)
        max = NP_EPOLL_ACCEPT_MAX_PER_TURN;
    while (n < max) {
        int fd = np_sock_accept(op->fd, NULL);
        if (fd >= 0) {
            np_op_emit(&events[n++], op, fd, NP_EV_MORE);
            continue;
        }
        if (fd == -EAGAIN || fd == -EINTR)
            break;
        return n + finish(e, op, fd, &events[n]);
    }
    return n;
}

/* Somebody holds every buffer: the fd is not asked for until one is back. */
static int starve(struct np_epoll *e, int fd)
{
    struct np_epoll_fd *entry = &e->fds[fd];
    if (e->starved_count == e->starved_cap) {
        uint32_t cap = e->starved_cap ? e->starved_cap * 2 : 16;
        int *starved = realloc(e->starved, sizeof(*starved) * cap);
        if (!starved)
            return -ENOMEM;
        e->starved = starved;
        e->starved_cap = cap;
    }
    e->starved[e->starved_count++] = fd;
    e->head.counts.submissions++;
    epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    entry->added = false;
    entry->mask = 0;
    return 0;
}

static void feed_starved(struct np_epoll *e)
{
    for (uint32_t i = 0; i < e->starved_count; i++)
        fd_silence(e, e->starved[i]); /* asks again for what its operations want */
    e->starved_count = 0;
}

/* Serves one ready fd. Returns the number of events, or -ENOBUFS: no buffer left, come again. */
static int serve(struct np_epoll *e, const struct epoll_event *ready, struct np_event *events,
                 int max)
{
    int fd = (int)(uint32_t)ready->data.u64;
    if ((uint32_t)fd >= e->fds_count || e->fds[fd].seq != (uint32_t)(ready->data.u64 >> 32)) {
        e->head.counts.stale++;
        return 0;
    }
    struct np_epoll_fd *entry = &e->fds[fd];
    uint32_t unwanted = ready->events;
    int n = 0;
    if (entry->oneshot)
        entry->mask = 0;
    for (uint32_t i = entry->ops; i && n < max;) {
        struct np_op *op = np_op_at(&e->head.slab, i - 1);
        i = op->next; /* read before the operation may be freed */
        uint32_t bits = ready->events & (op_mask(op) | EPOLLERR | EPOLLHUP);
        if (!bits)
            continue;
        unwanted &= ~bits;
        if (op->kind == NP_OP_RECV) {
            uint32_t room_bytes;
            int bid = np_bufring_peek(&e->head.bufs, e->recv_max_bytes, &room_bytes);
            if (bid < 0) {
                e->head.counts.enobufs++;
                if (!e->has_buffers && starve(e, fd) == 0)
                    return n;
                return n ? n : -ENOBUFS;
            }
            n += do_recv(e, op, bid, room_bytes, &events[n]);
        } else if (op->kind == NP_OP_ACCEPT) {
            n += do_accept(e, op, &events[n], max - n);
        } else {
            n += finish(e, op, op->kind == NP_OP_POLL ? (int)bits : 0, &events[n]);
        }
    }
    /* A reader that was woken in this turn reads in the next, and arms again: between the two only
     * a wait that does not wait meets its readiness, and withdrawing the interest would cost two
     * system calls for nothing. A second time it is withdrawn. */
    if (unwanted && !entry->oneshot && e->has_polled && !entry->passed)
        entry->passed = true;
    else if (unwanted && !entry->oneshot)
        fd_silence(e, fd);
    else if (entry->oneshot && entry->ops)
        fd_silence(e, fd); /* it fired for one POLL; another still waits */
    return n;
}

/* ---- the turn ------------------------------------------------------------------------------ */

static int wait_ready(struct np_epoll *e, int64_t timeout_ns)
{
    e->head.counts.enters++;
    e->batch_next = e->batch_count = 0;
    e->has_polled = timeout_ns == 0;
    int n;
    if (timeout_ns > 0 && (e->head.features & NP_FEATURE_PWAIT2)) {
        struct timespec ts = {.tv_sec = timeout_ns / 1000000000,
                              .tv_nsec = timeout_ns % 1000000000};
        /* The system call itself: a C library older than 2.35 has no function for it. */
        n = (int)syscall(SYS_epoll_pwait2, e->epoll_fd, e->batch, NP_EPOLL_BATCH_COUNT, &ts, NULL,
                         0);
        if (n >= 0 || !np_is_refused(errno))
            goto out;
        e->head.features &= ~(uint32_t)NP_FEATURE_PWAIT2;
    }
    int timeout_ms = -1;
    if (timeout_ns >= 0) { /* rounded up: a timer must not be found early, again and again */
        int64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
        timeout_ms = ms > 86400000 ? 86400000 : (int)ms;
    }
    n = epoll_wait(e->epoll_fd, e->batch, NP_EPOLL_BATCH_COUNT, timeout_ms);
out:
    if (n < 0)
        return -errno;
    e->batch_count = n;
    e->waited_ns = np_clock_ns();
    return n;
}

static int epoll_turn(struct np_backend *be, struct np_event *events, int max, int64_t timeout_ns)
{
    struct np_epoll *e = self(be);
    if (e->head.is_abandoned)
        return -EPERM;
    np_bufring_recycle(&e->head.bufs);
    np_bufring_rewind(&e->head.bufs);
    e->has_buffers = np_bufring_has_room(&e->head.bufs);
    if (e->has_buffers && e->starved_count)
        feed_starved(e);
    int n = np_oplist_take(&e->done, &e->head.slab, events, max);
    if (e->batch_next == e->batch_count) {
        int err = wait_ready(e, n > 0 ? 0 : timeout_ns);
        if (err < 0)
            return n > 0 ? n : err;
    }
    while (n < max && e->batch_next < e->batch_count) {
        const struct epoll_event *ready = &e->batch[e->batch_next];
        if (ready->data.u64 >> 32 == NP_EPOLL_WAKE_SEQ) {
            np_inbox_drain_wake(e->wake_fd);
        } else {
            int served = serve(e, ready, events + n, max - n);
            if (served < 0)
                break; /* the rest of the batch, when buffers are free again */
            n += served;
            e->head.counts.completions += (uint64_t)served;
        }
        e->batch_next++;
    }
    return n;
}

static int epoll_flush(struct np_backend *be)
{
    (void)be;
    return 0; /* nothing is ever queued: sends are done by send, the rest by epoll_ctl */
}

/* Only the system call can tell, and what a callback has made ready must be seen in the next turn:
 * programs know that order. While nothing is watched that a callback could make ready, the call is
 * made at most every NP_EPOLL_POLL_SKIP_NS, so that a chain of callbacks does not pay for it at
 * each link. */
static int epoll_has_work(struct np_backend *be)
{
    struct np_epoll *e = self(be);
    return e->done.count || e->batch_next < e->batch_count || e->watched_count ||
           np_clock_ns() - e->waited_ns >= NP_EPOLL_POLL_SKIP_NS;
}

const struct np_backend_ops np_epoll_ops = {
    .name = "epoll",
    .open = epoll_open,
    .close = epoll_close,
    .enable = epoll_enable,
    .arm = epoll_arm,
    .send = epoll_send,
    .submit = epoll_submit,
    .cancel = epoll_cancel,
    .forget = epoll_forget,
    .attach = epoll_attach,
    .turn = epoll_turn,
    .flush = epoll_flush,
    .has_work = epoll_has_work,
};
