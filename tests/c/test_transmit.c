/* test_transmit.c - sends that wait and sends that are zero-copy, on every backend variant. */
#include "np_rig.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/np_zc.h"

/* Reads what is there into `sink`; returns how many bytes. */
static size_t drain(int fd, uint8_t *sink, size_t max)
{
    size_t total = 0;
    ssize_t n;
    while (total < max && (n = recv(fd, sink + total, max - total, MSG_DONTWAIT)) > 0)
        total += (size_t)n;
    return total;
}

static void finish(struct np_rig *rig, struct np_watch *watch)
{
    NP_UNTIL(rig, !watch->armed);
}

static void one_piece_arrives(struct np_rig *rig)
{
    static const int flags[] = {0, NP_SEND_WAIT, NP_SEND_WAIT | NP_SEND_ALL, NP_SEND_ZC,
                                NP_SEND_ZC | NP_SEND_WAIT | NP_SEND_ALL};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        uint8_t bytes[1000], got[1000];
        struct np_watch watch = {0};
        struct iovec iov = {bytes, sizeof(bytes)};
        int fds[2];
        np_tcp_pair(fds);
        np_stream_fill(bytes, (uint32_t)i, 0, sizeof(bytes));
        np_rig_start_send(rig, &watch, fds[0], &iov, 1, flags[i]);
        finish(rig, &watch);
        assert_int_equal(watch.result, sizeof(bytes));
        size_t arrived = 0;
        NP_UNTIL(rig,
                 (arrived += drain(fds[1], got + arrived, sizeof(got) - arrived)) == sizeof(got));
        assert_true(np_stream_matches(got, (uint32_t)i, 0, sizeof(got)));
        np_rig_close_fd(rig, fds[0]);
        close(fds[1]);
    }
}

static struct iovec piece_of(uint8_t *base, size_t len_bytes)
{
    return (struct iovec){base, len_bytes};
}

/* A page-aligned mapping: what a pool's memory looks like to the ring. */
static uint8_t *map_memory(size_t size_bytes)
{
    void *base = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(base, MAP_FAILED);
    return base;
}

struct pair {
    int ours, peers;
    uint32_t stream;
    uint64_t sent, received; /* bytes of the stream */
};

static void open_pair(struct pair *pair, uint32_t stream)
{
    int fds[2];
    np_tcp_pair(fds);
    *pair = (struct pair){.ours = fds[0], .peers = fds[1], .stream = stream};
}

static void close_pair(struct np_rig *rig, struct pair *pair)
{
    if (pair->ours >= 0)
        np_rig_close_fd(rig, pair->ours);
    close(pair->peers);
}

/* Takes what has arrived and checks it. */
static void receive(struct pair *pair)
{
    uint8_t got[4096];
    ssize_t n;
    while ((n = recv(pair->peers, got, sizeof(got), MSG_DONTWAIT)) > 0) {
        assert_true(np_stream_matches(got, pair->stream, pair->received, (size_t)n));
        pair->received += (uint64_t)n;
    }
}

/* Sends the next bytes of the pair's stream out of `base`, all of them, in `pieces` pieces. */
static void send_all(struct np_rig *rig, struct pair *pair, uint8_t *base, size_t len_bytes,
                     int pieces, int flags)
{
    struct np_watch watch = {0};
    size_t done = 0;
    np_stream_fill(base, pair->stream, pair->sent, len_bytes);
    while (done < len_bytes) {
        struct iovec iov[8];
        size_t each = (len_bytes - done) / (size_t)pieces;
        int count = each ? pieces : 1;
        for (int i = 0; i < count; i++)
            iov[i] = piece_of(base + done + each * (size_t)i, each);
        iov[count - 1].iov_len = len_bytes - done - each * (size_t)(count - 1);
        np_rig_start_send(rig, &watch, pair->ours, iov, count, flags);
        NP_UNTIL(rig, (receive(pair), !watch.armed));
        assert_true(watch.result >= 0 || watch.result == -EAGAIN);
        done += watch.result > 0 ? (size_t)watch.result : 0;
    }
    pair->sent += len_bytes;
    NP_UNTIL(rig, (receive(pair), pair->received == pair->sent));
}

