/* np_floor_udp.h - the floor of the datagram benchmark: an echo of datagrams in C, on epoll.
 *
 * Purpose   What answering a datagram costs when nothing but the kernel is in the way. As
 *           np_floor.h: not part of netpoll's core and independent of it.
 * Model     One level-triggered epoll; when the socket is readable, recvmmsg of up to
 *           NP_FLOOR_UDP_BURST_COUNT datagrams and sendmmsg of the answers. What the socket does
 *           not take is dropped, as a network would.
 * Ownership fd (bound, nonblocking) and stop_fd (readable = end) stay the caller's.
 * Errors    0 after stop_fd, else -errno.
 * Threads   Each call runs its own server in the calling thread until it ends.
 */
#ifndef NP_FLOOR_UDP_H
#define NP_FLOOR_UDP_H

#define NP_FLOOR_UDP_BURST_COUNT 64

int np_floor_udp_epoll(int fd, int stop_fd);

#endif
