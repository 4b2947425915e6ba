/* test_http_answer.c - heads of answers, dates, chunk lines; what an application may not say. */
#include "np_test.h"

#include <time.h>

#include "http/np_answer.h"
#include "http/np_http.h"

#define TEXT(literal) (const uint8_t *)(literal), sizeof(literal) - 1

static void assert_written(struct np_guarded *memory, uint8_t *end, const char *text)
{
    assert_int_equal(end - memory->base, strlen(text));
    assert_memory_equal(memory->base, text, strlen(text));
}

static void statuses_are_written(void **state)
{
    struct np_guarded memory = np_guarded_open(NP_ANSWER_STATUS_MAX_BYTES);
    (void)state;
    assert_written(&memory, np_answer_status(memory.base, 200), "HTTP/1.1 200 OK\r\n");
    assert_written(&memory, np_answer_status(memory.base, 404), "HTTP/1.1 404 Not Found\r\n");
    assert_written(&memory, np_answer_status(memory.base, 299), "HTTP/1.1 299 \r\n");
    assert_written(&memory, np_answer_status_words(memory.base, 200, TEXT("Fine")),
                   "HTTP/1.1 200 Fine\r\n");
    for (int status = 100; status < 1000; status++) {
        uint8_t *end = np_answer_status(memory.base, status);
        assert_true(end - memory.base <= NP_ANSWER_STATUS_MAX_BYTES);
        assert_memory_equal(end - 2, "\r\n", 2);
    }
    np_guarded_close(&memory);
}

/* The table of the words is in order, or the search in it would miss some. */
static void every_status_has_its_words(void **state)
{
    static const int statuses[] = {100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208,
                                   226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401, 402, 403,
                                   404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416,
                                   417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 500,
                                   501, 502, 503, 504, 505, 506, 507, 508, 510, 511};
    int with_words = 0;
    (void)state;
    for (int status = 0; status < 1000; status++)
        with_words += np_answer_reason(status)[0] != '\0';
    assert_int_equal(with_words, sizeof(statuses) / sizeof(statuses[0]));
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
        assert_true(np_answer_reason(statuses[i])[0] != '\0');
    assert_string_equal(np_answer_reason(511), "Network Authentication Required");
}

static void some_answers_have_no_body(void **state)
{
    (void)state;
    assert_true(np_answer_has_body(NP_HTTP_GET, 200));
    assert_true(np_answer_has_body(NP_HTTP_OTHER, 500));
    assert_false(np_answer_has_body(NP_HTTP_HEAD, 200));
    assert_false(np_answer_has_body(NP_HTTP_GET, 101));
    assert_false(np_answer_has_body(NP_HTTP_GET, 204));
    assert_false(np_answer_has_body(NP_HTTP_GET, 304));
}

static void dates_are_those_of_the_calendar(void **state)
{
    struct np_random random = np_random_seeded(1);
    struct np_date date = {0};
    struct np_guarded memory = np_guarded_open(NP_ANSWER_DATE_BYTES);
    (void)state;
    for (int i = 0; i < 20000; i++) {
        time_t now_s = 1 + (time_t)(np_random_next(&random) % 253402300799u); /* to the year 9999 */
        struct tm tm;
        char wanted[64];
        gmtime_r(&now_s, &tm);
        strftime(wanted, sizeof(wanted), "date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
        assert_written(&memory, np_answer_date(memory.base, &date, now_s), wanted);
    }
    memset(date.text, 'x', 6); /* the same second is not written again */
    np_answer_date(memory.base, &date, date.second);
    assert_memory_equal(memory.base, "xxxxxx", 6);
    np_answer_date(memory.base, &date, date.second + 1);
    assert_memory_equal(memory.base, "date: ", 6);
    np_guarded_close(&memory);
}

static void lengths_and_chunks_are_written(void **state)
{
    static const uint64_t sizes[] = {
        0, 1, 9, 10, 15, 16, 255, 256, 4095, 4096, 65535, 1u << 31, UINT64_C(1) << 60, UINT64_MAX};
    struct np_guarded memory = np_guarded_open(NP_ANSWER_LENGTH_MAX_BYTES);
    struct np_guarded line = np_guarded_open(NP_ANSWER_CHUNK_MAX_BYTES);
    char wanted[64];
    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        snprintf(wanted, sizeof(wanted), "content-length: %llu\r\n", (unsigned long long)sizes[i]);
        assert_written(&memory, np_answer_length(memory.base, sizes[i]), wanted);
        snprintf(wanted, sizeof(wanted), "%llx\r\n%s", (unsigned long long)sizes[i],
                 sizes[i] ? "" : "\r\n");
        assert_written(&line, np_answer_chunk(line.base, sizes[i]), wanted);
    }
    assert_written(&memory, np_answer_chunked(memory.base), "transfer-encoding: chunked\r\n");
    assert_written(&memory, np_answer_close(memory.base), "connection: close\r\n");
    np_guarded_close(&memory);
    np_guarded_close(&line);
}

