/* np_http1.c - reads heads: one pass over the bytes, that can stop and go on anywhere. */
#include "http/np_http1.h"

#include <stdlib.h>
#include <string.h>

#include "base/np_limits.h"
#include "http/np_field.h"
#include "http/np_scan.h"

/* What comes next. A step that runs out of bytes stays, with `at` and `mark` as they are.
 *
 *   START > METHOD > PATH > [QUERY >] VERSION > { LINE > FIELD } > LINE > OVER
 */
enum step {
    STEP_START, /* an empty line may stand before the request */
    STEP_METHOD,
    STEP_PATH, /* the target, up to its '?' */
    STEP_QUERY,
    STEP_VERSION,
    STEP_LINE,  /* a field's first byte, or the CR of the empty line */
    STEP_FIELD, /* the rest of its line */
    STEP_OVER,
};

#define VERSION_LINE "HTTP/1.1\r\n"
#define VERSION_LINE_BYTES 10

struct np_http_limits np_http_default_limits(void)
{
    return (struct np_http_limits){
        .line_max_bytes = NP_HTTP_LINE_MAX_BYTES,
        .head_max_bytes = NP_HTTP_HEAD_MAX_BYTES,
        .fields_max_count = NP_HTTP_FIELDS_MAX_COUNT,
        .body_max_bytes = INT64_MAX,
    };
}

void np_http1_open(struct np_http1 *request, struct np_http_field *fields,
                   const struct np_http_limits *limits)
{
    /* In two halves: of one, gcc makes "rep stosq", which costs each request 5 ns more. */
    memset(request, 0, offsetof(struct np_http1, target));
    memset(&request->target, 0, sizeof(*request) - offsetof(struct np_http1, target));
    request->fields = fields;
    request->limits = limits;
}

void np_http1_close(struct np_http1 *request)
{
    free(request->own);
    request->own = NULL;
}

void np_http1_begin(struct np_http1 *request)
{
    if (request->own)
        np_http1_close(request);
    np_http1_open(request, request->fields, request->limits);
}

const struct np_http_field *np_http1_field(const struct np_http1 *request, uint8_t id)
{
    for (uint32_t i = 0; i < request->fields_count; i++)
        if (request->fields[i].id == id)
            return &request->fields[i];
    return NULL;
}

/* ---- the request line ------------------------------------------------------------------------ */

/* Where the reader is. Each step takes it to the next one (NP_HTTP_DONE), leaves it where the bytes
 * end (NP_HTTP_MORE), or finds a fault. */
struct place {
    const uint8_t *base, *p, *end;
};

static int wait_in(struct np_http1 *request, const struct place *place, uint8_t step)
{
    request->step = step;
    request->at = (uint32_t)(place->p - place->base);
    return NP_HTTP_MORE;
}

/* Of the byte that may not stand there: a line that ends in the wrong way, or `other`. */
static int fault_at(const struct place *place, int other)
{
    return -(*place->p == '\n' ? NP_HTTP_E_BARE_LF : other);
}

static int read_start(struct np_http1 *request, struct place *place)
{
    if (place->p == place->end)
        return wait_in(request, place, STEP_START);
    if (*place->p == '\r') {
        if (place->end - place->p < 2)
            return wait_in(request, place, STEP_START);
        if (place->p[1] != '\n')
            return -NP_HTTP_E_BARE_CR;
        if (place->p != place->base)
            return -NP_HTTP_E_EMPTY_LINE;
        place->p += 2;
        return read_start(request, place);
    }
    request->line_at = request->mark = (uint32_t)(place->p - place->base);
    return NP_HTTP_DONE;
}

static int read_method(struct np_http1 *request, struct place *place)
{
    const uint8_t *first = place->base + request->mark;
    while (place->p < place->end && np_char_is(*place->p, NP_CHAR_TOKEN))
        place->p++;
    size_t bytes = (size_t)(place->p - first);
    if (bytes > NP_HTTP_METHOD_MAX_BYTES)
        return -NP_HTTP_E_METHOD_LONG;
    if (place->p == place->end)
        return wait_in(request, place, STEP_METHOD);
    if (*place->p != ' ' || bytes == 0)
        return fault_at(place, NP_HTTP_E_METHOD);
    request->method = np_http_method(first, bytes);
    request->method_name = (struct np_http_span){request->mark, (uint32_t)bytes};
    place->p++;
    request->mark = (uint32_t)(place->p - place->base);
    return NP_HTTP_DONE;
}