static void gather_lists_arrive(struct np_rig *rig)
{
    static const int flags[] = {0, NP_SEND_WAIT, NP_SEND_WAIT | NP_SEND_ALL, NP_SEND_ZC,
                                NP_SEND_ZC | NP_SEND_WAIT | NP_SEND_ALL};
    struct pair pair;
    uint8_t *base = map_memory(1 << 17);
    /* More pieces than this ring of iovecs has: a part is sent without a list. */
    np_rig_reopen(rig, (struct np_config){.sq_entries = 4, .cq_entries = 16, .iov_count = 4});
    open_pair(&pair, 1);
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        for (int pieces = 1; pieces <= 8; pieces++)
            send_all(rig, &pair, base, 100000 + (size_t)pieces, pieces, flags[i]);
    close_pair(rig, &pair);
    munmap(base, 1 << 17);
}

/* Loopback copies: the kernel says so, and every byte is counted once. */
static void usage_is_reported(struct np_rig *rig)
{
    struct pair pair;
    uint8_t *base = map_memory(1 << 16);
    struct np_watch watch = {0};
    struct iovec iov = piece_of(base, 1 << 16);
    open_pair(&pair, 2);
    np_stream_fill(base, 2, 0, 1 << 16);
    np_rig_start_send(rig, &watch, pair.ours, &iov, 1, NP_SEND_ZC | NP_SEND_ALONE);
    NP_UNTIL(rig, (receive(&pair), !watch.armed));
    struct np_stats stats = np_rig_stats(rig);
    assert_int_equal(stats.counts.zc_bytes + stats.counts.copied_bytes, watch.result);
    assert_int_equal(stats.counts.zc_bytes, 0);
    if (np_rig_is_uring(rig)) {
        assert_true(watch.result_flags & NP_EV_MORE);
        assert_int_equal(watch.last_flags, NP_EV_NOTIF | NP_EV_COPIED);
        struct np_zc zc = {0};
        assert_true(np_zc_wants(&zc, 1 << 16, 0, 0));
        np_zc_report(&zc, watch.last_flags);
        assert_false(np_zc_wants(&zc, 1 << 16, 0, 0)); /* and the connection stops asking */
    }
    close_pair(rig, &pair);
    munmap(base, 1 << 16);
}

static void a_full_socket_is_waited_for(struct np_rig *rig)
{
    static const int flags[] = {NP_SEND_WAIT, NP_SEND_WAIT | NP_SEND_ALL,
                                NP_SEND_WAIT | NP_SEND_ZC};
    uint8_t *base = map_memory(1 << 12);
    struct iovec iov = piece_of(base, 1 << 12);
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        struct pair pair;
        struct np_watch watch = {0};
        uint8_t sink[65536];
        open_pair(&pair, 3);
        np_write_until_full(pair.ours);
        np_rig_start_send(rig, &watch, pair.ours, &iov, 1, flags[i]);
        for (int turn = 0; turn < 3; turn++)
            np_rig_turn(rig, MS_NS);
        assert_true(watch.armed);
        assert_int_equal(watch.events_count, 0);
        NP_UNTIL(rig, (drain(pair.peers, sink, sizeof(sink)), !watch.armed));
        /* Taken, or (epoll) "send again". */
        assert_true(watch.result == (np_rig_is_uring(rig) ? 1 << 12 : 0));
        /* Without WAIT the answer is -EAGAIN at once. */
        np_write_until_full(pair.ours);
        np_rig_start_send(rig, &watch, pair.ours, &iov, 1, flags[i] & NP_SEND_ZC);
        finish(rig, &watch);
        assert_int_equal(watch.result, -EAGAIN);
        close_pair(rig, &pair);
    }
    munmap(base, 1 << 12);
}

