/* test_races.c - cancellation, reuse, threads, forks and signals in the wrong moment. */
#define _GNU_SOURCE /* accept4 */
#include "np_rig.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- cancel -------------------------------------------------------------------------------- */

static void cancel_before_anything_was_submitted(struct np_rig *rig)
{
    int fds[2];
    np_socket_pair(fds);
    for (int i = 0; i < 20; i++) {
        struct np_watch watch = {0};
        np_rig_poll(rig, &watch, fds[0], POLLIN);
        assert_int_equal(rig->ops->cancel(rig->be, watch.op, 0), 0);
        NP_UNTIL(rig, !watch.armed);
        assert_int_equal(watch.last_res, -ECANCELED);
        assert_int_equal(watch.events_count, 1);
    }
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

static void cancel_twice_and_cancel_what_is_gone(struct np_rig *rig)
{
    int fds[2];
    struct np_watch watch = {0}, next = {0};
    np_socket_pair(fds);
    np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
    np_rig_turn(rig, 0);
    np_udata first_life = watch.op;
    assert_int_equal(rig->ops->cancel(rig->be, first_life, 0), 0);
    int again = rig->ops->cancel(rig->be, first_life, 0);
    assert_true(again == 0 || again == -ENOENT);
    NP_UNTIL(rig, !watch.armed);
    assert_int_equal(watch.last_res, -ECANCELED);
    assert_int_equal(rig->ops->cancel(rig->be, first_life, 0), -ENOENT);
    assert_int_equal(rig->ops->cancel(rig->be, NP_UDATA_NONE, 0), -ENOENT);
    assert_int_equal(rig->ops->cancel(rig->be, NP_UDATA_WAKE, 0), -ENOENT);
    assert_int_equal(rig->ops->cancel(rig->be, first_life, NP_CANCEL_SETTLE), -ENOENT);

    np_rig_arm(rig, &next, NP_OP_RECV, fds[0]); /* most likely in the same slot */
    np_rig_turn(rig, 0);
    assert_int_equal(rig->ops->cancel(rig->be, first_life, 0), -ENOENT);
    np_write_all(fds[1], "alive", 5);
    NP_UNTIL(rig, next.bytes_count == 5);
    np_rig_stop(rig, &next);
    for (int i = 0; i < 3; i++)
        np_rig_turn(rig, 0);
    assert_int_equal(watch.lasts_count, 1);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    np_watch_free(&next);
}

/* Pause and resume, the data arriving at every point in between: none is lost or doubled. */
static void cancel_after_the_data_has_come(struct np_rig *rig)
{
    enum { ROUNDS = 300, BYTES = 100 };
    int fds[2];
    uint8_t data[BYTES];
    struct np_watch watch = {0};
    np_socket_pair(fds);
    for (int i = 0; i < ROUNDS; i++) {
        np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
        if (i % 2)
            np_rig_turn(rig, 0);
        np_stream_fill(data, 5, (uint64_t)i * BYTES, BYTES);
        if (i % 5 != 4)
            np_write_all(fds[1], data, BYTES);
        if (i % 3 == 1)
            assert_int_equal(rig->ops->flush(rig->be), 0);
        if (i % 7 == 6)
            assert_int_equal(rig->ops->cancel(rig->be, watch.op, NP_CANCEL_SETTLE), 0);
        else
            assert_int_equal(rig->ops->cancel(rig->be, watch.op, 0), 0);
        if (i % 5 == 4)
            np_write_all(fds[1], data, BYTES);
        NP_UNTIL(rig, !watch.armed);
        assert_int_equal(watch.lasts_count, i + 1);
    }
    np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
    NP_UNTIL(rig, watch.bytes_count == ROUNDS * BYTES);
    np_rig_stop(rig, &watch);
    assert_int_equal(watch.bytes_count, ROUNDS * BYTES);
    assert_true(np_stream_matches(watch.bytes, 5, 0, watch.bytes_count));
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    np_watch_free(&watch);
}

/* The connection that came at the last moment is delivered or still in the backlog. */
static void cancel_of_an_accept_leaks_no_connection(struct np_rig *rig)
{
    uint16_t port;
    struct np_watch watch = {0};
    int listener = np_tcp_listen(&port, 16);
    for (int i = 0; i < 40; i++) {
        uint32_t before = watch.accepted_count;
        np_rig_arm(rig, &watch, NP_OP_ACCEPT, listener);
        if (i % 2)
            np_rig_turn(rig, 0);
        int client = np_tcp_connect(port);
        if (i % 3 == 0)
            assert_int_equal(rig->ops->flush(rig->be), 0);
        np_rig_stop(rig, &watch);
        if (watch.accepted_count == before) {
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            assert_true(fd >= 0);
            close(fd);
        } else {
            assert_int_equal(watch.accepted_count, before + 1);
            close(watch.accepted[before]);
            assert_int_equal(accept4(listener, NULL, NULL, SOCK_CLOEXEC), -1);
        }
        close(client);
    }
    np_rig_close_fd(rig, listener);
    np_watch_free(&watch);
}

/* An fd's number is somebody else's the moment it is closed: nothing old may meet the new one. */
static void closed_and_reused_at_once(struct np_rig *rig)
{
    int fds[2];
    np_socket_pair(fds);
    for (uint32_t i = 0; i < 400; i++) {
        struct np_watch recv = {0}, out = {0};
        int reused = fds[0];
        np_rig_arm(rig, &recv, NP_OP_RECV, fds[0]);
        if (i % 4 == 1)
            np_write_until_full(fds[0]);
        np_rig_poll(rig, &out, fds[0], POLLOUT);
        if (i % 2)
            np_rig_turn(rig, 0);
        np_write_all(fds[1], &i, sizeof(i));
        if (i % 3)
            NP_UNTIL(rig, recv.bytes_count == sizeof(i));
        if (recv.bytes_count > 0)
            assert_memory_equal(recv.bytes, &i, sizeof(i));
        if (i % 5 == 0) /* bytes that nobody is going to read */
            np_write_all(fds[1], "stale", 5);
        np_rig_stop(rig, &recv);
        np_rig_stop(rig, &out);
        np_rig_close_fd(rig, fds[0]);
        close(fds[1]);
        np_watch_free(&recv);
        np_socket_pair(fds);
        assert_int_equal(fds[0], reused);
    }
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

/* ---- threads ------------------------------------------------------------------------------- */

static void a_loop_moves_between_threads_with_operations_in_flight(struct np_rig *rig)
{
    enum { MOVES = 12, BYTES = 1000 };
    uint16_t port;
    int fds[2], full[2], clients[MOVES];
    uint8_t data[BYTES];
    struct np_watch recv = {0}, accept = {0}, poll_in = {0}, poll_out = {0};
    int listener = np_tcp_listen(&port, 16);
    np_tcp_pair(fds);
    np_socket_pair(full);
    size_t filled = np_write_until_full(full[0]);
    np_rig_arm(rig, &recv, NP_OP_RECV, fds[0]);
    np_rig_arm(rig, &accept, NP_OP_ACCEPT, listener);
    np_rig_poll(rig, &poll_in, full[0], POLLIN);
    np_rig_poll(rig, &poll_out, full[0], POLLOUT);
    for (int i = 0; i < MOVES; i++) {
        np_stream_fill(data, 6, (uint64_t)i * BYTES, BYTES);
        if (i % 3 == 0)
            np_rig_turn(rig, 0); /* the kernel has it all when the other thread comes */
        np_write_all(fds[1], data, BYTES);
        clients[i] = np_tcp_connect(port);
        if (i % 3 == 1)
            assert_int_equal(rig->ops->flush(rig->be), 0);
        np_rig_turn_in_thread(rig, i % 4, MS_NS);
        assert_int_equal(rig->ops->enable(rig->be), 0);
    }
    NP_UNTIL(rig, recv.bytes_count == MOVES * BYTES && accept.accepted_count == MOVES);
    assert_true(np_stream_matches(recv.bytes, 6, 0, recv.bytes_count));
    if (np_rig_is_uring(rig))
        assert_int_equal(np_rig_stats(rig).counts.moves, 2 * MOVES);
    assert_true(poll_in.armed);
    assert_true(poll_out.armed);
    while (filled > 0) {
        static uint8_t sink[65536];
        ssize_t n = read(full[1], sink, sizeof(sink));
        assert_true(n > 0);
        filled -= (size_t)n;
    }
    NP_UNTIL(rig, !poll_out.armed);
    np_rig_stop(rig, &poll_in);
    np_rig_stop(rig, &recv);
    np_rig_stop(rig, &accept);
    for (int i = 0; i < MOVES; i++) {
        close(accept.accepted[i]);
        close(clients[i]);
    }
    np_rig_close_fd(rig, fds[0]);
    np_rig_close_fd(rig, full[0]);
    np_rig_close_fd(rig, listener);
    close(fds[1]);
    close(full[1]);
    np_watch_free(&recv);
    np_watch_free(&accept);
}

/* What one thread harvested and did not take is still there for the third. */
static void two_moves_without_a_turn_in_between(struct np_rig *rig)
{
    enum { BYTES = 200 };
    int fds[2], other[2];
    uint8_t data[BYTES];
    struct np_watch recv = {0}, other_recv = {0};
    np_socket_pair(fds);
    np_socket_pair(other);
    np_rig_arm(rig, &recv, NP_OP_RECV, fds[0]);
    np_rig_arm(rig, &other_recv, NP_OP_RECV, other[0]);
    np_rig_turn(rig, 0);
    for (int round = 0; round < 4; round++) {
        np_stream_fill(data, 7, (uint64_t)round * BYTES, BYTES);
        np_write_all(fds[1], data, BYTES);
        np_write_all(other[1], data, BYTES);
        rig->max_events = 1; /* completions stay behind in the queue */
        np_rig_turn(rig, 0);
        rig->max_events = RIG_MAX_EVENTS;
        np_rig_turn_in_thread(rig, 0, 0);
        np_rig_turn_in_thread(rig, round % 2, 0);
        assert_int_equal(rig->ops->enable(rig->be), 0);
        size_t expected = (size_t)(round + 1) * BYTES;
        NP_UNTIL(rig, recv.bytes_count == expected && other_recv.bytes_count == expected);
    }
    assert_true(np_stream_matches(recv.bytes, 7, 0, recv.bytes_count));
    assert_true(np_stream_matches(other_recv.bytes, 7, 0, other_recv.bytes_count));
    np_rig_stop(rig, &recv);
    np_rig_stop(rig, &other_recv);
    np_rig_close_fd(rig, fds[0]);
    np_rig_close_fd(rig, other[0]);
    close(fds[1]);
    close(other[1]);
    np_watch_free(&recv);
    np_watch_free(&other_recv);
}

static void queued_sends_move_too(struct np_rig *rig)
{
    enum { COUNT = RIG_SQ_ENTRIES };
    int fds[2 * COUNT][2];
    struct np_watch watches[2 * COUNT] = {{0}};
    char got[8];
    np_rig_turn(rig, 0);
    for (int i = 0; i < 2 * COUNT; i++) {
        struct iovec iov[2] = {{"ab", 2}, {"cd", 2}};
        np_socket_pair(fds[i]);
        if (i == COUNT)
            np_rig_turn_in_thread(rig, 0, 0); /* a full queue goes along */
        np_rig_start_send(rig, &watches[i], fds[i][0], iov, 2, 0);
    }
    assert_int_equal(rig->ops->enable(rig->be), 0);
    for (int i = 0; i < 2 * COUNT; i++) {
        NP_UNTIL(rig, !watches[i].armed);
        assert_int_equal(watches[i].last_res, 4);
        assert_int_equal(read(fds[i][1], got, sizeof(got)), 4);
        assert_memory_equal(got, "abcd", 4);
        np_rig_close_fd(rig, fds[i][0]);
        close(fds[i][1]);
    }
}

static void cancelled_operations_do_not_move(struct np_rig *rig)
{
    int fds[2];
    struct np_watch recv = {0}, poll_out = {0};
    np_socket_pair(fds);
    np_write_until_full(fds[0]);
    np_rig_arm(rig, &recv, NP_OP_RECV, fds[0]);
    np_rig_turn(rig, 0);
    np_rig_poll(rig, &poll_out, fds[0], POLLOUT);
    assert_int_equal(rig->ops->cancel(rig->be, recv.op, 0), 0);
    assert_int_equal(rig->ops->cancel(rig->be, poll_out.op, 0), 0);
    np_rig_turn_in_thread(rig, 0, 0);
    assert_int_equal(rig->ops->enable(rig->be), 0);
    NP_UNTIL(rig, !recv.armed && !poll_out.armed);
    assert_int_equal(recv.last_res, -ECANCELED);
    assert_int_equal(poll_out.last_res, -ECANCELED);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

/* ---- fork, signals, the end ---------------------------------------------------------------- */

/* In the child: 0 when all is as promised, else the number of the broken promise. */
static int child_of_fork(struct np_rig *rig, int fd, np_udata armed)
{
    struct np_rig own;
    struct np_watch watch = {0};
    struct iovec iov = {"x", 1};
    int32_t res = 0;
    np_udata op_name;
    int fds[2];
    np_backend_abandon(rig->be);
    if (rig->ops->turn(rig->be, rig->events, RIG_MAX_EVENTS, 0) >= 0)
        return 1;
    if (rig->ops->enable(rig->be) >= 0)
        return 2;
    struct np_op *op = np_op_alloc(&np_head(rig->be)->slab, NP_OP_RECV, fd, &watch);
    if (rig->ops->arm(rig->be, op) >= 0)
        return 3;
    if (rig->ops->send(rig->be, fd, &watch, &iov, 1, 0, &res, &op_name) == 1 && res >= 0)
        return 4;
    if (rig->ops->cancel(rig->be, armed, 0) >= 0 ||
        rig->ops->cancel(rig->be, armed, NP_CANCEL_SETTLE) >= 0)
        return 9;
    rig->ops->flush(rig->be);
    rig->ops->forget(rig->be, fd);
    rig->ops->close(rig->be);

    memset(&own, 0, sizeof(own)); /* a new one works here */
    own.max_events = RIG_MAX_EVENTS;
    own.ops = rig->ops;
    const struct np_config config = {.sq_entries = 8, .features_off = rig->variant->features_off};
    if (np_inbox_open(&own.inbox) < 0 || own.ops->open(&own.be, &config, own.inbox.wake_fd) < 0)
        return 5;
    if (own.ops->enable(own.be) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
        return 6;
    op = np_op_alloc(&np_head(own.be)->slab, NP_OP_RECV, fds[0], &watch);
    watch.op = np_op_udata(op);
    watch.kind = NP_OP_RECV;
    watch.armed = 1;
    if (own.ops->arm(own.be, op) < 0 || write(fds[1], "x", 1) != 1)
        return 7;
    for (int i = 0; i < 100 && watch.bytes_count == 0; i++)
        np_rig_turn_raw(&own, 10 * MS_NS);
    return watch.bytes_count == 1 && !own.broken ? 0 : 8;
}

static void a_forked_child_leaves_the_parent_alone(struct np_rig *rig)
{
    int fds[2], status;
    struct np_watch recv = {0}, poll_out = {0}, late = {0};
    np_socket_pair(fds);
    np_rig_arm(rig, &recv, NP_OP_RECV, fds[0]);
    np_rig_turn(rig, 0);
    np_write_all(fds[1], "before ", 7);
    np_rig_poll(rig, &poll_out, fds[0], POLLOUT); /* queued, not submitted yet */
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(child_of_fork(rig, fds[0], recv.op));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);

    np_write_all(fds[1], "after", 5);
    NP_UNTIL(rig, recv.bytes_count == 12 && !poll_out.armed);
    assert_memory_equal(recv.bytes, "before after", 12);
    assert_int_equal(poll_out.last_res, POLLOUT);
    np_rig_poll(rig, &late, fds[0], POLLOUT);
    NP_UNTIL(rig, !late.armed);
    np_rig_stop(rig, &recv);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    np_watch_free(&recv);
}

static void count_signal(int number)
{
    (void)number;
}

static void a_storm_of_signals_loses_nothing(struct np_rig *rig)
{
    enum { TOTAL = 200 * 1000 };
    struct sigaction action = {.sa_handler = count_signal}, old;
    const struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    int fds[2];
    uint8_t data[1000];
    struct np_watch recv = {0};
    size_t written = 0;
    np_tcp_pair(fds);
    np_rig_arm(rig, &recv, NP_OP_RECV, fds[0]);
    assert_int_equal(sigaction(SIGALRM, &action, &old), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (int idle = 0; recv.bytes_count < TOTAL; idle++) {
        if (written < TOTAL && idle % 3 == 0) {
            np_stream_fill(data, 8, written, sizeof(data));
            ssize_t n = send(fds[1], data, sizeof(data), MSG_DONTWAIT);
            written += n > 0 ? (size_t)n : 0;
        }
        np_rig_turn(rig, MS_NS / 2);
        assert_true(idle < 1000000);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    assert_int_equal(recv.bytes_count, written);
    assert_true(np_stream_matches(recv.bytes, 8, 0, recv.bytes_count));
    np_rig_stop(rig, &recv);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    np_watch_free(&recv);
}

static void *enable_job(void *arg)
{
    struct np_rig *rig = arg;
    return (void *)(intptr_t)rig->ops->enable(rig->be);
}

static int enable_in_thread(struct np_rig *rig)
{
    pthread_t thread;
    void *rc;
    assert_int_equal(pthread_create(&thread, NULL, enable_job, rig), 0);
    assert_int_equal(pthread_join(thread, &rc), 0);
    return (int)(intptr_t)rc;
}

/* Completions that overflowed the queue can only be taken by the old thread: the move fails loudly
 * and the old thread goes on. epoll has no such queue. */
static void a_move_never_loses_overflowed_completions(struct np_rig *rig)
{
    enum { COUNT = 2 * RIG_CQ_ENTRIES };
    int fds[2];
    struct np_watch watches[COUNT] = {{0}};
    np_socket_pair(fds);
    rig->max_events = 1;
    np_rig_turn(rig, 0);
    for (int i = 0; i < COUNT; i++)
        np_rig_poll(rig, &watches[i], fds[0], POLLOUT);
    np_rig_turn(rig, 0);
    int rc = enable_in_thread(rig);
    assert_int_equal(rc, np_rig_is_uring(rig) ? -EBUSY : 0);
    for (int i = 0; i < COUNT; i++)
        NP_UNTIL(rig, !watches[i].armed);
    rig->max_events = RIG_MAX_EVENTS;
    np_rig_turn_in_thread(rig, 1, 0);
    assert_int_equal(rig->ops->enable(rig->be), 0);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

static void close_the_backend(void *arg)
{
    struct np_rig *rig = arg;
    rig->ops->close(rig->be);
}

static void closing_with_operations_in_flight_aborts(struct np_rig *rig)
{
    int fds[2];
    struct np_watch watch = {0};
    np_socket_pair(fds);
    np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
    np_rig_turn(rig, 0);
    assert_true(np_aborts(close_the_backend, rig));
    np_rig_stop(rig, &watch);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

int main(void)
{
    static const struct np_rig_test tests[] = {
        NP_RIG_TEST(cancel_before_anything_was_submitted),
        NP_RIG_TEST(cancel_twice_and_cancel_what_is_gone),
        NP_RIG_TEST(cancel_after_the_data_has_come),
        NP_RIG_TEST(cancel_of_an_accept_leaks_no_connection),
        NP_RIG_TEST(closed_and_reused_at_once),
        NP_RIG_TEST(a_loop_moves_between_threads_with_operations_in_flight),
        NP_RIG_TEST(two_moves_without_a_turn_in_between),
        NP_RIG_TEST(queued_sends_move_too),
        NP_RIG_TEST(cancelled_operations_do_not_move),
        NP_RIG_TEST(a_move_never_loses_overflowed_completions),
        NP_RIG_TEST(a_forked_child_leaves_the_parent_alone),
        NP_RIG_TEST(a_storm_of_signals_loses_nothing),
        NP_RIG_TEST(closing_with_operations_in_flight_aborts),
    };
    return NP_RIG_MAIN("test_races", tests);
}
