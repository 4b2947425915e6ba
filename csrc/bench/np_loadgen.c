#include "bench/np_loadgen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/np_assert.h"
#include "bench/np_loadtls.h"
#include "bench/np_pace.h"

#define SCRATCH_BYTES (256 * 1024) /* one hot receive buffer; fits the L2 cache */
#define PATTERN_SHIFT_BYTES 4096   /* requests start at different offsets of the pattern */
#define WHOLE_CHECK_MAX_BYTES 4096 /* up to here every byte of every answer is compared */
#define WHOLE_CHECK_EVERY 16       /* beyond: every byte of each 16th request */
#define SPOT_CHECK_BYTES 64        /* and of the others the start of each piece */
#define EVENTS_PER_WAIT 128
#define WAIT_MS 50 /* how often a silent server's patience is looked at */
#define STOP_TAG UINT32_MAX
#define CONNS_PER_SOURCE 20000 /* of the ports that the kernel gives to one address, 28232 */

struct load_conn {
    int fd;
    void *session; /* TLS */
    uint8_t busy;  /* a request is out */
    uint8_t check_whole;
    uint32_t shift_bytes; /* where in the pattern this request starts */
    uint32_t sent_bytes;
    uint32_t received_bytes;
    uint32_t requests;
    int64_t start_ns;
};

struct np_load {
    struct np_load_config config;
    struct load_conn *conns;
    uint8_t *pattern; /* size_bytes + PATTERN_SHIFT_BYTES, the same for every connection */
    uint8_t *scratch;
    struct np_loadtls *tls; /* NULL: plain */
    int epoll_fd;
    uint32_t in_flight;
    struct np_pace pace;
    struct np_load_result result;
    uint64_t buckets[NP_LOAD_BUCKETS];
};

static int64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

uint32_t np_load_bucket_of(int64_t latency_ns)
{
    if (latency_ns < 256)
        return latency_ns < 0 ? 0 : (uint32_t)latency_ns;
    uint32_t power = 63 - (uint32_t)__builtin_clzll((uint64_t)latency_ns); /* >= 8 */
    uint32_t index = 256 + (power - 8) * 128 + ((uint32_t)(latency_ns >> (power - 7)) & 127);
    return index < NP_LOAD_BUCKETS ? index : NP_LOAD_BUCKETS - 1;
}

int64_t np_load_bucket_top_ns(uint32_t index)
{
    if (index < 256)
        return index;
    uint32_t power = 8 + (index - 256) / 128;
    uint32_t step = (index - 256) % 128;
    return ((int64_t)(128 + step + 1) << (power - 7)) - 1;
}

const char *np_load_fault_text(int fault)
{
    static const char *const texts[] = {
        [NP_LOAD_FAULT_NONE] = "no fault",
        [NP_LOAD_FAULT_CONNECT] = "cannot connect to the server",
        [NP_LOAD_FAULT_TLS] = "the TLS handshake with the server failed",
        [NP_LOAD_FAULT_SYSTEM] = "a system call of the load generator failed",
        [NP_LOAD_FAULT_BROKEN] = "a connection broke",
        [NP_LOAD_FAULT_CLOSED] = "the server closed a connection",
        [NP_LOAD_FAULT_CONTENT] = "the server answered other bytes than it was sent",
        [NP_LOAD_FAULT_EXCESS] = "the server answered more bytes than it was sent",
        [NP_LOAD_FAULT_STALLED] = "the server stopped answering",
        [NP_LOAD_FAULT_STOPPED] = "the run was stopped",
    };
    NP_STATIC_ASSERT(sizeof(texts) / sizeof(texts[0]) == NP_LOAD_FAULTS, "a text for each fault");
    return fault >= 0 && fault < NP_LOAD_FAULTS ? texts[fault] : "unknown fault";
}

const uint64_t *np_load_buckets(const struct np_load *load)
{
    return load->buckets;
}

static int fail(struct np_load *load, int fault, uint32_t index, int err)
{
    load->result.fault = fault;
    load->result.fault_conn = index;
    return err;
}

/* ---- opening ---- */

static void fill_pattern(uint8_t *out, size_t len_bytes)
{
    uint64_t x = UINT64_C(0x9E3779B97F4A7C15);
    for (size_t i = 0; i < len_bytes; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out[i] = (uint8_t)(x >> 32);
    }
}

static int set_tcp_options(const struct np_load_config *config, int fd)
{
    int one = 1;
    const char *name = config->congestion;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
        return -errno;
    if (name && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)) < 0)
        return -errno;
    return 0;
}