static void a_waiting_send_can_be_cancelled(struct np_rig *rig)
{
    uint8_t *base = map_memory(1 << 22);
    struct iovec iov = piece_of(base, 1 << 22);
    for (int flags = 0; flags < 8; flags += 2) { /* with and without ALL and ZC */
        struct pair pair;
        struct np_watch watch = {0};
        open_pair(&pair, 4);
        np_write_until_full(pair.ours);
        np_rig_start_send(rig, &watch, pair.ours, &iov, 1, flags | NP_SEND_WAIT);
        if (flags & 2)
            np_rig_turn(rig, 0); /* else it is taken back before the kernel has read it */
        assert_int_equal(rig->ops->cancel(rig->be, watch.op, 0), 0);
        finish(rig, &watch);
        assert_int_equal(watch.result, -ECANCELED);
        assert_int_equal(rig->ops->cancel(rig->be, watch.op, 0), -ENOENT);
        close_pair(rig, &pair);
    }
    munmap(base, 1 << 22);
}

/* Fills the connection by a zero-copy send whose end stays in the send queue: no notice yet. */
static void send_unacknowledged(struct np_rig *rig, struct np_watch *watch, struct pair *pair,
                                uint8_t *base, size_t size_bytes)
{
    struct iovec iov = piece_of(base, size_bytes);
    np_stream_fill(base, pair->stream, 0, size_bytes);
    np_rig_start_send(rig, watch, pair->ours, &iov, 1, NP_SEND_ZC);
    NP_UNTIL(rig, !watch->armed || watch->events_count == 1);
    assert_true(watch->result > 0);
    pair->sent = (uint64_t)watch->result;
}

enum { MUCH = 8 << 20 };

static void the_notice_waits_for_the_peer(struct np_rig *rig)
{
    uint8_t *base = map_memory(MUCH);
    struct pair pair;
    struct np_watch watch = {0};
    open_pair(&pair, 5);
    send_unacknowledged(rig, &watch, &pair, base, MUCH);
    if (np_rig_is_uring(rig)) {
        for (int i = 0; i < 3; i++)
            np_rig_turn(rig, MS_NS);
        assert_true(watch.armed);
        assert_int_equal(np_rig_stats(rig).counts.notifs_pending, 1);
        assert_int_equal(np_rig_stats(rig).ops_live, 1);
        assert_int_equal(rig->ops->cancel(rig->be, watch.op, 0), 0); /* and nothing comes of it */
        assert_int_equal(rig->ops->cancel(rig->be, watch.op, NP_CANCEL_SETTLE), 0);
        np_rig_turn(rig, MS_NS);
        assert_true(watch.armed);
    }
    NP_UNTIL(rig, (receive(&pair), pair.received == pair.sent));
    finish(rig, &watch);
    assert_int_equal(np_rig_stats(rig).counts.notifs_pending, 0);
    close_pair(rig, &pair);
    munmap(base, MUCH);
}

