/* np_dgram.h - datagrams in bursts: many per system call, received and sent.
 *
 * Purpose   recvmmsg(2) into memory that the sockets of a loop share, sendmmsg(2) of what a turn
 *           has written. On Linux with UDP_SEGMENT (4.18) a run of equally long datagrams to one
 *           address leaves as one message that the kernel cuts up (GSO); with UDP_GRO (5.0), when
 *           the user has set it on the socket, several that came together are one message here.
 * Model     Direct calls on a nonblocking socket, once a POLL has said that it is ready, on both
 *           backends: the kernel never holds this memory between two calls, so there is nothing to
 *           cancel, to wait for at close, or to share with a forked child. Measured against
 *           multishot recvmsg and send operations on io_uring: benchmarks/NEGATIVE.md.
 * Ownership np_dgram_in owns its memory; what a receive found there stays until the next one.
 *           A send reads its memory during the call only.
 * Errors    -errno or a count >= 0. EINTR is retried: these calls do not wait.
 * Threads   One np_dgram_in: one thread at a time.
 */
#ifndef NP_DGRAM_H
#define NP_DGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/np_limits.h"

/* One received message. segment_bytes > 0: several datagrams of this length, the last may be
 * shorter (UDP_GRO). */
struct np_dgram {
    const uint8_t *data;
    uint32_t len_bytes;
    uint32_t segment_bytes;
    const struct sockaddr *name;
    uint32_t name_bytes; /* 0: the sender has no name */
};

struct np_dgram_in;

/* NULL without memory. Address space for NP_DGRAM_BURST_COUNT datagrams of the largest size; real
 * memory is taken as it is used. */
struct np_dgram_in *np_dgram_in_open(void);
void np_dgram_in_close(struct np_dgram_in *in);
/* Takes at most max_count (<= NP_DGRAM_BURST_COUNT) messages; `gro`: look for UDP_GRO's segments.
 * Returns their number, or -errno: -EAGAIN when there is none, else an error of the socket. */
int np_dgram_recv(struct np_dgram_in *in, int fd, int max_count, int gro);
/* Message `index` of the last receive. */
void np_dgram_at(const struct np_dgram_in *in, int index, struct np_dgram *out);

/* One datagram to send. name NULL: to where the socket is connected. */
struct np_dgram_out {
    const void *data;
    uint32_t len_bytes;
    uint32_t name_bytes;
    const struct sockaddr *name;
};

/* Sends at most `count` (<= NP_DGRAM_BURST_COUNT) in order. Returns how many left, 0 when count is
 * 0; -errno (of the first) when none did: -EAGAIN when the socket is full.
 * *gso_max_bytes: datagrams up to this length are sent as segmented runs; lowered to 0 or below the
 * length that the kernel refused, so that it is not tried again. Names are compared by pointer:
 * give equal addresses the same one. */
int np_dgram_send(int fd, const struct np_dgram_out *out, int count, uint32_t *gso_max_bytes);
/* What *gso_max_bytes starts with: 0 where the kernel or the socket has no UDP_SEGMENT. */
uint32_t np_dgram_gso_max_bytes(int fd);
/* 1 when the socket has UDP_GRO set. */
int np_dgram_has_gro(int fd);

#endif
