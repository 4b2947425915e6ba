/* np_compat.h - io_uring constants newer than the headers we build with.
 *
 * Purpose   The build needs only liburing 2.3 and the Linux 6.1 uapi; what later kernels added is
 *           spelled out here, once, with the version it came with (include/uapi/linux/io_uring.h).
 */
#ifndef NP_COMPAT_H
#define NP_COMPAT_H

#include <stdint.h>

/* Linux 6.10: one completion can stand for several buffers. */
#define NP_IORING_FEAT_RECVSEND_BUNDLE (1u << 14)

/* Linux 6.12: a buffer of the ring is consumed piece by piece. */
#define NP_IOU_PBUF_RING_INC 2u
#define NP_IORING_CQE_F_BUF_MORE (1u << 4)

/* Linux 6.2: the notification of a zero-copy send says whether the bytes were copied after all. */
#define NP_IORING_SEND_ZC_REPORT_USAGE (1u << 3)
#define NP_IORING_NOTIF_USAGE_ZC_COPIED (1u << 31)

/* Linux 6.15: a wait that /proc/stat does not count as waiting for a disk. */
#define NP_IORING_FEAT_NO_IOWAIT (1u << 17)
#define NP_IORING_ENTER_NO_IOWAIT (1u << 7)

/* struct io_uring_buf_reg since 6.4: `pad` became `flags`. Same size, same offset. */
struct np_buf_reg {
    uint64_t ring_addr;
    uint32_t ring_entries;
    uint16_t bgid;
    uint16_t flags;
    uint64_t resv[3];
};

#endif
