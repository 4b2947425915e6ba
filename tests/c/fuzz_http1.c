/* fuzz_http1.c - requests that nobody wrote: however they are cut, the result is the same.
 *
 * Purpose   One input is a stream of requests. It is read in one piece and in pieces of random
 *           sizes, each in memory of its own size, so that the sanitizers see a byte too much. Both
 *           ways have to give the same heads, the same data and the same end.
 * Two ways  As a program: samples, mutated by a seeded generator; some of them in `make test`,
 *           FUZZ_S seconds of them in `make fuzz`. With clang (-fsanitize=fuzzer) `make fuzz` lets
 *           libFuzzer find the inputs instead (NP_LIBFUZZER).
 */
#include "np_test.h"

#include <time.h>

#include "base/np_assert.h"
#include "base/np_limits.h"
#include "http/np_body.h"
#include "http/np_http1.h"

enum { SPANS_COUNT = 4, INPUT_MAX_BYTES = 4096, CHECK_MAX_COUNT = 1024, SHORT_RUN_COUNT = 200000 };

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
        size_t part = random ? 1 + np_random_below(random, 1u << np_random_below(random, 9))
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
    static const struct np_http_limits limits = {512, 1024, 8, 2048};
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

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes);

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

#ifndef NP_LIBFUZZER

static const char *const SAMPLES[] = {
    "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /%41 HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    "5;a=b\r\nhello\r\n1 ; c=\"d\\\"\"\r\n \r\n0\r\nTrailer-A: x\r\n\r\n",
    "GET http://a:80/ HTTP/1.1\r\nHost: a:80\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n",
    "\r\nOPTIONS * HTTP/1.1\r\nhost:\ta \r\nX-A_b: \xc3\xa9\tc\r\n\r\n",
};
static const char *const WORDS[] = {"\r\n",
                                    "\r",
                                    "\n",
                                    " ",
                                    "\t",
                                    ":",
                                    "0",
                                    ";",
                                    "\"",
                                    "%",
                                    "#",
                                    "?",
                                    "*",
                                    "chunked",
                                    "Content-Length: 3\r\n",
                                    "Host: b\r\n",
                                    "Transfer-Encoding: chunked\r\n",
                                    "HTTP/1.0",
                                    "\x80",
                                    "\x7f"};

enum {
    SAMPLES_COUNT = sizeof(SAMPLES) / sizeof(SAMPLES[0]),
    WORDS_COUNT = sizeof(WORDS) / sizeof(WORDS[0])
};

/* Puts `count` bytes in the place of `old` bytes at `at`. */
static size_t splice(uint8_t *input, size_t bytes, size_t at, size_t old, const void *put,
                     size_t count)
{
    if (bytes - old + count > INPUT_MAX_BYTES)
        return bytes;
    memmove(input + at + count, input + at + old, bytes - at - old);
    memcpy(input + at, put, count);
    return bytes - old + count;
}

static size_t mutate(uint8_t *input, size_t bytes, struct np_random *random)
{
    size_t at = np_random_below(random, (uint32_t)bytes + 1);
    size_t old = np_random_below(random, 8);
    uint8_t byte = (uint8_t)np_random_next(random);
    uint8_t again[64];
    old = old < bytes - at ? old : bytes - at;
    switch (np_random_below(random, 4)) {
    case 0:
        return splice(input, bytes, at, old ? 1 : 0, &byte, 1);
    case 1:
        return splice(input, bytes, at, old, &byte, 0);
    case 2: {
        const char *word = WORDS[np_random_below(random, WORDS_COUNT)];
        return splice(input, bytes, at, old / 4, word, strlen(word));
    }
    default: {
        size_t count = bytes - at < sizeof(again) ? bytes - at : sizeof(again);
        memcpy(again, input + at, count);
        return splice(input, bytes, at, 0, again, count);
    }
    }
}

static void fuzz_once(uint64_t seed)
{
    static const uint8_t end[] = "\r\n\r\n";
    struct np_random random = np_random_seeded(seed);
    uint8_t input[INPUT_MAX_BYTES];
    size_t bytes = 0;
    for (uint32_t n = 1 + np_random_below(&random, 3); n > 0; n--) {
        const char *sample = SAMPLES[np_random_below(&random, SAMPLES_COUNT)];
        bytes = splice(input, bytes, bytes, 0, sample, strlen(sample));
    }
    for (uint32_t n = np_random_below(&random, 5); n > 0; n--)
        bytes = mutate(input, bytes, &random);
    bytes = splice(input, bytes, bytes, 0, end, sizeof(end) - 1);
    LLVMFuzzerTestOneInput(input, bytes);
}

int main(void)
{
    const char *seconds = getenv("NP_FUZZ_S");
    time_t until_s = time(NULL) + (seconds ? atoi(seconds) : 0);
    uint64_t seed = 0;
    for (; seed < SHORT_RUN_COUNT || time(NULL) < until_s; seed++)
        fuzz_once(seed);
    printf("fuzz_http1: %llu streams, none of them read in two ways\n", (unsigned long long)seed);
    return 0;
}

#endif
