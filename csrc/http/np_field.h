/* np_field.h - single values of a head: numbers, lists, hosts, percent signs.
 *
 * Purpose   The grammar of RFC 9110 and RFC 3986 as far as a server needs it. Each function looks
 *           at one value that is there in full; white space around it is off already.
 * Errors    Yes or no, or a fault of np_http.h.
 * Memory    Nothing is kept, nothing is written but what the caller gives.
 * Threads   Any.
 */
#ifndef NP_FIELD_H
#define NP_FIELD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Sets of bytes: a bit each in NP_CHARS. */
enum np_chars {
    NP_CHAR_TOKEN = 1 << 0, /* of methods and field names: RFC 9110 5.6.2 */
    NP_CHAR_HOST = 1 << 1,  /* of a reg-name, but '%': RFC 3986 3.2.2 */
    NP_CHAR_HEX = 1 << 2,
    NP_CHAR_DIGIT = 1 << 3,
};

extern const uint8_t NP_CHARS[256];

static inline int np_char_is(uint8_t c, int set)
{
    return NP_CHARS[c] & set;
}

static inline int np_char_is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

/* 0 .. 15 of a byte in NP_CHAR_HEX. */
static inline unsigned np_char_hex(uint8_t c)
{
    return (c & 15u) + 9u * (c >> 6);
}

/* Not empty, and all of it token characters. */
int np_field_is_token(const uint8_t *value, size_t bytes);
/* But for the case of letters. */
int np_field_is_same(const uint8_t *one, const uint8_t *other, size_t bytes);

static inline int np_field_is(const uint8_t *value, size_t bytes, const char *wanted)
{
    return bytes == strlen(wanted) && np_field_is_same(value, (const uint8_t *)wanted, bytes);
}

/* The next element of a comma-separated list: 1, with *element and *bytes, or 0. *at moves on;
 * empty elements are passed over (RFC 9110 5.6.1.2). */
int np_field_next(const uint8_t **at, const uint8_t *end, const uint8_t **element, size_t *bytes);
/* Whether a list has this element. */
int np_field_lists(const uint8_t *value, size_t bytes, const char *wanted);

/* Content-Length: 0 with the number, or -NP_HTTP_E_LENGTH. */
int np_field_length(const uint8_t *value, size_t bytes, int64_t *length_bytes);
/* Transfer-Encoding: 0 for chunked alone, or a fault. */
int np_field_coding(const uint8_t *value, size_t bytes);
/* uri-host [ ":" port ]; neither empty nor with user information. */
int np_field_is_host(const uint8_t *value, size_t bytes, int needs_port);

/* Decodes the percent signs of a path to `target`, which has room for `bytes`. A sign without two
 * hexadecimal digits stays. Returns the bytes written; *is_ascii: none of them is above 0x7f. */
size_t np_field_unquote(const uint8_t *path, size_t bytes, uint8_t *target, int *is_ascii);

#endif
