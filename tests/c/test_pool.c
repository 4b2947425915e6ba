/* test_pool.c - the pool of send buffers against a model, and from several threads. */
#include "np_test.h"

#include <pthread.h>

#include "base/np_assert.h"
#include "mem/np_pool.h"

enum { CHUNK = 4096, CHUNKS = 6 };
static const uint32_t CLASSES[] = {64, 256, 4096};

static void open_small(struct np_pool *pool)
{
    assert_int_equal(np_pool_open(pool, CHUNK * CHUNKS, CLASSES, 3, NP_ARENA_PLAIN_ONLY), 0);
}

static np_block take(struct np_pool *pool, size_t bytes)
{
    np_block block;
    assert_int_equal(np_pool_take(pool, bytes, &block), 0);
    return block;
}

static void classes_are_checked(void **state)
{
    (void)state;
    static const uint32_t wrong[][2] = {{64, 64}, {256, 64}, {64, 100},
                                        {32, 64}, {0, 64},   {64, NP_POOL_BLOCK_MAX_BYTES * 2u}};
    struct np_pool pool;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(np_pool_open(&pool, 1 << 20, wrong[i], 2, 0), -EINVAL);
    assert_int_equal(np_pool_open(&pool, 0, CLASSES, 3, 0), -EINVAL);
    assert_int_equal(np_pool_open(&pool, 1 << 20, CLASSES, 0, 0), -EINVAL);
    assert_int_equal(np_pool_open(&pool, SIZE_MAX / 2, CLASSES, 3, 0), -EINVAL);
}

static void a_block_has_the_smallest_class_that_fits(void **state)
{
    (void)state;
    static const size_t asked[] = {1, 64, 65, 256, 257, 4096};
    static const uint32_t got[] = {64, 64, 256, 256, 4096, 4096};
    struct np_pool pool;
    struct np_pool_stats stats;
    open_small(&pool);
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        np_block block = take(&pool, asked[i]);
        np_pool_get_stats(&pool, &stats);
        assert_int_equal(stats.used_bytes, got[i]);
        memset(np_pool_base(&pool, block), 1, got[i]);
        assert_int_equal((np_pool_base(&pool, block) - pool.arena.base) % got[i], 0);
        np_pool_drop(&pool, block);
    }
    np_block none;
    assert_int_equal(np_pool_take(&pool, 4097, &none), -EMSGSIZE);
    np_pool_close(&pool);
}

static void an_exhausted_pool_says_so_and_recovers(void **state)
{
    (void)state;
    struct np_pool pool;
    struct np_pool_stats stats;
    np_block blocks[CHUNKS], none;
    open_small(&pool);
    for (int i = 0; i < CHUNKS; i++)
        blocks[i] = take(&pool, CHUNK);
    assert_int_equal(np_pool_take(&pool, 1, &none), -ENOBUFS);
    assert_int_equal(np_pool_take(&pool, CHUNK, &none), -ENOBUFS);
    np_pool_get_stats(&pool, &stats);
    assert_int_equal(stats.used_bytes, CHUNK * CHUNKS);
    assert_int_equal(stats.free_chunk_bytes, 0);
    assert_int_equal(stats.classes[0].refused_count, 1);
    assert_int_equal(stats.classes[2].refused_count, 1);
    np_pool_drop(&pool, blocks[3]);
    np_block small = take(&pool, 1); /* the chunk changes its class */
    assert_int_equal(np_pool_take(&pool, CHUNK, &none), -ENOBUFS);
    np_pool_drop(&pool, small);
    blocks[3] = take(&pool, CHUNK); /* and back */
    for (int i = 0; i < CHUNKS; i++)
        np_pool_drop(&pool, blocks[i]);
    np_pool_get_stats(&pool, &stats);
    assert_int_equal(stats.blocks_used_count, 0);
    assert_int_equal(stats.free_chunk_bytes, CHUNK * CHUNKS);
    np_pool_close(&pool);
}

struct misuse {
    struct np_pool *pool;
    np_block block;
};

static void drop_it(void *arg)
{
    struct misuse *misuse = arg;
    np_pool_drop(misuse->pool, misuse->block);
}

static void write_it(void *arg)
{
    struct misuse *misuse = arg;
    misuse->pool->arena.base[((uint32_t)misuse->block - 1) * CLASSES[0]] = 1;
}

static void close_it(void *arg)
{
    np_pool_close(((struct misuse *)arg)->pool);
}

