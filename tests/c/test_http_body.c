/* test_http_body.c - bodies: lengths and chunks over every cut, every rule of their framing. */
#include "np_test.h"

#include "base/np_limits.h"
#include "http/np_body.h"

#define TEXT(literal) (literal), sizeof(literal) - 1

enum { SPANS_COUNT = 64, DATA_MAX_BYTES = 256 };

struct fixture {
    struct np_http_limits limits;
    struct np_http1 request;
    struct np_body body;
    uint8_t data[DATA_MAX_BYTES]; /* what has come out */
    size_t data_bytes;
};

static void begin(struct fixture *f, int is_chunked, int64_t length_bytes)
{
    np_http1_open(&f->request, NULL, &f->limits);
    f->request.flags = is_chunked ? NP_HTTP_CHUNKED : 0;
    f->request.content_length = length_bytes;
    f->data_bytes = 0;
    np_body_begin(&f->body, &f->request);
}

static void open_fixture(struct fixture *f)
{
    f->limits = np_http_default_limits();
    begin(f, 1, 0);
}

/* Reads one piece with room for so many spans at once; adds up what it takes. */
static int read_piece(struct fixture *f, const uint8_t *piece, size_t bytes, int max_count,
                      size_t *taken)
{
    int result;
    do {
        struct iovec spans[SPANS_COUNT];
        size_t taken_bytes;
        int count;
        result = np_body_parse(&f->body, piece, bytes, spans, max_count, &count, &taken_bytes);
        for (int i = 0; i < count; i++) {
            assert_true(f->data_bytes + spans[i].iov_len <= DATA_MAX_BYTES);
            memcpy(f->data + f->data_bytes, spans[i].iov_base, spans[i].iov_len);
            f->data_bytes += spans[i].iov_len;
        }
        piece += taken_bytes;
        bytes -= taken_bytes;
        *taken += taken_bytes;
    } while (result == NP_HTTP_FULL);
    return result;
}

/* The same result and the same data in parts of every size, with room for one span and for many. */
static void check(const char *text, size_t bytes, int wanted, const char *data)
{
    struct fixture f;
    open_fixture(&f);
    for (size_t step = 1; step <= bytes; step++)
        for (int max_count = 1; max_count <= SPANS_COUNT; max_count += SPANS_COUNT - 1) {
            int result = NP_HTTP_MORE;
            size_t taken = 0;
            begin(&f, 1, 0);
            for (size_t at = 0; at < bytes && result == NP_HTTP_MORE; at += step) {
                size_t part = bytes - at < step ? bytes - at : step;
                struct np_guarded memory = np_guarded_open(part);
                memcpy(memory.base, text + at, part);
                result = read_piece(&f, memory.base, part, max_count, &taken);
                np_guarded_close(&memory);
            }
            if (result != wanted)
                print_error("%d instead of %d: %s\n", result, wanted, text);
            assert_int_equal(result, wanted);
            if (wanted < 0)
                continue;
            assert_int_equal(taken, bytes);
            assert_int_equal(f.data_bytes, strlen(data));
            assert_memory_equal(f.data, data, f.data_bytes);
        }
}

struct row {
    const char *text;
    size_t bytes;
    int result;
    const char *data;
};

#define GOOD(literal, data) {TEXT(literal), NP_HTTP_DONE, data}
#define CUT(literal, data) {TEXT(literal), NP_HTTP_MORE, data}
#define BAD(literal, fault) {TEXT(literal), -NP_HTTP_E_##fault, NULL}
#define LAST "0\r\n\r\n"
#define EXT(extension) "1" extension "\r\nx\r\n" LAST
#define TRAILER(trailer) "0\r\n" trailer "\r\n\r\n"

