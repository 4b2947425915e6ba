/* np_uring.h - the inside of the io_uring backend, for the files that it is made of.
 *
 *   np_uring.c           the turn, the table of verbs
 *   np_uring_move.c      a loop that goes on in another thread
 *   np_uring_harvest.c   completions into events
 *   np_uring_submit.c    operations on their way to the kernel
 *   np_uring_sqe.c       submission entries that the caller filled in
 *   np_uring_zc.c        sends that wait or are zero-copy: their entries and completions
 *   np_uring_queue.c     places in the submission queue, and gather lists
 *   np_uring_sqpoll.c    what differs when a kernel thread reads the queue
 *   np_uring_regions.c   registered memory
 *   np_uring_setup.c     a ring, and its receive buffers
 *
 * A file calls those below it in this list, never one above.
 *
 * Nothing else includes this: the rest of the core knows np_backend.h. These files are the only
 * ones of the core that call liburing.
 */
#ifndef NP_URING_H
#define NP_URING_H

#include <liburing.h>
#include <stdbool.h>

#include "io/np_backend.h"
#include "mem/np_bufring.h"
#include "mem/np_iovring.h"
#include "io/np_oplist.h"

#define NP_URING_BUF_GROUP 0

struct np_uring {
    struct np_backend_head head;
    struct io_uring ring;
    struct np_config config;
    struct np_oplist unpushed;    /* QUEUED: no submission entry was free */
    struct np_oplist starved;     /* QUEUED: RECVs that found no buffer */
    struct np_oplist starved_fed; /* QUEUED: RECVs that ended too, but had received something */
    bool starved_cancelled;       /* one of those, perhaps, is not wanted any more */
    struct np_oplist done;        /* ended without the kernel: their event is still to be taken */
    struct np_iovring iovs;       /* gather lists that the kernel has still to read */
    struct msghdr *msgs;          /* one per submission entry */
    uint32_t *iov_ends;           /* per entry: what is before this may go when it was read */
    uint32_t iov_end;             /* of the newest entry */
    uint32_t sq_seen;             /* how far the kernel had read when we last looked */
    bool iovs_unordered;          /* after a move: entries are not in the order of drawing */
    bool regions_open;            /* the table of registered memory */
    np_udata *quiets;             /* sends that report only failure, in the order of submission */
    uint32_t quiets_count, quiets_cap;
    uint32_t quiets_submitted; /* so many of them the kernel has carried out */
    uint32_t quiets_left;      /* so many the last turn did not end */
    struct np_event *carried;  /* of the rings before a move to another thread */
    uint32_t carried_count, carried_taken;
    struct np_bufring *carried_bufs; /* what they point into: one per move */
    uint32_t carried_bufs_count;
    int wake_fd;
    pid_t owner_tid; /* 0 until enabled */
    bool ring_open, wake_armed;
    bool is_late; /* the caller did things after what is harvested now came about */
};

static inline struct np_uring *np_uring_self(struct np_backend *be)
{
    return (struct np_uring *)be;
}

static inline unsigned np_uring_flags(const struct np_uring *u)
{
    return IO_URING_READ_ONCE(*u->ring.sq.kflags);
}

static inline bool np_uring_is_starving(const struct np_uring *u)
{
    return u->starved.count || u->starved_fed.count;
}

static inline bool np_uring_is_polled(const struct np_uring *u)
{
    return u->config.sqpoll_idle_ms != 0;
}

/* np_uring_setup.c: 0 or -errno */
int np_uring_ring_open(struct np_uring *u);
int np_uring_bufs_open(struct np_uring *u);

/* np_uring_regions.c: the verbs of np_backend.h, and */
/* The kernel has let go of a region that was detached. */
void np_uring_region_released(struct np_uring *u, np_udata tag);
/* Registers in a new ring what was registered in the old one. */
void np_uring_move_regions(struct np_uring *u);
int np_uring_attach(struct np_backend *be, void *base, size_t size_bytes, int how);

/* np_uring_sqpoll.c */
/* Makes the queue known to the kernel; with a polling thread that is a system call only when the
 * thread sleeps. What io_uring_submit returns. */
int np_uring_submit_queue(struct np_uring *u);
/* Entries that no np_uring_submit_queue has made known yet. */
uint32_t np_uring_unsubmitted(const struct np_uring *u);
/* Whether the kernel has read all but `left` entries of the queue; with a polling thread waits for
 * it, up to NP_SQPOLL_READ_MAX_NS. */
bool np_uring_wait_read(struct np_uring *u, uint32_t left);
/* With a polling thread completions come without a call, so looking for a while spares one: up to
 * NP_SQPOLL_SPIN_NS, and no longer than timeout_ns (< 0: no limit). True: there is one. */
