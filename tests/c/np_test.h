/* np_test.h - what the test programs share. cmocka does the asserting and the reporting.
 *
 * Purpose   A seeded random source, memory that ends at an unreadable page, "this must abort",
 *           allocation failures on demand, and a main() whose last line says how it went.
 * Threads   cmocka's assertions leave by longjmp: only the thread that runs the test may assert.
 */
#ifndef NP_TEST_H
#define NP_TEST_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* xorshift64*: the same sequence everywhere for the same seed. */
struct np_random {
    uint64_t state;
};

static inline struct np_random np_random_seeded(uint64_t seed)
{
    return (struct np_random){seed * 0x9E3779B97F4A7C15u | 1};
}

static inline uint64_t np_random_next(struct np_random *random)
{
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return random->state * 0x2545F4914F6CDD1Du;
}

/* 0 .. bound - 1 */
static inline uint32_t np_random_below(struct np_random *random, uint32_t bound)
{
    return (uint32_t)((np_random_next(random) >> 32) * bound >> 32);
}

/* Memory whose last byte lies directly before a PROT_NONE page. */
struct np_guarded {
    uint8_t *base; /* size_bytes from here on */
    size_t size_bytes;
    void *mapping;
    size_t mapping_bytes;
};

struct np_guarded np_guarded_open(size_t size_bytes);
void np_guarded_close(struct np_guarded *guarded);

/* 1 when `body` ends in abort(), which is what a broken invariant does. Runs it in a child. */
int np_aborts(void (*body)(void *), void *arg);

/* The next `count` allocations of the code under test (malloc, realloc, aligned_alloc) fail. */
void np_fail_allocations(int count);

/* The number of open file descriptors of this process. */
int np_count_fds(void);

/* Leaves the test as skipped, says why, and counts it for the closing line. */
void np_skip(const char *what, const char *reason);

/* Runs the group; the last line is "test_xyz: 7 tests passed, 0 skipped" or "... FAILED".
 * NP_TEST_FILTER: only the tests whose names are like this (* and ?). */
int np_test_main(const char *name, const struct CMUnitTest *tests, size_t count);

#define NP_TEST_MAIN(name, tests) np_test_main(name, tests, sizeof(tests) / sizeof(tests[0]))

#endif
