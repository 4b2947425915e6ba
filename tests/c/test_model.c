/* test_model.c - random interleavings of everything, against a model of what must hold.
 *
 * A few connections; each step arms, cancels, writes, sends, shuts down, closes, reuses, turns,
 * flushes or moves to another thread, as a seeded random source says. After every turn:
 *   - each byte that arrived is the next one of its stream: none lost, doubled, reordered or
 *     delivered to a connection that has the number of an earlier one;
 *   - as many operations are alive as the model knows of;
 * and at the end each operation that was armed has had exactly one last event.
 */
#include "np_rig.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINKS = 6, STEPS = 3000, SEEDS = 3, SEND_BYTES = 600, WATCHES = 4 };

enum { W_RECV, W_IN, W_OUT, W_SEND };

struct link {
    int fd, peer;
    uint32_t stream;            /* one for each direction: stream, ~stream */
    uint64_t written, received; /* peer to fd */
    uint64_t sent, arrived;     /* fd to peer */
    int peer_is_shut, at_end;
    struct np_watch watches[WATCHES];
    uint32_t arms[WATCHES];
    uint8_t was_armed[WATCHES];
    uint8_t sending[SEND_BYTES];
};

struct model {
    struct np_rig *rig;
    struct np_random random;
    struct link links[LINKS];
    uint32_t next_stream;
    int has_moved; /* events may be on their way between two rings */
};

static void link_open(struct model *model, struct link *link)
{
    int fds[2];
    memset(link, 0, sizeof(*link));
    np_socket_pair(fds);
    link->fd = fds[0];
    link->peer = fds[1];
    link->stream = model->next_stream++;
}

/* ---- checking ------------------------------------------------------------------------------ */

static void take_bytes(struct link *link, const uint8_t *bytes, size_t len_bytes)
{
    assert_true(np_stream_matches(bytes, link->stream, link->received, len_bytes));
    link->received += len_bytes;
    assert_true(link->received <= link->written);
}

static void saw_end(struct link *link)
{
    assert_true(link->peer_is_shut);
    assert_int_equal(link->received, link->written);
    link->at_end = 1;
}

/* A POLL said that there is something: read as a transport does with bulk data. */
static void read_directly(struct model *model, struct link *link)
{
    uint8_t bytes[512];
    ssize_t n = recv(link->fd, bytes, 1 + np_random_below(&model->random, sizeof(bytes)),
                     MSG_DONTWAIT);
    assert_true(n >= 0);
    if (n == 0)
        saw_end(link);
    else
        take_bytes(link, bytes, (size_t)n);
}

static void check_last_event(struct model *model, struct link *link, int which)
{
    int32_t res = link->watches[which].last_res;
    switch (which) {
    case W_RECV:
        assert_true(res == 0 || res == -ECANCELED || res > 0); /* > 0: cancelled, but in time */
        if (res == 0)
            saw_end(link);
        break;
    case W_IN:
        assert_true(res == -ECANCELED || (res & (POLLIN | POLLHUP)));
        if (res > 0)
            read_directly(model, link);
        break;
    case W_OUT:
        assert_true(res == -ECANCELED || (res & POLLOUT));
        break;
    default:
        assert_true(res > 0 || res == -EAGAIN || res == -ECANCELED);
        link->sent += res > 0 ? (uint64_t)res : 0;
    }
}

static void check(struct model *model)
{
    uint32_t armed = 0;
    for (int i = 0; i < LINKS; i++) {
        struct link *link = &model->links[i];
        take_bytes(link, link->watches[W_RECV].bytes, link->watches[W_RECV].bytes_count);
        link->watches[W_RECV].bytes_count = 0;
        for (int w = 0; w < WATCHES; w++) {
            struct np_watch *watch = &link->watches[w];
            armed += watch->armed;
            if (link->was_armed[w] && !watch->armed) {
                assert_int_equal(watch->lasts_count, link->arms[w]);
                check_last_event(model, link, w);
                /* What has ended cannot be cancelled, whoever has the slot by now. */
                assert_int_equal(model->rig->ops->cancel(model->rig->be, watch->op, 0), -ENOENT);
            }
            link->was_armed[w] = watch->armed;
        }
    }
    uint32_t live = np_rig_stats(model->rig).ops_live;
    if (model->has_moved)
        assert_in_range(live, 0, armed);
    else
        assert_int_equal(live, armed);
}