/* What only connections of a stream have. */
static int set_stream_options(const struct np_load_config *config, int fd)
{
    if (config->address.ss_family != AF_UNIX) {
        int err = set_tcp_options(config, fd);
        if (err < 0)
            return err;
    }
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (config->reset_on_close && setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) < 0)
        return -errno;
    return 0;
}

/* An address has ports for some thousand connections to one server. Over loopback there are more
 * addresses to come from: 127.0.0.2 and so on for those beyond. */
static int choose_source(const struct np_load_config *config, int fd, uint32_t index)
{
    const struct sockaddr_in *to = (const struct sockaddr_in *)&config->address;
    struct sockaddr_in from = {.sin_family = AF_INET};
    int one = 1;
    if (to->sin_family != AF_INET || to->sin_addr.s_addr != htonl(INADDR_LOOPBACK))
        return 0;
    if (index < CONNS_PER_SOURCE)
        return 0;
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + index / CONNS_PER_SOURCE);
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) < 0)
        return -errno;
    return bind(fd, (const struct sockaddr *)&from, sizeof(from)) < 0 ? -errno : 0;
}

static int open_conn(struct np_load *load, uint32_t index)
{
    const struct np_load_config *config = &load->config;
    struct load_conn *conn = &load->conns[index];
    struct timeval patience = {.tv_sec = config->stall_ns / 1000000000,
                               .tv_usec = config->stall_ns % 1000000000 / 1000};
    int type = config->datagrams ? SOCK_DGRAM : SOCK_STREAM;
    conn->fd = socket(config->address.ss_family, type | SOCK_CLOEXEC, 0);
    if (conn->fd < 0)
        return -errno;
    /* Bounds the blocking connect below: a full backlog must not hang the run. */
    if (setsockopt(conn->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return -errno;
    if (!config->datagrams) {
        int err = set_stream_options(config, conn->fd);
        if (err < 0)
            return err;
        err = choose_source(config, conn->fd, index);
        if (err < 0)
            return err;
    } else if (config->address.ss_family == AF_UNIX) {
        /* A name of its own (autobind), so that it can be answered. */
        struct sockaddr none = {.sa_family = AF_UNIX};
        if (bind(conn->fd, &none, sizeof(none.sa_family)) < 0)
            return -errno;
    }
    if (connect(conn->fd, (const struct sockaddr *)&config->address, config->address_bytes) < 0)
        return errno == EINPROGRESS || errno == EAGAIN ? -ETIMEDOUT : -errno;
    if (load->tls) {
        if (setsockopt(conn->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0)
            return -errno;
        load->result.fault = NP_LOAD_FAULT_TLS;
        int err = np_loadtls_connect(load->tls, conn->fd, &conn->session);
        if (err < 0)
            return err;
        load->result.fault = NP_LOAD_FAULT_NONE;
    }
    if (fcntl(conn->fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.u32 = index};
    if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) < 0)
        return -errno;
    return 0;
}

static int open_memory(struct np_load *load)
{
    const struct np_load_config *config = &load->config;
    size_t pattern_bytes = (size_t)config->size_bytes + PATTERN_SHIFT_BYTES;
    load->conns = calloc(config->connections, sizeof(*load->conns));
    load->pace.idle = calloc(config->connections, sizeof(*load->pace.idle));
    load->pattern = malloc(pattern_bytes);
    load->scratch = malloc(SCRATCH_BYTES);
    if (!load->conns || !load->pace.idle || !load->pattern || !load->scratch)
        return -ENOMEM;
    for (uint32_t i = 0; i < config->connections; i++)
        load->conns[i].fd = -1;
    fill_pattern(load->pattern, pattern_bytes);
    return 0;
}

int np_load_open(struct np_load **out, const struct np_load_config *config, int *fault)
{
    int err;
    *out = NULL;
    *fault = NP_LOAD_FAULT_SYSTEM;
    if (config->connections == 0 || config->connections > NP_LOAD_MAX_CONNECTIONS ||
        config->size_bytes == 0 || config->size_bytes > NP_LOAD_MAX_SIZE_BYTES ||
        (config->datagrams && config->size_bytes > NP_LOAD_MAX_DATAGRAM_BYTES) ||
        config->stall_ns <= 0)
        return -EINVAL;
    struct np_load *load = calloc(1, sizeof(*load));
    if (!load)
        return -ENOMEM;
    load->config = *config;
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    err = load->epoll_fd < 0 ? -errno : open_memory(load);
    if (err == 0 && config->tls_library)
        err = np_loadtls_open(&load->tls, config->tls_library);
    if (err < 0)
        goto fail;
    if (config->stop_fd >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = STOP_TAG};
        if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, config->stop_fd, &event) < 0) {
            err = -errno;
            goto fail;
        }
    }
    *fault = NP_LOAD_FAULT_CONNECT;
    for (uint32_t i = 0; i < config->connections; i++) {
        err = open_conn(load, i);
        if (err < 0) {
            if (load->result.fault)
                *fault = load->result.fault;
            goto fail;
        }
    }
    *fault = NP_LOAD_FAULT_NONE;
    *out = load;
    return 0;
