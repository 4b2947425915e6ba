/* np_idle.c - searching, sleeping, waking: no wake-up is lost, and none is made for nothing.
 *
 *    busy ── nothing left ──► SEARCHING ── nothing found ──► SLEEPING
 *      ▲                        │    ▲                          │
 *      └───── found, alarm ─────┘    └────────── woken ─────────┘
 *
 * The rule: a push, then a look at searching_count and is_sleeping; going to sleep, then a last
 * look at the queues. All four sequentially consistent, so that one side sees the other (the
 * store-buffer pattern):
 *   - a pusher that sees a searcher may leave: the searcher either takes a last look after its
 *     searching_count went down, or found something else and then, as the last one, looks again
 *     and wakes the next (search_over);
 *   - a pusher that sees none wakes a sleeper, by changing its is_sleeping from 1 to 0.
 */
#include "sched/np_sched.h"

#include <sched.h>

static uint32_t load(const _Atomic(uint32_t) *word)
{
    return atomic_load_explicit(word, memory_order_seq_cst);
}

static int wake_worker(struct np_sched *sched, struct np_worker *worker)
{
    uint32_t expected = 1;
    if (!atomic_compare_exchange_strong(&worker->is_sleeping, &expected, 0))
        return 0;
    atomic_fetch_add(&sched->searching_count, 1); /* on its behalf: nobody need wake another */
    atomic_fetch_sub(&sched->sleeping_count, 1);
    np_park_wake(&worker->park);
    return 1;
}

static int wake_somebody(struct np_sched *sched)
{
    for (uint32_t i = 0; i < sched->config.workers_count; i++)
        if (wake_worker(sched, &sched->workers[i]))
            return 1;
    return 0;
}

static int is_anybody_else_awake(struct np_sched *sched, int me)
{
    return load(&sched->sleeping_count) + (uint32_t)me < sched->config.workers_count;
}

void np_sched_notify(struct np_sched *sched)
{
    if (load(&sched->sleeping_count) == 0 || load(&sched->searching_count) > 0)
        return;
    if (sched->config.is_lazy && is_anybody_else_awake(sched, 0)) {
        /* It will come to this task, unless it is blocked. Somebody should see to that. A woken
         * sleeper finds that others are awake, and becomes the watcher (np_worker_doze). */
        if (load(&sched->has_watcher))
            return;
    }
    wake_somebody(sched);
}

void np_sched_notify_home(struct np_sched *sched, struct np_worker *home)
{
    wake_worker(sched, home);
}

/* Neither asleep nor searching. A searcher needs no watcher: when it finds something and leaves
 * more, it wakes the next. Were it watched, the worker that has just woken it would become the
 * watcher for a short sleep, the searcher would go to sleep without a watch, and be woken by the
 * next push, for nothing, again and again. Called by a worker that is counted asleep. */
static int is_anybody_busy(struct np_sched *sched)
{
    return load(&sched->sleeping_count) + load(&sched->searching_count) <
           sched->config.workers_count;
}

static int has_any_work(struct np_sched *sched)
{
    if (np_injector_mask(&sched->injector))
        return 1;
    for (uint32_t i = 0; i < sched->config.workers_count; i++)
        for (int lane = 0; lane < NP_LANES; lane++)
            if (np_deque_count(&sched->workers[i].deques[lane]))
                return 1;
    return 0;
}

static int is_over(struct np_sched *sched)
{
    return load(&sched->is_stopping) && atomic_load(&sched->live_count) == 0;
}

/* Whether this worker should take what others could: in lazy mode only if nobody else will. */
static int may_take(struct np_worker *worker, int is_counted_asleep)
{
    struct np_sched *sched = worker->sched;
    return !sched->config.is_lazy || worker->is_rescuing || is_over(sched) ||
           !is_anybody_else_awake(sched, !is_counted_asleep);
}

static int is_alarm_due(struct np_sched *sched)
{
    int64_t next_ns = np_alarms_next_ns(&sched->alarms);
    return next_ns != NP_ALARM_NEVER_NS && next_ns <= np_sched_now_ns(sched);
}

