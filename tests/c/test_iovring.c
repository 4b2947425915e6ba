/* test_iovring.c - the ring of iovecs against a model that remembers every span. */
#include "np_test.h"

#include "mem/np_iovring.h"

enum { SLOTS = 8 };

static struct np_iovring opened(void)
{
    struct np_iovring ring;
    assert_int_equal(np_iovring_open(&ring, SLOTS), 0);
    return ring;
}

static void a_full_ring_gives_nothing(void **state)
{
    (void)state;
    struct np_iovring ring = opened();
    uint32_t end, first_end;
    assert_non_null(np_iovring_draw(&ring, 5, &first_end));
    assert_non_null(np_iovring_draw(&ring, 3, &end));
    assert_null(np_iovring_draw(&ring, 1, &end));
    np_iovring_retire(&ring, first_end);
    assert_null(np_iovring_draw(&ring, 6, &end));
    assert_ptr_equal(np_iovring_draw(&ring, 5, &end), ring.slots);
    np_iovring_close(&ring);
}

static void a_span_is_contiguous(void **state)
{
    (void)state;
    struct np_iovring ring = opened();
    uint32_t ends[2];
    np_iovring_draw(&ring, 3, &ends[0]);
    np_iovring_draw(&ring, 3, &ends[1]);
    np_iovring_retire(&ring, ends[0]);
    /* Two are left at the end, three at the start: the two are skipped. */
    assert_ptr_equal(np_iovring_draw(&ring, 3, &ends[0]), ring.slots);
    assert_int_equal(np_iovring_used(&ring), SLOTS);
    np_iovring_retire(&ring, ends[1]);
    np_iovring_retire(&ring, ends[0]);
    assert_int_equal(np_iovring_used(&ring), 0);
    np_iovring_close(&ring);
}

static void an_empty_ring_holds_as_much_as_it_has(void **state)
{
    (void)state;
    struct np_iovring ring = opened();
    uint32_t end;
    for (uint32_t before = 1; before < SLOTS; before++) {
        assert_non_null(np_iovring_draw(&ring, before, &end));
        np_iovring_retire(&ring, end);
        assert_non_null(np_iovring_draw(&ring, SLOTS, &end));
        np_iovring_retire(&ring, end);
    }
    assert_null(np_iovring_draw(&ring, SLOTS + 1, &end));
    assert_int_equal(np_iovring_used(&ring), 0);
    np_iovring_close(&ring);
}

static void retiring_twice_changes_nothing(void **state)
{
    (void)state;
    struct np_iovring ring = opened();
    uint32_t old_end, end;
    np_iovring_draw(&ring, 2, &old_end);
    np_iovring_draw(&ring, 2, &end);
    np_iovring_retire(&ring, end);
    np_iovring_draw(&ring, 4, &end);
    np_iovring_retire(&ring, old_end);
    assert_int_equal(np_iovring_used(&ring), 4);
    np_iovring_close(&ring);
}

/* Spans in flight never overlap, and positions may wrap around 32 bits. */
static void random_spans(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct np_random random = np_random_seeded(seed);
        struct np_iovring ring = opened();
        uint32_t ends[SLOTS], sizes[SLOTS], owner_of[SLOTS] = {0}, oldest = 0, newest = 0;
        struct iovec *spans[SLOTS];
        ring.head = ring.tail = UINT32_MAX - 20;
        for (int step = 0; step < 400; step++) {
            uint32_t n = 1 + np_random_below(&random, SLOTS), end;
            struct iovec *span = newest - oldest < SLOTS ? np_iovring_draw(&ring, n, &end) : NULL;
            if (span) {
                assert_true(span >= ring.slots && span + n <= ring.slots + SLOTS);
                for (uint32_t i = 0; i < n; i++) {
                    assert_int_equal(owner_of[span - ring.slots + i], 0);
                    owner_of[span - ring.slots + i] = newest + 1;
                }
                ends[newest % SLOTS] = end;
                sizes[newest % SLOTS] = n;
                spans[newest++ % SLOTS] = span;
            } else {
                assert_true(newest > oldest); /* an empty ring has room for any n */
            }
            if (newest > oldest && (!span || np_random_below(&random, 2))) {
                for (uint32_t i = 0; i < sizes[oldest % SLOTS]; i++)
                    owner_of[spans[oldest % SLOTS] - ring.slots + i] = 0;
                np_iovring_retire(&ring, ends[oldest++ % SLOTS]);
            }
        }
        np_iovring_close(&ring);
    }
}

static void no_memory(void **state)
{
    (void)state;
    struct np_iovring ring;
    np_fail_allocations(1);
    assert_int_equal(np_iovring_open(&ring, SLOTS), -ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_ring_gives_nothing),
        cmocka_unit_test(a_span_is_contiguous),
        cmocka_unit_test(an_empty_ring_holds_as_much_as_it_has),
        cmocka_unit_test(retiring_twice_changes_nothing),
        cmocka_unit_test(random_spans),
        cmocka_unit_test(no_memory),
    };
    return NP_TEST_MAIN("test_iovring", tests);
}
