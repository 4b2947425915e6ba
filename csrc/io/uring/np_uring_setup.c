/* np_uring_setup.c - opens a ring, and the receive buffers that are registered with it.
 *
 * Both are made more than once in the life of a loop that moves to another thread. See
 * io_uring_setup(2) for the flags: SINGLE_ISSUER + DEFER_TASKRUN, or SQPOLL.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/np_compat.h"
#include "io/uring/np_uring.h"

/* io_uring_setup; waits a little for memory of closed rings, see NP_RING_RETRY_NS. */
static int ring_setup(struct np_uring *u, struct io_uring_params *params)
{
    const struct timespec pause = {.tv_nsec = NP_RING_RETRY_NS};
    for (int retries = 0;; retries++) {
        memset(params, 0, sizeof(*params));
        params->flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
                        IORING_SETUP_SUBMIT_ALL;
        if (np_uring_is_polled(u))
            params->flags |= IORING_SETUP_SQPOLL;
        else
            params->flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                             IORING_SETUP_TASKRUN_FLAG;
        params->sq_thread_idle = u->config.sqpoll_idle_ms;
        params->cq_entries = u->config.cq_entries;
        int err = io_uring_queue_init_params(u->config.sq_entries, &u->ring, params);
        if (err != -ENOMEM || retries == NP_RING_RETRY_MAX_COUNT)
            return err;
        nanosleep(&pause, NULL);
    }
}

int np_uring_ring_open(struct np_uring *u)
{
    struct io_uring_params params;
    int err = ring_setup(u, &params);
    if (err < 0)
        return err;
    u->ring_open = true;
    u->owner_tid = 0;
    u->wake_armed = false;
    if (!(params.features & IORING_FEAT_EXT_ARG) || !(params.features & IORING_FEAT_NODROP))
        return -ENOSYS;
    if (!(params.features & NP_IORING_FEAT_NO_IOWAIT))
        u->head.features &= ~(uint32_t)NP_FEATURE_NO_IOWAIT;
    return 0;
}

static int bufs_open_as(struct np_uring *u, bool incremental)
{
    uint32_t count = incremental ? NP_BUF_DEFAULT_COUNT : NP_BUF_WHOLE_COUNT;
    uint32_t bytes = incremental ? NP_BUF_DEFAULT_BYTES : NP_BUF_WHOLE_BYTES;
    int err = np_bufring_open(&u->head.bufs, u->config.buf_count ? u->config.buf_count : count,
                              u->config.buf_bytes ? u->config.buf_bytes : bytes);
    if (err < 0)
        return err;
    struct np_buf_reg reg;
    memset(&reg, 0, sizeof(reg));
    reg.ring_addr = (uintptr_t)u->head.bufs.entries;
    reg.ring_entries = u->head.bufs.count;
    reg.bgid = NP_URING_BUF_GROUP;
    reg.flags = incremental ? NP_IOU_PBUF_RING_INC : 0;
    err = io_uring_register_buf_ring(&u->ring, (struct io_uring_buf_reg *)&reg, 0);
    if (err < 0) {
        np_bufring_close(&u->head.bufs);
        return err;
    }
    u->head.features |= NP_FEATURE_BUF_RING | (incremental ? NP_FEATURE_BUF_INC : 0);
    return 0;
}

/* Incremental buffers where the kernel has them (few and large), else whole ones (many, small). */
int np_uring_bufs_open(struct np_uring *u)
{
    if (!(u->config.features_off & NP_FEATURE_BUF_INC)) {
        int err = bufs_open_as(u, true);
        if (err != -EINVAL)
            return err;
    }
    return bufs_open_as(u, false);
}
