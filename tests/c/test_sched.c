/* test_sched.c - the scheduler's queues and its sleeping. Also built with ThreadSanitizer.
 *
 * NP_SOAK=1 runs the same with 10^7 tasks. NP_STORM_S=600 makes the storms of parking and waking
 * last ten minutes together instead of some seconds.
 */
#include "np_test.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "sched/np_sched.h"

enum { POSTERS = 64, SLOTS = 4, WORKERS_MAX = 4, STORMS = 4 };

static int is_soak(void)
{
    return getenv("NP_SOAK") != NULL;
}

static int64_t storm_ns(void)
{
    const char *seconds = getenv("NP_STORM_S");
    return (seconds ? atoi(seconds) : 3) * INT64_C(1000000000) / STORMS;
}

static struct np_sched *open_sched(struct np_sched_config config)
{
    struct np_sched *sched = NULL;
    assert_int_equal(np_sched_open(&sched, &config), 0);
    return sched;
}

/* ---- deques --------------------------------------------------------------------------------- */

static void a_deque_is_first_in_first_out(void **state)
{
    (void)state;
    struct np_deque deque;
    struct np_task tasks[6];
    struct np_task *out[8];
    assert_int_equal(np_deque_open(&deque, 4), 0);
    assert_null(np_deque_pop(&deque));
    assert_int_equal(np_deque_steal(&deque, out, 8), 0);
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 4; i++)
            assert_int_equal(np_deque_push(&deque, &tasks[i]), 0);
        assert_int_equal(np_deque_push(&deque, &tasks[4]), -ENOSPC);
        assert_int_equal(np_deque_count(&deque), 4);
        assert_ptr_equal(np_deque_pop(&deque), &tasks[0]);
        assert_int_equal(np_deque_steal(&deque, out, 8), 2); /* half of three, rounded up */
        assert_ptr_equal(out[0], &tasks[1]);
        assert_ptr_equal(out[1], &tasks[2]);
        assert_int_equal(np_deque_steal(&deque, out, 8), 1);
        assert_ptr_equal(out[0], &tasks[3]);
        assert_int_equal(np_deque_count(&deque), 0);
    }
    np_deque_close(&deque);
}

struct tug {
    struct np_deque deque;
    struct np_task *tasks;
    _Atomic(uint8_t) *taken;
    uint32_t count;
    _Atomic(int) is_over, doubles;
};

static void mark(struct tug *tug, struct np_task *task)
{
    if (atomic_fetch_add(&tug->taken[task - tug->tasks], 1) != 0)
        atomic_fetch_add(&tug->doubles, 1);
}

static void *steal_always(void *arg)
{
    struct tug *tug = arg;
    struct np_task *out[SLOTS];
    while (!atomic_load(&tug->is_over)) {
        uint32_t count = np_deque_steal(&tug->deque, out, SLOTS);
        for (uint32_t i = 0; i < count; i++)
            mark(tug, out[i]);
        if (count == 0)
            sched_yield();
    }
    return NULL;
}

static void thieves_and_owner_share_without_loss(void **state)
{
    (void)state;
    struct tug tug = {.count = 200000};
    pthread_t thieves[3];
    struct np_task *task;
    tug.tasks = calloc(tug.count, sizeof(*tug.tasks));
    tug.taken = calloc(tug.count, sizeof(*tug.taken));
    assert_int_equal(np_deque_open(&tug.deque, SLOTS), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&thieves[i], NULL, steal_always, &tug), 0);
    for (uint32_t i = 0; i < tug.count;) {
        if (np_deque_push(&tug.deque, &tug.tasks[i]) == 0)
            i++;
        else if ((task = np_deque_pop(&tug.deque)) != NULL)
            mark(&tug, task);
    }
    while ((task = np_deque_pop(&tug.deque)) != NULL)
        mark(&tug, task);
    atomic_store(&tug.is_over, 1);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(thieves[i], NULL), 0);
    for (uint32_t i = 0; i < tug.count; i++)
        assert_int_equal(tug.taken[i], 1);
    assert_int_equal(tug.doubles, 0);
    np_deque_close(&tug.deque);
    free(tug.tasks);
    free(tug.taken);
}

