# The C of csrc/http, for Cython; the headers say what it is.

from libc.stdint cimport int16_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t

from netpoll._native.c cimport iovec, np_iov

cdef extern from "http/np_http.h" nogil:
    enum:
        NP_HTTP_METHODS_COUNT
        NP_HTTP_FAULTS_COUNT
        NP_HTTP_E_CROWDED
        NP_HTTP_E_TIMEOUT
        NP_HTTP_HEAD
        NP_HTTP_GET
        NP_FIELDS_COUNT
        NP_FIELD_OTHER
        NP_FIELD_ACCEPT
        NP_FIELD_ACCEPT_ENCODING
        NP_FIELD_AUTHORIZATION
        NP_FIELD_CONNECTION
        NP_FIELD_CONTENT_LENGTH
        NP_FIELD_COOKIE
        NP_FIELD_DATE
        NP_FIELD_REFERER
        NP_FIELD_SEC_WEBSOCKET_EXTENSIONS
        NP_FIELD_SEC_WEBSOCKET_KEY
        NP_FIELD_SEC_WEBSOCKET_PROTOCOL
        NP_FIELD_SEC_WEBSOCKET_VERSION
        NP_FIELD_TRANSFER_ENCODING
        NP_FIELD_USER_AGENT
        NP_FIELD_X_FORWARDED_FOR
        NP_FIELD_X_FORWARDED_PROTO
        NP_HTTP_MORE
        NP_HTTP_DONE
        NP_HTTP_FULL

    struct np_http_fault:
        const char *name
        const char *section
        const char *sentence
        int status

    # np_http_fault() of C: Cython has one name for a struct and a function.
    const np_http_fault *np_http_fault_of "np_http_fault"(int fault)

    const char *np_http_method_name(uint8_t method)
    uint8_t np_http_field_id(const uint8_t *name, size_t name_bytes)
    const char *np_http_field_name(uint8_t id)

cdef extern from "http/np_http1.h" nogil:
    enum:
        NP_HTTP_PATH_ENCODED
        NP_HTTP_KEEP_ALIVE
        NP_HTTP_CHUNKED
        NP_HTTP_HAS_LENGTH
        NP_HTTP_EXPECTS
        NP_HTTP_UPGRADES
        NP_HTTP_WEBSOCKET
        NP_HTTP_TAKES_TRAILERS

    struct np_http_limits:
        uint32_t line_max_bytes, head_max_bytes, fields_max_count
        int64_t body_max_bytes

    struct np_http_span:
        uint32_t at
        uint32_t bytes

    struct np_http_field:
        uint32_t name_at, value_at, value_bytes
        uint16_t name_bytes
        uint8_t id

    struct np_http1:
        const uint8_t *base
        uint32_t head_bytes, fields_count
        uint16_t flags
        uint8_t method, form, minor
        int64_t content_length
        uint8_t *own
        np_http_span method_name, target, authority, path, query
        np_http_field *fields

    np_http_limits np_http_default_limits()
    void np_http1_open(np_http1 *request, np_http_field *fields, const np_http_limits *limits)
    void np_http1_close(np_http1 *request)
    void np_http1_begin(np_http1 *request)
    int np_http1_read(np_http1 *request, const np_iov *unread, size_t *taken_bytes)

cdef extern from "http/np_body.h" nogil:
    struct np_body:
        uint64_t data_bytes

    bint np_body_is_over(const np_body *body)
    void np_body_begin(np_body *body, const np_http1 *request)
    int np_body_parse(np_body *body, const uint8_t *piece, size_t bytes, iovec *data, int max_count,
                      int *count, size_t *taken_bytes)
    int np_body_read(np_body *body, const np_iov *unread, iovec *data, int max_count, int *count,
                     size_t *taken_bytes)

cdef extern from "http/np_answer.h" nogil:
    enum:
        NP_ANSWER_STATUS_MAX_BYTES
        NP_ANSWER_DATE_BYTES
        NP_ANSWER_LENGTH_MAX_BYTES
        NP_ANSWER_CHUNKED_BYTES
        NP_ANSWER_CLOSE_BYTES
        NP_ANSWER_FIELD_EXTRA_BYTES
        NP_ANSWER_CHUNK_MAX_BYTES
        NP_ANSWER_FAULT_MAX_BYTES

    struct np_date:
        int64_t second

    bint np_answer_has_body(uint8_t method, int status)
    uint8_t *np_answer_status(uint8_t *at, int status)
    uint8_t *np_answer_date(uint8_t *at, np_date *date, int64_t now_s)
    uint8_t *np_answer_length(uint8_t *at, uint64_t body_bytes)
    uint8_t *np_answer_chunked(uint8_t *at)
    uint8_t *np_answer_close(uint8_t *at)
    int np_answer_check(const uint8_t *name, size_t name_bytes, const uint8_t *value,
                        size_t value_bytes)
    uint8_t *np_answer_field(uint8_t *at, const uint8_t *name, size_t name_bytes,
                             const uint8_t *value, size_t value_bytes)
    uint8_t *np_answer_end(uint8_t *at)
    uint8_t *np_answer_chunk(uint8_t *at, uint64_t data_bytes)
    uint8_t *np_answer_fault(uint8_t *at, int fault, uint8_t method, np_date *date, int64_t now_s)

cdef extern from "http/np_field.h" nogil:
    int np_field_length(const uint8_t *value, size_t bytes, int64_t *length_bytes)
    size_t np_field_unquote(const uint8_t *path, size_t bytes, uint8_t *target, int *is_ascii)

cdef extern from "http/np_utf8.h" nogil:
    struct np_utf8:
        uint8_t left

    bint np_utf8_check(np_utf8 *state, const uint8_t *bytes, size_t count)
    bint np_utf8_is_whole(const np_utf8 *state)

cdef extern from "http/np_websocket.h" nogil:
    enum:
        NP_WS_CONTINUATION
        NP_WS_TEXT
        NP_WS_BINARY
        NP_WS_CLOSE
        NP_WS_PING
        NP_WS_PONG
        NP_WS_FIN
        NP_WS_RSV1
        NP_WS_HEAD_MAX_BYTES
        NP_WS_ANSWER_HEAD_MAX_BYTES
        NP_WS_CONTROL_MAX_BYTES
        NP_WS_PROTOCOL_ERROR
        NP_WS_TOO_BIG

    struct np_ws:
        uint64_t message_max_bytes
        uint8_t compresses

    struct np_ws_frame:
        uint64_t payload_bytes
        uint8_t opcode, is_final, is_compressed
        uint8_t key[4]

    int np_ws_read(np_ws *ws, np_ws_frame *frame, const uint8_t *bytes, size_t count)
    void np_ws_unmask(uint8_t *to, const uint8_t *source, size_t count, const uint8_t *key,
                      uint64_t at)
    uint8_t *np_ws_write(uint8_t *at, uint8_t first, uint64_t payload_bytes)
    bint np_ws_is_close_code(unsigned int code)
    bint np_ws_is_key(const uint8_t *value, size_t bytes)
