/* test_dgram.c - bursts of datagrams: boundaries kept, runs segmented and put together again. */
#define _GNU_SOURCE 1
#include "np_test.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/np_dgram.h"

/* ---- a kernel that can be told to behave badly: linked with --wrap=sendmmsg,--wrap=recvmmsg -- */

static struct {
    int send_errno;       /* the next call fails with it, once */
    int segment_errno;    /* a call fails that begins with a segmented message */
    int send_at_most;     /* messages per call; 0: all */
    int receive_errno;    /* once */
    int sends, segmented; /* calls; segmented messages that left */
} kernel;

int __real_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
int __real_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
                    struct timespec *timeout);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
                    struct timespec *timeout);

static int fails(int *err)
{
    if (!*err)
        return 0;
    errno = *err;
    *err = 0;
    return 1;
}

int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    if (count == 0) /* asks whether the call itself is refused */
        return __real_sendmmsg(fd, messages, count, flags);
    kernel.sends++;
    if (fails(&kernel.send_errno))
        return -1;
    if (kernel.segment_errno && messages[0].msg_hdr.msg_controllen) {
        errno = kernel.segment_errno;
        return -1;
    }
    if (kernel.send_at_most && count > (unsigned)kernel.send_at_most)
        count = (unsigned)kernel.send_at_most;
    int n = __real_sendmmsg(fd, messages, count, flags);
    for (int i = 0; i < n; i++)
        kernel.segmented += messages[i].msg_hdr.msg_controllen != 0;
    return n;
}

int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
                    struct timespec *timeout)
{
    if (count && fails(&kernel.receive_errno))
        return -1;
    return __real_recvmmsg(fd, messages, count, flags, timeout);
}

/* ---- two sockets -------------------------------------------------------------------------- */

struct rig {
    int from, to, other;
    struct sockaddr_in to_name, other_name, from_name;
    struct np_dgram_in *in;
    uint32_t gso_max_bytes;
};

static int open_socket(struct sockaddr_in *name)
{
    socklen_t len = sizeof(*name);
    int room_bytes = 4 << 20;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    *name = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)name, sizeof(*name)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)name, &len), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room_bytes, sizeof(room_bytes));
    return fd;
}

static int open_rig(void **state)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    rig->from = open_socket(&rig->from_name);
    rig->to = open_socket(&rig->to_name);
    rig->other = open_socket(&rig->other_name);
    rig->in = np_dgram_in_open();
    assert_non_null(rig->in);
    rig->gso_max_bytes = np_dgram_gso_max_bytes(rig->from);
    memset(&kernel, 0, sizeof(kernel));
    *state = rig;
    return 0;
}

static int close_rig(void **state)
{
    struct rig *rig = *state;
    np_dgram_in_close(rig->in);
    close(rig->from);
    close(rig->to);
    close(rig->other);
    free(rig);
    return 0;
}

static struct np_dgram_out to(const struct sockaddr_in *name, const void *data, uint32_t len_bytes)
{
    return (struct np_dgram_out){data, len_bytes, sizeof(*name), (const struct sockaddr *)name};
}

/* Sends all, with as many calls as it takes. */
static void send_all(struct rig *rig, const struct np_dgram_out *out, int count)
{
    for (int sent = 0; sent < count;) {
        int n = np_dgram_send(rig->from, out + sent, count - sent, &rig->gso_max_bytes);
        assert_true(n > 0);
        sent += n;
    }
}

/* The next datagrams of `fd` are just these. */
static void expect(struct rig *rig, int fd, const struct np_dgram_out *out, int count)
{
    for (int seen = 0; seen < count;) {
        int n = np_dgram_recv(rig->in, fd, NP_DGRAM_BURST_COUNT, 0);
        assert_true(n > 0);
        for (int i = 0; i < n; i++, seen++) {
            struct np_dgram got;
            np_dgram_at(rig->in, i, &got);
            assert_int_equal(got.len_bytes, out[seen].len_bytes);
            assert_int_equal(got.segment_bytes, 0);
            assert_memory_equal(got.data, out[seen].data, got.len_bytes);
            assert_int_equal(got.name_bytes, sizeof(rig->from_name));
            assert_memory_equal(got.name, &rig->from_name, sizeof(rig->from_name));
        }
    }
    assert_int_equal(np_dgram_recv(rig->in, fd, 1, 0), -EAGAIN);
}

