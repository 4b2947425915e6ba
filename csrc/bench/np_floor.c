#define _GNU_SOURCE 1 /* accept4 */
#include "bench/np_floor.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/np_assert.h"
#include "base/np_compat.h"

static int grow_table(void **table, uint32_t *cap, uint32_t index, size_t entry_bytes)
{
    uint32_t wanted = *cap ? *cap : 64;
    if (index < *cap)
        return 0;
    while (wanted <= index)
        wanted *= 2;
    uint8_t *grown = realloc(*table, wanted * entry_bytes);
    if (!grown)
        return -ENOMEM;
    memset(grown + *cap * entry_bytes, 0, (wanted - *cap) * entry_bytes);
    *table = grown;
    *cap = wanted;
    return 0;
}

/* ---- epoll ---- */

#define EPOLL_HOT_BYTES (256 * 1024) /* one buffer for everybody stays in the L2 cache */
#define EPOLL_EVENTS 256

struct epoll_conn { /* indexed by fd */
    uint8_t *rest;  /* what send did not take; NULL = reading */
    uint32_t rest_bytes, rest_sent_bytes;
    uint8_t open;
};

struct epoll_floor {
    int epoll_fd, listen_fd, stop_fd;
    uint8_t *hot;
    struct epoll_conn *conns;
    uint32_t conns_cap;
};

static int epoll_watch(struct epoll_floor *floor, int op, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(floor->epoll_fd, op, fd, &event) < 0 ? -errno : 0;
}

