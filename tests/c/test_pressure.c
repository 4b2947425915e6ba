/* test_pressure.c - the backends with too little of everything: buffers, queue entries, fds. */
#include "np_rig.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- buffers ------------------------------------------------------------------------------- */

enum { CONNECTIONS = 50, PER_CONNECTION = 6000 };

struct crowd {
    int fds[CONNECTIONS][2];
    struct np_watch recvs[CONNECTIONS];
    size_t written[CONNECTIONS];
};

static void crowd_open(struct np_rig *rig, struct crowd *crowd)
{
    memset(crowd, 0, sizeof(*crowd));
    for (int i = 0; i < CONNECTIONS; i++) {
        np_tcp_pair(crowd->fds[i]);
        np_rig_arm(rig, &crowd->recvs[i], NP_OP_RECV, crowd->fds[i][0]);
    }
}

static void crowd_write(struct crowd *crowd, int i, size_t len_bytes)
{
    uint8_t data[PER_CONNECTION];
    np_stream_fill(data, (uint32_t)i, crowd->written[i], len_bytes);
    np_write_all(crowd->fds[i][1], data, len_bytes);
    crowd->written[i] += len_bytes;
}

static int crowd_is_done(const struct crowd *crowd)
{
    for (int i = 0; i < CONNECTIONS; i++)
        if (crowd->recvs[i].bytes_count < crowd->written[i])
            return 0;
    return 1;
}

static void crowd_close(struct np_rig *rig, struct crowd *crowd)
{
    for (int i = 0; i < CONNECTIONS; i++) {
        struct np_watch *recv = &crowd->recvs[i];
        np_rig_stop(rig, recv);
        assert_int_equal(recv->bytes_count, crowd->written[i]);
        assert_true(np_stream_matches(recv->bytes, (uint32_t)i, 0, recv->bytes_count));
        assert_int_equal(recv->lasts_count, 1);
        np_rig_close_fd(rig, crowd->fds[i][0]);
        close(crowd->fds[i][1]);
        np_watch_free(recv);
    }
}

static void fifty_connections_share_two_buffers(struct np_rig *rig)
{
    static struct crowd crowd;
    crowd_open(rig, &crowd);
    np_rig_turn(rig, 0);
    for (int i = 0; i < CONNECTIONS; i++)
        crowd_write(&crowd, i, PER_CONNECTION);
    NP_UNTIL(rig, crowd_is_done(&crowd));
    assert_true(np_rig_stats(rig).counts.enobufs > 0);
    for (int i = 0; i < CONNECTIONS; i++)
        assert_true(crowd.recvs[i].armed); /* running out of buffers was nobody's last event */
    crowd_write(&crowd, 7, 100); /* and all is as before: a single message comes through */
    NP_UNTIL(rig, crowd_is_done(&crowd));
    crowd_close(rig, &crowd);
}

static void scarce_buffers_go_round(struct np_rig *rig)
{
    static struct crowd crowd;
    np_rig_reopen(rig, (struct np_config){.buf_count = 2, .buf_bytes = 256}); /* large queues */
    crowd_open(rig, &crowd);
    np_rig_turn(rig, 0);
    for (int i = 0; i < CONNECTIONS; i++)
        crowd_write(&crowd, i, PER_CONNECTION);
    /* Nobody has everything while somebody has nothing. */
    for (int quickest_done = 0; !quickest_done;) {
        int slowest_started = 1;
        np_rig_turn(rig, MS_NS);
        for (int i = 0; i < CONNECTIONS; i++) {
            quickest_done |= crowd.recvs[i].bytes_count == PER_CONNECTION;
            slowest_started &= crowd.recvs[i].bytes_count > 0;
        }
        assert_true(!quickest_done || slowest_started);
    }
    NP_UNTIL(rig, crowd_is_done(&crowd));
    crowd_close(rig, &crowd);
}

static void cancelled_while_starving(struct np_rig *rig)
{
    static struct crowd crowd;
    crowd_open(rig, &crowd);
    np_rig_turn(rig, 0);
    for (int i = 0; i < CONNECTIONS; i++)
        crowd_write(&crowd, i, PER_CONNECTION);
    np_rig_turn(rig, 0);
    for (int i = 0; i < CONNECTIONS; i++)
        assert_int_equal(rig->ops->cancel(rig->be, crowd.recvs[i].op, 0), 0);
    int64_t before_ns = np_clock_ns();
    assert_true(np_rig_turn(rig, 5 * SECOND_NS) > 0); /* those are over now: nothing to wait for */
    assert_true(np_clock_ns() - before_ns < 2 * SECOND_NS);
    for (int i = 0; i < CONNECTIONS; i++)
        NP_UNTIL(rig, !crowd.recvs[i].armed);
    for (int i = 0; i < CONNECTIONS; i++) { /* nothing is lost: the rest waits in the sockets */
        crowd.recvs[i].lasts_count = 0;
        np_rig_arm(rig, &crowd.recvs[i], NP_OP_RECV, crowd.fds[i][0]);
    }
    NP_UNTIL(rig, crowd_is_done(&crowd));
    crowd_close(rig, &crowd);
}

