/* test_backend.c - the verbs of np_backend.h, the same bodies on every backend variant. */
#include "np_rig.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- waiting ------------------------------------------------------------------------------- */

static void an_idle_turn_waits_as_long_as_asked(struct np_rig *rig)
{
    static const int64_t timeouts_ns[] = {0, 200000, 3 * MS_NS, 30 * MS_NS};
    np_rig_turn(rig, 0);
    for (size_t i = 0; i < sizeof(timeouts_ns) / sizeof(timeouts_ns[0]); i++) {
        int64_t waited_ns = np_rig_idle_turn(rig, timeouts_ns[i]);
        assert_true(waited_ns >= timeouts_ns[i]); /* early would mean a timer found not yet due */
        assert_true(waited_ns < timeouts_ns[i] + 2 * SECOND_NS);
    }
}

struct waker {
    struct np_inbox *inbox;
    atomic_int is_about_to;
};

static void *wake_later(void *arg)
{
    struct waker *waker = arg;
    usleep(20000);
    atomic_store(&waker->is_about_to, 1);
    np_inbox_wake(waker->inbox);
    return NULL;
}

static void a_wake_ends_an_endless_wait(struct np_rig *rig)
{
    for (int i = 0; i < 5; i++) {
        struct waker waker = {.inbox = &rig->inbox};
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, wake_later, &waker), 0);
        while (!atomic_load(&waker.is_about_to))
            assert_true(np_rig_turn(rig, -1) <= 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
}

static void wakes_do_not_linger(struct np_rig *rig)
{
    for (int i = 0; i < 100; i++)
        assert_int_equal(np_inbox_wake(&rig->inbox), 0);
    for (int i = 0; i < 3; i++)
        np_rig_turn(rig, 0);
    assert_true(np_rig_idle_turn(rig, 30 * MS_NS) >= 30 * MS_NS);
    struct pollfd wake = {.fd = rig->inbox.wake_fd, .events = POLLIN};
    assert_int_equal(poll(&wake, 1, 0), 0); /* the turn has emptied the counter */
}

struct signaller {
    pthread_t target;
    struct np_inbox *inbox;
    atomic_int turn_is_over, gave_up;
};

static void *signal_later(void *arg)
{
    struct signaller *signaller = arg;
    usleep(30000);
    pthread_kill(signaller->target, SIGUSR1);
    for (int i = 0; i < 200 && !atomic_load(&signaller->turn_is_over); i++)
        usleep(10000);
    if (!atomic_load(&signaller->turn_is_over)) {
        atomic_store(&signaller->gave_up, 1);
        np_inbox_wake(signaller->inbox);
    }
    return NULL;
}

static void ignore_signal(int number)
{
    (void)number;
}

/* Ctrl-C in an idle loop: the wait ends, also when the same call had something to submit. */
static void a_signal_ends_the_wait(struct np_rig *rig)
{
    struct sigaction action = {.sa_handler = ignore_signal}, old;
    assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
    np_rig_turn(rig, 0);
    for (int round = 0; round < 4; round++) {
        int submits = round & 1;
        int64_t timeout_ns = round & 2 ? 5 * SECOND_NS : -1;
        int fds[2];
        struct np_watch watch = {0};
        struct signaller signaller = {.target = pthread_self(), .inbox = &rig->inbox};
        pthread_t thread;
        np_socket_pair(fds);
        if (submits)
            np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
        assert_int_equal(pthread_create(&thread, NULL, signal_later, &signaller), 0);
        int rc = np_rig_turn(rig, timeout_ns);
        atomic_store(&signaller.turn_is_over, 1);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_false(atomic_load(&signaller.gave_up)); /* else it slept on, past the signal */
        assert_true(rc == -EINTR || (submits && timeout_ns > 0 && rc == 0));
        np_rig_stop(rig, &watch);
        np_rig_close_fd(rig, fds[0]);
        close(fds[1]);
    }
    sigaction(SIGUSR1, &old, NULL);
}

