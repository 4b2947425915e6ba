/* np_task.c - the states of a task, and the slab of records.
 *
 * The slab follows J. Bonwick's magazines (USENIX 2001): threads get and put records in their own
 * caches and trade whole magazines with the slab, so its lock is taken once per
 * NP_TASK_MAGAZINE_COUNT records, wherever they were allocated and wherever they end.
 */
#include "sched/np_task.h"

#include <stdlib.h>

#include "base/np_limits.h"

struct np_task_chunk {
    _Alignas(64) struct np_task tasks[NP_TASK_CHUNK_COUNT];
    struct np_task_chunk *next;
};

NP_STATIC_ASSERT(NP_TASK_CHUNK_COUNT % NP_TASK_MAGAZINE_COUNT == 0, "chunks are whole magazines");

void np_task_init(struct np_task *task, uint8_t kind, uint8_t lane)
{
    *task = (struct np_task){.kind = kind, .home = NP_HOME_ANY};
    atomic_init(&task->state, 0);
    atomic_init(&task->lane, lane);
}

/* The state that follows `state` when the task is to be queued, and how. */
static int queued_from(uint32_t state, uint32_t *out)
{
    *out = state | NP_TASK_QUEUED | NP_TASK_NODE;
    return state & NP_TASK_NODE ? NP_TASK_PUSH_TICKET : NP_TASK_PUSH;
}

int np_task_wake(struct np_task *task)
{
    uint32_t state = atomic_load_explicit(&task->state, memory_order_relaxed), next;
    int verdict;
    do {
        if (state & (NP_TASK_QUEUED | NP_TASK_NOTIFIED | NP_TASK_DONE)) {
            next = state; /* a write all the same: the claim must see what the waker wrote */
            verdict = NP_TASK_LEAVE;
        } else if (state & NP_TASK_RUNNING) {
            next = state | NP_TASK_NOTIFIED;
            verdict = NP_TASK_LEAVE;
        } else {
            verdict = queued_from(state, &next);
        }
        /* Release: pairs with the acquire in np_task_claim and np_task_pause. */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &state, next,
                                                    memory_order_acq_rel, memory_order_relaxed));
    return verdict;
}

int np_task_claim(struct np_task *task, int is_node)
{
    uint32_t state = atomic_load_explicit(&task->state, memory_order_relaxed), next;
    int claimed;
    do {
        next = is_node ? state & ~(uint32_t)NP_TASK_NODE : state;
        claimed = (state & NP_TASK_QUEUED) != 0;
        if (claimed)
            next = (next & ~(uint32_t)NP_TASK_QUEUED) | NP_TASK_RUNNING | NP_TASK_BEGUN;
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &state, next,
                                                    memory_order_acq_rel, memory_order_relaxed));
    return claimed;
}

int np_task_pause(struct np_task *task)
{
    uint32_t state = atomic_load_explicit(&task->state, memory_order_relaxed), next;
    int verdict;
    do {
        NP_DCHECK(state & NP_TASK_RUNNING);
        verdict = NP_TASK_LEAVE;
        next = state & ~(uint32_t)(NP_TASK_RUNNING | NP_TASK_NOTIFIED);
        if (state & NP_TASK_NOTIFIED)
            verdict = queued_from(next, &next);
        /* Release: the next worker continues where this one stopped. */
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &state, next,
                                                    memory_order_acq_rel, memory_order_relaxed));
    return verdict;
}

void np_task_finish(struct np_task *task)
{
    uint32_t state = atomic_load_explicit(&task->state, memory_order_relaxed), next;
    do {
        next = (state & NP_TASK_NODE) | NP_TASK_DONE;
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &state, next,
                                                    memory_order_acq_rel, memory_order_relaxed));
}

int np_task_revoke(struct np_task *task)
{
    uint32_t state = atomic_load_explicit(&task->state, memory_order_relaxed), next;
    do {
        if (state & (NP_TASK_BEGUN | NP_TASK_DONE))
            return 0;
        next = (state & NP_TASK_NODE) | NP_TASK_DONE;
    } while (!atomic_compare_exchange_weak_explicit(&task->state, &state, next,
                                                    memory_order_acq_rel, memory_order_relaxed));
    return 1;
}

