/* np_alarm.h - the timers of all workers: one heap, so that none waits behind a busy worker.
 *
 * Purpose   sleep() and time-outs of tasks. Whichever worker looks first fires what is due; a
 *           worker that sleeps does so until the earliest. One heap under one lock instead of one
 *           per worker: a timer of a worker that computes for a second would be a second late.
 * Ownership The caller embeds struct np_timer and keeps it alive while it is armed.
 * Errors    np_alarms_add: 1 when it is the earliest now, 0 when it is not, -ENOMEM.
 * Threads   Any.
 */
#ifndef NP_ALARM_H
#define NP_ALARM_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/np_lock.h"
#include "io/np_timer.h"

#define NP_ALARM_NEVER_NS INT64_MAX

struct np_alarms {
    struct np_lock lock;
    _Atomic(int64_t) next_ns; /* the earliest deadline, or NP_ALARM_NEVER_NS */
    struct np_timer_heap heap;
};

void np_alarms_init(struct np_alarms *alarms);
void np_alarms_close(struct np_alarms *alarms);
int np_alarms_add(struct np_alarms *alarms, struct np_timer *timer);
/* 1: removed; 0: it was not armed (any more). */
int np_alarms_remove(struct np_alarms *alarms, struct np_timer *timer);
struct np_timer *np_alarms_pop_due(struct np_alarms *alarms, int64_t now_ns);

static inline int64_t np_alarms_next_ns(const struct np_alarms *alarms)
{
    return atomic_load_explicit(&alarms->next_ns, memory_order_seq_cst);
}

#endif
