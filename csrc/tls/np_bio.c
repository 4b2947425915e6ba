/* np_bio.c - see np_bio.h. */
#include "tls/np_bio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/np_assert.h"
#include "base/np_limits.h"

void np_bio_lend_in(struct np_bio *bio, const void *data, size_t size_bytes)
{
    bio->in = data;
    bio->in_bytes = data ? size_bytes : 0;
}

void np_bio_lend_out(struct np_bio *bio, void *data, size_t cap_bytes)
{
    NP_ASSERT(data == NULL || bio->spill_bytes == 0); /* or the order would be lost */
    bio->out = data;
    bio->out_bytes = 0;
    bio->out_cap_bytes = data ? cap_bytes : 0;
}

size_t np_bio_take(struct np_bio *bio, void *to, size_t max_bytes)
{
    size_t n = max_bytes < bio->in_bytes ? max_bytes : bio->in_bytes;

    if (n == 0)
        return 0;
    memcpy(to, bio->in, n);
    bio->in += n;
    bio->in_bytes -= n;
    return n;
}

static int spill(struct np_bio *bio, const uint8_t *data, size_t size_bytes)
{
    size_t cap = bio->spill_cap_bytes;
    uint8_t *grown;

    if (size_bytes == 0)
        return 0;
    if (bio->spill_cap_bytes - bio->spill_bytes < size_bytes) {
        cap = cap ? cap : NP_BIO_SPILL_MIN_BYTES;
        while (cap - bio->spill_bytes < size_bytes)
            cap *= 2;
        grown = realloc(bio->spill, cap);
        if (grown == NULL)
            return -ENOMEM;
        bio->spill = grown;
        bio->spill_cap_bytes = cap;
    }
    memcpy(bio->spill + bio->spill_bytes, data, size_bytes);
    bio->spill_bytes += size_bytes;
    return 0;
}

int np_bio_put(struct np_bio *bio, const void *data, size_t size_bytes)
{
    size_t room = bio->spill_bytes ? 0 : bio->out_cap_bytes - bio->out_bytes;
    size_t n = size_bytes < room ? size_bytes : room;
    int err = spill(bio, (const uint8_t *)data + n, size_bytes - n);

    if (err < 0)
        return err;
    if (n) {
        memcpy(bio->out + bio->out_bytes, data, n);
        bio->out_bytes += n;
    }
    return 0;
}

void np_bio_drop_spill(struct np_bio *bio)
{
    free(bio->spill);
    bio->spill = NULL;
    bio->spill_bytes = 0;
    bio->spill_cap_bytes = 0;
}