/* The target is complete: its end is where `place` is. */
static int end_target(struct np_http1 *request, struct place *place)
{
    uint32_t at = (uint32_t)(place->p - place->base);
    if (*place->p != ' ' || at == request->mark)
        return fault_at(place, NP_HTTP_E_TARGET);
    request->target = (struct np_http_span){request->mark, at - request->mark};
    place->p++;
    return NP_HTTP_DONE;
}

/* DONE: the target is complete, or its query begins. */
static int read_path(struct np_http1 *request, struct place *place)
{
    for (;;) {
        place->p = np_scan_path(place->p, place->end);
        if (place->p == place->end)
            return wait_in(request, place, STEP_PATH);
        if (*place->p != '%')
            break;
        request->flags |= NP_HTTP_PATH_ENCODED;
        place->p++;
    }
    request->path = (struct np_http_span){request->mark,
                                          (uint32_t)(place->p - place->base) - request->mark};
    if (*place->p != '?')
        return end_target(request, place);
    place->p++;
    request->query.at = (uint32_t)(place->p - place->base);
    return NP_HTTP_DONE;
}

static int read_query(struct np_http1 *request, struct place *place)
{
    place->p = np_scan_visible(place->p, place->end, '#');
    if (place->p == place->end)
        return wait_in(request, place, STEP_QUERY);
    request->query.bytes = (uint32_t)(place->p - place->base) - request->query.at;
    return end_target(request, place);
}

/* The version and the line's end, as far as they are there. */
static int check_version(const uint8_t *p, size_t bytes)
{
    static const char sample[] = VERSION_LINE;
    for (size_t i = 0; i < bytes && i < VERSION_LINE_BYTES; i++) {
        int is_digit = sample[i] == '1';
        if (is_digit ? np_char_is(p[i], NP_CHAR_DIGIT) : p[i] == (uint8_t)sample[i])
            continue;
        if (p[i] == '\n' && i == VERSION_LINE_BYTES - 2)
            return -NP_HTTP_E_BARE_LF;
        return -(i == VERSION_LINE_BYTES - 1 ? NP_HTTP_E_BARE_CR : NP_HTTP_E_VERSION);
    }
    return bytes < VERSION_LINE_BYTES ? NP_HTTP_MORE : NP_HTTP_DONE;
}

/* HTTP/1.1, as two words. */
static inline int is_usual_version(const uint8_t *p)
{
    return memcmp(p, VERSION_LINE, 8) == 0 && memcmp(p + 8, &VERSION_LINE[8], 2) == 0;
}

static int read_version(struct np_http1 *request, struct place *place)
{
    size_t bytes = (size_t)(place->end - place->p);
    request->minor = 1;
    if (bytes < VERSION_LINE_BYTES || !is_usual_version(place->p)) {
        int result = check_version(place->p, bytes);
        if (result == NP_HTTP_MORE)
            return wait_in(request, place, STEP_VERSION);
        if (result < 0)
            return result;
        if (place->p[5] != '1')
            return -NP_HTTP_E_VERSION_UNKNOWN;
        request->minor = place->p[7] != '0';
    }
    place->p += VERSION_LINE_BYTES;
    return NP_HTTP_DONE;
}

/* The bytes of http:// or https:// in front of a target; 0: neither. */
static uint32_t scheme_bytes_of(const uint8_t *target, uint32_t bytes)
{
    static const uint8_t https[] = "https://", http[] = "http://";
    if (bytes >= sizeof(https) - 1 && np_field_is_same(target, https, sizeof(https) - 1))
        return sizeof(https) - 1;
    if (bytes >= sizeof(http) - 1 && np_field_is_same(target, http, sizeof(http) - 1))
        return sizeof(http) - 1;
    return 0;
}