static void misuse_aborts(void **state)
{
    (void)state;
    struct np_pool pool;
    open_small(&pool);
    struct misuse misuse = {&pool, take(&pool, 64)};
    assert_true(np_aborts(close_it, &misuse)); /* a block is in use */
    np_pool_drop(&pool, misuse.block);
    assert_true(np_aborts(drop_it, &misuse)); /* twice */
    np_block again = take(&pool, 64);
    assert_int_equal((uint32_t)again, (uint32_t)misuse.block); /* the same place, */
    assert_true(np_aborts(drop_it, &misuse));                  /* another life */
    np_pool_drop(&pool, again);
#ifdef __SANITIZE_ADDRESS__
    assert_true(np_aborts(write_it, &misuse));
#else
    (void)write_it;
#endif
    np_pool_close(&pool);
}

static void no_memory(void **state)
{
    (void)state;
    struct np_pool pool;
    uint32_t huge[] = {64, 4096};
    /* Neither the arena nor the tables: whatever is refused, nothing stays behind. */
    assert_int_equal(np_pool_open(&pool, (size_t)1 << 46, huge, 2, NP_ARENA_PLAIN_ONLY), -EINVAL);
    uint32_t large[] = {NP_POOL_BLOCK_MAX_BYTES};
    assert_int_equal(np_pool_open(&pool, (size_t)1 << 50, large, 1, NP_ARENA_PLAIN_ONLY), -ENOMEM);
}

static size_t class_that_holds(size_t bytes)
{
    size_t i = 0;
    while (CLASSES[i] < bytes)
        i++;
    return CLASSES[i];
}

/* Every live block holds its own pattern: nobody else writes into it, whatever comes and goes. */
static void random_model(void **state)
{
    (void)state;
    enum { LIVE = 300 };
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct np_random random = np_random_seeded(seed);
        struct np_pool pool;
        np_block blocks[LIVE] = {0};
        size_t sizes[LIVE], used_bytes = 0;
        open_small(&pool);
        for (int step = 0; step < 3000; step++) {
            uint32_t i = np_random_below(&random, LIVE);
            if (blocks[i]) {
                uint8_t *base = np_pool_base(&pool, blocks[i]);
                for (size_t at = 0; at < sizes[i]; at++)
                    assert_int_equal(base[at], (uint8_t)(i + at));
                np_pool_drop(&pool, blocks[i]);
                blocks[i] = 0;
                used_bytes -= class_that_holds(sizes[i]);
                continue;
            }
            sizes[i] = 1 + np_random_below(&random, np_random_below(&random, 3) ? 300 : CHUNK);
            int err = np_pool_take(&pool, sizes[i], &blocks[i]);
            if (err < 0) {
                assert_int_equal(err, -ENOBUFS);
                blocks[i] = 0;
                continue;
            }
            used_bytes += class_that_holds(sizes[i]);
            for (size_t at = 0; at < sizes[i]; at++)
                np_pool_base(&pool, blocks[i])[at] = (uint8_t)(i + at);
            struct np_pool_stats stats;
            np_pool_get_stats(&pool, &stats);
            assert_int_equal(stats.used_bytes, used_bytes);
        }
        for (int i = 0; i < LIVE; i++)
            if (blocks[i])
                np_pool_drop(&pool, blocks[i]);
        np_pool_close(&pool);
    }
}

struct shared {
    struct np_pool *pool;
    uint8_t mark;
};

static void *hammer(void *arg)
{
    struct shared *shared = arg;
    struct np_random random = np_random_seeded(shared->mark);
    for (int i = 0; i < 3000; i++) {
        np_block block;
        size_t bytes = 1 + np_random_below(&random, 300);
        if (np_pool_take(shared->pool, bytes, &block) == 0) {
            uint8_t *base = np_pool_base(shared->pool, block);
            memset(base, shared->mark, bytes);
            for (size_t at = 0; at < bytes; at++)
                NP_ASSERT(base[at] == shared->mark);
            np_pool_drop(shared->pool, block);
        }
    }
    return NULL;
}

static void threads_share_a_pool(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    struct np_pool pool;
    pthread_t threads[THREADS];
    struct shared shared[THREADS];
    open_small(&pool);
    for (int i = 0; i < THREADS; i++) {
        shared[i] = (struct shared){&pool, (uint8_t)(i + 1)};
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &shared[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    np_pool_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_are_checked),
        cmocka_unit_test(a_block_has_the_smallest_class_that_fits),
        cmocka_unit_test(an_exhausted_pool_says_so_and_recovers),
        cmocka_unit_test(misuse_aborts),
        cmocka_unit_test(no_memory),
        cmocka_unit_test(random_model),
        cmocka_unit_test(threads_share_a_pool),
    };
    return NP_TEST_MAIN("test_pool", tests);
}
