/* np_http.h - the words of HTTP/1.1: methods, names of fields, statuses, and what can be wrong.
 *
 * Purpose   The vocabulary that the files of this room share. A method and a well-known field name
 *           is a small number, found without hashing, so that the layers above keep one prebuilt
 *           object for each. A fault of a request is a number as well; np_http_fault says which
 *           status answers it, which line of which RFC it breaks, and says it in a sentence.
 * Not here  Reading (np_http1.h, np_body.h), writing (np_answer.h), single values (np_field.h).
 * Errors    A function that can find a fault returns its negative number: -NP_HTTP_E_...
 * Threads   Any: constants and pure functions.
 */
#ifndef NP_HTTP_H
#define NP_HTTP_H

#include <stddef.h>
#include <stdint.h>

/* What the readers return: one of these, or -NP_HTTP_E_... */
enum np_http_result {
    NP_HTTP_MORE = 0, /* it goes on in bytes that are not there yet */
    NP_HTTP_DONE = 1, /* it is complete */
    NP_HTTP_FULL = 2, /* the caller's array is full; there is more to read at once */
};

#define NP_HTTP_METHODS(X)                                                                         \
    X(GET) X(HEAD) X(POST) X(PUT) X(DELETE) X(CONNECT) X(OPTIONS) X(TRACE) X(PATCH) X(QUERY)

enum np_http_method {
    NP_HTTP_OTHER, /* a token that is none of these */
#define X(name) NP_HTTP_##name,
    NP_HTTP_METHODS(X)
#undef X
        NP_HTTP_METHODS_COUNT
};

/* Field names that have a number. The first ones are looked at by the reader itself, up to
 * NP_FIELD_TE; all names are in lower case here. */
#define NP_HTTP_FIELDS(X)                                                                          \
    X(HOST, "host")                                                                                \
    X(CONTENT_LENGTH, "content-length")                                                            \
    X(TRANSFER_ENCODING, "transfer-encoding")                                                      \
    X(CONNECTION, "connection")                                                                    \
    X(UPGRADE, "upgrade")                                                                          \
    X(EXPECT, "expect")                                                                            \
    X(TE, "te")                                                                                    \
    X(ACCEPT, "accept")                                                                            \
    X(ACCEPT_CHARSET, "accept-charset")                                                            \
    X(ACCEPT_ENCODING, "accept-encoding")                                                          \
    X(ACCEPT_LANGUAGE, "accept-language")                                                          \
    X(ACCESS_CONTROL_REQUEST_HEADERS, "access-control-request-headers")                            \
    X(ACCESS_CONTROL_REQUEST_METHOD, "access-control-request-method")                              \
    X(AUTHORIZATION, "authorization")                                                              \
    X(BAGGAGE, "baggage")                                                                          \
    X(CACHE_CONTROL, "cache-control")                                                              \
    X(CONTENT_ENCODING, "content-encoding")                                                        \
    X(CONTENT_LANGUAGE, "content-language")                                                        \
    X(CONTENT_TYPE, "content-type")                                                                \
    X(COOKIE, "cookie")                                                                            \
    X(DATE, "date")                                                                                \
    X(DNT, "dnt")                                                                                  \
    X(FORWARDED, "forwarded")                                                                      \
    X(FROM, "from")                                                                                \
    X(IF_MATCH, "if-match")                                                                        \
    X(IF_MODIFIED_SINCE, "if-modified-since")                                                      \
    X(IF_NONE_MATCH, "if-none-match")                                                              \
    X(IF_RANGE, "if-range")                                                                        \
    X(IF_UNMODIFIED_SINCE, "if-unmodified-since")                                                  \
    X(KEEP_ALIVE, "keep-alive")                                                                    \
    X(LAST_EVENT_ID, "last-event-id")                                                              \
    X(MAX_FORWARDS, "max-forwards")                                                                \
    X(ORIGIN, "origin")                                                                            \
    X(PRAGMA, "pragma")                                                                            \
    X(PRIORITY, "priority")                                                                        \
    X(PROXY_AUTHORIZATION, "proxy-authorization")                                                  \
    X(PROXY_CONNECTION, "proxy-connection")                                                        \
    X(RANGE, "range")                                                                              \
    X(REFERER, "referer")                                                                          \
    X(SEC_CH_UA, "sec-ch-ua")                                                                      \
    X(SEC_CH_UA_MOBILE, "sec-ch-ua-mobile")                                                        \
    X(SEC_CH_UA_PLATFORM, "sec-ch-ua-platform")                                                    \
    X(SEC_FETCH_DEST, "sec-fetch-dest")                                                            \
    X(SEC_FETCH_MODE, "sec-fetch-mode")                                                            \
    X(SEC_FETCH_SITE, "sec-fetch-site")                                                            \
    X(SEC_FETCH_USER, "sec-fetch-user")                                                            \
    X(SEC_WEBSOCKET_EXTENSIONS, "sec-websocket-extensions")                                        \
    X(SEC_WEBSOCKET_KEY, "sec-websocket-key")                                                      \
    X(SEC_WEBSOCKET_PROTOCOL, "sec-websocket-protocol")                                            \
    X(SEC_WEBSOCKET_VERSION, "sec-websocket-version")                                              \
    X(TRACEPARENT, "traceparent")                                                                  \
    X(TRACESTATE, "tracestate")                                                                    \
    X(TRAILER, "trailer")                                                                          \
    X(UPGRADE_INSECURE_REQUESTS, "upgrade-insecure-requests")                                      \
    X(USER_AGENT, "user-agent")                                                                    \
    X(VIA, "via")                                                                                  \
    X(X_FORWARDED_FOR, "x-forwarded-for")                                                          \
    X(X_FORWARDED_HOST, "x-forwarded-host")                                                        \
    X(X_FORWARDED_PORT, "x-forwarded-port")                                                        \
    X(X_FORWARDED_PREFIX, "x-forwarded-prefix")                                                    \
    X(X_FORWARDED_PROTO, "x-forwarded-proto")                                                      \
    X(X_REAL_IP, "x-real-ip")                                                                      \
    X(X_REQUEST_ID, "x-request-id")                                                                \
    X(X_REQUESTED_WITH, "x-requested-with")

