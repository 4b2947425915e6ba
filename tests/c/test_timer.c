/* test_timer.c - the timer heap against a reference: a sorted array. */
#include "np_test.h"

#include <time.h>

#include "io/np_timer.h"

static void check_heap(const struct np_timer_heap *heap)
{
    for (uint32_t i = 0; i < heap->count; i++) {
        const struct np_timer_slot *slot = &heap->slots[i];
        assert_int_equal(slot->timer->pos, i + 1);
        assert_true(slot->timer->when_ns == slot->when_ns);
        assert_true(slot->timer->seq == slot->seq);
        const struct np_timer_slot *parent = &heap->slots[i > 0 ? (i - 1) / 4 : 0];
        assert_true(parent->when_ns <= slot->when_ns);
    }
}

static void an_empty_heap_has_nothing(void **state)
{
    (void)state;
    struct np_timer_heap heap;
    struct np_timer never = {0};
    np_timer_heap_init(&heap);
    assert_null(np_timer_peek(&heap));
    assert_null(np_timer_pop_due(&heap, INT64_MAX));
    np_timer_remove(&heap, &never);
    assert_int_equal(heap.count, 0);
    np_timer_heap_close(&heap);
}

static void due_means_at_or_before_now(void **state)
{
    (void)state;
    struct np_timer_heap heap;
    struct np_timer timer = {.when_ns = 100};
    np_timer_heap_init(&heap);
    assert_int_equal(np_timer_add(&heap, &timer), 0);
    assert_null(np_timer_pop_due(&heap, 99));
    assert_ptr_equal(np_timer_peek(&heap), &timer);
    assert_ptr_equal(np_timer_pop_due(&heap, 100), &timer);
    assert_int_equal(timer.pos, 0);
    assert_null(np_timer_pop_due(&heap, INT64_MAX));
    np_timer_heap_close(&heap);
}

static void negative_and_extreme_deadlines_are_ordered(void **state)
{
    (void)state;
    static const int64_t whens_ns[] = {0, INT64_MAX, -1, INT64_MIN, 1, INT64_MIN + 1, -1};
    static const int order[] = {3, 5, 2, 6, 0, 4, 1};
    enum { COUNT = sizeof(order) / sizeof(order[0]) };
    struct np_timer timers[COUNT] = {{0}};
    struct np_timer_heap heap;
    np_timer_heap_init(&heap);
    for (int i = 0; i < COUNT; i++) {
        timers[i].when_ns = whens_ns[i];
        assert_int_equal(np_timer_add(&heap, &timers[i]), 0);
    }
    for (int i = 0; i < COUNT; i++)
        assert_ptr_equal(np_timer_pop_due(&heap, INT64_MAX), &timers[order[i]]);
    np_timer_heap_close(&heap);
}

static void equal_deadlines_keep_their_order(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    static struct np_timer timers[COUNT];
    struct np_random random = np_random_seeded(21);
    struct np_timer_heap heap;
    np_timer_heap_init(&heap);
    memset(timers, 0, sizeof(timers));
    for (int i = 0; i < COUNT; i++) {
        timers[i].when_ns = i % 3; /* three deadlines, a thousand timers each */
        assert_int_equal(np_timer_add(&heap, &timers[i]), 0);
    }
    for (int i = 0; i < COUNT; i += 7) /* removals move entries about */
        np_timer_remove(&heap, &timers[np_random_below(&random, COUNT)]);
    check_heap(&heap);
    const struct np_timer *before = NULL, *timer;
    while ((timer = np_timer_pop_due(&heap, INT64_MAX))) {
        if (before && before->when_ns == timer->when_ns)
            assert_true(before < timer); /* armed in the order of their addresses */
        before = timer;
    }
    np_timer_heap_close(&heap);
}

