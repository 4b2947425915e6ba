/* fuzz_bufring.c - receive buffers beside a list of who may read what.
 *
 * An input is a list of steps of a loop: bytes arrive, as io_uring or as epoll puts them there,
 * their readers hold them and let go, buffers are published again, and at last the ring is closed
 * under the readers. Every byte that somebody may still read has to be what it was, after each
 * step.
 */
#include "np_fuzz.h"

#include "mem/np_bufring.h"

enum { BUFS_COUNT = 4, BUF_BYTES = 256, REGIONS_MAX_COUNT = 128, STAMP = 31 };

/* Received bytes that may be read. */
struct region {
    const uint8_t *at;
    uint32_t bytes;
    uint16_t bid;
    uint8_t stamp;
};

struct model {
    struct np_bufring ring;
    uint32_t offsets[BUFS_COUNT], holds[BUFS_COUNT];
    uint16_t order[BUFS_COUNT];   /* the buffers to fill, the present one first */
    uint16_t retired[BUFS_COUNT]; /* the others, in the order of their retirement */
    uint32_t order_count, retired_count;
    struct region regions[REGIONS_MAX_COUNT];
    uint32_t regions_count;
    uint8_t next_stamp;
};

static void check_regions(const struct model *model)
{
    for (uint32_t i = 0; i < model->regions_count; i++)
        for (uint32_t j = 0; j < model->regions[i].bytes; j++)
            NP_ASSERT(model->regions[i].at[j] == (uint8_t)(model->regions[i].stamp + j * STAMP));
}

/* Nobody may read the bytes of this buffer any more. */
static void forget(struct model *model, uint16_t bid)
{
    uint32_t kept = 0;
    NP_ASSERT(model->holds[bid] == 0);
    for (uint32_t i = 0; i < model->regions_count; i++)
        if (model->regions[i].bid != bid)
            model->regions[kept++] = model->regions[i];
    model->regions_count = kept;
    model->offsets[bid] = 0;
}

static void retire(struct model *model)
{
    model->retired[model->retired_count++] = model->order[0];
    model->order_count--;
    memmove(model->order, model->order + 1, model->order_count * sizeof(model->order[0]));
}

