# The C of csrc/sched, for Cython; the headers say what it is. np_task.h stands in _native/c.pxd: a
# connection is a task, too.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netpoll._native.c cimport np_inbox, np_task, np_timer, np_timer_heap

cdef extern from "base/np_lock.h" nogil:
    struct np_lock:
        pass

    void np_lock_take(np_lock *lock)
    void np_lock_drop(np_lock *lock)

cdef extern from "sched/np_alarm.h" nogil:
    const int64_t NP_ALARM_NEVER_NS

    struct np_alarms:
        np_timer_heap heap

    int np_alarms_add(np_alarms *alarms, np_timer *timer)
    int np_alarms_remove(np_alarms *alarms, np_timer *timer)
    np_timer *np_alarms_pop_due(np_alarms *alarms, int64_t now_ns)
    int64_t np_alarms_next_ns(np_alarms *alarms)

cdef extern from "sched/np_sched.h" nogil:
    enum:
        NP_WAIT_BUCKETS
        NP_WORKERS_MAX_COUNT
        NP_IDLE_STOP

    struct np_sched_config:
        uint32_t workers_count, deque_slots
        uint64_t seed
        uint8_t is_lazy, is_virtual

    struct np_worker_numbers:
        uint64_t executed, stolen, parked, woken, overflowed
        uint64_t waits[4][40]

    struct np_worker:
        uint32_t index

    struct np_sched:
        np_sched_config config
        np_worker *workers
        np_alarms alarms

    int np_sched_open(np_sched **out, const np_sched_config *config)
    void np_sched_close(np_sched *sched)
    int64_t np_sched_now_ns(const np_sched *sched)
    void np_sched_set_clock(np_sched *sched, int64_t now_ns)
    np_task *np_sched_get(np_sched *sched)
    void np_sched_put(np_sched *sched, np_task *task)
    np_task *np_worker_get(np_worker *worker)
    void np_worker_put(np_worker *worker, np_task *task)
    void np_worker_push(np_worker *worker, np_task *task)
    void np_sched_push(np_sched *sched, np_task *task)
    int np_sched_offer(np_sched *sched, np_task *task)
    np_task *np_worker_next(np_worker *worker)
    void np_worker_was_stale(np_worker *worker)
    uint32_t np_worker_steal(np_worker *worker)
    int np_worker_idle(np_worker *worker)
    int np_worker_doze(np_worker *worker, int64_t *timeout_ns)
    void np_worker_rouse(np_worker *worker)
    void np_worker_ride(np_worker *worker, np_inbox *inbox)
    void np_worker_alight(np_worker *worker)
    int np_worker_has_own(const np_worker *worker)
    int np_worker_is_over(const np_worker *worker)
    void np_sched_alarm_added(np_sched *sched)
    void np_sched_stop(np_sched *sched)
    void np_sched_live_add(np_sched *sched, int64_t change)
    int64_t np_sched_live_count(const np_sched *sched)
    uint64_t np_sched_records_count(np_sched *sched)
    void np_worker_end(np_worker *worker)
    uint64_t np_sched_injected_count(const np_sched *sched, int lane)
    uint64_t np_worker_queued_count(const np_worker *worker, int lane)
    void np_worker_read_stats(const np_worker *worker, np_worker_numbers *out)

cdef extern from *:
    """
    /* What the calling thread works for; NULL when it is no worker. */
    __attribute__((unused)) static _Thread_local void *np_thread_worker_here;
    #define np_thread_worker() np_thread_worker_here
    #define np_thread_worker_set(worker) (np_thread_worker_here = (worker))
    #define np_flag_get(flag) __atomic_load_n((flag), __ATOMIC_ACQUIRE)
    #define np_flag_set(flag) __atomic_store_n((flag), 1, __ATOMIC_RELEASE)
    """
    void *np_thread_worker() nogil      # of the extension that asks: sched/run.pyx
    void np_thread_worker_set(void *worker) nogil
    int np_flag_get(const char *flag) nogil     # pairs with np_flag_set
    void np_flag_set(char *flag) nogil
