/* fuzz_body.c - bodies of requests, beside a reader that goes through them from front to back.
 *
 * The model has the whole input and a cursor; the reader (np_body.c) has states and gets the input
 * in pieces. Both have to find the same data, the same end, or a fault at the same byte.
 */
#include "np_fuzz.h"

#include "base/np_limits.h"
#include "http/np_body.h"
#include "http/np_field.h"

enum { MORE = NP_HTTP_MORE, DONE = NP_HTTP_DONE, FAULT = -1, SPANS_COUNT = 3 };

/* ---- the model ------------------------------------------------------------------------------ */

struct model {
    const uint8_t *at, *end;
    const struct np_http_limits *limits;
    uint64_t framing_bytes, data_bytes;
    uint32_t trailer_bytes;
    uint8_t data[NP_FUZZ_INPUT_MAX_BYTES];
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        int outcome = (call);                                                                      \
        if (outcome != DONE)                                                                       \
            return outcome;                                                                        \
    } while (0)

/* The next byte of framing: DONE, or MORE at the end of the input, or FAULT beyond the budget. */
static int next(struct model *model, uint8_t *c)
{
    if (model->at == model->end)
        return MORE;
    *c = *model->at++;
    return ++model->framing_bytes > model->data_bytes + NP_HTTP_FRAMING_FREE_BYTES ? FAULT : DONE;
}

static int expect(struct model *model, uint8_t wanted)
{
    uint8_t c;
    TRY(next(model, &c));
    return c == wanted ? DONE : FAULT;
}

static int is_control(uint8_t c)
{
    return c == 0x7f || (c < ' ' && c != '\t');
}

static int is_token(uint8_t c)
{
    return c && (strchr("!#$%&'*+-.^_`|~", c) || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                 (c >= 'A' && c <= 'Z'));
}

/* The first byte that is no blank. */
static int skip_blanks(struct model *model, uint8_t *c)
{
    do
        TRY(next(model, c));
    while (*c == ' ' || *c == '\t');
    return DONE;
}

/* Behind its first quote; *c is what follows the last one. */
static int quoted(struct model *model, uint8_t *c)
{
    for (;;) {
        TRY(next(model, c));
        if (*c == '"')
            return next(model, c);
        if (*c == '\\')
            TRY(next(model, c));
        if (is_control(*c))
            return FAULT;
    }
}

/* One extension, behind its semicolon; *c is the first byte behind it. *blank: it stood behind
 * white space, so that only another extension may follow. */
static int extension(struct model *model, uint8_t *c, int *blank)
{
    TRY(skip_blanks(model, c));
    if (!is_token(*c))
        return FAULT;
    while (is_token(*c))
        TRY(next(model, c));
    *blank = *c == ' ' || *c == '\t';
    if (*blank)
        TRY(skip_blanks(model, c));
    if (*c != '=')
        return DONE;
    *blank = 0;
    TRY(skip_blanks(model, c));
    if (*c == '"')
        return quoted(model, c);
    if (!is_token(*c))
        return FAULT;
    while (is_token(*c))
        TRY(next(model, c));
    return DONE;
}

/* Size, extensions and line end of one chunk. */
static int chunk_head(struct model *model, uint64_t *size)
{
    uint8_t c;
    int digits = 0, blank = 0;
    *size = 0;
    for (;; digits++) {
        TRY(next(model, &c));
        if (!c || !strchr("0123456789abcdefABCDEF", c))
            break;
        if (digits == 16)
            return FAULT;
        *size = *size * 16 + (uint64_t)strtol((char[]){(char)c, 0}, NULL, 16);
    }
    if (digits == 0)
        return FAULT;
    while (c != '\r' || blank) {
        if (c == ' ' || c == '\t') {
            TRY(skip_blanks(model, &c));
            blank = 1;
        }
        if (c != ';')
            return FAULT;
        blank = 0;
        TRY(extension(model, &c, &blank));
    }
    TRY(expect(model, '\n'));
    return *size <= (uint64_t)model->limits->body_max_bytes - model->data_bytes ? DONE : FAULT;
}

static int is_forbidden(const uint8_t *name, size_t bytes)
{
    static const char *const NAMES[] = {"host",       "content-length", "transfer-encoding",
                                        "connection", "upgrade",        "expect",
                                        "te",         "trailer"};
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++)
        if (strlen(NAMES[i]) == bytes && strncasecmp(NAMES[i], (const char *)name, bytes) == 0)
            return 1;
    return 0;
}

static int trailer_byte(struct model *model, uint8_t *c)
{
    if (model->at == model->end)
        return MORE;
    *c = *model->at++;
    return ++model->trailer_bytes > model->limits->head_max_bytes ? FAULT : DONE;
}

static int trailer(struct model *model)
{
    const uint8_t *name = model->at;
    uint8_t c;
    do
        TRY(trailer_byte(model, &c));
    while (is_token(c));
    size_t bytes = (size_t)(model->at - 1 - name);
    if (c != ':' || bytes == 0 || is_forbidden(name, bytes))
        return FAULT;
    do
        TRY(trailer_byte(model, &c));
    while (!is_control(c));
    if (c != '\r')
        return FAULT;
    TRY(trailer_byte(model, &c));
    return c == '\n' ? DONE : FAULT;
}

