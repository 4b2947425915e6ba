/* np_iovring.h - a ring of iovecs: where the gather lists of sends wait until the kernel read them.
 *
 * Purpose   A send of several pieces needs an array that lives until its submission was read, and
 *           must not allocate one. A fixed ring: the producer draws a span at the head, and what
 *           the kernel has read is retired at the tail, in the order of drawing.
 * Model     Positions run freely (uint32_t, they may wrap); a slot is position & (count - 1). A
 *           span is contiguous: when it does not fit before the end of the array, the rest of the
 *           array is skipped and retired with it.
 * Ownership The ring owns the slots; what the iovecs point to is the caller's.
 * Errors    draw returns NULL when there is no room now: retire something, or do without.
 * Threads   The loop's thread only.
 */
#ifndef NP_IOVRING_H
#define NP_IOVRING_H

#include <stdint.h>
#include <sys/uio.h>

struct np_iovring {
    struct iovec *slots;
    uint32_t count; /* power of two; 0 before open */
    uint32_t head;  /* the next position to draw */
    uint32_t tail;  /* the oldest position not yet retired */
};

/* 0 or -ENOMEM; count is a power of two. */
int np_iovring_open(struct np_iovring *ring, uint32_t count);
void np_iovring_close(struct np_iovring *ring);
/* A span of n >= 1 slots, to be filled by the caller; *end is what to retire it with. */
struct iovec *np_iovring_draw(struct np_iovring *ring, uint32_t n, uint32_t *end);
/* Everything before position `end` is free again; a position already retired changes nothing. */
void np_iovring_retire(struct np_iovring *ring, uint32_t end);

static inline uint32_t np_iovring_used(const struct np_iovring *ring)
{
    return ring->head - ring->tail;
}

#endif