fail:
    np_load_close(load);
    return err;
}

void np_load_close(struct np_load *load)
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
    free(load->pattern);
    free(load->scratch);
    free(load);
}

/* ---- one request ---- */

static ptrdiff_t put(struct np_load *load, struct load_conn *conn, const void *data, size_t bytes)
{
    if (load->tls)
        return np_loadtls_send(load->tls, conn->session, data, bytes);
    ssize_t n = send(conn->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n < 0 ? -errno : n;
}

static ptrdiff_t get(struct np_load *load, struct load_conn *conn)
{
    if (load->tls)
        return np_loadtls_recv(load->tls, conn->session, load->scratch, SCRATCH_BYTES);
    ssize_t n = recv(conn->fd, load->scratch, SCRATCH_BYTES, MSG_DONTWAIT);
    return n < 0 ? -errno : n;
}

/* After n bytes of which the last may have completed an answer: has all been received that there
 * was? Then the next byte raises a new edge. */
static int is_emptied(struct np_load *load, struct load_conn *conn, ptrdiff_t n, int completed)
{
    if (load->tls)
        return completed && !np_loadtls_has_more(load->tls, conn->session);
    return n < SCRATCH_BYTES;
}

static int send_more(struct np_load *load, struct load_conn *conn)
{
    uint32_t size_bytes = load->config.size_bytes;
    while (conn->sent_bytes < size_bytes) {
        ptrdiff_t n = put(load, conn, load->pattern + conn->shift_bytes + conn->sent_bytes,
                          size_bytes - conn->sent_bytes);
        if (n <= 0) {
            if (n == -EAGAIN)
                return 0;
            return fail(load, NP_LOAD_FAULT_BROKEN, (uint32_t)(conn - load->conns),
                        n ? (int)n : -EPIPE);
        }
        conn->sent_bytes += (uint32_t)n;
    }
    return 0;
}

/* Its latency counts from start_ns. */
static int start_request(struct np_load *load, struct load_conn *conn, int64_t start_ns)
{
    uint32_t index = (uint32_t)(conn - load->conns);
    load->in_flight++;
    conn->busy = 1;
    conn->sent_bytes = 0;
    conn->received_bytes = 0;
    conn->shift_bytes = (index * 64 + conn->requests * 8) % PATTERN_SHIFT_BYTES;
    conn->check_whole = load->config.size_bytes <= WHOLE_CHECK_MAX_BYTES ||
                        conn->requests % WHOLE_CHECK_EVERY == 0;
    conn->start_ns = start_ns;
    conn->requests++;
    return send_more(load, conn);
}

/* A connection that has its answer: the next request, or none. */
static int next_request(struct np_load *load, struct load_conn *conn, int64_t now_ns)
{
    int64_t start_ns;
    if (np_pace_take(&load->pace, now_ns, &start_ns))
        return start_request(load, conn, start_ns);
    np_pace_rest(&load->pace, (uint32_t)(conn - load->conns));
    return 0;
}

static int start_what_is_due(struct np_load *load)
{
    int err = 0;
    struct np_pace *pace = &load->pace;
    int64_t now_ns = clock_ns(), start_ns;
    while (err == 0 && pace->idle_count > 0 && np_pace_take(pace, now_ns, &start_ns))
        err = start_request(load, &load->conns[pace->idle[--pace->idle_count]], start_ns);
    return err;
}

static int finish_request(struct np_load *load, struct load_conn *conn)
{
    int64_t now_ns = clock_ns();
    int64_t latency_ns = now_ns - conn->start_ns;
    load->buckets[np_load_bucket_of(latency_ns)]++;
    if (latency_ns > load->result.latency_max_ns)
        load->result.latency_max_ns = latency_ns;
    load->result.requests_all++;
    conn->busy = 0;
    load->in_flight--;
    if (now_ns < load->pace.deadline_ns)
        load->result.requests++;
    return next_request(load, conn, now_ns);
}

/* Judges one piece that came back: 0, or the fault with the connection lost. */
static int check_piece(struct np_load *load, struct load_conn *conn, uint32_t len_bytes)
{
    uint32_t index = (uint32_t)(conn - load->conns);
    uint32_t check_bytes = len_bytes;
    /* Also an answer that is quicker than the question. */
    if (!conn->busy || len_bytes > conn->sent_bytes - conn->received_bytes)
        return fail(load, NP_LOAD_FAULT_EXCESS, index, -EPROTO);
    if (!conn->check_whole && check_bytes > SPOT_CHECK_BYTES)
        check_bytes = SPOT_CHECK_BYTES;
    if (memcmp(load->scratch, load->pattern + conn->shift_bytes + conn->received_bytes,
               check_bytes) != 0)
        return fail(load, NP_LOAD_FAULT_CONTENT, index, -EPROTO);
    load->result.checked_bytes += check_bytes;
    return 0;
}

static int receive(struct np_load *load, struct load_conn *conn, int ended)
{
    for (;;) {
        ptrdiff_t n = get(load, conn);
        if (n < 0) {
            if (n == -EAGAIN)
                return 0;
            return fail(load, NP_LOAD_FAULT_BROKEN, (uint32_t)(conn - load->conns), (int)n);
        }
        if (n == 0 && !load->config.datagrams)
            return fail(load, NP_LOAD_FAULT_CLOSED, (uint32_t)(conn - load->conns), -EPIPE);
        if (load->config.datagrams && (uint32_t)n < load->config.size_bytes)
            return fail(load, NP_LOAD_FAULT_CONTENT, (uint32_t)(conn - load->conns), -EPROTO);
        int err = check_piece(load, conn, (uint32_t)n);
        if (err < 0)
            return err;
        conn->received_bytes += (uint32_t)n;
        int completed = conn->received_bytes == load->config.size_bytes;
        if (completed) {
            err = finish_request(load, conn);
            if (err < 0)
                return err;
        }
        /* The end of the stream may have come with this edge. */
        if (!ended && is_emptied(load, conn, n, completed))
            return 0;
    }
}

static int handle(struct np_load *load, const struct epoll_event *event)
{
    if (event->data.u32 == STOP_TAG)
        return fail(load, NP_LOAD_FAULT_STOPPED, 0, -EINTR);
    struct load_conn *conn = &load->conns[event->data.u32];
    if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        int err = receive(load, conn, (event->events & (EPOLLRDHUP | EPOLLHUP)) != 0);
        if (err < 0)
            return err;
    }
    if (conn->busy && conn->sent_bytes < load->config.size_bytes)
        return send_more(load, conn);
    return 0;
}

