/* np_injector.c - lists under a lock. */
#include "sched/np_injector.h"

#include <errno.h>

void np_injector_init(struct np_injector *injector)
{
    *injector = (struct np_injector){0};
}

static void set_count(struct np_injector *injector, int lane, uint64_t count)
{
    uint32_t bit = 1u << lane;
    uint32_t mask = atomic_load_explicit(&injector->lanes_mask, memory_order_relaxed);
    atomic_store_explicit(&injector->lanes[lane].count, count, memory_order_relaxed);
    if (!(mask & bit) != !count)
        atomic_store_explicit(&injector->lanes_mask, mask ^ bit, memory_order_seq_cst);
}

static void append(struct np_injector *injector, int lane, struct np_task *first,
                   struct np_task *last, uint32_t count)
{
    if (injector->lanes[lane].newest)
        injector->lanes[lane].newest->next = first;
    else
        injector->lanes[lane].oldest = first;
    injector->lanes[lane].newest = last;
    set_count(injector, lane, np_injector_count(injector, lane) + count);
}

void np_injector_push(struct np_injector *injector, int lane, struct np_task *first,
                      struct np_task *last, uint32_t count)
{
    last->next = NULL;
    np_lock_take(&injector->lock);
    append(injector, lane, first, last, count);
    np_lock_drop(&injector->lock);
}

int np_injector_offer(struct np_injector *injector, int lane, struct np_task *task)
{
    int rc = -ESHUTDOWN;
    task->next = NULL;
    np_lock_take(&injector->lock);
    if (!injector->is_closed) {
        append(injector, lane, task, task, 1);
        rc = 0;
    }
    np_lock_drop(&injector->lock);
    return rc;
}

void np_injector_refuse(struct np_injector *injector)
{
    np_lock_take(&injector->lock);
    injector->is_closed = 1;
    np_lock_drop(&injector->lock);
}

struct np_task *np_injector_take(struct np_injector *injector, int lane, uint32_t max)
{
    if (np_injector_count(injector, lane) == 0)
        return NULL;
    np_lock_take(&injector->lock);
    uint32_t taken = 0;
    struct np_task *first = injector->lanes[lane].oldest, *last = NULL;
    struct np_task *next = first;
    while (next && taken < max) {
        last = next;
        next = next->next;
        taken++;
    }
    if (last) {
        last->next = NULL;
        injector->lanes[lane].oldest = next;
        if (!next)
            injector->lanes[lane].newest = NULL;
        set_count(injector, lane, np_injector_count(injector, lane) - taken);
    }
    np_lock_drop(&injector->lock);
    return last ? first : NULL;
}
