/* np_bio.h - the two ends of a TLS session that has no socket: windows instead of buffers.
 *
 * Purpose   TLS reads ciphertext out of memory that is lent to it for the length of one call (a
 *           receive buffer of the ring, the bytes of a direct read) and writes into memory that is
 *           lent to it as well (the bytes object that will be sent). Nothing is copied into a
 *           buffer in between, and an idle connection holds none.
 * Model     in   np_bio_lend_in, then the TLS library takes from it with np_bio_take.
 *           out  np_bio_lend_out, then it puts with np_bio_put; what does not fit, or comes while
 *                nothing is lent, spills into memory of our own, in order.
 * Ownership Lent memory is the lender's and must stay until it is taken back (lend NULL). The
 *           spill is ours; np_bio_drop_spill frees it.
 * Errors    np_bio_put: -ENOMEM. The rest cannot fail.
 * Threads   One at a time.
 */
#ifndef NP_BIO_H
#define NP_BIO_H

#include <stddef.h>
#include <stdint.h>

struct np_bio {
    const uint8_t *in;
    size_t in_bytes; /* not yet taken */
    uint8_t *out;
    size_t out_bytes, out_cap_bytes;
    uint8_t *spill;
    size_t spill_bytes, spill_cap_bytes;
};

void np_bio_lend_in(struct np_bio *bio, const void *data, size_t size_bytes);
void np_bio_lend_out(struct np_bio *bio, void *data, size_t cap_bytes);
/* Up to max_bytes out of the lent input; 0 when it is used up. */
size_t np_bio_take(struct np_bio *bio, void *to, size_t max_bytes);
/* All of it, or -ENOMEM and none of it. */
int np_bio_put(struct np_bio *bio, const void *data, size_t size_bytes);
void np_bio_drop_spill(struct np_bio *bio);

#endif