/* The fd may be closed before the notice; its number goes to another connection at once. */
static void close_comes_before_the_notice(struct np_rig *rig)
{
    uint8_t *base = map_memory(MUCH), *other = map_memory(1 << 16);
    for (int abortive = 0; abortive < 2; abortive++) {
        struct pair pair, next;
        struct np_watch watch = {0};
        open_pair(&pair, 6);
        send_unacknowledged(rig, &watch, &pair, base, MUCH);
        struct linger linger = {.l_onoff = abortive, .l_linger = 0};
        assert_int_equal(setsockopt(pair.ours, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
        np_rig_close_fd(rig, pair.ours);
        int number = pair.ours;
        pair.ours = -1;
        open_pair(&next, 7);
        assert_true(next.ours == number || next.peers == number);
        send_all(rig, &next, other, 1 << 16, 2, NP_SEND_ZC | NP_SEND_WAIT);
        if (abortive) /* what was queued is dropped */
            finish(rig, &watch);
        else /* the peer still gets every byte */
            NP_UNTIL(rig, (receive(&pair), pair.received == pair.sent));
        finish(rig, &watch);
        close_pair(rig, &next);
        close_pair(rig, &pair);
    }
    munmap(base, MUCH);
    munmap(other, 1 << 16);
}

/* RST while a notice is outstanding, and while a send waits. */
static void the_peer_resets(struct np_rig *rig)
{
    uint8_t *base = map_memory(MUCH);
    struct pair pair;
    struct np_watch sent = {0}, waiting = {0};
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    open_pair(&pair, 8);
    send_unacknowledged(rig, &sent, &pair, base, MUCH);
    struct iovec iov = piece_of(base, MUCH);
    np_write_until_full(pair.ours);
    np_rig_start_send(rig, &waiting, pair.ours, &iov, 1, NP_SEND_WAIT | NP_SEND_ALL | NP_SEND_ZC);
    np_rig_turn(rig, 0);
    setsockopt(pair.peers, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(pair.peers);
    finish(rig, &sent);
    finish(rig, &waiting);
    if (np_rig_is_uring(rig))
        assert_true(waiting.result == -ECONNRESET || waiting.result == -EPIPE);
    else
        assert_int_equal(waiting.result, 0); /* the next send will meet the error */
    np_rig_start_send(rig, &waiting, pair.ours, &iov, 1, NP_SEND_WAIT | NP_SEND_ZC);
    finish(rig, &waiting);
    assert_true(waiting.result == -ECONNRESET || waiting.result == -EPIPE);
    np_rig_close_fd(rig, pair.ours);
    munmap(base, MUCH);
}

/* A socket without zero-copy: nothing is taken, the event says so, and a plain send works. */
static void unix_sockets_refuse(struct np_rig *rig)
{
    int fds[2];
    uint8_t bytes[100] = {1}, got[200];
    struct np_watch watch = {0};
    struct iovec iov[2] = {{bytes, 50}, {bytes + 50, 50}};
    np_socket_pair(fds);
    for (int count = 1; count <= 2; count++) {
        np_rig_start_send(rig, &watch, fds[0], iov, count, NP_SEND_ZC);
        finish(rig, &watch);
        if (np_rig_is_uring(rig)) {
            assert_int_equal(watch.result, 0);
            assert_true(watch.result_flags & NP_EV_NO_ZC);
            np_rig_start_send(rig, &watch, fds[0], iov, count, 0);
            finish(rig, &watch);
        }
        assert_int_equal(watch.result, 50 * count);
    }
    assert_int_equal(drain(fds[1], got, sizeof(got)), 150);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

/* A kernel that lacks a form of zero-copy: the send goes by the next best, bytes and all. */
static void every_form_can_be_missing(struct np_rig *rig)
{
    static const uint32_t off[] = {
        NP_FEATURE_SEND_ZC,
        NP_FEATURE_SENDMSG_ZC,
        NP_FEATURE_ZC_FIXED,
        NP_FEATURE_ZC_FIXED_VEC,
        NP_FEATURE_SEND_ZC | NP_FEATURE_SENDMSG_ZC | NP_FEATURE_ZC_FIXED | NP_FEATURE_ZC_FIXED_VEC,
    };
    uint8_t *base = map_memory(1 << 16);
    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        struct pair pair;
        np_rig_reopen(
            rig, (struct np_config){.sq_entries = 4, .cq_entries = 16, .features_off = off[i]});
        int err = rig->ops->attach(rig->be, base, 1 << 16, NP_ATTACH_ON);
        assert_true(err == 0 || err == -EOPNOTSUPP);
        open_pair(&pair, 9);
        for (int pieces = 1; pieces <= 3; pieces++)
            send_all(rig, &pair, base, 50000, pieces, NP_SEND_ZC | NP_SEND_WAIT);
        assert_int_equal(np_rig_stats(rig).counts.zc_refused, 0);
        close_pair(rig, &pair);
        if (err == 0)
            assert_int_equal(rig->ops->attach(rig->be, base, 1 << 16, NP_ATTACH_OFF), 0);
    }
    munmap(base, 1 << 16);
}

/* ---- registered memory --------------------------------------------------------------------- */

/* Whether this backend registers memory; one that does not says so. */
static int registers(struct np_rig *rig)
{
    if (np_rig_is_uring(rig))
        return 1;
    uint8_t byte;
    assert_int_equal(rig->ops->attach(rig->be, &byte, 1, NP_ATTACH_ON), -EOPNOTSUPP);
    assert_int_equal(rig->ops->attach(rig->be, &byte, 1, NP_ATTACH_OFF), -ENOENT);
    return 0;
}

static void registered_memory_is_sent_from(struct np_rig *rig)
{
    if (!registers(rig))
        return;
    uint8_t *base = map_memory(1 << 18);
    struct pair pair;
    assert_int_equal(rig->ops->attach(rig->be, base, 1 << 17, NP_ATTACH_ON), 0);
    assert_int_equal(np_rig_stats(rig).regions_count, 1);
    struct iovec inside = piece_of(base + 100, 1000), across = piece_of(base + (1 << 17) - 1, 2);
    assert_int_equal(np_region_of(np_head(rig->be), &inside, 1), 0);
    assert_int_equal(np_region_of(np_head(rig->be), &across, 1), -1);
    open_pair(&pair, 10);
    for (int pieces = 1; pieces <= 4; pieces++) {
        send_all(rig, &pair, base, 100000, pieces, NP_SEND_ZC | NP_SEND_WAIT);
        send_all(rig, &pair, base + 50000, 100000, pieces, NP_SEND_ZC | NP_SEND_WAIT); /* half */
    }
    close_pair(rig, &pair);
    assert_int_equal(rig->ops->attach(rig->be, base, 1 << 17, NP_ATTACH_OFF), 0);
    assert_int_equal(rig->ops->attach(rig->be, base, 1 << 17, NP_ATTACH_OFF), -ENOENT);
    assert_int_equal(np_rig_stats(rig).regions_count, 0);
    munmap(base, 1 << 18);
}

/* The kernel keeps the pages of a send that is under way, whatever becomes of the mapping. */
static void memory_may_go_while_it_is_being_sent(struct np_rig *rig)
{
    if (!registers(rig))
        return;
    uint8_t *base = map_memory(MUCH);
    struct pair pair;
    struct np_watch watch = {0};
    assert_int_equal(rig->ops->attach(rig->be, base, MUCH, NP_ATTACH_ON), 0);
    open_pair(&pair, 11);
    send_unacknowledged(rig, &watch, &pair, base, MUCH);
    assert_int_equal(rig->ops->attach(rig->be, base, MUCH, NP_ATTACH_OFF), 0);
    munmap(base, MUCH);
    /* Its number in the table is not given away before the kernel has let go. */
    uint8_t *next = map_memory(1 << 16);
    assert_int_equal(rig->ops->attach(rig->be, next, 1 << 16, NP_ATTACH_ON), 0);
    struct iovec whole = piece_of(next, 1 << 16);
    assert_int_equal(np_region_of(np_head(rig->be), &whole, 1), 1);
    NP_UNTIL(rig, (receive(&pair), pair.received == pair.sent));
    finish(rig, &watch);
    NP_UNTIL(rig, !np_head(rig->be)->regions[0].is_releasing);
    close_pair(rig, &pair);
    assert_int_equal(rig->ops->attach(rig->be, next, 1 << 16, NP_ATTACH_OFF), 0);
    munmap(next, 1 << 16);
}

static void the_table_of_regions_is_finite(struct np_rig *rig)
{
    if (!registers(rig))
        return;
    uint8_t *base = map_memory((NP_REGIONS_MAX_COUNT + 1) << 12);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < NP_REGIONS_MAX_COUNT; i++)
            assert_int_equal(rig->ops->attach(rig->be, base + (i << 12), 1 << 12, NP_ATTACH_ON), 0);
        uint8_t *extra = base + ((size_t)NP_REGIONS_MAX_COUNT << 12);
        assert_int_equal(rig->ops->attach(rig->be, extra, 1 << 12, NP_ATTACH_ON), -ENOSPC);
        /* All of them at once: OFF takes whatever lies in the range. */
        assert_int_equal(rig->ops->attach(rig->be, base, NP_REGIONS_MAX_COUNT << 12, NP_ATTACH_OFF),
                         0);
        for (int i = 0; i < NP_REGIONS_MAX_COUNT; i++)
            NP_UNTIL(rig, !np_head(rig->be)->regions[i].is_releasing);
    }
    munmap(base, (NP_REGIONS_MAX_COUNT + 1) << 12);
}

static void a_refused_registration_changes_nothing(struct np_rig *rig)
{
    if (!registers(rig))
        return;
    uint8_t *base = map_memory(1 << 16);
    /* Unmapped memory stands in for RLIMIT_MEMLOCK, which does not bind the superuser. */
    uint8_t *gone = map_memory(1 << 16);
    munmap(gone, 1 << 16);
    assert_int_equal(rig->ops->attach(rig->be, gone, 1 << 16, NP_ATTACH_ON), -EFAULT);
    assert_int_equal(np_rig_stats(rig).regions_count, 0);
    struct pair pair;
    open_pair(&pair, 12);
    send_all(rig, &pair, base, 1 << 16, 1, NP_SEND_ZC | NP_SEND_WAIT);
    close_pair(rig, &pair);
    munmap(base, 1 << 16);
}

/* ---- threads ------------------------------------------------------------------------------- */

struct enabling {
    struct np_rig *rig;
    int rc;
};

static void *try_enable(void *arg)
{
    struct enabling *enabling = arg;
    enabling->rc = enabling->rig->ops->enable(enabling->rig->be);
    return NULL;
}

static int enable_elsewhere(struct np_rig *rig)
{
    struct enabling enabling = {.rig = rig};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, try_enable, &enabling), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return enabling.rc;
}

