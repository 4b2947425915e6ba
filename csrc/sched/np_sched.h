/* np_sched.h - workers, their queues, and how a task gets from one to the other.
 *
 *   other threads ──► injector ─────────┐ refill: a fair share
 *                        ▲ half, when full
 *   worker's task ──► deque[lane] ──► np_worker_next ──► the layer above runs it
 *                        │ half                ▲
 *                        └──► idle worker ─────┘       mail: tasks that only this worker may run
 *
 * Purpose   Which record runs next, where. Never calls anything: the layer above asks for the next
 *           task, runs it, asks again, and calls np_worker_idle when there is none.
 * Order     Within a lane first in, first out per queue; between lanes see np_lane.h. Every
 *           NP_INJECTOR_INTERVAL_COUNT tasks of a lane the injector comes before the worker's own
 *           queue, and every other time its mail does.
 * Waking    Eager: a push wakes a sleeper unless somebody is searching already. Lazy, for layers
 *           whose tasks run one at a time anyway (the GIL): a push wakes a sleeper only when
 *           nobody is awake; otherwise one is made the watcher, who looks every NP_RESCUE_NS
 *           and steals when tasks wait and none was started since. It goes on looking while the
 *           others start tasks at all, and is made anew by the first push after that.
 * Virtual   Nobody sleeps and the clock stands still until np_sched_set_clock: for tests.
 * Ownership The scheduler owns queues, slab and timers' heap. Tasks that are still queued at close
 *           are the layer's to take out first (np_worker_next of any worker finds all of them).
 * Errors    0 or -ENOMEM, -EINVAL, -ESHUTDOWN.
 * Threads   np_worker_*: the worker's thread. np_sched_*: any; open and close: alone.
 * Files     np_sched.c opens and pushes, np_idle.c searches, sleeps and wakes, np_worker.c takes.
 *           Each calls those after it, never one before.
 */
#ifndef NP_SCHED_H
#define NP_SCHED_H

#include <stdatomic.h>
#include <stdint.h>

#include "sched/np_alarm.h"
#include "sched/np_deque.h"
#include "sched/np_injector.h"
#include "sched/np_lane.h"
#include "sched/np_park.h"

struct np_sched_config {
    uint32_t workers_count;
    uint32_t deque_slots; /* a power of two; 0: NP_DEQUE_DEFAULT_SLOTS */
    uint64_t seed;        /* of the choice of victims */
    uint8_t is_lazy, is_virtual;
};

/* Written by its worker only; read by anybody (relaxed). */
struct np_worker_stats {
    _Atomic(uint64_t) dispatched; /* entries taken from queues */
    _Atomic(uint64_t) stale;      /* of these, entries whose task had been run already */
    _Atomic(uint64_t) stolen;     /* tasks taken from other workers */
    _Atomic(uint64_t) parked;     /* times it went to sleep */
    _Atomic(uint64_t) woken;      /* times somebody woke it */
    _Atomic(uint64_t) overflowed; /* tasks moved to the injector, its queue being full */
    _Atomic(uint64_t) waits[NP_LANES][NP_WAIT_BUCKETS];
};

struct np_worker {
    _Alignas(64) struct np_sched *sched;
    struct np_task_cache cache;
    struct np_lane_ages ages;
    uint32_t index;
    uint32_t deques_mask;     /* a hint: deques that may have something */
    uint32_t turns[NP_LANES]; /* apart: a lane that is served every 34th time must not be in step */
    uint32_t stamps;
    uint64_t random;
    uint64_t seen_dispatched; /* the others' count when it was last the watcher */
    uint8_t is_watching, is_rescuing;
    struct np_worker_stats stats;
    struct np_deque deques[NP_LANES];
    struct np_injector mail;
    struct np_park park;
    _Alignas(64) _Atomic(uint32_t) is_sleeping; /* whoever changes 1 to 0 has woken it */
};

struct np_sched {
    struct np_sched_config config;
    struct np_worker *workers;
    struct np_task_slab slab;
    struct np_lock foreign_lock; /* guards foreign: threads that are no workers */
    struct np_task_cache foreign;
    _Atomic(uint32_t) foreign_stamps;
    struct np_alarms alarms;
    struct np_injector injector;
    _Alignas(64) _Atomic(uint32_t) searching_count;
    _Atomic(uint32_t) sleeping_count;
    _Atomic(uint32_t) has_watcher, is_stopping;
    _Atomic(uint32_t) timekeeper; /* index + 1 of the worker that sleeps until the next alarm */
    _Atomic(int64_t) live_count;  /* what must end before a stopping scheduler's workers go */
    _Atomic(int64_t) virtual_ns;
};

