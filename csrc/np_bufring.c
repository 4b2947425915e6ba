#include "np_bufring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "np_assert.h"

NP_STATIC_ASSERT(sizeof(struct np_buf_entry) == 16, "struct io_uring_buf");
NP_STATIC_ASSERT(offsetof(struct np_buf_entry, tail) == 14, "struct io_uring_buf_ring.tail");

static void publish(struct np_bufring *br, uint16_t bid)
{
    struct np_buf_entry *entry = &br->entries[br->tail & (br->count - 1)];
    uint8_t *base = br->arena.base + (size_t)bid * br->buf_bytes;
    entry->addr = (uintptr_t)base;
    entry->len_bytes = br->buf_bytes;
    entry->bid = bid;
    br->offsets_bytes[bid] = 0;
    br->tail++;
    /* Until a completion names it again nobody may read it. */
    np_arena_poison(base, br->buf_bytes);
}

static void publish_tail(struct np_bufring *br)
{
    /* Pairs with the kernel's acquire load of the tail (io_ring_buffer_select). */
    __atomic_store_n(&br->entries[0].tail, br->tail, __ATOMIC_RELEASE);
}

int np_bufring_open(struct np_bufring *br, uint32_t count, uint32_t buf_bytes)
{
    int err = -ENOMEM;
    memset(br, 0, sizeof(*br));
    NP_ASSERT(count > 0);
    NP_ASSERT(count <= 32768);
    NP_ASSERT((count & (count - 1)) == 0);
    br->count = count;
    br->buf_bytes = buf_bytes;
    br->entries_map_bytes = sizeof(struct np_buf_entry) * count;
    br->entries = mmap(NULL, br->entries_map_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (br->entries == MAP_FAILED) {
        br->entries = NULL;
        goto fail;
    }
    br->offsets_bytes = calloc(count, sizeof(*br->offsets_bytes));
    br->retired = calloc(count, sizeof(*br->retired));
    if (!br->offsets_bytes || !br->retired)
        goto fail;
    err = np_arena_open(&br->arena, (size_t)count * buf_bytes, NP_ARENA_LADDER);
    if (err < 0)
        goto fail;
    for (uint32_t bid = 0; bid < count; bid++)
        publish(br, (uint16_t)bid);
    publish_tail(br);
    return 0;
fail:
    np_bufring_close(br);
    return err;
}

void np_bufring_close(struct np_bufring *br)
{
    if (br->arena.base) {
        np_arena_unpoison(br->arena.base, br->arena.size_bytes);
        np_arena_close(&br->arena);
    }
    free(br->retired);
    free(br->offsets_bytes);
    if (br->entries)
        munmap(br->entries, br->entries_map_bytes);
    memset(br, 0, sizeof(*br));
}

uint8_t *np_bufring_consume(struct np_bufring *br, uint16_t bid, uint32_t len_bytes, int more)
{
    NP_ASSERT(bid < br->count);
    uint32_t offset = br->offsets_bytes[bid];
    NP_ASSERT(len_bytes <= br->buf_bytes - offset);
    uint8_t *data = br->arena.base + (size_t)bid * br->buf_bytes + offset;
    np_arena_unpoison(data, len_bytes);
    br->offsets_bytes[bid] = offset + len_bytes;
    if (!more) {
        NP_ASSERT(br->retired_count < br->count);
        br->retired[br->retired_count++] = bid;
    }
    return data;
}

int np_bufring_recycle(struct np_bufring *br)
{
    uint32_t n = br->retired_count;
    if (n == 0)
        return 0;
    for (uint32_t i = 0; i < n; i++)
        publish(br, br->retired[i]);
    br->retired_count = 0;
    publish_tail(br);
    return (int)n;
}
