/* np_backend.h - the table of verbs that io_uring and epoll both speak. Chosen once, at loop birth.
 *
 * Purpose   The loop above does not know which kernel interface it runs on: it arms operations,
 *           takes batches of completions, cancels. No `if uring` anywhere above this line.
 * Model     Completions. epoll's readiness is turned into the same events by doing the call.
 *             RECV    multishot, into the backend's memory; for small messages.
 *             ACCEPT  every connection, until cancelled.
 *             POLL    one shot; bulk data and user-visible buffers are then read by direct calls,
 *                     so the kernel never holds memory that Python can see or a task can drop.
 *             SQE     anything else that io_uring can do (io_uring only).
 *             SEND    one shot of immutable memory; never waits (MSG_DONTWAIT), so the kernel holds
 *                     the memory only between submission and the same turn's harvest.
 *             TRANSMIT one shot of immutable memory; may wait and may be zero-copy, so the kernel
 *                     can hold the memory for long: until the last event.
 * Ownership See np_event.h and np_op.h. An armed operation ends with exactly one event without
 *           NP_EV_MORE. cancel is a request: that last event still comes (-ECANCELED, or whatever
 *           won the race). The caller closes an fd only when none of its operations is left, and
 *           says so first with `forget`.
 * Errors    -errno or a count >= 0.
 * Threads   open and close: any one thread. enable, arm, cancel, turn, flush: the loop's thread.
 *           An io_uring belongs to the thread that enabled it; `enable` from another thread moves
 *           the operations in flight to a new ring, all but SQE and TRANSMIT: -EBUSY while the
 *           kernel holds one of those.
 * Fork      In a child call `forked` first: from then on only close does anything, and it leaves
 *           the parent's ring and epoll set alone.
 */
#ifndef NP_BACKEND_H
#define NP_BACKEND_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "mem/np_arena.h"
#include "mem/np_bufring.h"
#include "io/np_event.h"
#include "io/np_op.h"

#define NP_SQE_BYTES 64 /* one submission entry */

struct np_config {
    uint32_t sq_entries; /* 0 = default, as for all of these */
    uint32_t cq_entries;
    uint32_t buf_count;    /* receive buffers (io_uring), a power of two */
    uint32_t buf_bytes;    /* each; epoll: the scratch in all */
    uint32_t features_off; /* NP_FEATURE_* bits not to use even where the kernel has them */
    /* io_uring: 0, or how long a kernel thread that looks for submissions by itself stays awake
     * without any. A turn then submits without a system call, and sends end in a later turn. */
    uint32_t sqpoll_idle_ms;
    uint32_t iov_count; /* slots of the ring of iovecs (io_uring), a power of two */
};

enum np_feature {
    NP_FEATURE_DEFER_TASKRUN = 1 << 0,
    NP_FEATURE_BUF_RING = 1 << 1,
    NP_FEATURE_BUF_INC = 1 << 2,      /* incrementally consumed buffers, Linux 6.12 */
    NP_FEATURE_RECV_MULTI = 1 << 3,   /* Linux 6.0 */
    NP_FEATURE_ACCEPT_MULTI = 1 << 4, /* several a turn: epoll */
    NP_FEATURE_PWAIT2 = 1 << 5,       /* epoll_pwait2: nanosecond time-outs, Linux 5.11 */
    NP_FEATURE_SEND_ZC = 1 << 6,      /* zero-copy sends of one piece, Linux 6.0 */
    NP_FEATURE_SENDMSG_ZC = 1 << 7,   /* of several pieces, 6.1 */
    NP_FEATURE_ZC_FIXED = 1 << 8,     /* zero-copy out of registered memory, 6.0 */
    NP_FEATURE_ZC_FIXED_VEC = 1 << 9, /* several pieces of registered memory, 6.15 */
    NP_FEATURE_SQPOLL = 1 << 10,      /* in use when np_config has a sqpoll_idle_ms */
    NP_FEATURE_NO_IOWAIT = 1 << 11,   /* an idle loop is idle time, not I/O wait, 6.15 */
};

/* How `transmit` sends. */
enum np_send_flags {
    /* A socket that is full is waited for. Without it the result is -EAGAIN, as with `send`. */
    NP_SEND_WAIT = 1,
    /* With WAIT, where the kernel does it (io_uring): no result before everything is taken. */
    NP_SEND_ALL = 2,
    /* Zero-copy is wanted: np_zc.h decides when. Out of registered memory (attach) when all pieces
     * lie in one region, else the kernel pins the pages for this send. */
    NP_SEND_ZC = 4,
    /* With ZC: the connection awaits no other notice. Since Linux 6.10 sends that meet in a packet
     * share their bookkeeping, and all but the first of them are reported as copied whether they
     * were or not: only of a send that was alone is that answer sure. */
    NP_SEND_ALONE = 16,
    /* More follows at once (MSG_MORE): TCP need not send a last, short segment yet. */
    NP_SEND_MORE = 8,
};

