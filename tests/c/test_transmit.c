/* test_transmit.c - sends that wait and sends that are zero-copy, on every backend variant. */
#include "np_rig.h"

#include <sys/socket.h>
#include <unistd.h>



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
                                NP_SEND_ZC | NP_SEND_WAIT | NP_SEND_ALL | NP_SEND_MORE};
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        uint8_t bytes[1000], got[1000];
        struct np_watch watch = {0};
        struct iovec iov = {bytes, sizeof(bytes)};
        int fds[2];
        np_tcp_pair(fds);
        np_stream_fill(bytes, (uint32_t)i, 0, sizeof(bytes));
        np_rig_start_transmit(rig, &watch, fds[0], &iov, 1, flags[i]);
        finish(rig, &watch);
        assert_int_equal(watch.result, sizeof(bytes));
        shutdown(fds[0], SHUT_WR); /* sends what MORE holds back */
        size_t arrived = 0;
        NP_UNTIL(rig, (arrived += drain(fds[1], got + arrived, sizeof(got) - arrived)) ==
                          sizeof(got));
        assert_true(np_stream_matches(got, (uint32_t)i, 0, sizeof(got)));
        np_rig_close_fd(rig, fds[0]);
        close(fds[1]);
    }
}

int main(void)
{
    static const struct np_rig_test tests[] = {
        NP_RIG_TEST(one_piece_arrives),
    };
    return NP_RIG_MAIN("test_transmit", tests);
}
