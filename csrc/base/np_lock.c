/* np_lock.c - the slow halves: spin a little, then sleep (U. Drepper, "Futexes are tricky"). */
#include "base/np_lock.h"

#include "base/np_futex.h"
#include "base/np_limits.h"

void np_lock_wait(struct np_lock *lock)
{
    for (uint32_t i = 0; i < NP_LOCK_SPIN_COUNT; i++) {
        uint32_t expected = 0;
        if (atomic_load_explicit(&lock->word, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(&lock->word, &expected, 1, memory_order_acquire,
                                                    memory_order_relaxed))
            return;
        np_cpu_relax();
    }
    /* From here on the word says 2, also once it is ours: a wake-up too many does no harm, one
     * too few would. Pairs with the exchange in np_lock_drop. */
    while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0)
        np_futex_wait(&lock->word, 2, -1);
}

void np_lock_wake(struct np_lock *lock)
{
    np_futex_wake(&lock->word, 1);
}