/* `bytes` arrive in the present buffer. */
static void fill(struct model *model, uint32_t bytes, int more)
{
    uint16_t bid = model->order[0];
    uint8_t *base = model->ring.mem->arena.base + bid * BUF_BYTES, *at = base + model->offsets[bid];
    struct region region = {at, bytes, bid, model->next_stamp += 7};
    NP_ASSERT(np_bufring_at(&model->ring, bid) == at);
    for (uint32_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(region.stamp + i * STAMP);
    NP_ASSERT(np_bufring_consume(&model->ring, bid, bytes, more) == at);
    model->offsets[bid] += bytes;
    if (bytes && model->regions_count < REGIONS_MAX_COUNT)
        model->regions[model->regions_count++] = region;
    if (!more)
        retire(model);
}

/* As io_uring does it: the next entry of the ring, and the whole of it at last. */
static void arrive_by_kernel(struct model *model, struct np_fuzz *fuzz)
{
    const struct np_bufring *ring = &model->ring;
    if (model->order_count == 0)
        return;
    uint16_t head = (uint16_t)(ring->tail - model->order_count);
    const struct np_buf_entry *entry = &ring->entries[head & (BUFS_COUNT - 1)];
    NP_ASSERT(entry->bid == model->order[0] && entry->len_bytes == BUF_BYTES);
    NP_ASSERT(entry->addr == (uintptr_t)(ring->mem->arena.base + entry->bid * BUF_BYTES));
    uint32_t room = BUF_BYTES - model->offsets[entry->bid];
    uint32_t bytes = np_fuzz_below(fuzz, room + 1);
    fill(model, bytes, bytes < room && np_fuzz_below(fuzz, 4) != 0);
}

static void arrive_by_epoll(struct model *model, struct np_fuzz *fuzz)
{
    uint32_t min = 1 + np_fuzz_below(fuzz, BUF_BYTES), room = 0;
    int bid = np_bufring_peek(&model->ring, min, &room);
    while (model->order_count && BUF_BYTES - model->offsets[model->order[0]] < min)
        retire(model);
    NP_ASSERT(bid == (model->order_count ? model->order[0] : -1));
    if (bid < 0)
        return;
    NP_ASSERT(room == BUF_BYTES - model->offsets[bid]);
    uint32_t bytes = np_fuzz_below(fuzz, room + 1);
    fill(model, bytes, room - bytes >= min);
}

static void hold(struct model *model, struct np_fuzz *fuzz)
{
    if (model->regions_count == 0)
        return;
    uint16_t bid = model->regions[np_fuzz_below(fuzz, model->regions_count)].bid;
    np_buf_hold(np_bufring_buf(&model->ring, bid));
    model->holds[bid]++;
}

static void release(struct model *model, struct np_buf *bufs, uint16_t bid)
{
    if (model->holds[bid] == 0)
        return;
    model->holds[bid]--;
    np_buf_release(&bufs[bid]);
}

static void recycle(struct model *model)
{
    uint32_t published = 0, kept = 0;
    for (uint32_t i = 0; i < model->retired_count; i++) {
        uint16_t bid = model->retired[i];
        if (model->holds[bid]) {
            model->retired[kept++] = bid;
            continue;
        }
        forget(model, bid);
        model->order[model->order_count++] = bid;
        published++;
    }
    model->retired_count = kept;
    NP_ASSERT(np_bufring_recycle(&model->ring) == (int)published);
}

static void rewind_ring(struct model *model)
{
    np_bufring_rewind(&model->ring);
    if (model->order_count && model->holds[model->order[0]] == 0)
        forget(model, model->order[0]);
}

static void check(const struct model *model)
{
    const struct np_bufring *ring = &model->ring;
    NP_ASSERT(np_bufring_free_count(ring) == model->order_count);
    NP_ASSERT(np_bufring_has_room(ring) == (model->order_count > 0));
    NP_ASSERT(ring->entries[0].tail == ring->tail);
    for (uint16_t bid = 0; bid < BUFS_COUNT; bid++) {
        const struct np_buf *buf = np_bufring_buf(ring, bid);
        NP_ASSERT(atomic_load(&buf->holds) == model->holds[bid]);
        NP_ASSERT(buf->offset_bytes == model->offsets[bid]);
    }
    check_regions(model);
}

/* The ring goes; what is held stays, until the last of it is let go of. */
static void close_ring(struct model *model)
{
    struct np_buf *bufs = model->ring.mem->bufs;
    for (uint16_t bid = 0; bid < BUFS_COUNT; bid++)
        if (model->holds[bid] == 0)
            forget(model, bid);
    np_bufring_close(&model->ring);
    for (uint16_t bid = 0; bid < BUFS_COUNT; bid++)
        while (model->holds[bid]) {
            check_regions(model);
            if (model->holds[bid] > 1) {
                release(model, bufs, bid);
                continue;
            }
            uint32_t left = 0;
            for (uint16_t other = 0; other < BUFS_COUNT; other++)
                left += model->holds[other];
            release(model, bufs, bid);
            forget(model, bid);
            if (left == 1)
                return; /* with the last one its memory went, and `bufs` */
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    struct model model = {.order_count = BUFS_COUNT};
    struct np_fuzz fuzz = np_fuzz_of(input, bytes);
    int is_epoll = np_fuzz_byte(&fuzz) & 1;
    NP_ASSERT(np_bufring_open(&model.ring, BUFS_COUNT, BUF_BYTES) == 0);
    for (uint16_t bid = 0; bid < BUFS_COUNT; bid++)
        model.order[bid] = bid;
    while (np_fuzz_left(&fuzz)) {
        switch (np_fuzz_below(&fuzz, 8)) {
        case 0:
            hold(&model, &fuzz);
            break;
        case 1:
        case 2:
            release(&model, model.ring.mem->bufs, (uint16_t)np_fuzz_below(&fuzz, BUFS_COUNT));
            break;
        case 3:
            recycle(&model);
            break;
        case 4:
            if (is_epoll) {
                rewind_ring(&model);
                break;
            }
            /* fall through */
        default:
            if (is_epoll)
                arrive_by_epoll(&model, &fuzz);
            else
                arrive_by_kernel(&model, &fuzz);
        }
        check(&model);
    }
    close_ring(&model);
    return 0;
}
