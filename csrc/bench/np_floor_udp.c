#define _GNU_SOURCE 1 /* recvmmsg, sendmmsg */
#include "bench/np_floor_udp.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define DATAGRAM_MAX_BYTES 65536

struct burst {
    struct mmsghdr messages[NP_FLOOR_UDP_BURST_COUNT];
    struct iovec pieces[NP_FLOOR_UDP_BURST_COUNT];
    struct sockaddr_storage names[NP_FLOOR_UDP_BURST_COUNT];
    uint8_t bytes[NP_FLOOR_UDP_BURST_COUNT][DATAGRAM_MAX_BYTES];
};

static void prepare(struct burst *burst)
{
    for (int i = 0; i < NP_FLOOR_UDP_BURST_COUNT; i++) {
        burst->pieces[i] = (struct iovec){burst->bytes[i], DATAGRAM_MAX_BYTES};
        burst->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &burst->names[i],
            .msg_namelen = sizeof(burst->names[i]),
            .msg_iov = &burst->pieces[i],
            .msg_iovlen = 1,
        };
    }
}

/* Answers what is there, one burst of it. */
static int answer(struct burst *burst, int fd)
{
    prepare(burst);
    int count = recvmmsg(fd, burst->messages, NP_FLOOR_UDP_BURST_COUNT, MSG_DONTWAIT, NULL);
    if (count < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED ? 0 : -errno;
    for (int i = 0; i < count; i++)
        burst->pieces[i].iov_len = burst->messages[i].msg_len;
    for (int sent = 0; sent < count;) {
        int n = sendmmsg(fd, burst->messages + sent, (unsigned)(count - sent), MSG_DONTWAIT);
        sent += n > 0 ? n : 1; /* the first one that failed is dropped */
    }
    return 0;
}

int np_floor_udp_epoll(int fd, int stop_fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    int err = -ENOMEM;
    struct burst *burst = calloc(1, sizeof(*burst));
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) {
        err = -errno;
        goto out;
    }
    if (!burst)
        goto out;
    event.data.fd = fd;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        err = -errno;
        goto out;
    }
    event.data.fd = stop_fd;
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, stop_fd, &event) < 0) {
        err = -errno;
        goto out;
    }
    for (err = 0; err == 0;) {
        struct epoll_event events[2];
        int count = epoll_wait(epoll_fd, events, 2, -1);
        if (count < 0 && errno != EINTR)
            err = -errno;
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == stop_fd)
                goto out;
            err = answer(burst, fd);
        }
    }
out:
    if (epoll_fd >= 0)
        close(epoll_fd);
    free(burst);
    return err;
}