/* ---- lanes ---------------------------------------------------------------------------------- */

static void every_lane_is_served_within_its_bound(void **state)
{
    (void)state;
    static const uint32_t bound[NP_LANES] = {3, NP_LANE_AGE_HIGH_COUNT + 2,
                                             NP_LANE_AGE_NORMAL_COUNT + 1, NP_LANE_AGE_LOW_COUNT};
    struct np_random random = np_random_seeded(7);
    struct np_lane_ages ages = {{0}};
    uint32_t waited[NP_LANES] = {0}, mask = 0;
    uint64_t served[NP_LANES] = {0};
    for (int i = 0; i < 200000; i++) {
        /* Lanes fill and empty at random; for the second half all are always full. */
        mask = i < 100000 ? mask | 1u << np_random_below(&random, NP_LANES) : 15;
        int lane = np_lane_pick(&ages, mask);
        assert_true(mask >> lane & 1);
        for (int other = 0; other < NP_LANES; other++) {
            if (other != lane && mask >> other & 1) {
                waited[other]++;
                assert_true(waited[other] <= bound[other]);
            }
        }
        waited[lane] = 0;
        if (i >= 100000)
            served[lane]++;
        else if (np_random_below(&random, 2))
            mask &= ~(1u << lane);
    }
    assert_true(served[NP_LANE_CONTROL] > 80000);
    assert_true(served[NP_LANE_LOW] >= 100000 / (NP_LANE_AGE_LOW_COUNT + 1));
    assert_true(served[NP_LANE_HIGH] > served[NP_LANE_NORMAL]);
    assert_true(served[NP_LANE_NORMAL] > served[NP_LANE_LOW]);
}

/* ---- one worker, no threads ----------------------------------------------------------------- */

static struct np_task *posted(struct np_worker *worker, int lane, uintptr_t number)
{
    struct np_task *task = np_worker_get(worker);
    np_task_set_lane(task, (uint8_t)lane);
    task->home = NP_HOME_ANY;
    task->argument = (void *)number;
    return task;
}

static uintptr_t take(struct np_worker *worker)
{
    struct np_task *task = np_worker_next(worker);
    if (!task)
        return 0;
    uintptr_t number = (uintptr_t)task->argument;
    np_worker_put(worker, task);
    return number;
}

static void a_full_deque_overflows_and_loses_nothing(void **state)
{
    (void)state;
    struct np_sched *sched = open_sched(
        (struct np_sched_config){.workers_count = 1, .deque_slots = SLOTS});
    struct np_worker *worker = &sched->workers[0];
    uint8_t seen[1001] = {0};
    for (uintptr_t i = 1; i <= 1000; i++)
        np_worker_push(worker, posted(worker, NP_LANE_NORMAL, i));
    assert_true(np_sched_injected_count(sched, NP_LANE_NORMAL) > 900);
    for (int i = 0; i < 1000; i++) {
        uintptr_t number = take(worker);
        assert_in_range(number, 1, 1000);
        assert_int_equal(seen[number]++, 0);
    }
    assert_int_equal(take(worker), 0);
    np_sched_close(sched);
}

