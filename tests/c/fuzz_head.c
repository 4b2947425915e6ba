/* fuzz_head.c - the head of a request, beside a reader that splits it into lines first.
 *
 * The model knows what a good head is, and not which fault a bad one has: a head that is there in
 * full is accepted if it is good, with the same parts, and refused if not. The reader is shown it
 * at once, and grown by a few bytes at a time.
 */
#include "np_fuzz.h"

#include <strings.h>

#include "http/np_field.h"
#include "http/np_http1.h"

enum { FIELDS_MAX_COUNT = 12, HEAD_MAX_BYTES = 1500 };

struct part {
    const uint8_t *at;
    size_t bytes;
};

struct model {
    struct part line, method, target, path, query, authority, host;
    struct part names[FIELDS_MAX_COUNT], values[FIELDS_MAX_COUNT];
    uint32_t count;
    int minor, lengths, codings, hosts, flags;
    int64_t length;
};

/* ---- small things --------------------------------------------------------------------------- */

static const uint8_t *find(struct part in, const char *wanted)
{
    size_t bytes = strlen(wanted);
    for (size_t i = 0; i + bytes <= in.bytes; i++)
        if (memcmp(in.at + i, wanted, bytes) == 0)
            return in.at + i;
    return NULL;
}

/* What stands before `wanted`, taken off with it; all of it where it does not stand. */
static struct part cut(struct part *from, const char *wanted)
{
    const uint8_t *at = find(*from, wanted);
    struct part first = {from->at, at ? (size_t)(at - from->at) : from->bytes};
    size_t taken = first.bytes + (at ? strlen(wanted) : 0);
    *from = (struct part){from->at + taken, from->bytes - taken};
    return first;
}

static struct part trimmed(struct part part)
{
    while (part.bytes && (part.at[0] == ' ' || part.at[0] == '\t'))
        part = (struct part){part.at + 1, part.bytes - 1};
    while (part.bytes && (part.at[part.bytes - 1] == ' ' || part.at[part.bytes - 1] == '\t'))
        part.bytes--;
    return part;
}

static int is_word(struct part part, const char *word)
{
    return part.bytes == strlen(word) && strncasecmp((const char *)part.at, word, part.bytes) == 0;
}

static int lists(struct part list, const char *word)
{
    while (list.bytes)
        if (is_word(trimmed(cut(&list, ",")), word))
            return 1;
    return 0;
}

static int is_same_place(const struct np_http1 *request, struct np_http_span span, struct part part)
{
    return span.bytes == part.bytes && (!span.bytes || request->base + span.at == part.at);
}

/* ---- a good head ---------------------------------------------------------------------------- */

static int is_good_target(struct model *model)
{
    struct part target = model->target, path = target;
    int has_query = find(target, "?") != NULL;
    for (size_t i = 0; i < target.bytes; i++)
        if (target.at[i] <= ' ' || target.at[i] >= 0x7f || target.at[i] == '#')
            return 0;
    model->path = cut(&path, "?");
    model->query = has_query ? path : (struct part){0};
    if (memchr(model->path.at, '%', model->path.bytes))
        model->flags |= NP_HTTP_PATH_ENCODED;
    if (model->method.bytes == 7 && memcmp(model->method.at, "CONNECT", 7) == 0) {
        model->authority = target;
        model->path.bytes = 0;
        return np_field_is_host(target.at, target.bytes, 1);
    }
    if (target.at[0] == '/')
        return 1;
    if (target.at[0] == '*' && target.bytes == 1 && model->method.bytes == 7 &&
        memcmp(model->method.at, "OPTIONS", 7) == 0)
        return 1;
    struct part rest = model->path, scheme = cut(&rest, "://");
    if ((!is_word(scheme, "http") && !is_word(scheme, "https")) || !find(model->path, "://"))
        return 0;
    model->path = rest;
    model->authority = cut(&rest, "/");
    model->path = (struct part){model->path.at + model->authority.bytes,
                                model->path.bytes - model->authority.bytes};
    return np_field_is_host(model->authority.at, model->authority.bytes, 0);
}

