/* test_task.c - the states of a task, and the slab. Also built with ThreadSanitizer. */
#include "np_test.h"

#include <pthread.h>
#include <sched.h>

#include "base/np_limits.h"
#include "sched/np_task.h"

enum { THREADS = 4, ROUNDS = 20000 };

static uint32_t state_of(struct np_task *task)
{
    return atomic_load(&task->state);
}

static void a_woken_task_is_queued_once(void **state)
{
    (void)state;
    struct np_task task;
    np_task_init(&task, 7, NP_LANE_HIGH);
    assert_int_equal(task.kind, 7);
    assert_int_equal(np_task_wake(&task), NP_TASK_PUSH);
    assert_int_equal(np_task_wake(&task), NP_TASK_LEAVE);
    assert_true(np_task_claim(&task, 1));
    assert_int_equal(state_of(&task), NP_TASK_RUNNING | NP_TASK_BEGUN);
    assert_int_equal(np_task_pause(&task), NP_TASK_LEAVE);
    assert_int_equal(state_of(&task), NP_TASK_BEGUN);
}

static void woken_while_it_runs_it_runs_again(void **state)
{
    (void)state;
    struct np_task task;
    np_task_init(&task, 0, NP_LANE_NORMAL);
    np_task_wake(&task);
    assert_true(np_task_claim(&task, 1));
    assert_int_equal(np_task_wake(&task), NP_TASK_LEAVE);
    assert_int_equal(np_task_wake(&task), NP_TASK_LEAVE);
    assert_int_equal(np_task_pause(&task), NP_TASK_PUSH);
    assert_true(np_task_claim(&task, 1));
    np_task_finish(&task);
    assert_int_equal(np_task_wake(&task), NP_TASK_LEAVE);
    assert_false(np_task_claim(&task, 0));
}

/* A ticket was taken first: the record stays where it is, stale, and may be overtaken again. */
static void a_stale_entry_finds_nothing_to_claim(void **state)
{
    (void)state;
    struct np_task task;
    np_task_init(&task, 0, NP_LANE_NORMAL);
    assert_int_equal(np_task_wake(&task), NP_TASK_PUSH);
    assert_true(np_task_claim(&task, 0));
    np_task_pause(&task);
    assert_int_equal(np_task_wake(&task), NP_TASK_PUSH_TICKET);
    assert_true(np_task_claim(&task, 0));
    np_task_pause(&task);
    assert_false(np_task_claim(&task, 1));
    assert_int_equal(np_task_wake(&task), NP_TASK_PUSH);
    assert_true(np_task_claim(&task, 1));
}

static void only_what_has_not_begun_can_be_revoked(void **state)
{
    (void)state;
    struct np_task task;
    np_task_init(&task, 0, NP_LANE_NORMAL);
    np_task_wake(&task);
    assert_true(np_task_revoke(&task));
    assert_false(np_task_revoke(&task));
    assert_false(np_task_claim(&task, 1));
    np_task_init(&task, 0, NP_LANE_NORMAL);
    np_task_wake(&task);
    np_task_claim(&task, 1);
    assert_false(np_task_revoke(&task));
    np_task_pause(&task);
    assert_false(np_task_revoke(&task)); /* idle, but it has begun: it must end by itself */
}

static void the_slab_gives_back_what_it_got(void **state)
{
    (void)state;
    enum { COUNT = 3 * NP_TASK_CHUNK_COUNT + 1 };
    struct np_task_slab slab;
    struct np_task_cache mine = {0}, other = {0};
    struct np_task **tasks = calloc(COUNT, sizeof(*tasks));
    np_task_slab_init(&slab);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            tasks[i] = np_task_get(&slab, &mine);
            assert_non_null(tasks[i]);
            assert_int_equal(tasks[i]->generation & 1, 1);
            assert_int_equal((uintptr_t)tasks[i] % 64, 0);
        }
        for (int i = 0; i < COUNT; i++)
            np_task_put(&slab, i % 2 ? &mine : &other, tasks[i]);
        assert_int_equal(slab.chunks_count, 4); /* the second round needs no new memory */
    }
    np_task_cache_flush(&slab, &mine);
    np_task_cache_flush(&slab, &other);
    assert_int_equal(np_task_slab_live_count(&slab), 0);
    np_task_slab_close(&slab);
    free(tasks);
}

static void no_memory_is_an_answer(void **state)
{
    (void)state;
    struct np_task_slab slab;
    struct np_task_cache cache = {0};
    np_task_slab_init(&slab);
    np_fail_allocations(1);
    assert_null(np_task_get(&slab, &cache));
    struct np_task *task = np_task_get(&slab, &cache);
    assert_non_null(task);
    np_task_put(&slab, &cache, task);
    np_task_cache_flush(&slab, &cache);
    np_task_slab_close(&slab);
}

