/* np_seats.h - what the processes on the same listening sockets tell each other.
 *
 * Purpose   The kernel wakes every process that waits for a connection, and the one that is awake
 *           first takes it: of four processes the first would have nearly all connections. So each
 *           process writes into its seat how many connections it has, and one that has more than
 *           the others lets them go first. And it writes when its loops have run: a parent can tell
 *           a process whose loop is stuck, whatever holds its interpreter's lock.
 * Ownership The memory is the caller's: an array of seats, zeroed, shared by the processes.
 *           A seat is written by the process that has it; by its parent when it has none.
 * Threads   Any, in any process. Each word is true by itself; nothing is told of two of them.
 */
#ifndef NP_SEATS_H
#define NP_SEATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/np_limits.h"

/* One cache line, so that the processes do not wait for each other's. */
struct np_seat {
    _Alignas(64) _Atomic int64_t load; /* connections + 1; 0: nobody deals by this seat */
    _Atomic int64_t beat_ns;           /* when its loops have last run: CLOCK_MONOTONIC */
};
_Static_assert(sizeof(struct np_seat) == 64, "a seat is a cache line");

static inline void np_seat_set(struct np_seat *seat, int64_t connections)
{
    atomic_store_explicit(&seat->load, connections + 1, memory_order_relaxed);
}

static inline void np_seat_leave(struct np_seat *seat)
{
    atomic_store_explicit(&seat->load, 0, memory_order_relaxed);
}

static inline void np_seat_beat(struct np_seat *seat, int64_t now_ns)
{
    atomic_store_explicit(&seat->beat_ns, now_ns, memory_order_relaxed);
}

static inline int64_t np_seat_beat_ns(const struct np_seat *seat)
{
    return atomic_load_explicit(&seat->beat_ns, memory_order_relaxed);
}

/* The process with this seat has more connections than another one: more than chance does. */
static inline int np_seat_is_heavy(const struct np_seat *seats, uint32_t count, uint32_t own)
{
    int64_t least = INT64_MAX;
    for (uint32_t i = 0; i < count; i++) {
        int64_t load = atomic_load_explicit(&seats[i].load, memory_order_relaxed);
        if (load > 0 && load < least)
            least = load;
    }
    int64_t load = atomic_load_explicit(&seats[own].load, memory_order_relaxed);
    return load > least && load - least > least / NP_SEAT_SLACK_PARTS;
}

#endif
