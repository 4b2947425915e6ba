/* np_http1.h - reads the head of a request, in the memory that it arrived in.
 *
 * Purpose   From unread bytes to a struct that says what is asked for. Strict: what RFC 9112 lets a
 *           server refuse is refused (docs/http-strictness.md has the rules, one by one).
 * Drawing
 *               receive buffers of the loop             a piece each: np_iov.h, np_flow
 *            ...#############] [#####...                # unread bytes of one connection
 *                   |
 *            np_http1_read ---- MORE: what was there is in request->own now, and taken off;
 *                   |                 no receive buffer waits for the rest of a head
 *                   | DONE
 *                   v
 *            base -> GET /a?b HTTP/1.1 CR LF Host: x CR LF CR LF | body or next request
 *                        ^ target        ^ fields[0]             ^ head_bytes
 *
 *           All places are offsets from `base`. Usually the head lies in one piece, and `base`
 *           points into it: nothing is copied. Where it goes over several, it was gathered into
 *           `own` once.
 * Use       1  np_http1_begin, with a struct from the worker's list of free ones
 *           2  np_http1_read whenever bytes come, until it is not NP_HTTP_MORE
 *           3  DONE: look at the request, make of it what the application sees. Then let go of the
 *              first *taken_bytes of the flow, and of `base` with them
 *           4  np_body_begin and np_body_read for the body (np_body.h)
 *           5  answer (np_answer.h), then 1 again with what is left of the flow: pipelined requests
 *              are read one after the other out of the same pieces
 *           A fault: answer with np_http_fault(fault)->status, and close. Nothing is read any more:
 *           the reader says the same fault for ever.
 * Resuming  A call goes on where the last one stopped; nothing is searched again. The result does
 *           not depend on how the bytes were cut.
 * Moving    Memory that is shed (np_flow_shed) moves: set `base` to its new place. Offsets stay.
 * Ownership `own` is the request's (np_http1_close); all other memory is the caller's.
 * Errors    -NP_HTTP_E_... of np_http.h; want of memory is one of them.
 * Threads   One at a time. Limits are only read.
 */
#ifndef NP_HTTP1_H
#define NP_HTTP1_H

#include <stddef.h>
#include <stdint.h>

#include "base/np_assert.h"
#include "http/np_http.h"
#include "mem/np_iov.h"

struct np_http_limits {
    uint32_t line_max_bytes;   /* request line with its CR LF */
    uint32_t head_max_bytes;   /* all of the head; trailers likewise. At most 1 << 30 */
    uint32_t fields_max_count; /* trailers likewise */
    int64_t body_max_bytes;    /* INT64_MAX: any */
};

/* NP_HTTP_..._BYTES of np_limits.h; any body. */
struct np_http_limits np_http_default_limits(void);

struct np_http_span {
    uint32_t at; /* from `base` */
    uint32_t bytes;
};

struct np_http_field {
    uint32_t name_at;
    uint32_t value_at; /* white space around it is off */
    uint32_t value_bytes;
    uint16_t name_bytes;
    uint8_t id; /* enum np_http_field_id */
    uint8_t unused;
};

NP_STATIC_ASSERT(sizeof(struct np_http_field) == 16, "a hundred of them for each busy connection");

enum np_http_form {
    NP_HTTP_ORIGIN,    /* /path?query */
    NP_HTTP_ABSOLUTE,  /* http://authority/path?query */
    NP_HTTP_AUTHORITY, /* host:port, of CONNECT */
    NP_HTTP_ASTERISK,  /* *, of OPTIONS */
};

enum np_http_flags {
    NP_HTTP_KEEP_ALIVE = 1 << 0,     /* the peer wants to go on after this request */
    NP_HTTP_CHUNKED = 1 << 1,        /* the body is; else it has content_length bytes */
    NP_HTTP_HAS_LENGTH = 1 << 2,     /* there is a Content-Length */
    NP_HTTP_EXPECTS = 1 << 3,        /* 100-continue, and a body will follow */
    NP_HTTP_UPGRADES = 1 << 4,       /* to what the field Upgrade says: HTTP/1.1 only */
    NP_HTTP_WEBSOCKET = 1 << 5,      /* that is websocket, by GET and without a body */
    NP_HTTP_TAKES_TRAILERS = 1 << 6, /* TE: trailers */
    NP_HTTP_PATH_ENCODED = 1 << 7,   /* the path has percent signs */
    NP_HTTP_SAYS_CLOSE = 1 << 8,     /* Connection's words, as they were read */
    NP_HTTP_SAYS_KEEP = 1 << 9,
    NP_HTTP_SAYS_UPGRADE = 1 << 10,
};

struct np_http1 {
    /* What the head says: valid from NP_HTTP_DONE on. */
    const uint8_t *base;
    uint32_t head_bytes;
    uint16_t flags; /* enum np_http_flags */
    uint8_t method; /* enum np_http_method */
    uint8_t form;   /* enum np_http_form */
    uint8_t minor;  /* HTTP/1.minor: 0 or 1 (9 counts as 1: RFC 9110 2.5) */
    uint8_t step;   /* the reader's */
    int16_t fault;  /* 0, or what np_http1_read says from now on */
    uint32_t fields_count;
    int64_t content_length; /* 0 without Content-Length */
    struct np_http_span method_name;
    struct np_http_span target;
    struct np_http_span authority; /* of the target; else the value of Host */
    struct np_http_span path;      /* as it was sent; empty in http://host: it means "/" */
    struct np_http_span query;     /* behind the first '?' */
    struct np_http_field *fields;  /* limits->fields_max_count of them: the caller's */
    const struct np_http_limits *limits;
    /* The reader's own. */
    uint32_t line_at; /* of the request line */
    uint32_t mark;    /* where the element begins that is being read */
    uint32_t at;      /* up to here all was looked at */
    uint32_t host;    /* index + 1 of Host among the fields */
    uint8_t *own;     /* what was taken of a head that is not complete */
    uint32_t own_bytes, own_cap_bytes;
};

/* Makes a request of any memory. `fields` and `limits` stay for its life. */
void np_http1_open(struct np_http1 *request, struct np_http_field *fields,
                   const struct np_http_limits *limits);
/* Frees `own`. */
void np_http1_close(struct np_http1 *request);
/* For the next request. Frees `own`. */
void np_http1_begin(struct np_http1 *request);
/* Reads what is unread. NP_HTTP_DONE, NP_HTTP_MORE or a fault; the first *taken_bytes of the pieces
 * are no longer wanted: at once with MORE, after use of the request with DONE. */
int np_http1_read(struct np_http1 *request, const struct np_iov *unread, size_t *taken_bytes);
/* The same of one piece of memory, which has all of the head from its first byte on: `bytes` grows
 * from call to call, `base` may change. */
int np_http1_parse(struct np_http1 *request, const uint8_t *base, size_t bytes);
/* The first field with this number, or NULL. */
const struct np_http_field *np_http1_field(const struct np_http1 *request, uint8_t id);

static inline const uint8_t *np_http1_name(const struct np_http1 *request,
                                           const struct np_http_field *field)
{
    return request->base + field->name_at;
}

static inline const uint8_t *np_http1_value(const struct np_http1 *request,
                                            const struct np_http_field *field)
{
    return request->base + field->value_at;
}

static inline int np_http1_has_body(const struct np_http1 *request)
{
    return (request->flags & NP_HTTP_CHUNKED) || request->content_length > 0;
}

#endif