static void put_twice(void *arg)
{
    struct np_task_slab *slab = arg;
    struct np_task_cache cache = {0};
    struct np_task *task = np_task_get(slab, &cache);
    np_task_put(slab, &cache, task);
    np_task_put(slab, &cache, task);
}

static void a_record_that_ends_twice_aborts(void **state)
{
    (void)state;
    struct np_task_slab slab;
    np_task_slab_init(&slab);
    assert_true(np_aborts(put_twice, &slab));
    np_task_slab_close(&slab);
}

struct crowd {
    struct np_task task;
    _Atomic(struct np_task *) queue; /* of one entry: the record can be in a queue once */
    _Atomic(uint32_t) pushes, doubles;
    uint64_t runs; /* plain: the states must order it */
    _Atomic(int) wakers_left;
};

static void push(struct crowd *crowd)
{
    atomic_fetch_add(&crowd->pushes, 1);
    if (atomic_exchange_explicit(&crowd->queue, &crowd->task, memory_order_acq_rel))
        atomic_fetch_add(&crowd->doubles, 1);
}

static void *wake_often(void *arg)
{
    struct crowd *crowd = arg;
    for (int i = 0; i < ROUNDS; i++) {
        if (np_task_wake(&crowd->task) == NP_TASK_PUSH)
            push(crowd);
        if (i % 64 == 0)
            sched_yield();
    }
    atomic_fetch_sub(&crowd->wakers_left, 1);
    return NULL;
}

static void *run_often(void *arg)
{
    struct crowd *crowd = arg;
    for (;;) {
        int over = atomic_load(&crowd->wakers_left) == 0;
        struct np_task *task = atomic_exchange_explicit(&crowd->queue, NULL, memory_order_acq_rel);
        if (task) {
            if (!np_task_claim(task, 1))
                abort();
            crowd->runs++;
            if (np_task_pause(task) == NP_TASK_PUSH)
                push(crowd);
        } else if (over) {
            return NULL;
        } else {
            sched_yield();
        }
    }
}

static void a_task_runs_in_one_place_at_a_time(void **state)
{
    (void)state;
    struct crowd crowd = {.wakers_left = THREADS};
    pthread_t threads[2 * THREADS];
    np_task_init(&crowd.task, 0, NP_LANE_NORMAL);
    for (int i = 0; i < 2 * THREADS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < THREADS ? wake_often : run_often, &crowd), 0);
    for (int i = 0; i < 2 * THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(crowd.doubles, 0);
    assert_int_equal(crowd.runs, crowd.pushes); /* every entry was claimed: none was stale */
    assert_int_equal(state_of(&crowd.task), NP_TASK_BEGUN); /* no wake-up is left over */
}

struct trader {
    struct np_task_slab *slab;
    struct np_task *_Atomic *table;
    uint32_t seed;
};

static void *trade(void *arg)
{
    struct trader *trader = arg;
    struct np_random random = np_random_seeded(trader->seed);
    struct np_task_cache cache = {0};
    for (int i = 0; i < ROUNDS; i++) {
        struct np_task *fresh = np_task_get(trader->slab, &cache);
        fresh->argument = &cache;
        struct np_task *old = atomic_exchange(&trader->table[np_random_below(&random, 256)], fresh);
        if (old)
            np_task_put(trader->slab, &cache, old);
    }
    np_task_cache_flush(trader->slab, &cache);
    return NULL;
}

static void records_end_in_other_threads(void **state)
{
    (void)state;
    struct np_task_slab slab;
    struct np_task *_Atomic table[256] = {0};
    struct trader traders[THREADS];
    struct np_task_cache cache = {0};
    pthread_t threads[THREADS];
    np_task_slab_init(&slab);
    for (uint32_t i = 0; i < THREADS; i++) {
        traders[i] = (struct trader){&slab, table, i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, trade, &traders[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 256; i++)
        if (table[i])
            np_task_put(&slab, &cache, table[i]);
    np_task_cache_flush(&slab, &cache);
    assert_int_equal(np_task_slab_live_count(&slab), 0);
    np_task_slab_close(&slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_woken_task_is_queued_once),
        cmocka_unit_test(woken_while_it_runs_it_runs_again),
        cmocka_unit_test(a_stale_entry_finds_nothing_to_claim),
        cmocka_unit_test(only_what_has_not_begun_can_be_revoked),
        cmocka_unit_test(the_slab_gives_back_what_it_got),
        cmocka_unit_test(no_memory_is_an_answer),
        cmocka_unit_test(a_record_that_ends_twice_aborts),
        cmocka_unit_test(a_task_runs_in_one_place_at_a_time),
        cmocka_unit_test(records_end_in_other_threads),
    };
    return NP_TEST_MAIN("test_task", tests);
}
