/* test_pins.c - owners come back after their notification, in the order of sending. */
#include "np_test.h"

#include "mem/np_pins.h"

static char owners[16];

static void push(struct np_pins *pins, np_udata op, int owner)
{
    assert_int_equal(np_pins_reserve(pins, 1), 0);
    np_pins_push(pins, op, &owners[owner]);
}

static void nothing_comes_back_before_its_notice(void **state)
{
    (void)state;
    struct np_pins pins;
    np_pins_init(&pins);
    push(&pins, 7, 0);
    push(&pins, 7, 1);
    push(&pins, 8, 2);
    assert_null(np_pins_pop(&pins));
    np_pins_notice(&pins, 7);
    assert_ptr_equal(np_pins_pop(&pins), &owners[0]);
    assert_ptr_equal(np_pins_pop(&pins), &owners[1]);
    assert_null(np_pins_pop(&pins));
    np_pins_notice(&pins, 8);
    assert_ptr_equal(np_pins_pop(&pins), &owners[2]);
    assert_null(np_pins_pop(&pins));
    assert_null(pins.pins); /* an idle connection holds no memory */
}

static void an_early_notice_waits_for_those_before(void **state)
{
    (void)state;
    struct np_pins pins;
    np_pins_init(&pins);
    for (int i = 0; i < 3; i++)
        push(&pins, (np_udata)i + 1, i);
    np_pins_notice(&pins, 2);
    np_pins_notice(&pins, 99); /* of a send that held nothing */
    assert_null(np_pins_pop(&pins));
    np_pins_notice(&pins, 1);
    assert_ptr_equal(np_pins_pop(&pins), &owners[0]);
    assert_ptr_equal(np_pins_pop(&pins), &owners[1]);
    assert_null(np_pins_pop(&pins));
    assert_ptr_equal(np_pins_force_pop(&pins), &owners[2]);
    assert_null(np_pins_force_pop(&pins));
}

static void random_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct np_random random = np_random_seeded(seed);
        struct np_pins pins;
        uint8_t noticed[256] = {0};
        uint32_t pushed = 0, popped = 0;
        np_pins_init(&pins);
        while (popped < 256) {
            if (pushed < 256 && np_random_below(&random, 2)) {
                push(&pins, pushed + 1, (int)(pushed % 16));
                pushed++;
            } else if (pushed > popped) {
                uint32_t which = popped + np_random_below(&random, pushed - popped);
                noticed[which] = 1;
                np_pins_notice(&pins, which + 1);
            }
            for (void *owner; (owner = np_pins_pop(&pins)) != NULL; popped++) {
                assert_true(noticed[popped]);
                assert_ptr_equal(owner, &owners[popped % 16]);
            }
            assert_true(popped == pushed || !noticed[popped]);
        }
        assert_int_equal(pins.count, 0);
    }
}

static void room_is_made_before_sending(void **state)
{
    (void)state;
    struct np_pins pins;
    np_pins_init(&pins);
    np_fail_allocations(1);
    assert_int_equal(np_pins_reserve(&pins, 3), -ENOMEM);
    assert_int_equal(np_pins_reserve(&pins, 100), 0);
    np_fail_allocations(1); /* not needed any more */
    for (int i = 0; i < 100; i++)
        np_pins_push(&pins, 5, &owners[i % 16]);
    np_fail_allocations(0);
    np_pins_notice(&pins, 5);
    for (int i = 0; i < 100; i++)
        assert_ptr_equal(np_pins_pop(&pins), &owners[i % 16]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_comes_back_before_its_notice),
        cmocka_unit_test(an_early_notice_waits_for_those_before),
        cmocka_unit_test(random_order),
        cmocka_unit_test(room_is_made_before_sending),
    };
    return NP_TEST_MAIN("test_pins", tests);
}