/* Somebody holds every buffer and does not let go: to end a receive takes none. */
static void cancelled_while_every_buffer_is_held(struct np_rig *rig)
{
    static struct crowd crowd;
    static struct np_buf *held[CONNECTIONS * 64];
    uint32_t held_count = 0;
    crowd_open(rig, &crowd);
    np_rig_turn(rig, 0);
    for (int i = 0; i < CONNECTIONS; i++)
        crowd_write(&crowd, i, PER_CONNECTION);
    while (np_rig_stats(rig).bufs_free || !np_rig_stats(rig).counts.enobufs) {
        int n = np_rig_turn(rig, MS_NS);
        for (int i = 0; i < n; i++) {
            if (rig->events[i].kind != NP_OP_RECV || rig->events[i].res <= 0)
                continue;
            assert_true(held_count < CONNECTIONS * 64);
            held[held_count] = rig->events[i].buf;
            np_buf_hold(held[held_count++]);
        }
    }
    for (int i = 0; i < CONNECTIONS; i++)
        assert_int_equal(rig->ops->cancel(rig->be, crowd.recvs[i].op, 0), 0);
    for (int i = 0; i < CONNECTIONS; i++)
        NP_UNTIL(rig, !crowd.recvs[i].armed);
    while (held_count)
        np_buf_release(held[--held_count]);
    for (int i = 0; i < CONNECTIONS; i++) {
        crowd.recvs[i].lasts_count = 0;
        np_rig_arm(rig, &crowd.recvs[i], NP_OP_RECV, crowd.fds[i][0]);
    }
    NP_UNTIL(rig, crowd_is_done(&crowd));
    crowd_close(rig, &crowd);
}

static void starving_and_cancelled_and_moved(struct np_rig *rig)
{
    static struct crowd crowd;
    crowd_open(rig, &crowd);
    np_rig_turn(rig, 0);
    for (int i = 0; i < CONNECTIONS; i++)
        crowd_write(&crowd, i, PER_CONNECTION);
    np_rig_turn(rig, 0);
    for (int i = 0; i < CONNECTIONS; i += 2)
        assert_int_equal(rig->ops->cancel(rig->be, crowd.recvs[i].op, 0), 0);
    np_rig_turn_in_thread(rig, 0, 0);
    assert_int_equal(rig->ops->enable(rig->be), 0);
    for (int i = 0; i < CONNECTIONS; i += 2) {
        NP_UNTIL(rig, !crowd.recvs[i].armed);
        crowd.recvs[i].lasts_count = 0;
        np_rig_arm(rig, &crowd.recvs[i], NP_OP_RECV, crowd.fds[i][0]);
    }
    NP_UNTIL(rig, crowd_is_done(&crowd));
    crowd_close(rig, &crowd);
}

static void one_event_at_a_time_loses_nothing(struct np_rig *rig)
{
    static struct crowd crowd;
    rig->max_events = 1;
    crowd_open(rig, &crowd);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < CONNECTIONS; i++)
            crowd_write(&crowd, i, 300);
        NP_UNTIL(rig, crowd_is_done(&crowd));
    }
    crowd_close(rig, &crowd);
}

/* ---- queues -------------------------------------------------------------------------------- */

static void a_hundred_operations_through_eight_entries(struct np_rig *rig)
{
    enum { COUNT = 100 };
    int fds[COUNT][2];
    struct np_watch watches[COUNT] = {{0}};
    for (int i = 0; i < COUNT; i++) {
        np_socket_pair(fds[i]);
        np_rig_arm(rig, &watches[i], NP_OP_RECV, fds[i][0]);
    }
    for (int i = 0; i < COUNT; i++)
        np_write_all(fds[i][1], "x", 1);
    for (int i = 0; i < COUNT; i++)
        NP_UNTIL(rig, watches[i].bytes_count == 1);
    if (np_rig_is_uring(rig))
        assert_true(np_rig_stats(rig).counts.sq_full > 0);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(rig->ops->cancel(rig->be, watches[i].op, 0), 0);
    for (int i = 0; i < COUNT; i++) {
        NP_UNTIL(rig, !watches[i].armed);
        assert_int_equal(watches[i].last_res, -ECANCELED);
        np_rig_close_fd(rig, fds[i][0]);
        close(fds[i][1]);
        np_watch_free(&watches[i]);
    }
}

