/* test_bio.c - the windows of a TLS session, and the table of OpenSSL's functions. */
#include "np_test.h"

#include <dlfcn.h>

#include "tls/np_bio.h"
#include "base/np_limits.h"
#include "tls/np_openssl.h"

enum { SIZE = 40 };
static const char TEXT[SIZE + 1] = "abcdefghijklmnopqrstuvwxyz0123456789ABCD";

static void input_is_taken_at_every_boundary(void **state)
{
    (void)state;
    for (size_t part = 1; part <= SIZE + 1; part++) {
        struct np_guarded lent = np_guarded_open(SIZE);
        struct np_bio bio = {0};
        char out[SIZE + 8];
        size_t got = 0, n;

        memcpy(lent.base, TEXT, SIZE);
        np_bio_lend_in(&bio, lent.base, SIZE);
        while ((n = np_bio_take(&bio, out + got, part)) > 0) {
            got += n;
            assert_int_equal(bio.in_bytes, SIZE - got);
        }
        assert_int_equal(got, SIZE);
        assert_memory_equal(out, TEXT, SIZE);
        np_guarded_close(&lent);
    }
}

static void nothing_lent_is_nothing_there(void **state)
{
    struct np_bio bio = {0};
    char out[8];

    (void)state;
    assert_int_equal(np_bio_take(&bio, out, sizeof(out)), 0);
    np_bio_lend_in(&bio, TEXT, SIZE);
    np_bio_lend_in(&bio, NULL, 0);
    assert_int_equal(np_bio_take(&bio, out, sizeof(out)), 0);
    assert_int_equal(np_bio_put(&bio, NULL, 0), 0);
    assert_null(bio.spill);
}

/* What was put, in order: the lent memory, then the spill. */
static void check_output(struct np_bio *bio, const uint8_t *lent, size_t lent_bytes, size_t total)
{
    size_t first = total < lent_bytes ? total : lent_bytes;

    assert_int_equal(bio->out_bytes, first);
    assert_int_equal(bio->spill_bytes, total - first);
    if (first)
        assert_memory_equal(lent, TEXT, first);
    if (total > first)
        assert_memory_equal(bio->spill, TEXT + first, total - first);
}

static void output_spills_at_every_boundary(void **state)
{
    (void)state;
    for (size_t cap = 0; cap <= SIZE + 1; cap++) {
        for (size_t part = 1; part <= SIZE; part++) {
            struct np_guarded lent = np_guarded_open(cap ? cap : 1);
            struct np_bio bio = {0};

            if (cap)
                np_bio_lend_out(&bio, lent.base, cap);
            for (size_t at = 0; at < SIZE; at += part) {
                size_t n = SIZE - at < part ? SIZE - at : part;
                assert_int_equal(np_bio_put(&bio, TEXT + at, n), 0);
            }
            check_output(&bio, lent.base, cap, SIZE);
            np_bio_drop_spill(&bio);
            assert_null(bio.spill);
            assert_int_equal(bio.spill_bytes, 0);
            np_guarded_close(&lent);
        }
    }
}

static void a_spill_grows_and_keeps_its_bytes(void **state)
{
    struct np_bio bio = {0};
    size_t total = 0;

    (void)state;
    while (total < 20 * NP_BIO_SPILL_MIN_BYTES) {
        assert_int_equal(np_bio_put(&bio, TEXT, SIZE), 0);
        total += SIZE;
    }
    assert_int_equal(bio.spill_bytes, total);
    for (size_t at = 0; at < total; at += SIZE)
        assert_memory_equal(bio.spill + at, TEXT, SIZE);
    np_bio_drop_spill(&bio);
}

static void without_memory_nothing_is_half_put(void **state)
{
    struct np_bio bio = {0};
    char lent[10];

    (void)state;
    np_bio_lend_out(&bio, lent, sizeof(lent));
    np_fail_allocations(1);
    assert_int_equal(np_bio_put(&bio, TEXT, SIZE), -ENOMEM);
    assert_int_equal(bio.out_bytes, 0);
    assert_int_equal(bio.spill_bytes, 0);
    assert_int_equal(np_bio_put(&bio, TEXT, SIZE), 0);
    check_output(&bio, (uint8_t *)lent, sizeof(lent), SIZE);
    np_bio_drop_spill(&bio);
}

static void lend_over_a_spill(void *bio)
{
    static char lent[10];

    np_bio_lend_out(bio, lent, sizeof(lent));
}

static void lending_over_a_spill_aborts(void **state)
{
    struct np_bio bio = {0};

    (void)state;
    assert_int_equal(np_bio_put(&bio, TEXT, SIZE), 0);
    assert_true(np_aborts(lend_over_a_spill, &bio));
    np_bio_drop_spill(&bio);
}

static void a_library_without_openssl_is_refused(void **state)
{
    struct np_openssl table = {0};
    void *libc = dlopen("libc.so.6", RTLD_LAZY);

    (void)state;
    assert_non_null(libc);
    assert_int_equal(np_openssl_load(&table, libc, NULL), -ENOENT);
    assert_null(table.SSL_read);
    dlclose(libc);
}

static void functions_of_another_object_are_refused(void **state)
{
    struct np_openssl table = {0};
    void *handle = dlopen("libssl.so.3", RTLD_LAZY);

    (void)state;
    if (handle == NULL)
        np_skip("OpenSSL's functions", "there is no libssl.so.3");
    /* BIO_new is libcrypto's and SSL_read libssl's: neither lives in this program. */
    assert_int_equal(np_openssl_load(&table, handle, (void *)lend_over_a_spill), -ENOENT);
    assert_null(table.SSL_read);
    assert_int_equal(np_openssl_load(&table, handle, NULL), 0);
    assert_non_null(table.SSL_read);
    assert_non_null(strstr(table.OpenSSL_version(0), "SSL"));
    dlclose(handle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(input_is_taken_at_every_boundary),
        cmocka_unit_test(nothing_lent_is_nothing_there),
        cmocka_unit_test(output_spills_at_every_boundary),
        cmocka_unit_test(a_spill_grows_and_keeps_its_bytes),
        cmocka_unit_test(without_memory_nothing_is_half_put),
        cmocka_unit_test(lending_over_a_spill_aborts),
        cmocka_unit_test(a_library_without_openssl_is_refused),
        cmocka_unit_test(functions_of_another_object_are_refused),
    };
    return NP_TEST_MAIN("test_bio", tests);
}
