/* np_floor.h - the floors of the benchmark: echo servers in C, as fast as the kernel lets us.
 *
 * Purpose   What an echo costs when nothing but the kernel is in the way; every loop is compared
 *           with the nearer of the two. Not part of netpoll's core and independent of it.
 * epoll     Level-triggered; one hot buffer of 256 KiB for all connections; recv, send; what send
 *           does not take is kept and the connection waits for EPOLLOUT instead of EPOLLIN.
 * io_uring  SINGLE_ISSUER + DEFER_TASKRUN; multishot accept; multishot recv over a ring of provided
 *           buffers (incrementally consumed where the kernel has that: Linux 6.12); a send SQE
 *           straight out of the receive buffer, which does not wait and reports only failure (then
 *           one that waits takes over); one io_uring_enter per turn.
 * Ownership listen_fd (listening, nonblocking, TCP_NODELAY set so that connections inherit it) and
 *           stop_fd (readable = end) stay the caller's.
 * Errors    0 after stop_fd, else -errno (-EMFILE too: raise the limit first).
 * Threads   Each call runs its own server in the calling thread until it ends.
 */
#ifndef NP_FLOOR_H
#define NP_FLOOR_H

#include <stdint.h>

struct np_floor_uring_config {
    uint32_t buf_count; /* a power of two; 0 = default */
    uint32_t buf_bytes; /* 0 = default */
    int whole_buffers;  /* 1 = do not consume incrementally even where the kernel can */
};

int np_floor_epoll(int listen_fd, int stop_fd);
int np_floor_uring(int listen_fd, int stop_fd, const struct np_floor_uring_config *config);
/* 0 when np_floor_uring can run here, else the -errno that refuses it. */
int np_floor_uring_probe(void);

#endif
