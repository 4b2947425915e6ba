/* fuzz_fields.c - single values of a head, names, and the scans, beside loops over bytes.
 *
 * One input is one value; every function that reads values looks at it.
 */
#include "np_fuzz.h"

#include <strings.h>

#include "base/np_limits.h"
#include "http/np_field.h"
#include "http/np_http.h"
#include "http/np_scan.h"

enum { VALUE_MAX_BYTES = 600 };

static int is_in(uint8_t c, const char *set)
{
    return c && strchr(set, c) != NULL;
}

static int is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static int is_letter(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static int is_hex(uint8_t c)
{
    return is_in(c, "0123456789abcdefABCDEF");
}

static int is_token_char(uint8_t c)
{
    return is_digit(c) || is_letter(c) || is_in(c, "!#$%&'*+-.^_`|~");
}

static int is_same_word(const uint8_t *value, size_t bytes, const char *word)
{
    return bytes == strlen(word) && strncasecmp((const char *)value, word, bytes) == 0;
}

/* ---- lists ---------------------------------------------------------------------------------- */

/* The elements of a list, one after the other; the last one has no comma behind it. */
struct elements {
    const uint8_t *at[VALUE_MAX_BYTES + 1];
    size_t bytes[VALUE_MAX_BYTES + 1];
    int count, has_trailers, chunked_count, last_is_chunked;
};

static void split(struct elements *elements, const uint8_t *value, size_t bytes)
{
    memset(elements, 0, sizeof(*elements));
    for (size_t begin = 0, end = 0; end <= bytes; end++) {
        if (end < bytes && value[end] != ',')
            continue;
        size_t first = begin, last = end;
        while (first < last && is_in(value[first], " \t"))
            first++;
        while (last > first && is_in(value[last - 1], " \t"))
            last--;
        if (last > first) {
            elements->at[elements->count] = value + first;
            elements->bytes[elements->count++] = last - first;
            elements->last_is_chunked = is_same_word(value + first, last - first, "chunked");
            elements->chunked_count += elements->last_is_chunked;
            elements->has_trailers |= is_same_word(value + first, last - first, "trailers");
        }
        begin = end + 1;
    }
}

static void check_lists(const uint8_t *value, size_t bytes)
{
    static struct elements wanted;
    const uint8_t *at = value, *element;
    size_t element_bytes;
    int count = 0, coding = -NP_HTTP_E_CODING;
    split(&wanted, value, bytes);
    while (np_field_next(&at, value + bytes, &element, &element_bytes)) {
        NP_ASSERT(count < wanted.count);
        NP_ASSERT(element == wanted.at[count]);
        NP_ASSERT(element_bytes == wanted.bytes[count]);
        count++;
    }
    NP_ASSERT(count == wanted.count);
    NP_ASSERT(np_field_lists(value, bytes, "trailers") == wanted.has_trailers);
    if (is_same_word(value, bytes, "chunked"))
        coding = 0;
    else if (wanted.count > 1 && wanted.chunked_count == 1 && wanted.last_is_chunked)
        coding = -NP_HTTP_E_CODING_UNKNOWN;
    NP_ASSERT(np_field_coding(value, bytes) == coding);
}

/* ---- numbers and hosts ---------------------------------------------------------------------- */

static void check_length(const uint8_t *value, size_t bytes)
{
    char digits[32] = "";
    int64_t length = -1;
    size_t zeros = 0, good = bytes > 0;
    for (size_t i = 0; i < bytes; i++)
        good &= is_digit(value[i]);
    while (zeros < bytes && value[zeros] == '0')
        zeros++;
    good &= bytes - zeros <= 19;
    if (good)
        memcpy(digits, value + zeros, bytes - zeros);
    if (good && strlen(digits) == 19 && strcmp(digits, "9223372036854775807") > 0)
        good = 0;
    NP_ASSERT(np_field_length(value, bytes, &length) == (good ? 0 : -NP_HTTP_E_LENGTH));
    NP_ASSERT(length == (good ? strtoll(digits, NULL, 10) : -1));
}

static int is_port(const uint8_t *digits, size_t bytes)
{
    while (bytes > 1 && *digits == '0') {
        digits++;
        bytes--;
    }
    long port = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (!is_digit(digits[i]) || i == 5)
            return 0;
        port = port * 10 + digits[i] - '0';
    }
    return port <= 65535;
}

static int is_address_literal(const uint8_t *value, size_t bytes)
{
    int colons = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (!is_hex(value[i]) && !is_in(value[i], ":."))
            return 0;
        colons += value[i] == ':';
    }
    return colons >= 2;
}