static void registered_memory_moves_with_the_loop(struct np_rig *rig)
{
    if (!registers(rig))
        return;
    uint8_t *base = map_memory(MUCH);
    struct pair pair;
    struct np_watch watch = {0};
    assert_int_equal(rig->ops->attach(rig->be, base, MUCH, NP_ATTACH_ON), 0);
    np_rig_turn_in_thread(rig, 2, 0);
    assert_int_equal(rig->ops->enable(rig->be), 0); /* back again */
    assert_int_equal(np_rig_stats(rig).counts.moves, 2);
    assert_int_equal(np_rig_stats(rig).regions_count, 1);
    open_pair(&pair, 13);
    send_all(rig, &pair, base, 100000, 2, NP_SEND_ZC | NP_SEND_WAIT);
    close_pair(rig, &pair);
    /* While the kernel holds a send of this ring, the loop stays where it is. */
    open_pair(&pair, 14);
    send_unacknowledged(rig, &watch, &pair, base, MUCH);
    assert_int_equal(enable_elsewhere(rig), -EBUSY);
    np_rig_turn(rig, 0);
    NP_UNTIL(rig, (receive(&pair), pair.received == pair.sent));
    finish(rig, &watch);
    np_rig_turn_in_thread(rig, 1, 0);
    assert_int_equal(rig->ops->enable(rig->be), 0);
    close_pair(rig, &pair);
    assert_int_equal(rig->ops->attach(rig->be, base, MUCH, NP_ATTACH_OFF), 0);
    munmap(base, MUCH);
}

