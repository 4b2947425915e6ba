/* np_worker.c - what a worker takes: out of its own queues, the injector, other workers' queues.
 *
 * The lowest of the three files: np_idle.c searches with it, np_sched.c pushes and wakes.
 */
#include "sched/np_sched.h"

/* A fair share of the injector's lane: the first to run, the others into the worker's queue. */
static struct np_task *refill(struct np_worker *worker, int lane, uint32_t max)
{
    struct np_injector *injector = &worker->sched->injector;
    uint64_t share = np_injector_count(injector, lane) / worker->sched->config.workers_count + 1;
    struct np_task *first = np_injector_take(injector, lane, share < max ? (uint32_t)share : max);
    if (!first)
        return NULL;
    struct np_task *task = first->next;
    while (task) {
        struct np_task *next = task->next;
        int rc = np_deque_push(&worker->deques[lane], task);
        NP_ASSERT(rc == 0); /* the caller has seen to the room */
        worker->deques_mask |= 1u << lane;
        task = next;
    }
    return first;
}

static struct np_task *take(struct np_worker *worker, int lane)
{
    uint32_t turn = worker->turns[lane]++;
    struct np_task *task = NULL;
    /* Turn about with its own queue, so that neither holds the other back. */
    if (turn % 2 == 0 && (task = np_injector_take(&worker->mail, lane, 1)) != NULL)
        return task;
    uint32_t last = NP_INJECTOR_INTERVAL_COUNT - 1; /* odd, so that it is not the mail's turn */
    if (turn % NP_INJECTOR_INTERVAL_COUNT == last && (task = refill(worker, lane, 1)) != NULL)
        return task;
    if (worker->deques_mask >> lane & 1) {
        task = np_deque_pop(&worker->deques[lane]);
        if (task)
            return task;
        worker->deques_mask &= ~(1u << lane);
    }
    uint32_t room = worker->sched->config.deque_slots / 2;
    task = refill(worker, lane, room < NP_MOVE_MAX_COUNT ? room : NP_MOVE_MAX_COUNT);
    return task ? task : np_injector_take(&worker->mail, lane, 1);
}

static void account(struct np_worker *worker, struct np_task *task, int lane)
{
    np_count(&worker->stats.dispatched, 1);
    if (task->queued_ns == 0)
        return;
    int64_t wait_ns = np_sched_now_ns(worker->sched) - task->queued_ns;
    int bucket = wait_ns > 0 ? 64 - __builtin_clzll((uint64_t)wait_ns) : 0;
    if (bucket >= NP_WAIT_BUCKETS)
        bucket = NP_WAIT_BUCKETS - 1;
    np_count(&worker->stats.waits[lane][bucket], 1);
}

struct np_task *np_worker_next(struct np_worker *worker)
{
    struct np_sched *sched = worker->sched;
    for (;;) {
        uint32_t lanes_mask = worker->deques_mask | np_injector_mask(&sched->injector) |
                              np_injector_mask(&worker->mail);
        if (lanes_mask == 0)
            return NULL;
        int lane = np_lane_pick(&worker->ages, lanes_mask);
        struct np_task *task = take(worker, lane);
        if (NP_LIKELY(task != NULL)) {
            account(worker, task, lane);
            return task;
        }
    }
}

void np_worker_was_stale(struct np_worker *worker)
{
    np_count(&worker->stats.stale, 1);
}

static uint64_t next_random(struct np_worker *worker)
{
    worker->random ^= worker->random >> 12;
    worker->random ^= worker->random << 25;
    worker->random ^= worker->random >> 27;
    return worker->random * UINT64_C(0x2545F4914F6CDD1D); /* xorshift64* */
}

static uint32_t steal_from(struct np_worker *worker, struct np_worker *victim)
{
    struct np_task *moved[NP_MOVE_MAX_COUNT];
    uint32_t room = worker->sched->config.deque_slots;
    for (int lane = 0; lane < NP_LANES; lane++) {
        uint32_t count = np_deque_steal(&victim->deques[lane], moved,
                                        room < NP_MOVE_MAX_COUNT ? room : NP_MOVE_MAX_COUNT);
        for (uint32_t i = 0; i < count; i++) {
            int rc = np_deque_push(&worker->deques[lane], moved[i]);
            NP_ASSERT(rc == 0); /* it is empty: who has something does not steal */
        }
        if (count) {
            worker->deques_mask |= 1u << lane;
            np_count(&worker->stats.stolen, count);
            return count;
        }
    }
    return 0;
}

uint32_t np_worker_steal(struct np_worker *worker)
{
    uint32_t workers_count = worker->sched->config.workers_count;
    uint32_t first = (uint32_t)((next_random(worker) >> 32) * workers_count >> 32);
    NP_DCHECK(worker->deques_mask == 0);
    for (uint32_t i = 0; i < workers_count; i++) {
        struct np_worker *victim = &worker->sched->workers[(first + i) % workers_count];
        uint32_t count = victim == worker ? 0 : steal_from(worker, victim);
        if (count)
            return count;
    }
    return 0;
}

void np_worker_end(struct np_worker *worker)
{
    np_task_cache_flush(&worker->sched->slab, &worker->cache);
}

/* ---- counts --------------------------------------------------------------------------------- */

uint64_t np_worker_queued_count(const struct np_worker *worker, int lane)
{
    return np_deque_count(&worker->deques[lane]) + np_injector_count(&worker->mail, lane);
}

static uint64_t number(const _Atomic(uint64_t) *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void np_worker_read_stats(const struct np_worker *worker, struct np_worker_numbers *out)
{
    const struct np_worker_stats *stats = &worker->stats;
    out->executed = number(&stats->dispatched) - number(&stats->stale);
    out->stolen = number(&stats->stolen);
    out->parked = number(&stats->parked);
    out->woken = number(&stats->woken);
    out->overflowed = number(&stats->overflowed);
    for (int lane = 0; lane < NP_LANES; lane++)
        for (int bucket = 0; bucket < NP_WAIT_BUCKETS; bucket++)
            out->waits[lane][bucket] = number(&stats->waits[lane][bucket]);
}
