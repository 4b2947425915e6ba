/* np_conn.h - a connection of the server: 104 bytes with its task, and what it needs when busy.
 *
 * Purpose   An idle connection is one struct np_conn and the operation that waits for its bytes
 *           (64 bytes, np_op.h): no Python object, no buffer. What has arrived and is not read yet,
 *           and what is written and not sent yet, is a struct np_flow each, taken from a slab while
 *           there is any.
 * Layout    The connection is its task (np_task.h), with the task's cookies put to use: `run` is
 *           the worker that gets the events, so &task.run is the cookie of its operations
 *           (NP_COOKIE_STRUCT); `argument` is its face, the Python object that stands for it while
 *           somebody looks; `context` is the flow of unread bytes; `spare` the RECV in flight;
 *           `generation`, which only records of the slab use, counts its pins.
 * Lifetime  Whoever may look at a connection again after something that can end it (a handler, a
 *           hook, any other Python code, a send) pins it before, and unpins it after: the struct is
 *           not put back in between, and its flags tell whether it is over (NP_LOST). A flow
 *           is not pinned: after such a call it is fetched again.
 * Ownership A chunk of a flow owns its memory through its `owner` (np_owner.h).
 * Errors    NULL or -ENOMEM when memory runs out; nothing else fails.
 * Threads   The worker's thread only; the task's verbs from any (np_task.h).
 */
#ifndef NP_CONN_H
#define NP_CONN_H

#include <stddef.h>
#include <stdint.h>

#include "base/np_assert.h"
#include "base/np_life.h"
#include "base/np_limits.h"
#include "mem/np_bufring.h"
#include "io/np_event.h"
#include "mem/np_iov.h"
#include "mem/np_owner.h"
#include "sched/np_task.h"
#include "io/np_udata.h"
#include "io/np_zc.h"

enum np_conn_flags { /* behind the bits of its life (np_life.h); when it is GONE it is put back */
                     NP_CONN_OPEN = 1 << NP_LIFE_BITS, /* the struct is some connection's */
                     NP_CONN_DIRTY = NP_CONN_OPEN
                         << 1, /* in the list of those with something to send */
                     NP_CONN_PAUSED = NP_CONN_OPEN << 2, /* its handler does not want more bytes */
                     NP_CONN_CHOKED = NP_CONN_OPEN
                         << 3, /* too much unsent: not read until it has shrunk */
                     NP_CONN_FULL = NP_CONN_OPEN << 4, /* too much unread or retained: the same */
                     NP_CONN_CANCELLED = NP_CONN_OPEN << 5, /* the RECV was asked to end */
                     NP_CONN_EOF = NP_CONN_OPEN << 6,       /* the peer has shut its side */
                     NP_CONN_SHUT = NP_CONN_OPEN
                         << 7, /* our side is to be shut, or is, when all is sent */
                     NP_CONN_CORKED = NP_CONN_OPEN << 8, /* nothing is sent before uncork */
                     NP_CONN_CALLED = NP_CONN_OPEN << 9, /* the handler is running */
                     NP_CONN_TLS = NP_CONN_OPEN
                         << 10, /* bytes pass through the layer above's TLS */
                     NP_CONN_TIMED = NP_CONN_OPEN << 11, /* in the wheel of idle time-outs */
                     /* Why nothing is received, or what comes is kept. */
                     NP_CONN_HELD = NP_CONN_PAUSED | NP_CONN_CHOKED | NP_CONN_FULL,
                     NP_CONN_NOT_READING = NP_CONN_HELD | NP_CLOSING,
};

NP_STATIC_ASSERT(NP_CONN_TIMED < 1 << 16, "np_conn.flags has 16 bits");

struct np_flow {
    struct np_iov iov;
    np_udata op;   /* outbound: the SEND or POLL in flight, or 0 */
    uint32_t next; /* index + 1 in the free list */
    uint32_t index;
    uint16_t live;       /* 1: some connection's */
    uint16_t room_bytes; /* that np_flow_join has left behind the newest piece */
    uint32_t sending;    /* outbound: chunks that the SEND in flight reads; they must stay */
};

NP_STATIC_ASSERT(sizeof(struct np_flow) == 64, "small: there are as many as busy connections");

struct np_conn {
    struct np_task task;
    struct np_flow *out;
    int32_t fd;
    uint32_t index;                  /* in the slab */
    uint32_t next;                   /* index + 1 in the free list, or in the dirty list */
    uint32_t wheel_next, wheel_prev; /* index + 1 in a spoke of the wheel */
    uint16_t tick;                   /* of the wheel, when it last made progress */
    uint16_t flags;                  /* enum np_conn_flags */
    uint32_t serial;                 /* tells it from an earlier one in the same place */
    struct np_zc zc;                 /* whether its path really spares copies */
    uint16_t bulk;                   /* receives in bulk: small reads left before that ends */
};