static void nobody_listening_means_no_spinning(struct np_rig *rig)
{
    int fds[2];
    struct np_watch watch = {0};
    np_socket_pair(fds);
    np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
    np_rig_turn(rig, 0);
    np_rig_stop(rig, &watch); /* paused: what arrives now waits in the socket */
    np_write_all(fds[1], "unread", 6);
    shutdown(fds[1], SHUT_WR);
    for (int i = 0; i < 3; i++)
        np_rig_turn(rig, 0);
    for (int i = 0; i < 4; i++)
        assert_true(np_rig_idle_turn(rig, 10 * MS_NS) >= 10 * MS_NS);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

static void has_work_sees_what_is_there(struct np_rig *rig)
{
    int fds[2];
    struct np_watch watch = {0};
    np_socket_pair(fds);
    for (int i = 0; i < 3; i++)
        np_rig_turn(rig, 0);
    if (np_rig_is_uring(rig))
        assert_int_equal(rig->ops->has_work(rig->be), 0);
    np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
    if (np_rig_is_uring(rig))
        assert_int_equal(rig->ops->has_work(rig->be), 1); /* something to submit */
    np_rig_turn(rig, 0);
    np_write_all(fds[1], "x", 1);
    usleep(1000); /* epoll may answer from memory for some microseconds */
    assert_int_equal(rig->ops->has_work(rig->be), 1);
    NP_UNTIL(rig, watch.bytes_count == 1);
    np_rig_stop(rig, &watch);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    np_watch_free(&watch);
}

/* Some features can be done without, each alone and all together; this one cannot. */
static void without_deferred_taskrun_there_is_no_ring(struct np_rig *rig)
{
    const struct np_config config = {.features_off = NP_FEATURE_DEFER_TASKRUN};
    struct np_backend *be = NULL;
    int rc = rig->ops->open(&be, &config, rig->inbox.wake_fd);
    if (np_rig_is_uring(rig)) {
        assert_int_equal(rc, -EOPNOTSUPP);
        return;
    }
    assert_int_equal(rc, 0);
    rig->ops->close(be);
}

/* ---- accept -------------------------------------------------------------------------------- */

static void accept_goes_on_and_on(struct np_rig *rig)
{
    enum { CLIENTS = 100 };
    uint16_t port;
    int clients[CLIENTS];
    struct np_watch watch = {0};
    int listener = np_tcp_listen(&port, CLIENTS);
    np_rig_arm(rig, &watch, NP_OP_ACCEPT, listener);
    np_rig_turn(rig, 0);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = np_tcp_connect(port);
        if (i % 10 == 0)
            np_rig_turn(rig, 0);
    }
    NP_UNTIL(rig, watch.accepted_count == CLIENTS);
    assert_true(watch.armed);
    for (int i = 0; i < CLIENTS; i++) {
        assert_true(fcntl(watch.accepted[i], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(watch.accepted[i], F_GETFD) & FD_CLOEXEC);
        close(watch.accepted[i]);
        close(clients[i]);
    }
    np_rig_stop(rig, &watch);
    assert_int_equal(watch.last_res, -ECANCELED);
    np_rig_close_fd(rig, listener);
    np_watch_free(&watch);
}

static void settle_lets_a_listener_really_close(struct np_rig *rig)
{
    for (int round = 0; round < 20; round++) {
        uint16_t port;
        struct np_watch watch = {0};
        int listener = np_tcp_listen(&port, 4);
        np_rig_arm(rig, &watch, NP_OP_ACCEPT, listener);
        if (round % 2)
            np_rig_turn(rig, 0);
        assert_int_equal(rig->ops->cancel(rig->be, watch.op, NP_CANCEL_SETTLE), 0);
        np_rig_close_fd(rig, listener);

        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), -1);
        assert_int_equal(errno, ECONNREFUSED);
        close(fd);
        NP_UNTIL(rig, !watch.armed);
        assert_int_equal(watch.last_res, -ECANCELED);
        assert_int_equal(rig->ops->cancel(rig->be, watch.op, NP_CANCEL_SETTLE), -ENOENT);
    }
}

/* ---- recv ---------------------------------------------------------------------------------- */

