/* np_fault_plan.c - what is to happen how often, and what has happened. */
#include "testing/np_fault_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/np_assert.h"

static const char *const NAMES[] = {
    [NP_FAULT_DELAY] = "delay",
    [NP_FAULT_REORDER] = "reorder",
    [NP_FAULT_FEW] = "few",
    [NP_FAULT_BUSY] = "busy",
    [NP_FAULT_EINTR_WAIT] = "eintr_wait",
    [NP_FAULT_SHORT_SEND] = "short_send",
    [NP_FAULT_EAGAIN_SEND] = "eagain_send",
    [NP_FAULT_EINTR_SEND] = "eintr_send",
    [NP_FAULT_SHORT_RECV] = "short_recv",
    [NP_FAULT_EINTR_RECV] = "eintr_recv",
    [NP_FAULT_ONE_SHOT] = "one_shot",
    [NP_FAULT_SPURIOUS] = "spurious",
    [NP_FAULT_LATE_CANCEL] = "late_cancel",
    [NP_FAULT_LATE_NOTICE] = "late_notice",
    [NP_FAULT_NO_ZC] = "no_zc",
    [NP_FAULT_ACCEPT] = "accept",
    [NP_FAULT_SHORT_FILE] = "short_file",
    [NP_FAULT_EINTR_FILE] = "eintr_file",
    [NP_FAULT_NO_MEMLOCK] = "no_memlock",
    [NP_FAULT_SEND_ERROR] = "send_error",
    [NP_FAULT_RECV_ERROR] = "recv_error",
    [NP_FAULT_ARM_ERROR] = "arm_error",
    [NP_FAULT_NO_SLOT] = "no_slot",
    [NP_FAULT_FILE_ERROR] = "file_error",
};

NP_STATIC_ASSERT(sizeof(NAMES) / sizeof(*NAMES) == NP_FAULTS, "a name for each");

const char *np_fault_name(int fault)
{
    return fault >= 0 && fault < NP_FAULTS ? NAMES[fault] : NULL;
}

struct np_fault_plan *np_fault_plan_open(uint64_t seed, const uint32_t *rates)
{
    struct np_fault_plan *plan = calloc(1, sizeof(*plan));
    if (!plan)
        return NULL;
    atomic_init(&plan->users_count, 1);
    plan->seed = seed;
    memcpy(plan->rates, rates, sizeof(plan->rates));
    return plan;
}

void np_fault_plan_release(struct np_fault_plan *plan)
{
    if (atomic_fetch_sub_explicit(&plan->users_count, 1, memory_order_acq_rel) == 1)
        free(plan);
}

void np_fault_plan_set_calm(struct np_fault_plan *plan, int is_calm)
{
    atomic_store_explicit(&plan->is_calm, (uint32_t)is_calm, memory_order_relaxed);
}

uint64_t np_fault_plan_count(const struct np_fault_plan *plan, enum np_fault fault)
{
    return atomic_load_explicit(&plan->counts[fault], memory_order_relaxed);
}

/* splitmix64 (Steele, Lea, Flood): neighbouring seeds give numbers that have nothing in common. */
static uint64_t mixed(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void np_dice_open(struct np_dice *dice, struct np_fault_plan *plan)
{
    uint32_t number = atomic_fetch_add_explicit(&plan->dice_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&plan->users_count, 1, memory_order_relaxed);
    dice->plan = plan;
    dice->word = mixed(mixed(plan->seed) + number) | 1;
}

void np_dice_close(struct np_dice *dice)
{
    np_fault_plan_release(dice->plan);
}