enum np_http_field_id {
    NP_FIELD_OTHER, /* a name that has no number */
#define X(id, name) NP_FIELD_##id,
    NP_HTTP_FIELDS(X)
#undef X
        NP_FIELDS_COUNT
};

#define NP_FIELD_NAME_MAX_BYTES 30 /* of the names above */

/* Faults: number, status of the answer, what it breaks, the sentence of the answer. */
#define NP_HTTP_FAULTS(X)                                                                          \
    X(EMPTY_LINE, 400, "RFC 9112 2.2", "More than one empty line stands before the request.")      \
    X(METHOD, 400, "RFC 9112 3.1", "The method is not a token with one space behind it.")          \
    X(METHOD_LONG, 501, "RFC 9112 3", "The method is longer than any that is known.")              \
    X(TARGET, 400, "RFC 9112 3.2",                                                                 \
      "The target is empty, or has a space, a control, a fragment or a byte that is not ASCII.")   \
    X(TARGET_FORM, 400, "RFC 9112 3.2", "The target's form does not fit the method.")              \
    X(TARGET_AUTHORITY, 400, "RFC 9110 4.2", "The target's authority is not a host and a port.")   \
    X(LINE_LONG, 414, "RFC 9112 3", "The request line is longer than the limit.")                  \
    X(VERSION, 400, "RFC 9112 2.3", "The request line does not end in HTTP/1.1 and CR LF.")        \
    X(VERSION_UNKNOWN, 505, "RFC 9110 15.6.6", "Only versions 1.0 and 1.1 are spoken here.")       \
    X(BARE_CR, 400, "RFC 9112 2.2", "A CR stands without an LF behind it.")                        \
    X(BARE_LF, 400, "RFC 9112 2.2", "An LF stands without a CR before it.")                        \
    X(CONTROL, 400, "RFC 9110 5.5", "A field has a NUL or another control character.")             \
    X(FOLD, 400, "RFC 9112 5.2", "A line of the head begins with white space (obs-fold).")         \
    X(NAME, 400, "RFC 9110 5.1", "A field name is empty or not a token.")                          \
    X(NAME_SPACE, 400, "RFC 9112 5.1", "White space stands between a field name and its colon.")   \
    X(HEAD_LARGE, 431, "RFC 6585 5", "The head is larger than the limit.")                         \
    X(FIELDS_MANY, 431, "RFC 6585 5", "The head has more fields than the limit.")                  \
    X(HOST_MISSING, 400, "RFC 9112 3.2", "A request of HTTP/1.1 has no Host.")                     \
    X(HOST_TWICE, 400, "RFC 9112 3.2", "Host stands there twice.")                                 \
    X(HOST_INVALID, 400, "RFC 9112 3.2", "Host is not a host and a port.")                         \
    X(HOST_OTHER, 400, "RFC 9112 3.2", "Host is not the authority of the target.")                 \
    X(LENGTH, 400, "RFC 9110 8.6", "Content-Length is not a decimal number below 2^63.")           \
    X(LENGTH_TWICE, 400, "RFC 9112 6.3", "Content-Length stands there twice.")                     \
    X(LENGTH_AND_CODING, 400, "RFC 9112 6.1",                                                      \
      "Content-Length and Transfer-Encoding stand there together.")                                \
    X(CODING, 400, "RFC 9112 6.3", "Transfer-Encoding does not end in chunked, once.")             \
    X(CODING_UNKNOWN, 501, "RFC 9112 6.1", "A transfer coding other than chunked is not known.")   \
    X(CODING_OLD, 400, "RFC 9112 6.1", "Transfer-Encoding stands in a request of HTTP/1.0.")       \
    X(BODY_LARGE, 413, "RFC 9110 15.5.14", "The body is larger than the limit.")                   \
    X(CHUNK_SIZE, 400, "RFC 9112 7.1", "A chunk size is not one to sixteen hexadecimal digits.")   \
    X(CHUNK_EXTENSION, 400, "RFC 9112 7.1.1", "A chunk extension is not a name and a value.")      \
    X(CHUNK_END, 400, "RFC 9112 7.1", "A chunk is not followed by CR LF.")                         \
    X(CHUNK_WASTE, 413, "RFC 9112 7.1.1", "The body is more framing than data.")                   \
    X(TRAILER_NAME, 400, "RFC 9110 6.5.1", "A trailer field has a name that frames or routes.")    \
    X(TRAILERS_LARGE, 431, "RFC 6585 5", "The trailers are larger than the limit.")                \
    X(TRAILERS_MANY, 431, "RFC 6585 5", "There are more trailers than the limit.")                 \
    X(TIMEOUT, 408, "RFC 9110 15.5.9", "The request did not arrive in time.")                      \
    X(CROWDED, 503, "RFC 9110 15.6.4", "There are more connections than are served.")              \
    X(NO_MEMORY, 503, "RFC 9110 15.6.4", "There is no memory for this request.")

enum np_http_fault_id {
    NP_HTTP_E_NONE,
#define X(id, status, section, sentence) NP_HTTP_E_##id,
    NP_HTTP_FAULTS(X)
#undef X
        NP_HTTP_FAULTS_COUNT
};

struct np_http_fault {
    const char *name;     /* "CHUNK_SIZE" */
    const char *section;  /* "RFC 9112 7.1" */
    const char *sentence; /* for people; names no content of the request */
    int status;
};

/* fault: NP_HTTP_E_..., or the negative number that a reader returned. */
const struct np_http_fault *np_http_fault(int fault);

/* enum np_http_method of a token. Methods are case-sensitive. */
uint8_t np_http_method(const uint8_t *name, size_t name_bytes);
const char *np_http_method_name(uint8_t method);
/* enum np_http_field_id of a name of visible ASCII, whatever its case. */
uint8_t np_http_field_id(const uint8_t *name, size_t name_bytes);
const char *np_http_field_name(uint8_t id);

#endif
