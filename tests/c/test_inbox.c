/* test_inbox.c - the inbox under many producers. Also built with ThreadSanitizer (make tsan). */
#include "np_test.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#include "io/np_inbox.h"

enum { PRODUCERS = 8, WAIT_MAX_MS = 10000 };

struct message {
    struct np_inbox_node node; /* first: a node's address is its message's */
    uint32_t producer;
    uint32_t number;
};

struct producer {
    struct np_inbox *inbox;
    struct message *messages;
    uint32_t count;
    int pause; /* yield now and then, so that the consumer falls asleep in between */
    int error;
    pthread_t thread;
};

static int is_readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, timeout_ms);
}

static void an_empty_inbox_sleeps(void **state)
{
    (void)state;
    struct np_inbox inbox;
    assert_int_equal(np_inbox_open(&inbox), 0);
    assert_true(np_inbox_is_empty(&inbox));
    assert_null(np_inbox_take(&inbox));
    assert_int_equal(np_inbox_sleep(&inbox), 1);
    np_inbox_awake(&inbox);
    assert_int_equal(is_readable(inbox.wake_fd, 0), 0);
    np_inbox_drain_wake(inbox.wake_fd); /* nothing there: it does not block */
    np_inbox_close(&inbox);
}

static void one_thread_is_first_in_first_out(void **state)
{
    (void)state;
    struct np_inbox inbox;
    struct np_inbox_node nodes[5];
    assert_int_equal(np_inbox_open(&inbox), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(np_inbox_push(&inbox, &nodes[i]), 0);
    assert_false(np_inbox_is_empty(&inbox));
    struct np_inbox_node *node = np_inbox_take(&inbox);
    for (int i = 0; i < 5; i++, node = node->next)
        assert_ptr_equal(node, &nodes[i]);
    assert_null(node);
    assert_true(np_inbox_is_empty(&inbox));
    np_inbox_close(&inbox);
}

static void an_awake_consumer_is_not_woken(void **state)
{
    (void)state;
    struct np_inbox inbox;
    struct np_inbox_node nodes[100];
    assert_int_equal(np_inbox_open(&inbox), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(np_inbox_push(&inbox, &nodes[i]), 0);
    assert_int_equal(atomic_load(&inbox.wakes_count), 0);
    assert_int_equal(is_readable(inbox.wake_fd, 0), 0);
    assert_int_equal(np_inbox_sleep(&inbox), 0); /* something is there: it must not sleep */
    assert_int_equal(atomic_load(&inbox.sleeping), 0);
    assert_non_null(np_inbox_take(&inbox));
    np_inbox_close(&inbox);
}

static void a_sleeper_is_woken_once(void **state)
{
    (void)state;
    struct np_inbox inbox;
    struct np_inbox_node nodes[100];
    assert_int_equal(np_inbox_open(&inbox), 0);
    assert_int_equal(np_inbox_sleep(&inbox), 1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(np_inbox_push(&inbox, &nodes[i]), 0);
    assert_int_equal(atomic_load(&inbox.wakes_count), 1);
    assert_int_equal(is_readable(inbox.wake_fd, 0), 1);
    np_inbox_awake(&inbox);
    np_inbox_drain_wake(inbox.wake_fd);
    assert_int_equal(is_readable(inbox.wake_fd, 0), 0);
    assert_non_null(np_inbox_take(&inbox));
    assert_int_equal(np_inbox_sleep(&inbox), 1);
    assert_int_equal(np_inbox_push(&inbox, &nodes[0]), 0);
    assert_int_equal(atomic_load(&inbox.wakes_count), 2);
    assert_non_null(np_inbox_take(&inbox));
    np_inbox_close(&inbox);
}

static void wake_is_unconditional_and_keeps_errno(void **state)
{
    (void)state;
    struct np_inbox inbox;
    assert_int_equal(np_inbox_open(&inbox), 0);
    assert_int_equal(np_inbox_wake(&inbox), 0);
    assert_int_equal(is_readable(inbox.wake_fd, 0), 1);

    uint64_t nearly_full = UINT64_MAX - 2;
    np_inbox_drain_wake(inbox.wake_fd);
    assert_int_equal(write(inbox.wake_fd, &nearly_full, 8), 8);
    errno = ERANGE;
    for (int i = 0; i < 3; i++)
        assert_int_equal(np_inbox_wake(&inbox), 0); /* a full counter is as good as a write */
    assert_int_equal(errno, ERANGE);
    assert_int_equal(is_readable(inbox.wake_fd, 0), 1);
    np_inbox_close(&inbox);
}

static void a_failed_wake_still_queues(void **state)
{
    (void)state;
    struct np_inbox inbox;
    struct np_inbox_node node;
    assert_int_equal(np_inbox_open(&inbox), 0);
    int fd = inbox.wake_fd;
    inbox.wake_fd = -1;
    assert_int_equal(np_inbox_sleep(&inbox), 1);
    errno = ERANGE;
    assert_int_equal(np_inbox_push(&inbox, &node), -EBADF);
    assert_int_equal(errno, ERANGE);
    assert_ptr_equal(np_inbox_take(&inbox), &node);
    inbox.wake_fd = fd;
    np_inbox_close(&inbox);
    assert_int_equal(inbox.wake_fd, -1);
}

static void *produce(void *arg)
{
    struct producer *producer = arg;
    for (uint32_t i = 0; i < producer->count; i++) {
        int rc = np_inbox_push(producer->inbox, &producer->messages[i].node);
        if (rc < 0)
            producer->error = rc;
        if (producer->pause && i % 16 == 0)
            sched_yield();
    }
    return NULL;
}

static void start(struct producer *producers, struct np_inbox *inbox, uint32_t count, int pause)
{
    for (uint32_t p = 0; p < PRODUCERS; p++) {
        producers[p] = (struct producer){.inbox = inbox, .count = count, .pause = pause};
        producers[p].messages = calloc(count, sizeof(struct message));
        for (uint32_t i = 0; i < count; i++) {
            producers[p].messages[i].producer = p;
            producers[p].messages[i].number = i;
        }
    }
    for (uint32_t p = 0; p < PRODUCERS; p++)
        assert_int_equal(pthread_create(&producers[p].thread, NULL, produce, &producers[p]), 0);
}

static void finish(struct producer *producers)
{
    for (uint32_t p = 0; p < PRODUCERS; p++) {
        assert_int_equal(pthread_join(producers[p].thread, NULL), 0);
        assert_int_equal(producers[p].error, 0);
        free(producers[p].messages);
    }
}

/* Checks one batch: each producer's messages come in its own order, none is missing. */
static uint32_t check_batch(struct np_inbox_node *node, uint32_t *next_number)
{
    uint32_t count = 0;
    for (; node; node = node->next, count++) {
        const struct message *message = (const struct message *)node;
        assert_true(message->producer < PRODUCERS);
        assert_int_equal(message->number, next_number[message->producer]++);
    }
    return count;
}

static void eight_producers_lose_nothing(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    struct np_inbox inbox;
    struct producer producers[PRODUCERS];
    uint32_t next_number[PRODUCERS] = {0}, taken = 0;
    assert_int_equal(np_inbox_open(&inbox), 0);
    start(producers, &inbox, COUNT, 0);
    while (taken < PRODUCERS * COUNT) {
        uint32_t count = check_batch(np_inbox_take(&inbox), next_number);
        taken += count;
        if (count == 0)
            sched_yield();
    }
    assert_true(np_inbox_is_empty(&inbox));
    assert_int_equal(atomic_load(&inbox.wakes_count), 0); /* the consumer never slept */
    finish(producers);
    np_inbox_close(&inbox);
}

static void a_storm_of_sleeps_and_wakes_is_bounded(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    struct np_inbox inbox;
    struct producer producers[PRODUCERS];
    uint32_t next_number[PRODUCERS] = {0}, taken = 0;
    uint64_t sleeps = 0;
    assert_int_equal(np_inbox_open(&inbox), 0);
    start(producers, &inbox, COUNT, 1);
    while (taken < PRODUCERS * COUNT) {
        sleeps++;
        if (np_inbox_sleep(&inbox)) {
            /* Running into this limit is a lost wake-up: nobody was told of what is queued. */
            assert_int_equal(is_readable(inbox.wake_fd, WAIT_MAX_MS), 1);
            np_inbox_awake(&inbox);
            np_inbox_drain_wake(inbox.wake_fd);
        }
        taken += check_batch(np_inbox_take(&inbox), next_number);
    }
    finish(producers);
    assert_true(atomic_load(&inbox.wakes_count) <= sleeps); /* one write per sleep at most */
    np_inbox_close(&inbox);
}

struct ping_pong {
    struct np_inbox there, back;
    struct message ping, pong;
    uint32_t rounds;
    int error;
};

/* Sleeps until a message comes; the message is alone. */
static int wait_for_one(struct np_inbox *inbox, struct np_inbox_node *expected)
{
    struct np_inbox_node *node;
    while (!(node = np_inbox_take(inbox))) {
        if (np_inbox_sleep(inbox)) {
            if (is_readable(inbox->wake_fd, WAIT_MAX_MS) != 1)
                return -ETIMEDOUT;
            np_inbox_awake(inbox);
            np_inbox_drain_wake(inbox->wake_fd);
        }
    }
    return node == expected && !node->next ? 0 : -EPROTO;
}

static void *pong(void *arg)
{
    struct ping_pong *game = arg;
    for (uint32_t i = 0; i < game->rounds && game->error == 0; i++) {
        game->error = wait_for_one(&game->there, &game->ping.node);
        game->pong.number = game->ping.number + 1;
        np_inbox_push(&game->back, &game->pong.node);
    }
    return NULL;
}

static void every_sleep_is_ended_by_its_push(void **state)
{
    (void)state;
    struct ping_pong game = {.rounds = 20000};
    pthread_t thread;
    assert_int_equal(np_inbox_open(&game.there), 0);
    assert_int_equal(np_inbox_open(&game.back), 0);
    assert_int_equal(pthread_create(&thread, NULL, pong, &game), 0);
    for (uint32_t i = 0; i < game.rounds; i++) {
        game.ping.number = i;
        assert_int_equal(np_inbox_push(&game.there, &game.ping.node), 0);
        assert_int_equal(wait_for_one(&game.back, &game.pong.node), 0);
        assert_int_equal(game.pong.number, i + 1); /* the node's content came along */
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(game.error, 0);
    np_inbox_close(&game.there);
    np_inbox_close(&game.back);
}

static void close_with_a_node_queued(void *arg)
{
    struct np_inbox_node node;
    np_inbox_push(arg, &node);
    np_inbox_close(arg);
}

static void broken_rules_abort(void **state)
{
    (void)state;
    struct np_inbox inbox;
    assert_int_equal(np_inbox_open(&inbox), 0);
    assert_true(np_aborts(close_with_a_node_queued, &inbox));
    np_inbox_close(&inbox);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_inbox_sleeps),
        cmocka_unit_test(one_thread_is_first_in_first_out),
        cmocka_unit_test(an_awake_consumer_is_not_woken),
        cmocka_unit_test(a_sleeper_is_woken_once),
        cmocka_unit_test(wake_is_unconditional_and_keeps_errno),
        cmocka_unit_test(a_failed_wake_still_queues),
        cmocka_unit_test(eight_producers_lose_nothing),
        cmocka_unit_test(a_storm_of_sleeps_and_wakes_is_bounded),
        cmocka_unit_test(every_sleep_is_ended_by_its_push),
        cmocka_unit_test(broken_rules_abort),
    };
    return NP_TEST_MAIN("test_inbox", tests);
}
