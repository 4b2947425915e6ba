#define _GNU_SOURCE 1 /* accept4, memmem */
#include "bench/np_floor_http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOT_BYTES (256 * 1024) /* one buffer for everybody stays in the L2 cache */
#define HEAD_MAX_BYTES (16 * 1024)
#define OUT_BYTES (64 * 1024) /* small answers that go out together */
#define SMALL_MAX_BYTES 4096
#define EVENTS 256

struct hconn { /* indexed by fd */
    uint8_t open;
    uint8_t closing;                    /* no request is read behind this one */
    uint8_t blocked;                    /* waits for EPOLLOUT, and not for EPOLLIN */
    const struct np_floor_route *asked; /* whose body is being skipped */
    uint64_t body_bytes, body_left_bytes;
    uint8_t *input; /* the begin of a head, or requests that wait; NULL: none */
    size_t input_bytes;
    /* What is still to be sent, in this order. */
    uint8_t *own;
    size_t own_bytes, own_sent_bytes;
    const char *fixed;
    size_t fixed_bytes;
    int file_fd;
    off_t file_offset;
    size_t file_bytes;
};

struct floor {
    int epoll_fd, listen_fd, stop_fd;
    const struct np_floor_route *routes;
    uint32_t routes_count;
    uint8_t *hot;
    uint8_t *out;
    size_t out_bytes;
    struct hconn *conns;
    uint32_t conns_cap;
};

static int watch(struct floor *floor, int op, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(floor->epoll_fd, op, fd, &event) < 0 ? -errno : 0;
}

