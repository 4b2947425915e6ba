/* np_uring_regions.c - registered memory: a zero-copy send out of it need not pin its pages.
 *
 * A region that was detached keeps its number until the kernel has let go of it: the completion
 * with its tag says so (io_uring_register_buffers_update_tag(3)).
 */
#include <errno.h>

#include "io/uring/np_uring.h"

static int register_region(struct np_uring *u, uint32_t index, const void *base, size_t size_bytes)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)base, .iov_len = size_bytes};
    __u64 tag = size_bytes ? np_udata_pack(NP_UDATA_REGION_KIND, index, 1) : 0;
    int n = io_uring_register_buffers_update_tag(&u->ring, index, &iov, &tag, 1);
    return n < 0 ? n : n == 1 ? 0 : -EINVAL;
}

static int open_regions(struct np_uring *u)
{
    if (u->regions_open)
        return 0;
    int err = io_uring_register_buffers_sparse(&u->ring, NP_REGIONS_MAX_COUNT);
    u->regions_open = err >= 0;
    return err < 0 ? err : 0;
}

static int attach_region(struct np_uring *u, const uint8_t *base, size_t size_bytes)
{
    struct np_backend_head *head = &u->head;
    uint32_t index = 0;
    while (index < head->regions_used &&
           (head->regions[index].size_bytes || head->regions[index].is_releasing))
        index++;
    if (index == NP_REGIONS_MAX_COUNT)
        return -ENOSPC;
    int err = register_region(u, index, base, size_bytes);
    if (err < 0)
        return err;
    head->regions[index] = (struct np_region){.base = base, .size_bytes = size_bytes};
    if (index == head->regions_used)
        head->regions_used++;
    return 0;
}

static int detach(struct np_uring *u, const uint8_t *base, size_t size_bytes)
{
    struct np_backend_head *head = &u->head;
    int result = -ENOENT;
    for (uint32_t i = 0; i < head->regions_used; i++) {
        struct np_region *region = &head->regions[i];
        if (!region->size_bytes || (uintptr_t)region->base - (uintptr_t)base >= size_bytes)
            continue;
        int err = register_region(u, i, NULL, 0);
        if (err < 0)
            return err;
        *region = (struct np_region){.is_releasing = 1};
        result = 0;
    }
    return result;
}

static int attach(struct np_uring *u, const uint8_t *base, size_t size_bytes)
{
    const uint8_t *at = base;
    if (!(u->head.features & NP_FEATURE_ZC_FIXED))
        return -EOPNOTSUPP;
    int err = open_regions(u);
    for (size_t left_bytes = size_bytes; err == 0 && left_bytes;) {
        size_t piece_bytes = left_bytes < NP_REGION_MAX_BYTES ? left_bytes : NP_REGION_MAX_BYTES;
        err = attach_region(u, at, piece_bytes);
        if (err == 0) {
            at += piece_bytes;
            left_bytes -= piece_bytes;
        }
    }
    if (err < 0 && at != base)
        detach(u, base, (size_t)(at - base));
    return err;
}

int np_uring_attach(struct np_backend *be, void *base, size_t size_bytes, int how)
{
    struct np_uring *u = np_uring_self(be);
    if (u->head.is_abandoned)
        return -EPERM;
    return how == NP_ATTACH_ON ? attach(u, base, size_bytes) : detach(u, base, size_bytes);
}

void np_uring_region_released(struct np_uring *u, np_udata tag)
{
    uint32_t index = np_udata_slot(tag);
    NP_ASSERT(index < u->head.regions_used);
    u->head.regions[index].is_releasing = 0;
}

/* What the new ring refuses (RLIMIT_MEMLOCK: the old one's share may not be given back yet) is just
 * not registered any more; sends out of it go on as from any memory. */
void np_uring_move_regions(struct np_uring *u)
{
    u->regions_open = false;
    bool refused = np_regions_live(&u->head) > 0 && open_regions(u) < 0;
    for (uint32_t i = 0; i < u->head.regions_used; i++) {
        struct np_region *region = &u->head.regions[i];
        region->is_releasing = 0;
        if (!region->size_bytes)
            continue;
        if (refused || register_region(u, i, region->base, region->size_bytes) < 0)
            region->size_bytes = 0;
    }
}
