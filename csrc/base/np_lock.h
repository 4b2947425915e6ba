/* np_lock.h - a lock of four bytes for sections of a few dozen instructions.
 *
 * Purpose   Guards the scheduler's lists. Free: one compare-and-swap, no system call. Taken: a
 *           bounded spin (NP_LOCK_SPIN_COUNT), then the futex.
 *               0 free, 1 held, 2 held and somebody may sleep
 * Ownership The struct lives where it protects something; nothing to open or close. All zero: free.
 * Threads   Any. Not recursive. Never held across a system call other than its own, and never while
 *           Python code could run.
 */
#ifndef NP_LOCK_H
#define NP_LOCK_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/np_assert.h"

struct np_lock {
    _Atomic(uint32_t) word;
};

void np_lock_wait(struct np_lock *lock); /* the slow half of np_lock_take */
void np_lock_wake(struct np_lock *lock); /* the slow half of np_lock_drop */

static inline void np_lock_take(struct np_lock *lock)
{
    uint32_t expected = 0;
    /* Acquire: pairs with the exchange in np_lock_drop. */
    if (NP_UNLIKELY(!atomic_compare_exchange_strong_explicit(
            &lock->word, &expected, 1, memory_order_acquire, memory_order_relaxed)))
        np_lock_wait(lock);
}

static inline void np_lock_drop(struct np_lock *lock)
{
    /* Release: what was written under the lock is there for whoever takes it next. */
    if (NP_UNLIKELY(atomic_exchange_explicit(&lock->word, 0, memory_order_release) == 2))
        np_lock_wake(lock);
}

#endif