static int make_room(struct floor *floor, uint32_t fd)
{
    uint32_t cap = floor->conns_cap ? floor->conns_cap : 64;
    if (fd < floor->conns_cap)
        return 0;
    while (cap <= fd)
        cap *= 2;
    struct hconn *grown = realloc(floor->conns, cap * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    memset(grown + floor->conns_cap, 0, (cap - floor->conns_cap) * sizeof(*grown));
    floor->conns = grown;
    floor->conns_cap = cap;
    return 0;
}

static int accept_all(struct floor *floor)
{
    for (;;) {
        int fd = accept4(floor->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return errno == EAGAIN || errno == ECONNABORTED ? 0 : -errno;
        int err = make_room(floor, (uint32_t)fd);
        if (err == 0)
            err = watch(floor, EPOLL_CTL_ADD, fd, EPOLLIN);
        if (err < 0) {
            close(fd);
            return err;
        }
        floor->conns[fd] = (struct hconn){.open = 1};
    }
}

static void drop(struct floor *floor, int fd)
{
    free(floor->conns[fd].input);
    free(floor->conns[fd].own);
    floor->conns[fd] = (struct hconn){0};
    close(fd);
}

/* ---- sending ---- */

/* Nothing more is read from it. */
static int is_over(const struct hconn *conn)
{
    return conn->closing && conn->body_left_bytes == 0;
}

static int has_unsent(const struct hconn *conn)
{
    return conn->own || conn->fixed_bytes || conn->file_bytes;
}

/* Sends what the socket takes. 0, or -errno when the connection is to be dropped. */
static int push(int fd, struct hconn *conn)
{
    ssize_t n;
    while (conn->own) {
        n = send(fd, conn->own + conn->own_sent_bytes, conn->own_bytes - conn->own_sent_bytes,
                 MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        conn->own_sent_bytes += (size_t)n;
        if (conn->own_sent_bytes == conn->own_bytes) {
            free(conn->own);
            conn->own = NULL;
        }
    }
    while (conn->fixed_bytes) {
        n = send(fd, conn->fixed, conn->fixed_bytes,
                 MSG_NOSIGNAL | (conn->file_bytes ? MSG_MORE : 0));
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        conn->fixed += n;
        conn->fixed_bytes -= (size_t)n;
    }
    while (conn->file_bytes) {
        n = sendfile(fd, conn->file_fd, &conn->file_offset, conn->file_bytes);
        if (n <= 0) /* 0: the file became shorter */
            return n < 0 && errno == EAGAIN ? 0 : -EIO;
        conn->file_bytes -= (size_t)n;
    }
    return 0;
}

/* Sends the small answers of this turn; the connection keeps what the socket does not take. */
static int flush_out(struct floor *floor, int fd)
{
    struct hconn *conn = &floor->conns[fd];
    size_t bytes = floor->out_bytes;
    ssize_t n = 0;
    floor->out_bytes = 0;
    if (bytes && !conn->own)
        n = send(fd, floor->out, bytes, MSG_NOSIGNAL);
    if (n == (ssize_t)bytes)
        return 0;
    if (n < 0) {
        if (errno != EAGAIN)
            return -errno;
        n = 0;
    }
    size_t had_bytes = conn->own ? conn->own_bytes : 0;
    uint8_t *own = realloc(conn->own, had_bytes + bytes - (size_t)n);
    if (!own)
        return -ENOMEM;
    memcpy(own + had_bytes, floor->out + n, bytes - (size_t)n);
    if (!conn->own)
        conn->own_sent_bytes = 0;
    conn->own = own;
    conn->own_bytes = had_bytes + bytes - (size_t)n;
    return 0;
}

static int add_small(struct floor *floor, int fd, const char *answer, size_t bytes)
{
    int err = 0;
    if (floor->out_bytes + bytes > OUT_BYTES)
        err = flush_out(floor, fd);
    memcpy(floor->out + floor->out_bytes, answer, bytes);
    floor->out_bytes += bytes;
    return err;
}

static int answer(struct floor *floor, int fd, const struct np_floor_route *route)
{
    struct hconn *conn = &floor->conns[fd];
    char text[128], digits[24];
    if (!route->answer) {
        int digits_bytes = snprintf(digits, sizeof(digits), "%llu",
                                    (unsigned long long)conn->body_bytes);
        int bytes = snprintf(text, sizeof(text),
                             "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                             "Content-Length: %d\r\n\r\n%s",
                             digits_bytes, digits);
        return add_small(floor, fd, text, (size_t)bytes);
    }
    if (route->answer_bytes <= SMALL_MAX_BYTES && route->file_fd < 0)
        return add_small(floor, fd, route->answer, route->answer_bytes);
    int err = flush_out(floor, fd);
    if (err < 0)
        return err;
    conn->fixed = route->answer;
    conn->fixed_bytes = route->answer_bytes;
    conn->file_fd = route->file_fd;
    conn->file_offset = 0;
    conn->file_bytes = route->file_fd < 0 ? 0 : route->file_bytes;
    return push(fd, conn);
}

/* The last answer of a connection. */
static int refuse(struct floor *floor, int fd, const char *status)
{
    char text[128];
    int bytes = snprintf(text, sizeof(text),
                         "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status);
    floor->conns[fd].closing = 1;
    return add_small(floor, fd, text, (size_t)bytes);
}

/* ---- reading ---- */

static const struct np_floor_route *route_of(const struct floor *floor, const char *path,
                                             size_t bytes)
{
    for (uint32_t i = 0; i < floor->routes_count; i++) {
        const char *known = floor->routes[i].path;
        if (strlen(known) == bytes && memcmp(known, path, bytes) == 0)
            return &floor->routes[i];
    }
    return NULL;
}

/* The value of a field of this name; NULL: the line is another. */
static const char *value_of(const char *line, const char *line_end, const char *name,
                            size_t name_bytes)
{
    if ((size_t)(line_end - line) <= name_bytes || line[name_bytes] != ':' ||
        strncasecmp(line, name, name_bytes) != 0)
        return NULL;
    line += name_bytes + 1;
    while (line < line_end && (*line == ' ' || *line == '\t'))
        line++;
    return line;
}

#define VALUE_OF(line, end, name) value_of(line, end, name, sizeof(name) - 1)

/* Reads the fields up to `end`. NULL, or the status that refuses them. */
static const char *read_fields(struct hconn *conn, const char *line, const char *end)
{
    int has_length = 0, has_host = 0;
    while (line < end) {
        const char *line_end = memmem(line, (size_t)(end - line), "\r\n", 2);
        const char *value;
        if (!line_end || line_end == line || !memchr(line, ':', (size_t)(line_end - line)))
            return "400 Bad Request";
        if ((value = VALUE_OF(line, line_end, "content-length"))) {
            if (has_length || value == line_end || line_end - value > 15)
                return "400 Bad Request";
            for (; value < line_end; value++) {
                if (*value < '0' || *value > '9')
                    return "400 Bad Request";
                conn->body_bytes = conn->body_bytes * 10 + (uint64_t)(*value - '0');
            }
            has_length = 1;
        } else if (VALUE_OF(line, line_end, "host")) {
            if (has_host++)
                return "400 Bad Request";
        } else if (VALUE_OF(line, line_end, "transfer-encoding")) {
            return "501 Not Implemented";
        } else if ((value = VALUE_OF(line, line_end, "connection"))) {
            if (line_end - value == 5 && strncasecmp(value, "close", 5) == 0)
                conn->closing = 1;
        }
        line = line_end + 2;
    }
    return has_host ? NULL : "400 Bad Request";
}

/* Reads a head, whose end is the empty line. */
static int read_head(struct floor *floor, int fd, const char *head, size_t bytes)
{
    static const char missing[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    static const struct np_floor_route not_found = {
        .path = "", .answer = missing, .answer_bytes = sizeof(missing) - 1, .file_fd = -1};
    struct hconn *conn = &floor->conns[fd];
    const char *line_end = memmem(head, bytes, "\r\n", 2);
    const char *path = memchr(head, ' ', (size_t)(line_end - head));
    const char *path_end = path ? memchr(path + 1, ' ', (size_t)(line_end - path - 1)) : NULL;
    if (!path_end)
        return refuse(floor, fd, "400 Bad Request");
    if (line_end - path_end != 9 || memcmp(path_end, " HTTP/1.1", 9) != 0)
        return refuse(floor, fd, "505 HTTP Version Not Supported");
    if (!(path - head == 3 && memcmp(head, "GET", 3) == 0) &&
        !(path - head == 4 && memcmp(head, "POST", 4) == 0))
        return refuse(floor, fd, "501 Not Implemented");
    conn->body_bytes = 0;
    const char *refusal = read_fields(conn, line_end + 2, head + bytes - 2);
    if (refusal)
        return refuse(floor, fd, refusal);
    conn->asked = route_of(floor, path + 1, (size_t)(path_end - path - 1));
    if (!conn->asked)
        conn->asked = &not_found;
    conn->body_left_bytes = conn->body_bytes;
    return conn->body_bytes ? 0 : answer(floor, fd, conn->asked);
}

/* Keeps what cannot be read yet. */
static int keep_input(struct hconn *conn, const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    conn->input = malloc(bytes);
    if (!conn->input)
        return -ENOMEM;
    memcpy(conn->input, data, bytes);
    conn->input_bytes = bytes;
    return 0;
}

/* Serves the requests in the first `bytes` of the hot buffer, up to one whose answer does not go
 * out at once. */
static int serve_input(struct floor *floor, int fd, size_t bytes)
{
    struct hconn *conn = &floor->conns[fd];
    const uint8_t *data = floor->hot, *end = data + bytes;
    int err = 0;
    while (err == 0 && data < end && !is_over(conn) && !has_unsent(conn)) {
        if (conn->body_left_bytes) {
            size_t piece_bytes = (size_t)(end - data) < conn->body_left_bytes
                                     ? (size_t)(end - data)
                                     : (size_t)conn->body_left_bytes;
            data += piece_bytes;
            conn->body_left_bytes -= piece_bytes;
            if (conn->body_left_bytes == 0)
                err = answer(floor, fd, conn->asked);
            continue;
        }
        const uint8_t *head_end = memmem(data, (size_t)(end - data), "\r\n\r\n", 4);
        if (!head_end) {
            if (end - data > HEAD_MAX_BYTES)
                err = refuse(floor, fd, "431 Request Header Fields Too Large");
            break;
        }
        err = read_head(floor, fd, (const char *)data, (size_t)(head_end - data) + 4);
        data = head_end + 4;
    }
    if (err == 0)
        err = flush_out(floor, fd);
    floor->out_bytes = 0;
    if (err == 0 && !is_over(conn))
        err = keep_input(conn, data, (size_t)(end - data));
    return err;
}

/* Reads behind what was kept. */
static int read_and_serve(struct floor *floor, int fd, int may_read)
{
    struct hconn *conn = &floor->conns[fd];
    size_t kept_bytes = conn->input_bytes;
    ssize_t n = 0;
    if (kept_bytes)
        memcpy(floor->hot, conn->input, kept_bytes);
    free(conn->input);
    conn->input = NULL;
    conn->input_bytes = 0;
    if (may_read) {
        n = recv(fd, floor->hot + kept_bytes, HOT_BYTES - kept_bytes, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return -ECONNRESET;
    }
    return serve_input(floor, fd, kept_bytes + (n > 0 ? (size_t)n : 0));
}

static int serve(struct floor *floor, int fd)
{
    struct hconn *conn = &floor->conns[fd];
    int may_read = !conn->blocked;
    int err = has_unsent(conn) ? push(fd, conn) : 0;
    if (err == 0 && !has_unsent(conn) && !is_over(conn))
        err = read_and_serve(floor, fd, may_read);
    if (err < 0)
        return err;
    if (is_over(conn) && !has_unsent(conn))
        return -ECONNRESET;
    uint8_t blocked = has_unsent(conn) != 0;
    if (blocked == conn->blocked)
        return 0;
    conn->blocked = blocked;
    return watch(floor, EPOLL_CTL_MOD, fd, blocked ? EPOLLOUT : EPOLLIN);
}

/* One wait. 1 = go on, 0 = stop, or -errno. */
static int turn(struct floor *floor)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(floor->epoll_fd, events, EVENTS, -1);
    if (count < 0)
        return errno == EINTR ? 1 : -errno;
    for (int i = 0; i < count; i++) {
        int fd = events[i].data.fd;
        if (fd == floor->stop_fd)
            return 0;
        if (fd == floor->listen_fd) {
            int err = accept_all(floor);
            if (err < 0)
                return err;
        } else if (serve(floor, fd) < 0) {
            drop(floor, fd);
        }
    }
    return 1;
}

int np_floor_http(int listen_fd, int stop_fd, const struct np_floor_route *routes, uint32_t count)
{
    struct floor floor = {
        .listen_fd = listen_fd, .stop_fd = stop_fd, .routes = routes, .routes_count = count};
    int err = -ENOMEM;
    floor.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (floor.epoll_fd < 0)
        return -errno;
    floor.hot = malloc(HOT_BYTES);
    floor.out = malloc(OUT_BYTES);
    if (floor.hot && floor.out)
        err = watch(&floor, EPOLL_CTL_ADD, listen_fd, EPOLLIN);
    if (err == 0)
        err = watch(&floor, EPOLL_CTL_ADD, stop_fd, EPOLLIN);
    if (err == 0) {
        do
            err = turn(&floor);
        while (err > 0);
    }
    for (uint32_t fd = 0; fd < floor.conns_cap; fd++) {
        if (floor.conns[fd].open)
            drop(&floor, (int)fd);
    }
    free(floor.conns);
    free(floor.hot);
    free(floor.out);
    close(floor.epoll_fd);
    return err;
}
