/* np_answer.c - heads of answers. */
#include "http/np_answer.h"

#include <string.h>

#include "base/np_assert.h"
#include "http/np_field.h"
#include "http/np_http.h"
#include "http/np_scan.h"

#define DIGITS_MAX_COUNT 20 /* of 2^64 - 1 */

static const struct {
    int16_t status;
    char words[34];
} REASONS[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {102, "Processing"},
    {103, "Early Hints"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {207, "Multi-Status"},
    {208, "Already Reported"},
    {226, "IM Used"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {305, "Use Proxy"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {418, "I'm a Teapot"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {423, "Locked"},
    {424, "Failed Dependency"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {506, "Variant Also Negotiates"},
    {507, "Insufficient Storage"},
    {508, "Loop Detected"},
    {510, "Not Extended"},
    {511, "Network Authentication Required"},
};

enum { REASONS_COUNT = sizeof(REASONS) / sizeof(REASONS[0]) };

static uint8_t *put(uint8_t *at, const void *bytes, size_t count)
{
    memcpy(at, bytes, count);
    return at + count;
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
    return put(at, text, strlen(text));
}

static uint8_t *put_number(uint8_t *at, uint64_t number)
{
    uint8_t digits[DIGITS_MAX_COUNT], *first = digits + DIGITS_MAX_COUNT;
    do {
        *--first = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number);
    return put(at, first, (size_t)(digits + DIGITS_MAX_COUNT - first));
}

const char *np_answer_reason(int status)
{
    int low = 0, high = REASONS_COUNT;
    while (low < high) {
        int middle = (low + high) / 2;
        if (REASONS[middle].status < status)
            low = middle + 1;
        else
            high = middle;
    }
    return low < REASONS_COUNT && REASONS[low].status == status ? REASONS[low].words : "";
}

int np_answer_has_body(uint8_t method, int status)
{
    return method != NP_HTTP_HEAD && status >= 200 && status != 204 && status != 304;
}

uint8_t *np_answer_status_words(uint8_t *at, int status, const uint8_t *words, size_t words_bytes)
{
    NP_ASSERT(status >= 100 && status <= 999);
    at = put_text(at, "HTTP/1.1 ");
    at = put_number(at, (uint64_t)status);
    *at++ = ' '; /* also before no words: RFC 9112 4 */
    return np_answer_end(put(at, words, words_bytes));
}

uint8_t *np_answer_status(uint8_t *at, int status)
{
    if (status == 200)
        return put_text(at, "HTTP/1.1 200 OK\r\n");
    const char *words = np_answer_reason(status);
    return np_answer_status_words(at, status, (const uint8_t *)words, strlen(words));
}

static char *put_two(char *at, int number)
{
    *at++ = (char)('0' + number / 10);
    *at++ = (char)('0' + number % 10);
    return at;
}

/* "date: Thu, 01 Jan 1970 00:00:00 GMT" CR LF. The calendar is counted in years that begin with
 * March, so that the leap day is the last one of its year. */
static void write_date(char *at, int64_t now_s)
{
    static const char week_days[] = "ThuFriSatSunMonTueWed";
    static const char months[] = "MarAprMayJunJulAugSepOctNovDecJanFeb";
    int64_t days = now_s / 86400, seconds = now_s % 86400;
    int64_t since_march = days + 719468; /* from 1 March of the year 0 */
    int64_t era = since_march / 146097, day_of_era = since_march % 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 -
                           day_of_era / 146096) /
                          365;
    int64_t day = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int month = (int)((5 * day + 2) / 153);
    int year = (int)(year_of_era + era * 400 + (month >= 10));
    memcpy(at, "date: ", 6);
    memcpy(at + 6, week_days + 3 * (days % 7), 3);
    memcpy(at + 9, ", ", 2);
    at = put_two(at + 11, (int)(day - (153 * month + 2) / 5 + 1));
    *at++ = ' ';
    memcpy(at, months + 3 * month, 3);
    at[3] = ' ';
    at = put_two(put_two(at + 4, year / 100 % 100), year % 100);
    *at++ = ' ';
    at = put_two(at, (int)(seconds / 3600));
    *at++ = ':';
    at = put_two(at, (int)(seconds / 60 % 60));
    *at++ = ':';
    at = put_two(at, (int)(seconds % 60));
    memcpy(at, " GMT\r\n", 7);
}

uint8_t *np_answer_date(uint8_t *at, struct np_date *date, int64_t now_s)
{
    NP_DCHECK(now_s > 0);
    if (date->second != now_s) {
        write_date(date->text, now_s);
        date->second = now_s;
    }
    return put(at, date->text, NP_ANSWER_DATE_BYTES);
}

uint8_t *np_answer_length(uint8_t *at, uint64_t body_bytes)
{
    return np_answer_end(put_number(put_text(at, "content-length: "), body_bytes));
}

uint8_t *np_answer_chunked(uint8_t *at)
{
    return put_text(at, "transfer-encoding: chunked\r\n");
}

uint8_t *np_answer_close(uint8_t *at)
{
    return put_text(at, "connection: close\r\n");
}

int np_answer_check(const uint8_t *name, size_t name_bytes, const uint8_t *value,
                    size_t value_bytes)
{
    if (!np_field_is_token(name, name_bytes))
        return NP_ANSWER_BAD_NAME;
    const uint8_t *end = value + value_bytes;
    return np_scan_value(value, end) == end ? NP_ANSWER_OK : NP_ANSWER_BAD_VALUE;
}

uint8_t *np_answer_field(uint8_t *at, const uint8_t *name, size_t name_bytes, const uint8_t *value,
                         size_t value_bytes)
{
    NP_DCHECK(np_answer_check(name, name_bytes, value, value_bytes) == NP_ANSWER_OK);
    at = put_text(put(at, name, name_bytes), ": ");
    return np_answer_end(put(at, value, value_bytes));
}

uint8_t *np_answer_end(uint8_t *at)
{
    return put_text(at, "\r\n");
}

uint8_t *np_answer_chunk(uint8_t *at, uint64_t data_bytes)
{
    int digits = data_bytes ? (67 - __builtin_clzll(data_bytes)) / 4 : 1;
    for (int i = digits - 1; i >= 0; i--)
        *at++ = (uint8_t)"0123456789abcdef"[data_bytes >> (4 * i) & 15];
    at = np_answer_end(at);
    return data_bytes ? at : np_answer_end(at);
}

uint8_t *np_answer_fault(uint8_t *at, int fault, uint8_t method, struct np_date *date,
                         int64_t now_s)
{
    const struct np_http_fault *what = np_http_fault(fault);
    size_t sentence_bytes = strlen(what->sentence);
    at = np_answer_status(at, what->status);
    at = np_answer_date(at, date, now_s);
    at = put_text(at, "content-type: text/plain; charset=utf-8\r\n");
    at = np_answer_length(at, sentence_bytes + 1);
    if (what->status == 503)
        at = put_text(at, "retry-after: 1\r\n"); /* of a state that passes: RFC 9110 10.2.3 */
    at = np_answer_end(np_answer_close(at));
    if (!np_answer_has_body(method, what->status))
        return at;
    at = put(at, what->sentence, sentence_bytes);
    *at++ = '\n';
    return at;
}
