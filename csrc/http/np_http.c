/* np_http.c - the tables of np_http.h, and how a name is found in them. */
#include "http/np_http.h"

#include <string.h>

#include "base/np_assert.h"

static const struct np_http_fault FAULTS[NP_HTTP_FAULTS_COUNT] = {
    {"NONE", "", "Nothing is wrong.", 0},
#define X(id, status, section, sentence) {#id, section, sentence, status},
    NP_HTTP_FAULTS(X)
#undef X
};

#define METHOD_MAX_BYTES 7

static const char METHODS[NP_HTTP_METHODS_COUNT][METHOD_MAX_BYTES + 1] = {"",
#define X(name) #name,
                                                                          NP_HTTP_METHODS(X)
#undef X
};

/* Filled with zeros to the end, so that eight bytes can be loaded from the start of each. */
static const char FIELDS[NP_FIELDS_COUNT][NP_FIELD_NAME_MAX_BYTES + 2] = {"",
#define X(id, name) name,
                                                                          NP_HTTP_FIELDS(X)
#undef X
};

#define SAME_LENGTH_MAX_COUNT 8

/* The names of each length, the usual ones first. NP_FIELD_OTHER ends a row. */
static const uint8_t BY_LENGTH[NP_FIELD_NAME_MAX_BYTES + 1][SAME_LENGTH_MAX_COUNT] = {
    [2] = {NP_FIELD_TE},
    [3] = {NP_FIELD_VIA, NP_FIELD_DNT},
    [4] = {NP_FIELD_HOST, NP_FIELD_DATE, NP_FIELD_FROM},
    [5] = {NP_FIELD_RANGE},
    [6] = {NP_FIELD_ACCEPT, NP_FIELD_COOKIE, NP_FIELD_ORIGIN, NP_FIELD_PRAGMA, NP_FIELD_EXPECT},
    [7] = {NP_FIELD_REFERER, NP_FIELD_UPGRADE, NP_FIELD_BAGGAGE, NP_FIELD_TRAILER},
    [8] = {NP_FIELD_PRIORITY, NP_FIELD_IF_RANGE, NP_FIELD_IF_MATCH},
    [9] = {NP_FIELD_SEC_CH_UA, NP_FIELD_X_REAL_IP, NP_FIELD_FORWARDED},
    [10] = {NP_FIELD_USER_AGENT, NP_FIELD_CONNECTION, NP_FIELD_TRACESTATE, NP_FIELD_KEEP_ALIVE},
    [11] = {NP_FIELD_TRACEPARENT},
    [12] = {NP_FIELD_CONTENT_TYPE, NP_FIELD_X_REQUEST_ID, NP_FIELD_MAX_FORWARDS},
    [13] = {NP_FIELD_CACHE_CONTROL, NP_FIELD_IF_NONE_MATCH, NP_FIELD_AUTHORIZATION,
            NP_FIELD_LAST_EVENT_ID},
    [14] = {NP_FIELD_SEC_FETCH_SITE, NP_FIELD_SEC_FETCH_MODE, NP_FIELD_SEC_FETCH_DEST,
            NP_FIELD_SEC_FETCH_USER, NP_FIELD_CONTENT_LENGTH, NP_FIELD_ACCEPT_CHARSET},
    [15] = {NP_FIELD_ACCEPT_ENCODING, NP_FIELD_ACCEPT_LANGUAGE, NP_FIELD_X_FORWARDED_FOR},
    [16] = {NP_FIELD_SEC_CH_UA_MOBILE, NP_FIELD_X_REQUESTED_WITH, NP_FIELD_X_FORWARDED_HOST,
            NP_FIELD_X_FORWARDED_PORT, NP_FIELD_PROXY_CONNECTION, NP_FIELD_CONTENT_ENCODING,
            NP_FIELD_CONTENT_LANGUAGE},
    [17] = {NP_FIELD_IF_MODIFIED_SINCE, NP_FIELD_TRANSFER_ENCODING, NP_FIELD_X_FORWARDED_PROTO,
            NP_FIELD_SEC_WEBSOCKET_KEY},
    [18] = {NP_FIELD_SEC_CH_UA_PLATFORM, NP_FIELD_X_FORWARDED_PREFIX},
    [19] = {NP_FIELD_IF_UNMODIFIED_SINCE, NP_FIELD_PROXY_AUTHORIZATION},
    [21] = {NP_FIELD_SEC_WEBSOCKET_VERSION},
    [22] = {NP_FIELD_SEC_WEBSOCKET_PROTOCOL},
    [24] = {NP_FIELD_SEC_WEBSOCKET_EXTENSIONS},
    [25] = {NP_FIELD_UPGRADE_INSECURE_REQUESTS},
    [29] = {NP_FIELD_ACCESS_CONTROL_REQUEST_METHOD},
    [30] = {NP_FIELD_ACCESS_CONTROL_REQUEST_HEADERS},
};

