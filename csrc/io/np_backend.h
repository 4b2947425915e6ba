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
 * Verbs     What the two backends do differently is a verb of the table. What they do alike is a
 *           field of np_backend_head, which everybody reads, or a function of this file on it:
 *           the counts, the receive buffers, np_backend_abandon.
 * Ownership See np_event.h and np_op.h. An armed operation ends with exactly one event without
 *           NP_EV_MORE. cancel is a request: that last event still comes (-ECANCELED, or whatever
 *           won the race). The caller closes an fd only when none of its operations is left, and
 *           says so first with `forget`.
 * Errors    -errno or a count >= 0.
 * Threads   open, close and abandon: any one thread. All others: the loop's thread, which is the
 *           one that called `enable` last. attach also before the first `enable`.
 * Fork      A child abandons the backend first: from then on every verb but close does nothing,
 *           says -EPERM where it can, and the parent's ring and epoll set are left alone.
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

/* How `send` sends; 0: queued, without waiting, and its end is reported. */
enum np_send_flags {
    /* A socket that is full is waited for. Without it the result is -EAGAIN. */
    NP_SEND_WAIT = 1,
    /* With WAIT, where the kernel does it (io_uring): no result before everything is taken. */
    NP_SEND_ALL = 2,
    /* Zero-copy is wanted: np_zc.h decides when. Out of registered memory (attach) when all pieces
     * lie in one region, else the kernel pins the pages for this send. */
    NP_SEND_ZC = 4,
    /* With ZC: the connection awaits no other notice. Since Linux 6.10 sends that meet in a packet
     * share their bookkeeping, and all but the first of them are reported as copied whether they
     * were or not: only of a send that was alone is that answer sure. */
    NP_SEND_ALONE = 8,
    /* Alone, with none of the others: nobody waits to hear of success. The event comes with any
     * later turn, and a turn may sleep meanwhile. Failure, and what was taken of a part, are
     * reported as without it. */
    NP_SEND_QUIET = 16,
};

/* Sends with one of these are TRANSMITs. */
#define NP_SEND_TRANSMITS (NP_SEND_WAIT | NP_SEND_ZC)

enum np_cancel_flags {
    /* Not back before the kernel has let go of the operation's file, so that closing the fd really
     * closes it (a listening socket). The last event still comes with a turn. */
    NP_CANCEL_SETTLE = 1,
};

enum np_attach { NP_ATTACH_OFF, NP_ATTACH_ON };

/* Since the backend was opened, unless said otherwise. */
struct np_counts {
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
};

struct np_backend; /* each backend's own; begins with struct np_backend_head */

struct np_backend_ops {
    const char *name;

    /* ---- from birth to death ---- */

    /* Makes a backend that watches wake_fd (an eventfd) and ends a wait when it is readable.
     * 0, or -errno and nothing is left: what the kernel refuses, -ENOMEM. */
    int (*open)(struct np_backend **out, const struct np_config *config, int wake_fd);
    /* Frees everything. No operation may be left, unless the backend is abandoned. */
    void (*close)(struct np_backend *be);
    /* Makes the calling thread the loop's: to be called by the thread that is going to run the
     * loop, each time it starts to. From another thread than before it moves the operations in
     * flight to a new ring (an io_uring belongs to the thread that enabled it), all but SQE and
     * TRANSMIT: -EBUSY while the kernel holds one of those. 0 or -errno; -EPERM: abandoned. */
    int (*enable)(struct np_backend *be);

    /* ---- beginning and ending operations ---- */

