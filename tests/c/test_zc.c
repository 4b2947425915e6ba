/* test_zc.c - when a connection asks for zero-copy. */
#include "np_test.h"

#include "io/np_zc.h"

static const size_t LARGE_BYTES = 1 << 20;

/* How many large sends go by until one asks. */
static int count_skipped(struct np_zc *zc)
{
    int skipped = 0;
    while (!np_zc_wants(zc, LARGE_BYTES, 1, 0))
        skipped++;
    return skipped;
}

static void small_sends_never_ask(void **state)
{
    (void)state;
    struct np_zc zc = {0};
    assert_false(np_zc_wants(&zc, NP_ZC_REGISTERED_MIN_BYTES - 1, 1, 0));
    assert_true(np_zc_wants(&zc, NP_ZC_REGISTERED_MIN_BYTES, 1, 0));
    assert_false(np_zc_wants(&zc, NP_ZC_PINNED_MIN_BYTES - 1, 0, 0));
    assert_true(np_zc_wants(&zc, NP_ZC_PINNED_MIN_BYTES, 0, 0));
}

static void a_path_that_copies_is_asked_ever_more_rarely(void **state)
{
    (void)state;
    struct np_zc zc = {0};
    int expected = NP_ZC_RETRY_FIRST_COUNT;
    assert_int_equal(count_skipped(&zc), 0);
    for (int i = 0; i < 20; i++) {
        np_zc_report(&zc, NP_EV_MORE); /* the result: says nothing */
        np_zc_report(&zc, NP_EV_NOTIF | NP_EV_COPIED);
        np_zc_report(&zc, NP_EV_NOTIF | NP_EV_COPIED); /* another one that was under way */
        assert_int_equal(count_skipped(&zc), expected);
        expected = expected * 2 < NP_ZC_RETRY_MAX_COUNT ? expected * 2 : NP_ZC_RETRY_MAX_COUNT;
    }
}

static void a_path_that_does_not_copy_is_asked_always(void **state)
{
    (void)state;
    struct np_zc zc = {0};
    for (int i = 0; i < 10; i++) {
        assert_int_equal(count_skipped(&zc), 0);
        np_zc_report(&zc, NP_EV_NOTIF);
    }
    np_zc_report(&zc, NP_EV_NOTIF | NP_EV_COPIED);
    np_zc_report(&zc, NP_EV_NOTIF); /* the route has changed */
    assert_int_equal(count_skipped(&zc), 0);
    np_zc_report(&zc, NP_EV_NOTIF | NP_EV_COPIED);
    assert_int_equal(count_skipped(&zc), NP_ZC_RETRY_FIRST_COUNT); /* from the start again */
}

/* Only of a send that was alone is "copied" the truth: the others are not listened to. */
static void what_is_not_sure_changes_nothing(void **state)
{
    (void)state;
    struct np_zc zc = {0};
    assert_int_equal(np_zc_wants(&zc, LARGE_BYTES, 1, 0), NP_SEND_ZC | NP_SEND_ALONE);
    assert_int_equal(np_zc_wants(&zc, LARGE_BYTES, 1, 1), NP_SEND_ZC);
    np_zc_report(&zc, NP_EV_NOTIF | NP_EV_COPIED | NP_EV_UNSURE);
    assert_int_equal(count_skipped(&zc), 0);
    np_zc_report(&zc, NP_EV_NOTIF | NP_EV_COPIED);
    np_zc_report(&zc, NP_EV_NOTIF | NP_EV_COPIED | NP_EV_UNSURE);
    assert_int_equal(count_skipped(&zc), NP_ZC_RETRY_FIRST_COUNT);
}

static void a_refusal_counts_as_a_copy(void **state)
{
    (void)state;
    struct np_zc zc = {0};
    np_zc_report(&zc, NP_EV_NO_ZC);
    assert_int_equal(count_skipped(&zc), NP_ZC_RETRY_FIRST_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_sends_never_ask),
        cmocka_unit_test(a_path_that_copies_is_asked_ever_more_rarely),
        cmocka_unit_test(a_path_that_does_not_copy_is_asked_always),
        cmocka_unit_test(what_is_not_sure_changes_nothing),
        cmocka_unit_test(a_refusal_counts_as_a_copy),
    };
    return NP_TEST_MAIN("test_zc", tests);
}