static void recv_delivers_small_messages_in_order(struct np_rig *rig)
{
    enum { MESSAGES = 200, BYTES = 64 };
    int fds[2];
    uint8_t message[BYTES];
    struct np_watch watch = {0};
    np_socket_pair(fds);
    np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
    for (int i = 0; i < MESSAGES; i++) {
        np_stream_fill(message, 1, (uint64_t)i * BYTES, BYTES);
        np_write_all(fds[1], message, BYTES);
        if (i % 3 == 0)
            NP_UNTIL(rig, watch.bytes_count == (size_t)(i + 1) * BYTES);
    }
    NP_UNTIL(rig, watch.bytes_count == MESSAGES * BYTES);
    assert_true(np_stream_matches(watch.bytes, 1, 0, watch.bytes_count));
    assert_true(watch.armed);
    assert_int_equal(np_rig_stats(rig).counts.recv_bytes, MESSAGES * BYTES);
    np_rig_stop(rig, &watch);
    assert_int_equal(watch.last_res, -ECANCELED);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    np_watch_free(&watch);
}

static void recv_of_more_than_all_buffers(struct np_rig *rig)
{
    enum { TOTAL = 100 * 1000 };
    static uint8_t data[TOTAL];
    int fds[2];
    struct np_watch watch = {0};
    size_t written = 0;
    np_tcp_pair(fds);
    np_stream_fill(data, 2, 0, TOTAL);
    np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
    while (watch.bytes_count < TOTAL) {
        ssize_t n = send(fds[1], data + written, TOTAL - written, MSG_DONTWAIT);
        written += n > 0 ? (size_t)n : 0;
        size_t before = watch.bytes_count;
        NP_UNTIL(rig, watch.bytes_count > before);
    }
    assert_memory_equal(watch.bytes, data, TOTAL);
    np_rig_stop(rig, &watch);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    np_watch_free(&watch);
}

static void recv_ends_with_the_stream(struct np_rig *rig)
{
    for (int round = 0; round < 2; round++) {
        int fds[2];
        struct np_watch watch = {0};
        np_tcp_pair(fds);
        if (round == 0)
            np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
        np_write_all(fds[1], "the rest", 8);
        shutdown(fds[1], SHUT_WR);
        if (round == 1) /* all of it is there before anybody asks */
            np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
        NP_UNTIL(rig, !watch.armed);
        assert_int_equal(watch.last_res, 0);
        assert_int_equal(watch.bytes_count, 8);
        assert_memory_equal(watch.bytes, "the rest", 8);
        assert_int_equal(rig->ops->cancel(rig->be, watch.op, 0), -ENOENT);
        np_rig_close_fd(rig, fds[0]);
        close(fds[1]);
        np_watch_free(&watch);
    }
}

static void recv_reports_a_reset(struct np_rig *rig)
{
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    int fds[2];
    struct np_watch watch = {0};
    np_tcp_pair(fds);
    np_rig_arm(rig, &watch, NP_OP_RECV, fds[0]);
    np_rig_turn(rig, 0);
    setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fds[1]);
    NP_UNTIL(rig, !watch.armed);
    assert_int_equal(watch.last_res, -ECONNRESET);
    np_rig_close_fd(rig, fds[0]);
}

static void an_fd_that_is_none_is_reported_once(struct np_rig *rig)
{
    static const uint8_t kinds[] = {NP_OP_RECV, NP_OP_ACCEPT, NP_OP_POLL};
    int fd = dup(0);
    close(fd);
    for (size_t i = 0; i < sizeof(kinds); i++) {
        struct np_watch watch = {0};
        int rc = np_rig_try_arm(rig, &watch, kinds[i], fd, POLLIN);
        if (rc == 0) {
            NP_UNTIL(rig, !watch.armed);
            rc = watch.last_res;
        }
        assert_int_equal(rc, -EBADF);
        assert_int_equal(np_rig_stats(rig).ops_live, 0);
    }
    assert_int_equal(np_rig_send(rig, fd, "x", 1), -EBADF);
}

/* ---- send ---------------------------------------------------------------------------------- */