static void turn(struct model *model, int64_t timeout_ns)
{
    model->rig->max_events = 1 + (int)np_random_below(&model->random, 8);
    np_rig_turn(model->rig, timeout_ns);
    check(model);
}

/* ---- steps --------------------------------------------------------------------------------- */

static void step_arm(struct model *model, struct link *link, int which)
{
    struct np_watch *watch = &link->watches[which];
    int reads = link->watches[W_RECV].armed || link->watches[W_IN].armed;
    if (watch->armed || (which != W_OUT && (reads || link->at_end)))
        return;
    if (which == W_RECV)
        np_rig_arm(model->rig, watch, NP_OP_RECV, link->fd);
    else
        np_rig_poll(model->rig, watch, link->fd, which == W_IN ? POLLIN : POLLOUT);
    link->arms[which]++;
    link->was_armed[which] = 1;
}

static void step_cancel(struct model *model, struct link *link, int which, int settles)
{
    struct np_watch *watch = &link->watches[which];
    struct np_backend *be = model->rig->be;
    if (!watch->armed)
        return;
    int rc = model->rig->ops->cancel(be, watch->op, settles ? NP_CANCEL_SETTLE : 0);
    /* -ENOENT: its last event is on its way between two rings. */
    assert_true(rc == 0 || (rc == -ENOENT && model->has_moved));
}

static void step_send(struct model *model, struct link *link)
{
    struct np_watch *watch = &link->watches[W_SEND];
    struct iovec iov[4];
    int count = 1 + (int)np_random_below(&model->random, 4);
    size_t at = 0;
    if (watch->armed)
        return;
    np_stream_fill(link->sending, ~link->stream, link->sent, SEND_BYTES);
    for (int i = 0; i < count; i++) {
        size_t piece = 1 + np_random_below(&model->random, SEND_BYTES / 4);
        iov[i] = (struct iovec){link->sending + at, piece};
        at += piece;
    }
    np_rig_start_send(model->rig, watch, link->fd, iov, count, 0);
    if (watch->armed) {
        link->arms[W_SEND]++;
        link->was_armed[W_SEND] = 1;
    } else {
        check_last_event(model, link, W_SEND);
    }
}

