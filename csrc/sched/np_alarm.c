/* np_alarm.c - the heap of np_timer.c under a lock, with its earliest deadline in sight. */
#include "sched/np_alarm.h"

void np_alarms_init(struct np_alarms *alarms)
{
    *alarms = (struct np_alarms){0};
    np_timer_heap_init(&alarms->heap);
    atomic_init(&alarms->next_ns, NP_ALARM_NEVER_NS);
}

void np_alarms_close(struct np_alarms *alarms)
{
    np_timer_heap_close(&alarms->heap);
}

static void publish(struct np_alarms *alarms)
{
    struct np_timer *first = np_timer_peek(&alarms->heap);
    int64_t next_ns = first ? first->when_ns : NP_ALARM_NEVER_NS;
    /* Sequentially consistent: who adds an alarm then asks who sleeps (np_sched.c). */
    if (next_ns != atomic_load_explicit(&alarms->next_ns, memory_order_relaxed))
        atomic_store_explicit(&alarms->next_ns, next_ns, memory_order_seq_cst);
}

int np_alarms_add(struct np_alarms *alarms, struct np_timer *timer)
{
    np_lock_take(&alarms->lock);
    int rc = np_timer_add(&alarms->heap, timer);
    if (rc == 0) {
        rc = np_timer_peek(&alarms->heap) == timer;
        publish(alarms);
    }
    np_lock_drop(&alarms->lock);
    return rc;
}

int np_alarms_remove(struct np_alarms *alarms, struct np_timer *timer)
{
    np_lock_take(&alarms->lock);
    int was_armed = timer->pos != 0;
    np_timer_remove(&alarms->heap, timer);
    publish(alarms);
    np_lock_drop(&alarms->lock);
    return was_armed;
}

struct np_timer *np_alarms_pop_due(struct np_alarms *alarms, int64_t now_ns)
{
    if (np_alarms_next_ns(alarms) > now_ns)
        return NULL;
    np_lock_take(&alarms->lock);
    struct np_timer *timer = np_timer_pop_due(&alarms->heap, now_ns);
    publish(alarms);
    np_lock_drop(&alarms->lock);
    return timer;
}
