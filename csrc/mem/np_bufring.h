/* np_bufring.h - the receive buffers of a loop, and who holds each of them.
 *
 * Purpose   Memory and book-keeping of the buffers that received bytes arrive in: how far each is
 *           consumed, who still reads it, which ones may be filled again. io_uring picks from them
 *           as a provided-buffer ring (io_uring_register_buf_ring(3)); epoll takes them in the
 *           same order with np_bufring_peek.
 * Model     A buffer belongs to the kernel until a completion names it and does not say that more
 *           of it will be used (IORING_CQE_F_BUF_MORE). Then it is retired: its bytes may be read
 *           until the next harvest, and for as long as somebody holds it. np_bufring_recycle
 *           publishes again what nobody holds.
 * Ownership The arena owns the memory; this file owns the ring of entries and the offsets. A hold
 *           keeps the memory beyond np_bufring_close: the last release frees it.
 * Not here  System calls: np_uring registers the ring.
 * Threads   The loop's thread only; np_buf_release from any thread.
 */
#ifndef NP_BUFRING_H
#define NP_BUFRING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/np_arena.h"

struct np_buf_entry { /* the kernel's struct io_uring_buf */
    uint64_t addr;
    uint32_t len_bytes;
    uint16_t bid;
    uint16_t tail; /* of entry 0: the ring's tail, shared with the kernel */
};

struct np_bufmem;

struct np_buf { /* one buffer: what a holder has in its hands */
    struct np_bufmem *mem;
    _Atomic(uint32_t) holds;
    uint32_t offset_bytes; /* consumed so far */
};

struct np_bufmem { /* lives as long as the ring or any hold */
    struct np_arena arena;
    _Atomic(uint32_t) users_count; /* the ring, and each buffer that is held: 0 frees all of it */
    uint32_t count;
    struct np_buf bufs[];
};

struct np_bufring {
    struct np_buf_entry *entries; /* page aligned, count of them */
    size_t entries_map_bytes;
    struct np_bufmem *mem;
    uint16_t *retired;      /* buffer numbers waiting to be published again */
    uint32_t retired_count; /* after a recycle: those that somebody holds */
    uint32_t count;         /* power of two, at most 32768 */
    uint32_t buf_bytes;
    uint16_t tail;
    uint16_t head; /* np_bufring_peek: the entry that is being filled */
};

/* 0 or -errno. All buffers are published at once. */
int np_bufring_open(struct np_bufring *br, uint32_t count, uint32_t buf_bytes);
void np_bufring_close(struct np_bufring *br);
/* The kernel put `len_bytes` into buffer `bid`; `more` when it will use the rest of it later.
 * Returns where they are. */
uint8_t *np_bufring_consume(struct np_bufring *br, uint16_t bid, uint32_t len_bytes, int more);
/* Publishes the retired buffers that nobody holds; returns how many. Every pointer handed out for
 * them dies. */
int np_bufring_recycle(struct np_bufring *br);
/* Buffers that are not retired. */
static inline uint32_t np_bufring_free_count(const struct np_bufring *br)
{
    return br->count - br->retired_count;
}

/* Whether the kernel has a buffer to fill. */
static inline int np_bufring_has_room(const struct np_bufring *br)
{
    return br->retired_count < br->count;
}

/* Without a kernel that picks: where the next bytes go, at least `min_bytes` of room (at most
 * buf_bytes). Returns the buffer's number and its room, or -1: all are retired. What is filled is
 * told to np_bufring_consume, with `more` set while min_bytes more will fit. */
int np_bufring_peek(struct np_bufring *br, uint32_t min_bytes, uint32_t *room_bytes);
uint8_t *np_bufring_at(const struct np_bufring *br, uint16_t bid);
/* Between two turns: the buffer being filled starts over if nobody holds it, so that few bytes
 * stay in the cache instead of all buffers passing through it. */
void np_bufring_rewind(struct np_bufring *br);

/* What a reader of buffer `bid` holds. */
static inline struct np_buf *np_bufring_buf(const struct np_bufring *br, uint16_t bid)
{
    return &br->mem->bufs[bid];
}

/* Only the loop's thread takes the first hold; who has one may take another. */
static inline void np_buf_hold(struct np_buf *buf)
{
    if (atomic_fetch_add_explicit(&buf->holds, 1, memory_order_relaxed) == 0)
        atomic_fetch_add_explicit(&buf->mem->users_count, 1, memory_order_relaxed);
}

void np_buf_release(struct np_buf *buf);

#endif
