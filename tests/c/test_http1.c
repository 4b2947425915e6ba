/* test_http1.c - heads of requests: what is read, every rule, every cut, every limit. */
#include "np_test.h"

#include "base/np_limits.h"
#include "http/np_http1.h"

#define TEXT(literal) (literal), sizeof(literal) - 1

struct fixture {
    struct np_http_limits limits;
    struct np_http_field fields[NP_HTTP_FIELDS_MAX_COUNT];
    struct np_http1 request;
};

static void open_fixture(struct fixture *f)
{
    f->limits = np_http_default_limits();
    np_http1_open(&f->request, f->fields, &f->limits);
}

static void assert_text(const struct np_http1 *request, uint32_t at, size_t bytes, const char *text)
{
    assert_int_equal(bytes, strlen(text));
    assert_memory_equal(request->base + at, text, bytes);
}

static void assert_span(const struct np_http1 *request, struct np_http_span span, const char *text)
{
    assert_text(request, span.at, span.bytes, text);
}

static void assert_field(const struct np_http1 *request, uint32_t i, const char *name,
                         const char *value)
{
    const struct np_http_field *field = &request->fields[i];
    assert_true(i < request->fields_count);
    assert_text(request, field->name_at, field->name_bytes, name);
    assert_text(request, field->value_at, field->value_bytes, value);
}

/* ---- ways to bring the bytes ----------------------------------------------------------------- */

/* All at once, ending at an unreadable page. */
static int read_whole(struct np_http1 *request, const char *text, size_t bytes,
                      struct np_guarded *memory)
{
    *memory = np_guarded_open(bytes);
    memcpy(memory->base, text, bytes);
    return np_http1_parse(request, memory->base, bytes);
}

/* One more byte with each call, and the memory is another one each time. */
static int read_in_bytes(struct np_http1 *request, const char *text, size_t bytes)
{
    int result = NP_HTTP_MORE;
    for (size_t n = 0; n <= bytes && result == NP_HTTP_MORE; n++) {
        struct np_guarded memory = np_guarded_open(n ? n : 1);
        memcpy(memory.base, text, n);
        result = np_http1_parse(request, memory.base, n);
        if (result == NP_HTTP_MORE) /* only the version is waited for as a whole */
            assert_true(request->at + sizeof("HTTP/1.1\r\n") - 1 > n);
        np_guarded_close(&memory);
    }
    return result;
}

/* Two pieces, which are there at once or come one after the other. */
static int read_cut(struct np_http1 *request, const char *text, size_t bytes, size_t cut,
                    int at_once, size_t *head_bytes)
{
    struct np_chunk chunks[2] = {{NULL, (const uint8_t *)text, cut},
                                 {NULL, (const uint8_t *)text + cut, bytes - cut}};
    struct np_iov iov = {chunks, 0, at_once ? 2 : 1, 2, 0, bytes};
    size_t taken_bytes;
    int result = np_http1_read(request, &iov, &taken_bytes);
    *head_bytes = taken_bytes;
    if (at_once || result != NP_HTTP_MORE)
        return result;
    assert_int_equal(taken_bytes, cut); /* what is incomplete is taken off at once */
    iov = (struct np_iov){chunks + 1, 0, 1, 1, 0, bytes - cut};
    result = np_http1_read(request, &iov, &taken_bytes);
    *head_bytes += taken_bytes;
    return result;
}

/* The same result however the bytes come. */
static void check(const char *text, size_t bytes, int wanted)
{
    struct fixture f;
    struct np_guarded memory;
    open_fixture(&f);
    int result = read_whole(&f.request, text, bytes, &memory);
    if (result != wanted)
        print_error("%d instead of %d: %s\n", result, wanted, text);
    assert_int_equal(result, wanted);
    size_t all_bytes = f.request.head_bytes;
    np_guarded_close(&memory);
    np_http1_begin(&f.request);
    assert_int_equal(read_in_bytes(&f.request, text, bytes), wanted);
    for (size_t cut = 1; cut < bytes; cut++)
        for (int at_once = 0; at_once < 2; at_once++) {
            size_t head_bytes;
            np_http1_begin(&f.request);
            assert_int_equal(read_cut(&f.request, text, bytes, cut, at_once, &head_bytes), wanted);
            if (wanted == NP_HTTP_DONE)
                assert_int_equal(head_bytes, all_bytes);
        }
    np_http1_close(&f.request);
}

/* ---- what is read ---------------------------------------------------------------------------- */

static const char SAMPLE[] = "POST /a%20b/c?x=1&y=%2f HTTP/1.1\r\n"
                             "Host: example.com:8080\r\n"
                             "X-Empty:\r\n"
                             "X-Blank: \t \r\n"
                             "content-LENGTH:\t12 \t\r\n"
                             "Connection: Keep-Alive, Upgrade\r\n"
                             "Expect: 100-Continue\r\n"
                             "TE: deflate, trailers\r\n"
                             "x-forwarded-for: 1.2.3.4\r\n"
                             "Utf: caf\xc3\xa9 \xff\r\n"
                             "\r\n";