/* Every way into a lane is served, however the lanes' turns fall: no queue hides behind another. */
static void every_door_is_served_within_its_bound(void **state)
{
    (void)state;
    static const uint32_t bound[NP_LANES] = {
        4, NP_LANE_AGE_HIGH_COUNT + 3, NP_LANE_AGE_NORMAL_COUNT + 2, NP_LANE_AGE_LOW_COUNT + 1};
    for (uint32_t present = 1; present < 16; present++) {
        struct np_sched *sched = open_sched((struct np_sched_config){.workers_count = 1});
        struct np_worker *worker = &sched->workers[0];
        uint32_t mail_waits[NP_LANES] = {0}, injected_waits[NP_LANES] = {0};
        for (int lane = 0; lane < NP_LANES; lane++) {
            for (uintptr_t door = 1; present >> lane & 1 && door <= 3; door++) {
                struct np_task *task = posted(worker, lane, door);
                task->home = door == 2 ? 0 : NP_HOME_ANY;
                (door == 3 ? np_sched_push(sched, task) : np_worker_push(worker, task));
            }
        }
        for (int i = 0; i < 20000; i++) {
            struct np_task *task = np_worker_next(worker);
            uintptr_t door = (uintptr_t)task->argument;
            int lane = np_task_lane(task);
            for (int other = 0; other < NP_LANES; other++) {
                mail_waits[other]++;
                injected_waits[other]++;
            }
            mail_waits[lane] = door == 2 ? 0 : mail_waits[lane];
            injected_waits[lane] = door == 3 ? 0 : injected_waits[lane];
            for (int other = 0; other < NP_LANES; other++) {
                assert_true(!(present >> other & 1) || mail_waits[other] <= 2 * bound[other]);
                assert_true(!(present >> other & 1) ||
                            injected_waits[other] <= NP_INJECTOR_INTERVAL_COUNT * bound[other]);
            }
            door == 3 ? np_sched_push(sched, task) : np_worker_push(worker, task);
        }
        while (take(worker) != 0)
            ;
        np_sched_close(sched);
    }
}

static void half_of_a_queue_is_stolen(void **state)
{
    (void)state;
    struct np_sched *sched = open_sched(
        (struct np_sched_config){.workers_count = 2, .is_virtual = 1});
    struct np_worker *rich = &sched->workers[0], *poor = &sched->workers[1];
    for (uintptr_t i = 1; i <= 10; i++)
        np_worker_push(rich, posted(rich, NP_LANE_NORMAL, i));
    np_worker_push(rich, posted(rich, NP_LANE_HIGH, 11));
    assert_int_equal(np_worker_steal(poor), 1); /* the higher lane first */
    assert_int_equal(take(poor), 11);
    assert_int_equal(take(poor), 0); /* who has something does not steal */
    assert_int_equal(np_worker_steal(poor), 5);
    for (uintptr_t i = 1; i <= 5; i++)
        assert_int_equal(take(poor), i);
    for (uintptr_t i = 6; i <= 10; i++)
        assert_int_equal(take(rich), i);
    assert_int_equal(take(poor), 0);
    assert_int_equal(np_worker_steal(poor), 0);
    np_sched_close(sched);
}

static void what_has_a_home_is_not_stolen(void **state)
{
    (void)state;
    struct np_sched *sched = open_sched(
        (struct np_sched_config){.workers_count = 2, .is_virtual = 1});
    struct np_task *task = posted(&sched->workers[0], NP_LANE_NORMAL, 5);
    task->home = 1;
    np_worker_push(&sched->workers[0], task);
    assert_int_equal(take(&sched->workers[0]), 0);
    assert_int_equal(np_worker_steal(&sched->workers[0]), 0);
    assert_int_equal(take(&sched->workers[1]), 5);
    np_sched_close(sched);
}

static void waits_are_measured_by_the_scheduler_s_clock(void **state)
{
    (void)state;
    struct np_sched *sched = open_sched(
        (struct np_sched_config){.workers_count = 1, .is_virtual = 1});
    struct np_worker *worker = &sched->workers[0];
    struct np_worker_numbers numbers;
    np_sched_set_clock(sched, 1000);
    np_worker_push(worker, posted(worker, NP_LANE_CONTROL, 1));
    np_sched_set_clock(sched, 1000 + 700);
    assert_int_equal(take(worker), 1);
    np_worker_read_stats(worker, &numbers);
    assert_int_equal(numbers.waits[NP_LANE_CONTROL][10], 1); /* 512 to 1024 ns */
    assert_int_equal(numbers.executed, 1);
    np_sched_close(sched);
}