/* http://authority/path: takes the authority off the path. */
static int split_absolute(struct np_http1 *request, const uint8_t *target)
{
    uint32_t scheme_bytes = scheme_bytes_of(target, request->path.bytes);
    if (scheme_bytes == 0)
        return -NP_HTTP_E_TARGET_FORM;
    const uint8_t *authority = target + scheme_bytes;
    uint32_t bytes = request->path.bytes - scheme_bytes;
    const uint8_t *slash = memchr(authority, '/', bytes);
    if (slash)
        bytes = (uint32_t)(slash - authority);
    if (!np_field_is_host(authority, bytes, 0))
        return -NP_HTTP_E_TARGET_AUTHORITY;
    request->form = NP_HTTP_ABSOLUTE;
    request->authority = (struct np_http_span){request->target.at + scheme_bytes, bytes};
    request->path.at += scheme_bytes + bytes;
    request->path.bytes -= scheme_bytes + bytes;
    return NP_HTTP_DONE;
}

/* Which form the target has, and whether the method takes it. */
static int judge_target(struct np_http1 *request, const uint8_t *base)
{
    const uint8_t *target = base + request->target.at;
    if (request->method == NP_HTTP_CONNECT) {
        if (!np_field_is_host(target, request->target.bytes, 1))
            return -NP_HTTP_E_TARGET_AUTHORITY;
        request->form = NP_HTTP_AUTHORITY;
        request->authority = request->target;
        request->path.bytes = 0;
        return NP_HTTP_DONE;
    }
    if (NP_LIKELY(target[0] == '/'))
        return NP_HTTP_DONE;
    if (target[0] == '*' && request->target.bytes == 1 && request->method == NP_HTTP_OPTIONS) {
        request->form = NP_HTTP_ASTERISK;
        return NP_HTTP_DONE;
    }
    return split_absolute(request, target);
}

/* From the method on: no further than the limit of the line. */
static int read_line(struct np_http1 *request, struct place *place)
{
    int result = NP_HTTP_DONE;
    switch (request->step) {
    case STEP_METHOD:
        result = read_method(request, place);
        if (result != NP_HTTP_DONE)
            return result;
        /* fall through */
    case STEP_PATH:
        result = read_path(request, place);
        if (result != NP_HTTP_DONE)
            return result;
        /* fall through */
    case STEP_QUERY:
        if (request->target.bytes == 0)
            result = read_query(request, place);
        if (result != NP_HTTP_DONE)
            return result;
        /* fall through */
    default:
        result = read_version(request, place);
    }
    return result == NP_HTTP_DONE ? judge_target(request, place->base) : result;
}