/* What all the others have started so far. */
static uint64_t others_dispatched(const struct np_worker *worker)
{
    struct np_sched *sched = worker->sched;
    uint64_t total = 0;
    for (uint32_t i = 0; i < sched->config.workers_count; i++)
        if (i != worker->index)
            total += atomic_load_explicit(&sched->workers[i].stats.dispatched,
                                          memory_order_relaxed);
    return total;
}

/* ---- searching ------------------------------------------------------------------------------ */

static void search_over(struct np_worker *worker)
{
    struct np_sched *sched = worker->sched;
    worker->is_rescuing = 0;
    /* Whoever pushed while we searched has relied on us: the last searcher looks for them. */
    if (atomic_fetch_sub(&sched->searching_count, 1) == 1 && load(&sched->sleeping_count) &&
        has_any_work(sched))
        np_sched_notify(sched);
}

/* 1: something is there for np_worker_next. The worker is searching. */
static int search(struct np_worker *worker)
{
    if (np_injector_mask(&worker->mail))
        return 1;
    if (!may_take(worker, 0))
        return 0;
    return np_injector_mask(&worker->sched->injector) != 0 || np_worker_steal(worker) != 0;
}

/* ---- sleeping ------------------------------------------------------------------------------- */

/* From sleeping back to searching, by itself. If somebody else was faster, it did the counting. */
static void wake_self(struct np_worker *worker)
{
    struct np_sched *sched = worker->sched;
    uint32_t expected = 1;
    if (atomic_compare_exchange_strong(&worker->is_sleeping, &expected, 0)) {
        atomic_fetch_add(&sched->searching_count, 1);
        atomic_fetch_sub(&sched->sleeping_count, 1);
    } else {
        np_count(&worker->stats.woken, 1);
    }
}

static void leave_posts(struct np_worker *worker)
{
    uint32_t mine = worker->index + 1;
    atomic_compare_exchange_strong(&worker->sched->timekeeper, &mine, 0);
    if (worker->is_watching) {
        worker->is_watching = 0;
        atomic_store(&worker->sched->has_watcher, 0);
    }
}

/* Sleeping until what? Takes the posts of timekeeper and watcher if they are free and needed. */
static int64_t sleep_limit_ns(struct np_worker *worker, int64_t limit_ns)
{
    struct np_sched *sched = worker->sched;
    uint32_t nobody = 0;
    if (np_alarms_next_ns(&sched->alarms) != NP_ALARM_NEVER_NS &&
        atomic_compare_exchange_strong(&sched->timekeeper, &nobody, worker->index + 1)) {
        /* Read again: now whoever adds an earlier one sees that we keep the time. */
        int64_t next_ns = np_alarms_next_ns(&sched->alarms);
        int64_t left_ns = next_ns - np_sched_now_ns(sched);
        if (next_ns != NP_ALARM_NEVER_NS && (limit_ns < 0 || left_ns < limit_ns))
            limit_ns = left_ns > 0 ? left_ns : 0;
    }
    /* A worker that sleeps briefly and often may be asleep just now; had it no watcher for that, it
     * would wake one each time. One that has done nothing since the last look needs none. */
    uint64_t dispatched = others_dispatched(worker);
    if (sched->config.is_lazy &&
        (is_anybody_busy(sched) || dispatched != worker->seen_dispatched) &&
        atomic_exchange(&sched->has_watcher, 1) == 0) {
        worker->is_watching = 1;
        worker->seen_dispatched = dispatched;
    }
    if (worker->is_watching && (limit_ns < 0 || limit_ns > NP_RESCUE_NS))
        limit_ns = NP_RESCUE_NS;
    return limit_ns;
}