static uint8_t pattern[70000];

static void fill_pattern(void)
{
    struct np_random random = np_random_seeded(7);
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)np_random_next(&random);
}

/* ---- tests -------------------------------------------------------------------------------- */

static void nothing_to_send_and_nothing_to_receive(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(np_dgram_send(rig->from, NULL, 0, &rig->gso_max_bytes), 0);
    assert_int_equal(np_dgram_recv(rig->in, rig->to, NP_DGRAM_BURST_COUNT, 0), -EAGAIN);
    assert_int_equal(kernel.sends, 0);
}

static void sizes_and_order_are_kept(void **state)
{
    struct rig *rig = *state;
    const uint32_t sizes[] = {1, 0, 1472, 0, 0, 65507, 7, 7, 7, 3, 3, 9};
    enum { COUNT = sizeof(sizes) / sizeof(sizes[0]) };
    struct np_dgram_out out[COUNT];
    for (int i = 0; i < COUNT; i++)
        out[i] = to(&rig->to_name, pattern + i, sizes[i]);
    send_all(rig, out, COUNT);
    expect(rig, rig->to, out, COUNT);
}

static void a_full_burst_of_two_addresses(void **state)
{
    struct rig *rig = *state;
    struct np_dgram_out out[NP_DGRAM_BURST_COUNT], to_one[NP_DGRAM_BURST_COUNT / 2],
        to_other[NP_DGRAM_BURST_COUNT / 2];
    for (int i = 0; i < NP_DGRAM_BURST_COUNT; i++) {
        out[i] = to(i % 2 ? &rig->other_name : &rig->to_name, pattern + i, 100);
        (i % 2 ? to_other : to_one)[i / 2] = out[i];
    }
    send_all(rig, out, NP_DGRAM_BURST_COUNT);
    assert_int_equal(kernel.sends, 1);
    assert_int_equal(kernel.segmented, 0); /* neighbours have different addresses */
    expect(rig, rig->to, to_one, NP_DGRAM_BURST_COUNT / 2);
    expect(rig, rig->other, to_other, NP_DGRAM_BURST_COUNT / 2);
}

static void runs_of_equal_datagrams_are_segmented(void **state)
{
    struct rig *rig = *state;
    if (!rig->gso_max_bytes)
        np_skip("UDP_SEGMENT", "this kernel has none");
    struct np_dgram_out out[NP_DGRAM_BURST_COUNT];
    /* 20 x 1200 with a shorter end, 3 x 50, then three that stand alone. */
    int count = 0;
    for (; count < 20; count++)
        out[count] = to(&rig->to_name, pattern + count * 1200, 1200);
    out[count++] = to(&rig->to_name, pattern, 1199);
    for (int i = 0; i < 3; i++)
        out[count++] = to(&rig->to_name, pattern + i, 50);
    out[count++] = to(&rig->to_name, pattern, 0);
    out[count++] = to(&rig->to_name, pattern, 10);
    out[count++] = to(&rig->to_name, pattern, 11);
    send_all(rig, out, count);
    assert_int_equal(kernel.sends, 1);
    assert_int_equal(kernel.segmented, 2);
    expect(rig, rig->to, out, count);
}

static void a_run_stays_below_the_largest_packet(void **state)
{
    struct rig *rig = *state;
    struct np_dgram_out out[10];
    for (int i = 0; i < 10; i++)
        out[i] = to(&rig->to_name, pattern + i, 20000);
    send_all(rig, out, 10);
    expect(rig, rig->to, out, 10);
    assert_int_equal(kernel.segmented, rig->gso_max_bytes ? 3 : 0); /* 3 + 3 + 3 + 1 */
}