static int read_request_line(struct np_http1 *request, struct place *place)
{
    if (request->step == STEP_START) {
        int started = read_start(request, place);
        if (started != NP_HTTP_DONE)
            return started;
        request->step = STEP_METHOD;
    }
    struct place line = *place;
    const uint8_t *limit = place->base + request->line_at + request->limits->line_max_bytes;
    if (limit < line.end)
        line.end = limit;
    int result = read_line(request, &line);
    if (result == NP_HTTP_MORE && line.end == limit)
        return -NP_HTTP_E_LINE_LONG;
    place->p = line.p;
    request->step = result == NP_HTTP_DONE ? STEP_LINE : request->step;
    return result;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static int note_host(struct np_http1 *request, const uint8_t *value, uint32_t bytes)
{
    if (request->host)
        return -NP_HTTP_E_HOST_TWICE;
    request->host = request->fields_count + 1;
    return np_field_is_host(value, bytes, 0) ? 0 : -NP_HTTP_E_HOST_INVALID;
}

static int note_length(struct np_http1 *request, const uint8_t *value, uint32_t bytes)
{
    if (request->flags & NP_HTTP_HAS_LENGTH)
        return -NP_HTTP_E_LENGTH_TWICE;
    if (request->flags & NP_HTTP_CHUNKED)
        return -NP_HTTP_E_LENGTH_AND_CODING;
    request->flags |= NP_HTTP_HAS_LENGTH;
    return np_field_length(value, bytes, &request->content_length);
}

static int note_coding(struct np_http1 *request, const uint8_t *value, uint32_t bytes)
{
    if (request->minor == 0)
        return -NP_HTTP_E_CODING_OLD;
    if (request->flags & NP_HTTP_HAS_LENGTH)
        return -NP_HTTP_E_LENGTH_AND_CODING;
    if (request->flags & NP_HTTP_CHUNKED) /* of the line before: this one comes behind it */
        return -NP_HTTP_E_CODING;
    request->flags |= NP_HTTP_CHUNKED;
    return np_field_coding(value, bytes);
}

static int note_connection(struct np_http1 *request, const uint8_t *value, uint32_t bytes)
{
    const uint8_t *at = value, *option;
    size_t option_bytes;
    while (np_field_next(&at, value + bytes, &option, &option_bytes)) {
        if (np_field_is(option, option_bytes, "keep-alive"))
            request->flags |= NP_HTTP_SAYS_KEEP;
        else if (np_field_is(option, option_bytes, "close"))
            request->flags |= NP_HTTP_SAYS_CLOSE;
        else if (np_field_is(option, option_bytes, "upgrade"))
            request->flags |= NP_HTTP_SAYS_UPGRADE;
    }
    return 0;
}

/* A field whose meaning the reader has to know. 0 or a fault. */
static int note(struct np_http1 *request, const struct np_http_field *field, const uint8_t *base)
{
    const uint8_t *value = base + field->value_at;
    uint32_t bytes = field->value_bytes;
    switch (field->id) {
    case NP_FIELD_HOST:
        return note_host(request, value, bytes);
    case NP_FIELD_CONTENT_LENGTH:
        return note_length(request, value, bytes);
    case NP_FIELD_TRANSFER_ENCODING:
        return note_coding(request, value, bytes);
    case NP_FIELD_CONNECTION:
        return note_connection(request, value, bytes);
    case NP_FIELD_UPGRADE:
        request->flags |= NP_HTTP_UPGRADES;
        if (np_field_lists(value, bytes, "websocket"))
            request->flags |= NP_HTTP_WEBSOCKET;
        return 0;
    case NP_FIELD_EXPECT:
        if (np_field_is(value, bytes, "100-continue"))
            request->flags |= NP_HTTP_EXPECTS;
        return 0;
    case NP_FIELD_TE:
        if (np_field_lists(value, bytes, "trailers"))
            request->flags |= NP_HTTP_TAKES_TRAILERS;
    }
    return 0;
}

/* A name that ends at `end`, the first byte that is a colon or not visible: 0 or a fault. */
static inline int take_name(struct np_http_field *field, const uint8_t *base, const uint8_t *name,
                            const uint8_t *end)
{
    size_t bytes = (size_t)(end - name);
    field->id = np_http_field_id(name, bytes);
    field->name_at = (uint32_t)(name - base);
    field->name_bytes = (uint16_t)bytes;
    /* A name that has a number is a token. */
    if (field->id == NP_FIELD_OTHER && !np_field_is_token(name, bytes))
        return -NP_HTTP_E_NAME;
    if (NP_UNLIKELY(bytes > UINT16_MAX))
        return -NP_HTTP_E_HEAD_LARGE;
    if (NP_LIKELY(*end == ':'))
        return 0;
    return -(np_char_is_blank(*end) ? NP_HTTP_E_NAME_SPACE : NP_HTTP_E_NAME);
}

/* The line of a field, which ends at `end`, where a control stands. If that is CR, a byte is behind
 * it. There are bytes up to `limit`. 0 or a fault. */
static inline int take_field(struct np_http1 *request, struct np_http_field *field,
                             const uint8_t *line, const uint8_t *end, const uint8_t *limit)
{
    const uint8_t *base = request->base;
    const uint8_t *colon = np_scan_visible(line, limit, ':'); /* no further than `end` */
    int fault = take_name(field, base, line, colon);
    if (NP_UNLIKELY(end[0] != '\r' || end[1] != '\n')) {
        if (*end == '\n' || *end == '\r')
            return -(*end == '\n' ? NP_HTTP_E_BARE_LF : NP_HTTP_E_BARE_CR);
        return fault ? fault : -NP_HTTP_E_CONTROL;
    }
    if (NP_UNLIKELY(fault))
        return fault;
    const uint8_t *value = colon + 1;
    while (value < end && np_char_is_blank(*value))
        value++;
    while (end > value && np_char_is_blank(end[-1]))
        end--;
    field->value_at = (uint32_t)(value - base);
    field->value_bytes = (uint32_t)(end - value);
    if (field->id > NP_FIELD_TE || field->id == NP_FIELD_OTHER)
        return 0;
    return note(request, field, base);
}

/* A line that begins with something else than a name: DONE when the head is over. */
static int end_or_fault(const uint8_t *p, const uint8_t *end)
{
    if (np_char_is_blank(*p))
        return -NP_HTTP_E_FOLD;
    if (*p != '\r')
        return -(*p == '\n' ? NP_HTTP_E_BARE_LF : NP_HTTP_E_NAME);
    if (end - p < 2)
        return NP_HTTP_MORE;
    return p[1] == '\n' ? NP_HTTP_DONE : -NP_HTTP_E_BARE_CR;
}

/* Line after line, until the empty one. This is where the time goes: what changes stays in
 * variables and is put back at the end. The end of a line is looked for from its beginning on, and
 * not from behind its name: the two searches then do not wait for each other. */
static int read_fields(struct np_http1 *request, struct place *place)
{
    const uint8_t *const base = place->base, *const end = place->end;
    const uint8_t *p = place->p, *line = base + request->mark;
    const struct np_http_field *no_more = request->fields + request->limits->fields_max_count;
    struct np_http_field *field = request->fields + request->fields_count;
    int step = request->step, result = NP_HTTP_MORE;
    while (p < end) {
        if (step == STEP_LINE) {
            if (!np_scan_is_visible(*p)) {
                result = end_or_fault(p, end);
                p += result == NP_HTTP_DONE ? 2 : 0;
                break;
            }
            if (field == no_more)
                return -NP_HTTP_E_FIELDS_MANY;
            line = p;
            step = STEP_FIELD;
        }
        p = np_scan_value(p, end);
        if (p == end || (*p == '\r' && end - p < 2))
            break;
        int fault = take_field(request, field, line, p, end);
        if (fault)
            return fault;
        p += 2;
        field++;
        request->fields_count++;
        step = STEP_LINE;
    }
    place->p = p;
    request->mark = (uint32_t)(line - base);
    request->at = (uint32_t)(p - base);
    request->step = result == NP_HTTP_DONE ? STEP_OVER : (uint8_t)step;
    return result;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* What only the whole head shows. DONE or a fault. */
static int finish(struct np_http1 *request)
{
    uint16_t flags = request->flags;
    if (request->host) {
        const struct np_http_field *host = &request->fields[request->host - 1];
        struct np_http_span value = {host->value_at, host->value_bytes};
        if (request->authority.bytes == 0)
            request->authority = value;
        else if (request->authority.bytes != value.bytes ||
                 !np_field_is_same(request->base + value.at, request->base + request->authority.at,
                                   value.bytes))
            return -NP_HTTP_E_HOST_OTHER;
    } else if (request->minor) {
        return -NP_HTTP_E_HOST_MISSING;
    }
    if (request->content_length > request->limits->body_max_bytes)
        return -NP_HTTP_E_BODY_LARGE;
    if (request->minor ? !(flags & NP_HTTP_SAYS_CLOSE)
                       : (flags & (NP_HTTP_SAYS_KEEP | NP_HTTP_SAYS_CLOSE)) == NP_HTTP_SAYS_KEEP)
        flags |= NP_HTTP_KEEP_ALIVE;
    if (!request->minor || !np_http1_has_body(request))
        flags &= ~NP_HTTP_EXPECTS; /* RFC 9110 10.1.1 */
    if (!request->minor || !(flags & NP_HTTP_SAYS_UPGRADE))
        flags &= ~NP_HTTP_UPGRADES; /* RFC 9110 7.8 */
    if (!(flags & NP_HTTP_UPGRADES) || request->method != NP_HTTP_GET || np_http1_has_body(request))
        flags &= ~NP_HTTP_WEBSOCKET; /* RFC 6455 4.1 */
    request->flags = flags;
    return NP_HTTP_DONE;
}

static int parse_on(struct np_http1 *request, struct place *place)
{
    if (request->step < STEP_LINE) {
        int result = read_request_line(request, place);
        if (result != NP_HTTP_DONE)
            return result;
    }
    int result = read_fields(request, place);
    if (result != NP_HTTP_DONE)
        return result;
    request->head_bytes = (uint32_t)(place->p - place->base);
    return finish(request);
}

int np_http1_parse(struct np_http1 *request, const uint8_t *base, size_t bytes)
{
    if (request->fault)
        return request->fault;
    NP_DCHECK(request->step != STEP_OVER); /* np_http1_begin comes first */
    NP_DCHECK(bytes >= request->at);
    size_t window_bytes = bytes;
    if (window_bytes > request->limits->head_max_bytes)
        window_bytes = request->limits->head_max_bytes;
    struct place place = {base, base + request->at, base + window_bytes};
    request->base = base;
    int result = parse_on(request, &place);
    if (result == NP_HTTP_MORE && window_bytes == request->limits->head_max_bytes)
        result = -NP_HTTP_E_HEAD_LARGE;
    if (result < 0)
        request->fault = (int16_t)result;
    return result;
}

/* Room for `bytes` more in `own`: 0, or a fault. */
static int grow_own(struct np_http1 *request, size_t bytes)
{
    size_t wanted_bytes = request->own_bytes + bytes;
    if (wanted_bytes <= request->own_cap_bytes)
        return 0;
    size_t cap_bytes = request->own_cap_bytes ? request->own_cap_bytes : NP_HTTP_GATHER_BYTES;
    while (cap_bytes < wanted_bytes)
        cap_bytes *= 2;
    uint8_t *grown = realloc(request->own, cap_bytes);
    if (!grown)
        return -NP_HTTP_E_NO_MEMORY;
    request->own = grown;
    request->own_cap_bytes = (uint32_t)cap_bytes;
    return 0;
}

/* Gathers the pieces in `own`, step by step, until the head is complete. */
static int read_gathered(struct np_http1 *request, const struct np_iov *unread, size_t *taken_bytes)
{
    for (uint32_t i = 0; i < unread->count; i++) {
        size_t left_bytes;
        const uint8_t *piece = np_iov_piece(unread, i, &left_bytes);
        while (left_bytes) {
            size_t step_bytes = NP_HTTP_GATHER_BYTES;
            /* What was looked at in place, in the first piece, is not looked at again. */
            if (step_bytes + request->own_bytes < request->at)
                step_bytes = request->at - request->own_bytes;
            if (step_bytes > left_bytes)
                step_bytes = left_bytes;
            int result = grow_own(request, step_bytes);
            if (result < 0)
                return request->fault = (int16_t)result;
            memcpy(request->own + request->own_bytes, piece, step_bytes);
            size_t before_bytes = request->own_bytes;
            request->own_bytes += (uint32_t)step_bytes;
            result = np_http1_parse(request, request->own, request->own_bytes);
            if (result < 0)
                return result;
            *taken_bytes += result == NP_HTTP_DONE ? request->head_bytes - before_bytes
                                                   : step_bytes;
            if (result == NP_HTTP_DONE)
                return result;
            piece += step_bytes;
            left_bytes -= step_bytes;
        }
    }
    return NP_HTTP_MORE;
}

int np_http1_read(struct np_http1 *request, const struct np_iov *unread, size_t *taken_bytes)
{
    *taken_bytes = 0;
    if (request->fault)
        return request->fault;
    if (request->own_bytes == 0 && unread->count) {
        size_t bytes;
        const uint8_t *first = np_iov_piece(unread, 0, &bytes);
        int result = np_http1_parse(request, first, bytes);
        if (result == NP_HTTP_DONE)
            *taken_bytes = request->head_bytes;
        if (result != NP_HTTP_MORE)
            return result;
    }
    return read_gathered(request, unread, taken_bytes);
}
