/* np_iovring.c - see np_iovring.h. */
#include "mem/np_iovring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/np_assert.h"

int np_iovring_open(struct np_iovring *ring, uint32_t count)
{
    NP_ASSERT(count > 0);
    NP_ASSERT((count & (count - 1)) == 0);
    memset(ring, 0, sizeof(*ring));
    ring->slots = malloc(sizeof(*ring->slots) * count);
    if (!ring->slots)
        return -ENOMEM;
    ring->count = count;
    return 0;
}

void np_iovring_close(struct np_iovring *ring)
{
    free(ring->slots);
    memset(ring, 0, sizeof(*ring));
}

struct iovec *np_iovring_draw(struct np_iovring *ring, uint32_t n, uint32_t *end)
{
    NP_DCHECK(n > 0);
    uint32_t at = ring->head & (ring->count - 1);
    uint32_t skipped = n > ring->count - at ? ring->count - at : 0;
    if (np_iovring_used(ring) == 0) { /* nobody's: what is skipped costs no room */
        ring->head += skipped;
        ring->tail = ring->head;
        skipped = 0;
    }
    if (n > ring->count || skipped > ring->count - n ||
        np_iovring_used(ring) > ring->count - n - skipped)
        return NULL;
    ring->head += skipped + n;
    *end = ring->head;
    return &ring->slots[(ring->head - n) & (ring->count - 1)];
}

void np_iovring_retire(struct np_iovring *ring, uint32_t end)
{
    uint32_t freed = end - ring->tail;
    if (freed <= np_iovring_used(ring)) /* else it lies before the tail: retired already */
        ring->tail = end;
}