/* One worker is busy and sleeps briefly again and again; the other is woken once, and watches. */
static void who_was_woken_becomes_the_watcher(void **state)
{
    (void)state;
    struct np_sched *sched = open_sched((struct np_sched_config){.workers_count = 2, .is_lazy = 1});
    struct np_worker *busy = &sched->workers[0], *idle = &sched->workers[1];
    struct np_worker_numbers numbers;
    int64_t busy_ns = -1, idle_ns = -1;
    assert_int_equal(np_worker_doze(busy, &busy_ns), 1);
    assert_int_equal(busy_ns, NP_RESCUE_NS); /* the other one may be at work */
    assert_int_equal(np_worker_doze(idle, &idle_ns), 1);
    assert_int_equal(idle_ns, -1); /* one watcher is enough */
    np_worker_rouse(busy);
    np_worker_push(busy, posted(busy, NP_LANE_NORMAL, 1)); /* wakes the other: nobody watches */
    assert_int_equal(take(busy), 1);
    assert_int_equal(take(busy), 0);
    busy_ns = -1;
    assert_int_equal(np_worker_doze(busy, &busy_ns), 1);
    assert_int_equal(busy_ns, -1); /* the other one only searches */
    np_worker_rouse(idle);
    assert_int_equal(np_worker_doze(idle, &idle_ns), 1);
    assert_int_equal(idle_ns, NP_RESCUE_NS);
    for (uintptr_t i = 2; i < 10; i++) {
        np_worker_rouse(busy);
        np_worker_push(busy, posted(busy, NP_LANE_NORMAL, i));
        assert_int_equal(take(busy), i);
        assert_int_equal(take(busy), 0);
        assert_int_equal(np_worker_doze(busy, &busy_ns), 1);
    }
    np_worker_read_stats(idle, &numbers);
    assert_int_equal(numbers.woken, 1);
    np_worker_rouse(busy);
    np_worker_rouse(idle);
    np_sched_close(sched);
}

static void after_the_stop_nothing_is_offered(void **state)
{
    (void)state;
    struct np_sched *sched = open_sched((struct np_sched_config){.workers_count = 1});
    struct np_task *task = np_sched_get(sched);
    task->home = NP_HOME_ANY;
    np_sched_live_add(sched, 1);
    np_sched_stop(sched);
    assert_int_equal(np_sched_offer(sched, task), -ESHUTDOWN);
    np_sched_push(sched, task); /* of what lives: still taken */
    assert_int_equal(np_worker_idle(&sched->workers[0]), NP_IDLE_WORK);
    assert_ptr_equal(np_worker_next(&sched->workers[0]), task);
    np_sched_put(sched, task);
    np_sched_live_add(sched, -1);
    assert_int_equal(np_worker_idle(&sched->workers[0]), NP_IDLE_STOP);
    np_sched_close(sched);
}

static void no_memory_and_bad_configurations_are_answers(void **state)
{
    (void)state;
    struct np_sched *sched = NULL;
    struct np_sched_config config = {.workers_count = 2};
    np_fail_allocations(1);
    assert_int_equal(np_sched_open(&sched, &config), -ENOMEM);
    config.deque_slots = 3;
    assert_int_equal(np_sched_open(&sched, &config), -EINVAL);
    config = (struct np_sched_config){.workers_count = 0};
    assert_int_equal(np_sched_open(&sched, &config), -EINVAL);
}

/* ---- threads -------------------------------------------------------------------------------- */

struct crew {
    struct np_sched *sched;
    _Atomic(uint8_t) *runs;  /* per task */
    uint32_t tasks_count;    /* of all posters together */
    uint32_t children_count; /* that each posted task posts from its worker */
    _Atomic(uint64_t) executed, doubles;
    pthread_t workers[WORKERS_MAX];
    uint32_t started;
};

