/* np_timer.c - the 4-ary heap.
 *
 * Four children because a node's children then lie in 96 bytes side by side, and the heap is half
 * as deep as a binary one. Both sifts move a hole and write the entry once, at its place.
 */
#include "io/np_timer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/np_assert.h"

#define FIRST_SLOTS 16u

/* A heap below this keeps its memory; above it, memory is given back when 7/8 are unused. */
#define SHRINK_MIN_SLOTS 1024u

__extension__ typedef __int128 timer_key;
__extension__ typedef unsigned __int128 timer_bits;

/* (when, seq) as one number: two instructions to compare and no branch. With two comparisons a
 * pop from a heap of 1000 takes nearly twice as long (37 and 67 ns). */
static inline timer_key slot_key(const struct np_timer_slot *slot)
{
    return (timer_key)((timer_bits)slot->when_ns << 64 | slot->seq);
}

static inline void slot_put(struct np_timer_heap *heap, uint32_t i, struct np_timer_slot slot)
{
    heap->slots[i] = slot;
    slot.timer->pos = i + 1;
}

static void sift_up(struct np_timer_heap *heap, uint32_t i, struct np_timer_slot slot)
{
    timer_key key = slot_key(&slot);
    while (i > 0) {
        uint32_t parent = (i - 1) / 4;
        if (slot_key(&heap->slots[parent]) <= key)
            break;
        slot_put(heap, i, heap->slots[parent]);
        i = parent;
    }
    slot_put(heap, i, slot);
}

static void sift_down(struct np_timer_heap *heap, uint32_t i, struct np_timer_slot slot)
{
    timer_key key = slot_key(&slot);
    for (;;) {
        uint64_t child = (uint64_t)i * 4 + 1;
        if (child >= heap->count)
            break;
        uint64_t end = child + 4 < heap->count ? child + 4 : heap->count;
        uint32_t best = (uint32_t)child;
        timer_key best_key = slot_key(&heap->slots[child]);
        for (uint64_t c = child + 1; c < end; c++) {
            timer_key child_key = slot_key(&heap->slots[c]);
            if (child_key < best_key) {
                best = (uint32_t)c;
                best_key = child_key;
            }
        }
        if (key <= best_key)
            break;
        slot_put(heap, i, heap->slots[best]);
        i = best;
    }
    slot_put(heap, i, slot);
}

static int heap_resize(struct np_timer_heap *heap, uint32_t cap)
{
    struct np_timer_slot *slots = realloc(heap->slots, (size_t)cap * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    heap->slots = slots;
    heap->cap = cap;
    return 0;
}

static __attribute__((noinline, cold)) int heap_grow(struct np_timer_heap *heap)
{
    if (heap->cap > UINT32_MAX / 2)
        return -ENOMEM; /* `pos` has 32 bits */
    return heap_resize(heap, heap->cap ? heap->cap * 2 : FIRST_SLOTS);
}

static __attribute__((noinline, cold)) void heap_shrink(struct np_timer_heap *heap)
{
    (void)heap_resize(heap, heap->cap / 2); /* refused: the larger block stays and serves */
}

/* Takes the entry at `i` out: the heap's last entry fills the hole. */
static void heap_take_out(struct np_timer_heap *heap, uint32_t i)
{
    heap->slots[i].timer->pos = 0;
    heap->count--;
    if (i < heap->count) {
        struct np_timer_slot last = heap->slots[heap->count];
        if (i > 0 && slot_key(&last) < slot_key(&heap->slots[(i - 1) / 4]))
            sift_up(heap, i, last);
        else
            sift_down(heap, i, last);
    }
    if (NP_UNLIKELY(heap->cap > SHRINK_MIN_SLOTS && heap->count < heap->cap / 8))
        heap_shrink(heap);
}

void np_timer_heap_init(struct np_timer_heap *heap)
{
    memset(heap, 0, sizeof(*heap));
}

void np_timer_heap_close(struct np_timer_heap *heap)
{
    for (uint32_t i = 0; i < heap->count; i++)
        heap->slots[i].timer->pos = 0;
    free(heap->slots);
    np_timer_heap_init(heap);
}

int np_timer_add(struct np_timer_heap *heap, struct np_timer *timer)
{
    NP_ASSERT(timer->pos == 0);
    if (NP_UNLIKELY(heap->count == heap->cap)) {
        int rc = heap_grow(heap);
        if (rc < 0)
            return rc;
    }
    timer->seq = heap->next_seq++;
    struct np_timer_slot slot = {timer->when_ns, timer->seq, timer};
    sift_up(heap, heap->count++, slot);
    return 0;
}

void np_timer_remove(struct np_timer_heap *heap, struct np_timer *timer)
{
    if (timer->pos == 0)
        return;
    NP_ASSERT(timer->pos <= heap->count);
    NP_ASSERT(heap->slots[timer->pos - 1].timer == timer);
    heap_take_out(heap, timer->pos - 1);
}

struct np_timer *np_timer_peek(const struct np_timer_heap *heap)
{
    return heap->count ? heap->slots[0].timer : NULL;
}

struct np_timer *np_timer_pop_due(struct np_timer_heap *heap, int64_t now_ns)
{
    if (heap->count == 0 || heap->slots[0].when_ns > now_ns)
        return NULL;
    struct np_timer *timer = heap->slots[0].timer;
    heap_take_out(heap, 0);
    return timer;
}

int64_t np_clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