static void more_completions_than_the_queue_holds(struct np_rig *rig)
{
    enum { COUNT = 200 };
    static struct np_watch watches[COUNT];
    int fds[2];
    memset(watches, 0, sizeof(watches));
    np_socket_pair(fds);
    rig->max_events = 3;
    for (int i = 0; i < COUNT; i++) /* all of them ready at once */
        np_rig_poll(rig, &watches[i], fds[0], POLLOUT);
    assert_int_equal(np_inbox_wake(&rig->inbox), 0); /* a completion, too, that may not fit */
    int64_t end_ns = np_clock_ns() + 10 * SECOND_NS;
    for (int i = 0; i < COUNT; i++) {
        while (watches[i].armed) {
            assert_true(np_clock_ns() < end_ns);
            np_rig_turn(rig, 0); /* a busy loop never waits, and gets them all the same */
        }
        assert_int_equal(watches[i].last_res, POLLOUT);
        assert_int_equal(watches[i].events_count, 1);
    }
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

static void a_wake_is_heard_after_the_queue_overflowed(struct np_rig *rig)
{
    for (int round = 0; round < 3; round++) {
        more_completions_than_the_queue_holds(rig);
        np_rig_turn(rig, 0);
        assert_int_equal(np_inbox_wake(&rig->inbox), 0);
        int64_t before_ns = np_clock_ns();
        assert_true(np_rig_turn(rig, 5 * SECOND_NS) <= 0);
        assert_true(np_clock_ns() - before_ns < 2 * SECOND_NS);
    }
}

static void a_flood_of_messages_through_a_tiny_queue(struct np_rig *rig)
{
    static struct crowd crowd;
    np_rig_reopen(rig, (struct np_config){
                           .sq_entries = 8, .cq_entries = 8, .buf_count = 64, .buf_bytes = 256});
    rig->max_events = 5;
    crowd_open(rig, &crowd);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < CONNECTIONS; i++)
            crowd_write(&crowd, i, 100);
        np_rig_turn(rig, 0);
    }
    NP_UNTIL(rig, crowd_is_done(&crowd));
    crowd_close(rig, &crowd);
}