/* Gather lists that the old ring had not read move, too, and in another order than drawn. */
static void unread_lists_move_with_the_loop(struct np_rig *rig)
{
    enum { PAIRS = 6 };
    struct pair pairs[PAIRS];
    struct np_watch watches[PAIRS] = {0};
    uint8_t *base = map_memory(PAIRS << 12);
    np_rig_reopen(rig, (struct np_config){.sq_entries = 8, .cq_entries = 32, .iov_count = 16});
    for (int i = PAIRS - 1; i >= 0; i--) {
        open_pair(&pairs[i], (uint32_t)i);
        uint8_t *bytes = base + ((size_t)i << 12);
        np_stream_fill(bytes, (uint32_t)i, 0, 4096);
        struct iovec iov[2] = {{bytes, 96}, {bytes + 96, 4000}};
        np_rig_start_send(rig, &watches[i], pairs[i].ours, iov, 2, NP_SEND_WAIT);
    }
    np_rig_turn_in_thread(rig, 4, MS_NS);
    assert_int_equal(rig->ops->enable(rig->be), 0);
    for (int i = 0; i < PAIRS; i++) {
        finish(rig, &watches[i]);
        assert_int_equal(watches[i].result, 4096);
        NP_UNTIL(rig, (receive(&pairs[i]), pairs[i].received == 4096));
        close_pair(rig, &pairs[i]);
    }
    munmap(base, PAIRS << 12);
}

