/* bench_http1.c - nanoseconds that the head of a request takes: `make bench`.
 *
 * Purpose   Real requests, read again and again out of memory that is warm. With RIVALS=DIR, where
 *           DIR has picohttpparser.c and the directory llhttp of llhttp's own src and include, the
 *           same is done with these; each finds the same number of fields.
 * Method    Every reader takes its turn in each of 401 short rounds; the median and the fastest
 *           round are printed, in CPU time of the thread. What is measured is the whole call: from
 *           raw bytes to names, values, framing.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/np_assert.h"
#include "base/np_limits.h"
#include "http/np_http1.h"

#ifdef NP_BENCH_RIVALS
#include "llhttp.h"
#include "picohttpparser.h"
#endif

enum { ROUNDS_COUNT = 401, CALLS_COUNT = 1000 };

struct sample {
    const char *name;
    const char *text;
    uint32_t fields_count;
};

static const struct sample SAMPLES[] = {
    {"hello (wrk), 1 field", "GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n", 1},
    {"curl, 3 fields",
     "GET /api/v1/items/42?expand=owner HTTP/1.1\r\nHost: api.example.com\r\n"
     "User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
     3},
    {"browser of 2012 (picohttpparser's own), 9 fields",
     "GET /wp-content/uploads/2010/03/hello-kitty-darth-vader-pink.jpg HTTP/1.1\r\n"
     "Host: www.kittyhell.com\r\n"
     "User-Agent: Mozilla/5.0 (Macintosh; U; Intel Mac OS X 10.6; ja-JP-mac; rv:1.9.2.3) "
     "Gecko/20100401 Firefox/3.6.3 Pathtraq/0.9\r\n"
     "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
     "Accept-Language: ja,en-us;q=0.7,en;q=0.3\r\n"
     "Accept-Encoding: gzip,deflate\r\n"
     "Accept-Charset: Shift_JIS,utf-8;q=0.7,*;q=0.7\r\n"
     "Keep-Alive: 115\r\n"
     "Connection: keep-alive\r\n"
     "Cookie: wp_ozh_wsa_visits=2; wp_ozh_wsa_visit_lasttime=xxxxxxxxxx; "
     "__utma=xxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.x; "
     "__utmz=xxxxxxxxx.xxxxxxxxxx.x.x.utmccn=(referral)|utmcsr=reader.livedoor.com|"
     "utmcct=/reader/|utmcmd=referral\r\n\r\n",
     9},
    {"browser of 2024, 14 fields",
     "GET /shop/cart?id=8412&ref=home HTTP/1.1\r\n"
     "Host: www.example.com\r\n"
     "Connection: keep-alive\r\n"
     "sec-ch-ua: \"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\n"
     "sec-ch-ua-mobile: ?0\r\n"
     "sec-ch-ua-platform: \"Linux\"\r\n"
     "Upgrade-Insecure-Requests: 1\r\n"
     "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
     "Chrome/124.0.0.0 Safari/537.36\r\n"
     "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*\r\n"
     "Sec-Fetch-Site: same-origin\r\n"
     "Sec-Fetch-Mode: navigate\r\n"
     "Sec-Fetch-Dest: document\r\n"
     "Accept-Encoding: gzip, deflate, br, zstd\r\n"
     "Accept-Language: en-US,en;q=0.9,de;q=0.8\r\n"
     "Cookie: session=3f1c9d2b7a6e4f58; theme=dark; consent=granted\r\n\r\n",
     14},
    {"behind a proxy, JSON, 10 fields",
     "POST /v2/orders HTTP/1.1\r\nHost: orders.internal\r\nX-Real-IP: 203.0.113.9\r\n"
     "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nContent-Length: 128\r\n"
     "Content-Type: application/json\r\nAuthorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.x\r\n"
     "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
     "Accept: application/json\r\nUser-Agent: python-httpx/0.27\r\n\r\n",
     10},
};

/* Reads one sample so many times; returns the fields of the last time. */
typedef uint32_t reader(const struct sample *sample, int calls_count);

static uint32_t read_ours(const struct sample *sample, int calls_count)
{
    struct np_http_field fields[NP_HTTP_FIELDS_MAX_COUNT];
    struct np_http_limits limits = np_http_default_limits();
    struct np_http1 request;
    size_t bytes = strlen(sample->text);
    np_http1_open(&request, fields, &limits);
    for (int i = 0; i < calls_count; i++) {
        np_http1_begin(&request);
        NP_ASSERT(np_http1_parse(&request, (const uint8_t *)sample->text, bytes) == NP_HTTP_DONE);
    }
    return request.fields_count;
}

#ifdef NP_BENCH_RIVALS

static uint32_t read_pico(const struct sample *sample, int calls_count)
{
    size_t bytes = strlen(sample->text), method_bytes, path_bytes, count = 0;
    struct phr_header headers[NP_HTTP_FIELDS_MAX_COUNT];
    const char *method, *path;
    int minor;
    for (int i = 0; i < calls_count; i++) {
        count = NP_HTTP_FIELDS_MAX_COUNT;
        NP_ASSERT(phr_parse_request(sample->text, bytes, &method, &method_bytes, &path, &path_bytes,
                                    &minor, headers, &count, 0) > 0);
    }
    return (uint32_t)count;
}

static int count_field(llhttp_t *parser)
{
    ++*(uint32_t *)parser->data;
    return 0;
}

static int pass_over(llhttp_t *parser, const char *at, size_t bytes)
{
    (void)parser, (void)at, (void)bytes;
    return 0;
}

static uint32_t read_llhttp(const struct sample *sample, int calls_count)
{
    size_t bytes = strlen(sample->text);
    uint32_t count = 0;
    llhttp_settings_t settings;
    llhttp_t parser;
    llhttp_settings_init(&settings);
    settings.on_url = settings.on_header_field = settings.on_header_value = pass_over;
    settings.on_header_value_complete = count_field;
    for (int i = 0; i < calls_count; i++) {
        count = 0;
        llhttp_init(&parser, HTTP_REQUEST, &settings);
        parser.data = &count;
        NP_ASSERT(llhttp_execute(&parser, sample->text, bytes) == HPE_OK);
    }
    return count;
}

#endif

static const struct {
    const char *name;
    reader *read;
} READERS[] = {
    {"netpoll", read_ours},
#ifdef NP_BENCH_RIVALS
    {"picohttpparser", read_pico},
    {"llhttp", read_llhttp},
#endif
};

enum { READERS_COUNT = sizeof(READERS) / sizeof(READERS[0]) };

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static void measure(const struct sample *sample)
{
    double times_ns[READERS_COUNT][ROUNDS_COUNT];
    for (int round = 0; round < ROUNDS_COUNT; round++)
        for (int i = 0; i < READERS_COUNT; i++) {
            double began_ns = now_ns();
            NP_ASSERT(READERS[i].read(sample, CALLS_COUNT) == sample->fields_count);
            times_ns[i][round] = (now_ns() - began_ns) / CALLS_COUNT;
        }
    printf("%s, %zu bytes\n", sample->name, strlen(sample->text));
    for (int i = 0; i < READERS_COUNT; i++) {
        qsort(times_ns[i], ROUNDS_COUNT, sizeof(double), by_value);
        printf("  %-16s %6.0f ns (fastest %.0f)\n", READERS[i].name, times_ns[i][ROUNDS_COUNT / 2],
               times_ns[i][0]);
    }
}

int main(void)
{
    for (size_t i = 0; i < sizeof(SAMPLES) / sizeof(SAMPLES[0]); i++)
        measure(&SAMPLES[i]);
    return 0;
}
