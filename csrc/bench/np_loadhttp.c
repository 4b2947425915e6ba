#define _GNU_SOURCE 1 /* memmem */
#include "bench/np_loadhttp.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/np_assert.h"
#include "bench/np_loadtls.h"
#include "bench/np_pace.h"

#define SCRATCH_BYTES (256 * 1024) /* one hot receive buffer; fits the L2 cache */
#define TEXT_BYTES 8192            /* of a head, and of a line of chunked framing */
#define WHOLE_CHECK_MAX_BYTES 4096
#define WHOLE_CHECK_EVERY 16
#define SPOT_CHECK_BYTES 64
#define EVENTS_PER_WAIT 128
#define WAIT_MS 50 /* how often a silent server's patience is looked at */
#define STOP_TAG UINT32_MAX
#define MAX_BODY_BYTES (UINT64_C(1) << 40)

enum part {
    PART_HEAD = 0,
    PART_BODY,       /* so many bytes as the head says */
    PART_CHUNK_SIZE, /* the line before a chunk */
    PART_CHUNK,
    PART_CHUNK_END, /* the empty line behind it */
    PART_TRAILER    /* lines behind the last chunk, the last one empty */
};

struct http_conn {
    int fd;
    void *session; /* TLS */
    uint8_t busy;  /* a batch is out */
    uint8_t part;
    uint8_t check_whole;
    uint32_t first;      /* the exchange that its batch begins with */
    uint32_t answered;   /* of the batch */
    uint32_t answers;    /* in all */
    size_t sent_bytes;   /* of the batch */
    uint64_t left_bytes; /* of the body, or of the chunk */
    uint64_t body_bytes; /* of the answer, so far */
    int64_t start_ns;
    uint32_t text_bytes;
    uint8_t text[TEXT_BYTES]; /* the begin of a head or of a line */
};

struct np_loadhttp {
    struct np_loadhttp_config config;
    struct http_conn *conns;
    uint8_t *scratch;
    struct np_loadtls *tls; /* NULL: plain */
    int epoll_fd;
    uint32_t in_flight;
    struct np_pace pace; /* of batches */
    struct np_load_result result;
    uint64_t buckets[NP_LOAD_BUCKETS];
};

static int64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

const char *np_loadhttp_fault_text(int fault)
{
    static const char *const texts[] = {
        [NP_LOADHTTP_FAULT_NONE] = "no fault",
        [NP_LOADHTTP_FAULT_CONNECT] = "cannot connect to the server",
        [NP_LOADHTTP_FAULT_TLS] = "the TLS handshake with the server failed",
        [NP_LOADHTTP_FAULT_UPGRADE] = "the server does not open a WebSocket",
        [NP_LOADHTTP_FAULT_SYSTEM] = "a system call of the load generator failed",
        [NP_LOADHTTP_FAULT_BROKEN] = "a connection broke",
        [NP_LOADHTTP_FAULT_CLOSED] = "the server closed a connection",
        [NP_LOADHTTP_FAULT_HEAD] = "the server answered something that is not HTTP/1.1",
        [NP_LOADHTTP_FAULT_STATUS] = "the server answered with another status than 200",
        [NP_LOADHTTP_FAULT_LENGTH] = "the server answered with a body of a wrong length",
        [NP_LOADHTTP_FAULT_CONTENT] = "the server answered with a body of wrong bytes",
        [NP_LOADHTTP_FAULT_EXCESS] = "the server answered more than it was asked for",
        [NP_LOADHTTP_FAULT_STALLED] = "the server stopped answering",
        [NP_LOADHTTP_FAULT_STOPPED] = "the run was stopped",
    };
    NP_STATIC_ASSERT(sizeof(texts) / sizeof(texts[0]) == NP_LOADHTTP_FAULTS,
                     "a text for each fault");
    return fault >= 0 && fault < NP_LOADHTTP_FAULTS ? texts[fault] : "unknown fault";
}

const uint64_t *np_loadhttp_buckets(const struct np_loadhttp *load)
{
    return load->buckets;
}

static int fail(struct np_loadhttp *load, struct http_conn *conn, int fault, int err)
{
    load->result.fault = fault;
    load->result.fault_conn = conn ? (uint32_t)(conn - load->conns) : 0;
    return err;
}

static int refuse(struct np_loadhttp *load, struct http_conn *conn, int fault)
{
    return fail(load, conn, fault, -EPROTO);
}

/* ---- bytes ---- */