/* ---- at random ----------------------------------------------------------------------------- */

enum { CONNECTIONS = 6, STEPS = 1500, SLOT = 1 << 15 };

struct sender {
    struct pair pair;
    struct np_watch watches[4]; /* one sends at a time; the others wait for their notice */
    uint8_t *slots[4];          /* the memory of each: not touched before its last event */
    int current;                /* index of the one that has no result yet, or -1 */
    int is_cancelled;
};

/* Whoever has its result: the stream goes on by that much. */
static void take_result(struct sender *sender)
{
    if (sender->current < 0)
        return;
    struct np_watch *watch = &sender->watches[sender->current];
    if (watch->armed && watch->events_count == 0)
        return;
    if (watch->result > 0)
        sender->pair.sent += (uint64_t)watch->result;
    else
        assert_true(watch->result == 0 || watch->result == -EAGAIN ||
                    (watch->result == -ECANCELED && sender->is_cancelled));
    sender->current = -1;
    sender->is_cancelled = 0;
}

static void start_one(struct np_rig *rig, struct np_random *random, struct sender *sender)
{
    for (int i = 0; i < 4; i++) {
        if (sender->watches[i].armed)
            continue;
        struct iovec iov[6];
        int count = 1 + (int)np_random_below(random, 6);
        size_t at = 0;
        for (int n = 0; n < count; n++) {
            size_t len = 1 + np_random_below(random, SLOT / 6 - 1);
            iov[n] = piece_of(sender->slots[i] + at, len);
            at += len;
        }
        np_stream_fill(sender->slots[i], sender->pair.stream, sender->pair.sent, at);
        int flags = (int)np_random_below(random, 8);
        if (!(flags & NP_SEND_TRANSMITS))
            flags |= NP_SEND_ZC;
        np_rig_start_send(rig, &sender->watches[i], sender->pair.ours, iov, count, flags);
        sender->current = i;
        return;
    }
}

