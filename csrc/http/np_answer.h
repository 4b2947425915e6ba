/* np_answer.h - writes the head of an answer, and the framing of its body.
 *
 * Purpose   The pieces of a head as bytes, each appended where the one before it ended, so that a
 *           server writes a head in one go into memory that it sends together with the body. What
 *           an application says is checked first: a CR, LF or NUL in it would make a second
 *           answer.
 * Use       uint8_t *at = memory;
 *           at = np_answer_status(at, 200);
 *           at = np_answer_date(at, &date, now_s);
 *           at = np_answer_field(at, name, name_bytes, value, value_bytes);   checked before
 *           at = np_answer_length(at, body_bytes);       or np_answer_chunked, or neither
 *           at = np_answer_end(at);
 * Memory    The caller's, with room for what is appended: the NP_ANSWER_..._MAX_BYTES.
 * Ownership A struct np_date belongs to one thread; it holds the second that it was written for.
 * Errors    Only np_answer_check has some.
 * Threads   Any, each with its own memory.
 */
#ifndef NP_ANSWER_H
#define NP_ANSWER_H

#include <stddef.h>
#include <stdint.h>

enum {
    NP_ANSWER_STATUS_MAX_BYTES = 56, /* HTTP/1.1 511 Network Authentication Required CR LF */
    NP_ANSWER_DATE_BYTES = 37,
    NP_ANSWER_LENGTH_MAX_BYTES = 38,
    NP_ANSWER_CHUNKED_BYTES = 28,
    NP_ANSWER_CLOSE_BYTES = 19,
    NP_ANSWER_FIELD_EXTRA_BYTES = 4, /* of a field, beside its name and its value */
    NP_ANSWER_CHUNK_MAX_BYTES = 18,
    NP_ANSWER_FAULT_MAX_BYTES = 400,
};

struct np_date {
    int64_t second; /* what `text` says; 0: nothing yet */
    char text[NP_ANSWER_DATE_BYTES + 1];
};

enum np_answer_fault {
    NP_ANSWER_OK,
    NP_ANSWER_BAD_NAME,  /* empty, or not a token */
    NP_ANSWER_BAD_VALUE, /* a control other than a tab */
};

/* The words behind a status of RFC 9110 and its companions; "" for others. */
const char *np_answer_reason(int status);
/* 0: an answer with this status, to this method, ends with its head: HEAD, 1xx, 204, 304. */
int np_answer_has_body(uint8_t method, int status);
/* The status line. */
uint8_t *np_answer_status(uint8_t *at, int status);
/* The same with words of the application (WSGI); check them as a value. Room for them as well. */
uint8_t *np_answer_status_words(uint8_t *at, int status, const uint8_t *words, size_t words_bytes);
/* Date; written anew when the second is another. */
uint8_t *np_answer_date(uint8_t *at, struct np_date *date, int64_t now_s);
uint8_t *np_answer_length(uint8_t *at, uint64_t body_bytes);
uint8_t *np_answer_chunked(uint8_t *at);
uint8_t *np_answer_close(uint8_t *at);
/* enum np_answer_fault of a field of the application. */
int np_answer_check(const uint8_t *name, size_t name_bytes, const uint8_t *value,
                    size_t value_bytes);
uint8_t *np_answer_field(uint8_t *at, const uint8_t *name, size_t name_bytes, const uint8_t *value,
                         size_t value_bytes);
uint8_t *np_answer_end(uint8_t *at);
/* The line before a chunk of this size (0: the last one, with the empty line that ends the body).
 * Behind the data of a chunk comes np_answer_end. */
uint8_t *np_answer_chunk(uint8_t *at, uint64_t data_bytes);
/* The whole answer to a request that has a fault (np_http.h), with its sentence as the body, unless
 * the method was HEAD. The connection closes behind it. */
uint8_t *np_answer_fault(uint8_t *at, int fault, uint8_t method, struct np_date *date,
                         int64_t now_s);

#endif