static void an_application_s_fields_are_checked(void **state)
{
    struct np_guarded memory = np_guarded_open(4 + NP_ANSWER_FIELD_EXTRA_BYTES);
    (void)state;
    assert_int_equal(np_answer_check(TEXT("x-a"), TEXT("b\tc\xff")), NP_ANSWER_OK);
    assert_int_equal(np_answer_check(TEXT("a"), TEXT("")), NP_ANSWER_OK);
    assert_int_equal(np_answer_check(TEXT(""), TEXT("b")), NP_ANSWER_BAD_NAME);
    assert_int_equal(np_answer_check(TEXT("a b"), TEXT("b")), NP_ANSWER_BAD_NAME);
    assert_int_equal(np_answer_check(TEXT("a:"), TEXT("b")), NP_ANSWER_BAD_NAME);
    assert_int_equal(np_answer_check(TEXT("a\r\nb"), TEXT("b")), NP_ANSWER_BAD_NAME);
    for (int c = 0; c < 256; c++) {
        uint8_t value[3] = {'a', (uint8_t)c, 'b'};
        int is_bad = (c < 0x20 && c != '\t') || c == 0x7f;
        assert_int_equal(np_answer_check(TEXT("a"), value, 3),
                         is_bad ? NP_ANSWER_BAD_VALUE : NP_ANSWER_OK);
    }
    assert_written(&memory, np_answer_field(memory.base, TEXT("x-a"), TEXT("b")), "x-a: b\r\n");
    np_guarded_close(&memory);
}

static void faults_are_answered(void **state)
{
    struct np_date date = {0};
    struct np_guarded memory = np_guarded_open(NP_ANSWER_FAULT_MAX_BYTES);
    (void)state;
    for (int fault = 1; fault < NP_HTTP_FAULTS_COUNT; fault++) {
        const char *sentence = np_http_fault(fault)->sentence;
        uint8_t *end = np_answer_fault(memory.base, -fault, NP_HTTP_GET, &date, 1);
        assert_true(end - memory.base <= NP_ANSWER_FAULT_MAX_BYTES);
        assert_memory_equal(end - 1 - strlen(sentence), sentence, strlen(sentence));
    }
    static const char head[] = "HTTP/1.1 431 Request Header Fields Too Large\r\n"
                               "date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"
                               "content-type: text/plain; charset=utf-8\r\n"
                               "content-length: 35\r\n"
                               "connection: close\r\n\r\n";
    uint8_t *end = np_answer_fault(memory.base, NP_HTTP_E_HEAD_LARGE, NP_HTTP_HEAD, &date, 1);
    assert_written(&memory, end, head);
    static const char crowded[] = "HTTP/1.1 503 Service Unavailable\r\n"
                                  "date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"
                                  "content-type: text/plain; charset=utf-8\r\n"
                                  "content-length: 44\r\n"
                                  "retry-after: 1\r\n"
                                  "connection: close\r\n\r\n"
                                  "There are more connections than are served.\n";
    end = np_answer_fault(memory.base, NP_HTTP_E_CROWDED, NP_HTTP_GET, &date, 1);
    assert_written(&memory, end, crowded);
    np_guarded_close(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses_are_written),
        cmocka_unit_test(every_status_has_its_words),
        cmocka_unit_test(some_answers_have_no_body),
        cmocka_unit_test(dates_are_those_of_the_calendar),
        cmocka_unit_test(lengths_and_chunks_are_written),
        cmocka_unit_test(an_application_s_fields_are_checked),
        cmocka_unit_test(faults_are_answered),
    };
    return NP_TEST_MAIN("test_http_answer", tests);
}