static int is_good_line(struct model *model, const struct np_http_limits *limits)
{
    struct part rest = model->line;
    model->method = cut(&rest, " ");
    model->target = cut(&rest, " ");
    if (model->line.bytes + 2 > limits->line_max_bytes || model->method.bytes > 32 ||
        !np_field_is_token(model->method.at, model->method.bytes) || model->target.bytes == 0)
        return 0;
    if (rest.bytes != 8 || memcmp(rest.at, "HTTP/1.", 7) != 0 || rest.at[7] < '0' ||
        rest.at[7] > '9')
        return 0;
    model->minor = rest.at[7] != '0';
    return is_good_target(model);
}

/* What the field says of the message. 0: it may not. */
static int note(struct model *model, struct part name, struct part value)
{
    if (is_word(name, "host")) {
        model->host = value;
        return model->hosts++ == 0 && np_field_is_host(value.at, value.bytes, 0);
    }
    if (is_word(name, "content-length"))
        return model->lengths++ == 0 && np_field_length(value.at, value.bytes, &model->length) == 0;
    if (is_word(name, "transfer-encoding"))
        return model->codings++ == 0 && model->minor && is_word(value, "chunked");
    if (is_word(name, "connection")) {
        model->flags |= lists(value, "close") ? NP_HTTP_SAYS_CLOSE : 0;
        model->flags |= lists(value, "keep-alive") ? NP_HTTP_SAYS_KEEP : 0;
        model->flags |= lists(value, "upgrade") ? NP_HTTP_SAYS_UPGRADE : 0;
    }
    if (is_word(name, "upgrade"))
        model->flags |= NP_HTTP_UPGRADES | (lists(value, "websocket") ? NP_HTTP_WEBSOCKET : 0);
    if (is_word(name, "expect") && is_word(value, "100-continue"))
        model->flags |= NP_HTTP_EXPECTS;
    if (is_word(name, "te") && lists(value, "trailers"))
        model->flags |= NP_HTTP_TAKES_TRAILERS;
    return 1;
}

static int is_good_field(struct model *model, struct part line, const struct np_http_limits *limits)
{
    struct part value = line, name = cut(&value, ":");
    if (model->count == limits->fields_max_count || name.bytes == line.bytes ||
        !np_field_is_token(name.at, name.bytes))
        return 0;
    for (size_t i = 0; i < value.bytes; i++)
        if (value.at[i] == 0x7f || (value.at[i] < ' ' && value.at[i] != '\t'))
            return 0;
    model->names[model->count] = name;
    model->values[model->count++] = trimmed(value);
    return note(model, name, trimmed(value));
}

/* What holds only of some versions, methods and bodies. */
static void settle_flags(struct model *model)
{
    int flags = model->flags, has_body = model->codings || model->length > 0;
    int keeps = model->minor ? !(flags & NP_HTTP_SAYS_CLOSE)
                             : (flags & NP_HTTP_SAYS_KEEP) && !(flags & NP_HTTP_SAYS_CLOSE);
    int upgrades = model->minor && (flags & NP_HTTP_UPGRADES) && (flags & NP_HTTP_SAYS_UPGRADE);
    int is_get = model->method.bytes == 3 && memcmp(model->method.at, "GET", 3) == 0;
    flags |= (keeps ? NP_HTTP_KEEP_ALIVE : 0) | (model->codings ? NP_HTTP_CHUNKED : 0) |
             (model->lengths ? NP_HTTP_HAS_LENGTH : 0);
    if (!model->minor || !has_body)
        flags &= ~NP_HTTP_EXPECTS;
    if (!upgrades)
        flags &= ~(NP_HTTP_UPGRADES | NP_HTTP_WEBSOCKET);
    if (!is_get || has_body)
        flags &= ~NP_HTTP_WEBSOCKET;
    model->flags = flags;
}

