/* test_iov.c - the outbound chain: every byte boundary, every way to run out of room. */
#include "np_test.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mem/np_iov.h"
#include "base/np_limits.h"

enum { CHUNKS = 5 };
static const size_t LENS[CHUNKS] = {1, 3, 7, 2, 5};
enum { TOTAL = 18 };
static const char TEXT[TOTAL + 1] = "abcdefghijklmnopqr";
static int owners[4096];

static void push(struct np_iov *iov, void *owner, const void *base, size_t len_bytes)
{
    int rc = np_iov_push(iov, owner, base, len_bytes);
    if (rc == -ENOBUFS) {
        assert_int_equal(np_iov_grow(iov), 0);
        rc = np_iov_push(iov, owner, base, len_bytes);
    }
    assert_int_equal(rc, 0);
}

static void push_text(struct np_iov *iov)
{
    const char *at = TEXT;
    for (int i = 0; i < CHUNKS; i++) {
        push(iov, &owners[i], at, LENS[i]);
        at += LENS[i];
    }
}

/* The chain's bytes as its iovecs present them. */
static size_t read_chain(const struct np_iov *iov, char *out)
{
    struct iovec vec[64];
    int count = np_iov_gather(iov, vec, 64);
    size_t len_bytes = 0;
    for (int i = 0; i < count; i++) {
        assert_true(vec[i].iov_len > 0);
        memcpy(out + len_bytes, vec[i].iov_base, vec[i].iov_len);
        len_bytes += vec[i].iov_len;
    }
    return len_bytes;
}

static void drop_all(struct np_iov *iov)
{
    while (np_iov_pop(iov))
        ;
    assert_int_equal(iov->count, 0);
    assert_int_equal(iov->total_bytes, 0);
    np_iov_close(iov);
}

static void an_empty_chain_has_nothing(void **state)
{
    (void)state;
    struct np_iov iov;
    struct iovec vec[1];
    void *done[1];
    np_iov_init(&iov);
    assert_int_equal(np_iov_push(&iov, owners, TEXT, 1), -ENOBUFS);
    assert_int_equal(np_iov_gather(&iov, vec, 1), 0);
    assert_int_equal(np_iov_advance(&iov, 0, done, 1), 0);
    assert_null(np_iov_pop(&iov));
    np_iov_close(&iov);
}

static void advance_by_one_piece_at_every_boundary(void **state)
{
    (void)state;
    for (size_t taken = 0; taken <= TOTAL; taken++) {
        struct np_iov iov;
        void *done[CHUNKS];
        char rest[TOTAL];
        np_iov_init(&iov);
        push_text(&iov);
        assert_int_equal(iov.total_bytes, TOTAL);

        int expected = 0;
        for (size_t end = LENS[0]; expected < CHUNKS && taken >= end; end += LENS[expected])
            if (++expected == CHUNKS)
                break;
        assert_int_equal(np_iov_advance(&iov, taken, done, CHUNKS), expected);
        for (int i = 0; i < expected; i++)
            assert_ptr_equal(done[i], &owners[i]);
        assert_int_equal(iov.total_bytes, TOTAL - taken);
        assert_int_equal(iov.count, CHUNKS - expected);
        assert_int_equal(read_chain(&iov, rest), TOTAL - taken);
        assert_memory_equal(rest, TEXT + taken, TOTAL - taken);
        drop_all(&iov);
    }
}

static void advance_in_two_pieces_at_every_pair_of_boundaries(void **state)
{
    (void)state;
    for (size_t first = 0; first <= TOTAL; first++) {
        for (size_t second = 0; first + second <= TOTAL; second++) {
            struct np_iov iov;
            void *done[CHUNKS];
            char rest[TOTAL];
            size_t left = TOTAL - first - second;
            np_iov_init(&iov);
            push_text(&iov);
            int count = np_iov_advance(&iov, first, done, CHUNKS);
            count += np_iov_advance(&iov, second, done + count, CHUNKS - count);
            for (int i = 0; i < count; i++)
                assert_ptr_equal(done[i], &owners[i]);
            assert_int_equal(iov.count, CHUNKS - count);
            assert_int_equal(iov.total_bytes, left);
            assert_int_equal(read_chain(&iov, rest), left);
            assert_memory_equal(rest, TEXT + first + second, left);
            drop_all(&iov);
        }
    }
}