static void open_sender(struct np_rig *rig, struct np_random *random, struct sender *sender,
                        uint8_t *memory, uint32_t stream)
{
    int small = 4096;
    (void)rig;
    memset(sender, 0, sizeof(*sender));
    open_pair(&sender->pair, stream);
    if (np_random_below(random, 2))
        setsockopt(sender->pair.ours, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    for (int i = 0; i < 4; i++)
        sender->slots[i] = memory + (size_t)i * SLOT;
    sender->current = -1;
}

/* Ends a connection: with what is under way cancelled, cut off or read to the end. */
static void end_sender(struct np_rig *rig, struct np_random *random, struct sender *sender)
{
    int how = (int)np_random_below(random, 3);
    if (sender->current >= 0 && how == 0) {
        rig->ops->cancel(rig->be, sender->watches[sender->current].op, 0);
        sender->is_cancelled = 1;
    }
    if (how == 1) {
        NP_UNTIL(rig, (receive(&sender->pair), take_result(sender), sender->current < 0));
        struct linger linger = {.l_onoff = 1};
        setsockopt(sender->pair.ours, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        np_rig_close_fd(rig, sender->pair.ours);
        sender->pair.ours = -1;
    } else {
        NP_UNTIL(rig, (receive(&sender->pair), take_result(sender), sender->current < 0));
        NP_UNTIL(rig, (receive(&sender->pair), sender->pair.received == sender->pair.sent));
    }
    for (int i = 0; i < 4; i++)
        finish(rig, &sender->watches[i]);
    close_pair(rig, &sender->pair);
}

static void random_traffic(struct np_rig *rig)
{
    enum { MEMORY = CONNECTIONS * 4 * SLOT };
    uint8_t *memory = map_memory(MEMORY);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct np_random random = np_random_seeded(seed);
        struct sender senders[CONNECTIONS];
        uint32_t stream = 0;
        np_rig_reopen(rig, (struct np_config){.sq_entries = 4,
                                              .cq_entries = 8,
                                              .iov_count = 8,
                                              .buf_count = 2,
                                              .buf_bytes = 256});
        /* Half of the memory is registered. */
        int attached = rig->ops->attach(rig->be, memory, MEMORY / 2, NP_ATTACH_ON);
        for (int i = 0; i < CONNECTIONS; i++)
            open_sender(rig, &random, &senders[i], memory + (size_t)i * 4 * SLOT, stream++);
        for (int step = 0; step < STEPS; step++) {
            int i = (int)np_random_below(&random, CONNECTIONS);
            struct sender *sender = &senders[i];
            uint32_t dice = np_random_below(&random, 100);
            take_result(sender);
            if (dice < 55 && sender->current < 0) {
                start_one(rig, &random, sender);
            } else if (dice < 60 && sender->current >= 0) {
                rig->ops->cancel(rig->be, sender->watches[sender->current].op, 0);
                sender->is_cancelled = 1;
            } else if (dice < 61) {
                end_sender(rig, &random, sender);
                open_sender(rig, &random, sender, memory + (size_t)i * 4 * SLOT, stream++);
            } else if (dice < 80) {
                receive(&sender->pair);
            } else {
                np_rig_turn(rig, 0);
            }
        }
        for (int i = 0; i < CONNECTIONS; i++)
            end_sender(rig, &random, &senders[i]);
        struct np_stats stats = np_rig_stats(rig);
        assert_int_equal(stats.counts.notifs_pending, 0);
        if (np_rig_is_uring(rig))
            assert_int_equal(stats.counts.send_bytes, stats.counts.zc_bytes +
                                                          stats.counts.copied_bytes +
                                                          stats.counts.unsure_bytes);
        if (attached == 0)
            assert_int_equal(rig->ops->attach(rig->be, memory, MEMORY / 2, NP_ATTACH_OFF), 0);
    }
    munmap(memory, MEMORY);
}

int main(void)
{
    static const struct np_rig_test tests[] = {
        NP_RIG_TEST(one_piece_arrives),
        NP_RIG_TEST(gather_lists_arrive),
        NP_RIG_TEST(usage_is_reported),
        NP_RIG_TEST(a_full_socket_is_waited_for),
        NP_RIG_TEST(a_waiting_send_can_be_cancelled),
        NP_RIG_TEST(the_notice_waits_for_the_peer),
        NP_RIG_TEST(close_comes_before_the_notice),
        NP_RIG_TEST(the_peer_resets),
        NP_RIG_TEST(unix_sockets_refuse),
        NP_RIG_TEST(every_form_can_be_missing),
        NP_RIG_TEST(registered_memory_is_sent_from),
        NP_RIG_TEST(memory_may_go_while_it_is_being_sent),
        NP_RIG_TEST(the_table_of_regions_is_finite),
        NP_RIG_TEST(a_refused_registration_changes_nothing),
        NP_RIG_TEST(registered_memory_moves_with_the_loop),
        NP_RIG_TEST(unread_lists_move_with_the_loop),
        NP_RIG_TEST(random_traffic),
    };
    return NP_RIG_MAIN("test_transmit", tests);
}