NP_STATIC_ASSERT(sizeof(struct np_conn) == 104, "idle: these, and its operation's 64 bytes");

#define NP_CONN_CHUNK_COUNT 128

struct np_conn_slab {
    struct np_conn **chunks;
    struct np_flow **flow_chunks;
    uint32_t chunks_count, chunks_cap, free_head, live_count, serial;
    uint32_t flow_chunks_count, flow_chunks_cap, flow_free_head, flow_live_count;
};

void np_conn_slab_init(struct np_conn_slab *slab);
/* Everything must be back: asserted unless `force`. */
void np_conn_slab_close(struct np_conn_slab *slab, int force);
/* A connection with nothing in flight; NULL without memory. */
struct np_conn *np_conn_get(struct np_conn_slab *slab, void *worker, int fd);
void np_conn_put(struct np_conn_slab *slab, struct np_conn *conn);
struct np_flow *np_flow_get(struct np_conn_slab *slab);
/* The flow must be empty. */
void np_flow_put(struct np_conn_slab *slab, struct np_flow *flow);

/* Appends one piece: 0 or -ENOMEM. */
int np_flow_push(struct np_flow *flow, void *owner, const void *base, size_t len_bytes);
/* Appends received bytes by copying them behind others, where small pieces have become many: 1, and
 * nobody need hold their memory; 0: they are to be pushed; -ENOMEM. */
static inline int np_flow_join(struct np_flow *flow, const void *base, size_t len_bytes);
/* Puts one piece before all others, none of which may be on its way: 0 or -ENOMEM. */
int np_flow_push_front(struct np_flow *flow, void *owner, const void *base, size_t len_bytes);
/* Moves `len_bytes` (<= iov.total_bytes) from the head of `from` to the end of `to`; a piece that
 * is cut in two is held twice: `from` of received or copied bytes only. 0, or -ENOMEM: a part
 * moved. */
int np_flow_move(struct np_flow *from, struct np_flow *to, size_t len_bytes);
/* Copies what is in receive buffers to the heap, so that the buffers can go back. What the kernel
 * is reading stays. The number of bytes, or -ENOMEM. */
int64_t np_flow_shed(struct np_flow *flow);
/* Copies the first `len_bytes` (<= iov.total_bytes). */
void np_flow_copy(const struct np_flow *flow, void *target, size_t len_bytes);
/* The offset behind the first `wanted` that begins at `start_bytes` or after; -1: not there. It may
 * go over several pieces. */
int64_t np_flow_find(const struct np_flow *flow, const uint8_t *wanted, size_t wanted_bytes,
                     size_t start_bytes);
/* The head of an outbound flow as iovecs, at most `max`; stops at a file. *total: their bytes. */
int np_flow_gather(const struct np_flow *flow, struct iovec *out, int max, size_t *total);

/* The slow half of np_flow_join. */
int np_flow_copy_in(struct np_flow *flow, const void *base, size_t len_bytes);

static inline int np_flow_join(struct np_flow *flow, const void *base, size_t len_bytes)
{
    if (NP_LIKELY(flow->iov.count < NP_FLOW_APART_COUNT) || len_bytes > NP_FLOW_JOIN_MAX_BYTES)
        return 0;
    return np_flow_copy_in(flow, base, len_bytes);
}

static inline struct np_conn *np_conn_at(const struct np_conn_slab *slab, uint32_t index)
{
    return &slab->chunks[index / NP_CONN_CHUNK_COUNT][index % NP_CONN_CHUNK_COUNT];
}

static inline struct np_flow *np_flow_at(const struct np_conn_slab *slab, uint32_t index)
{
    return &slab->flow_chunks[index / NP_CONN_CHUNK_COUNT][index % NP_CONN_CHUNK_COUNT];
}

static inline void *np_conn_cookie(struct np_conn *conn)
{
    return (uint8_t *)&conn->task.run + NP_COOKIE_STRUCT;
}

static inline struct np_conn *np_conn_of(void *cookie)
{
    return (struct np_conn *)((uint8_t *)cookie - NP_COOKIE_STRUCT -
                              offsetof(struct np_conn, task.run));
}

static inline void np_conn_pin(struct np_conn *conn)
{
    NP_DCHECK(conn->fd >= 0); /* it is put back already */
    conn->task.generation++;
}

/* 1: that was the last pin, and the connection is over: it is to be finished now. */
static inline int np_conn_unpin(struct np_conn *conn)
{
    NP_ASSERT(conn->task.generation > 0);
    return --conn->task.generation == 0 && (conn->flags & NP_LOST);
}

static inline int np_conn_is_pinned(const struct np_conn *conn)
{
    return conn->task.generation != 0;
}

static inline struct np_flow *np_conn_in(const struct np_conn *conn)
{
    return (struct np_flow *)conn->task.context;
}

#endif
