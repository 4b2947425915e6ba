#include "mem/np_bufring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/np_assert.h"

NP_STATIC_ASSERT(sizeof(struct np_buf_entry) == 16, "struct io_uring_buf");
NP_STATIC_ASSERT(offsetof(struct np_buf_entry, tail) == 14, "struct io_uring_buf_ring.tail");

static uint8_t *base_of(const struct np_bufring *br, uint16_t bid)
{
    return br->mem->arena.base + (size_t)bid * br->buf_bytes;
}

uint8_t *np_bufring_at(const struct np_bufring *br, uint16_t bid)
{
    uint8_t *at = base_of(br, bid) + br->mem->bufs[bid].offset_bytes;
    np_arena_unpoison(at, br->buf_bytes - br->mem->bufs[bid].offset_bytes);
    return at;
}

static void publish(struct np_bufring *br, uint16_t bid)
{
    struct np_buf_entry *entry = &br->entries[br->tail & (br->count - 1)];
    uint8_t *base = base_of(br, bid);
    entry->addr = (uintptr_t)base;
    entry->len_bytes = br->buf_bytes;
    entry->bid = bid;
    br->mem->bufs[bid].offset_bytes = 0;
    br->tail++;
    /* Until a completion names it again nobody may read it. */
    np_arena_poison(base, br->buf_bytes);
}

static void publish_tail(struct np_bufring *br)
{
    /* Pairs with the kernel's acquire load of the tail (io_ring_buffer_select). */
    __atomic_store_n(&br->entries[0].tail, br->tail, __ATOMIC_RELEASE);
}

static void mem_unref(struct np_bufmem *mem)
{
    /* Acquire and release: whoever frees comes after everything that the others did. */
    if (atomic_fetch_sub_explicit(&mem->users_count, 1, memory_order_acq_rel) != 1)
        return;
    if (mem->arena.base) {
        np_arena_unpoison(mem->arena.base, mem->arena.size_bytes);
        np_arena_close(&mem->arena);
    }
    free(mem);
}

static int mem_open(struct np_bufring *br, uint32_t count, uint32_t buf_bytes)
{
    struct np_bufmem *mem = calloc(1, sizeof(*mem) + sizeof(mem->bufs[0]) * count);
    if (!mem)
        return -ENOMEM;
    br->mem = mem;
    mem->count = count;
    atomic_init(&mem->users_count, 1);
    for (uint32_t bid = 0; bid < count; bid++)
        mem->bufs[bid].mem = mem;
    return np_arena_open(&mem->arena, (size_t)count * buf_bytes, NP_ARENA_LADDER);
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
    br->retired = calloc(count, sizeof(*br->retired));
    if (!br->retired)
        goto fail;
    err = mem_open(br, count, buf_bytes);
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
    if (br->mem)
        mem_unref(br->mem);
    free(br->retired);
    if (br->entries)
        munmap(br->entries, br->entries_map_bytes);
    memset(br, 0, sizeof(*br));
}

uint8_t *np_bufring_consume(struct np_bufring *br, uint16_t bid, uint32_t len_bytes, int more)
{
    NP_ASSERT(bid < br->count);
    struct np_buf *buf = &br->mem->bufs[bid];
    NP_ASSERT(len_bytes <= br->buf_bytes - buf->offset_bytes);
    uint8_t *data = base_of(br, bid) + buf->offset_bytes;
    np_arena_unpoison(data, len_bytes);
    buf->offset_bytes += len_bytes;
    if (!more) {
        NP_ASSERT(br->retired_count < br->count);
        br->retired[br->retired_count++] = bid;
        br->head++;
    }
    return data;
}

int np_bufring_recycle(struct np_bufring *br)
{
    uint32_t waiting_count = br->retired_count;
    if (waiting_count == 0)
        return 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < waiting_count; i++) {
        uint16_t bid = br->retired[i];
        /* Pairs with the release in np_buf_release: the reader is done with the bytes. */
        if (atomic_load_explicit(&br->mem->bufs[bid].holds, memory_order_acquire))
            br->retired[kept++] = bid;
        else
            publish(br, bid);
    }
    br->retired_count = kept;
    if (kept != waiting_count)
        publish_tail(br);
    return (int)(waiting_count - kept);
}

int np_bufring_peek(struct np_bufring *br, uint32_t min_bytes, uint32_t *room_bytes)
{
    while (np_bufring_has_room(br)) {
        uint16_t bid = br->entries[br->head & (br->count - 1)].bid;
        *room_bytes = br->buf_bytes - br->mem->bufs[bid].offset_bytes;
        if (*room_bytes >= min_bytes)
            return bid;
        np_bufring_consume(br, bid, 0, 0);
    }
    return -1;
}

void np_bufring_rewind(struct np_bufring *br)
{
    if (!br->count || !np_bufring_has_room(br))
        return;
    struct np_buf *buf = &br->mem->bufs[br->entries[br->head & (br->count - 1)].bid];
    if (buf->offset_bytes && !atomic_load_explicit(&buf->holds, memory_order_acquire)) {
        np_arena_poison(br->mem->arena.base + (size_t)(buf - br->mem->bufs) * br->buf_bytes,
                        buf->offset_bytes);
        buf->offset_bytes = 0;
    }
}

void np_buf_release(struct np_buf *buf)
{
    struct np_bufmem *mem = buf->mem;
    uint32_t before = atomic_fetch_sub_explicit(&buf->holds, 1, memory_order_release);
    NP_ASSERT(before > 0);
    if (before == 1)
        mem_unref(mem);
}
