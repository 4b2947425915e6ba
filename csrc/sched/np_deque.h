/* np_deque.h - the queue of one worker and one lane: bounded, its owner pushes, anybody takes.
 *
 *        head (takers: compare-and-swap)          tail (owner: store)
 *          v                                        v
 *      [ . T T T T T T T T T T T T T T T T T T T T . . . . ]     capacity: a power of two
 *
 * Purpose   First in, first out, and a thief takes half of it with one compare-and-swap. The
 *           Chase-Lev deque, whose owner takes the newest first, was not taken: a scheduler that
 *           promises that nothing waits without end has to run the oldest first; its take needs a
 *           full fence where this one has its compare-and-swap; and it steals one at a time.
 * Overflow  np_deque_push says -ENOSPC; the caller moves half of the queue to an injector.
 * ABA       head and tail count to 2^64 and never wrap, so a compare-and-swap of head succeeds only
 *           if nothing was taken in between, and then none of the slots read was written over.
 * Ownership Of the slots, from open to close. Not of the tasks.
 * Errors    np_deque_open: 0 or -ENOMEM.
 * Threads   push: the owner. pop, steal, count: any.
 */
#ifndef NP_DEQUE_H
#define NP_DEQUE_H

#include <stdatomic.h>
#include <stdint.h>

#include "sched/np_task.h"

struct np_deque {
    _Alignas(64) _Atomic(uint64_t) head; /* apart: thieves must not slow the owner's pushes */
    _Alignas(64) _Atomic(uint64_t) tail;
    _Atomic(struct np_task *) *slots;
    uint64_t mask;
};

int np_deque_open(struct np_deque *deque, uint32_t slots_count); /* a power of two */
void np_deque_close(struct np_deque *deque);
int np_deque_push(struct np_deque *deque, struct np_task *task); /* 0 or -ENOSPC */
/* The oldest, or NULL. */
struct np_task *np_deque_pop(struct np_deque *deque);
/* The oldest half, rounded up, at most `max`; 0 when empty or when somebody else was faster. */
uint32_t np_deque_steal(struct np_deque *deque, struct np_task **out, uint32_t max);
uint64_t np_deque_count(const struct np_deque *deque);

#endif