/* ---- the slab ------------------------------------------------------------------------------- */

void np_task_slab_init(struct np_task_slab *slab)
{
    *slab = (struct np_task_slab){0};
}

void np_task_slab_close(struct np_task_slab *slab)
{
    NP_DCHECK(np_task_slab_live_count(slab) == 0);
    while (slab->chunks) {
        struct np_task_chunk *chunk = slab->chunks;
        slab->chunks = chunk->next;
        free(chunk);
    }
    *slab = (struct np_task_slab){0};
}

uint64_t np_task_slab_live_count(struct np_task_slab *slab)
{
    np_lock_take(&slab->lock);
    uint64_t count = (uint64_t)slab->chunks_count * NP_TASK_CHUNK_COUNT - slab->free_count;
    np_lock_drop(&slab->lock);
    return count;
}

/* Cuts a new chunk into magazines. The slab's lock is held. */
static int add_chunk(struct np_task_slab *slab)
{
    struct np_task_chunk *chunk = aligned_alloc(_Alignof(struct np_task_chunk), sizeof(*chunk));
    if (!chunk)
        return 0;
    chunk->next = slab->chunks;
    slab->chunks = chunk;
    slab->chunks_count++;
    slab->free_count += NP_TASK_CHUNK_COUNT;
    for (uint32_t i = NP_TASK_CHUNK_COUNT; i-- > 0;) {
        struct np_task *task = &chunk->tasks[i];
        int is_last = i % NP_TASK_MAGAZINE_COUNT == NP_TASK_MAGAZINE_COUNT - 1;
        np_task_init(task, 0, NP_LANE_NORMAL);
        task->is_slab = 1;
        task->next = is_last ? NULL : task + 1;
        if (i % NP_TASK_MAGAZINE_COUNT == 0) {
            task->argument = slab->full;
            slab->full = task;
        }
    }
    return 1;
}

static struct np_task *take_magazine(struct np_task_slab *slab)
{
    struct np_task *head = NULL;
    np_lock_take(&slab->lock);
    if (slab->full || add_chunk(slab)) {
        head = slab->full;
        slab->full = head->argument;
        slab->free_count -= NP_TASK_MAGAZINE_COUNT;
    }
    np_lock_drop(&slab->lock);
    return head;
}

static void give_magazine(struct np_task_slab *slab, struct np_task *head)
{
    np_lock_take(&slab->lock);
    head->argument = slab->full;
    slab->full = head;
    slab->free_count += NP_TASK_MAGAZINE_COUNT;
    np_lock_drop(&slab->lock);
}

struct np_task *np_task_get(struct np_task_slab *slab, struct np_task_cache *cache)
{
    struct np_task *task = cache->head;
    if (NP_UNLIKELY(!task)) {
        task = cache->spare ? cache->spare : take_magazine(slab);
        if (!task)
            return NULL;
        cache->spare = NULL;
        cache->head_count = NP_TASK_MAGAZINE_COUNT;
    }
    cache->head = task->next;
    cache->head_count--;
    NP_ASSERT((task->generation & 1) == 0);
    task->generation++;
    task->next = NULL;
    return task;
}

void np_task_put(struct np_task_slab *slab, struct np_task_cache *cache, struct np_task *task)
{
    NP_ASSERT(task->is_slab);
    NP_ASSERT(task->generation & 1);
    task->generation++;
    if (NP_UNLIKELY(cache->head_count == NP_TASK_MAGAZINE_COUNT)) {
        if (cache->spare)
            give_magazine(slab, cache->spare);
        cache->spare = cache->head;
        cache->head = NULL;
        cache->head_count = 0;
    }
    task->next = cache->head;
    cache->head = task;
    cache->head_count++;
}

void np_task_cache_flush(struct np_task_slab *slab, struct np_task_cache *cache)
{
    if (cache->spare)
        give_magazine(slab, cache->spare);
    /* A magazine that is not full cannot go back as one: its records are lent to the count. They
     * stay in their chunk, which the slab frees; nobody gets them again. */
    np_lock_take(&slab->lock);
    slab->free_count += cache->head_count;
    np_lock_drop(&slab->lock);
    *cache = (struct np_task_cache){0};
}
