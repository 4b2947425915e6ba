/* np_pool.h - memory to send from: an arena cut into blocks of a few sizes.
 *
 * Purpose   A program that fills its answers into blocks of a pool can have them sent without a
 *           copy in user space, and out of memory that the ring knows already (np_backend.h,
 *           attach): the kernel then looks up no pages per send.
 * Model     The arena is cut into chunks of the largest class. A chunk belongs to one class while
 *           a block of it is in use, and to none otherwise; its free blocks are a list threaded
 *           through their table entries, so that no free memory is ever written. Taking and giving
 *           back are O(1) and allocate nothing. A block lies at a multiple of its size from the
 *           start of the arena, so none crosses a region of registered memory.
 * Handles   np_block names a block and its generation: a handle that is used after its block went
 *           back aborts the program instead of corrupting somebody else's bytes.
 * Ownership The pool owns the memory. A block is its taker's from np_pool_take to np_pool_drop; who
 *           shares it counts by himself. Under AddressSanitizer free blocks are poisoned.
 * Errors    0 or -errno: -ENOBUFS when no block of the class is free (backpressure: some come back
 *           when sends end), -EMSGSIZE for more than the largest class.
 * Threads   Any: one pool may serve the loops of several threads. A lock is held for a few
 *           instructions. open and close: one thread, nobody else in it.
 */
#ifndef NP_POOL_H
#define NP_POOL_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/np_arena.h"
#include "base/np_limits.h"

typedef uint64_t np_block; /* block number + 1, generation << 32; 0 is no block */

struct np_pool_class {
    uint32_t block_bytes;
    uint32_t partial;       /* chunk + 1: first of those with a free block, or 0 */
    uint32_t chunks_count;  /* now */
    uint32_t used_count;    /* blocks in use, now */
    uint64_t taken_count;   /* blocks ever taken */
    uint64_t refused_count; /* -ENOBUFS */
};

struct np_pool_chunk {
    uint32_t next, prev;  /* chunk + 1, in the class's list of partial ones or the free list */
    uint32_t free_head;   /* block number + 1 of the first that came back, or 0 */
    uint32_t fresh_count; /* blocks from here on were not used since the chunk got its class */
    uint32_t used_count;
    uint8_t class_index;
};

struct np_pool_entry {   /* per block of the smallest class; the first one speaks for a larger */
    uint32_t generation; /* odd while in use */
    uint32_t next;       /* block number + 1 */
};

struct np_pool {
    struct np_arena arena;
    struct np_pool_class classes[NP_POOL_CLASSES_MAX_COUNT];
    struct np_pool_chunk *chunks;
    struct np_pool_entry *entries;
    pthread_mutex_t lock;
    size_t size_bytes; /* of the arena, in whole chunks */
    uint32_t classes_count, chunks_count;
    uint32_t free_chunks; /* chunk + 1 */
    uint32_t free_chunks_count;
};

struct np_pool_stats {
    struct np_pool_class classes[NP_POOL_CLASSES_MAX_COUNT];
    size_t size_bytes, used_bytes, free_chunk_bytes;
    uint32_t classes_count, blocks_used_count, arena_kind;
};

/* Classes ascend; each is a power of two, from NP_POOL_BLOCK_MIN_BYTES to NP_POOL_BLOCK_MAX_BYTES,
 * at most NP_POOL_CLASSES_MAX_COUNT of them. size_bytes is rounded up to whole chunks.
 * arena_flags: enum np_arena_flags. 0, -EINVAL, -ENOMEM. */
int np_pool_open(struct np_pool *pool, size_t size_bytes, const uint32_t *classes_bytes,
                 uint32_t classes_count, int arena_flags);
/* Frees everything; the caller has seen to it that no block is in use. */
void np_pool_close(struct np_pool *pool);
/* A block of the smallest class that holds `bytes` (1 or more). */
int np_pool_take(struct np_pool *pool, size_t bytes, np_block *out);
/* The block goes back. */
void np_pool_drop(struct np_pool *pool, np_block block);
uint8_t *np_pool_base(struct np_pool *pool, np_block block);
void np_pool_get_stats(struct np_pool *pool, struct np_pool_stats *out);

#endif
