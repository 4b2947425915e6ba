/* np_inbox.h - the one door for other threads: many producers, one consumer, no lock.
 *
 * Purpose   call_soon_threadsafe. A push is one compare-and-swap, and one write to an eventfd only
 *           if the consumer sleeps (or is about to): a busy loop is never woken twice.
 * Order     FIFO: the order in which the pushes took effect; so each producer's own order is kept.
 * Sleeping  The consumer calls np_inbox_sleep before it blocks: it returns 1 when it may block and
 *           0 when something arrived first. After it wakes: np_inbox_awake. The store to `sleeping`
 *           and the load of `head` (consumer) pair with the store to `head` and the load of
 *           `sleeping` (producer): all four sequentially consistent, so one side always sees the
 *           other (the store-buffer pattern).
 * Ownership The caller embeds struct np_inbox_node and keeps it alive until the consumer has taken
 *           it. The inbox owns wake_fd (an eventfd, nonblocking, close-on-exec).
 * Errors    np_inbox_open: 0 or -errno. np_inbox_push: 0, or -errno of a failed wake-up write (the
 *           node is queued all the same).
 * Threads   push: any. The rest: the loop's thread.
 */
#ifndef NP_INBOX_H
#define NP_INBOX_H

#include <stdatomic.h>
#include <stdint.h>

struct np_inbox_node {
    struct np_inbox_node *next;
};

struct np_inbox {
    _Atomic(struct np_inbox_node *) head; /* newest first; reversed by np_inbox_take */
    _Atomic(int) sleeping;
    int wake_fd;
    _Atomic(uint64_t) wakes_count; /* eventfd writes, for stats */
};

int np_inbox_open(struct np_inbox *inbox);
void np_inbox_close(struct np_inbox *inbox); /* nodes still queued are the caller's to take first */
int np_inbox_push(struct np_inbox *inbox, struct np_inbox_node *node);
/* Wakes the consumer without queueing anything. Async-signal-safe. */
int np_inbox_wake(struct np_inbox *inbox);
/* Everything queued so far, oldest first, linked through `next`; NULL when empty. */
struct np_inbox_node *np_inbox_take(struct np_inbox *inbox);
/* The newest of what is queued, linked through `next` to the oldest, and left there. Only while
 * nobody takes. */
static inline struct np_inbox_node *np_inbox_peek(const struct np_inbox *inbox)
{
    return atomic_load_explicit(&inbox->head, memory_order_acquire);
}
int np_inbox_is_empty(struct np_inbox *inbox);
int np_inbox_sleep(struct np_inbox *inbox);
void np_inbox_awake(struct np_inbox *inbox);
/* Empties the counter of a wake_fd that was seen readable. Backends know the fd, not the inbox. */
void np_inbox_drain_wake(int wake_fd);

#endif
