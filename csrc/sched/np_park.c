/* np_park.c - the token. */
#include "sched/np_park.h"

#include "base/np_futex.h"
#include "base/np_limits.h"
#include "io/np_timer.h"

void np_park_init(struct np_park *park)
{
    *park = (struct np_park){0};
}

static int take_token(struct np_park *park)
{
    uint32_t expected = NP_PARK_TOKEN;
    /* Acquire: pairs with the exchange in np_park_wake. */
    return atomic_compare_exchange_strong_explicit(&park->word, &expected, NP_PARK_EMPTY,
                                                   memory_order_acquire, memory_order_relaxed);
}

int np_park_wait(struct np_park *park, int64_t timeout_ns)
{
    for (uint32_t i = 0; timeout_ns != 0 && i < NP_PARK_SPIN_COUNT; i++) {
        if (atomic_load_explicit(&park->word, memory_order_relaxed) == NP_PARK_TOKEN)
            break;
        np_cpu_relax();
    }
    uint32_t expected = NP_PARK_EMPTY;
    if (timeout_ns == 0 ||
        !atomic_compare_exchange_strong_explicit(&park->word, &expected, NP_PARK_SLEEPING,
                                                 memory_order_acquire, memory_order_relaxed))
        return take_token(park);
    int64_t end_ns = timeout_ns < 0 ? -1 : np_clock_ns() + timeout_ns;
    for (;;) {
        np_futex_wait(&park->word, NP_PARK_SLEEPING, timeout_ns);
        if (atomic_load_explicit(&park->word, memory_order_relaxed) == NP_PARK_TOKEN)
            return take_token(park);
        if (end_ns >= 0) {
            timeout_ns = end_ns - np_clock_ns();
            if (timeout_ns <= 0)
                break;
        }
    }
    /* The time is up; a token that comes in this moment counts. */
    return atomic_exchange_explicit(&park->word, NP_PARK_EMPTY, memory_order_acquire) ==
           NP_PARK_TOKEN;
}

void np_park_wake(struct np_park *park)
{
    /* Release: what the waker did before is there for the woken. */
    uint32_t before = atomic_exchange_explicit(&park->word, NP_PARK_TOKEN, memory_order_acq_rel);
    struct np_inbox *inbox = atomic_load_explicit(&park->inbox, memory_order_acquire);
    if (inbox)
        np_inbox_wake(inbox);
    else if (before == NP_PARK_SLEEPING)
        np_futex_wake(&park->word, 1);
    /* Release: pairs with the load in np_worker_alight, which then may close the inbox. */
    atomic_fetch_add_explicit(&park->wakes_count, 1, memory_order_release);
}