static void a_refused_run_goes_one_by_one(void **state)
{
    struct rig *rig = *state;
    static const int refusals[] = {EINVAL, EIO, EMSGSIZE, EOPNOTSUPP};
    struct np_dgram_out out[8];
    if (!rig->gso_max_bytes)
        np_skip("UDP_SEGMENT", "this kernel has none");
    for (size_t r = 0; r < sizeof(refusals) / sizeof(refusals[0]); r++) {
        uint32_t len_bytes = 500 - (uint32_t)r * 100;
        kernel.segment_errno = refusals[r];
        for (int i = 0; i < 8; i++)
            out[i] = to(&rig->to_name, pattern + i, len_bytes);
        send_all(rig, out, 8);
        expect(rig, rig->to, out, 8);
        assert_int_equal(rig->gso_max_bytes, len_bytes - 1);
    }
    kernel.segment_errno = 0;
    send_all(rig, out, 8);
    assert_int_equal(kernel.segmented, 0); /* not tried again at this length */
    expect(rig, rig->to, out, 8);
    for (int i = 0; i < 8; i++)
        out[i].len_bytes = 100;
    send_all(rig, out, 8);
    assert_int_equal(kernel.segmented, 1); /* but below it */
    expect(rig, rig->to, out, 8);
}

static void an_error_that_is_not_about_segments_is_the_first_one_s(void **state)
{
    struct rig *rig = *state;
    struct np_dgram_out out[4];
    for (int i = 0; i < 4; i++)
        out[i] = to(&rig->to_name, pattern + i, 64);
    uint32_t before = rig->gso_max_bytes;
    kernel.send_errno = ECONNREFUSED;
    assert_int_equal(np_dgram_send(rig->from, out, 4, &rig->gso_max_bytes), -ECONNREFUSED);
    kernel.send_errno = EAGAIN;
    assert_int_equal(np_dgram_send(rig->from, out, 4, &rig->gso_max_bytes), -EAGAIN);
    assert_int_equal(rig->gso_max_bytes, before);
    kernel.send_errno = EINTR;
    send_all(rig, out, 4);
    expect(rig, rig->to, out, 4);
}

static void a_datagram_that_is_too_long_is_reported_in_its_turn(void **state)
{
    struct rig *rig = *state;
    struct np_dgram_out out[3] = {to(&rig->to_name, pattern, 5), to(&rig->to_name, pattern, 65508),
                                  to(&rig->to_name, pattern, 6)};
    assert_int_equal(np_dgram_send(rig->from, out, 3, &rig->gso_max_bytes), 1);
    assert_int_equal(np_dgram_send(rig->from, out + 1, 2, &rig->gso_max_bytes), -EMSGSIZE);
    assert_int_equal(np_dgram_send(rig->from, out + 2, 1, &rig->gso_max_bytes), 1);
    out[1] = out[2];
    expect(rig, rig->to, out, 2);
}

static void partial_sends_count_datagrams_not_messages(void **state)
{
    struct rig *rig = *state;
    struct np_dgram_out out[12];
    kernel.send_at_most = 1;
    for (int i = 0; i < 12; i++)
        out[i] = to(i < 6 ? &rig->to_name : &rig->other_name, pattern + i, 200);
    int n = np_dgram_send(rig->from, out, 12, &rig->gso_max_bytes);
    assert_int_equal(n, rig->gso_max_bytes ? 6 : 1);
    send_all(rig, out + n, 12 - n);
    expect(rig, rig->to, out, 6);
    expect(rig, rig->other, out + 6, 6);
}

