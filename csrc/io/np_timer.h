/* np_timer.h - timers: an intrusive 4-ary min-heap on (when, order of arming).
 *
 * Purpose   call_later/call_at. Cancelling removes the entry at once (no tombstones), so a million
 *           cancelled time-outs leave nothing behind.
 * Order     Equal deadlines fire in the order in which they were armed.
 * Ownership The caller embeds struct np_timer in its own object and keeps that object alive while
 *           the timer is armed; the heap stores the pointer and writes only `pos`.
 * Errors    np_timer_add: 0 or -ENOMEM. Everything else cannot fail.
 * Threads   The loop's thread only.
 */
#ifndef NP_TIMER_H
#define NP_TIMER_H

#include <stdint.h>

struct np_timer {
    int64_t when_ns; /* CLOCK_MONOTONIC; negative is allowed and simply due */
    uint64_t seq;    /* written by np_timer_add */
    uint32_t pos;    /* index in the heap + 1; 0 = not armed */
};

struct np_timer_slot { /* keys beside the pointers: sifting does not chase them */
    int64_t when_ns;
    uint64_t seq;
    struct np_timer *timer;
};

struct np_timer_heap {
    struct np_timer_slot *slots;
    uint32_t count;
    uint32_t cap;
    uint64_t next_seq;
};

void np_timer_heap_init(struct np_timer_heap *heap);
void np_timer_heap_close(struct np_timer_heap *heap); /* armed timers are simply forgotten */
int np_timer_add(struct np_timer_heap *heap, struct np_timer *timer);
/* No-op when not armed. */
void np_timer_remove(struct np_timer_heap *heap, struct np_timer *timer);
/* The earliest timer, or NULL. */
struct np_timer *np_timer_peek(const struct np_timer_heap *heap);
/* Removes and returns the earliest timer when its deadline is <= now_ns, else NULL. */
struct np_timer *np_timer_pop_due(struct np_timer_heap *heap, int64_t now_ns);
/* CLOCK_MONOTONIC now, in nanoseconds. */
int64_t np_clock_ns(void);

#endif