static int by_when_then_seq(const void *a, const void *b)
{
    const struct np_timer *x = *(struct np_timer *const *)a;
    const struct np_timer *y = *(struct np_timer *const *)b;
    if (x->when_ns != y->when_ns)
        return x->when_ns < y->when_ns ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* Pops everything and compares with a sort of what is armed according to the timers themselves. */
static void pop_all_like_a_sort(struct np_timer_heap *heap, struct np_timer *timers, int count)
{
    struct np_timer **sorted = calloc((size_t)count, sizeof(*sorted));
    int armed = 0;
    for (int i = 0; i < count; i++)
        if (timers[i].pos != 0)
            sorted[armed++] = &timers[i];
    assert_int_equal(heap->count, armed);
    qsort(sorted, (size_t)armed, sizeof(*sorted), by_when_then_seq);
    for (int i = 0; i < armed; i++) {
        assert_ptr_equal(np_timer_peek(heap), sorted[i]);
        assert_null(np_timer_pop_due(heap, sorted[i]->when_ns - 1));
        assert_ptr_equal(np_timer_pop_due(heap, sorted[i]->when_ns), sorted[i]);
    }
    assert_int_equal(heap->count, 0);
    free(sorted);
}

static void random_add_and_remove_sort_right(void **state)
{
    (void)state;
    enum { COUNT = 400, STEPS = 4000, ROUNDS = 12 };
    static struct np_timer timers[COUNT];
    struct np_random random = np_random_seeded(22);
    for (int round = 0; round < ROUNDS; round++) {
        struct np_timer_heap heap;
        uint32_t spread = round % 2 ? 10 : 1000000; /* many ties, few ties */
        np_timer_heap_init(&heap);
        memset(timers, 0, sizeof(timers));
        for (int step = 0; step < STEPS; step++) {
            struct np_timer *timer = &timers[np_random_below(&random, COUNT)];
            if (timer->pos != 0) {
                np_timer_remove(&heap, timer);
                assert_int_equal(timer->pos, 0);
            } else {
                timer->when_ns = (int64_t)np_random_below(&random, spread) - spread / 2;
                assert_int_equal(np_timer_add(&heap, timer), 0);
            }
            if (step % 64 == 0)
                check_heap(&heap);
        }
        check_heap(&heap);
        pop_all_like_a_sort(&heap, timers, COUNT);
        np_timer_heap_close(&heap);
    }
}

static void remove_every_position(void **state)
{
    (void)state;
    enum { COUNT = 86 }; /* 1 + 4 + 16 + 64 + 1: a full heap and one entry on the next level */
    for (int victim = 0; victim < COUNT; victim++) {
        struct np_timer timers[COUNT] = {{0}};
        struct np_random random = np_random_seeded(23);
        struct np_timer_heap heap;
        np_timer_heap_init(&heap);
        for (int i = 0; i < COUNT; i++) {
            timers[i].when_ns = np_random_below(&random, 1000);
            assert_int_equal(np_timer_add(&heap, &timers[i]), 0);
        }
        np_timer_remove(&heap, heap.slots[victim].timer);
        check_heap(&heap);
        pop_all_like_a_sort(&heap, timers, COUNT);
        np_timer_heap_close(&heap);
    }
}

static void cancelled_timers_leave_nothing(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    struct np_timer *timers = calloc(COUNT, sizeof(*timers));
    struct np_timer_heap heap;
    np_timer_heap_init(&heap);
    for (int i = 0; i < COUNT; i++) { /* armed and cancelled at once: never more than one */
        timers[0].when_ns = i;
        assert_int_equal(np_timer_add(&heap, &timers[0]), 0);
        np_timer_remove(&heap, &timers[0]);
    }
    assert_int_equal(heap.count, 0);
    assert_true(heap.cap <= 16);
    for (int i = 0; i < COUNT; i++) { /* all together, then cancelled */
        timers[i].when_ns = i;
        assert_int_equal(np_timer_add(&heap, &timers[i]), 0);
    }
    assert_true(heap.cap >= COUNT);
    for (int i = 0; i < COUNT; i++)
        np_timer_remove(&heap, &timers[i]);
    assert_int_equal(heap.count, 0);
    assert_true(heap.cap <= 1024); /* the memory went back too */
    np_timer_heap_close(&heap);
    free(timers);
}

static void close_forgets_armed_timers(void **state)
{
    (void)state;
    struct np_timer timers[5] = {{0}};
    struct np_timer_heap heap;
    np_timer_heap_init(&heap);
    for (int i = 0; i < 5; i++)
        assert_int_equal(np_timer_add(&heap, &timers[i]), 0);
    np_timer_heap_close(&heap);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(timers[i].pos, 0);
        np_timer_remove(&heap, &timers[i]); /* a late cancel does no harm */
    }
    np_timer_heap_close(&heap);
}