static void owners_come_back_in_portions(void **state)
{
    (void)state;
    for (int max = 1; max <= CHUNKS + 1; max++) {
        struct np_iov iov;
        void *done[CHUNKS + 1];
        np_iov_init(&iov);
        push_text(&iov);
        size_t taken = TOTAL - 1; /* all but the last chunk's last byte */
        int count = 0, n;
        do {
            n = np_iov_advance(&iov, taken, done + count, max);
            taken = 0;
            count += n;
            assert_int_equal(iov.total_bytes, 1);
        } while (n == max);
        assert_int_equal(count, CHUNKS - 1);
        for (int i = 0; i < count; i++)
            assert_ptr_equal(done[i], &owners[i]);
        char rest[TOTAL];
        assert_int_equal(read_chain(&iov, rest), 1);
        assert_int_equal(rest[0], TEXT[TOTAL - 1]);
        drop_all(&iov);
    }
}

static void pop_counts_only_what_was_left(void **state)
{
    (void)state;
    struct np_iov iov;
    void *done[1];
    np_iov_init(&iov);
    push_text(&iov);
    assert_int_equal(np_iov_advance(&iov, LENS[0] + 2, done, 1), 1);
    assert_ptr_equal(np_iov_pop(&iov), &owners[1]); /* one of its three bytes was left */
    assert_int_equal(iov.total_bytes, TOTAL - LENS[0] - LENS[1]);
    assert_int_equal(iov.skip_bytes, 0);
    char rest[TOTAL];
    assert_int_equal(read_chain(&iov, rest), TOTAL - LENS[0] - LENS[1]);
    assert_memory_equal(rest, TEXT + LENS[0] + LENS[1], TOTAL - LENS[0] - LENS[1]);

    /* An advance that was cut short left finished chunks behind: pop does not count them twice. */
    assert_int_equal(np_iov_advance(&iov, LENS[2] + LENS[3] + 1, done, 1), 1);
    assert_int_equal(iov.total_bytes, LENS[4] - 1);
    assert_ptr_equal(np_iov_pop(&iov), &owners[3]);
    assert_int_equal(iov.total_bytes, LENS[4] - 1);
    assert_int_equal(iov.skip_bytes, 1);
    assert_ptr_equal(np_iov_pop(&iov), &owners[4]);
    assert_int_equal(iov.total_bytes, 0);
    assert_null(np_iov_pop(&iov));
    np_iov_close(&iov);
}

static void growing_keeps_a_wrapped_ring_in_order(void **state)
{
    (void)state;
    for (uint32_t head = 0; head < 8; head++) {
        struct np_iov iov;
        void *done[1];
        char bytes[TOTAL];
        np_iov_init(&iov);
        for (uint32_t i = 0; i < head; i++) { /* turn the ring so that it wraps */
            push(&iov, owners, TEXT, 1);
            assert_int_equal(np_iov_advance(&iov, 1, done, 1), 1);
        }
        uint32_t cap = iov.cap;
        for (int i = 0; i < TOTAL; i++)
            push(&iov, &owners[i], TEXT + i, 1);
        assert_true(iov.cap > cap);
        assert_int_equal(iov.cap & (iov.cap - 1), 0);
        assert_int_equal(read_chain(&iov, bytes), TOTAL);
        assert_memory_equal(bytes, TEXT, TOTAL);
        for (int i = 0; i < TOTAL; i++)
            assert_ptr_equal(np_iov_pop(&iov), &owners[i]);
        np_iov_close(&iov);
    }
}

