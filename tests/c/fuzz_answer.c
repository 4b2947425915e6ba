/* fuzz_answer.c - heads of answers beside what printf and strftime of the C library write.
 *
 * Each piece is written to memory that has no byte more than its NP_ANSWER_..._BYTES.
 */
#include "np_fuzz.h"

#include <time.h>

#include "http/np_answer.h"
#include "http/np_http.h"

enum { TEXT_BYTES = NP_FUZZ_INPUT_MAX_BYTES + 64 };

/* 31 December 9999, the last second that an HTTP date can say. */
#define LAST_SECOND INT64_C(253402300799)

struct memory {
    uint8_t *base, *at;
};

static struct memory open_memory(size_t bytes)
{
    uint8_t *base = malloc(bytes);
    NP_ASSERT(base != NULL);
    return (struct memory){base, base};
}

static void check(struct memory *memory, const char *wanted, int length)
{
    NP_ASSERT(memory->at - memory->base == length);
    NP_ASSERT(memcmp(memory->base, wanted, (size_t)length) == 0);
    free(memory->base);
}

static void check_status(int status)
{
    char text[TEXT_BYTES];
    const char *reason = np_answer_reason(status);
    struct memory memory = open_memory(NP_ANSWER_STATUS_MAX_BYTES);
    memory.at = np_answer_status(memory.base, status);
    check(&memory, text, snprintf(text, sizeof(text), "HTTP/1.1 %d %s\r\n", status, reason));
    for (const char *p = reason; *p; p++)
        NP_ASSERT(*p >= ' ' && *p < 0x7f);
}

static void check_date(int64_t now_s, int64_t then_s)
{
    struct np_date date = {0};
    const int64_t seconds[] = {now_s, then_s, then_s};
    for (int i = 0; i < 3; i++) {
        time_t second = seconds[i];
        char text[TEXT_BYTES];
        struct tm parts;
        struct memory memory = open_memory(NP_ANSWER_DATE_BYTES);
        NP_ASSERT(gmtime_r(&second, &parts) != NULL);
        memory.at = np_answer_date(memory.base, &date, second);
        check(&memory, text,
              (int)strftime(text, sizeof(text), "date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts));
    }
}

static void check_numbers(uint64_t number)
{
    char text[TEXT_BYTES];
    struct memory memory = open_memory(NP_ANSWER_LENGTH_MAX_BYTES);
    memory.at = np_answer_length(memory.base, number);
    check(&memory, text,
          snprintf(text, sizeof(text), "content-length: %llu\r\n", (unsigned long long)number));
    memory = open_memory(NP_ANSWER_CHUNK_MAX_BYTES);
    memory.at = np_answer_chunk(memory.base, number);
    check(&memory, text,
          snprintf(text, sizeof(text), number ? "%llx\r\n" : "%llx\r\n\r\n",
                   (unsigned long long)number));
}

/* The answer to a fault: its parts, and a body of the announced length. */
static void check_fault(int fault, uint8_t method, int64_t now_s)
{
    struct np_date date = {0};
    char text[TEXT_BYTES];
    struct memory memory = open_memory(NP_ANSWER_FAULT_MAX_BYTES);
    memory.at = np_answer_fault(memory.base, fault, method, &date, now_s);
    size_t bytes = (size_t)(memory.at - memory.base);
    memcpy(text, memory.base, bytes);
    text[bytes] = 0;
    free(memory.base);
    const struct np_http_fault *what = np_http_fault(fault);
    char *body = strstr(text, "\r\n\r\n");
    char *length = strstr(text, "content-length: ");
    NP_ASSERT(strlen(text) == bytes && body && length && strstr(text, "connection: close\r\n"));
    NP_ASSERT(atoi(text + strlen("HTTP/1.1 ")) == what->status);
    NP_ASSERT((strstr(text, "retry-after: ") != NULL) == (what->status == 503));
    NP_ASSERT(atoi(length + strlen("content-length: ")) == (int)strlen(what->sentence) + 1);
    body += 4;
    if (method == NP_HTTP_HEAD)
        NP_ASSERT(*body == 0);
    else
        NP_ASSERT(memcmp(body, what->sentence, strlen(what->sentence)) == 0 &&
                  strcmp(body + strlen(what->sentence), "\n") == 0);
}

static int model_check(const uint8_t *name, size_t name_bytes, const uint8_t *value, size_t bytes)
{
    static const char MARKS[] = "!#$%&'*+-.^_`|~";
    int is_token = name_bytes > 0;
    for (size_t i = 0; i < name_bytes; i++) {
        uint8_t c = name[i], low = c | 0x20;
        is_token &= (low >= 'a' && low <= 'z' && c < 0x80) || (c >= '0' && c <= '9') ||
                    (c && strchr(MARKS, c));
    }
    if (!is_token)
        return NP_ANSWER_BAD_NAME;
    for (size_t i = 0; i < bytes; i++)
        if (value[i] == 0x7f || (value[i] < ' ' && value[i] != '\t'))
            return NP_ANSWER_BAD_VALUE;
    return NP_ANSWER_OK;
}

/* A field of an application, and the words that it puts behind a status. */
static void check_texts(struct np_fuzz *fuzz, int status)
{
    char text[TEXT_BYTES];
    size_t name_bytes, bytes;
    const uint8_t *name = np_fuzz_bytes(fuzz, np_fuzz_byte(fuzz), &name_bytes);
    const uint8_t *value = np_fuzz_bytes(fuzz, TEXT_BYTES, &bytes);
    int wanted = model_check(name, name_bytes, value, bytes);
    NP_ASSERT(np_answer_check(name, name_bytes, value, bytes) == wanted);
    if (wanted != NP_ANSWER_OK)
        return;
    struct memory memory = open_memory(name_bytes + bytes + NP_ANSWER_FIELD_EXTRA_BYTES);
    memory.at = np_answer_field(memory.base, name, name_bytes, value, bytes);
    check(&memory, text,
          snprintf(text, sizeof(text), "%.*s: %.*s\r\n", (int)name_bytes, name, (int)bytes, value));
    memory = open_memory(NP_ANSWER_STATUS_MAX_BYTES + bytes);
    memory.at = np_answer_status_words(memory.base, status, value, bytes);
    check(&memory, text,
          snprintf(text, sizeof(text), "HTTP/1.1 %d %.*s\r\n", status, (int)bytes, value));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    struct np_fuzz fuzz = np_fuzz_of(
        input, bytes < NP_FUZZ_INPUT_MAX_BYTES ? bytes : NP_FUZZ_INPUT_MAX_BYTES);
    int status = 100 + (int)np_fuzz_below(&fuzz, 900);
    uint8_t method = (uint8_t)np_fuzz_below(&fuzz, NP_HTTP_METHODS_COUNT);
    int64_t now_s = 1 + (int64_t)(np_fuzz_number(&fuzz, 5) % LAST_SECOND);
    int64_t then_s = 1 + (int64_t)(np_fuzz_number(&fuzz, 5) % LAST_SECOND);
    int fault = 1 + (int)np_fuzz_below(&fuzz, NP_HTTP_FAULTS_COUNT - 1);
    int is_without = status < 200 || status == 204 || status == 304 || method == NP_HTTP_HEAD;
    check_status(status);
    NP_ASSERT(np_answer_has_body(method, status) == !is_without);
    check_date(now_s, then_s);
    check_numbers(np_fuzz_number(&fuzz, 8) >> np_fuzz_below(&fuzz, 64));
    check_fault(fault, method, now_s);
    check_texts(&fuzz, status);
    return 0;
}
