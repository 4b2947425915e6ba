/* np_pace.h - when the requests of a window are due, and which connections wait for one.
 *
 * Purpose   Both load generators keep to it: in a closed loop a connection asks again at once; in
 *           an open one request N is due N intervals after the window's begin, whoever is free
 *           takes it, and its latency counts from when it was due.
 * Ownership The load generator allocates idle, a place for each connection, and frees it.
 * Threads   One at a time.
 */
#ifndef NP_PACE_H
#define NP_PACE_H

#include <stdint.h>

struct np_pace {
    int64_t start_ns, deadline_ns; /* of the window */
    int64_t interval_ns;           /* between two requests that are due; 0: closed loop */
    int64_t begun_count;           /* requests of an open loop */
    uint32_t *idle;                /* connections that wait until a request is due */
    uint32_t idle_count;
};

static inline void np_pace_begin(struct np_pace *pace, int64_t start_ns, int64_t duration_ns,
                                 int64_t interval_ns)
{
    pace->start_ns = start_ns;
    pace->deadline_ns = start_ns + duration_ns;
    pace->interval_ns = interval_ns;
    pace->begun_count = 0;
    pace->idle_count = 0;
}

static inline int64_t np_pace_due_ns(const struct np_pace *pace)
{
    return pace->start_ns + pace->begun_count * pace->interval_ns;
}

/* 1 while requests of an open loop have to begin, now or later. */
static inline int np_pace_has_more(const struct np_pace *pace)
{
    return pace->interval_ns && np_pace_due_ns(pace) < pace->deadline_ns;
}

/* 1 when a request is due: the caller begins it, and counts from *start_ns. */
static inline int np_pace_take(struct np_pace *pace, int64_t now_ns, int64_t *start_ns)
{
    *start_ns = pace->interval_ns ? np_pace_due_ns(pace) : now_ns;
    if (*start_ns > now_ns || *start_ns >= pace->deadline_ns)
        return 0;
    pace->begun_count++;
    return 1;
}

/* A connection has nothing to ask; in a closed loop it is done. */
static inline void np_pace_rest(struct np_pace *pace, uint32_t index)
{
    if (pace->interval_ns)
        pace->idle[pace->idle_count++] = index;
}

/* While a request is about to be due nobody sleeps: waking up takes as long as an answer does. */
static inline int np_pace_wait_ms(const struct np_pace *pace, int max_ms)
{
    return pace->idle_count > 0 && np_pace_has_more(pace) ? 0 : max_ms;
}

#endif
