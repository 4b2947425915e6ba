/* np_body.c - bodies: a state for each place in the framing, a byte at a time; data as a whole. */
#include "http/np_body.h"

#include <string.h>

#include "base/np_assert.h"
#include "base/np_limits.h"
#include "http/np_field.h"
#include "http/np_scan.h"

/*  LENGTH > OVER
 *
 *  SIZE > DIGITS > [BLANK > EXT ... >] SIZE_LF > DATA > DATA_CR > DATA_LF > SIZE
 *                                          of size 0: LINE > [TRAILER ... > LINE] > LAST_LF > OVER
 */
enum step {
    STEP_OVER,
    STEP_LENGTH,
    STEP_SIZE,   /* the first digit */
    STEP_DIGITS, /* further ones */
    STEP_SIZE_LF,
    STEP_DATA,
    STEP_DATA_CR,
    STEP_DATA_LF,
    /* Extensions: *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted ) ] ) */
    STEP_BLANK,        /* white space before a ";" that has to come */
    STEP_EXT,          /* behind ";" */
    STEP_EXT_NAME,     /* its first byte was there */
    STEP_EXT_NAME_END, /* white space behind it: "=" or ";" has to come */
    STEP_EXT_EQUALS,   /* behind "=" */
    STEP_EXT_VALUE,
    STEP_EXT_QUOTED,
    STEP_EXT_ESCAPED, /* behind a backslash */
    STEP_EXT_END,     /* behind the closing quote */
    STEP_LINE,        /* a trailer, or the CR of the last line */
    STEP_TRAILER_NAME,
    STEP_TRAILER_VALUE,
    STEP_TRAILER_LF,
    STEP_LAST_LF,
};

void np_body_begin(struct np_body *body, const struct np_http1 *request)
{
    memset(body, 0, sizeof(*body));
    body->limits = request->limits;
    body->left_bytes = (uint64_t)request->content_length;
    if (request->flags & NP_HTTP_CHUNKED)
        body->step = STEP_SIZE;
    else
        body->step = body->left_bytes ? STEP_LENGTH : STEP_OVER;
}

/* ---- sizes and extensions -------------------------------------------------------------------- */

static int add_digit(struct np_body *body, uint8_t c)
{
    if (!np_char_is(c, NP_CHAR_HEX) || body->digits_count == NP_HTTP_CHUNK_DIGITS_MAX_COUNT)
        return -(c == '\n' ? NP_HTTP_E_BARE_LF : NP_HTTP_E_CHUNK_SIZE);
    body->digits_count++;
    body->left_bytes = body->left_bytes << 4 | np_char_hex(c);
    return STEP_DIGITS;
}

/* Behind a size, or behind a whole extension: what may come. */
static int after_extension(uint8_t c, int other)
{
    if (c == '\r')
        return STEP_SIZE_LF;
    if (c == ';')
        return STEP_EXT;
    if (np_char_is_blank(c))
        return STEP_BLANK;
    return -(c == '\n' ? NP_HTTP_E_BARE_LF : other);
}

static int read_size(struct np_body *body, uint8_t c)
{
    if (body->step == STEP_SIZE) {
        body->left_bytes = body->digits_count = 0;
        return add_digit(body, c);
    }
    if (np_char_is(c, NP_CHAR_HEX))
        return add_digit(body, c);
    return after_extension(c, NP_HTTP_E_CHUNK_SIZE);
}

/* The size is complete: what it means. */
static int end_size(struct np_body *body)
{
    if (body->left_bytes > (uint64_t)body->limits->body_max_bytes - body->data_bytes)
        return -(body->left_bytes > INT64_MAX ? NP_HTTP_E_CHUNK_SIZE : NP_HTTP_E_BODY_LARGE);
    return body->left_bytes ? STEP_DATA : STEP_LINE;
}

static int read_extension(struct np_body *body, uint8_t c)
{
    int is_token = np_char_is(c, NP_CHAR_TOKEN);
    switch (body->step) {
    case STEP_BLANK:
        if (np_char_is_blank(c) || c == ';')
            return c == ';' ? STEP_EXT : STEP_BLANK;
        break;
    case STEP_EXT:
        if (np_char_is_blank(c) || is_token)
            return is_token ? STEP_EXT_NAME : STEP_EXT;
        break;
    case STEP_EXT_NAME:
        if (is_token)
            return STEP_EXT_NAME;
        if (np_char_is_blank(c) || c == '=')
            return c == '=' ? STEP_EXT_EQUALS : STEP_EXT_NAME_END;
        return after_extension(c, NP_HTTP_E_CHUNK_EXTENSION);
    case STEP_EXT_NAME_END:
        if (np_char_is_blank(c))
            return STEP_EXT_NAME_END;
        if (c == '=' || c == ';')
            return c == '=' ? STEP_EXT_EQUALS : STEP_EXT;
        break;
    case STEP_EXT_EQUALS:
        if (np_char_is_blank(c) || is_token)
            return is_token ? STEP_EXT_VALUE : STEP_EXT_EQUALS;
        if (c == '"')
            return STEP_EXT_QUOTED;
        break;
    case STEP_EXT_VALUE:
        return is_token ? STEP_EXT_VALUE : after_extension(c, NP_HTTP_E_CHUNK_EXTENSION);
    case STEP_EXT_QUOTED:
        if (c == '"' || c == '\\')
            return c == '"' ? STEP_EXT_END : STEP_EXT_ESCAPED;
        /* fall through */
    case STEP_EXT_ESCAPED:
        if (!np_scan_is_control(c))
            return STEP_EXT_QUOTED;
        break;
    default:
        return after_extension(c, NP_HTTP_E_CHUNK_EXTENSION);
    }
    return -(c == '\n' ? NP_HTTP_E_BARE_LF : NP_HTTP_E_CHUNK_EXTENSION);
}

