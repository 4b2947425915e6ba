/* np_sched.c - opening and pushing. What workers take is np_worker.c, how they wake np_idle.c. */
#include "sched/np_sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int is_power_of_two(uint32_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static int open_worker(struct np_sched *sched, uint32_t index)
{
    struct np_worker *worker = &sched->workers[index];
    worker->sched = sched;
    worker->index = index;
    /* Never 0, and different for each worker (the constant is 2^64 over the golden ratio). */
    worker->random = (sched->config.seed + index + 1) * UINT64_C(0x9E3779B97F4A7C15) | 1;
    np_injector_init(&worker->mail);
    np_park_init(&worker->park);
    for (int lane = 0; lane < NP_LANES; lane++)
        if (np_deque_open(&worker->deques[lane], sched->config.deque_slots) < 0)
            return -ENOMEM;
    return 0;
}

int np_sched_open(struct np_sched **out, const struct np_sched_config *config)
{
    struct np_sched_config c = *config;
    if (c.deque_slots == 0)
        c.deque_slots = NP_DEQUE_DEFAULT_SLOTS;
    if (c.workers_count == 0 || c.workers_count > NP_WORKERS_MAX_COUNT ||
        !is_power_of_two(c.deque_slots) || c.deque_slots < 2 || c.deque_slots > NP_DEQUE_MAX_SLOTS)
        return -EINVAL;
    struct np_sched *sched = aligned_alloc(_Alignof(struct np_sched), sizeof(*sched));
    if (!sched)
        return -ENOMEM;
    memset(sched, 0, sizeof(*sched));
    sched->config = c;
    np_task_slab_init(&sched->slab);
    np_alarms_init(&sched->alarms);
    np_injector_init(&sched->injector);
    size_t workers_bytes = c.workers_count * sizeof(struct np_worker);
    sched->workers = aligned_alloc(_Alignof(struct np_worker), workers_bytes);
    if (!sched->workers)
        goto fail;
    memset(sched->workers, 0, workers_bytes);
    for (uint32_t i = 0; i < c.workers_count; i++)
        if (open_worker(sched, i) < 0)
            goto fail;
    *out = sched;
    return 0;
fail:
    np_sched_close(sched);
    return -ENOMEM;
}

void np_sched_close(struct np_sched *sched)
{
    for (uint32_t i = 0; sched->workers && i < sched->config.workers_count; i++) {
        np_task_cache_flush(&sched->slab, &sched->workers[i].cache);
        for (int lane = 0; lane < NP_LANES; lane++)
            np_deque_close(&sched->workers[i].deques[lane]);
    }
    np_task_cache_flush(&sched->slab, &sched->foreign);
    np_task_slab_close(&sched->slab);
    np_alarms_close(&sched->alarms);
    free(sched->workers);
    free(sched);
}

void np_sched_set_clock(struct np_sched *sched, int64_t now_ns)
{
    NP_ASSERT(sched->config.is_virtual);
    atomic_store_explicit(&sched->virtual_ns, now_ns, memory_order_relaxed);
}

struct np_task *np_sched_get(struct np_sched *sched)
{
    np_lock_take(&sched->foreign_lock);
    struct np_task *task = np_task_get(&sched->slab, &sched->foreign);
    np_lock_drop(&sched->foreign_lock);
    return task;
}

void np_sched_put(struct np_sched *sched, struct np_task *task)
{
    np_lock_take(&sched->foreign_lock);
    np_task_put(&sched->slab, &sched->foreign, task);
    np_lock_drop(&sched->foreign_lock);
}

/* ---- pushing -------------------------------------------------------------------------------- */

/* Notes when the wait began, if it is one of those that are measured. */
static void stamp(struct np_sched *sched, struct np_task *task, int lane, uint32_t tick)
{
    int is_measured = lane <= NP_LANE_HIGH || tick % NP_WAIT_SAMPLE_COUNT == 0;
    task->queued_ns = is_measured ? np_sched_now_ns(sched) : 0;
}

static void push_home(struct np_sched *sched, struct np_task *task, int lane)
{
    NP_ASSERT(task->home < sched->config.workers_count);
    struct np_worker *home = &sched->workers[task->home];
    np_injector_push(&home->mail, lane, task, task, 1);
    np_sched_notify_home(sched, home);
}

static int stamp_foreign(struct np_sched *sched, struct np_task *task)
{
    int lane = np_task_lane(task);
    uint32_t tick = atomic_load_explicit(&sched->foreign_stamps, memory_order_relaxed);
    /* Two threads may count as one: it only says which waits are measured. */
    atomic_store_explicit(&sched->foreign_stamps, tick + 1, memory_order_relaxed);
    stamp(sched, task, lane, tick);
    return lane;
}

void np_sched_push(struct np_sched *sched, struct np_task *task)
{
    int lane = stamp_foreign(sched, task);
    if (NP_UNLIKELY(task->home != NP_HOME_ANY)) {
        push_home(sched, task, lane);
        return;
    }
    np_injector_push(&sched->injector, lane, task, task, 1);
    np_sched_notify(sched);
}

int np_sched_offer(struct np_sched *sched, struct np_task *task)
{
    int lane = stamp_foreign(sched, task);
    uint32_t home = task->home;
    NP_ASSERT(home == NP_HOME_ANY || home < sched->config.workers_count);
    struct np_injector *injector = home == NP_HOME_ANY ? &sched->injector
                                                       : &sched->workers[home].mail;
    int rc = np_injector_offer(injector, lane, task);
    if (rc == 0 && home == NP_HOME_ANY)
        np_sched_notify(sched);
    else if (rc == 0)
        np_sched_notify_home(sched, &sched->workers[home]);
    return rc;
}

/* The deque is full: half of it, and the new task, go where everybody finds them. */
static void overflow(struct np_worker *worker, int lane, struct np_task *task)
{
    struct np_task *moved[NP_MOVE_MAX_COUNT];
    uint32_t count = np_deque_steal(&worker->deques[lane], moved, NP_MOVE_MAX_COUNT);
    if (count == 0 && np_deque_push(&worker->deques[lane], task) == 0)
        return; /* a thief was there in this moment */
    for (uint32_t i = 0; i + 1 < count; i++)
        moved[i]->next = moved[i + 1];
    if (count > 0)
        moved[count - 1]->next = task;
    np_injector_push(&worker->sched->injector, lane, count ? moved[0] : task, task, count + 1);
    np_count(&worker->stats.overflowed, count + 1);
}

void np_worker_push(struct np_worker *worker, struct np_task *task)
{
    int lane = np_task_lane(task);
    stamp(worker->sched, task, lane, worker->stamps++);
    if (NP_UNLIKELY(task->home != NP_HOME_ANY)) {
        push_home(worker->sched, task, lane);
        return;
    }
    worker->deques_mask |= 1u << lane;
    if (NP_UNLIKELY(np_deque_push(&worker->deques[lane], task) < 0))
        overflow(worker, lane, task);
    np_sched_notify(worker->sched);
}

/* ---- counts --------------------------------------------------------------------------------- */

uint64_t np_sched_injected_count(const struct np_sched *sched, int lane)
{
    return np_injector_count(&sched->injector, lane);
}

uint64_t np_sched_records_count(struct np_sched *sched)
{
    np_lock_take(&sched->foreign_lock);
    uint64_t cached = sched->foreign.head_count;
    cached += sched->foreign.spare ? NP_TASK_MAGAZINE_COUNT : 0;
    uint64_t count = np_task_slab_live_count(&sched->slab) - cached;
    np_lock_drop(&sched->foreign_lock);
    return count;
}
