/* np_assert.h - assertions: compile-time layout checks and run-time invariants.
 *
 * Purpose   NP_STATIC_ASSERT pins layouts. NP_ASSERT checks an invariant whose violation means
 *           memory is about to be corrupted; it is on in every build. NP_DCHECK is for checks
 *           that cost something on the hot path; only NP_DEBUG builds (the sanitizer lanes) run it.
 */
#ifndef NP_ASSERT_H
#define NP_ASSERT_H

#include <stdio.h>
#include <stdlib.h>

#define NP_STATIC_ASSERT(condition, message) _Static_assert(condition, message)

#define NP_ASSERT(condition)                                                                       \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) {                                                   \
            fprintf(stderr, "netpoll: %s:%d: invariant broken: %s\n", __FILE__, __LINE__,          \
                    #condition);                                                                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#ifdef NP_DEBUG
#define NP_DCHECK(condition) NP_ASSERT(condition)
#else
#define NP_DCHECK(condition) ((void)0)
#endif

#define NP_LIKELY(x) __builtin_expect(!!(x), 1)
#define NP_UNLIKELY(x) __builtin_expect(!!(x), 0)

#endif