/* A searching worker goes to sleep. 1: it sleeps; 0: it saw something and still searches. */
static int fall_asleep(struct np_worker *worker, int64_t *timeout_ns)
{
    struct np_sched *sched = worker->sched;
    atomic_store(&worker->is_sleeping, 1);
    atomic_fetch_add(&sched->sleeping_count, 1);
    atomic_fetch_sub(&sched->searching_count, 1);
    if (is_over(sched) || is_alarm_due(sched) || np_injector_mask(&worker->mail) ||
        (has_any_work(sched) && may_take(worker, 1))) {
        wake_self(worker);
        return 0;
    }
    *timeout_ns = sleep_limit_ns(worker, *timeout_ns);
    np_count(&worker->stats.parked, 1);
    return 1;
}

/* Awake and searching again; the watcher sees whether somebody needs help. */
static void wake_up(struct np_worker *worker)
{
    struct np_sched *sched = worker->sched;
    int was_watching = worker->is_watching;
    leave_posts(worker);
    wake_self(worker);
    worker->is_rescuing = was_watching && worker->seen_dispatched == others_dispatched(worker) &&
                          has_any_work(sched);
}

int np_worker_idle(struct np_worker *worker)
{
    struct np_sched *sched = worker->sched;
    atomic_fetch_add(&sched->searching_count, 1);
    for (;;) {
        int64_t timeout_ns = -1;
        int found = search(worker) ? NP_IDLE_WORK : is_alarm_due(sched) ? NP_IDLE_ALARM : -1;
        if (found < 0 && is_over(sched))
            found = NP_IDLE_STOP;
        if (found >= 0) {
            search_over(worker);
            return found;
        }
        worker->is_rescuing = 0;
        if (!fall_asleep(worker, &timeout_ns))
            continue;
        /* A token left over from an earlier wake-up ends the wait, but not the sleep. */
        while (np_park_wait(&worker->park, timeout_ns) && load(&worker->is_sleeping))
            ;
        wake_up(worker);
    }
}

int np_worker_doze(struct np_worker *worker, int64_t *timeout_ns)
{
    atomic_fetch_add(&worker->sched->searching_count, 1);
    if (!search(worker) && fall_asleep(worker, timeout_ns))
        return 1;
    search_over(worker);
    return 0;
}

void np_worker_rouse(struct np_worker *worker)
{
    wake_up(worker);
    /* Its watch may have ended with work to take: that is for the next np_worker_next or doze. */
    if (worker->is_rescuing)
        np_worker_steal(worker);
    search_over(worker);
}

void np_worker_ride(struct np_worker *worker, struct np_inbox *inbox)
{
    NP_DCHECK(load(&worker->is_sleeping) == 0);
    atomic_store_explicit(&worker->park.inbox, inbox, memory_order_release);
}

void np_worker_alight(struct np_worker *worker)
{
    atomic_store_explicit(&worker->park.inbox, NULL, memory_order_release);
    /* Each sleep that others have ended was one np_park_wake, which may still be writing. */
    uint64_t begun = atomic_load_explicit(&worker->stats.woken, memory_order_relaxed);
    while (atomic_load_explicit(&worker->park.wakes_count, memory_order_acquire) != begun)
        sched_yield();
}

int np_worker_is_over(const struct np_worker *worker)
{
    return is_over(worker->sched);
}

/* ---- from outside --------------------------------------------------------------------------- */

void np_sched_alarm_added(struct np_sched *sched)
{
    if (sched->config.is_virtual || load(&sched->sleeping_count) == 0)
        return;
    uint32_t keeper = load(&sched->timekeeper);
    if (!keeper || !wake_worker(sched, &sched->workers[keeper - 1]))
        wake_somebody(sched);
}

static void wake_all(struct np_sched *sched)
{
    for (uint32_t i = 0; i < sched->config.workers_count; i++)
        wake_worker(sched, &sched->workers[i]);
}

void np_sched_stop(struct np_sched *sched)
{
    np_injector_refuse(&sched->injector);
    for (uint32_t i = 0; i < sched->config.workers_count; i++)
        np_injector_refuse(&sched->workers[i].mail);
    atomic_store(&sched->is_stopping, 1);
    wake_all(sched);
}

void np_sched_live_add(struct np_sched *sched, int64_t change)
{
    if (atomic_fetch_add(&sched->live_count, change) + change == 0 && load(&sched->is_stopping))
        wake_all(sched);
}
