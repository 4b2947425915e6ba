/* np_field.c - single values of a head. */
#include "http/np_field.h"

#include <string.h>

#include "base/np_limits.h"
#include "http/np_http.h"
#include "http/np_scan.h"

/* What the letters, the digits and the marks are in. */
#define T NP_CHAR_TOKEN
#define H NP_CHAR_HOST
#define LETTER (T | H)
#define HEX (T | H | NP_CHAR_HEX)
#define DIGIT (HEX | NP_CHAR_DIGIT)

const uint8_t NP_CHARS[256] = {
    ['!'] = T | H,
    ['#'] = T,
    ['$'] = T | H,
    ['%'] = T,
    ['&'] = T | H,
    ['\''] = T | H,
    ['('] = H,
    [')'] = H,
    ['*'] = T | H,
    ['+'] = T | H,
    [','] = H,
    ['-'] = T | H,
    ['.'] = T | H,
    [';'] = H,
    ['='] = H,
    ['0' ... '9'] = DIGIT,
    ['A' ... 'F'] = HEX,
    ['G' ... 'Z'] = LETTER,
    ['^'] = T,
    ['_'] = T | H,
    ['`'] = T,
    ['|'] = T,
    ['~'] = T | H,
    ['a' ... 'f'] = HEX,
    ['g' ... 'z'] = LETTER,
};

int np_field_is_token(const uint8_t *value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (!np_char_is(value[i], NP_CHAR_TOKEN))
            return 0;
    return bytes != 0;
}

static inline uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

int np_field_is_same(const uint8_t *one, const uint8_t *other, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (lower(one[i]) != lower(other[i]))
            return 0;
    return 1;
}

int np_field_next(const uint8_t **at, const uint8_t *end, const uint8_t **element, size_t *bytes)
{
    const uint8_t *p = *at;
    while (p < end && (np_char_is_blank(*p) || *p == ','))
        p++;
    const uint8_t *comma = p < end ? memchr(p, ',', (size_t)(end - p)) : NULL;
    const uint8_t *last = comma ? comma : end;
    *at = last;
    *element = p;
    while (last > p && np_char_is_blank(last[-1]))
        last--;
    *bytes = (size_t)(last - p);
    return last > p;
}

int np_field_lists(const uint8_t *value, size_t bytes, const char *wanted)
{
    const uint8_t *at = value, *element;
    size_t element_bytes;
    while (np_field_next(&at, value + bytes, &element, &element_bytes))
        if (np_field_is(element, element_bytes, wanted))
            return 1;
    return 0;
}

int np_field_length(const uint8_t *value, size_t bytes, int64_t *length_bytes)
{
    uint64_t length = 0;
    if (bytes == 0)
        return -NP_HTTP_E_LENGTH;
    for (size_t i = 0; i < bytes; i++) {
        if (!np_char_is(value[i], NP_CHAR_DIGIT))
            return -NP_HTTP_E_LENGTH;
        if (__builtin_mul_overflow(length, 10, &length) ||
            __builtin_add_overflow(length, value[i] - '0', &length) || length > INT64_MAX)
            return -NP_HTTP_E_LENGTH;
    }
    *length_bytes = (int64_t)length;
    return 0;
}

int np_field_coding(const uint8_t *value, size_t bytes)
{
    const uint8_t *at = value, *element;
    size_t element_bytes;
    int codings = 0, chunked = 0, last_is_chunked = 0;
    if (np_field_is(value, bytes, "chunked"))
        return 0;
    while (np_field_next(&at, value + bytes, &element, &element_bytes)) {
        last_is_chunked = np_field_is(element, element_bytes, "chunked");
        chunked += last_is_chunked;
        codings++;
    }
    if (chunked == 1 && last_is_chunked && codings > 1)
        return -NP_HTTP_E_CODING_UNKNOWN; /* the body's end would be known, its content not */
    return -NP_HTTP_E_CODING;
}

/* "[" IPv6address "]": where it ends, or NULL. That the address is one is left to who uses it. */
static const uint8_t *literal_end(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *first = ++p;
    int colons = 0;
    for (; p < end && *p != ']'; p++) {
        if (!np_char_is(*p, NP_CHAR_HEX) && *p != ':' && *p != '.')
            return NULL;
        colons += *p == ':';
    }
    return p < end && p > first && colons >= 2 ? p + 1 : NULL;
}

/* A reg-name or an IPv4 address: where it ends, or NULL. */
static const uint8_t *name_end(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *first = p;
    for (; p < end && *p != ':'; p++) {
        if (np_char_is(*p, NP_CHAR_HOST))
            continue;
        if (*p != '%' || end - p < 3 || !np_char_is(p[1], NP_CHAR_HEX) ||
            !np_char_is(p[2], NP_CHAR_HEX))
            return NULL;
        p += 2;
    }
    return p > first ? p : NULL;
}

int np_field_is_host(const uint8_t *value, size_t bytes, int needs_port)
{
    const uint8_t *end = value + bytes;
    if (bytes == 0)
        return 0;
    const uint8_t *p = *value == '[' ? literal_end(value, end) : name_end(value, end);
    if (!p)
        return 0;
    if (p == end)
        return !needs_port;
    if (*p++ != ':')
        return 0;
    unsigned port = 0;
    const uint8_t *digits = p;
    for (; p < end; p++) {
        if (!np_char_is(*p, NP_CHAR_DIGIT))
            return 0;
        port = port * 10 + (*p - '0');
        if (port > NP_PORT_MAX_COUNT)
            return 0;
    }
    return !needs_port || p > digits;
}

size_t np_field_unquote(const uint8_t *path, size_t bytes, uint8_t *target, int *is_ascii)
{
    const uint8_t *end = path + bytes;
    uint8_t *to = target;
    uint8_t all = 0;
    while (path < end) {
        uint8_t c = *path++;
        if (c == '%' && end - path >= 2 && np_char_is(path[0], NP_CHAR_HEX) &&
            np_char_is(path[1], NP_CHAR_HEX)) {
            c = (uint8_t)(np_char_hex(path[0]) << 4 | np_char_hex(path[1]));
            path += 2;
        }
        all |= c;
        *to++ = c;
    }
    *is_ascii = all < 0x80;
    return (size_t)(to - target);
}