struct poster {
    struct crew *crew;
    uint32_t first, count;
    pthread_t thread;
};

static void run_one(struct crew *crew, struct np_worker *worker, struct np_task *task)
{
    uint64_t number = (uint64_t)(uintptr_t)task->argument;
    uint64_t id = number & UINT32_MAX;
    uint64_t children = number >> 32;
    int lane = np_task_lane(task);
    np_worker_put(worker, task);
    if (atomic_fetch_add_explicit(&crew->runs[id], 1, memory_order_relaxed) != 0)
        atomic_fetch_add(&crew->doubles, 1);
    atomic_fetch_add_explicit(&crew->executed, 1, memory_order_relaxed);
    for (uint64_t i = 1; i <= children; i++)
        np_worker_push(worker, posted(worker, (lane + (int)i) % NP_LANES, id + i));
}

static void *work(void *arg)
{
    struct crew *crew = arg;
    uint32_t index = __atomic_fetch_add(&crew->started, 1, __ATOMIC_RELAXED);
    struct np_worker *worker = &crew->sched->workers[index];
    for (;;) {
        struct np_task *task;
        while ((task = np_worker_next(worker)) != NULL)
            run_one(crew, worker, task);
        if (np_worker_idle(worker) == NP_IDLE_STOP)
            return NULL;
    }
}

/* The same for a worker that sleeps where its event loop does. */
static void *work_in_ring(void *arg)
{
    struct crew *crew = arg;
    uint32_t index = __atomic_fetch_add(&crew->started, 1, __ATOMIC_RELAXED);
    struct np_worker *worker = &crew->sched->workers[index];
    struct np_inbox inbox;
    struct np_task *task;
    if (np_inbox_open(&inbox) < 0)
        abort();
    np_worker_ride(worker, &inbox);
    while (!np_worker_is_over(worker)) {
        int64_t timeout_ns = -1;
        while ((task = np_worker_next(worker)) != NULL)
            run_one(crew, worker, task);
        if (!np_worker_doze(worker, &timeout_ns))
            continue;
        struct pollfd ready = {.fd = inbox.wake_fd, .events = POLLIN};
        /* Rounded up, as a loop's wait is: a little later than the watcher's look. */
        if (poll(&ready, 1, timeout_ns < 0 ? -1 : (int)(timeout_ns / 1000000) + 1) > 0)
            np_inbox_drain_wake(inbox.wake_fd);
        np_worker_rouse(worker);
    }
    np_worker_alight(worker);
    np_inbox_close(&inbox); /* TSan reports whoever still writes to it */
    do {
        while ((task = np_worker_next(worker)) != NULL)
            run_one(crew, worker, task);
    } while (np_worker_idle(worker) != NP_IDLE_STOP);
    return NULL;
}

static void *post(void *arg)
{
    struct poster *poster = arg;
    struct crew *crew = poster->crew;
    uint32_t step = crew->children_count + 1;
    for (uint32_t i = 0; i < poster->count; i += step) {
        struct np_task *task = np_sched_get(crew->sched);
        task->home = NP_HOME_ANY;
        np_task_set_lane(task, (uint8_t)(i % NP_LANES));
        task->argument = (void *)(uintptr_t)((uint64_t)crew->children_count << 32 |
                                             (poster->first + i));
        if (np_sched_offer(crew->sched, task) < 0)
            abort();
        if (i % (64 * step) == 0)
            sched_yield();
    }
    return NULL;
}

/* rings_count of the workers sleep in rings, the others on futexes. */
static void crew_start(struct crew *crew, struct np_sched_config config, uint32_t rings_count)
{
    crew->sched = open_sched(config);
    for (uint32_t i = 0; i < config.workers_count; i++)
        assert_int_equal(
            pthread_create(&crew->workers[i], NULL, i < rings_count ? work_in_ring : work, crew),
            0);
}

