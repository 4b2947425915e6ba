/* np_park.h - where one worker sleeps, and how it is woken: a token that cannot get lost.
 *
 *               wake                       wait
 *     EMPTY ----------> TOKEN      TOKEN --------> EMPTY      (returns at once)
 *     SLEEPING -------> TOKEN      EMPTY --------> SLEEPING   (until woken or the time is up)
 *
 * Purpose   A wake-up that comes before the wait makes the wait return at once. A waiting worker
 *           looks for NP_PARK_SPIN_COUNT pauses (some microseconds), then sleeps on a futex: no
 *           file descriptor, and one system call on each side.
 * A ring    A worker that waits in its event loop's ring is woken through the ring's inbox: set
 *           `inbox`, and np_park_wake writes there. The inbox may be closed when `inbox` is NULL
 *           again and wakes_count says that every wake-up that has begun is over.
 * Ownership Of nothing. All zero: EMPTY.
 * Threads   wait: the worker. wake: any; async-signal-safe.
 */
#ifndef NP_PARK_H
#define NP_PARK_H

#include <stdatomic.h>
#include <stdint.h>

#include "io/np_inbox.h"

enum np_park_word { NP_PARK_EMPTY = 0, NP_PARK_TOKEN, NP_PARK_SLEEPING };

struct np_park {
    _Alignas(64) _Atomic(uint32_t) word;
    _Atomic(struct np_inbox *) inbox; /* or NULL; the worker's to set, while it is awake */
    _Atomic(uint64_t) wakes_count;    /* calls of np_park_wake that touch nothing any more */
};

void np_park_init(struct np_park *park);
/* timeout_ns < 0: without end. 1: woken (the token is used up); 0: the time is up. */
int np_park_wait(struct np_park *park, int64_t timeout_ns);
void np_park_wake(struct np_park *park);

#endif
