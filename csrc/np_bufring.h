/* np_bufring.h - the receive buffers that io_uring picks from, and who holds each of them.
 *
 * Purpose   Memory and book-keeping of one provided-buffer ring (io_uring_register_buf_ring(3)):
 *           how far each buffer is consumed, which ones wait to go back to the kernel.
 * Model     A buffer belongs to the kernel until a completion names it and does not say that more
 *           of it will be used (IORING_CQE_F_BUF_MORE). Then it is retired: its bytes may be read
 *           until the next harvest, and np_bufring_recycle publishes it again.
 * Ownership The arena owns the memory; this file owns the ring of entries and the offsets.
 * Not here  System calls: np_uring registers the ring.
 * Threads   The loop's thread only.
 */
#ifndef NP_BUFRING_H
#define NP_BUFRING_H

#include <stddef.h>
#include <stdint.h>

#include "np_arena.h"

struct np_buf_entry { /* the kernel's struct io_uring_buf */
    uint64_t addr;
    uint32_t len_bytes;
    uint16_t bid;
    uint16_t tail; /* of entry 0: the ring's tail, shared with the kernel */
};

struct np_bufring {
    struct np_buf_entry *entries; /* page aligned, count of them */
    size_t entries_map_bytes;
    struct np_arena arena;
    uint32_t *offsets_bytes;      /* per buffer: consumed so far */
    uint16_t *retired;            /* buffer numbers waiting to be published again */
    uint32_t retired_count;
    uint32_t count;               /* power of two, at most 32768 */
    uint32_t buf_bytes;
    uint16_t tail;
};

/* 0 or -errno. All buffers are published at once. */
int np_bufring_open(struct np_bufring *br, uint32_t count, uint32_t buf_bytes);
void np_bufring_close(struct np_bufring *br);
/* The kernel put `len_bytes` into buffer `bid`; `more` when it will use the rest of it later.
 * Returns where they are. */
uint8_t *np_bufring_consume(struct np_bufring *br, uint16_t bid, uint32_t len_bytes, int more);
/* Publishes the retired buffers; returns how many. Every pointer handed out for them dies. */
int np_bufring_recycle(struct np_bufring *br);

#endif
