/* np_fault_plan.h - the inside of a plan: the dice of a wrapper, and the counters they share.
 *
 * Threads   The counters are atomic; dice are their wrapper's.
 */
#ifndef NP_FAULT_PLAN_H
#define NP_FAULT_PLAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "testing/np_fault.h"

struct np_fault_plan {
    _Atomic(uint32_t) users_count; /* its maker and each wrapper: 0 frees it */
    _Atomic(uint32_t) dice_count;
    _Atomic(uint32_t) is_calm;
    uint64_t seed;
    uint32_t rates[NP_FAULTS];
    _Atomic(uint64_t) counts[NP_FAULTS];
};

struct np_dice {
    struct np_fault_plan *plan;
    uint64_t word; /* never 0 */
};

/* The dice of one more wrapper: its own numbers, from the plan's seed. */
void np_dice_open(struct np_dice *dice, struct np_fault_plan *plan);
void np_dice_close(struct np_dice *dice);

static inline uint64_t np_dice_roll(struct np_dice *dice)
{
    uint64_t x = dice->word; /* xorshift64*, Marsaglia and Vigna */
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    dice->word = x;
    return x * UINT64_C(2685821657736338717) >> 32;
}

/* 0 .. n - 1 */
static inline uint32_t np_dice_below(struct np_dice *dice, uint32_t n)
{
    return (uint32_t)(np_dice_roll(dice) % n);
}

/* Is this fault to happen here and now? */
static inline bool np_dice_draw(struct np_dice *dice, enum np_fault fault)
{
    struct np_fault_plan *plan = dice->plan;
    return plan->rates[fault] && np_dice_below(dice, NP_FAULT_RATE_ONE) < plan->rates[fault] &&
           !atomic_load_explicit(&plan->is_calm, memory_order_relaxed);
}

/* It has happened. */
static inline void np_dice_count(struct np_dice *dice, enum np_fault fault)
{
    atomic_fetch_add_explicit(&dice->plan->counts[fault], 1, memory_order_relaxed);
}

/* Both, where what is drawn can be done. */
static inline bool np_dice_strikes(struct np_dice *dice, enum np_fault fault)
{
    bool is_now = np_dice_draw(dice, fault);
    if (is_now)
        np_dice_count(dice, fault);
    return is_now;
}

#endif
