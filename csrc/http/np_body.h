/* np_body.h - reads the body of a request: which of the unread bytes are its data.
 *
 * Purpose   Content-Length and chunked (RFC 9112 6 and 7), over any cuts, without a copy: what
 *           comes out is a list of places in the pieces. A whole receive is decoded at once,
 *           however many chunks it has, so that a peer that sends chunks of one byte costs no event
 *           for each.
 * Use       1  np_body_begin when the head is done (np_http1.h)
 *           2  np_body_read with what is unread: data[0..*count) are places in these pieces, and
 *              the first *taken_bytes of the pieces are done with, once the data is used
 *           3  NP_HTTP_DONE: the request is over, and what is left is the next one's.
 *              NP_HTTP_MORE: all pieces were read. NP_HTTP_FULL: call again, there is more
 * Chunked   Extensions are read and dropped. Trailer fields are checked as fields of a head are,
 *           may not be of those that frame or route, and are dropped: ASGI and WSGI have no place
 *           for them. Framing is counted: see NP_HTTP_FRAMING_FREE_BYTES.
 * Ownership Nothing is kept but this struct.
 * Errors    A fault of np_http.h, the same for ever.
 * Threads   One at a time.
 */
#ifndef NP_BODY_H
#define NP_BODY_H

#include <stdint.h>
#include <sys/uio.h>

#include "http/np_http1.h"
#include "mem/np_iov.h"

struct np_body {
    const struct np_http_limits *limits;
    uint64_t left_bytes;    /* of the chunk, or of Content-Length */
    uint64_t data_bytes;    /* all that has come out */
    uint64_t framing_bytes; /* of a chunked body, up to its last chunk */
    uint32_t trailer_bytes;
    uint32_t trailers_count;
    int16_t fault;
    uint8_t step;
    uint8_t digits_count; /* of the chunk size */
    uint8_t name_bytes;   /* of the trailer's name that is kept in `name` */
    uint8_t name[NP_FIELD_NAME_MAX_BYTES + 1];
};

void np_body_begin(struct np_body *body, const struct np_http1 *request);
int np_body_read(struct np_body *body, const struct np_iov *unread, struct iovec *data,
                 int max_count, int *count, size_t *taken_bytes);
/* The same of one piece of memory. */
int np_body_parse(struct np_body *body, const uint8_t *piece, size_t bytes, struct iovec *data,
                  int max_count, int *count, size_t *taken_bytes);

static inline int np_body_is_over(const struct np_body *body)
{
    return body->step == 0;
}

#endif