/* ---- a window ---- */

static uint32_t first_busy(const struct np_load *load)
{
    uint32_t index = 0;
    while (index < load->config.connections - 1 && !load->conns[index].busy)
        index++;
    return index;
}

static int wait_and_handle(struct np_load *load, int64_t *progress_ns)
{
    struct epoll_event events[EVENTS_PER_WAIT];
    int count = epoll_wait(load->epoll_fd, events, EVENTS_PER_WAIT,
                           np_pace_wait_ms(&load->pace, WAIT_MS));
    if (count < 0)
        return errno == EINTR ? 0 : fail(load, NP_LOAD_FAULT_SYSTEM, 0, -errno);
    for (int i = 0; i < count; i++) {
        int err = handle(load, &events[i]);
        if (err < 0)
            return err;
    }
    if (count > 0 || load->in_flight == 0)
        *progress_ns = clock_ns();
    else if (clock_ns() - *progress_ns >= load->config.stall_ns)
        return fail(load, NP_LOAD_FAULT_STALLED, first_busy(load), -ETIMEDOUT);
    return 0;
}

/* Every connection begins at once, or waits until a request is due. */
static int begin_window(struct np_load *load)
{
    int err = 0;
    for (uint32_t i = 0; err == 0 && i < load->config.connections; i++) {
        if (load->pace.interval_ns)
            np_pace_rest(&load->pace, i);
        else
            err = start_request(load, &load->conns[i], clock_ns());
    }
    return err;
}

int np_load_run(struct np_load *load, int64_t duration_ns, int64_t interval_ns,
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
            err = start_what_is_due(load);
        if (err == 0)
            err = wait_and_handle(load, &progress_ns);
    }
    load->result.window_ns = duration_ns;
    load->result.elapsed_ns = clock_ns() - load->pace.start_ns;
    *out = load->result;
    return err;
}
