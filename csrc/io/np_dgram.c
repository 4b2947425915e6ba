#define _GNU_SOURCE /* recvmmsg, sendmmsg */
#include "io/np_dgram.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "mem/np_arena.h"
#include "base/np_assert.h"
#include "base/np_refused.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* Linux 4.18, include/uapi/linux/udp.h */
#endif
#ifndef UDP_GRO
#define UDP_GRO 104 /* Linux 5.0 */
#endif

/* From the start of one datagram's memory to the next one's. Not a power of two: small datagrams
 * would all fall into the same sets of the caches. 33 cache lines visit every set of them. */
#define STRIDE_BYTES (NP_DGRAM_MAX_BYTES + 33 * 64)

union gro_control { /* what UDP_GRO says about a message */
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

union gso_control { /* UDP_SEGMENT for one message */
    char space[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr align;
};

struct np_dgram_in {
    struct np_arena arena;
    int used_count; /* of the last receive: their headers were written by the kernel */
    int gro;
    bool is_one_by_one; /* recvmmsg is refused here */
    struct mmsghdr messages[NP_DGRAM_BURST_COUNT];
    struct iovec pieces[NP_DGRAM_BURST_COUNT];
    struct sockaddr_storage names[NP_DGRAM_BURST_COUNT];
    union gro_control controls[NP_DGRAM_BURST_COUNT];
};

/* ---- receiving ---- */

struct np_dgram_in *np_dgram_in_open(void)
{
    struct np_dgram_in *in = calloc(1, sizeof(*in));
    if (!in)
        return NULL;
    /* Plain pages: a huge one for each slot would make a few small datagrams cost 16 MiB. */
    if (np_arena_open(&in->arena, (size_t)STRIDE_BYTES * NP_DGRAM_BURST_COUNT,
                      NP_ARENA_PLAIN_ONLY) < 0) {
        free(in);
        return NULL;
    }
    for (int i = 0; i < NP_DGRAM_BURST_COUNT; i++) {
        in->pieces[i] = (struct iovec){in->arena.base + (size_t)i * STRIDE_BYTES,
                                       NP_DGRAM_MAX_BYTES};
        in->messages[i].msg_hdr = (struct msghdr){
            .msg_name = &in->names[i], .msg_iov = &in->pieces[i], .msg_iovlen = 1};
    }
    in->used_count = NP_DGRAM_BURST_COUNT; /* all lengths are still to be set */
    return in;
}

void np_dgram_in_close(struct np_dgram_in *in)
{
    if (!in)
        return;
    np_arena_close(&in->arena);
    free(in);
}

/* The kernel overwrites the lengths of what it fills: only those are set again. */
static void reset_headers(struct np_dgram_in *in, int gro)
{
    if (gro != in->gro)
        in->used_count = NP_DGRAM_BURST_COUNT;
    in->gro = gro;
    for (int i = 0; i < in->used_count; i++) {
        struct msghdr *hdr = &in->messages[i].msg_hdr;
        hdr->msg_namelen = sizeof(in->names[i]);
        hdr->msg_control = gro ? &in->controls[i] : NULL;
        hdr->msg_controllen = gro ? sizeof(in->controls[i]) : 0;
    }
    in->used_count = 0;
}

/* recvmmsg, or recvmsg of one where that is refused. -errno or a count. */
static int receive(struct np_dgram_in *in, int fd, int max_count)
{
    if (!in->is_one_by_one) {
        int n = recvmmsg(fd, in->messages, (unsigned)max_count, MSG_DONTWAIT, NULL);
        if (n >= 0 || !np_is_refused(errno))
            return n < 0 ? -errno : n;
        int err = -errno; /* of the socket, which has forgotten it now, or of a filter */
        if (recvmmsg(-1, NULL, 0, 0, NULL) == 0 || !np_is_refused(errno))
            return err;
        in->is_one_by_one = true;
    }
    ssize_t len = recvmsg(fd, &in->messages[0].msg_hdr, MSG_DONTWAIT);
    if (len < 0)
        return -errno;
    in->messages[0].msg_len = (unsigned)len;
    return 1;
}

int np_dgram_recv(struct np_dgram_in *in, int fd, int max_count, int gro)
{
    NP_ASSERT(max_count > 0);
    NP_ASSERT(max_count <= NP_DGRAM_BURST_COUNT);
    reset_headers(in, gro);
    int n;
    do {
        n = receive(in, fd, max_count);
    } while (n == -EINTR);
    if (n < 0) {
        in->used_count = 1; /* a failed call may have written the first one's */
        return n;
    }
    /* One more than were taken: the attempt that found nothing may have written its header. */
    in->used_count = n < NP_DGRAM_BURST_COUNT ? n + 1 : n;
    return n;
}

static uint32_t segment_of(struct msghdr *hdr)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c)) {
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int bytes;
            memcpy(&bytes, CMSG_DATA(c), sizeof(bytes));
            return bytes > 0 ? (uint32_t)bytes : 0;
        }
    }
    return 0;
}

void np_dgram_at(const struct np_dgram_in *in, int index, struct np_dgram *out)
{
    struct mmsghdr message = in->messages[index];
    out->data = in->pieces[index].iov_base;
    out->len_bytes = message.msg_len;
    out->name = (const struct sockaddr *)&in->names[index];
    out->name_bytes = message.msg_hdr.msg_namelen;
    out->segment_bytes = in->gro ? segment_of(&message.msg_hdr) : 0;
    if (out->segment_bytes >= out->len_bytes)
        out->segment_bytes = 0; /* one datagram after all */
}