static void received_runs_say_how_long_their_datagrams_are(void **state)
{
    struct rig *rig = *state;
    int on = 1;
    if (!rig->gso_max_bytes || setsockopt(rig->to, SOL_UDP, UDP_GRO, &on, sizeof(on)) < 0)
        np_skip("UDP_GRO", "this kernel has none");
    assert_true(np_dgram_has_gro(rig->to));
    assert_false(np_dgram_has_gro(rig->other));
    struct np_dgram_out out[9];
    for (int i = 0; i < 9; i++)
        out[i] = to(&rig->to_name, pattern + i * 300, i == 8 ? 7 : 300);
    send_all(rig, out, 9);
    uint32_t seen_bytes = 0;
    for (int n; (n = np_dgram_recv(rig->in, rig->to, NP_DGRAM_BURST_COUNT, 1)) > 0;) {
        for (int i = 0; i < n; i++) {
            struct np_dgram got;
            np_dgram_at(rig->in, i, &got);
            assert_true(got.segment_bytes == 300 || got.len_bytes <= 300);
            assert_memory_equal(got.data, pattern + seen_bytes, got.len_bytes);
            seen_bytes += got.len_bytes;
        }
    }
    assert_int_equal(seen_bytes, 8 * 300 + 7);
    /* And without it again: the lengths of the control data are set anew. */
    on = 0;
    setsockopt(rig->to, SOL_UDP, UDP_GRO, &on, sizeof(on));
    send_all(rig, out, 9);
    expect(rig, rig->to, out, 9);
}

static void errors_of_receiving(void **state)
{
    struct rig *rig = *state;
    struct np_dgram_out out = to(&rig->to_name, pattern, 3);
    kernel.receive_errno = ECONNREFUSED;
    assert_int_equal(np_dgram_recv(rig->in, rig->to, 4, 0), -ECONNREFUSED);
    send_all(rig, &out, 1);
    kernel.receive_errno = EINTR;
    expect(rig, rig->to, &out, 1);
    assert_int_equal(np_dgram_recv(rig->in, -1, 4, 0), -EBADF);
}

static void a_bad_descriptor_has_neither(void **state)
{
    (void)state;
    assert_int_equal(np_dgram_gso_max_bytes(-1), 0);
    assert_int_equal(np_dgram_has_gro(-1), 0);
    np_dgram_in_close(NULL);
}

static void random_bursts_arrive_as_they_were_sent(void **state)
{
    struct rig *rig = *state;
    struct np_random random = np_random_seeded(11);
    for (int round = 0; round < 300; round++) {
        struct np_dgram_out out[NP_DGRAM_BURST_COUNT];
        int count = 1 + (int)np_random_below(&random, NP_DGRAM_BURST_COUNT);
        uint32_t usual_bytes = np_random_below(&random, 1500);
        for (int i = 0; i < count; i++) {
            uint32_t len_bytes = np_random_below(&random, 4) ? usual_bytes
                                                             : np_random_below(&random, 1500);
            out[i] = to(&rig->to_name, pattern + np_random_below(&random, 60000), len_bytes);
        }
        kernel.send_at_most = (int)np_random_below(&random, 5);
        send_all(rig, out, count);
        expect(rig, rig->to, out, count);
    }
}

int main(void)
{
    fill_pattern();
#define RIGGED(test) cmocka_unit_test_setup_teardown(test, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        RIGGED(nothing_to_send_and_nothing_to_receive),
        RIGGED(sizes_and_order_are_kept),
        RIGGED(a_full_burst_of_two_addresses),
        RIGGED(runs_of_equal_datagrams_are_segmented),
        RIGGED(a_run_stays_below_the_largest_packet),
        RIGGED(a_refused_run_goes_one_by_one),
        RIGGED(an_error_that_is_not_about_segments_is_the_first_one_s),
        RIGGED(a_datagram_that_is_too_long_is_reported_in_its_turn),
        RIGGED(partial_sends_count_datagrams_not_messages),
        RIGGED(received_runs_say_how_long_their_datagrams_are),
        RIGGED(errors_of_receiving),
        RIGGED(random_bursts_arrive_as_they_were_sent),
        cmocka_unit_test(a_bad_descriptor_has_neither),
    };
    return NP_TEST_MAIN("test_dgram", tests);
}