static void crew_end(struct crew *crew)
{
    np_sched_stop(crew->sched);
    for (uint32_t i = 0; i < crew->sched->config.workers_count; i++)
        assert_int_equal(pthread_join(crew->workers[i], NULL), 0);
    np_sched_close(crew->sched);
}

static void exactly_once(uint32_t workers_count, uint32_t rings_count, int is_lazy,
                         uint32_t children_count)
{
    uint32_t share = (is_soak() ? 10000000 : 200000) / POSTERS;
    share -= share % (children_count + 1);
    struct crew crew = {.tasks_count = share * POSTERS, .children_count = children_count};
    struct poster posters[POSTERS];
    crew.runs = calloc(crew.tasks_count, sizeof(*crew.runs));
    crew_start(&crew,
               (struct np_sched_config){.workers_count = workers_count,
                                        .deque_slots = SLOTS,
                                        .seed = 1,
                                        .is_lazy = (uint8_t)is_lazy},
               rings_count);
    for (uint32_t i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.crew = &crew, .first = i * share, .count = share};
        assert_int_equal(pthread_create(&posters[i].thread, NULL, post, &posters[i]), 0);
    }
    for (uint32_t i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_join(posters[i].thread, NULL), 0);
    crew_end(&crew);
    assert_int_equal(crew.executed, crew.tasks_count);
    assert_int_equal(crew.doubles, 0);
    for (uint32_t i = 0; i < crew.tasks_count; i++)
        assert_int_equal(crew.runs[i], 1);
    free(crew.runs);
}

static void sixty_four_posters_one_worker(void **state)
{
    (void)state;
    exactly_once(1, 0, 0, 0);
}

static void sixty_four_posters_four_workers(void **state)
{
    (void)state;
    exactly_once(4, 0, 0, 0);
}

static void tasks_that_post_from_their_workers(void **state)
{
    (void)state;
    exactly_once(4, 0, 0, 9); /* more than a deque holds */
}

static void the_same_when_workers_wake_lazily(void **state)
{
    (void)state;
    exactly_once(3, 0, 1, 9);
}

static void the_same_in_rings(void **state)
{
    (void)state;
    exactly_once(4, 4, 0, 9);
    exactly_once(4, 2, 1, 0);
}

/* A token goes from worker to worker; each must be woken by the push. It hangs if one is not. */
static void a_storm_of_parking(uint32_t rings_count, int is_lazy)
{
    struct np_sched *sched;
    struct crew crew = {0};
    crew.runs = calloc(1, sizeof(*crew.runs));
    crew_start(&crew,
               (struct np_sched_config){
                   .workers_count = WORKERS_MAX, .deque_slots = SLOTS, .is_lazy = (uint8_t)is_lazy},
               rings_count);
    sched = crew.sched;
    struct np_random random = np_random_seeded(3);
    int64_t end_ns = np_clock_ns() + storm_ns();
    uint64_t posts = 0;
    while (np_clock_ns() < end_ns) {
        struct np_task *task = np_sched_get(sched);
        task->argument = NULL;
        /* Now to anybody, now to one worker; now before it sleeps, now long after. */
        task->home = np_random_below(&random, 2) ? np_random_below(&random, WORKERS_MAX)
                                                 : NP_HOME_ANY;
        assert_int_equal(np_sched_offer(sched, task), 0);
        posts++;
        uint32_t spins = np_random_below(&random, 400);
        int64_t limit_ns = np_clock_ns() + INT64_C(20000000000);
        while (atomic_load(&crew.executed) < posts) {
            sched_yield();
            assert_true(np_clock_ns() < limit_ns); /* a wake-up was lost */
        }
        for (volatile uint32_t i = 0; i < spins; i++)
            ;
        if (posts % 16 == 0)
            usleep(100);
    }
    crew_end(&crew);
    assert_int_equal(crew.executed, posts);
    free(crew.runs);
}