/* ---- trailers -------------------------------------------------------------------------------- */

/* Names that frame the message, route it or speak of the connection. */
static int is_forbidden(const struct np_body *body)
{
    uint8_t id = np_http_field_id(body->name, body->name_bytes);
    return (id != NP_FIELD_OTHER && id <= NP_FIELD_TE) || id == NP_FIELD_TRAILER;
}

static int read_trailer_name(struct np_body *body, uint8_t c)
{
    if (np_char_is(c, NP_CHAR_TOKEN)) {
        if (body->name_bytes < sizeof(body->name)) /* longer than any that is forbidden */
            body->name[body->name_bytes++] = c;
        return STEP_TRAILER_NAME;
    }
    if (c == ':' && body->name_bytes)
        return is_forbidden(body) ? -NP_HTTP_E_TRAILER_NAME : STEP_TRAILER_VALUE;
    if (np_char_is_blank(c))
        return -(body->name_bytes ? NP_HTTP_E_NAME_SPACE : NP_HTTP_E_FOLD);
    return -(c == '\n' ? NP_HTTP_E_BARE_LF : NP_HTTP_E_NAME);
}

static int read_trailer(struct np_body *body, uint8_t c)
{
    if (body->step == STEP_LINE && c == '\r')
        return STEP_LAST_LF;
    if (++body->trailer_bytes > body->limits->head_max_bytes)
        return -NP_HTTP_E_TRAILERS_LARGE;
    switch (body->step) {
    case STEP_LINE:
        if (body->trailers_count++ == body->limits->fields_max_count)
            return -NP_HTTP_E_TRAILERS_MANY;
        body->name_bytes = 0;
        /* fall through */
    case STEP_TRAILER_NAME:
        return read_trailer_name(body, c);
    case STEP_TRAILER_VALUE:
        if (!np_scan_is_control(c))
            return STEP_TRAILER_VALUE;
        if (c == '\r')
            return STEP_TRAILER_LF;
        return -(c == '\n' ? NP_HTTP_E_BARE_LF : NP_HTTP_E_CONTROL);
    default:
        return c == '\n' ? STEP_LINE : -NP_HTTP_E_BARE_CR;
    }
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* One byte of framing: the next step, or a fault. */
static int read_framing(struct np_body *body, uint8_t c)
{
    if (body->step >= STEP_LINE) {
        if (body->step == STEP_LAST_LF)
            return c == '\n' ? STEP_OVER : -NP_HTTP_E_BARE_CR;
        return read_trailer(body, c);
    }
    if (++body->framing_bytes > body->data_bytes + NP_HTTP_FRAMING_FREE_BYTES)
        return -NP_HTTP_E_CHUNK_WASTE;
    switch (body->step) {
    case STEP_SIZE:
    case STEP_DIGITS:
        return read_size(body, c);
    case STEP_SIZE_LF:
        return c == '\n' ? end_size(body) : -NP_HTTP_E_BARE_CR;
    case STEP_DATA_CR:
        return c == '\r' ? STEP_DATA_LF : -NP_HTTP_E_CHUNK_END;
    case STEP_DATA_LF:
        return c == '\n' ? STEP_SIZE : -NP_HTTP_E_CHUNK_END;
    default:
        return read_extension(body, c);
    }
}

/* Data of the piece from `p` on, at least a byte: how much of it. */
static size_t take_data(struct np_body *body, const uint8_t *p, size_t bytes, struct iovec *place)
{
    if (bytes >= body->left_bytes) {
        bytes = (size_t)body->left_bytes;
        body->step = body->step == STEP_LENGTH ? STEP_OVER : STEP_DATA_CR;
    }
    body->left_bytes -= bytes;
    body->data_bytes += bytes;
    *place = (struct iovec){(void *)(uintptr_t)p, bytes};
    return bytes;
}

int np_body_parse(struct np_body *body, const uint8_t *piece, size_t bytes, struct iovec *data,
                  int max_count, int *count, size_t *taken_bytes)
{
    const uint8_t *p = piece, *end = piece + bytes;
    int result = body->fault;
    *count = 0;
    while (result >= 0 && body->step != STEP_OVER && p < end) {
        if (body->step == STEP_LENGTH || body->step == STEP_DATA) {
            if (*count == max_count) {
                *taken_bytes = (size_t)(p - piece);
                return NP_HTTP_FULL;
            }
            p += take_data(body, p, (size_t)(end - p), &data[(*count)++]);
            continue;
        }
        result = read_framing(body, *p++);
        if (result >= 0)
            body->step = (uint8_t)result;
    }
    *taken_bytes = (size_t)(p - piece);
    if (result < 0)
        return body->fault = (int16_t)result;
    return body->step == STEP_OVER ? NP_HTTP_DONE : NP_HTTP_MORE;
}

int np_body_read(struct np_body *body, const struct np_iov *unread, struct iovec *data,
                 int max_count, int *count, size_t *taken_bytes)
{
    int result = body->fault;
    *count = 0;
    *taken_bytes = 0;
    if (result == 0)
        result = body->step == STEP_OVER ? NP_HTTP_DONE : NP_HTTP_MORE;
    for (uint32_t i = 0; i < unread->count && result == NP_HTTP_MORE; i++) {
        size_t bytes, piece_taken_bytes;
        int piece_count;
        const uint8_t *piece = np_iov_piece(unread, i, &bytes);
        result = np_body_parse(body, piece, bytes, data + *count, max_count - *count, &piece_count,
                               &piece_taken_bytes);
        *count += piece_count;
        *taken_bytes += piece_taken_bytes;
    }
    return result;
}
