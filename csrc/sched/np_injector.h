/* np_injector.h - the unbounded queue: lists through the records themselves, one per lane.
 *
 * Purpose   Where other threads put tasks, where a full deque puts half of its tasks, and (one per
 *           worker) where tasks that are bound to a worker wait. A queued task costs nothing beyond
 *           its record. Many producers, many consumers, one short lock; whole chains change hands
 *           under one taking of it.
 * Order     First in, first out within a lane.
 * Ownership The injector owns nothing; a record in it is linked through `next`.
 * Threads   Any.
 */
#ifndef NP_INJECTOR_H
#define NP_INJECTOR_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/np_lock.h"
#include "sched/np_task.h"

struct np_injector {
    _Alignas(64) struct np_lock lock;
    _Atomic(uint32_t) lanes_mask; /* bit l: lane l is not empty */
    uint32_t is_closed;           /* nothing is offered any more; under the lock */
    struct {
        struct np_task *oldest, *newest;
        _Atomic(uint64_t) count;
    } lanes[NP_LANES];
};

void np_injector_init(struct np_injector *injector);
/* A chain of `count` records, first to last, linked through `next`. */
void np_injector_push(struct np_injector *injector, int lane, struct np_task *first,
                      struct np_task *last, uint32_t count);
/* One record, unless the injector is closed: 0 or -ESHUTDOWN. What was taken before the closing is
 * seen by everybody who looks after it. */
int np_injector_offer(struct np_injector *injector, int lane, struct np_task *task);
void np_injector_refuse(struct np_injector *injector); /* closes it for offers, not for pushes */
/* At most `max` of the oldest, linked through `next`; NULL when empty. */
struct np_task *np_injector_take(struct np_injector *injector, int lane, uint32_t max);

static inline uint64_t np_injector_count(const struct np_injector *injector, int lane)
{
    return atomic_load_explicit(&injector->lanes[lane].count, memory_order_relaxed);
}

/* Sequentially consistent: the last look before a worker sleeps. Pairs with np_injector_push. */
static inline uint32_t np_injector_mask(const struct np_injector *injector)
{
    return atomic_load_explicit(&injector->lanes_mask, memory_order_seq_cst);
}

#endif