static void check_sample(const struct np_http1 *request)
{
    assert_int_equal(request->method, NP_HTTP_POST);
    assert_span(request, request->method_name, "POST");
    assert_span(request, request->target, "/a%20b/c?x=1&y=%2f");
    assert_span(request, request->path, "/a%20b/c");
    assert_span(request, request->query, "x=1&y=%2f");
    assert_span(request, request->authority, "example.com:8080");
    assert_int_equal(request->minor, 1);
    assert_int_equal(request->form, NP_HTTP_ORIGIN);
    assert_int_equal(request->content_length, 12);
    assert_int_equal(request->flags, NP_HTTP_KEEP_ALIVE | NP_HTTP_HAS_LENGTH | NP_HTTP_EXPECTS |
                                         NP_HTTP_TAKES_TRAILERS | NP_HTTP_PATH_ENCODED |
                                         NP_HTTP_SAYS_KEEP | NP_HTTP_SAYS_UPGRADE);
    assert_int_equal(request->fields_count, 9);
    assert_field(request, 0, "Host", "example.com:8080");
    assert_field(request, 1, "X-Empty", "");
    assert_field(request, 2, "X-Blank", "");
    assert_field(request, 3, "content-LENGTH", "12");
    assert_field(request, 8, "Utf", "caf\xc3\xa9 \xff");
    assert_int_equal(request->fields[1].id, NP_FIELD_OTHER);
    assert_int_equal(request->fields[3].id, NP_FIELD_CONTENT_LENGTH);
    assert_ptr_equal(np_http1_field(request, NP_FIELD_X_FORWARDED_FOR), &request->fields[7]);
    assert_null(np_http1_field(request, NP_FIELD_COOKIE));
}

static void a_head_is_read_in_place(void **state)
{
    struct fixture f;
    struct np_guarded memory;
    (void)state;
    open_fixture(&f);
    assert_int_equal(read_whole(&f.request, SAMPLE, sizeof(SAMPLE) - 1, &memory), NP_HTTP_DONE);
    assert_int_equal(f.request.head_bytes, sizeof(SAMPLE) - 1);
    assert_ptr_equal(f.request.base, memory.base);
    assert_null(f.request.own);
    check_sample(&f.request);
    np_guarded_close(&memory);
}

static void a_head_is_read_over_every_cut(void **state)
{
    struct fixture f;
    size_t head_bytes;
    (void)state;
    open_fixture(&f);
    for (size_t cut = 1; cut < sizeof(SAMPLE) - 1; cut++)
        for (int at_once = 0; at_once < 2; at_once++) {
            np_http1_begin(&f.request);
            assert_int_equal(
                read_cut(&f.request, SAMPLE, sizeof(SAMPLE) - 1, cut, at_once, &head_bytes),
                NP_HTTP_DONE);
            assert_int_equal(head_bytes, sizeof(SAMPLE) - 1);
            check_sample(&f.request);
        }
    np_http1_close(&f.request);
}

static void a_head_in_many_pieces_is_gathered_once(void **state)
{
    struct fixture f;
    struct np_chunk chunks[64];
    size_t bytes = sizeof(SAMPLE) - 1, taken_bytes;
    (void)state;
    open_fixture(&f);
    for (int i = 0; i < 64; i++) { /* what lies behind the head is in the last one */
        size_t from = bytes * (size_t)i / 63;
        size_t to = i == 63 ? bytes + 1 : bytes * (size_t)(i + 1) / 63;
        chunks[i] = (struct np_chunk){NULL, (const uint8_t *)SAMPLE + from, to - from};
    }
    struct np_iov iov = {chunks, 0, 64, 64, 0, bytes + 1};
    assert_int_equal(np_http1_read(&f.request, &iov, &taken_bytes), NP_HTTP_DONE);
    assert_int_equal(taken_bytes, bytes);
    assert_ptr_equal(f.request.base, f.request.own);
    check_sample(&f.request);
    np_http1_close(&f.request);
}

static void a_large_piece_behind_a_cut_head_is_not_copied(void **state)
{
    static char rest[NP_HTTP_HEAD_MAX_BYTES];
    struct fixture f;
    size_t head_bytes = 50, taken_bytes;
    (void)state;
    open_fixture(&f);
    memset(rest, 'x', sizeof(rest));
    memcpy(rest, SAMPLE + head_bytes, sizeof(SAMPLE) - 1 - head_bytes);
    struct np_chunk chunks[2] = {{NULL, (const uint8_t *)SAMPLE, head_bytes},
                                 {NULL, (const uint8_t *)rest, sizeof(rest)}};
    struct np_iov iov = {chunks, 0, 2, 2, 0, head_bytes + sizeof(rest)};
    assert_int_equal(np_http1_read(&f.request, &iov, &taken_bytes), NP_HTTP_DONE);
    assert_int_equal(taken_bytes, sizeof(SAMPLE) - 1);
    assert_true(f.request.own_bytes <= head_bytes + NP_HTTP_GATHER_BYTES);
    check_sample(&f.request);
    np_http1_close(&f.request);
}