static ptrdiff_t put(struct np_loadhttp *load, struct http_conn *conn, const void *data,
                     size_t bytes)
{
    if (load->tls)
        return np_loadtls_send(load->tls, conn->session, data, bytes);
    ssize_t n = send(conn->fd, data, bytes, MSG_NOSIGNAL);
    return n < 0 ? -errno : n;
}

static ptrdiff_t get(struct np_loadhttp *load, struct http_conn *conn, void *data, size_t bytes)
{
    if (load->tls)
        return np_loadtls_recv(load->tls, conn->session, data, bytes);
    ssize_t n = recv(conn->fd, data, bytes, 0);
    return n < 0 ? -errno : n;
}

/* ---- opening ---- */

/* Asks for a WebSocket, on a blocking socket. The answer is read byte by byte: a frame may follow
 * it, and that one belongs to nobody yet. */
static int upgrade(struct np_loadhttp *load, struct http_conn *conn)
{
    const char *request = load->config.upgrade;
    size_t sent_bytes = 0, bytes = strlen(request);
    char head[TEXT_BYTES] = {0};
    size_t len = 0;
    while (sent_bytes < bytes) {
        ptrdiff_t n = put(load, conn, request + sent_bytes, bytes - sent_bytes);
        if (n <= 0)
            return n ? (int)n : -EPIPE;
        sent_bytes += (size_t)n;
    }
    while (len < 4 || memcmp(head + len - 4, "\r\n\r\n", 4) != 0) {
        if (len == sizeof(head) - 1)
            return -EPROTO;
        ptrdiff_t n = get(load, conn, head + len, 1);
        if (n <= 0)
            return n ? (int)n : -EPIPE;
        len++;
    }
    if (strncmp(head, "HTTP/1.1 101 ", 13) != 0 || !strstr(head, load->config.accepted))
        return -EPROTO;
    return 0;
}

