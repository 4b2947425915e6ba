/* np_iov.h - the outbound chain: chunks of immutable memory waiting to be sent, in order.
 *
 * Purpose   Collects what a connection has still to send; hands it to the kernel as an iovec
 *           array; forgets what the kernel took, at any byte boundary.
 * Shape     A ring of chunks (capacity a power of two). Growing is the one allocation and has its
 *           own verb, so the other verbs cannot fail for want of memory.
 * Ownership A chunk carries an opaque owner (the reference that keeps its memory alive). The chain
 *           never touches it: np_iov_advance and np_iov_pop hand finished owners back to the
 *           caller, who drops the references.
 * Errors    -errno or a count >= 0.
 * Threads   The loop's thread only.
 */
#ifndef NP_IOV_H
#define NP_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct np_chunk {
    void *owner;
    const uint8_t *base;
    size_t len_bytes;
};

struct np_iov {
    struct np_chunk *chunks;
    uint32_t head; /* index of the oldest chunk */
    uint32_t count;
    uint32_t cap;       /* power of two, or 0 before the first grow */
    size_t skip_bytes;  /* of the oldest chunk, already taken by the kernel */
    size_t total_bytes; /* still to send: what a watermark counts */
};

void np_iov_init(struct np_iov *iov);
/* Frees the ring of chunks; asserts that it is empty (owners handed back). */
void np_iov_close(struct np_iov *iov);
/* Room for at least one more chunk: 0, or -ENOMEM with the chain unchanged. */
int np_iov_grow(struct np_iov *iov);
/* 0, or -ENOBUFS when full (call np_iov_grow and push again). len_bytes must be > 0. */
int np_iov_push(struct np_iov *iov, void *owner, const void *base, size_t len_bytes);
/* Fills at most `max` entries from the oldest on; returns how many. */
int np_iov_gather(const struct np_iov *iov, struct iovec *out, int max);
/* The kernel took `taken_bytes` (<= total_bytes): writes the owners of at most `max` finished
 * chunks to `owners` and returns how many. When it returns `max`, call again with 0 bytes: there
 * may be more finished ones. */
int np_iov_advance(struct np_iov *iov, size_t taken_bytes, void **owners, int max);
/* Drops the oldest chunk whatever is left of it; returns its owner, NULL when empty. */
void *np_iov_pop(struct np_iov *iov);

/* The i-th chunk from the oldest on (i < count), without what was already taken of it. */
static inline const uint8_t *np_iov_piece(const struct np_iov *iov, uint32_t i, size_t *len_bytes)
{
    const struct np_chunk *chunk = &iov->chunks[(iov->head + i) & (iov->cap - 1)];
    size_t skip_bytes = i == 0 ? iov->skip_bytes : 0;
    *len_bytes = chunk->len_bytes - skip_bytes;
    return chunk->base + skip_bytes;
}

#endif