/* Larger than a step of gathering: in place, more was looked at than the first step copies. */
static void a_large_head_is_read_over_every_cut(void **state)
{
    (void)state;
    char text[5000];
    const char *line = "GET /%01500d HTTP/1.1\r\nhost: a\r\n";
    size_t bytes = (size_t)snprintf(text, sizeof(text), line, 1);
    for (int i = 0; i < 2; i++)
        bytes += (size_t)snprintf(text + bytes, sizeof(text) - bytes, "x-%d: %01200d\r\n", i, i);
    bytes += (size_t)snprintf(text + bytes, sizeof(text) - bytes, "\r\n");
    check(text, bytes, NP_HTTP_DONE);
}

static void pipelined_requests_are_read_one_after_the_other(void **state)
{
    static const char text[] = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
                               "\r\nGET /22 HTTP/1.1\r\nHost: a\r\n\r\n"
                               "GET /3 HTTP/1.0\r\n\r\n";
    static const char *const paths[] = {"/1", "/22", "/3"};
    struct fixture f;
    (void)state;
    open_fixture(&f);
    struct np_chunk chunk = {NULL, (const uint8_t *)text, sizeof(text) - 1};
    struct np_iov iov = {&chunk, 0, 1, 1, 0, sizeof(text) - 1};
    for (int i = 0; i < 3; i++) {
        size_t taken_bytes;
        np_http1_begin(&f.request);
        assert_int_equal(np_http1_read(&f.request, &iov, &taken_bytes), NP_HTTP_DONE);
        assert_span(&f.request, f.request.path, paths[i]);
        assert_int_equal(f.request.minor, i < 2);
        iov.skip_bytes += taken_bytes;
    }
    assert_int_equal(iov.skip_bytes, sizeof(text) - 1);
    np_http1_close(&f.request);
}

static void memory_that_moves_is_followed(void **state)
{
    struct fixture f;
    char copy[sizeof(SAMPLE)];
    (void)state;
    open_fixture(&f);
    assert_int_equal(np_http1_parse(&f.request, (const uint8_t *)SAMPLE, sizeof(SAMPLE) - 1),
                     NP_HTTP_DONE);
    memcpy(copy, SAMPLE, sizeof(SAMPLE));
    f.request.base = (const uint8_t *)copy;
    check_sample(&f.request);
}

/* ---- every rule ------------------------------------------------------------------------------ */

#define HOST "Host: a\r\n"

struct row {
    const char *text;
    size_t bytes;
    int result; /* NP_HTTP_DONE, NP_HTTP_MORE, or the fault without its sign */
    int is_fault;
};

#define GOOD(literal) {TEXT(literal), NP_HTTP_DONE, 0}
#define CUT(literal) {TEXT(literal), NP_HTTP_MORE, 0}
#define BAD(literal, fault) {TEXT(literal), NP_HTTP_E_##fault, 1}
#define LINE(line) line " HTTP/1.1\r\n" HOST "\r\n"
#define FIELD(field) "GET / HTTP/1.1\r\n" HOST field "\r\n\r\n"
#define HOST_IS(host) "GET / HTTP/1.1\r\nHost: " host "\r\n\r\n"

