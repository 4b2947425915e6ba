/* np_task.h - the task record, 64 bytes: what the scheduler queues, and nothing else.
 *
 *              wake                 claim               finish
 *     IDLE ----------> QUEUED ----------------> RUNNING --------> DONE
 *       ^                ^  \____ revoke ________ | ______________^
 *       |                |                        | pause
 *       |                +---- NOTIFIED ----------+     (woken while it ran: queued again)
 *       +-----------------------------------------+     (not woken: idle)
 *
 * Purpose   One record per queued piece of work. A posted function's record comes from the slab and
 *           goes back when it has run. A Task and a connection embed theirs and use the states
 *           above, so that they can be woken from anywhere and still run in one place at a time.
 * Entries   A queue holds pointers to records. A record is in at most one queue by itself (the bit
 *           NODE); a second entry, needed when a queued task moves to another lane, is a ticket: a
 *           record of the slab whose `run` names the task. Whichever entry is taken first claims
 *           the task; the others find nothing to claim and are dropped.
 * Ownership run, argument, context are cookies of the layer above; it keeps what they refer to.
 *           From np_task_wake until the claim the record belongs to the queues.
 * Threads   wake, revoke: any. claim, pause, finish: the worker that took the entry. The plain
 *           fields are written before the push and read after the claim; the queue orders them.
 */
#ifndef NP_TASK_H
#define NP_TASK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/np_assert.h"
#include "base/np_lock.h"

enum np_lane_id { NP_LANE_CONTROL = 0, NP_LANE_HIGH, NP_LANE_NORMAL, NP_LANE_LOW, NP_LANES };

enum np_task_state {
    NP_TASK_QUEUED = 1,   /* it is to be run, and an entry for it is in some queue */
    NP_TASK_RUNNING = 2,  /* one worker has claimed it */
    NP_TASK_NOTIFIED = 4, /* woken while RUNNING */
    NP_TASK_NODE = 8,     /* the record itself is in a queue (perhaps as a stale entry) */
    NP_TASK_DONE = 16,    /* nothing will run it any more */
    NP_TASK_BEGUN = 32    /* has been claimed at least once */
};

/* What the caller of wake or pause has to do. */
enum np_task_verdict { NP_TASK_LEAVE = 0, NP_TASK_PUSH, NP_TASK_PUSH_TICKET };

#define NP_HOME_ANY UINT32_MAX

struct np_task {
    struct np_task *next;    /* in an injector's list, or in a free list */
    void *run;               /* cookie: what to call, or who this is */
    void *argument;          /* cookie */
    void *context;           /* cookie */
    int64_t queued_ns;       /* CLOCK_MONOTONIC; 0: this one's wait is not measured */
    _Atomic(uint32_t) state; /* enum np_task_state */
    uint32_t generation;     /* of a slab record: odd while it is in use */
    uint32_t home;           /* the only worker that may run it, or NP_HOME_ANY */
    _Atomic(uint8_t) lane;   /* enum np_lane_id: where its next entry goes */
    uint8_t kind;            /* which sort of record this is: the layer above decides */
    uint8_t flags;           /* the layer above's */
    uint8_t is_slab;         /* 1: np_task_get made it */
    uint64_t spare;          /* the layer above's */
};

NP_STATIC_ASSERT(sizeof(struct np_task) == 64, "one task, one cache line");
NP_STATIC_ASSERT(offsetof(struct np_task, spare) == 56, "no padding inside");

/* A record that is embedded in something else. */
void np_task_init(struct np_task *task, uint8_t kind, uint8_t lane);
/* It should run (again). np_task_verdict: LEAVE, or push it, or push a ticket for it. */
int np_task_wake(struct np_task *task);
/* An entry was taken from a queue. is_node: the entry was the record itself. 1: run it now. */
int np_task_claim(struct np_task *task, int is_node);
/* Its run has ended, it is not done. np_task_verdict as for np_task_wake. */
int np_task_pause(struct np_task *task);
void np_task_finish(struct np_task *task);
/* It has not begun and never will: 1; too late, it has begun or is done: 0. */
int np_task_revoke(struct np_task *task);

static inline uint8_t np_task_lane(struct np_task *task)
{
    return atomic_load_explicit(&task->lane, memory_order_relaxed);
}

static inline void np_task_set_lane(struct np_task *task, uint8_t lane)
{
    atomic_store_explicit(&task->lane, lane, memory_order_relaxed);
}

static inline int np_task_is_queued(struct np_task *task)
{
    return (atomic_load_explicit(&task->state, memory_order_acquire) & NP_TASK_QUEUED) != 0;
}

/* ---- the slab: records for posted work ------------------------------------------------------- */

struct np_task_chunk;

/* Full magazines of NP_TASK_MAGAZINE_COUNT free records. Any thread. */
struct np_task_slab {
    struct np_lock lock;
    uint32_t chunks_count;
    struct np_task_chunk *chunks;
    struct np_task *full; /* heads of full magazines, linked through `argument` */
    uint64_t free_count;
};

/* Free records of one thread, or of a few that agree on a lock. All zero: empty. */
struct np_task_cache {
    struct np_task *head, *spare; /* being used; full or NULL */
    uint32_t head_count;
};

void np_task_slab_init(struct np_task_slab *slab);
/* Every record must be back and every cache flushed; NP_DCHECK checks it. */
void np_task_slab_close(struct np_task_slab *slab);
/* A record with state 0, or NULL without memory. */
struct np_task *np_task_get(struct np_task_slab *slab, struct np_task_cache *cache);
/* Aborts when the record is not in use: a task that ran twice would come through here twice. */
void np_task_put(struct np_task_slab *slab, struct np_task_cache *cache, struct np_task *task);
void np_task_cache_flush(struct np_task_slab *slab, struct np_task_cache *cache);
/* Records in use; exact only while no cache holds any. */
uint64_t np_task_slab_live_count(struct np_task_slab *slab);

#endif