static int trailers(struct model *model)
{
    for (uint32_t count = 0;; count++) {
        if (model->at == model->end)
            return MORE;
        if (*model->at == '\r')
            break;
        if (count == model->limits->fields_max_count) {
            model->at++;
            return FAULT;
        }
        TRY(trailer(model));
    }
    model->at++;
    if (model->at == model->end)
        return MORE;
    return *model->at++ == '\n' ? DONE : FAULT;
}

static int take_data(struct model *model, uint64_t size)
{
    uint64_t there = (uint64_t)(model->end - model->at);
    size_t bytes = (size_t)(size < there ? size : there);
    if (bytes)
        memcpy(model->data + model->data_bytes, model->at, bytes);
    model->data_bytes += bytes;
    model->at += bytes;
    return bytes == size ? DONE : MORE;
}

static int chunked(struct model *model)
{
    uint64_t size;
    for (;;) {
        TRY(chunk_head(model, &size));
        if (size == 0)
            return trailers(model);
        TRY(take_data(model, size));
        TRY(expect(model, '\r'));
        TRY(expect(model, '\n'));
    }
}

/* ---- the reader ----------------------------------------------------------------------------- */

struct seen {
    int result;
    size_t taken_bytes, data_bytes;
    uint8_t data[NP_FUZZ_INPUT_MAX_BYTES];
};

/* Reads the input in pieces of the sizes that `random` says. */
static void read_cut(struct np_body *body, const uint8_t *input, size_t bytes,
                     struct np_random *random, struct seen *seen)
{
    size_t at = 0;
    int fault;
    *seen = (struct seen){.result = np_body_is_over(body) ? DONE : MORE};
    while (at < bytes && seen->result == MORE) {
        size_t part = 1 + np_random_below(random, 1u << np_random_below(random, 12));
        part = part < bytes - at ? part : bytes - at;
        uint8_t *piece = np_fuzz_copy(input + at, part);
        size_t used = 0;
        do {
            struct iovec spans[SPANS_COUNT];
            size_t taken;
            int count;
            seen->result = np_body_parse(body, piece + used, part - used, spans, SPANS_COUNT,
                                         &count, &taken);
            for (int i = 0; i < count; i++) {
                NP_ASSERT(spans[i].iov_len > 0);
                memcpy(seen->data + seen->data_bytes, spans[i].iov_base, spans[i].iov_len);
                seen->data_bytes += spans[i].iov_len;
            }
            used += taken;
        } while (seen->result == NP_HTTP_FULL);
        NP_ASSERT(used == part || seen->result != MORE);
        seen->taken_bytes += used;
        at += part;
        free(piece);
    }
    fault = seen->result;
    if (fault < 0) { /* for ever */
        struct iovec span;
        size_t taken;
        int count;
        NP_ASSERT(np_http_fault(fault)->status >= 400);
        NP_ASSERT(np_body_parse(body, input, bytes, &span, 1, &count, &taken) == fault);
        NP_ASSERT(taken == 0 && count == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    static struct model model;
    static struct seen seen;
    struct np_fuzz fuzz = np_fuzz_of(
        input, bytes < NP_FUZZ_INPUT_MAX_BYTES ? bytes : NP_FUZZ_INPUT_MAX_BYTES);
    struct np_http_limits limits = np_http_default_limits();
    struct np_http1 request = {.limits = &limits};
    struct np_random random = np_random_seeded(bytes);
    uint8_t how = np_fuzz_byte(&fuzz);
    uint64_t framing_bytes = 0;
    limits.body_max_bytes = how & 1 ? (int64_t)np_fuzz_number(&fuzz, 2) : INT64_MAX;
    limits.head_max_bytes = how & 2 ? np_fuzz_byte(&fuzz) : limits.head_max_bytes;
    limits.fields_max_count = how & 4 ? np_fuzz_below(&fuzz, 4) : limits.fields_max_count;
    if (how & 8) /* as if so much framing had come before */
        framing_bytes = NP_HTTP_FRAMING_FREE_BYTES - np_fuzz_byte(&fuzz);
    if (how & 16)
        request.content_length = (int64_t)np_fuzz_number(&fuzz, 2);
    else
        request.flags = NP_HTTP_CHUNKED;

    model = (struct model){
        .at = fuzz.at, .end = fuzz.end, .limits = &limits, .framing_bytes = framing_bytes};
    int wanted = how & 16 ? take_data(&model, (uint64_t)request.content_length) : chunked(&model);
    for (int cuts = 0; cuts < 3; cuts++) {
        struct np_body body;
        np_body_begin(&body, &request);
        body.framing_bytes = framing_bytes;
        read_cut(&body, fuzz.at, np_fuzz_left(&fuzz), &random, &seen);
        NP_ASSERT((seen.result < 0 ? FAULT : seen.result) == wanted);
        NP_ASSERT(seen.taken_bytes == (size_t)(model.at - fuzz.at));
        NP_ASSERT(seen.data_bytes == model.data_bytes);
        NP_ASSERT(np_fuzz_is_same(seen.data, model.data, seen.data_bytes));
        NP_ASSERT(np_body_is_over(&body) == (wanted == DONE));
    }
    return 0;
}