static void send_in_one_piece_and_in_several(struct np_rig *rig)
{
    int fds[2];
    char got[32];
    struct np_watch watch = {0};
    struct iovec iov[3] = {{"one ", 4}, {"two ", 4}, {"three", 5}};
    np_socket_pair(fds);
    assert_int_equal(np_rig_send(rig, fds[0], "zero ", 5), 5);
    np_rig_start_send(rig, &watch, fds[0], iov, 3, 0);
    memset(iov, 0, sizeof(iov)); /* the array was copied */
    NP_UNTIL(rig, !watch.armed);
    assert_int_equal(watch.last_res, 13);
    assert_int_equal(read(fds[1], got, sizeof(got)), 18);
    assert_memory_equal(got, "zero one two three", 18);
    assert_int_equal(np_rig_stats(rig).counts.send_bytes, 18);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

static void flush_submits_without_waiting(struct np_rig *rig)
{
    int fds[2];
    char got[8];
    struct np_watch watch = {0};
    struct iovec iov = {"now", 3};
    np_socket_pair(fds);
    np_rig_start_send(rig, &watch, fds[0], &iov, 1, 0);
    assert_int_equal(rig->ops->flush(rig->be), 0);
    assert_int_equal(read(fds[1], got, sizeof(got)), 3);
    NP_UNTIL(rig, !watch.armed);
    assert_int_equal(watch.last_res, 3);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

static void many_sends_in_one_turn(struct np_rig *rig)
{
    enum { COUNT = 60, PIECES = 40 };
    int fds[COUNT][2];
    struct np_watch watches[COUNT] = {{0}};
    uint8_t data[PIECES * 3], got[PIECES * 3 + 1];
    np_stream_fill(data, 3, 0, sizeof(data));
    for (int i = 0; i < COUNT; i++) {
        struct iovec iov[PIECES];
        for (int k = 0; k < PIECES; k++)
            iov[k] = (struct iovec){data + 3 * k, 3};
        np_socket_pair(fds[i]);
        np_rig_start_send(rig, &watches[i], fds[i][0], iov, i % 4 ? PIECES : 1, 0);
    }
    for (int i = 0; i < COUNT; i++) {
        size_t expected = i % 4 ? sizeof(data) : 3;
        NP_UNTIL(rig, !watches[i].armed);
        assert_int_equal(watches[i].last_res, expected);
        assert_int_equal(read(fds[i][1], got, sizeof(got)), expected);
        assert_memory_equal(got, data, expected);
        np_rig_close_fd(rig, fds[i][0]);
        close(fds[i][1]);
    }
}

/* Sends `data` as a transport does: what is taken is taken, -EAGAIN waits for POLLOUT. */
static void send_all(struct np_rig *rig, int fds[2], const uint8_t *data, size_t total,
                     uint8_t *received)
{
    struct np_watch watch = {0}, poll_out = {0};
    size_t sent = 0, got = 0;
    int partial = 0, refused = 0;
    while (got < total) {
        if (!watch.armed && !poll_out.armed && sent < total) {
            struct iovec iov[2] = {{(void *)(uintptr_t)(data + sent), (total - sent + 1) / 2}};
            iov[1].iov_base = (uint8_t *)iov[0].iov_base + iov[0].iov_len;
            iov[1].iov_len = total - sent - iov[0].iov_len;
            np_rig_start_send(rig, &watch, fds[0], iov, iov[1].iov_len ? 2 : 1, 0);
            NP_UNTIL(rig, !watch.armed);
            if (watch.last_res == -EAGAIN) {
                refused++;
                np_rig_poll(rig, &poll_out, fds[0], POLLOUT);
                np_rig_turn(rig, 0);
                assert_true(poll_out.armed);
            } else {
                assert_true(watch.last_res > 0);
                sent += (size_t)watch.last_res;
                partial += sent < total;
            }
        }
        if (poll_out.armed || sent == total) {
            ssize_t n = read(fds[1], received + got, total - got);
            got += n > 0 ? (size_t)n : 0;
            np_rig_turn(rig, sent < total ? MS_NS : 0);
        }
    }
    assert_true(partial > 0);
    assert_true(refused > 0);
    np_rig_stop(rig, &poll_out);
}

static void send_takes_what_fits_and_says_eagain(struct np_rig *rig)
{
    enum { TOTAL = 1 << 20 };
    int fds[2], small = 8192;
    uint8_t *data = malloc(TOTAL), *received = calloc(1, TOTAL);
    np_stream_fill(data, 4, 0, TOTAL);
    np_socket_pair(fds);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    send_all(rig, fds, data, TOTAL, received);
    assert_memory_equal(received, data, TOTAL);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    free(data);
    free(received);
}

static void send_to_nobody_is_epipe_and_no_signal(struct np_rig *rig)
{
    int fds[2];
    struct np_watch watch = {0};
    struct iovec iov[2] = {{"a", 1}, {"b", 1}};
    np_socket_pair(fds);
    close(fds[1]);
    assert_int_equal(np_rig_send(rig, fds[0], "x", 1), -EPIPE);
    np_rig_start_send(rig, &watch, fds[0], iov, 2, 0);
    NP_UNTIL(rig, !watch.armed);
    assert_int_equal(watch.last_res, -EPIPE);
    np_rig_close_fd(rig, fds[0]);
}

/* The kernel's lengths have 32 bits here and 31 there; a caller's have 64. */
static void a_buffer_of_four_gib_makes_progress(struct np_rig *rig)
{
    size_t len_bytes = (size_t)4 << 30;
    int fds[2];
    void *zeros = mmap(NULL, len_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                       0);
    assert_true(zeros != MAP_FAILED);
    np_socket_pair(fds);
    assert_true(np_rig_send(rig, fds[0], zeros, len_bytes) > 0);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    munmap(zeros, len_bytes);
}

/* ---- poll ---------------------------------------------------------------------------------- */

static void poll_fires_once(struct np_rig *rig)
{
    int fds[2];
    struct np_watch watch = {0};
    np_socket_pair(fds);
    for (uint32_t i = 0; i < 3; i++) {
        char byte;
        np_rig_poll(rig, &watch, fds[0], POLLIN);
        np_rig_turn(rig, 0);
        np_rig_turn(rig, 0);
        assert_true(watch.armed);
        np_write_all(fds[1], "x", 1);
        NP_UNTIL(rig, !watch.armed);
        assert_int_equal(watch.last_res, POLLIN);
        np_rig_turn(rig, 0);
        /* Still readable, but nobody asks. */
        assert_true(np_rig_idle_turn(rig, 10 * MS_NS) >= 10 * MS_NS);
        assert_int_equal(watch.events_count, i + 1);
        assert_int_equal(read(fds[0], &byte, 1), 1);
    }
    np_rig_poll(rig, &watch, fds[0], POLLOUT);
    NP_UNTIL(rig, !watch.armed);
    assert_int_equal(watch.last_res, POLLOUT);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

/* As a transport reads that was told of readiness in one turn and receives in the next. */
static void a_poll_that_is_kept_costs_no_call_each_time(struct np_rig *rig)
{
    int fds[2];
    struct np_watch watch = {0};
    uint64_t before = 0;
    if (np_rig_is_uring(rig))
        return;
    np_socket_pair(fds);
    for (uint32_t i = 0; i < 5; i++) {
        char byte;
        np_rig_poll(rig, &watch, fds[0], POLLIN | NP_POLL_KEEP);
        np_write_all(fds[1], "x", 1);
        NP_UNTIL(rig, !watch.armed);
        np_rig_turn(rig, 0); /* other callbacks run meanwhile: nobody wants it now, or soon */
        assert_int_equal(read(fds[0], &byte, 1), 1);
        if (i == 0)
            before = np_rig_stats(rig).counts.submissions;
    }
    assert_int_equal(np_rig_stats(rig).counts.submissions, before);
    np_write_all(fds[1], "x", 1);
    for (int i = 0; i < 5; i++)
        np_rig_turn(rig, 0);
    assert_int_equal(np_rig_stats(rig).counts.submissions,
                     before + 1); /* withdrawn at the second time */
    assert_true(np_rig_idle_turn(rig, 10 * MS_NS) >= 10 * MS_NS);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

static void polls_on_one_fd_are_independent(struct np_rig *rig)
{
    int fds[2];
    struct np_watch in = {0}, in_too = {0}, out = {0}, out_later = {0};
    np_socket_pair(fds);
    np_rig_poll(rig, &in, fds[0], POLLIN);
    np_rig_poll(rig, &out, fds[0], POLLOUT);
    np_rig_poll(rig, &in_too, fds[0], POLLIN);
    NP_UNTIL(rig, !out.armed);
    np_rig_turn(rig, 0);
    assert_true(in.armed);
    assert_true(in_too.armed);
    np_rig_poll(rig, &out_later, fds[0], POLLOUT);
    NP_UNTIL(rig, !out_later.armed);
    assert_true(in.armed);
    np_write_all(fds[1], "x", 1);
    NP_UNTIL(rig, !in.armed && !in_too.armed);
    assert_int_equal(in.last_res, POLLIN);
    assert_int_equal(in_too.last_res, POLLIN);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

static void poll_and_recv_share_an_fd(struct np_rig *rig)
{
    int fds[2];
    struct np_watch recv = {0}, out = {0};
    np_socket_pair(fds);
    size_t filled = np_write_until_full(fds[0]);
    assert_true(filled > 0);
    np_rig_arm(rig, &recv, NP_OP_RECV, fds[0]);
    np_rig_poll(rig, &out, fds[0], POLLOUT);
    np_write_all(fds[1], "in", 2);
    NP_UNTIL(rig, recv.bytes_count == 2);
    assert_true(out.armed);
    np_rig_stop(rig, &recv); /* reading pauses; writing still waits */
    np_write_all(fds[1], "later", 5);
    for (int i = 0; i < 3; i++)
        np_rig_turn(rig, 0);
    assert_true(out.armed);
    while (filled > 0) {
        static uint8_t sink[65536];
        ssize_t n = read(fds[1], sink, sizeof(sink));
        assert_true(n > 0);
        filled -= (size_t)n;
    }
    NP_UNTIL(rig, !out.armed);
    assert_int_equal(out.last_res & POLLOUT, POLLOUT);
    assert_int_equal(recv.bytes_count, 2);
    np_rig_arm(rig, &recv, NP_OP_RECV, fds[0]);
    NP_UNTIL(rig, recv.bytes_count == 7);
    assert_memory_equal(recv.bytes, "inlater", 7);
    np_rig_stop(rig, &recv);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
    np_watch_free(&recv);
}

static void poll_reports_a_hang_up(struct np_rig *rig)
{
    int fds[2];
    struct np_watch watch = {0};
    np_socket_pair(fds);
    np_rig_poll(rig, &watch, fds[0], POLLIN);
    np_rig_turn(rig, 0);
    close(fds[1]);
    NP_UNTIL(rig, !watch.armed);
    assert_int_equal(watch.last_res & (POLLIN | POLLHUP), POLLIN | POLLHUP);
    np_rig_close_fd(rig, fds[0]);
}

/* add_reader's fds are the user's: he may close one without a word and get its number again. */
static void poll_survives_a_number_that_was_reused(struct np_rig *rig)
{
    for (int round = 0; round < 20; round++) {
        int fds[2], others[2];
        struct np_watch watch = {0};
        np_socket_pair(fds);
        np_rig_poll(rig, &watch, fds[0], POLLIN);
        np_rig_turn(rig, 0);
        if (round % 2)
            np_write_all(fds[1], "x", 1);
        np_rig_stop(rig, &watch);
        close(fds[0]);
        close(fds[1]);
        np_socket_pair(others);
        assert_int_equal(others[0], fds[0]);
        if (round % 4 < 2)
            np_rig_poll(rig, &watch, others[0], POLLIN);
        else
            np_rig_arm(rig, &watch, NP_OP_RECV, others[0]);
        np_rig_turn(rig, 0);
        np_rig_turn(rig, 0);
        assert_true(watch.armed); /* nothing of the old file's readiness is left */
        uint32_t before = watch.events_count;
        np_write_all(others[1], "x", 1);
        NP_UNTIL(rig, watch.events_count > before);
        np_rig_stop(rig, &watch);
        np_watch_free(&watch);
        np_rig_close_fd(rig, others[0]);
        close(others[1]);
    }
}

/* epoll hands out readiness in batches: what is left of one may be older than a close. */
static void readiness_of_a_closed_fd_is_not_the_next_ones(struct np_rig *rig)
{
    enum { COUNT = 5 };
    int fds[COUNT][2], next[2];
    struct np_watch watches[COUNT] = {{0}}, fresh = {0};
    for (int i = 0; i < COUNT; i++) {
        np_socket_pair(fds[i]);
        np_rig_poll(rig, &watches[i], fds[i][0], POLLIN);
        np_write_all(fds[i][1], "x", 1);
    }
    rig->max_events = 1;
    NP_UNTIL(rig, !watches[0].armed || !watches[COUNT - 1].armed);
    int victim = watches[0].armed ? 0 : COUNT - 1;
    np_rig_stop(rig, &watches[victim]);
    np_rig_close_fd(rig, fds[victim][0]);
    close(fds[victim][1]);
    np_socket_pair(next);
    assert_int_equal(next[0], fds[victim][0]);
    np_rig_poll(rig, &fresh, next[0], POLLIN);
    for (int i = 0; i < COUNT; i++)
        NP_UNTIL(rig, !watches[i].armed);
    np_rig_turn(rig, 0);
    assert_true(fresh.armed); /* the new socket has nothing to read */
    np_rig_stop(rig, &fresh);
    memcpy(fds[victim], next, sizeof(next));
    for (int i = 0; i < COUNT; i++) {
        np_rig_close_fd(rig, fds[i][0]);
        close(fds[i][1]);
    }
}

int main(void)
{
    static const struct np_rig_test tests[] = {
        NP_RIG_TEST(an_idle_turn_waits_as_long_as_asked),
        NP_RIG_TEST(a_wake_ends_an_endless_wait),
        NP_RIG_TEST(wakes_do_not_linger),
        NP_RIG_TEST(a_signal_ends_the_wait),
        NP_RIG_TEST(nobody_listening_means_no_spinning),
        NP_RIG_TEST(has_work_sees_what_is_there),
        NP_RIG_TEST(without_deferred_taskrun_there_is_no_ring),
        NP_RIG_TEST(accept_goes_on_and_on),
        NP_RIG_TEST(settle_lets_a_listener_really_close),
        NP_RIG_TEST(recv_delivers_small_messages_in_order),
        NP_RIG_TEST(recv_of_more_than_all_buffers),
        NP_RIG_TEST(recv_ends_with_the_stream),
        NP_RIG_TEST(recv_reports_a_reset),
        NP_RIG_TEST(an_fd_that_is_none_is_reported_once),
        NP_RIG_TEST(send_in_one_piece_and_in_several),
        NP_RIG_TEST(flush_submits_without_waiting),
        NP_RIG_TEST(many_sends_in_one_turn),
        NP_RIG_TEST(send_takes_what_fits_and_says_eagain),
        NP_RIG_TEST(send_to_nobody_is_epipe_and_no_signal),
        NP_RIG_TEST(a_buffer_of_four_gib_makes_progress),
        NP_RIG_TEST(poll_fires_once),
        NP_RIG_TEST(a_poll_that_is_kept_costs_no_call_each_time),
        NP_RIG_TEST(polls_on_one_fd_are_independent),
        NP_RIG_TEST(poll_and_recv_share_an_fd),
        NP_RIG_TEST(poll_reports_a_hang_up),
        NP_RIG_TEST(poll_survives_a_number_that_was_reused),
        NP_RIG_TEST(readiness_of_a_closed_fd_is_not_the_next_ones),
    };
    return NP_RIG_MAIN("test_backend", tests);
}
