/* np_inbox.c - a Treiber stack that is taken whole, which is why it has no ABA problem.
 *
 * Producers push at the head; the consumer exchanges the head for NULL and reverses what it got.
 * The order of the pushes is the order of their successful compare-and-swaps.
 */
#include "io/np_inbox.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/np_assert.h"

int np_inbox_open(struct np_inbox *inbox)
{
    atomic_init(&inbox->head, NULL);
    atomic_init(&inbox->sleeping, 0);
    atomic_init(&inbox->wakes_count, 0);
    inbox->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return inbox->wake_fd < 0 ? -errno : 0;
}

void np_inbox_close(struct np_inbox *inbox)
{
    NP_DCHECK(np_inbox_is_empty(inbox));
    if (inbox->wake_fd >= 0)
        close(inbox->wake_fd);
    inbox->wake_fd = -1;
}

int np_inbox_push(struct np_inbox *inbox, struct np_inbox_node *node)
{
    struct np_inbox_node *head = atomic_load_explicit(&inbox->head, memory_order_relaxed);
    do {
        node->next = head;
        /* Success pairs with the exchange in np_inbox_take (the node's content), and with the
         * load of head in np_inbox_sleep (the store-buffer pattern). */
    } while (!atomic_compare_exchange_weak_explicit(&inbox->head, &head, node, memory_order_seq_cst,
                                                    memory_order_relaxed));
    /* From here on `node` may be gone: the consumer may have taken it. Pairs with the store to
     * sleeping in np_inbox_sleep. The exchange elects one of many producers to write. */
    if (atomic_load_explicit(&inbox->sleeping, memory_order_seq_cst) == 0)
        return 0;
    if (atomic_exchange_explicit(&inbox->sleeping, 0, memory_order_seq_cst) == 0)
        return 0;
    return np_inbox_wake(inbox);
}

int np_inbox_wake(struct np_inbox *inbox)
{
    /* Unconditional: with nothing queued, the flag alone could not tell a consumer that is just
     * about to sleep. errno is restored because a signal handler may be the caller. */
    const uint64_t one = 1;
    int saved_errno = errno;
    int rc = 0;
    while (write(inbox->wake_fd, &one, sizeof(one)) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN) /* EAGAIN: the counter is full, so it is readable already */
            rc = -errno;
        break;
    }
    errno = saved_errno;
    if (rc == 0)
        atomic_fetch_add_explicit(&inbox->wakes_count, 1, memory_order_relaxed);
    return rc;
}

struct np_inbox_node *np_inbox_take(struct np_inbox *inbox)
{
    if (np_inbox_is_empty(inbox))
        return NULL; /* a plain load: an idle turn does not take the line from the producers */
    struct np_inbox_node *node = atomic_exchange_explicit(&inbox->head, NULL, memory_order_seq_cst);
    struct np_inbox_node *oldest = NULL;
    while (node) {
        struct np_inbox_node *next = node->next;
        node->next = oldest;
        oldest = node;
        node = next;
    }
    return oldest;
}

int np_inbox_is_empty(struct np_inbox *inbox)
{
    return atomic_load_explicit(&inbox->head, memory_order_relaxed) == NULL;
}

int np_inbox_sleep(struct np_inbox *inbox)
{
    /* Store, then load, both sequentially consistent: pairs with the compare-and-swap and the
     * load in np_inbox_push. Either we see the node or the producer sees that we sleep. */
    atomic_store_explicit(&inbox->sleeping, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&inbox->head, memory_order_seq_cst) == NULL)
        return 1;
    np_inbox_awake(inbox);
    return 0;
}

void np_inbox_awake(struct np_inbox *inbox)
{
    atomic_store_explicit(&inbox->sleeping, 0, memory_order_relaxed);
}

void np_inbox_drain_wake(int wake_fd)
{
    uint64_t count;
    ssize_t n = read(wake_fd, &count, sizeof(count));
    (void)n; /* EAGAIN: an earlier read took it */
}