static const struct row ROWS[] = {
    GOOD(LAST, ""),
    GOOD("000"
         "\r\n\r\n",
         ""),
    GOOD("5\r\nhello\r\n6\r\n world\r\n" LAST, "hello world"),
    GOOD("00000000000000a\r\n0123456789\r\n" LAST, "0123456789"),
    GOOD("0000000000000001\r\nx\r\n" LAST, "x"),
    GOOD("A\r\n0123456789\r\n1\r\n\r\r\n" LAST, "0123456789\r"),
    CUT("5\r\nhello", "hello"),
    CUT("5\r\nhello\r\n0\r\n", "hello"),
    CUT("0\r\n\r", ""),
    /* Sizes. */
    BAD("00000000000000001\r\nx\r\n" LAST, CHUNK_SIZE),
    BAD("ffffffffffffffff\r\n", CHUNK_SIZE),
    BAD("8000000000000000\r\n", CHUNK_SIZE),
    CUT("7fffffffffffffff\r\n", ""),
    BAD("+1\r\nx\r\n" LAST, CHUNK_SIZE),
    BAD("-1\r\nx\r\n" LAST, CHUNK_SIZE),
    BAD("0x1\r\nx\r\n" LAST, CHUNK_SIZE),
    BAD("1_0\r\n", CHUNK_SIZE),
    BAD("g\r\n", CHUNK_SIZE),
    BAD(" 1\r\n", CHUNK_SIZE),
    BAD("\r\n", CHUNK_SIZE),
    BAD(";a\r\n", CHUNK_SIZE),
    BAD("\xb1\r\n", CHUNK_SIZE),
    BAD("1\0\r\n", CHUNK_SIZE),
    /* Line ends. */
    BAD("\n", BARE_LF),
    BAD("1\nx\r\n" LAST, BARE_LF),
    BAD("1;a\nx\r\n" LAST, BARE_LF),
    BAD("1\rx\r\n" LAST, BARE_CR),
    BAD("1\r\nx\n" LAST, CHUNK_END),
    BAD("1\r\nxx\r\n" LAST, CHUNK_END),
    BAD("1\r\nx\rx" LAST, CHUNK_END),
    BAD("0\r\n\n", BARE_LF),
    BAD("0\r\n\rx", BARE_CR),
    /* Extensions. */
    GOOD(EXT(";a"), "x"),
    GOOD(EXT(";a=b"), "x"),
    GOOD(EXT(" ; a = b ; c\t=\t\"d;\\\"\te\x80\" ;f"), "x"),
    GOOD(EXT(";a=\"\""), "x"),
    GOOD("0;a=b\r\n\r\n", ""),
    BAD(EXT(" "), CHUNK_EXTENSION),
    BAD(EXT(" x"), CHUNK_EXTENSION),
    BAD(EXT("x"), CHUNK_SIZE),
    BAD(EXT(";"), CHUNK_EXTENSION),
    BAD(EXT(";;a"), CHUNK_EXTENSION),
    BAD(EXT(";a b"), CHUNK_EXTENSION),
    BAD(EXT(";a "), CHUNK_EXTENSION),
    BAD(EXT(";a="), CHUNK_EXTENSION),
    BAD(EXT(";a=;"), CHUNK_EXTENSION),
    BAD(EXT(";=b"), CHUNK_EXTENSION),
    BAD(EXT(";a=\"b"), CHUNK_EXTENSION),
    BAD(EXT(";a=\"b\"c"), CHUNK_EXTENSION),
    BAD(EXT(";a=\"\x01\""), CHUNK_EXTENSION),
    BAD(EXT(";a=\"\\\x7f\""), CHUNK_EXTENSION),
    BAD(EXT(";a=b\rc"), BARE_CR),
    BAD(EXT(";\0"), CHUNK_EXTENSION),
    /* Trailers. */
    GOOD(TRAILER("A: b"), ""),
    GOOD(TRAILER("A:\r\nchecksum: \tx\x80 "), ""),
    GOOD(TRAILER("a-name-that-is-longer-than-all-that-have-a-number: b"), ""),
    BAD(TRAILER("A : b"), NAME_SPACE),
    BAD(TRAILER(": b"), NAME),
    BAD(TRAILER("A"), NAME),
    BAD(TRAILER("A(: b"), NAME),
    BAD(TRAILER("A: b\r\n c"), FOLD),
    BAD(TRAILER("A: b\nC: d"), BARE_LF),
    BAD(TRAILER("A\n"), BARE_LF),
    BAD(TRAILER("A: b\rC: d"), BARE_CR),
    BAD(TRAILER("A: \0"), CONTROL),
    BAD(TRAILER("content-length: 1"), TRAILER_NAME),
    BAD(TRAILER("A: b\r\nTransfer-Encoding: chunked"), TRAILER_NAME),
    BAD(TRAILER("Host: a"), TRAILER_NAME),
    BAD(TRAILER("Trailer: a"), TRAILER_NAME),
    BAD(TRAILER("Connection: close"), TRAILER_NAME),
    BAD(TRAILER("Upgrade: a"), TRAILER_NAME),
    BAD(TRAILER("Expect: a"), TRAILER_NAME),
    BAD(TRAILER("TE: a"), TRAILER_NAME),
};