static void step_peer_writes(struct model *model, struct link *link)
{
    uint8_t bytes[700];
    size_t len_bytes = 1 + np_random_below(&model->random, sizeof(bytes));
    if (link->peer_is_shut)
        return;
    np_stream_fill(bytes, link->stream, link->written, len_bytes);
    ssize_t n = send(link->peer, bytes, len_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    link->written += n > 0 ? (uint64_t)n : 0;
}

static void step_peer_reads(struct link *link)
{
    uint8_t bytes[4096];
    ssize_t n = recv(link->peer, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n > 0) {
        assert_true(np_stream_matches(bytes, ~link->stream, link->arrived, (size_t)n));
        link->arrived += (uint64_t)n;
    }
}

static void step_peer_shuts(struct link *link)
{
    shutdown(link->peer, SHUT_WR);
    link->peer_is_shut = 1;
}

static int is_busy(const struct link *link)
{
    int busy = 0;
    for (int w = 0; w < WATCHES; w++)
        busy |= link->watches[w].armed;
    return busy;
}

static void stop_all(struct model *model, struct link *link)
{
    for (int w = 0; w < WATCHES; w++)
        step_cancel(model, link, w, 0);
    int64_t end_ns = np_clock_ns() + 10 * SECOND_NS;
    while (is_busy(link)) {
        assert_true(np_clock_ns() < end_ns);
        turn(model, MS_NS);
    }
}

static void link_close(struct model *model, struct link *link)
{
    stop_all(model, link);
    for (int w = 0; w < WATCHES; w++) {
        assert_int_equal(link->watches[w].lasts_count, link->arms[w]);
        np_watch_free(&link->watches[w]);
    }
    np_rig_close_fd(model->rig, link->fd);
    close(link->peer);
}

static void step_move(struct model *model)
{
    model->has_moved = 1;
    model->rig->max_events = 1 + (int)np_random_below(&model->random, 8);
    np_rig_turn_in_thread(model->rig, (int)np_random_below(&model->random, 3), 0);
    check(model);
    if (np_random_below(&model->random, 2)) /* and back; else the next turn's enable */
        np_rig_turn_in_thread(model->rig, 0, 0);
    assert_int_equal(model->rig->ops->enable(model->rig->be), 0);
}

static void step(struct model *model, int moves)
{
    struct link *link = &model->links[np_random_below(&model->random, LINKS)];
    uint32_t which = np_random_below(&model->random, WATCHES);
    uint32_t dice = np_random_below(&model->random, 1000);
    if (dice < 200)
        step_arm(model, link, which == W_SEND ? W_RECV : (int)which);
    else if (dice < 330)
        step_cancel(model, link, (int)which, 0);
    else if (dice < 345)
        step_cancel(model, link, (int)which, 1);
    else if (dice < 520)
        step_peer_writes(model, link);
    else if (dice < 600)
        step_send(model, link);
    else if (dice < 660)
        step_peer_reads(link);
    else if (dice < 670)
        step_peer_shuts(link);
    else if (dice < 720)
        assert_int_equal(model->rig->ops->flush(model->rig->be), 0);
    else if (dice < 735) {
        link_close(model, link);
        link_open(model, link); /* most likely under the same number */
    } else if (dice < 740 && moves)
        step_move(model);
    else
        turn(model, dice < 980 ? 0 : MS_NS / 4);
}

/* Everything that was written arrives, and everything that was sent. */
static void finish(struct model *model)
{
    for (int i = 0; i < LINKS; i++) {
        struct link *link = &model->links[i];
        stop_all(model, link);
        step_peer_shuts(link);
        int64_t end_ns = np_clock_ns() + 10 * SECOND_NS;
        while (!link->at_end) {
            assert_true(np_clock_ns() < end_ns);
            step_arm(model, link, W_RECV);
            turn(model, MS_NS);
        }
        while (link->arrived < link->sent) {
            assert_true(np_clock_ns() < end_ns);
            step_peer_reads(link);
        }
        link_close(model, link);
    }
}

static void run(struct np_rig *rig, uint64_t seed, int moves)
{
    static struct model model;
    print_message("seed %llu\n", (unsigned long long)seed);
    memset(&model, 0, sizeof(model));
    model.rig = rig;
    model.random = np_random_seeded(seed);
    for (int i = 0; i < LINKS; i++)
        link_open(&model, &model.links[i]);
    for (int i = 0; i < STEPS; i++)
        step(&model, moves);
    finish(&model);
    rig->max_events = RIG_MAX_EVENTS;
}

static uint64_t first_seed(void)
{
    const char *text = getenv("NP_TEST_SEED"); /* to repeat a failure, or to try others */
    return text ? strtoull(text, NULL, 10) : 1;
}

static void random_interleavings(struct np_rig *rig)
{
    for (uint64_t seed = first_seed(); seed < first_seed() + SEEDS; seed++)
        run(rig, seed, 0);
}

static void random_interleavings_and_threads(struct np_rig *rig)
{
    for (uint64_t seed = first_seed(); seed < first_seed() + SEEDS; seed++)
        run(rig, seed, 1);
}

int main(void)
{
    static const struct np_rig_test tests[] = {
        NP_RIG_TEST(random_interleavings),
        NP_RIG_TEST(random_interleavings_and_threads),
    };
    return NP_RIG_MAIN("test_model", tests);
}