const struct np_http_fault *np_http_fault(int fault)
{
    int number = fault < 0 ? -fault : fault;
    NP_ASSERT(number < NP_HTTP_FAULTS_COUNT);
    return &FAULTS[number];
}

/* 2 to 7 bytes as a word: two halves that overlap. */
static inline uint64_t short_word(const void *p, size_t bytes)
{
    uint32_t first = 0, last = 0;
    if (bytes >= 4) {
        memcpy(&first, p, 4);
        memcpy(&last, (const uint8_t *)p + bytes - 4, 4);
    } else {
        memcpy(&first, p, 2);
        memcpy(&last, (const uint8_t *)p + bytes - 2, 2);
    }
    return first | (uint64_t)last << 32;
}

uint8_t np_http_method(const uint8_t *name, size_t name_bytes)
{
    if (name_bytes < 2 || name_bytes > METHOD_MAX_BYTES)
        return NP_HTTP_OTHER;
    uint64_t word = short_word(name, name_bytes);
    for (uint8_t i = NP_HTTP_OTHER + 1; i < NP_HTTP_METHODS_COUNT; i++)
        if (word == short_word(METHODS[i], name_bytes) && METHODS[i][name_bytes] == '\0')
            return i;
    return NP_HTTP_OTHER;
}

const char *np_http_method_name(uint8_t method)
{
    return METHODS[method];
}

#define CASE_BITS UINT64_C(0x2020202020202020)

/* Eight letters, digits and hyphens in lower case. Of bytes that are visible, no other becomes one
 * of these: those without the bit 0x20 are 0x40 to 0x5f. */
static inline uint64_t folded(const void *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return word | CASE_BITS;
}

static uint8_t short_field_id(const uint8_t *name, size_t name_bytes)
{
    uint64_t word = short_word(name, name_bytes) | CASE_BITS;
    for (const uint8_t *id = BY_LENGTH[name_bytes]; *id != NP_FIELD_OTHER; id++)
        if (word == (short_word(FIELDS[*id], name_bytes) | CASE_BITS))
            return *id;
    return NP_FIELD_OTHER;
}

/* The last eight bytes first: what is alike begins alike (sec-fetch-, x-forwarded-). */
uint8_t np_http_field_id(const uint8_t *name, size_t name_bytes)
{
    if (name_bytes < 2 || name_bytes > NP_FIELD_NAME_MAX_BYTES)
        return NP_FIELD_OTHER;
    if (name_bytes < 8)
        return short_field_id(name, name_bytes);
    size_t last = name_bytes - 8;
    uint64_t last_word = folded(name + last);
    for (const uint8_t *id = BY_LENGTH[name_bytes]; *id != NP_FIELD_OTHER; id++) {
        const char *wanted = FIELDS[*id];
        if (last_word != folded(wanted + last))
            continue;
        size_t i = 0;
        while (i < last && folded(name + i) == folded(wanted + i))
            i += 8;
        if (i >= last)
            return *id;
    }
    return NP_FIELD_OTHER;
}

const char *np_http_field_name(uint8_t id)
{
    return FIELDS[id];
}
