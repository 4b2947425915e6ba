/* np_iov.c - the outbound chain as a ring of chunks. */
#include "mem/np_iov.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/np_assert.h"

/* Most connections answer in one piece; an idle one keeps the ring of its last answer. */
#define FIRST_CHUNKS 1u

NP_STATIC_ASSERT((FIRST_CHUNKS & (FIRST_CHUNKS - 1)) == 0, "the ring is indexed with a mask");

static inline struct np_chunk *chunk_at(const struct np_iov *iov, uint32_t i)
{
    return &iov->chunks[(iov->head + i) & (iov->cap - 1)];
}

/* Takes the oldest chunk out of the ring; the byte counts are the caller's business. */
static inline void *chunk_take(struct np_iov *iov)
{
    void *owner = chunk_at(iov, 0)->owner;
    iov->head = (iov->head + 1) & (iov->cap - 1);
    iov->count--;
    return owner;
}

void np_iov_init(struct np_iov *iov)
{
    memset(iov, 0, sizeof(*iov));
}

void np_iov_close(struct np_iov *iov)
{
    NP_ASSERT(iov->count == 0);
    NP_DCHECK(iov->total_bytes == 0);
    NP_DCHECK(iov->skip_bytes == 0);
    free(iov->chunks);
    np_iov_init(iov);
}

int np_iov_grow(struct np_iov *iov)
{
    if (iov->count < iov->cap)
        return 0;
    if (iov->cap > UINT32_MAX / 4)
        return -ENOMEM;
    uint32_t cap = iov->cap ? iov->cap * 2 : FIRST_CHUNKS;
    struct np_chunk *chunks = malloc((size_t)cap * sizeof(*chunks));
    if (!chunks)
        return -ENOMEM;
    for (uint32_t i = 0; i < iov->count; i++)
        chunks[i] = *chunk_at(iov, i);
    free(iov->chunks);
    iov->chunks = chunks;
    iov->cap = cap;
    iov->head = 0;
    return 0;
}

int np_iov_push(struct np_iov *iov, void *owner, const void *base, size_t len_bytes)
{
    NP_DCHECK(len_bytes > 0); /* an empty chunk would look finished before it is sent */
    if (NP_UNLIKELY(iov->count == iov->cap))
        return -ENOBUFS;
    *chunk_at(iov, iov->count) = (struct np_chunk){owner, base, len_bytes};
    iov->count++;
    iov->total_bytes += len_bytes;
    return 0;
}

int np_iov_gather(const struct np_iov *iov, struct iovec *out, int max)
{
    size_t skip_bytes = iov->skip_bytes;
    int n = 0;
    while (n < max && (uint32_t)n < iov->count) {
        const struct np_chunk *chunk = chunk_at(iov, (uint32_t)n);
        NP_DCHECK(skip_bytes < chunk->len_bytes); /* finished chunks were taken off before */
        out[n].iov_base = (void *)(uintptr_t)(chunk->base + skip_bytes);
        out[n].iov_len = chunk->len_bytes - skip_bytes;
        skip_bytes = 0;
        n++;
    }
    return n;
}

int np_iov_advance(struct np_iov *iov, size_t taken_bytes, void **owners, int max)
{
    NP_ASSERT(taken_bytes <= iov->total_bytes);
    iov->total_bytes -= taken_bytes;
    iov->skip_bytes += taken_bytes; /* beyond the oldest chunk as long as `max` cuts us short */
    int n = 0;
    while (n < max && iov->count > 0) {
        size_t len_bytes = chunk_at(iov, 0)->len_bytes;
        if (iov->skip_bytes < len_bytes)
            break;
        iov->skip_bytes -= len_bytes;
        owners[n++] = chunk_take(iov);
    }
    return n;
}

void *np_iov_pop(struct np_iov *iov)
{
    if (iov->count == 0)
        return NULL;
    size_t len_bytes = chunk_at(iov, 0)->len_bytes;
    size_t skip_bytes = iov->skip_bytes < len_bytes ? iov->skip_bytes : len_bytes;
    iov->total_bytes -= len_bytes - skip_bytes;
    iov->skip_bytes -= skip_bytes;
    return chunk_take(iov);
}