/* all counts since the backend was opened, unless said otherwise */
struct np_stats {
    uint64_t enters;                 /* system calls that wait or submit */
    uint64_t submissions;            /* operations handed to the kernel */
    uint64_t completions;            /* harvested, stale ones included */
    uint64_t recv_bytes, send_bytes; /* through RECV and SEND operations */
    uint64_t enobufs;                /* times a RECV ran out of buffers and was armed again */
    uint64_t stale;                  /* completions dropped: generation passed */
    uint64_t sq_full;                /* early submissions because the queue was full */
    uint64_t moves;                  /* times the ring moved to another thread */
    uint64_t zc_bytes;               /* of TRANSMITs: what the kernel reported as not copied */
    uint64_t copied_bytes;           /* of TRANSMITs: what it copied, asked for zero-copy or not */
    uint64_t unsure_bytes;           /* of TRANSMITs: reported as copied, with NP_EV_UNSURE */
    uint64_t zc_refused;             /* zero-copy sends that ended with NP_EV_NO_ZC */
    uint32_t notifs_pending; /* now: TRANSMITs whose result is known and whose memory is held */
    uint32_t regions_count;  /* now: registered pieces of memory */
    uint32_t ops_live;       /* now */
    uint32_t bufs_total, bufs_free; /* now */
    uint32_t features;              /* NP_FEATURE_* in use */
    uint32_t arena_kind;            /* enum np_arena_kind */
};

struct np_backend; /* each backend's own; begins with struct np_backend_head */