static void every_rule_holds_over_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++)
        check(ROWS[i].text, ROWS[i].bytes, ROWS[i].result, ROWS[i].data);
}

static void nothing_is_read_after_a_fault(void **state)
{
    struct fixture f;
    size_t taken = 0;
    (void)state;
    open_fixture(&f);
    assert_int_equal(read_piece(&f, (const uint8_t *)"x", 1, 1, &taken), -NP_HTTP_E_CHUNK_SIZE);
    taken = 0;
    assert_int_equal(read_piece(&f, (const uint8_t *)TEXT(LAST), 1, &taken), -NP_HTTP_E_CHUNK_SIZE);
    assert_int_equal(taken, 0);
    struct np_chunk chunk = {NULL, (const uint8_t *)TEXT(LAST)};
    struct np_iov iov = {&chunk, 0, 1, 1, 0, 5};
    struct iovec span;
    int count;
    assert_int_equal(np_body_read(&f.body, &iov, &span, 1, &count, &taken), -NP_HTTP_E_CHUNK_SIZE);
    assert_int_equal(taken, 0);
}

static void a_length_is_counted_over_every_cut(void **state)
{
    struct fixture f;
    (void)state;
    open_fixture(&f);
    for (size_t step = 1; step <= 10; step++) {
        size_t at = 0;
        int result = NP_HTTP_MORE;
        begin(&f, 0, 10);
        while (result == NP_HTTP_MORE)
            result = read_piece(&f, (const uint8_t *)"0123456789GET /" + at, step, 1, &at);
        assert_int_equal(result, NP_HTTP_DONE);
        assert_int_equal(at, 10); /* what follows is the next request's */
        assert_memory_equal(f.data, "0123456789", 10);
        assert_true(np_body_is_over(&f.body));
    }
    begin(&f, 0, 0);
    assert_true(np_body_is_over(&f.body));
    size_t taken = 0;
    assert_int_equal(read_piece(&f, (const uint8_t *)"GET", 3, 1, &taken), NP_HTTP_DONE);
    assert_int_equal(taken, 0);
}

static void pieces_are_read_in_one_call(void **state)
{
    static const char text[] = "xx5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n" LAST "GET /";
    struct fixture f;
    struct np_chunk chunks[4];
    char data[16] = "";
    (void)state;
    open_fixture(&f);
    for (int i = 0; i < 4; i++)
        chunks[i] = (struct np_chunk){NULL, (const uint8_t *)text + 9 * i,
                                      i < 3 ? 9 : sizeof(text) - 1 - 27};
    struct np_iov iov = {chunks, 0, 4, 4, 2, sizeof(text) - 1 - 2}; /* "xx" was taken before */
    struct iovec spans[8];
    size_t taken;
    int count;
    assert_int_equal(np_body_read(&f.body, &iov, spans, 8, &count, &taken), NP_HTTP_DONE);
    assert_int_equal(taken, iov.total_bytes - strlen("GET /"));
    for (int i = 0; i < count; i++)
        strncat(data, spans[i].iov_base, spans[i].iov_len);
    assert_string_equal(data, "hello world");
    assert_int_equal(f.body.data_bytes, strlen(data));
}