static void grow_with_room_does_nothing_and_can_fail(void **state)
{
    (void)state;
    struct np_iov iov;
    np_iov_init(&iov);
    np_fail_allocations(1);
    assert_int_equal(np_iov_grow(&iov), -ENOMEM);
    assert_int_equal(iov.cap, 0);
    assert_int_equal(np_iov_grow(&iov), 0);
    uint32_t cap = iov.cap;
    assert_int_equal(np_iov_grow(&iov), 0);
    assert_int_equal(iov.cap, cap);
    for (uint32_t i = 0; i < cap; i++)
        assert_int_equal(np_iov_push(&iov, &owners[i], TEXT + i, 1), 0);
    assert_int_equal(np_iov_push(&iov, owners, TEXT, 1), -ENOBUFS);
    assert_int_equal(iov.total_bytes, cap);
    np_fail_allocations(1);
    assert_int_equal(np_iov_grow(&iov), -ENOMEM);
    char bytes[TOTAL];
    assert_int_equal(read_chain(&iov, bytes), cap);
    assert_memory_equal(bytes, TEXT, cap);
    drop_all(&iov);
}

static void gather_stops_at_its_maximum(void **state)
{
    (void)state;
    struct np_iov iov;
    np_iov_init(&iov);
    push_text(&iov);
    for (int max = 0; max <= CHUNKS + 2; max++) {
        int expected = max < CHUNKS ? max : CHUNKS;
        struct np_guarded vec = np_guarded_open(sizeof(struct iovec) * (size_t)(max ? max : 1));
        assert_int_equal(np_iov_gather(&iov, (struct iovec *)vec.base, max), expected);
        np_guarded_close(&vec);
    }
    drop_all(&iov);
}

/* Sends the chain over a socket with writes of random size, owners counted. */
static void send_all(struct np_iov *iov, int fd, int peer, uint8_t *received, int expected_owners)
{
    struct np_random random = np_random_seeded(31);
    struct iovec vec[NP_IOV_MAX];
    void *done[16];
    int finished = 0;
    size_t total = iov->total_bytes, got = 0;
    while (iov->total_bytes > 0) {
        int count = np_iov_gather(iov, vec, NP_IOV_MAX);
        assert_true(count > 0);
        int part = 1 + (int)np_random_below(&random, (uint32_t)count);
        ssize_t taken = writev(fd, vec, part);
        assert_true(taken > 0);
        int n = np_iov_advance(iov, (size_t)taken, done, 16);
        for (;;) {
            for (int i = 0; i < n; i++)
                assert_ptr_equal(done[i], &owners[finished++]);
            if (n < 16)
                break;
            n = np_iov_advance(iov, 0, done, 16);
        }
        ssize_t len = recv(peer, received + got, total - got, MSG_DONTWAIT);
        got += len > 0 ? (size_t)len : 0;
    }
    while (got < total) {
        ssize_t len = recv(peer, received + got, total - got, 0);
        assert_true(len > 0);
        got += (size_t)len;
    }
    assert_int_equal(finished, expected_owners);
}