static void no_wake_up_is_lost(void **state)
{
    (void)state;
    a_storm_of_parking(0, 0);
}

static void no_lazy_wake_up_is_lost(void **state)
{
    (void)state;
    a_storm_of_parking(0, 1);
}

static void no_wake_up_is_lost_on_the_way_into_a_ring(void **state)
{
    (void)state;
    a_storm_of_parking(WORKERS_MAX / 2, 0);
    a_storm_of_parking(WORKERS_MAX, 1);
}

struct sleeper {
    struct crew *crew;
    struct np_timer timers[32];
};

static void *fire(void *arg)
{
    struct crew *crew = arg;
    uint32_t index = __atomic_fetch_add(&crew->started, 1, __ATOMIC_RELAXED);
    struct np_worker *worker = &crew->sched->workers[index];
    for (;;) {
        int found = np_worker_idle(worker);
        if (found == NP_IDLE_STOP)
            return NULL;
        if (found == NP_IDLE_ALARM && np_alarms_pop_due(&crew->sched->alarms, np_clock_ns()))
            atomic_fetch_add(&crew->executed, 1);
    }
}

static void alarms_wake_who_sleeps(void **state)
{
    (void)state;
    struct crew crew = {0};
    struct sleeper sleeper = {.crew = &crew};
    struct np_sched *sched = open_sched((struct np_sched_config){.workers_count = 2});
    crew.sched = sched;
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&crew.workers[i], NULL, fire, &crew), 0);
    usleep(20000); /* they sleep, without end */
    int64_t now_ns = np_clock_ns();
    for (int i = 0; i < 32; i++) { /* each earlier than those before, but for the last half */
        sleeper.timers[i].when_ns = now_ns + (i < 16 ? 40 - i : i) * INT64_C(1000000);
        int rc = np_alarms_add(&sched->alarms, &sleeper.timers[i]);
        assert_in_range(rc, 0, 1);
        if (rc)
            np_sched_alarm_added(sched);
    }
    assert_int_equal(np_alarms_remove(&sched->alarms, &sleeper.timers[31]), 1);
    assert_int_equal(np_alarms_remove(&sched->alarms, &sleeper.timers[31]), 0);
    int64_t limit_ns = np_clock_ns() + INT64_C(20000000000);
    while (atomic_load(&crew.executed) < 31 && np_clock_ns() < limit_ns)
        usleep(1000);
    assert_int_equal(crew.executed, 31);
    crew_end(&crew);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_deque_is_first_in_first_out),
        cmocka_unit_test(thieves_and_owner_share_without_loss),
        cmocka_unit_test(every_lane_is_served_within_its_bound),
        cmocka_unit_test(a_full_deque_overflows_and_loses_nothing),
        cmocka_unit_test(every_door_is_served_within_its_bound),
        cmocka_unit_test(half_of_a_queue_is_stolen),
        cmocka_unit_test(what_has_a_home_is_not_stolen),
        cmocka_unit_test(waits_are_measured_by_the_scheduler_s_clock),
        cmocka_unit_test(who_was_woken_becomes_the_watcher),
        cmocka_unit_test(after_the_stop_nothing_is_offered),
        cmocka_unit_test(no_memory_and_bad_configurations_are_answers),
        cmocka_unit_test(sixty_four_posters_one_worker),
        cmocka_unit_test(sixty_four_posters_four_workers),
        cmocka_unit_test(tasks_that_post_from_their_workers),
        cmocka_unit_test(the_same_when_workers_wake_lazily),
        cmocka_unit_test(the_same_in_rings),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(no_lazy_wake_up_is_lost),
        cmocka_unit_test(no_wake_up_is_lost_on_the_way_into_a_ring),
        cmocka_unit_test(alarms_wake_who_sleeps),
    };
    return NP_TEST_MAIN("test_sched", tests);
}
