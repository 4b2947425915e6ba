/* np_utf8.h - whether bytes that come in parts are UTF-8.
 *
 * Purpose   A text message of WebSocket has to be UTF-8 (RFC 6455 8.1), over any cuts, and is
 *           refused with the first byte that cannot be: nothing overlong, no surrogates, nothing
 *           above U+10FFFF (RFC 3629). ASCII is passed over sixteen bytes at a time.
 * Use       struct np_utf8 state = {0}; np_utf8_check for each part; np_utf8_is_whole at the end.
 * Threads   One at a time for each state.
 */
#ifndef NP_UTF8_H
#define NP_UTF8_H

#include <stddef.h>
#include <stdint.h>

struct np_utf8 {
    uint8_t left;      /* bytes of the character that are still to come */
    uint8_t low, high; /* what the next one may be */
};

/* 1: it may go on; 0: it is not UTF-8. */
int np_utf8_check(struct np_utf8 *state, const uint8_t *bytes, size_t count);

/* No character is cut off. */
static inline int np_utf8_is_whole(const struct np_utf8 *state)
{
    return state->left == 0;
}

#endif
