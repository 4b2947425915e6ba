/* np_op.h - operations in flight: a slab of 64-byte slots with generations.
 *
 *   FREE --alloc--> QUEUED --submitted--> KERNEL --last completion--> FREE
 *                      \  <-starts again--   |
 *                       \--cancel asked--> ORPHAN --last completion--> FREE
 *
 *   zero-copy only:  KERNEL, ORPHAN --result, memory still read--> SENT --notification--> FREE
 *
 * The arrows are np_op_alloc, np_op_free and the four np_op_mark_... below, which assert them;
 * nothing else writes a state. An operation that ends without the kernel is freed from any state.
 *
 * Purpose   Every request that a backend carries for somebody is one slot here, from the moment
 *           it is armed until its last completion. A SENT one holds its memory and its owner,
 *           but no file: its fd may be closed.
 * Ownership The slot keeps one reference to `owner` (an opaque cookie); np_op_free gives it back
 *           to the caller through the event. Slot addresses are stable.
 * Threads   The loop's thread only.
 * Not here  System calls, memory of buffers, any knowledge of what the owner is.
 */
#ifndef NP_OP_H
#define NP_OP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "io/np_udata.h"

enum np_op_kind {
    NP_OP_NONE = 0,
    NP_OP_ACCEPT,   /* multishot: res = connected fd, nonblocking and close-on-exec */
    NP_OP_RECV,     /* multishot: res bytes at event.data; 0 = end of stream (last) */
    NP_OP_SEND,     /* one shot, never waits: res = bytes taken, or -EAGAIN */
    NP_OP_POLL,     /* one shot: res = ready poll(2) bits */
    NP_OP_SQE,      /* a submission entry of the caller's: see np_backend_ops.submit */
    NP_OP_TRANSMIT, /* a send that may wait and may be zero-copy: np_backend_ops.transmit */
    NP_OP_KINDS
};

/* POLL, beside the poll(2) bits: the fd is the loop's own. It may stay registered between two
 * POLLs, because nobody closes it unsaid. */
#define NP_POLL_KEEP (1u << 16)
/* POLL: its event says that the fd is ready, not that it was. */
#define NP_POLL_LEVEL (1u << 17)
/* POLL: only other threads and processes make it ready, and nobody can tell when exactly. */
#define NP_POLL_ASIDE (1u << 18)
#define NP_POLL_BITS 0xffffu

enum np_op_state { NP_FREE = 0, NP_QUEUED, NP_KERNEL, NP_SENT, NP_ORPHAN };

struct np_op {
    void *owner;
    union {
        const void *buf;         /* SEND, TRANSMIT of one piece: the bytes. SQE: the entries, until
                            * pushed */
        const struct iovec *iov; /* of several: their span in the ring of iovecs */
    };
    size_t len_bytes; /* SEND, TRANSMIT: how many */
    int32_t fd;
    uint32_t slot;
    uint32_t generation; /* never 0 */
    uint32_t next;       /* slot + 1 in the one list that the operation is in, or 0 */
    uint32_t sqe_index;  /* io_uring: which submission entry it was given */
    uint32_t iov_count;  /* SEND, TRANSMIT: 0 for one piece */
    union {
        uint32_t poll_mask; /* POLL: poll(2) bits asked for, and NP_POLL_KEEP */
        uint32_t iov_end;   /* of several pieces: the end of their span, see np_iovring.h */
    };
    int32_t res; /* of one that ends without the kernel's help; SENT: bytes taken */
    uint8_t kind, state;
    uint8_t submitted; /* the kernel has it: 1 also while it is an orphan there */
    uint8_t fed;       /* RECV: has received something since it was last submitted.
                            * POLL (io_uring): waits for an edge, see np_uring_harvest.c */
    uint8_t grouped;   /* SQE: came with others, which the kernel may have linked to it */
    uint8_t quiet;     /* SEND: only failure makes a completion (io_uring) */
    union {
        uint16_t group_count; /* SQE: how many of the call there are from this one on */
        uint8_t is_answered;  /* POLL (io_uring): res has its answer, its end is waited for */
        struct {
            uint8_t send_flags; /* TRANSMIT: enum np_send_flags */
            uint8_t region;     /* TRANSMIT out of registered memory: its number + 1 */
        };
    };
};

NP_STATIC_ASSERT(sizeof(struct np_op) == 64, "one operation, one cache line");

struct np_op_slab {
    struct np_op **chunks; /* chunks_count arrays of NP_OP_CHUNK_SLOTS */
    uint32_t chunks_count;
    uint32_t chunks_cap;
    uint32_t free_head;   /* slot + 1, or 0 */
    uint32_t live_count;  /* slots not FREE: 0 at teardown */
    uint64_t stale_count; /* completions dropped because their generation had passed */
};

void np_op_slab_init(struct np_op_slab *slab);
/* Asserts that live_count is 0 unless `force` (a forked child, an interpreter that dies). */
void np_op_slab_close(struct np_op_slab *slab, int force);
/* NULL when memory or slot numbers run out. The slot comes back QUEUED with kind and owner set. */
struct np_op *np_op_alloc(struct np_op_slab *slab, uint8_t kind, int fd, void *owner);
void np_op_free(struct np_op_slab *slab, struct np_op *op);
/* The live operation that `u` names, or NULL (stale: counted by the caller's choice). */
struct np_op *np_op_find(struct np_op_slab *slab, np_udata u);

static inline struct np_op *np_op_at(const struct np_op_slab *slab, uint32_t slot)
{
    return &slab->chunks[slot / NP_OP_CHUNK_SLOTS][slot % NP_OP_CHUNK_SLOTS];
}

/* A submission entry (epoll: a registration) says it: the kernel has it. */
static inline void np_op_mark_kernel(struct np_op *op)
{
    NP_ASSERT(op->state == NP_QUEUED);
    op->state = NP_KERNEL;
    op->submitted = 1;
}

/* The kernel has ended it, and it is to start again. */
static inline void np_op_mark_queued(struct np_op *op)
{
    NP_ASSERT(op->state == NP_KERNEL);
    op->state = NP_QUEUED;
    op->submitted = 0;
}

/* Its result is there, its memory is still read. A cancel could not reach it any more. */
static inline void np_op_mark_sent(struct np_op *op)
{
    NP_ASSERT(op->state == NP_KERNEL || op->state == NP_ORPHAN);
    op->state = NP_SENT;
    op->submitted = 0;
}

/* Nobody wants its result any more; again for one that nobody wants already. */
static inline void np_op_mark_orphan(struct np_op *op)
{
    NP_ASSERT(op->state == NP_QUEUED || op->state == NP_KERNEL || op->state == NP_ORPHAN);
    op->state = NP_ORPHAN;
}

static inline np_udata np_op_udata(const struct np_op *op)
{
    return np_udata_pack(op->kind, op->slot, op->generation);
}

#endif