static int is_name(const uint8_t *value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (value[i] == '%') {
            if (bytes - i < 3 || !is_hex(value[i + 1]) || !is_hex(value[i + 2]))
                return 0;
            i += 2;
        } else if (!is_letter(value[i]) && !is_digit(value[i]) &&
                   !is_in(value[i], "-._~!$&'()*+,;=")) {
            return 0;
        }
    }
    return bytes > 0;
}

static int is_host(const uint8_t *value, size_t bytes, int needs_port)
{
    size_t host = 0, is_good;
    if (bytes && value[0] == '[') {
        while (host < bytes && value[host] != ']')
            host++;
        is_good = host < bytes && is_address_literal(value + 1, host - 1);
        host++;
    } else {
        while (host < bytes && value[host] != ':')
            host++;
        is_good = is_name(value, host);
    }
    if (!is_good || host >= bytes)
        return is_good && !needs_port;
    if (value[host] != ':' || !is_port(value + host + 1, bytes - host - 1))
        return 0;
    return !needs_port || bytes > host + 1;
}

static void check_unquote(const uint8_t *path, size_t bytes)
{
    uint8_t wanted[VALUE_MAX_BYTES], *target = malloc(bytes ? bytes : 1);
    size_t count = 0;
    int is_ascii, wanted_ascii = 1;
    NP_ASSERT(target != NULL);
    for (size_t i = 0; i < bytes; i++, count++) {
        wanted[count] = path[i];
        if (path[i] == '%' && bytes - i > 2 && is_hex(path[i + 1]) && is_hex(path[i + 2])) {
            char digits[3] = {(char)path[i + 1], (char)path[i + 2], 0};
            wanted[count] = (uint8_t)strtoul(digits, NULL, 16);
            i += 2;
        }
        wanted_ascii &= wanted[count] < 0x80;
    }
    NP_ASSERT(np_field_unquote(path, bytes, target, &is_ascii) == count);
    NP_ASSERT(np_fuzz_is_same(target, wanted, count));
    NP_ASSERT(is_ascii == wanted_ascii);
    free(target);
}

/* ---- names and scans ------------------------------------------------------------------------ */

static void check_names(const uint8_t *name, size_t bytes)
{
    uint8_t id = NP_FIELD_OTHER, method = NP_HTTP_OTHER;
    int is_token = bytes > 0, is_visible = 1;
    for (size_t i = 0; i < bytes; i++) {
        is_token &= is_token_char(name[i]);
        is_visible &= name[i] > ' ' && name[i] < 0x7f;
    }
    NP_ASSERT(np_field_is_token(name, bytes) == is_token);
    for (int i = 1; i < NP_FIELDS_COUNT; i++)
        if (is_same_word(name, bytes, np_http_field_name((uint8_t)i)))
            id = (uint8_t)i;
    if (is_visible)
        NP_ASSERT(np_http_field_id(name, bytes) == id);
    for (int i = 1; i < NP_HTTP_METHODS_COUNT; i++) {
        const char *word = np_http_method_name((uint8_t)i);
        if (strlen(word) == bytes && memcmp(word, name, bytes) == 0)
            method = (uint8_t)i;
    }
    if (is_token)
        NP_ASSERT(np_http_method(name, bytes) == method);
}

static void check_scans(const uint8_t *value, size_t bytes)
{
    const uint8_t *end = value + bytes, *p = value;
    while (p < end && *p != 0x7f && (*p >= ' ' || *p == '\t'))
        p++;
    NP_ASSERT(np_scan_value(value, end) == p);
    for (int stop = 0; stop < 3; stop++) {
        uint8_t c = (uint8_t)":# "[stop];
        for (p = value; p < end && *p > ' ' && *p < 0x7f && *p != c;)
            p++;
        NP_ASSERT(np_scan_visible(value, end, c) == p);
    }
    for (p = value; p < end && *p > ' ' && *p < 0x7f && !is_in(*p, "#?%");)
        p++;
    NP_ASSERT(np_scan_path(value, end) == p);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    bytes = bytes < VALUE_MAX_BYTES ? bytes : VALUE_MAX_BYTES;
    uint8_t *value = np_fuzz_copy(input, bytes);
    check_lists(value, bytes);
    check_length(value, bytes);
    NP_ASSERT(!np_field_is_host(value, bytes, 0) == !is_host(value, bytes, 0));
    NP_ASSERT(!np_field_is_host(value, bytes, 1) == !is_host(value, bytes, 1));
    check_unquote(value, bytes);
    check_names(value, bytes);
    check_scans(value, bytes);
    free(value);
    return 0;
}
