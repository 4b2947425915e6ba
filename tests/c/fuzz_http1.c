/* fuzz_http1.c - requests that nobody wrote: however they are cut, the result is the same.
 *
 * Purpose   One input is a stream of requests. It is read in one piece and in pieces of random
 *           sizes, each in memory of its own size, so that the sanitizers see a byte too much. Both
 *           ways have to give the same heads, the same data and the same end.
 */
#include "np_fuzz.h"

#include "base/np_limits.h"
#include "http/np_body.h"
#include "http/np_http1.h"

enum { SPANS_COUNT = 4, INPUT_MAX_BYTES = NP_FUZZ_INPUT_MAX_BYTES };

/* What a reader saw of a stream: sums that tell two of them apart. */
struct seen {
    int result;
    uint32_t heads_count;
    uint64_t head_sum, data_sum, data_bytes;
};

static uint64_t mix(uint64_t sum, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum = (sum ^ bytes[i]) * 0x100000001B3u;
    return sum;
}

static void see_head(struct seen *seen, const struct np_http1 *request)
{
    seen->heads_count++;
    seen->head_sum = mix(seen->head_sum, request->base + request->target.at, request->target.bytes);
    seen->head_sum = mix(seen->head_sum, request->base + request->authority.at,
                         request->authority.bytes);
    for (uint32_t i = 0; i < request->fields_count; i++) {
        const struct np_http_field *field = &request->fields[i];
        seen->head_sum = mix(seen->head_sum, np_http1_name(request, field), field->name_bytes);
        seen->head_sum = mix(seen->head_sum, np_http1_value(request, field), field->value_bytes);
    }
    seen->head_sum = (seen->head_sum ^ request->flags) * 31 + (uint64_t)request->content_length;
}

/* The unread bytes of a connection, in pieces; the heap holds each with no byte to spare. */
struct stream {
    struct np_iov iov;
    struct np_chunk chunks[INPUT_MAX_BYTES];
};

static void open_stream(struct stream *stream, const uint8_t *input, size_t bytes,
                        struct np_random *random)
{
    memset(&stream->iov, 0, sizeof(stream->iov));
    stream->iov.chunks = stream->chunks;
    stream->iov.cap = INPUT_MAX_BYTES;
    while (bytes) {
        size_t part = random ? 1 + np_random_below(random, 1u << np_random_below(random, 12))
                             : bytes;
        part = part < bytes ? part : bytes;
        uint8_t *piece = malloc(part);
        memcpy(piece, input, part);
        stream->chunks[stream->iov.count++] = (struct np_chunk){piece, piece, part};
        stream->iov.total_bytes += part;
        input += part;
        bytes -= part;
    }
}

static void advance(struct np_iov *iov, size_t bytes)
{
    NP_ASSERT(bytes <= iov->total_bytes);
    iov->total_bytes -= bytes;
    iov->skip_bytes += bytes;
    while (iov->count && iov->skip_bytes >= iov->chunks[iov->head].len_bytes) {
        iov->skip_bytes -= iov->chunks[iov->head].len_bytes;
        free(iov->chunks[iov->head].owner);
        iov->head = (iov->head + 1) & (iov->cap - 1);
        iov->count--;
    }
}

/* Reads a body: the last result. */
static int read_body(struct stream *stream, const struct np_http1 *request, struct seen *seen)
{
    struct np_body body;
    int result = NP_HTTP_FULL;
    np_body_begin(&body, request);
    while (result == NP_HTTP_FULL) {
        struct iovec spans[SPANS_COUNT];
        size_t taken;
        int count;
        result = np_body_read(&body, &stream->iov, spans, SPANS_COUNT, &count, &taken);
        for (int i = 0; i < count; i++) {
            seen->data_sum = mix(seen->data_sum, spans[i].iov_base, spans[i].iov_len);
            seen->data_bytes += spans[i].iov_len;
        }
        advance(&stream->iov, taken);
    }
    return result;
}

static struct seen read_stream(const uint8_t *input, size_t bytes, struct np_random *random)
{
    static const struct np_http_limits limits = {512, 3000, 8, 2048};
    struct np_http_field fields[8];
    struct np_http1 request;
    struct seen seen = {0};
    struct stream stream;
    open_stream(&stream, input, bytes, random);
    np_http1_open(&request, fields, &limits);
    while (stream.iov.count) {
        size_t taken;
        np_http1_begin(&request);
        seen.result = np_http1_read(&request, &stream.iov, &taken);
        if (seen.result == NP_HTTP_DONE)
            see_head(&seen, &request);
        advance(&stream.iov, taken);
        if (seen.result == NP_HTTP_DONE)
            seen.result = read_body(&stream, &request, &seen);
        if (seen.result != NP_HTTP_DONE)
            break;
    }
    advance(&stream.iov, stream.iov.total_bytes);
    np_http1_close(&request);
    return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    struct np_random random = np_random_seeded(bytes + 1);
    if (bytes > INPUT_MAX_BYTES)
        bytes = INPUT_MAX_BYTES;
    struct seen whole = read_stream(input, bytes, NULL);
    struct seen cut = read_stream(input, bytes, &random);
    NP_ASSERT(whole.result == cut.result);
    NP_ASSERT(whole.heads_count == cut.heads_count);
    NP_ASSERT(whole.head_sum == cut.head_sum);
    /* A fault ends both at the same byte, so the data before it is the same as well. */
    NP_ASSERT(whole.data_bytes == cut.data_bytes);
    NP_ASSERT(whole.data_sum == cut.data_sum);
    return 0;
}