static void a_crowd_of_clients_at_once(struct np_rig *rig)
{
    enum { CLIENTS = 150 };
    uint16_t port;
    int clients[CLIENTS];
    struct np_watch watch = {0};
    int listener = np_tcp_listen(&port, CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = np_tcp_connect(port);
    rig->max_events = 4;
    np_rig_arm(rig, &watch, NP_OP_ACCEPT, listener);
    NP_UNTIL(rig, watch.accepted_count == CLIENTS);
    np_rig_stop(rig, &watch);
    assert_int_equal(watch.accepted_count, CLIENTS);
    for (int i = 0; i < CLIENTS; i++) {
        close(watch.accepted[i]);
        close(clients[i]);
    }
    np_rig_close_fd(rig, listener);
    np_watch_free(&watch);
}

/* Timers and call_soon wait for a turn: however much is ready, it is over soon. */
static void a_turn_is_bounded(struct np_rig *rig)
{
    static struct crowd crowd;
    crowd_open(rig, &crowd);
    np_rig_turn(rig, 0);
    for (int i = 0; i < CONNECTIONS; i++)
        crowd_write(&crowd, i, PER_CONNECTION);
    for (size_t before = 0, after = 0; !crowd_is_done(&crowd); before = after) {
        assert_in_range(np_rig_turn(rig, 0), 0, rig->max_events);
        after = 0;
        for (int i = 0; i < CONNECTIONS; i++)
            after += crowd.recvs[i].bytes_count;
        assert_true(after - before <= (size_t)RIG_MAX_EVENTS * RIG_BUF_BYTES);
    }
    crowd_close(rig, &crowd);
}

/* ---- file descriptors ---------------------------------------------------------------------- */

static void accept_without_a_free_fd_ends_and_starts_again(struct np_rig *rig)
{
    uint16_t port;
    int clients[2];
    struct np_watch watch = {0};
    struct rlimit before;
    int listener = np_tcp_listen(&port, 8);
    for (int i = 0; i < 2; i++)
        clients[i] = np_tcp_connect(port);
    np_rig_turn(rig, 0);

    int next = dup(0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none_left = {(rlim_t)next, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none_left), 0);
    np_rig_arm(rig, &watch, NP_OP_ACCEPT, listener); /* io_uring notes the limit when it is armed */
    NP_UNTIL(rig, !watch.armed);
    for (int i = 0; i < 3; i++) /* over is over: nothing spins on the waiting clients */
        np_rig_idle_turn(rig, MS_NS);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(watch.last_res, -EMFILE);
    assert_int_equal(watch.accepted_count, 0);

    np_rig_arm(rig, &watch, NP_OP_ACCEPT, listener);
    NP_UNTIL(rig, watch.accepted_count == 2);
    np_rig_stop(rig, &watch);
    for (int i = 0; i < 2; i++) {
        close(watch.accepted[i]);
        close(clients[i]);
    }
    np_rig_close_fd(rig, listener);
    np_watch_free(&watch);
}

/* ---- memory -------------------------------------------------------------------------------- */

static void refused_memory_is_an_error_and_no_more(struct np_rig *rig)
{
    int fds[2];
    struct np_watch watch = {0};
    np_socket_pair(fds);
    for (int failing = 1; failing < 6; failing++) {
        struct np_op *op = np_op_alloc(&np_head(rig->be)->slab, NP_OP_RECV, fds[0], &watch);
        watch.op = np_op_udata(op);
        watch.kind = NP_OP_RECV;
        np_fail_allocations(failing);
        int rc = rig->ops->arm(rig->be, op);
        np_fail_allocations(0);
        watch.armed = rc == 0;
        assert_true(rc == 0 || rc == -ENOMEM);
        if (rc == 0)
            np_rig_stop(rig, &watch);
        assert_int_equal(np_rig_stats(rig).ops_live, 0);
    }
    np_write_all(fds[1], "x", 1);
    np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
    NP_UNTIL(rig, watch.bytes_count == 1);
    np_rig_stop(rig, &watch);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    np_watch_free(&watch);
}

/* io_uring's POLL reports POLLRDHUP whatever was asked for (bug class 41). */
static void a_half_closed_peer_makes_no_room(struct np_rig *rig)
{
    int fds[2];
    char bytes[4096];
    struct np_watch watch = {0}, other = {0};
    np_socket_pair(fds);
    np_write_until_full(fds[0]);
    shutdown(fds[1], SHUT_WR);
    np_rig_poll(rig, &watch, fds[0], POLLOUT);
    np_rig_poll(rig, &other, fds[0], POLLOUT);
    for (int i = 0; i < 3; i++)
        np_rig_turn(rig, 0);
    for (int i = 0; i < 3; i++)
        assert_true(np_rig_idle_turn(rig, 10 * MS_NS) >= 10 * MS_NS);
    assert_true(watch.armed && other.armed);
    np_rig_stop(rig, &other);
    while (read(fds[1], bytes, sizeof(bytes)) > 0)
        ;
    NP_UNTIL(rig, !watch.armed);
    assert_true(watch.last_res & POLLOUT);
    assert_int_equal(watch.events_count, 1);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

int main(void)
{
    static const struct np_rig_test tests[] = {
        NP_RIG_TEST(fifty_connections_share_two_buffers),
        NP_RIG_TEST(scarce_buffers_go_round),
        NP_RIG_TEST(cancelled_while_starving),
        NP_RIG_TEST(cancelled_while_every_buffer_is_held),
        NP_RIG_TEST(starving_and_cancelled_and_moved),
        NP_RIG_TEST(one_event_at_a_time_loses_nothing),
        NP_RIG_TEST(a_hundred_operations_through_eight_entries),
        NP_RIG_TEST(more_completions_than_the_queue_holds),
        NP_RIG_TEST(a_wake_is_heard_after_the_queue_overflowed),
        NP_RIG_TEST(a_flood_of_messages_through_a_tiny_queue),
        NP_RIG_TEST(a_crowd_of_clients_at_once),
        NP_RIG_TEST(a_turn_is_bounded),
        NP_RIG_TEST(accept_without_a_free_fd_ends_and_starts_again),
        NP_RIG_TEST(refused_memory_is_an_error_and_no_more),
        NP_RIG_TEST(a_half_closed_peer_makes_no_room),
    };
    return NP_RIG_MAIN("test_pressure", tests);
}