struct np_backend_ops {
    const char *name;
    /* Makes a backend that watches wake_fd (an eventfd) and ends a wait when it is readable. */
    int (*open)(struct np_backend **out, const struct np_config *config, int wake_fd);
    void (*close)(struct np_backend *be);
    /* To be called by the thread that is going to run the loop, each time it starts to. */
    int (*enable)(struct np_backend *be);
    void (*forked)(struct np_backend *be);
    /* Hands a new operation over: *op was made by np_op_alloc and filled in. 0, or -errno: then
     * the slot is already free again and no event comes. */
    int (*arm)(struct np_backend *be, struct np_op *op);
    /* Sends immutable memory without waiting. Returns 1 when that is done already: *res holds the
     * bytes taken or -errno (-EAGAIN: the socket is full; use POLL). Returns 0 when it is queued:
     * *op names it, a NP_OP_SEND event follows, and the memory (not the iovec array, which is
     * copied) must stay until then. -ENOMEM when no slot is to be had. */
    int (*send)(struct np_backend *be, int fd, void *owner, const struct iovec *iov, int iov_count,
                int32_t *res, np_udata *op);
    /* send, for when nobody waits to hear of success: its event comes with any later turn, and a
     * turn may sleep meanwhile. Failure, and what was taken of a part, are reported as by send. */
    int (*send_quick)(struct np_backend *be, int fd, void *owner, const struct iovec *iov,
                      int iov_count, int32_t *res, np_udata *op);
    /* The receive buffer that an event's data is in, for np_buf_hold before the next turn. NULL
     * when `data` is no such memory. */
    struct np_buf *(*buffer)(struct np_backend *be, const uint8_t *data);
    /* Sends immutable memory, see enum np_send_flags. Returns 0 when it is under way: *op names it
     * and one or two NP_OP_TRANSMIT events follow. The memory (not the iovec array, which is
     * copied) must stay until the last one.
     *   the result   res: bytes taken, perhaps fewer than given, perhaps 0 ("there is room now":
     *                what is left is to be sent again, as after any partial send); or -errno.
     *                With NP_EV_MORE the kernel still reads the memory. With NP_EV_NO_ZC
     *                zero-copy is not to be had here: send again without it.
     *   the notice   only after NP_EV_MORE; has NP_EV_NOTIF, res is what the result was (0 after an
     *                error), NP_EV_COPIED when the bytes were copied (NP_EV_UNSURE: or when
     *                nobody can tell). It may take as long as the
     *                peer takes to acknowledge. The operation holds no file any more: the fd may
     *                be closed before; a cancel has no effect; an abortive close (SO_LINGER 0)
     *                brings it about.
     * Returns 1 when it is done already, as `send` does: *res, and no event. -ENOMEM: no slot. */
    int (*transmit)(struct np_backend *be, int fd, void *owner, const struct iovec *iov,
                    int iov_count, int flags, int32_t *res, np_udata *op);
    /* Registers memory for zero-copy sends (io_uring_register_buffers(3)): pages are looked up and
     * pinned once instead of at every send. In the loop's thread, or before the first `enable`;
     * moves with the loop. 0; or -errno with nothing changed, and then the memory is just not
     * registered: -EOPNOTSUPP (epoll, features_off), -ENOSPC (NP_REGIONS_MAX_COUNT), -ENOMEM
     * (RLIMIT_MEMLOCK), -EEXIST (another thread's ring). */
    int (*attach)(struct np_backend *be, void *base, size_t size_bytes);
    /* The same memory again. The kernel lets go of it when the last send out of it has ended; the
     * pages live until then, whoever unmaps them. 0 or -ENOENT. */
    int (*detach)(struct np_backend *be, void *base, size_t size_bytes);
    /* 0, or -ENOENT when `op` is not in flight any more. */
    int (*cancel)(struct np_backend *be, np_udata op);
    /* Hands over `count` submission entries (struct io_uring_sqe, NP_SQE_BYTES each) as the caller
     * filled them in, in one piece, so that they may be a chain (IOSQE_IO_LINK); owners[i] and
     * ops[i] are those of entry i. user_data is overwritten. All of them or none: 0, or -errno and
     * no event comes: -EOPNOTSUPP (epoll), -EINVAL (an entry without completion, a draining one, an
     * open chain, or one that touches the loop's own buffer group), -E2BIG (no queue is that long),
     * -ENOMEM, -EPERM (forked).
     * Events are NP_OP_SQE with the completion's res and cqe_flags; NP_EV_MORE as the kernel says.
     * The entries are copied; what they point to, and the fd, belong to the kernel until the last
     * event. They never start twice, so `enable` from another thread refuses to move a ring that
     * holds one: -EBUSY. To cancel one of several before they are submitted cancels them all; the
     * kernel finds a link only when its turn has come, so who wants the end of a chain cancels all
     * of it, and what is left of it again with each event. */
    int (*submit)(struct np_backend *be, const void *sqes, uint32_t count, void *const *owners,
                  np_udata *ops);
    /* cancel, and not back before the kernel has let go of the operation's file, so that closing
     * the fd really closes it (a listening socket). The last event still comes with a turn. */
    int (*settle)(struct np_backend *be, np_udata op);
    /* This fd, one of the loop's own, is about to be closed. */
    void (*forget)(struct np_backend *be, int fd);
    /* Submits what was armed, waits up to timeout_ns (-1 = without end, 0 = not at all) for at
     * least one completion or a wake-up, writes at most `max` events. Memory of the last turn's
     * events goes back first. Returns the number of events; -EINTR when a signal ended the wait
     * (or 0, when the wait had a time-out and the same call submitted something). */
    int (*turn)(struct np_backend *be, struct np_event *events, int max, int64_t timeout_ns);
    /* Submits what was armed without waiting for anything. */
    int (*flush)(struct np_backend *be);
    /* 1 when a turn with time-out 0 could find something or has something to submit; 0 when it
     * would be a wasted system call. Never makes one itself. */
    int (*has_work)(struct np_backend *be);
    void (*stats)(struct np_backend *be, struct np_stats *out);
};

struct np_region { /* a piece of registered memory */
    const uint8_t *base;
    size_t size_bytes;    /* 0: not registered */
    uint8_t is_releasing; /* detached, and the kernel has not let go yet */
};

struct np_backend_head {
    const struct np_backend_ops *ops;
    struct np_op_slab slab;
    struct np_region regions[NP_REGIONS_MAX_COUNT];
    uint32_t regions_used; /* those from here on were never taken */
};

extern const struct np_backend_ops np_uring_ops;
extern const struct np_backend_ops np_epoll_ops;

static inline struct np_backend_head *np_head(struct np_backend *be)
{
    return (struct np_backend_head *)be;
}

/* The registered region that all pieces lie in, or -1. */
static inline int np_region_of(const struct np_backend_head *head, const struct iovec *iov,
                               int iov_count)
{
    for (uint32_t i = 0; i < head->regions_used; i++) {
        const struct np_region *region = &head->regions[i];
        int n = 0;
        while (n < iov_count) {
            size_t at_bytes = (uintptr_t)iov[n].iov_base - (uintptr_t)region->base;
            if (at_bytes >= region->size_bytes || iov[n].iov_len > region->size_bytes - at_bytes)
                break;
            n++;
        }
        if (n == iov_count)
            return (int)i;
    }
    return -1;
}

static inline uint32_t np_regions_live(const struct np_backend_head *head)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < head->regions_used; i++)
        n += head->regions[i].size_bytes != 0;
    return n;
}

#endif