static void a_full_array_is_gone_on_with(void **state)
{
    static const char text[] = "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n" LAST;
    struct fixture f;
    struct np_chunk chunk = {NULL, (const uint8_t *)TEXT(text)};
    struct np_iov iov = {&chunk, 0, 1, 1, 0, sizeof(text) - 1};
    struct iovec spans[2];
    size_t taken;
    int count;
    (void)state;
    open_fixture(&f);
    assert_int_equal(np_body_read(&f.body, &iov, spans, 2, &count, &taken), NP_HTTP_FULL);
    assert_int_equal(count, 2);
    iov.skip_bytes = taken;
    assert_int_equal(np_body_read(&f.body, &iov, spans, 2, &count, &taken), NP_HTTP_DONE);
    assert_int_equal(count, 1);
    assert_memory_equal(spans[0].iov_base, "c", 1);
    assert_int_equal(iov.skip_bytes + taken, sizeof(text) - 1);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void a_chunked_body_is_limited(void **state)
{
    struct fixture f;
    size_t taken = 0;
    (void)state;
    open_fixture(&f);
    f.limits.body_max_bytes = 3;
    assert_int_equal(read_piece(&f, (const uint8_t *)TEXT("2\r\nab\r\n1\r\nc\r\n" LAST), 8, &taken),
                     NP_HTTP_DONE);
    begin(&f, 1, 0);
    assert_int_equal(read_piece(&f, (const uint8_t *)TEXT("2\r\nab\r\n2\r\ncd"), 8, &taken),
                     -NP_HTTP_E_BODY_LARGE);
    assert_int_equal(f.data_bytes, 2);
}

/* Chunks of one byte are 5 bytes of framing each: four more than the data pays for. */
static void framing_has_a_budget(void **state)
{
    struct fixture f;
    struct iovec span;
    size_t taken;
    int count, result = NP_HTTP_MORE, chunks = 0;
    (void)state;
    open_fixture(&f);
    for (; result == NP_HTTP_MORE; chunks++)
        result = np_body_parse(&f.body, (const uint8_t *)TEXT("1\r\nx\r\n"), &span, 1, &count,
                               &taken);
    assert_int_equal(result, -NP_HTTP_E_CHUNK_WASTE);
    assert_int_equal(chunks, NP_HTTP_FRAMING_FREE_BYTES / 4 + 1);
    begin(&f, 1, 0);
    result = np_body_parse(&f.body, (const uint8_t *)TEXT("1;a="), &span, 1, &count, &taken);
    for (size_t n = 0; n < NP_HTTP_FRAMING_FREE_BYTES - 4; n++) {
        assert_int_equal(result, NP_HTTP_MORE);
        result = np_body_parse(&f.body, (const uint8_t *)"b", 1, &span, 1, &count, &taken);
    }
    assert_int_equal(result, NP_HTTP_MORE);
    result = np_body_parse(&f.body, (const uint8_t *)"b", 1, &span, 1, &count, &taken);
    assert_int_equal(result, -NP_HTTP_E_CHUNK_WASTE);
}

static void data_pays_for_framing(void **state)
{
    static uint8_t block[4096 + 16];
    struct fixture f;
    struct iovec span;
    size_t taken;
    int count;
    (void)state;
    open_fixture(&f);
    memcpy(block, "1000\r\n", 6);
    memcpy(block + 6 + 4096, "\r\n", 2);
    for (int i = 0; i < 20000; i++) /* 160 KB of framing, 80 MB of data */
        assert_int_equal(np_body_parse(&f.body, block, 4096 + 8, &span, 1, &count, &taken),
                         NP_HTTP_MORE);
}

static void trailers_are_limited(void **state)
{
    struct fixture f;
    struct iovec span;
    size_t taken;
    int count, result = NP_HTTP_MORE;
    (void)state;
    open_fixture(&f);
    np_body_parse(&f.body, (const uint8_t *)TEXT("0\r\n"), &span, 1, &count, &taken);
    for (int i = 0; i < NP_HTTP_FIELDS_MAX_COUNT; i++)
        result = np_body_parse(&f.body, (const uint8_t *)TEXT("A: b\r\n"), &span, 1, &count,
                               &taken);
    assert_int_equal(result, NP_HTTP_MORE);
    result = np_body_parse(&f.body, (const uint8_t *)"A", 1, &span, 1, &count, &taken);
    assert_int_equal(result, -NP_HTTP_E_TRAILERS_MANY);

    begin(&f, 1, 0);
    result = np_body_parse(&f.body, (const uint8_t *)TEXT("0\r\nA:"), &span, 1, &count, &taken);
    for (size_t n = 2; n < NP_HTTP_HEAD_MAX_BYTES; n++)
        result = np_body_parse(&f.body, (const uint8_t *)"b", 1, &span, 1, &count, &taken);
    assert_int_equal(result, NP_HTTP_MORE);
    result = np_body_parse(&f.body, (const uint8_t *)"b", 1, &span, 1, &count, &taken);
    assert_int_equal(result, -NP_HTTP_E_TRAILERS_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_holds_over_every_cut),
        cmocka_unit_test(nothing_is_read_after_a_fault),
        cmocka_unit_test(a_length_is_counted_over_every_cut),
        cmocka_unit_test(pieces_are_read_in_one_call),
        cmocka_unit_test(a_full_array_is_gone_on_with),
        cmocka_unit_test(a_chunked_body_is_limited),
        cmocka_unit_test(framing_has_a_budget),
        cmocka_unit_test(data_pays_for_framing),
        cmocka_unit_test(trailers_are_limited),
    };
    return NP_TEST_MAIN("test_http_body", tests);
}