enum np_idle { NP_IDLE_WORK = 0, NP_IDLE_ALARM, NP_IDLE_STOP };

int np_sched_open(struct np_sched **out, const struct np_sched_config *config);
void np_sched_close(struct np_sched *sched);
static inline int64_t np_sched_now_ns(const struct np_sched *sched)
{
    if (sched->config.is_virtual)
        return atomic_load_explicit(&sched->virtual_ns, memory_order_relaxed);
    return np_clock_ns();
}
void np_sched_set_clock(struct np_sched *sched, int64_t now_ns); /* virtual only */

/* Records for posted work; NULL without memory. */
struct np_task *np_sched_get(struct np_sched *sched);
void np_sched_put(struct np_sched *sched, struct np_task *task);
static inline struct np_task *np_worker_get(struct np_worker *worker)
{
    return np_task_get(&worker->sched->slab, &worker->cache);
}
static inline void np_worker_put(struct np_worker *worker, struct np_task *task)
{
    np_task_put(&worker->sched->slab, &worker->cache, task);
}

/* Queues a task in the lane that it names; to its home if it has one. np_sched_push, in a stopping
 * scheduler, only for what live_count counts: its workers may be gone otherwise. */
void np_worker_push(struct np_worker *worker, struct np_task *task);
void np_sched_push(struct np_sched *sched, struct np_task *task);
/* New work of a thread that is no worker: 0, or -ESHUTDOWN once the scheduler is stopping. */
int np_sched_offer(struct np_sched *sched, struct np_task *task);

/* The next task out of the worker's own queues and the injector; NULL: np_worker_idle is next. */
struct np_task *np_worker_next(struct np_worker *worker);
/* The entry that np_worker_next returned had nothing to claim. */
void np_worker_was_stale(struct np_worker *worker);
/* Steals once around; the number of tasks that came. Part of np_worker_idle. */
uint32_t np_worker_steal(struct np_worker *worker);

/* Searches, and sleeps until there is something: enum np_idle. Call without the GIL. */
int np_worker_idle(struct np_worker *worker);
/* The same for a worker that sleeps elsewhere (in its ring; np_park.h, inbox): 1 it may sleep, and
 * calls np_worker_rouse when it no longer does; 0: there is something to do. timeout_ns is cut to
 * the next alarm or look of the watcher, and not touched otherwise. */
int np_worker_doze(struct np_worker *worker, int64_t *timeout_ns);
void np_worker_rouse(struct np_worker *worker);
/* From now on it sleeps in a ring, and is woken through this inbox. */
void np_worker_ride(struct np_worker *worker, struct np_inbox *inbox);
/* No longer: when it returns, nobody will touch the inbox. Not while it dozes. */
void np_worker_alight(struct np_worker *worker);
/* Whether its queues have something, as far as it knows itself: then it must not doze. */
static inline int np_worker_has_own(const struct np_worker *worker)
{
    return worker->deques_mask != 0;
}
/* Whether the scheduler is stopping and nothing is live: what is queued is all that is left. */
int np_worker_is_over(const struct np_worker *worker);

/* The worker ends: its free records go back to the slab. */
void np_worker_end(struct np_worker *worker);

/* An alarm was armed that is the earliest now: somebody must be awake in time. */
void np_sched_alarm_added(struct np_sched *sched);
/* Workers end (NP_IDLE_STOP) when nothing is queued and live_count is 0. */
void np_sched_stop(struct np_sched *sched);
void np_sched_live_add(struct np_sched *sched, int64_t change);
/* Records in use, and those in the caches of workers that have not ended. */
uint64_t np_sched_records_count(struct np_sched *sched);
static inline int64_t np_sched_live_count(const struct np_sched *sched)
{
    return atomic_load(&sched->live_count);
}

/* What stats() reports, as plain numbers; a snapshot. */
struct np_worker_numbers {
    uint64_t executed, stolen, parked, woken, overflowed;
    uint64_t waits[NP_LANES][NP_WAIT_BUCKETS];
};
void np_worker_read_stats(const struct np_worker *worker, struct np_worker_numbers *out);
/* Queued in a lane: in the injector; in a worker's queue and mail. */
uint64_t np_sched_injected_count(const struct np_sched *sched, int lane);
uint64_t np_worker_queued_count(const struct np_worker *worker, int lane);

/* Of np_idle.c, for np_sched.c: something was pushed. */
void np_sched_notify(struct np_sched *sched);
void np_sched_notify_home(struct np_sched *sched, struct np_worker *home);

static inline void np_count(_Atomic(uint64_t) *counter, uint64_t change)
{
    /* One writer: no read-modify-write is needed. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + change,
                          memory_order_relaxed);
}

#endif
