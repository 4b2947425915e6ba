/* np_utf8.c - checks UTF-8. */
#include "http/np_utf8.h"

#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* Where ASCII ends, to sixteen bytes: the last ones are left to the caller. */
static const uint8_t *pass_ascii(const uint8_t *p, const uint8_t *end)
{
    for (; end - p >= 16; p += 16) {
        uint64_t words[2];
        memcpy(words, p, sizeof(words));
        if ((words[0] | words[1]) & HIGH_BITS)
            return p;
    }
    return p;
}

/* The first byte of a character: how many follow, and what the second one may be. RFC 3629 4. */
static int begin_character(struct np_utf8 *state, uint8_t c)
{
    state->low = 0x80;
    state->high = 0xbf;
    if (c < 0xc2 || c > 0xf4)
        return 0;
    state->left = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    if (c == 0xe0)
        state->low = 0xa0;
    else if (c == 0xed)
        state->high = 0x9f;
    else if (c == 0xf0)
        state->low = 0x90;
    else if (c == 0xf4)
        state->high = 0x8f;
    return 1;
}

int np_utf8_check(struct np_utf8 *state, const uint8_t *bytes, size_t count)
{
    const uint8_t *p = bytes, *end = bytes + count;
    while (p < end) {
        if (state->left) {
            if (*p < state->low || *p > state->high)
                return 0;
            state->low = 0x80;
            state->high = 0xbf;
            state->left--;
            p++;
            continue;
        }
        if (*p < 0x80) {
            p = pass_ascii(p, end);
            while (p < end && *p < 0x80)
                p++;
            continue;
        }
        if (!begin_character(state, *p++))
            return 0;
    }
    return 1;
}