static void out_of_memory_leaves_the_heap_whole(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    struct np_timer *timers = calloc(COUNT, sizeof(*timers));
    struct np_timer_heap heap;
    np_timer_heap_init(&heap);
    for (int i = 0; i < COUNT; i++) {
        uint32_t count = heap.count;
        timers[i].when_ns = COUNT - i;
        if (heap.count == heap.cap) {
            np_fail_allocations(1);
            assert_int_equal(np_timer_add(&heap, &timers[i]), -ENOMEM);
            assert_int_equal(heap.count, count);
            assert_int_equal(timers[i].pos, 0);
        }
        assert_int_equal(np_timer_add(&heap, &timers[i]), 0);
    }
    for (int i = 0; i < COUNT; i++) {
        np_fail_allocations(1); /* giving memory back may fail without harm */
        np_timer_remove(&heap, &timers[i]);
        np_fail_allocations(0);
        if (i % 512 == 0)
            check_heap(&heap);
    }
    assert_int_equal(heap.count, 0);
    np_timer_heap_close(&heap);
    free(timers);
}

static void add_twice(void *arg)
{
    struct np_timer timer = {.when_ns = 1};
    np_timer_add(arg, &timer);
    np_timer_add(arg, &timer);
}

static void remove_from_another_heap(void *arg)
{
    struct np_timer timer = {.when_ns = 1}, other_timer = {.when_ns = 2};
    struct np_timer_heap other;
    np_timer_heap_init(&other);
    np_timer_add(arg, &timer);
    np_timer_add(&other, &other_timer);
    np_timer_remove(&other, &timer);
}

static void broken_rules_abort(void **state)
{
    (void)state;
    struct np_timer_heap heap;
    np_timer_heap_init(&heap);
    assert_true(np_aborts(add_twice, &heap));
    assert_true(np_aborts(remove_from_another_heap, &heap));
    np_timer_heap_close(&heap);
}

static void the_clock_is_monotonic_time(void **state)
{
    (void)state;
    struct timespec ts;
    int64_t before_ns = np_clock_ns();
    clock_gettime(CLOCK_MONOTONIC, &ts);
    int64_t between_ns = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
    int64_t after_ns = np_clock_ns();
    assert_true(before_ns <= between_ns);
    assert_true(between_ns <= after_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_heap_has_nothing),
        cmocka_unit_test(due_means_at_or_before_now),
        cmocka_unit_test(negative_and_extreme_deadlines_are_ordered),
        cmocka_unit_test(equal_deadlines_keep_their_order),
        cmocka_unit_test(random_add_and_remove_sort_right),
        cmocka_unit_test(remove_every_position),
        cmocka_unit_test(cancelled_timers_leave_nothing),
        cmocka_unit_test(close_forgets_armed_timers),
        cmocka_unit_test(out_of_memory_leaves_the_heap_whole),
        cmocka_unit_test(broken_rules_abort),
        cmocka_unit_test(the_clock_is_monotonic_time),
    };
    return NP_TEST_MAIN("test_timer", tests);
}