bool np_uring_spin(struct np_uring *u, int64_t timeout_ns);
/* Whether the entry that `op` was given can still be changed. */
bool np_uring_is_unread(const struct np_uring *u, const struct np_op *op);

/* np_uring_queue.c */

/* Gather lists that the kernel has read are free again. */
void np_uring_after_submit(struct np_uring *u);
/* Submits early, so that `count` entries are free. False: try again next turn. */
bool np_uring_make_room(struct np_uring *u, uint32_t count);
/* Gives `op` its pieces. 0, -EBUSY (no room for this list now) or -ENOMEM. */
int np_uring_place(struct np_uring *u, struct np_op *op, const struct iovec *iov, int iov_count);
/* The message of an operation of several pieces, to be read with the entry that was taken last. */
struct msghdr *np_uring_message(struct np_uring *u, const struct np_op *op);
/* Ends an operation that the kernel does not have: its event comes with the next turn. */
void np_uring_finish_unsubmitted(struct np_uring *u, struct np_op *op, int res);

/* Room for `count` entries; submits early when there is not. False: try again next turn. */
static inline bool np_uring_reserve(struct np_uring *u, uint32_t count)
{
    return NP_LIKELY(io_uring_sq_space_left(&u->ring) >= count) || np_uring_make_room(u, count);
}

/* The next submission entry, NULL when the queue is full. */
static inline struct io_uring_sqe *np_uring_take_sqe(struct np_uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (sqe && u->iovs.count)
        u->iov_ends[(u->ring.sq.sqe_tail - 1) & u->ring.sq.ring_mask] = u->iov_end;
    return sqe;
}

/* A free submission entry, or NULL: try again next turn. */
static inline struct io_uring_sqe *np_uring_get_sqe(struct np_uring *u)
{
    return np_uring_reserve(u, 1) ? np_uring_take_sqe(u) : NULL;
}

/* np_uring_zc.c */
void np_uring_fill_transmit(struct np_uring *u, struct io_uring_sqe *sqe, struct np_op *op);
/* A completion of a TRANSMIT; makes one event. */
void np_uring_complete_transmit(struct np_uring *u, struct np_op *op,
                                const struct io_uring_cqe *cqe, struct np_event *event);

/* np_uring_sqe.c */
int np_uring_submit(struct np_backend *be, const void *sqes, uint32_t count, void *const *owners,
                    np_udata *ops);
/* The caller's entries at the head of `unpushed`, all of one call, if there is room for them. */
bool np_uring_push_group(struct np_uring *u);
/* Starts links whose turn has come: before that a cancel would not find them. */
void np_uring_advance_chains(struct np_uring *u);
/* One completion of a caller's entry into an event. */
void np_uring_complete_sqe(struct np_uring *u, struct np_op *op, const struct io_uring_cqe *cqe,
                           struct np_event *event);
/* Lets go of entries that were never pushed; the backend is being closed. */
void np_uring_free_images(struct np_uring *u);

/* np_uring_submit.c: the verbs of np_backend.h, and */

/* Fills the operation's entry in, or lets it wait for one. */
void np_uring_push(struct np_uring *u, struct np_op *op);
/* Operations that waited for a submission entry, as far as there is room now. */
void np_uring_push_waiting(struct np_uring *u);
/* Buffers came back: the RECVs that ended for want of them start again. */
void np_uring_push_starved(struct np_uring *u);
/* Those of them that were cancelled end: that needs no buffer. */
void np_uring_end_starved(struct np_uring *u);
void np_uring_arm_wake(struct np_uring *u);

int np_uring_arm(struct np_backend *be, struct np_op *op);
int np_uring_send(struct np_backend *be, int fd, void *owner, const struct iovec *iov,
                  int iov_count, int flags, int32_t *res, np_udata *out);
int np_uring_cancel(struct np_backend *be, np_udata target, int flags);
void np_uring_forget(struct np_backend *be, int fd);

/* np_uring_harvest.c: takes at most `max` events; returns their number. */
int np_uring_end_quiets(struct np_uring *u, struct np_event *events, int max);
int np_uring_harvest(struct np_uring *u, struct np_event *events, int max);

/* np_uring_move.c */
/* Puts a new ring in the place of another thread's. 0 or -errno. */
int np_uring_move(struct np_uring *u);
/* Events that the old rings had posted; their number, 0 when there are no more. */
int np_uring_take_carried(struct np_uring *u, struct np_event *events, int max);
void np_uring_close_carried(struct np_uring *u);

#endif
