/* np_deque.c - a ring with one compare-and-swap, in the manner of the Go run queue's. */
#include "sched/np_deque.h"

#include <errno.h>
#include <stdlib.h>

int np_deque_open(struct np_deque *deque, uint32_t slots_count)
{
    NP_ASSERT(slots_count >= 2);
    NP_ASSERT((slots_count & (slots_count - 1)) == 0);
    atomic_init(&deque->head, 0);
    atomic_init(&deque->tail, 0);
    deque->mask = slots_count - 1;
    deque->slots = calloc(slots_count, sizeof(*deque->slots));
    return deque->slots ? 0 : -ENOMEM;
}

void np_deque_close(struct np_deque *deque)
{
    free(deque->slots);
    deque->slots = NULL;
}

int np_deque_push(struct np_deque *deque, struct np_task *task)
{
    uint64_t tail = atomic_load_explicit(&deque->tail, memory_order_relaxed);
    /* Acquire: pairs with the takers' compare-and-swap. They have read the slot we write over. */
    uint64_t head = atomic_load_explicit(&deque->head, memory_order_acquire);
    if (NP_UNLIKELY(tail - head > deque->mask))
        return -ENOSPC;
    atomic_store_explicit(&deque->slots[tail & deque->mask], task, memory_order_relaxed);
    /* As a release it pairs with the loads of tail below: the task's content. Sequentially
     * consistent, because the pusher then asks who sleeps (np_sched.c, wake_somebody). */
    atomic_store_explicit(&deque->tail, tail + 1, memory_order_seq_cst);
    return 0;
}

struct np_task *np_deque_pop(struct np_deque *deque)
{
    uint64_t head = atomic_load_explicit(&deque->head, memory_order_acquire);
    struct np_task *task;
    do {
        if (head >= atomic_load_explicit(&deque->tail, memory_order_acquire))
            return NULL;
        task = atomic_load_explicit(&deque->slots[head & deque->mask], memory_order_relaxed);
        /* Release: the slot has been read before the owner may see that it is free. */
    } while (!atomic_compare_exchange_weak_explicit(&deque->head, &head, head + 1,
                                                    memory_order_acq_rel, memory_order_acquire));
    return task;
}

uint32_t np_deque_steal(struct np_deque *deque, struct np_task **out, uint32_t max)
{
    uint64_t head = atomic_load_explicit(&deque->head, memory_order_acquire);
    uint64_t tail = atomic_load_explicit(&deque->tail, memory_order_acquire);
    uint64_t count = tail > head ? tail - head : 0;
    if (count > deque->mask + 1)
        return 0; /* head is old: the compare-and-swap would fail */
    count -= count / 2;
    if (count > max)
        count = max;
    for (uint64_t i = 0; i < count; i++)
        out[i] = atomic_load_explicit(&deque->slots[(head + i) & deque->mask],
                                      memory_order_relaxed);
    if (count == 0 ||
        !atomic_compare_exchange_strong_explicit(&deque->head, &head, head + count,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return 0;
    return (uint32_t)count;
}

uint64_t np_deque_count(const struct np_deque *deque)
{
    /* head first: it can only be behind, so the difference is never negative for long; and tail
     * sequentially consistent, for the worker that is about to sleep. */
    uint64_t head = atomic_load_explicit(&deque->head, memory_order_seq_cst);
    uint64_t tail = atomic_load_explicit(&deque->tail, memory_order_seq_cst);
    return tail > head ? tail - head : 0;
}