int np_dgram_has_gro(int fd)
{
    int on = 0;
    socklen_t len = sizeof(on);
    return getsockopt(fd, SOL_UDP, UDP_GRO, &on, &len) == 0 && on;
}

/* ---- sending ---- */

struct batch { /* one sendmmsg in the making */
    struct mmsghdr messages[NP_DGRAM_BURST_COUNT];
    struct iovec pieces[NP_DGRAM_BURST_COUNT];
    union gso_control controls[NP_DGRAM_BURST_COUNT];
    int counts[NP_DGRAM_BURST_COUNT]; /* datagrams in each message */
    int messages_count;
};

uint32_t np_dgram_gso_max_bytes(int fd)
{
    int bytes = 0;
    socklen_t len = sizeof(bytes);
    if (getsockopt(fd, SOL_UDP, UDP_SEGMENT, &bytes, &len) < 0)
        return 0;                                        /* not UDP, or an older kernel */
    return bytes ? 0 : NP_DGRAM_SEGMENTED_MAX_BYTES / 2; /* the user's own segments stay his */
}

/* How many datagrams from the first on can be one segmented message: at least 1. */
static int run_of(const struct np_dgram_out *out, int count, uint32_t gso_max_bytes)
{
    uint32_t bytes = out[0].len_bytes;
    if (bytes == 0 || bytes > gso_max_bytes)
        return 1;
    uint32_t total = bytes;
    int n = 1;
    while (n < count && n < NP_DGRAM_SEGMENTS_MAX_COUNT && out[n].name == out[0].name &&
           out[n].len_bytes <= bytes && out[n].len_bytes > 0 &&
           total + out[n].len_bytes <= NP_DGRAM_SEGMENTED_MAX_BYTES) {
        total += out[n].len_bytes;
        n++;
        if (out[n - 1].len_bytes < bytes)
            break; /* only the last one may be shorter */
    }
    return n;
}

static void set_segment(struct msghdr *hdr, union gso_control *control, uint16_t segment_bytes)
{
    *control = (union gso_control){0}; /* the kernel copies what lies behind the number, too */
    hdr->msg_control = control;
    hdr->msg_controllen = sizeof(*control);
    struct cmsghdr *c = CMSG_FIRSTHDR(hdr);
    c->cmsg_level = SOL_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof(segment_bytes));
    memcpy(CMSG_DATA(c), &segment_bytes, sizeof(segment_bytes));
}

static void fill(struct batch *batch, const struct np_dgram_out *out, int count,
                 uint32_t gso_max_bytes)
{
    batch->messages_count = 0;
    for (int i = 0; i < count;) {
        int n = run_of(out + i, count - i, gso_max_bytes);
        int m = batch->messages_count++;
        struct msghdr *hdr = &batch->messages[m].msg_hdr;
        for (int j = i; j < i + n; j++)
            batch->pieces[j] = (struct iovec){(void *)out[j].data, out[j].len_bytes};
        *hdr = (struct msghdr){.msg_name = (void *)out[i].name,
                               .msg_namelen = out[i].name_bytes,
                               .msg_iov = &batch->pieces[i],
                               .msg_iovlen = (size_t)n};
        if (n > 1)
            set_segment(hdr, &batch->controls[m], (uint16_t)out[i].len_bytes);
        batch->counts[m] = n;
        i += n;
    }
}

/* The kernel's reasons not to segment: too long for the route's packets, no checksums in the
 * device, no such option. */
static bool is_gso_refusal(int err)
{
    return err == -EINVAL || err == -EIO || err == -EMSGSIZE || err == -EOPNOTSUPP;
}

/* sendmmsg, or sendmsg of the first where that is refused. -errno or a count of messages. */
static int send_batch(struct batch *batch, int fd)
{
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    int n = sendmmsg(fd, batch->messages, (unsigned)batch->messages_count, flags);
    if (NP_LIKELY(n >= 0) || !np_is_refused(errno))
        return n < 0 ? -errno : n;
    int err = -errno; /* of the socket, which may have forgotten it now, or of a filter */
    if (sendmmsg(-1, NULL, 0, 0) == 0 || !np_is_refused(errno))
        return err;
    return sendmsg(fd, &batch->messages[0].msg_hdr, flags) < 0 ? -errno : 1;
}

int np_dgram_send(int fd, const struct np_dgram_out *out, int count, uint32_t *gso_max_bytes)
{
    struct batch batch;
    NP_ASSERT(count <= NP_DGRAM_BURST_COUNT);
    if (count == 0)
        return 0;
    for (;;) {
        fill(&batch, out, count, *gso_max_bytes);
        int n = send_batch(&batch, fd);
        if (n > 0) {
            int left_count = 0;
            for (int m = 0; m < n; m++)
                left_count += batch.counts[m];
            return left_count;
        }
        if (n == -EINTR)
            continue;
        if (batch.counts[0] == 1 || !is_gso_refusal(n))
            return n;
        *gso_max_bytes = out[0].len_bytes - 1; /* shorter ones may still go */
    }
}