static int epoll_accept(struct epoll_floor *floor)
{
    for (;;) {
        int fd = accept4(floor->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return errno == EAGAIN || errno == ECONNABORTED ? 0 : -errno;
        int err = grow_table((void **)&floor->conns, &floor->conns_cap, (uint32_t)fd,
                             sizeof(*floor->conns));
        if (err == 0)
            err = epoll_watch(floor, EPOLL_CTL_ADD, fd, EPOLLIN);
        if (err < 0) {
            close(fd);
            return err;
        }
        floor->conns[fd] = (struct epoll_conn){.open = 1};
    }
}

static void epoll_drop(struct epoll_floor *floor, int fd)
{
    free(floor->conns[fd].rest);
    floor->conns[fd] = (struct epoll_conn){0};
    close(fd);
}

/* Sends; what does not fit is kept. 0, or -errno when the connection is to be dropped. */
static int epoll_send_hot(struct epoll_floor *floor, int fd, uint32_t len_bytes)
{
    struct epoll_conn *conn = &floor->conns[fd];
    ssize_t n = send(fd, floor->hot, len_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (NP_LIKELY(n == (ssize_t)len_bytes))
        return 0;
    if (n < 0) {
        if (errno != EAGAIN)
            return -errno;
        n = 0;
    }
    conn->rest_bytes = len_bytes - (uint32_t)n;
    conn->rest_sent_bytes = 0;
    conn->rest = malloc(conn->rest_bytes);
    if (!conn->rest)
        return -ENOMEM;
    memcpy(conn->rest, floor->hot + n, conn->rest_bytes);
    return epoll_watch(floor, EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static int epoll_send_rest(struct epoll_floor *floor, int fd)
{
    struct epoll_conn *conn = &floor->conns[fd];
    ssize_t n = send(fd, conn->rest + conn->rest_sent_bytes,
                     conn->rest_bytes - conn->rest_sent_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    conn->rest_sent_bytes += (uint32_t)n;
    if (conn->rest_sent_bytes < conn->rest_bytes)
        return 0;
    free(conn->rest);
    conn->rest = NULL;
    return epoll_watch(floor, EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void epoll_serve(struct epoll_floor *floor, int fd)
{
    int err;
    if (floor->conns[fd].rest) {
        err = epoll_send_rest(floor, fd);
    } else {
        ssize_t n = recv(fd, floor->hot, EPOLL_HOT_BYTES, MSG_DONTWAIT);
        if (n > 0)
            err = epoll_send_hot(floor, fd, (uint32_t)n);
        else
            err = n < 0 && errno == EAGAIN ? 0 : -ECONNRESET;
    }
    if (err < 0)
        epoll_drop(floor, fd);
}

/* One wait. 1 = go on, 0 = stop, or -errno. */
static int epoll_turn(struct epoll_floor *floor)
{
    struct epoll_event events[EPOLL_EVENTS];
    int count = epoll_wait(floor->epoll_fd, events, EPOLL_EVENTS, -1);
    if (count < 0)
        return errno == EINTR ? 1 : -errno;
    for (int i = 0; i < count; i++) {
        int fd = events[i].data.fd;
        if (fd == floor->stop_fd)
            return 0;
        if (fd == floor->listen_fd) {
            int err = epoll_accept(floor);
            if (err < 0)
                return err;
        } else {
            epoll_serve(floor, fd);
        }
    }
    return 1;
}

int np_floor_epoll(int listen_fd, int stop_fd)
{
    struct epoll_floor floor = {.listen_fd = listen_fd, .stop_fd = stop_fd};
    int err = -ENOMEM;
    floor.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (floor.epoll_fd < 0)
        return -errno;
    floor.hot = malloc(EPOLL_HOT_BYTES);
    if (floor.hot)
        err = epoll_watch(&floor, EPOLL_CTL_ADD, listen_fd, EPOLLIN);
    if (err == 0)
        err = epoll_watch(&floor, EPOLL_CTL_ADD, stop_fd, EPOLLIN);
    if (err == 0) {
        do
            err = epoll_turn(&floor);
        while (err > 0);
    }
    for (uint32_t fd = 0; fd < floor.conns_cap; fd++) {
        if (floor.conns[fd].open)
            epoll_drop(&floor, (int)fd);
    }
    free(floor.conns);
    free(floor.hot);
    close(floor.epoll_fd);
    return err;
}

/* ---- io_uring ---- */

#define URING_SQ_ENTRIES 1024
#define URING_CQ_ENTRIES 8192
#define URING_BUF_GROUP 0
/* Measured at 64 x 64 B and at 16 x 64 KiB: see benchmarks/README.md, "The floors". */
#define URING_INC_COUNT 2
#define URING_INC_BYTES (512 * 1024)
#define URING_WHOLE_COUNT 64
#define URING_WHOLE_BYTES (16 * 1024)
#define NO_PIECE UINT32_MAX

enum uring_sending {
    SEND_NONE = 0,
    SEND_QUIET,  /* does not wait, and reports only failure: over when it is submitted */
    SEND_PATIENT /* waits until the socket takes it all */
};

enum uring_tag { TAG_ACCEPT = 1, TAG_STOP, TAG_RECV, TAG_SEND };

struct uring_piece { /* received bytes on their way back */
    uint8_t *base;
    uint32_t len_bytes;
    uint32_t next;
    uint16_t bid;
};

struct uring_conn {      /* indexed by fd */
    uint32_t head, tail; /* pieces to send, oldest first; the head is in flight */
    uint8_t open;
    uint8_t receiving; /* the multishot recv is armed */
    uint8_t sending;   /* enum uring_sending; not NONE: nobody closes the fd */
    uint32_t sends;    /* armed so far: tells this quiet send from the one before */
    uint8_t ended;     /* the peer is done, or the connection broke */
};

struct uring_quiet { /* a quiet send whose end is not taken note of yet */
    uint32_t fd, number;
};

struct uring_floor {
    struct io_uring ring;
    int listen_fd, stop_fd;
    struct io_uring_buf_ring *bufs;
    size_t bufs_map_bytes;
    uint8_t *memory;
    uint32_t buf_count, buf_bytes;
    uint32_t *refs;          /* per buffer: the kernel's one and one per piece */
    uint32_t *offsets_bytes; /* per buffer: how far it is consumed */
    uint32_t published;      /* buffers given back in this turn */
    struct uring_quiet *quiets;
    uint32_t quiets_count, quiets_cap;
    uint32_t sends;       /* in flight */
    uint32_t pieces_live; /* in flight, or queued behind one that is */
    uint32_t deaf_conns;  /* open, with no recv armed: ended, or out of buffers */
    struct uring_piece *pieces;
    uint32_t pieces_cap, free_piece;
    struct uring_conn *conns;
    uint32_t conns_cap;
    uint32_t *starved; /* fds whose recv ran out of buffers */
    uint32_t starved_count, starved_cap;
    int done;
};

/* A request with its name on it; liburing's prep functions leave user_data alone. */
static struct io_uring_sqe *uring_sqe(struct uring_floor *floor, enum uring_tag tag, int fd)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&floor->ring);
    if (!sqe) {
        /* The one case of a second enter in a turn: more requests than the queue is long. */
        io_uring_submit(&floor->ring);
        sqe = io_uring_get_sqe(&floor->ring);
        NP_ASSERT(sqe);
    }
    sqe->user_data = (uint64_t)tag << 32 | (uint32_t)fd;
    return sqe;
}

/* ---- io_uring: memory ---- */

static void uring_publish(struct uring_floor *floor, uint16_t bid)
{
    floor->refs[bid] = 1;
    floor->offsets_bytes[bid] = 0;
    io_uring_buf_ring_add(floor->bufs, floor->memory + (size_t)bid * floor->buf_bytes,
                          floor->buf_bytes, bid, io_uring_buf_ring_mask(floor->buf_count),
                          (int)floor->published);
    floor->published++;
}

static void uring_release(struct uring_floor *floor, uint16_t bid)
{
    if (--floor->refs[bid] == 0)
        uring_publish(floor, bid);
}

static int uring_register_bufs(struct uring_floor *floor, int incremental)
{
    struct np_buf_reg reg = {.ring_addr = (uintptr_t)floor->bufs,
                             .ring_entries = floor->buf_count,
                             .bgid = URING_BUF_GROUP,
                             .flags = incremental ? NP_IOU_PBUF_RING_INC : 0};
    NP_STATIC_ASSERT(sizeof(reg) == sizeof(struct io_uring_buf_reg), "the same layout");
    return io_uring_register_buf_ring(&floor->ring, (struct io_uring_buf_reg *)&reg, 0);
}

static int uring_open_memory(struct uring_floor *floor, uint32_t count, uint32_t buf_bytes)
{
    floor->buf_count = count;
    floor->buf_bytes = buf_bytes;
    floor->bufs_map_bytes = count * sizeof(struct io_uring_buf);
    void *bufs = mmap(NULL, floor->bufs_map_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *memory = mmap(NULL, (size_t)count * buf_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    floor->bufs = bufs == MAP_FAILED ? NULL : bufs;
    floor->memory = memory == MAP_FAILED ? NULL : memory;
    floor->refs = calloc(count, sizeof(*floor->refs));
    floor->offsets_bytes = calloc(count, sizeof(*floor->offsets_bytes));
    return floor->bufs && floor->memory && floor->refs && floor->offsets_bytes ? 0 : -ENOMEM;
}

static void uring_close_memory(struct uring_floor *floor)
{
    if (floor->bufs)
        munmap(floor->bufs, floor->bufs_map_bytes);
    if (floor->memory)
        munmap(floor->memory, (size_t)floor->buf_count * floor->buf_bytes);
    free(floor->refs);
    free(floor->offsets_bytes);
    floor->bufs = NULL;
    floor->memory = NULL;
    floor->refs = NULL;
    floor->offsets_bytes = NULL;
}

static int uring_open_bufs(struct uring_floor *floor, const struct np_floor_uring_config *config)
{
    uint32_t count = config ? config->buf_count : 0, buf_bytes = config ? config->buf_bytes : 0;
    int incremental = !(config && config->whole_buffers);
    int err;
    for (;;) {
        uint32_t count_now = count ? count : incremental ? URING_INC_COUNT : URING_WHOLE_COUNT;
        uint32_t bytes_now = buf_bytes     ? buf_bytes
                             : incremental ? URING_INC_BYTES
                                           : URING_WHOLE_BYTES;
        err = uring_open_memory(floor, count_now, bytes_now);
        if (err == 0)
            err = uring_register_bufs(floor, incremental);
        if (err != -EINVAL || !incremental)
            break;
        incremental = 0; /* before Linux 6.12 */
        uring_close_memory(floor);
    }
    if (err < 0)
        return err;
    for (uint32_t bid = 0; bid < floor->buf_count; bid++)
        uring_publish(floor, (uint16_t)bid);
    return 0;
}

static uint32_t uring_take_piece(struct uring_floor *floor)
{
    uint32_t index = floor->free_piece;
    if (index == NO_PIECE) {
        index = floor->pieces_cap;
        if (grow_table((void **)&floor->pieces, &floor->pieces_cap, index, sizeof(*floor->pieces)) <
            0)
            return NO_PIECE;
        for (uint32_t i = floor->pieces_cap; i-- > index;) {
            floor->pieces[i].next = floor->free_piece;
            floor->free_piece = i;
        }
    }
    floor->free_piece = floor->pieces[index].next;
    floor->pieces_live++;
    return index;
}

static void uring_drop_head(struct uring_floor *floor, struct uring_conn *conn)
{
    uint32_t index = conn->head;
    struct uring_piece *piece = &floor->pieces[index];
    uring_release(floor, piece->bid);
    conn->head = piece->next;
    if (conn->head == NO_PIECE)
        conn->tail = NO_PIECE;
    piece->next = floor->free_piece;
    floor->free_piece = index;
    floor->pieces_live--;
}

/* ---- io_uring: requests ---- */

static void uring_arm_accept(struct uring_floor *floor)
{
    struct io_uring_sqe *sqe = uring_sqe(floor, TAG_ACCEPT, 0);
    io_uring_prep_multishot_accept(sqe, floor->listen_fd, NULL, NULL, SOCK_CLOEXEC);
}

static void uring_arm_recv(struct uring_floor *floor, int fd)
{
    struct io_uring_sqe *sqe = uring_sqe(floor, TAG_RECV, fd);
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = URING_BUF_GROUP;
    floor->conns[fd].receiving = 1;
    floor->deaf_conns--;
}

/* Sends the connection's oldest piece. A quiet send that succeeds makes no completion, so the turn
 * sleeps until something arrives, not only until its own sends are over; see uring_settle. */
static void uring_arm_send(struct uring_floor *floor, int fd, enum uring_sending how)
{
    struct uring_conn *conn = &floor->conns[fd];
    struct uring_piece *piece = &floor->pieces[conn->head];
    if (how == SEND_QUIET && grow_table((void **)&floor->quiets, &floor->quiets_cap,
                                        floor->quiets_count, sizeof(*floor->quiets)) < 0)
        how = SEND_PATIENT;
    struct io_uring_sqe *sqe = uring_sqe(floor, TAG_SEND, fd);
    /* WAITALL makes a short send a failure, which is reported even by a quiet one. */
    io_uring_prep_send(sqe, fd, piece->base, piece->len_bytes,
                       MSG_WAITALL | MSG_NOSIGNAL | (how == SEND_QUIET ? MSG_DONTWAIT : 0));
    conn->sends++;
    if (how == SEND_QUIET) {
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        floor->quiets[floor->quiets_count++] = (struct uring_quiet){(uint32_t)fd, conn->sends};
    }
    conn->sending = (uint8_t)how;
    floor->sends++;
}

/* Closes when nothing of the connection is in flight any more. */
static void uring_try_close(struct uring_floor *floor, int fd)
{
    struct uring_conn *conn = &floor->conns[fd];
    if (conn->open && conn->ended && !conn->receiving && !conn->sending && conn->head == NO_PIECE) {
        conn->open = 0;
        floor->deaf_conns--;
        close(fd);
    }
}

/* The connection broke: what waits to be sent is dropped, and the recv is made to end. */
static void uring_break(struct uring_floor *floor, int fd)
{
    struct uring_conn *conn = &floor->conns[fd];
    while (conn->head != NO_PIECE)
        uring_drop_head(floor, conn);
    conn->ended = 1;
    if (conn->receiving)
        shutdown(fd, SHUT_RDWR);
}

static int uring_on_accept(struct uring_floor *floor, const struct io_uring_cqe *cqe)
{
    int fd = cqe->res;
    if (!(cqe->flags & IORING_CQE_F_MORE))
        uring_arm_accept(floor);
    if (fd < 0)
        return fd == -ECONNABORTED ? 0 : fd;
    int err = grow_table((void **)&floor->conns, &floor->conns_cap, (uint32_t)fd,
                         sizeof(*floor->conns));
    if (err < 0) {
        close(fd);
        return err;
    }
    floor->conns[fd] = (struct uring_conn){.head = NO_PIECE, .tail = NO_PIECE, .open = 1};
    floor->deaf_conns++;
    uring_arm_recv(floor, fd);
    return 0;
}

/* Takes `len_bytes` that the kernel put into buffer `bid` and queues them for sending. */
static int uring_queue(struct uring_floor *floor, int fd, uint16_t bid, uint32_t len_bytes)
{
    struct uring_conn *conn = &floor->conns[fd];
    uint8_t *base = floor->memory + (size_t)bid * floor->buf_bytes + floor->offsets_bytes[bid];
    floor->offsets_bytes[bid] += len_bytes;
    if (conn->tail != NO_PIECE && conn->tail != conn->head) { /* the head is in flight */
        struct uring_piece *tail = &floor->pieces[conn->tail];
        if (tail->bid == bid && tail->base + tail->len_bytes == base) {
            tail->len_bytes += len_bytes;
            return 0;
        }
    }
    uint32_t index = uring_take_piece(floor);
    if (index == NO_PIECE)
        return -ENOMEM;
    floor->refs[bid]++;
    floor->pieces[index] = (struct uring_piece){
        .base = base, .len_bytes = len_bytes, .next = NO_PIECE, .bid = bid};
    if (conn->tail == NO_PIECE)
        conn->head = index;
    else
        floor->pieces[conn->tail].next = index;
    conn->tail = index;
    if (!conn->sending)
        uring_arm_send(floor, fd, SEND_QUIET);
    return 0;
}

static int uring_starve(struct uring_floor *floor, int fd)
{
    int err = grow_table((void **)&floor->starved, &floor->starved_cap, floor->starved_count,
                         sizeof(*floor->starved));
    if (err == 0)
        floor->starved[floor->starved_count++] = (uint32_t)fd;
    return err;
}

static int uring_on_recv(struct uring_floor *floor, int fd, const struct io_uring_cqe *cqe)
{
    struct uring_conn *conn = &floor->conns[fd];
    int err = 0;
    if (!(cqe->flags & IORING_CQE_F_MORE)) {
        conn->receiving = 0;
        floor->deaf_conns++;
    }
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        uint16_t bid = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        if (cqe->res > 0 && !conn->ended)
            err = uring_queue(floor, fd, bid, (uint32_t)cqe->res);
        else if (cqe->res > 0)
            floor->offsets_bytes[bid] += (uint32_t)cqe->res;
        if (!(cqe->flags & NP_IORING_CQE_F_BUF_MORE))
            uring_release(floor, bid);
    }
    if (cqe->res == -ENOBUFS && !conn->ended)
        return uring_starve(floor, fd);
    if (cqe->res == 0)
        conn->ended = 1;
    else if (cqe->res < 0 && !conn->sending)
        uring_break(floor, fd);
    else if (cqe->res < 0)
        conn->ended = 1; /* the send in flight ends with an error of its own */
    else if (!conn->receiving && !conn->ended)
        uring_arm_recv(floor, fd);
    uring_try_close(floor, fd);
    return err;
}

static void uring_sent(struct uring_floor *floor, int fd)
{
    struct uring_conn *conn = &floor->conns[fd];
    conn->sending = SEND_NONE;
    floor->sends--;
    uring_drop_head(floor, conn);
    if (conn->head != NO_PIECE)
        uring_arm_send(floor, fd, SEND_QUIET);
    else
        uring_try_close(floor, fd);
}

/* A patient send's end, or a quiet one's failure. */
static void uring_on_send(struct uring_floor *floor, int fd, const struct io_uring_cqe *cqe)
{
    struct uring_conn *conn = &floor->conns[fd];
    struct uring_piece *piece = &floor->pieces[conn->head];
    if (cqe->res >= 0 && (uint32_t)cqe->res == piece->len_bytes) {
        uring_sent(floor, fd);
        return;
    }
    int was_quiet = conn->sending == SEND_QUIET;
    conn->sending = SEND_NONE;
    floor->sends--;
    if (cqe->res > 0 || (cqe->res == -EAGAIN && was_quiet)) {
        uint32_t taken_bytes = cqe->res > 0 ? (uint32_t)cqe->res : 0;
        piece->base += taken_bytes;
        piece->len_bytes -= taken_bytes;
        uring_arm_send(floor, fd, SEND_PATIENT);
    } else {
        uring_break(floor, fd);
        uring_try_close(floor, fd);
    }
}

static int uring_handle(struct uring_floor *floor, const struct io_uring_cqe *cqe)
{
    int fd = (int)(uint32_t)cqe->user_data;
    switch ((enum uring_tag)(cqe->user_data >> 32)) {
    case TAG_ACCEPT:
        return uring_on_accept(floor, cqe);
    case TAG_STOP:
        floor->done = 1;
        return 0;
    case TAG_RECV:
        return uring_on_recv(floor, fd, cqe);
    case TAG_SEND:
        uring_on_send(floor, fd, cqe);
        return 0;
    }
    return -EPROTO;
}

/* ---- io_uring: the turn ---- */

/* Gives buffers back, and with them the connections that ran out of them a new start. */
static void uring_give_back(struct uring_floor *floor)
{
    if (floor->published == 0)
        return;
    io_uring_buf_ring_advance(floor->bufs, (int)floor->published);
    floor->published = 0;
    for (uint32_t i = 0; i < floor->starved_count; i++) {
        int fd = (int)floor->starved[i];
        struct uring_conn *conn = &floor->conns[fd];
        /* Meanwhile it may have been closed and its number given to somebody else. */
        if (conn->open && !conn->ended && !conn->receiving)
            uring_arm_recv(floor, fd);
    }
    floor->starved_count = 0;
}

/* The first `count` quiet sends were submitted, and those that failed said so: the rest is done. */
static void uring_settle(struct uring_floor *floor, uint32_t count)
{
    if (count == 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        struct uring_quiet quiet = floor->quiets[i];
        struct uring_conn *conn = &floor->conns[quiet.fd];
        if (conn->sending == SEND_QUIET && conn->sends == quiet.number)
            uring_sent(floor, (int)quiet.fd);
    }
    floor->quiets_count -= count; /* what was armed meanwhile stands behind them */
    memmove(floor->quiets, floor->quiets + count, floor->quiets_count * sizeof(*floor->quiets));
}

/* Whether the turn may sleep: not when something waits for the end of its own quiet sends, which
 * nothing reports - a piece behind one, a connection that is to be closed, one without a buffer. */
static int uring_may_sleep(const struct uring_floor *floor)
{
    return floor->quiets_count == 0 ||
           (floor->deaf_conns == 0 && floor->pieces_live == floor->sends);
}

static int uring_turn(struct uring_floor *floor)
{
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    uint32_t quiets_count = floor->quiets_count;
    int err = io_uring_submit_and_wait(&floor->ring, uring_may_sleep(floor) ? 1 : 0);
    if (err < 0 && err != -EINTR)
        return err;
    err = 0;
    io_uring_for_each_cqe(&floor->ring, head, cqe)
    {
        count++;
        if (err == 0)
            err = uring_handle(floor, cqe);
    }
    io_uring_cq_advance(&floor->ring, count);
    uring_settle(floor, quiets_count);
    uring_give_back(floor);
    return err;
}

static int uring_open_ring(struct io_uring *ring)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
                                     .cq_entries = URING_CQ_ENTRIES};
    return io_uring_queue_init_params(URING_SQ_ENTRIES, ring, &params);
}

int np_floor_uring_probe(void)
{
    struct io_uring ring;
    int err = uring_open_ring(&ring);
    if (err < 0)
        return err;
    io_uring_queue_exit(&ring);
    return 0;
}

int np_floor_uring(int listen_fd, int stop_fd, const struct np_floor_uring_config *config)
{
    struct uring_floor floor = {.listen_fd = listen_fd, .stop_fd = stop_fd, .free_piece = NO_PIECE};
    int err = uring_open_ring(&floor.ring);
    if (err < 0)
        return err;
    err = uring_open_bufs(&floor, config);
    /* Saves the kernel a look-up of the ring's fd per enter; a refusal costs only that. */
    if (err == 0)
        (void)io_uring_register_ring_fd(&floor.ring);
    if (err == 0) {
        uring_give_back(&floor);
        uring_arm_accept(&floor);
        io_uring_prep_poll_add(uring_sqe(&floor, TAG_STOP, 0), stop_fd, POLLIN);
    }
    while (err == 0 && !floor.done)
        err = uring_turn(&floor);
    /* The ring first: it may still write into the buffers. */
    io_uring_queue_exit(&floor.ring);
    for (uint32_t fd = 0; fd < floor.conns_cap; fd++) {
        if (floor.conns[fd].open)
            close((int)fd);
    }
    uring_close_memory(&floor);
    free(floor.pieces);
    free(floor.conns);
    free(floor.starved);
    free(floor.quiets);
    return err;
}