    /* Hands a new operation over: *op was made by np_op_alloc and filled in. 0, or -errno: then
     * the slot is already free again and no event comes. */
    int (*arm)(struct np_backend *be, struct np_op *op);
    /* Sends immutable memory; flags: enum np_send_flags. Returns 1 when that is done already: *res
     * holds the bytes taken or -errno (-EAGAIN: the socket is full; use POLL), and no event comes.
     * Returns 0 when it is under way: *op names it, and events follow. -ENOMEM: no slot is left.
     * The memory (not the iovec array, which is copied) must stay until the last event.
     *
     * Without WAIT and ZC: one NP_OP_SEND event, which says what *res says.
     * With one of them: one or two NP_OP_TRANSMIT events,
     *   the result   res: bytes taken, perhaps fewer than given, perhaps 0 ("there is room now":
     *                what is left is to be sent again, as after any partial send); or -errno.
     *                With NP_EV_MORE the kernel still reads the memory. With NP_EV_NO_ZC the
     *                kernel has refused zero-copy: send again without it.
     *   the notice   only after NP_EV_MORE; has NP_EV_NOTIF, res is what the result was (0 after an
     *                error), NP_EV_COPIED when the bytes were copied (NP_EV_UNSURE: or when
     *                nobody can tell). It may take as long as the
     *                peer takes to acknowledge. The operation holds no file any more: the fd may
     *                be closed before; a cancel has no effect; an abortive close (SO_LINGER 0)
     *                brings it about. */
    int (*send)(struct np_backend *be, int fd, void *owner, const struct iovec *iov, int iov_count,
                int flags, int32_t *res, np_udata *op);
    /* Hands over `count` submission entries (struct io_uring_sqe, NP_SQE_BYTES each) as the caller
     * filled them in, in one piece, so that they may be a chain (IOSQE_IO_LINK); owners[i] and
     * ops[i] are those of entry i. user_data is overwritten. All of them or none: 0, or -errno and
     * no event comes: -EOPNOTSUPP (epoll), -EINVAL (an entry without completion, a draining one, an
     * open chain, or one that touches the loop's own buffer group), -E2BIG (no queue is that long),
     * -ENOMEM, -EPERM (abandoned).
     * Events are NP_OP_SQE with the completion's res and cqe_flags; NP_EV_MORE as the kernel says.
     * The entries are copied; what they point to, and the fd, belong to the kernel until the last
     * event. They never start twice, so `enable` from another thread refuses to move a ring that
     * holds one: -EBUSY. To cancel one of several before they are submitted cancels them all; the
     * kernel finds a link only when its turn has come, so who wants the end of a chain cancels all
     * of it, and what is left of it again with each event. */
    int (*submit)(struct np_backend *be, const void *sqes, uint32_t count, void *const *owners,
                  np_udata *ops);
    /* Asks for the end of an operation; flags: enum np_cancel_flags. 0; -ENOENT when `op` is not in
     * flight any more; another -errno when the kernel could not be asked. */
    int (*cancel)(struct np_backend *be, np_udata op, int flags);
    /* This fd, one of the loop's own, is about to be closed. */
    void (*forget)(struct np_backend *be, int fd);
    /* Registers memory for zero-copy sends (io_uring_register_buffers(3)): pages are looked up and
     * pinned once instead of at every send. It moves with the loop. `how`: enum np_attach.
     *   ON   0; or -errno with nothing changed, and then the memory is just not registered:
     *        -EOPNOTSUPP (epoll, features_off), -ENOSPC (NP_REGIONS_MAX_COUNT), -ENOMEM
     *        (RLIMIT_MEMLOCK), -EEXIST (another thread's ring).
     *   OFF  of the same memory again. The kernel lets go of it when the last send out of it has
     *        ended; the pages live until then, whoever unmaps them. 0, -ENOENT or -EEXIST. */
    int (*attach)(struct np_backend *be, void *base, size_t size_bytes, int how);

    /* ---- the turn ---- */

    /* Submits what was armed, waits up to timeout_ns (-1 = without end, 0 = not at all) for at
     * least one completion or a wake-up, writes at most `max` events. Memory of the last turn's
     * events goes back first. Returns the number of events; -EINTR when a signal ended the wait
     * (or 0, when the wait had a time-out and the same call submitted something). */
    int (*turn)(struct np_backend *be, struct np_event *events, int max, int64_t timeout_ns);
    /* Submits what was armed without waiting for anything: 0 or -errno. */
    int (*flush)(struct np_backend *be);
    /* 1 when a turn with time-out 0 could find something or has something to submit; 0 when it
     * would be a wasted system call. Never makes one itself. */
    int (*has_work)(struct np_backend *be);
};

struct np_region { /* a piece of registered memory */
    const uint8_t *base;
    size_t size_bytes;    /* 0: not registered */
    uint8_t is_releasing; /* detached, and the kernel has not let go yet */
};

struct np_backend_head { /* what everybody may read */
    const struct np_backend_ops *ops;
    struct np_op_slab slab; /* new operations come from here: see arm */
    struct np_counts counts;
    struct np_bufring bufs; /* receive buffers, opened with the first RECV */
    uint32_t features;      /* NP_FEATURE_* in use */
    uint8_t is_abandoned;   /* see np_backend_abandon */
    uint32_t regions_used;  /* of regions: those from here on were never taken */
    struct np_region regions[NP_REGIONS_MAX_COUNT];
};

extern const struct np_backend_ops np_uring_ops;
extern const struct np_backend_ops np_epoll_ops;

static inline struct np_backend_head *np_head(struct np_backend *be)
{
    return (struct np_backend_head *)be;
}

/* Gives the backend up with whatever is in flight: in a forked child, whose parent goes on with the
 * same ring or epoll set, or where the thread that it belongs to has gone. From here on only close
 * does anything. */
static inline void np_backend_abandon(struct np_backend *be)
{
    np_head(be)->is_abandoned = 1;
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

/* All numbers at one moment, for who reports them. Code on the path of a packet reads the field. */
struct np_stats {
    struct np_counts counts;
    uint32_t ops_live, regions_count; /* regions: registered pieces of memory */
    uint32_t bufs_total, bufs_free;
    uint32_t features;   /* NP_FEATURE_* in use */
    uint32_t arena_kind; /* enum np_arena_kind */
};

static inline struct np_stats np_backend_stats(const struct np_backend_head *head)
{
    return (struct np_stats){
        .counts = head->counts,
        .ops_live = head->slab.live_count,
        .regions_count = np_regions_live(head),
        .bufs_total = head->bufs.count,
        .bufs_free = np_bufring_free_count(&head->bufs),
        .features = head->features,
        .arena_kind = head->bufs.mem ? head->bufs.mem->arena.kind : 0,
    };
}

#endif