/* `head`: up to its empty line, with it. */
static int is_good(struct model *model, struct part head, const struct np_http_limits *limits)
{
    *model = (struct model){.count = 0};
    if (head.bytes > limits->head_max_bytes)
        return 0;
    if (head.bytes > 2 && memcmp(head.at, "\r\n", 2) == 0)
        cut(&head, "\r\n"); /* one empty line before the request is passed over */
    model->line = cut(&head, "\r\n");
    if (!is_good_line(model, limits))
        return 0;
    while (head.bytes > 2)
        if (!is_good_field(model, cut(&head, "\r\n"), limits))
            return 0;
    if ((model->minor && !model->hosts) || (model->lengths && model->codings) ||
        model->length > limits->body_max_bytes)
        return 0;
    if (model->hosts && model->authority.bytes &&
        (model->authority.bytes != model->host.bytes ||
         strncasecmp((const char *)model->authority.at, (const char *)model->host.at,
                     model->host.bytes) != 0))
        return 0;
    if (!model->authority.bytes)
        model->authority = model->host;
    settle_flags(model);
    return 1;
}

/* ---- both ----------------------------------------------------------------------------------- */

static void check(const struct np_http1 *request, const struct model *model, struct part head)
{
    NP_ASSERT(request->head_bytes == head.bytes && request->base == head.at);
    NP_ASSERT(is_same_place(request, request->method_name, model->method));
    NP_ASSERT(is_same_place(request, request->target, model->target));
    NP_ASSERT(is_same_place(request, request->path, model->path));
    NP_ASSERT(is_same_place(request, request->query, model->query));
    NP_ASSERT(is_same_place(request, request->authority, model->authority));
    NP_ASSERT(request->minor == model->minor && request->flags == model->flags);
    NP_ASSERT(request->content_length == model->length);
    NP_ASSERT(request->fields_count == model->count);
    for (uint32_t i = 0; i < model->count; i++) {
        const struct np_http_field *field = &request->fields[i];
        NP_ASSERT(np_http1_name(request, field) == model->names[i].at);
        NP_ASSERT(field->name_bytes == model->names[i].bytes);
        NP_ASSERT(field->value_bytes == model->values[i].bytes);
        NP_ASSERT(!field->value_bytes || np_http1_value(request, field) == model->values[i].at);
    }
}

/* The last result of a reader that sees `step` bytes more at a time. */
static int parse(struct np_http1 *request, const uint8_t *input, size_t bytes, size_t step)
{
    int result = NP_HTTP_MORE;
    np_http1_begin(request);
    for (size_t there = step; result == NP_HTTP_MORE; there += step) {
        there = there < bytes ? there : bytes;
        result = np_http1_parse(request, input, there);
        if (there == bytes)
            break;
    }
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    struct np_http_limits limits = {HEAD_MAX_BYTES, HEAD_MAX_BYTES, FIELDS_MAX_COUNT, INT64_MAX};
    struct np_http_field fields[FIELDS_MAX_COUNT];
    struct np_http1 request;
    struct model model;
    struct np_fuzz fuzz = np_fuzz_of(input, bytes);
    uint8_t how = np_fuzz_byte(&fuzz), step = np_fuzz_byte(&fuzz);
    limits.line_max_bytes = how & 1 ? 1u + np_fuzz_byte(&fuzz) : limits.line_max_bytes;
    limits.head_max_bytes = how & 2 ? 1u + np_fuzz_byte(&fuzz) : limits.head_max_bytes;
    limits.fields_max_count = how & 4 ? np_fuzz_below(&fuzz, 4) : limits.fields_max_count;
    limits.body_max_bytes = how & 8 ? np_fuzz_byte(&fuzz) : limits.body_max_bytes;

    size_t count;
    const uint8_t *at = np_fuzz_bytes(&fuzz, 2 * HEAD_MAX_BYTES, &count);
    uint8_t *copy = np_fuzz_copy(at, count);
    struct part all = {copy, count};
    const uint8_t *end = find(all, "\r\n\r\n");
    struct part head = {copy, end ? (size_t)(end - copy) + 4 : count};
    np_http1_open(&request, fields, &limits);
    int result = parse(&request, copy, count, count);
    if (end) {
        NP_ASSERT((result == NP_HTTP_DONE) == is_good(&model, head, &limits));
        NP_ASSERT(result != NP_HTTP_MORE);
    }
    NP_ASSERT(end || result != NP_HTTP_DONE);
    if (result == NP_HTTP_DONE)
        check(&request, &model, head);
    NP_ASSERT(parse(&request, copy, count, 1 + step) == result);
    if (result == NP_HTTP_DONE)
        check(&request, &model, head);
    np_http1_close(&request);
    free(copy);
    return 0;
}