static const struct row ROWS[] = {
    /* Before the request: one empty line. */
    GOOD("\r\n" LINE("GET /")),
    BAD("\r\n\r\n" LINE("GET /"), EMPTY_LINE),
    BAD("\n" LINE("GET /"), BARE_LF),
    BAD("\r" LINE("GET /"), BARE_CR),
    BAD(" " LINE("GET /"), METHOD),
    CUT(""),
    CUT("\r\n"),
    /* The method: a token, in the case that it has, and one space. */
    GOOD(LINE("get /")),
    GOOD(LINE("PROPFIND /")),
    GOOD(LINE("!#$%&'*+-.^_`|~09azAZ /")),
    BAD(LINE("G(T /"), METHOD),
    BAD(LINE("GET\t/"), METHOD),
    BAD(LINE("G\0T /"), METHOD),
    BAD(LINE("G\x80T /"), METHOD),
    BAD("GET\r\n\r\n", METHOD),
    BAD("GET\n", BARE_LF),
    BAD("\x16\x03\x01\x02", METHOD), /* TLS */
    GOOD(LINE("M2345678901234567890123456789012 /")),
    BAD(LINE("M23456789012345678901234567890123 /"), METHOD_LONG),
    /* The target. */
    GOOD(LINE("GET /\"<>\\^`{|}~!$&'()*+,;=:@[]")),
    GOOD(LINE("GET //a/../b?c?d=/?")),
    GOOD(LINE("GET /?")),
    GOOD(LINE("GET /%zz%")),
    BAD(LINE("GET  /"), TARGET),
    BAD(LINE("GET / x"), VERSION),
    BAD(LINE("GET /#a"), TARGET),
    BAD(LINE("GET /?a#b"), TARGET),
    BAD(LINE("GET /\x01"), TARGET),
    BAD(LINE("GET /\0"), TARGET),
    BAD(LINE("GET /?\x7f"), TARGET),
    BAD(LINE("GET /\xc3\xa9"), TARGET),
    BAD(LINE("GET /?\xff"), TARGET),
    BAD(LINE("GET /\t"), TARGET),
    BAD("GET /\r\n\r\n", TARGET),
    BAD("GET /\n", BARE_LF),
    BAD("GET /?\n", BARE_LF),
    /* Its form fits the method. */
    GOOD(LINE("OPTIONS *")),
    GOOD(LINE("OPTIONS /")),
    BAD(LINE("GET *"), TARGET_FORM),
    BAD(LINE("OPTIONS **"), TARGET_FORM),
    BAD(LINE("OPTIONS *?"), TARGET_FORM),
    BAD(LINE("GET a/b"), TARGET_FORM),
    BAD(LINE("GET ?a"), TARGET_FORM),
    BAD(LINE("GET a:80"), TARGET_FORM),
    BAD(LINE("GET ftp://a/"), TARGET_FORM),
    BAD(LINE("GET http:/a"), TARGET_FORM),
    GOOD(LINE("GET http://a/b?c")),
    GOOD(LINE("GET HTTPS://A/b")),
    GOOD(LINE("GET http://a")),
    GOOD(LINE("GET http://a?b")),
    BAD(LINE("GET http:///b"), TARGET_AUTHORITY),
    BAD(LINE("GET http://u@a/b"), TARGET_AUTHORITY),
    BAD(LINE("GET http://a:b/"), TARGET_AUTHORITY),
    BAD(LINE("GET http://b/"), HOST_OTHER),
    BAD(LINE("GET http://a:80/"), HOST_OTHER),
    GOOD("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    GOOD("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"),
    BAD(LINE("CONNECT a"), TARGET_AUTHORITY),
    BAD(LINE("CONNECT a:"), TARGET_AUTHORITY),
    BAD(LINE("CONNECT /"), TARGET_AUTHORITY),
    BAD(LINE("CONNECT a:443?b"), TARGET_AUTHORITY),
    BAD(LINE("CONNECT a:443"), HOST_OTHER),
    /* The version. */
    GOOD("GET / HTTP/1.0\r\n\r\n"),
    GOOD("GET / HTTP/1.9\r\n" HOST "\r\n"),
    BAD("GET / HTTP/2.0\r\n\r\n", VERSION_UNKNOWN),
    BAD("GET / HTTP/0.9\r\n\r\n", VERSION_UNKNOWN),
    BAD("PRI * HTTP/2.0\r\n\r\n", VERSION_UNKNOWN),
    BAD("GET / HTTP/11\r\n\r\n", VERSION),
    BAD("GET / HTTP/1.10\r\n\r\n", VERSION),
    BAD("GET / HTTP/1.1 \r\n\r\n", VERSION),
    BAD("GET /  HTTP/1.1\r\n\r\n", VERSION),
    BAD("GET / http/1.1\r\n\r\n", VERSION),
    BAD("GET / \r\n\r\n", VERSION),
    BAD("GET / HTTP/1.1\n", BARE_LF),
    BAD("GET / HTTP/1.1\rX", BARE_CR),
    /* Line ends, folds, names. */
    BAD(FIELD("A: b\nC: d"), BARE_LF),
    BAD(FIELD("A: b\rC: d"), BARE_CR),
    BAD(FIELD("A: b\r\rC: d"), BARE_CR),
    BAD("GET / HTTP/1.1\r\n" HOST "\n", BARE_LF),
    BAD("GET / HTTP/1.1\r\n" HOST "\rX", BARE_CR),
    BAD(FIELD("A\n"), BARE_LF),
    BAD(FIELD("A(\n"), BARE_LF),
    BAD(FIELD("A: b\r\n c"), FOLD),
    BAD(FIELD("A: b\r\n\tc"), FOLD),
    BAD("GET / HTTP/1.1\r\n Host: a\r\n\r\n", FOLD),
    BAD(FIELD("A : b"), NAME_SPACE),
    BAD(FIELD("A\t: b"), NAME_SPACE),
    BAD(FIELD("Host : b"), NAME_SPACE),
    BAD(FIELD(": b"), NAME),
    BAD(FIELD("A"), NAME),
    BAD(FIELD("A b"), NAME_SPACE),
    BAD(FIELD("A(: b"), NAME),
    BAD(FIELD("A\0: b"), NAME),
    BAD(FIELD("A\x80: b"), NAME),
    BAD(FIELD("\x7f: b"), NAME),
    GOOD(FIELD("A_b: c")),
    GOOD(FIELD("!#$%&'*+-.^_`|~: c")),
    /* Values. */
    GOOD(FIELD("A: \"b\t,\x80\xff")),
    BAD(FIELD("A: b\0"), CONTROL),
    BAD(FIELD("A: \x01"), CONTROL),
    BAD(FIELD("A: b\x7f"), CONTROL),
    BAD(FIELD("A: b\x0b"), CONTROL),
    BAD(FIELD("A: 0123456789abcdefghijklmnop\0qrst"), CONTROL),
    /* Host. */
    BAD("GET / HTTP/1.1\r\n\r\n", HOST_MISSING),
    BAD("GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", HOST_MISSING),
    BAD(FIELD("Host: a"), HOST_TWICE),
    BAD("GET / HTTP/1.0\r\n" HOST HOST "\r\n", HOST_TWICE),
    BAD("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", HOST_INVALID),
    BAD(HOST_IS(""), HOST_INVALID),
    BAD(HOST_IS("a/b"), HOST_INVALID),
    BAD(HOST_IS("a, b"), HOST_INVALID),
    BAD(HOST_IS("u@a"), HOST_INVALID),
    BAD(HOST_IS(":80"), HOST_INVALID),
    BAD(HOST_IS("a:8a"), HOST_INVALID),
    BAD(HOST_IS("a:65536"), HOST_INVALID),
    BAD(HOST_IS("a:80:80"), HOST_INVALID),
    BAD(HOST_IS("a\x80"), HOST_INVALID),
    BAD(HOST_IS("a%zz"), HOST_INVALID),
    BAD(HOST_IS("a%4"), HOST_INVALID),
    BAD(HOST_IS("[::1"), HOST_INVALID),
    BAD(HOST_IS("[]"), HOST_INVALID),
    BAD(HOST_IS("[::g]"), HOST_INVALID),
    BAD(HOST_IS("[1.2.3.4]"), HOST_INVALID),
    BAD(HOST_IS("[::1]a"), HOST_INVALID),
    BAD(HOST_IS("::1"), HOST_INVALID),
    GOOD(HOST_IS("a:")),
    GOOD(HOST_IS("a:65535")),
    GOOD(HOST_IS("a_b-c.d~!$&'()*+,;=%41")),
    GOOD(HOST_IS("[::ffff:1.2.3.4]:80")),
    /* Content-Length. */
    GOOD(FIELD("Content-Length: 0")),
    GOOD(FIELD("Content-Length: 007")),
    GOOD(FIELD("Content-Length: 9223372036854775807")),
    BAD(FIELD("Content-Length: 9223372036854775808"), LENGTH),
    BAD(FIELD("Content-Length: 18446744073709551617"), LENGTH),
    BAD(FIELD("Content-Length: 99999999999999999999999"), LENGTH),
    BAD(FIELD("Content-Length:"), LENGTH),
    BAD(FIELD("Content-Length: +1"), LENGTH),
    BAD(FIELD("Content-Length: -1"), LENGTH),
    BAD(FIELD("Content-Length: 0x1"), LENGTH),
    BAD(FIELD("Content-Length: 1_0"), LENGTH),
    BAD(FIELD("Content-Length: 1 0"), LENGTH),
    BAD(FIELD("Content-Length: 5, 5"), LENGTH),
    BAD(FIELD("Content-Length: 5\r\nContent-Length: 5"), LENGTH_TWICE),
    BAD(FIELD("Content-Length: 5\r\nContent-Length: 6"), LENGTH_TWICE),
    /* Transfer-Encoding. */
    GOOD(FIELD("Transfer-Encoding: chunked")),
    GOOD(FIELD("Transfer-Encoding: \tChUnKeD ")),
    BAD(FIELD("Content-Length: 5\r\nTransfer-Encoding: chunked"), LENGTH_AND_CODING),
    BAD(FIELD("Transfer-Encoding: chunked\r\nContent-Length: 5"), LENGTH_AND_CODING),
    BAD(FIELD("Transfer-Encoding:"), CODING),
    BAD(FIELD("Transfer-Encoding: gzip"), CODING),
    BAD(FIELD("Transfer-Encoding: identity"), CODING),
    BAD(FIELD("Transfer-Encoding: xchunked"), CODING),
    BAD(FIELD("Transfer-Encoding: chunked\x0b"), CONTROL),
    BAD(FIELD("Transfer-Encoding: chunked, chunked"), CODING),
    BAD(FIELD("Transfer-Encoding: chunked, gzip"), CODING),
    BAD(FIELD("Transfer-Encoding: chunked;q=1"), CODING),
    BAD(FIELD("Transfer-Encoding: \"chunked\""), CODING),
    BAD(FIELD("Transfer-Encoding: ,chunked"), CODING),
    BAD(FIELD("Transfer-Encoding: chunked,"), CODING),
    BAD(FIELD("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), CODING),
    BAD(FIELD("Transfer-Encoding: gzip, chunked"), CODING_UNKNOWN),
    BAD(FIELD("Transfer-Encoding: identity,\tChunked"), CODING_UNKNOWN),
    BAD("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", CODING_OLD),
    GOOD(FIELD("Transfer_Encoding: chunked\r\nContent_Length: x")),
};

static void every_rule_holds_over_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++)
        check(ROWS[i].text, ROWS[i].bytes, ROWS[i].is_fault ? -ROWS[i].result : ROWS[i].result);
}

static void every_fault_is_said_in_a_sentence(void **state)
{
    (void)state;
    for (int i = 1; i < NP_HTTP_FAULTS_COUNT; i++) {
        const struct np_http_fault *fault = np_http_fault(-i);
        assert_ptr_equal(fault, np_http_fault(i));
        assert_true(fault->status >= 400 && fault->status <= 599);
        assert_memory_equal(fault->section, "RFC ", 4);
        assert_int_equal(fault->sentence[strlen(fault->sentence) - 1], '.');
    }
}

static void nothing_is_read_after_a_fault(void **state)
{
    static const char good[] = LINE("GET /");
    struct fixture f;
    (void)state;
    open_fixture(&f);
    assert_int_equal(np_http1_parse(&f.request, (const uint8_t *)"G(", 2), -NP_HTTP_E_METHOD);
    assert_int_equal(np_http1_parse(&f.request, (const uint8_t *)good, sizeof(good) - 1),
                     -NP_HTTP_E_METHOD);
    struct np_chunk chunk = {NULL, (const uint8_t *)good, sizeof(good) - 1};
    struct np_iov iov = {&chunk, 0, 1, 1, 0, sizeof(good) - 1};
    size_t taken_bytes;
    assert_int_equal(np_http1_read(&f.request, &iov, &taken_bytes), -NP_HTTP_E_METHOD);
    assert_int_equal(taken_bytes, 0);
    np_http1_begin(&f.request);
    assert_int_equal(np_http1_read(&f.request, &iov, &taken_bytes), NP_HTTP_DONE);
}

/* ---- flags ----------------------------------------------------------------------------------- */

static unsigned flags_of(const char *text)
{
    struct fixture f;
    open_fixture(&f);
    assert_int_equal(np_http1_parse(&f.request, (const uint8_t *)text, strlen(text)), NP_HTTP_DONE);
    return f.request.flags;
}

static void keep_alive_is_the_version_s_and_connection_s(void **state)
{
    (void)state;
    assert_true(flags_of(FIELD("A: b")) & NP_HTTP_KEEP_ALIVE);
    assert_true(flags_of(FIELD("Connection: x, keep-alive")) & NP_HTTP_KEEP_ALIVE);
    assert_false(flags_of(FIELD("Connection: CLOSE")) & NP_HTTP_KEEP_ALIVE);
    assert_false(flags_of(FIELD("Connection: keep-alive\r\nConnection: a,,\tclose")) &
                 NP_HTTP_KEEP_ALIVE);
    assert_true(flags_of(FIELD("Connection: closed")) & NP_HTTP_KEEP_ALIVE);
    assert_false(flags_of("GET / HTTP/1.0\r\n\r\n") & NP_HTTP_KEEP_ALIVE);
    assert_true(flags_of("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n") & NP_HTTP_KEEP_ALIVE);
    assert_false(flags_of("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n") &
                 NP_HTTP_KEEP_ALIVE);
}

static void an_upgrade_needs_both_fields_and_http_1_1(void **state)
{
    unsigned both = NP_HTTP_UPGRADES | NP_HTTP_WEBSOCKET;
    (void)state;
    assert_int_equal(flags_of(FIELD("Connection: upgrade\r\nUpgrade: WebSocket")) & both, both);
    assert_int_equal(flags_of(FIELD("Upgrade: h2c, websocket\r\nConnection: a, Upgrade")) & both,
                     both);
    assert_int_equal(flags_of(FIELD("Connection: upgrade\r\nUpgrade: h2c")) & both,
                     NP_HTTP_UPGRADES);
    assert_int_equal(flags_of(FIELD("Upgrade: websocket")) & both, 0);
    assert_int_equal(flags_of(FIELD("Connection: upgrade")) & both, 0);
    assert_int_equal(
        flags_of("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n") & both, 0);
    assert_int_equal(flags_of("POST / HTTP/1.1\r\n" HOST "Connection: upgrade\r\n"
                              "Upgrade: websocket\r\n\r\n") &
                         both,
                     NP_HTTP_UPGRADES);
    assert_int_equal(flags_of(FIELD("Connection: upgrade\r\nUpgrade: websocket\r\n"
                                    "Content-Length: 1")) &
                         both,
                     NP_HTTP_UPGRADES);
}

static void an_expectation_is_of_a_body_and_http_1_1(void **state)
{
    (void)state;
    assert_true(flags_of(FIELD("Expect: 100-continue\r\nContent-Length: 1")) & NP_HTTP_EXPECTS);
    assert_true(flags_of(FIELD("Expect: 100-continue\r\nTransfer-Encoding: chunked")) &
                NP_HTTP_EXPECTS);
    assert_false(flags_of(FIELD("Expect: 100-continue")) & NP_HTTP_EXPECTS);
    assert_false(flags_of(FIELD("Expect: 200-ok\r\nContent-Length: 1")) & NP_HTTP_EXPECTS);
    assert_false(flags_of("GET / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n") &
                 NP_HTTP_EXPECTS);
}

static void forms_are_told_apart(void **state)
{
    static const struct {
        const char *text;
        int form;
        const char *authority, *path, *query;
    } samples[] = {
        {LINE("GET /p?q"), NP_HTTP_ORIGIN, "a", "/p", "q"},
        {LINE("GET http://a/p?q"), NP_HTTP_ABSOLUTE, "a", "/p", "q"},
        {LINE("GET http://A?q"), NP_HTTP_ABSOLUTE, "A", "", "q"},
        {LINE("OPTIONS *"), NP_HTTP_ASTERISK, "a", "*", ""},
        {"CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n", NP_HTTP_AUTHORITY, "b:1", "", ""},
        {"GET / HTTP/1.0\r\n\r\n", NP_HTTP_ORIGIN, "", "/", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        struct fixture f;
        open_fixture(&f);
        const uint8_t *text = (const uint8_t *)samples[i].text;
        assert_int_equal(np_http1_parse(&f.request, text, strlen(samples[i].text)), NP_HTTP_DONE);
        assert_int_equal(f.request.form, samples[i].form);
        assert_span(&f.request, f.request.authority, samples[i].authority);
        assert_span(&f.request, f.request.path, samples[i].path);
        assert_span(&f.request, f.request.query, samples[i].query);
    }
}

/* ---- limits ---------------------------------------------------------------------------------- */

/* A text with `count` bytes of filling in the place of its '@'. */
static char *filled(const char *text, size_t count, size_t *bytes)
{
    const char *place = strchr(text, '@');
    size_t before = (size_t)(place - text), after = strlen(place + 1);
    char *made = malloc(before + count + after);
    memcpy(made, text, before);
    memset(made + before, 'x', count);
    memcpy(made + before + count, place + 1, after);
    *bytes = before + count + after;
    return made;
}

/* The largest text that is allowed, and the one that is a byte longer; whole and byte by byte. */
static void check_limit(const char *text, size_t largest, int fault)
{
    for (size_t more = 0; more < 2; more++) {
        struct fixture f;
        size_t bytes;
        char *made = filled(text, largest + more, &bytes);
        int wanted = more ? fault : NP_HTTP_DONE;
        open_fixture(&f);
        assert_int_equal(np_http1_parse(&f.request, (uint8_t *)made, bytes), wanted);
        int result = NP_HTTP_MORE;
        np_http1_begin(&f.request);
        for (size_t n = 0; n <= bytes && result == NP_HTTP_MORE; n++)
            result = np_http1_parse(&f.request, (uint8_t *)made, n);
        assert_int_equal(result, wanted);
        free(made);
    }
}

static void the_request_line_is_limited(void **state)
{
    (void)state;
    check_limit("GET /@ HTTP/1.1\r\nHost: a\r\n\r\n", NP_HTTP_LINE_MAX_BYTES - 16,
                -NP_HTTP_E_LINE_LONG);
    check_limit("\r\nGET /?@ HTTP/1.1\r\nHost: a\r\n\r\n", NP_HTTP_LINE_MAX_BYTES - 17,
                -NP_HTTP_E_LINE_LONG);
}

static void the_head_is_limited(void **state)
{
    (void)state;
    check_limit("GET / HTTP/1.1\r\nHost: a\r\nA: @\r\n\r\n", NP_HTTP_HEAD_MAX_BYTES - 32,
                -NP_HTTP_E_HEAD_LARGE);
    check_limit("GET / HTTP/1.1\r\nHost: a\r\n@: b\r\n\r\n", NP_HTTP_HEAD_MAX_BYTES - 32,
                -NP_HTTP_E_HEAD_LARGE);
}

static void an_endless_head_is_refused_in_time(void **state)
{
    static const char *const beginnings[] = {"GET / HTTP/1.1\r\nA: @", "GET / HTTP/1.1\r\n@"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        size_t bytes;
        char *made = filled(beginnings[i], 2 * NP_HTTP_HEAD_MAX_BYTES, &bytes);
        struct np_chunk chunk = {NULL, (const uint8_t *)made, bytes};
        struct np_iov iov = {&chunk, 0, 1, 1, 0, bytes};
        size_t taken_bytes;
        open_fixture(&f);
        assert_int_equal(np_http1_read(&f.request, &iov, &taken_bytes), -NP_HTTP_E_HEAD_LARGE);
        np_http1_begin(&f.request);
        int result = NP_HTTP_MORE;
        for (size_t at = 0; result == NP_HTTP_MORE; at++) {
            assert_true(at < bytes && at - f.request.at < 10); /* few are looked at again */
            chunk = (struct np_chunk){NULL, (const uint8_t *)made + at, 1};
            result = np_http1_read(&f.request, &iov, &taken_bytes);
        }
        assert_int_equal(result, -NP_HTTP_E_HEAD_LARGE);
        assert_int_equal(f.request.own_bytes, NP_HTTP_HEAD_MAX_BYTES);
        np_http1_close(&f.request);
        free(made);
    }
}

static void fields_are_counted(void **state)
{
    struct fixture f;
    char text[2048] = "GET / HTTP/1.1\r\nHost: a\r\n";
    (void)state;
    open_fixture(&f);
    for (int i = 1; i < NP_HTTP_FIELDS_MAX_COUNT; i++)
        strcat(text, "A: b\r\n");
    size_t bytes = strlen(text);
    strcpy(text + bytes, "\r\n");
    assert_int_equal(np_http1_parse(&f.request, (uint8_t *)text, bytes + 2), NP_HTTP_DONE);
    assert_int_equal(f.request.fields_count, NP_HTTP_FIELDS_MAX_COUNT);
    strcpy(text + bytes, "A: b\r\n\r\n");
    np_http1_begin(&f.request);
    assert_int_equal(np_http1_parse(&f.request, (uint8_t *)text, bytes + 8),
                     -NP_HTTP_E_FIELDS_MANY);
}

static void a_body_is_limited_by_its_length(void **state)
{
    static const char text[] = FIELD("Content-Length: 100");
    struct fixture f;
    (void)state;
    open_fixture(&f);
    f.limits.body_max_bytes = 100;
    assert_int_equal(np_http1_parse(&f.request, (uint8_t *)text, sizeof(text) - 1), NP_HTTP_DONE);
    f.limits.body_max_bytes = 99;
    np_http1_begin(&f.request);
    assert_int_equal(np_http1_parse(&f.request, (uint8_t *)text, sizeof(text) - 1),
                     -NP_HTTP_E_BODY_LARGE);
}

static void want_of_memory_is_a_fault(void **state)
{
    struct fixture f;
    struct np_chunk chunk = {NULL, (const uint8_t *)"GET ", 4};
    struct np_iov iov = {&chunk, 0, 1, 1, 0, 4};
    size_t taken_bytes;
    (void)state;
    open_fixture(&f);
    np_fail_allocations(1);
    assert_int_equal(np_http1_read(&f.request, &iov, &taken_bytes), -NP_HTTP_E_NO_MEMORY);
    np_http1_begin(&f.request);
    assert_int_equal(np_http1_read(&f.request, &iov, &taken_bytes), NP_HTTP_MORE);
    np_http1_close(&f.request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_is_read_in_place),
        cmocka_unit_test(a_head_is_read_over_every_cut),
        cmocka_unit_test(a_head_in_many_pieces_is_gathered_once),
        cmocka_unit_test(a_large_piece_behind_a_cut_head_is_not_copied),
        cmocka_unit_test(a_large_head_is_read_over_every_cut),
        cmocka_unit_test(pipelined_requests_are_read_one_after_the_other),
        cmocka_unit_test(memory_that_moves_is_followed),
        cmocka_unit_test(every_rule_holds_over_every_cut),
        cmocka_unit_test(every_fault_is_said_in_a_sentence),
        cmocka_unit_test(nothing_is_read_after_a_fault),
        cmocka_unit_test(keep_alive_is_the_version_s_and_connection_s),
        cmocka_unit_test(an_upgrade_needs_both_fields_and_http_1_1),
        cmocka_unit_test(an_expectation_is_of_a_body_and_http_1_1),
        cmocka_unit_test(forms_are_told_apart),
        cmocka_unit_test(the_request_line_is_limited),
        cmocka_unit_test(the_head_is_limited),
        cmocka_unit_test(an_endless_head_is_refused_in_time),
        cmocka_unit_test(fields_are_counted),
        cmocka_unit_test(a_body_is_limited_by_its_length),
        cmocka_unit_test(want_of_memory_is_a_fault),
    };
    return NP_TEST_MAIN("test_http1", tests);
}