static int set_options(const struct np_loadhttp_config *config, int fd)
{
    struct timeval patience = {.tv_sec = config->stall_ns / 1000000000,
                               .tv_usec = config->stall_ns % 1000000000 / 1000};
    int one = 1;
    const char *name = config->congestion;
    /* The two time-outs bound what blocks below: connect, handshake, upgrade. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
        return -errno;
    if (name && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)) < 0)
        return -errno;
    return 0;
}

static int open_conn(struct np_loadhttp *load, struct http_conn *conn, int *fault)
{
    const struct np_loadhttp_config *config = &load->config;
    *fault = NP_LOADHTTP_FAULT_CONNECT;
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (conn->fd < 0)
        return -errno;
    int err = set_options(config, conn->fd);
    if (err < 0)
        return err;
    if (connect(conn->fd, (const struct sockaddr *)&config->address, sizeof(config->address)) < 0)
        return errno == EINPROGRESS || errno == EAGAIN ? -ETIMEDOUT : -errno;
    if (load->tls) {
        *fault = NP_LOADHTTP_FAULT_TLS;
        err = np_loadtls_connect(load->tls, conn->fd, &conn->session);
        if (err < 0)
            return err;
    }
    if (config->upgrade) {
        *fault = NP_LOADHTTP_FAULT_UPGRADE;
        err = upgrade(load, conn);
        if (err < 0)
            return err == -EAGAIN ? -ETIMEDOUT : err;
    }
    *fault = NP_LOADHTTP_FAULT_SYSTEM;
    if (fcntl(conn->fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.u32 = (uint32_t)(conn - load->conns)};
    return epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) < 0 ? -errno : 0;
}

static int is_usable(const struct np_loadhttp_config *config)
{
    if (config->connections == 0 || config->connections > NP_LOAD_MAX_CONNECTIONS ||
        config->depth == 0 || config->depth > NP_LOADHTTP_MAX_DEPTH ||
        config->exchanges_count == 0 || config->exchanges_count > NP_LOADHTTP_MAX_EXCHANGES ||
        config->stall_ns <= 0)
        return 0;
    for (uint32_t i = 0; i < config->exchanges_count; i++) {
        if (config->exchanges[i].batch_bytes == 0 || config->exchanges[i].body_bytes == 0)
            return 0;
    }
    return 1;
}

static int open_shared(struct np_loadhttp *load)
{
    const struct np_loadhttp_config *config = &load->config;
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (load->epoll_fd < 0)
        return -errno;
    load->conns = calloc(config->connections, sizeof(*load->conns));
    load->pace.idle = calloc(config->connections, sizeof(*load->pace.idle));
    load->scratch = malloc(SCRATCH_BYTES);
    if (!load->conns || !load->pace.idle || !load->scratch)
        return -ENOMEM;
    for (uint32_t i = 0; i < config->connections; i++) {
        load->conns[i].fd = -1;
        load->conns[i].first = i % config->exchanges_count;
    }
    if (config->stop_fd >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = STOP_TAG};
        if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, config->stop_fd, &event) < 0)
            return -errno;
    }
    return config->tls_library ? np_loadtls_open(&load->tls, config->tls_library) : 0;
}

int np_loadhttp_open(struct np_loadhttp **out, const struct np_loadhttp_config *config, int *fault)
{
    *out = NULL;
    *fault = NP_LOADHTTP_FAULT_SYSTEM;
    if (!is_usable(config))
        return -EINVAL;
    struct np_loadhttp *load = calloc(1, sizeof(*load));
    if (!load)
        return -ENOMEM;
    load->config = *config;
    int err = open_shared(load);
    for (uint32_t i = 0; err == 0 && i < config->connections; i++)
        err = open_conn(load, &load->conns[i], fault);
    if (err < 0) {
        np_loadhttp_close(load);
        return err;
    }
    *fault = NP_LOADHTTP_FAULT_NONE;
    *out = load;
    return 0;
}

void np_loadhttp_close(struct np_loadhttp *load)
{
    if (!load)
        return;
    for (uint32_t i = 0; load->conns && i < load->config.connections; i++) {
        if (load->tls)
            np_loadtls_end(load->tls, load->conns[i].session);
        if (load->conns[i].fd >= 0)
            close(load->conns[i].fd);
    }
    np_loadtls_close(load->tls);
    if (load->epoll_fd >= 0)
        close(load->epoll_fd);
    free(load->conns);
    free(load->pace.idle);
    free(load->scratch);
    free(load);
}

/* ---- a batch ---- */

static const struct np_loadhttp_exchange *exchange_of(const struct np_loadhttp *load,
                                                      const struct http_conn *conn)
{
    uint32_t index = (conn->first + conn->answered) % load->config.exchanges_count;
    return &load->config.exchanges[index];
}

static int send_more(struct np_loadhttp *load, struct http_conn *conn)
{
    const struct np_loadhttp_exchange *first = &load->config.exchanges[conn->first];
    while (conn->sent_bytes < first->batch_bytes) {
        ptrdiff_t n = put(load, conn, first->batch + conn->sent_bytes,
                          first->batch_bytes - conn->sent_bytes);
        if (n == -EAGAIN)
            return 0;
        if (n <= 0)
            return fail(load, conn, NP_LOADHTTP_FAULT_BROKEN, n ? (int)n : -EPIPE);
        conn->sent_bytes += (size_t)n;
    }
    return 0;
}

static void begin_answer(struct np_loadhttp *load, struct http_conn *conn)
{
    const struct np_loadhttp_exchange *exchange = exchange_of(load, conn);
    conn->part = load->config.upgrade ? PART_BODY : PART_HEAD;
    conn->left_bytes = load->config.upgrade ? exchange->body_bytes : 0;
    conn->body_bytes = 0;
    conn->check_whole = exchange->body_bytes <= WHOLE_CHECK_MAX_BYTES ||
                        conn->answers % WHOLE_CHECK_EVERY == 0;
}

static int begin_batch(struct np_loadhttp *load, struct http_conn *conn, int64_t start_ns)
{
    conn->busy = 1;
    conn->answered = 0;
    conn->sent_bytes = 0;
    conn->start_ns = start_ns;
    load->in_flight++;
    begin_answer(load, conn);
    return send_more(load, conn);
}

/* A connection that has all its answers: the next batch, or none. */
static int end_batch(struct np_loadhttp *load, struct http_conn *conn, int64_t now_ns)
{
    conn->busy = 0;
    conn->first = (conn->first + load->config.depth) % load->config.exchanges_count;
    load->in_flight--;
    int64_t start_ns;
    if (np_pace_take(&load->pace, now_ns, &start_ns))
        return begin_batch(load, conn, start_ns);
    np_pace_rest(&load->pace, (uint32_t)(conn - load->conns));
    return 0;
}

static int begin_what_is_due(struct np_loadhttp *load)
{
    int err = 0;
    struct np_pace *pace = &load->pace;
    int64_t now_ns = clock_ns(), start_ns;
    while (err == 0 && pace->idle_count > 0 && np_pace_take(pace, now_ns, &start_ns))
        err = begin_batch(load, &load->conns[pace->idle[--pace->idle_count]], start_ns);
    return err;
}

/* ---- an answer ---- */

static int end_answer(struct np_loadhttp *load, struct http_conn *conn)
{
    int64_t now_ns = clock_ns();
    int64_t latency_ns = now_ns - conn->start_ns;
    if (conn->body_bytes != exchange_of(load, conn)->body_bytes)
        return refuse(load, conn, NP_LOADHTTP_FAULT_LENGTH);
    load->buckets[np_load_bucket_of(latency_ns)]++;
    if (latency_ns > load->result.latency_max_ns)
        load->result.latency_max_ns = latency_ns;
    load->result.requests_all++;
    if (now_ns < load->pace.deadline_ns)
        load->result.requests++;
    conn->answers++;
    if (++conn->answered == load->config.depth)
        return end_batch(load, conn, now_ns);
    begin_answer(load, conn);
    return 0;
}

static int is_field(const uint8_t *line, size_t bytes, const char *name)
{
    size_t name_bytes = strlen(name);
    return bytes > name_bytes && line[name_bytes] == ':' &&
           strncasecmp((const char *)line, name, name_bytes) == 0;
}

/* The value between the colon and the end of the line, without spaces. */
static const uint8_t *value_of(const uint8_t *line, size_t *bytes)
{
    const uint8_t *end = line + *bytes;
    const uint8_t *value = (const uint8_t *)memchr(line, ':', *bytes) + 1;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (value < end && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *bytes = (size_t)(end - value);
    return value;
}

/* A number of only digits, of this base; -1: it is none. */
static int64_t number_of(const uint8_t *text, size_t bytes, uint32_t base)
{
    uint64_t number = 0;
    if (bytes == 0)
        return -1;
    for (size_t i = 0; i < bytes; i++) {
        uint32_t digit = text[i] - (uint32_t)'0';
        if (digit > 9 && base == 16)
            digit = (text[i] | 0x20u) - (uint32_t)'a' < 6 ? (text[i] | 0x20u) - (uint32_t)'a' + 10
                                                          : 16;
        if (digit >= base)
            return -1;
        number = number * base + digit;
        if (number > MAX_BODY_BYTES)
            return -1;
    }
    return (int64_t)number;
}

/* `text` ends with the empty line. */
static int read_head(struct np_loadhttp *load, struct http_conn *conn, const uint8_t *text,
                     size_t bytes)
{
    const uint8_t *end = text + bytes - 2;
    int64_t length = -1;
    int chunked = 0;
    if (bytes < 15 || memcmp(text, "HTTP/1.1 ", 9) != 0)
        return refuse(load, conn, NP_LOADHTTP_FAULT_HEAD);
    if (memcmp(text + 9, "200", 3) != 0)
        return refuse(load, conn, NP_LOADHTTP_FAULT_STATUS);
    while (text < end) {
        const uint8_t *line_end = memmem(text, (size_t)(end - text), "\r\n", 2);
        size_t line_bytes = (size_t)((line_end ? line_end : end) - text);
        if (is_field(text, line_bytes, "content-length")) {
            size_t value_bytes = line_bytes;
            const uint8_t *value = value_of(text, &value_bytes);
            if (length >= 0 || (length = number_of(value, value_bytes, 10)) < 0)
                return refuse(load, conn, NP_LOADHTTP_FAULT_HEAD);
        } else if (is_field(text, line_bytes, "transfer-encoding")) {
            size_t value_bytes = line_bytes;
            const uint8_t *value = value_of(text, &value_bytes);
            if (chunked || value_bytes != 7 || strncasecmp((const char *)value, "chunked", 7) != 0)
                return refuse(load, conn, NP_LOADHTTP_FAULT_HEAD);
            chunked = 1;
        }
        text += line_bytes + 2;
    }
    if (chunked == (length >= 0)) /* neither of the two, or both */
        return refuse(load, conn, NP_LOADHTTP_FAULT_HEAD);
    if (!chunked && (uint64_t)length != exchange_of(load, conn)->body_bytes)
        return refuse(load, conn, NP_LOADHTTP_FAULT_LENGTH);
    conn->part = chunked ? PART_CHUNK_SIZE : PART_BODY;
    conn->left_bytes = chunked ? 0 : (uint64_t)length;
    return 0;
}

static int read_chunk_size(struct np_loadhttp *load, struct http_conn *conn, const uint8_t *line,
                           size_t bytes)
{
    const uint8_t *semicolon = memchr(line, ';', bytes);
    int64_t size = number_of(line, semicolon ? (size_t)(semicolon - line) : bytes, 16);
    if (size < 0)
        return refuse(load, conn, NP_LOADHTTP_FAULT_HEAD);
    conn->left_bytes = (uint64_t)size;
    conn->part = size ? PART_CHUNK : PART_TRAILER;
    return 0;
}

/* A head, or a line without its end. */
static int read_text(struct np_loadhttp *load, struct http_conn *conn, const uint8_t *text,
                     size_t bytes)
{
    switch (conn->part) {
    case PART_HEAD:
        return read_head(load, conn, text, bytes);
    case PART_CHUNK_SIZE:
        return read_chunk_size(load, conn, text, bytes - 2);
    case PART_CHUNK_END:
        conn->part = PART_CHUNK_SIZE;
        return bytes == 2 ? 0 : refuse(load, conn, NP_LOADHTTP_FAULT_HEAD);
    default:
        return bytes == 2 ? end_answer(load, conn) : 0;
    }
}

/* Takes text up to its end, which may have begun with an earlier piece. Returns how many of these
 * bytes it took, or -errno. */
static ptrdiff_t take_text(struct np_loadhttp *load, struct http_conn *conn, const uint8_t *data,
                           size_t bytes)
{
    const char *mark = conn->part == PART_HEAD ? "\r\n\r\n" : "\r\n";
    size_t mark_bytes = strlen(mark);
    const uint8_t *text = data;
    size_t had_bytes = conn->text_bytes, text_bytes = bytes;
    if (had_bytes) {
        size_t room_bytes = TEXT_BYTES - had_bytes;
        text_bytes = had_bytes + (bytes < room_bytes ? bytes : room_bytes);
        memcpy(conn->text + had_bytes, data, text_bytes - had_bytes);
        text = conn->text;
    }
    const uint8_t *found = memmem(text, text_bytes, mark, mark_bytes);
    if (!found) {
        if (text_bytes >= TEXT_BYTES)
            return refuse(load, conn, NP_LOADHTTP_FAULT_HEAD);
        if (!had_bytes)
            memcpy(conn->text, data, bytes);
        conn->text_bytes = (uint32_t)text_bytes;
        return (ptrdiff_t)bytes;
    }
    size_t whole_bytes = (size_t)(found - text) + mark_bytes;
    conn->text_bytes = 0;
    int err = read_text(load, conn, text, whole_bytes);
    return err < 0 ? err : (ptrdiff_t)(whole_bytes - had_bytes);
}

/* Takes bytes of the body. Returns how many, or -errno. */
static ptrdiff_t take_body(struct np_loadhttp *load, struct http_conn *conn, const uint8_t *data,
                           size_t bytes)
{
    const struct np_loadhttp_exchange *exchange = exchange_of(load, conn);
    size_t piece_bytes = bytes < conn->left_bytes ? bytes : (size_t)conn->left_bytes;
    size_t check_bytes = piece_bytes;
    int err = 0;
    if (conn->body_bytes + piece_bytes > exchange->body_bytes)
        return refuse(load, conn, NP_LOADHTTP_FAULT_LENGTH);
    if (!conn->check_whole && check_bytes > SPOT_CHECK_BYTES)
        check_bytes = SPOT_CHECK_BYTES;
    if (memcmp(data, exchange->body + conn->body_bytes, check_bytes) != 0)
        return refuse(load, conn, NP_LOADHTTP_FAULT_CONTENT);
    load->result.checked_bytes += check_bytes;
    conn->body_bytes += piece_bytes;
    conn->left_bytes -= piece_bytes;
    if (conn->left_bytes == 0) {
        if (conn->part == PART_CHUNK)
            conn->part = PART_CHUNK_END;
        else
            err = end_answer(load, conn);
    }
    return err < 0 ? err : (ptrdiff_t)piece_bytes;
}

/* Is this answer quicker than its question? Of a batch of several one cannot know. */
static int is_early(const struct np_loadhttp *load, const struct http_conn *conn)
{
    return load->config.depth == 1 &&
           conn->sent_bytes < load->config.exchanges[conn->first].batch_bytes;
}

/* Takes what came in one piece. *completed: the batch that it belongs to is answered. */
static int take(struct np_loadhttp *load, struct http_conn *conn, const uint8_t *data, size_t bytes,
                int *completed)
{
    uint32_t before = conn->answers - conn->answered;
    *completed = 0;
    while (bytes > 0) {
        if (!conn->busy || *completed || is_early(load, conn))
            return refuse(load, conn, NP_LOADHTTP_FAULT_EXCESS);
        ptrdiff_t n = conn->part == PART_BODY || conn->part == PART_CHUNK
                          ? take_body(load, conn, data, bytes)
                          : take_text(load, conn, data, bytes);
        if (n < 0)
            return (int)n;
        data += n;
        bytes -= (size_t)n;
        *completed = !conn->busy || conn->answers - conn->answered != before;
    }
    return 0;
}

static int receive(struct np_loadhttp *load, struct http_conn *conn, int ended)
{
    for (;;) {
        int completed;
        ptrdiff_t n = get(load, conn, load->scratch, SCRATCH_BYTES);
        if (n == -EAGAIN)
            return 0;
        if (n <= 0)
            return n ? fail(load, conn, NP_LOADHTTP_FAULT_BROKEN, (int)n)
                     : fail(load, conn, NP_LOADHTTP_FAULT_CLOSED, -EPIPE);
        int err = take(load, conn, load->scratch, (size_t)n, &completed);
        if (err < 0)
            return err;
        /* Has all been received that there was? Then the next byte raises a new edge. The end of
         * the stream may have come with this one. */
        int emptied = load->tls ? completed && !np_loadtls_has_more(load->tls, conn->session)
                                : n < SCRATCH_BYTES;
        if (!ended && emptied)
            return 0;
    }
}

static int handle(struct np_loadhttp *load, const struct epoll_event *event)
{
    if (event->data.u32 == STOP_TAG)
        return fail(load, NULL, NP_LOADHTTP_FAULT_STOPPED, -EINTR);
    struct http_conn *conn = &load->conns[event->data.u32];
    if (conn->busy) {
        int err = send_more(load, conn);
        if (err < 0)
            return err;
    }
    if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        return receive(load, conn, (event->events & (EPOLLRDHUP | EPOLLHUP)) != 0);
    return 0;
}

/* ---- a window ---- */

static struct http_conn *first_busy(struct np_loadhttp *load)
{
    struct http_conn *conn = load->conns;
    while (conn < load->conns + load->config.connections - 1 && !conn->busy)
        conn++;
    return conn;
}

static int wait_and_handle(struct np_loadhttp *load, int64_t *progress_ns)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    int count = epoll_wait(load->epoll_fd, events, EVENTS_PER_WAIT,
                           np_pace_wait_ms(&load->pace, WAIT_MS));
    if (count < 0)
        return errno == EINTR ? 0 : fail(load, NULL, NP_LOADHTTP_FAULT_SYSTEM, -errno);
    if (count > 0 || load->in_flight == 0)
        *progress_ns = clock_ns();
    else if (clock_ns() - *progress_ns >= load->config.stall_ns)
        return fail(load, first_busy(load), NP_LOADHTTP_FAULT_STALLED, -ETIMEDOUT);
    for (int i = 0; i < count; i++) {
        int err = handle(load, &events[i]);
        if (err < 0)
            return err;
    }
    return 0;
}

/* Every connection begins at once, or waits until a batch is due. */
static int begin_window(struct np_loadhttp *load)
{
    int err = 0;
    for (uint32_t i = load->config.connections; err == 0 && i-- > 0;) {
        if (load->pace.interval_ns)
            np_pace_rest(&load->pace, i);
        else
            err = begin_batch(load, &load->conns[i], clock_ns());
    }
    return err;
}

int np_loadhttp_run(struct np_loadhttp *load, int64_t duration_ns, int64_t interval_ns,
                    struct np_load_result *out)
{
    int err = load->result.fault ? -EPROTO : 0;
    np_pace_begin(&load->pace, clock_ns(), duration_ns, interval_ns);
    if (err == 0) {
        memset(&load->result, 0, sizeof(load->result));
        memset(load->buckets, 0, sizeof(load->buckets));
        err = begin_window(load);
    }
    int64_t progress_ns = load->pace.start_ns;
    while (err == 0 && (load->in_flight > 0 || np_pace_has_more(&load->pace))) {
        if (interval_ns)
            err = begin_what_is_due(load);
        if (err == 0)
            err = wait_and_handle(load, &progress_ns);
    }
    load->result.window_ns = duration_ns;
    load->result.elapsed_ns = clock_ns() - load->pace.start_ns;
    *out = load->result;
    return err;
}