static void more_chunks_than_iov_max_flush_against_a_guard_page(void **state)
{
    (void)state;
    enum { COUNT = 3 * NP_IOV_MAX + 5 };
    struct np_iov iov;
    struct iovec vec[NP_IOV_MAX];
    int sockets[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
    size_t total = 0;
    for (size_t i = 0; i < COUNT; i++)
        total += 1 + i % 13;
    /* The last chunk ends where the page ends: one byte too many anywhere is EFAULT. */
    struct np_guarded data = np_guarded_open(total);
    for (size_t i = 0; i < total; i++)
        data.base[i] = (uint8_t)(i * 31 >> 3);
    np_iov_init(&iov);
    size_t at = 0;
    for (size_t i = 0; i < COUNT; i++) {
        push(&iov, &owners[i], data.base + at, 1 + i % 13);
        at += 1 + i % 13;
    }
    assert_int_equal(iov.total_bytes, total);
    assert_int_equal(np_iov_gather(&iov, vec, NP_IOV_MAX), NP_IOV_MAX);

    uint8_t *received = calloc(1, total);
    send_all(&iov, sockets[0], sockets[1], received, COUNT);
    assert_memory_equal(received, data.base, total);
    assert_int_equal(iov.count, 0);
    np_iov_close(&iov);
    np_guarded_close(&data);
    free(received);
    close(sockets[0]);
    close(sockets[1]);
}

static void random_use_against_a_model(void **state)
{
    (void)state;
    enum { STEPS = 30000, STREAM = 1 << 20 };
    static uint8_t stream[STREAM], copy[STREAM];
    struct np_random random = np_random_seeded(32);
    struct np_iov iov;
    size_t pushed = 0, taken = 0;
    int pushed_owners = 0, done_owners = 0;
    for (int i = 0; i < STREAM; i++)
        stream[i] = (uint8_t)np_random_next(&random);
    np_iov_init(&iov);
    for (int step = 0; step < STEPS; step++) {
        size_t len_bytes = 1 + np_random_below(&random, 32);
        if (np_random_below(&random, 2) && pushed + len_bytes < STREAM) {
            push(&iov, &owners[pushed_owners++ % 4096], stream + pushed, len_bytes);
            pushed += len_bytes;
        } else if (iov.total_bytes > 0) {
            struct iovec vec[8];
            void *done[3];
            int count = np_iov_gather(&iov, vec, 1 + (int)np_random_below(&random, 8));
            size_t part = 0, piece;
            for (int i = 0; i < count; i++, part += piece) {
                piece = vec[i].iov_len;
                memcpy(copy + taken + part, vec[i].iov_base, piece);
            }
            part = np_random_below(&random, (uint32_t)part + 1);
            int n = np_iov_advance(&iov, part, done, 3);
            taken += part;
            for (;;) {
                for (int i = 0; i < n; i++)
                    assert_ptr_equal(done[i], &owners[done_owners++ % 4096]);
                if (n < 3)
                    break;
                n = np_iov_advance(&iov, 0, done, 3);
            }
        }
        assert_int_equal(iov.total_bytes, pushed - taken);
        assert_int_equal(iov.count, pushed_owners - done_owners);
    }
    assert_true(taken > 10000);
    assert_memory_equal(copy, stream, taken);
    drop_all(&iov);
}

static void advance_too_far(void *arg)
{
    void *done[CHUNKS];
    np_iov_advance(arg, TOTAL + 1, done, CHUNKS);
}

static void close_with_owners_left(void *arg)
{
    np_iov_close(arg);
}

static void broken_rules_abort(void **state)
{
    (void)state;
    struct np_iov iov;
    np_iov_init(&iov);
    push_text(&iov);
    assert_true(np_aborts(advance_too_far, &iov));
    assert_true(np_aborts(close_with_owners_left, &iov));
    drop_all(&iov);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_chain_has_nothing),
        cmocka_unit_test(advance_by_one_piece_at_every_boundary),
        cmocka_unit_test(advance_in_two_pieces_at_every_pair_of_boundaries),
        cmocka_unit_test(owners_come_back_in_portions),
        cmocka_unit_test(pop_counts_only_what_was_left),
        cmocka_unit_test(growing_keeps_a_wrapped_ring_in_order),
        cmocka_unit_test(grow_with_room_does_nothing_and_can_fail),
        cmocka_unit_test(gather_stops_at_its_maximum),
        cmocka_unit_test(more_chunks_than_iov_max_flush_against_a_guard_page),
        cmocka_unit_test(random_use_against_a_model),
        cmocka_unit_test(broken_rules_abort),
    };
    return NP_TEST_MAIN("test_iov", tests);
}
