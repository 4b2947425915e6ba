/* np_rig.c - see np_rig.h. */
#define _GNU_SOURCE /* accept4 */
#include "np_rig.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const struct np_variant VARIANTS[] = {
    {"uring", &np_uring_ops, 0},
    {"uring, whole buffers", &np_uring_ops, NP_FEATURE_BUF_INC},
    {"uring, no multishot", &np_uring_ops, NP_FEATURE_RECV_MULTI | NP_FEATURE_ACCEPT_MULTI},
    {"uring, whole buffers, no multishot", &np_uring_ops,
     NP_FEATURE_BUF_INC | NP_FEATURE_RECV_MULTI | NP_FEATURE_ACCEPT_MULTI},
    {"epoll", &np_epoll_ops, 0},
    {"epoll, millisecond time-outs", &np_epoll_ops, NP_FEATURE_PWAIT2},
};
enum { VARIANTS_COUNT = sizeof(VARIANTS) / sizeof(VARIANTS[0]) };

#define FDS_MAX 4096 /* enough for every test */

/* ---- the rig ------------------------------------------------------------------------------- */

static const struct np_config TINY = {
    .sq_entries = RIG_SQ_ENTRIES,
    .cq_entries = RIG_CQ_ENTRIES,
    .buf_count = RIG_BUF_COUNT,
    .buf_bytes = RIG_BUF_BYTES,
};

static void open_disabled(struct np_rig *rig, struct np_config config)
{
    config.features_off |= rig->variant->features_off;
    assert_int_equal(np_inbox_open(&rig->inbox), 0);
    int rc = rig->ops->open(&rig->be, &config, rig->inbox.wake_fd);
    /* Refused by the machine. NP_TEST_NO_SKIP=1: a lane where nothing may be left out. */
    if ((rc == -ENOSYS || rc == -EPERM || rc == -EINVAL) && !getenv("NP_TEST_NO_SKIP")) {
        np_inbox_close(&rig->inbox);
        np_skip(rig->variant->name, strerror(-rc));
    }
    assert_int_equal(rc, 0);
    assert_int_equal(np_rig_stats(rig).features & config.features_off, 0);
}

static void open_backend(struct np_rig *rig, struct np_config config)
{
    open_disabled(rig, config);
    assert_int_equal(rig->ops->enable(rig->be), 0);
}

void np_rig_open(struct np_rig *rig, const struct np_variant *variant,
                 const struct np_config *config)
{
    memset(rig, 0, sizeof(*rig));
    rig->variant = variant;
    rig->ops = variant->ops;
    rig->max_events = RIG_MAX_EVENTS;
    rig->fds_before = np_count_fds();
    open_backend(rig, config ? *config : TINY);
}

static void close_backend(struct np_rig *rig)
{
    np_rig_turn(rig, 0); /* gives back the memory of the last events */
    np_rig_turn(rig, 0);
    struct np_stats stats = np_rig_stats(rig);
    assert_int_equal(stats.ops_live, 0);
    assert_int_equal(stats.bufs_free, stats.bufs_total);
    assert_int_equal(stats.counts.notifs_pending, 0);
    if (np_rig_is_uring(rig)) /* epoll's readiness may be older than a close; a completion not */
        assert_int_equal(stats.counts.stale, 0);
    rig->ops->close(rig->be);
    rig->be = NULL;
    np_inbox_close(&rig->inbox);
}

void np_rig_close(struct np_rig *rig)
{
    close_backend(rig);
    assert_int_equal(np_count_fds(), rig->fds_before);
}

void np_rig_reopen(struct np_rig *rig, struct np_config config)
{
    close_backend(rig);
    open_backend(rig, config);
}

void np_rig_reopen_disabled(struct np_rig *rig)
{
    close_backend(rig);
    open_disabled(rig, TINY);
}

struct np_stats np_rig_stats(struct np_rig *rig)
{
    return np_backend_stats(np_head(rig->be));
}

int np_rig_is_uring(const struct np_rig *rig)
{
    return rig->ops == &np_uring_ops;
}

/* ---- events -------------------------------------------------------------------------------- */

static const char *record_result(struct np_watch *watch, const struct np_event *event)
{
    if (event->kind == NP_OP_SQE) {
        watch->cqe_flags = event->cqe_flags;
        return NULL;
    }
    int receives = event->kind == NP_OP_RECV;
    int has_data = receives && event->res > 0;
    if (has_data != (event->data != NULL) || has_data != (event->buf != NULL))
        return "data and its buffer go with RECV and res > 0, and only with it";
    if (has_data) {
        size_t needed = watch->bytes_count + (size_t)event->res;
        if (needed > watch->bytes_cap) {
            watch->bytes_cap = needed * 2;
            watch->bytes = realloc(watch->bytes, watch->bytes_cap);
        }
        memcpy(watch->bytes + watch->bytes_count, event->data, (size_t)event->res);
        watch->bytes_count = needed;
    }
    if (event->kind == NP_OP_ACCEPT && event->res >= 0) {
        if (!watch->accepted)
            watch->accepted = malloc(sizeof(int) * RIG_ACCEPTED_MAX);
        if (watch->accepted_count == RIG_ACCEPTED_MAX)
            return "the test accepts more than it has room for";
        watch->accepted[watch->accepted_count++] = event->res;
    }
    return NULL;
}

/* Of SEND or TRANSMIT. One event; or, of TRANSMIT, two: a result with MORE, and the notice. */
static const char *record_send(struct np_watch *watch, const struct np_event *event)
{
    int is_notice = event->flags & NP_EV_NOTIF;
    if (!is_notice != (watch->events_count == 0))
        return "a send has one result, and a notice only after it";
    if (event->kind == NP_OP_SEND && event->flags)
        return "a SEND has one event, and nothing but a result to tell";
    if (is_notice && (event->flags & NP_EV_MORE))
        return "a notice is the last event";
    if (is_notice && event->res != (watch->result > 0 ? watch->result : 0))
        return "a notice says how many bytes the result had";
    if ((event->flags & NP_EV_COPIED) && !is_notice)
        return "only a notice can tell that bytes were copied";
    if ((event->flags & NP_EV_UNSURE) && !(event->flags & NP_EV_COPIED))
        return "that bytes were not copied is always sure";
    if ((event->flags & NP_EV_NO_ZC) && event->res != 0)
        return "zero-copy was refused and yet something was taken";
    if (!is_notice) {
        watch->result = event->res;
        watch->result_flags = event->flags;
    }
    watch->events_count++;
    watch->last_res = event->res;
    watch->last_flags = event->flags;
    if (!(event->flags & NP_EV_MORE)) {
        watch->armed = 0;
        watch->lasts_count++;
    }
    return NULL;
}

static const char *record(const struct np_event *event)
{
    struct np_watch *watch = event->owner;
    if (!watch)
        return "an event without an owner";
    if (!watch->armed)
        return "an event after the last one";
    if (event->op != watch->op || event->kind != watch->kind)
        return "an event of another operation";
    if (event->kind == NP_OP_SEND || event->kind == NP_OP_TRANSMIT)
        return record_send(watch, event);
    if ((event->flags & NP_EV_MORE) && event->kind != NP_OP_RECV && event->kind != NP_OP_ACCEPT &&
        event->kind != NP_OP_SQE)
        return "a one-shot operation goes on";
    if ((event->flags & NP_EV_MORE) && event->res < 0)
        return "an operation goes on after an error";
    if ((event->flags & NP_EV_MORE) && event->kind == NP_OP_RECV && event->res == 0)
        return "a RECV goes on after the end of the stream";
    watch->events_count++;
    const char *broken = record_result(watch, event);
    if (!(event->flags & NP_EV_MORE)) {
        watch->armed = 0;
        watch->lasts_count++;
        watch->last_res = event->res;
    }
    return broken;
}

/* Whether the bytes of an event, if it has any, are in the buffer that comes with it. */
static int is_in_buffer(struct np_rig *rig, const struct np_event *event)
{
    if (event->kind != NP_OP_RECV || event->res <= 0)
        return 1;
    const struct np_bufmem *mem = event->buf->mem;
    size_t buf_bytes = np_head(rig->be)->bufs.buf_bytes;
    const uint8_t *base = mem->arena.base + (size_t)(event->buf - mem->bufs) * buf_bytes;
    return event->data >= base && event->data + event->res <= base + buf_bytes;
}

int np_rig_turn_raw(struct np_rig *rig, int64_t timeout_ns)
{
    int n = rig->ops->turn(rig->be, rig->events, rig->max_events, timeout_ns);
    if (n > rig->max_events && !rig->broken)
        rig->broken = "more events than there is room for";
    for (int i = 0; i < n && i < rig->max_events; i++) {
        const char *broken = record(&rig->events[i]);
        if (!broken && !is_in_buffer(rig, &rig->events[i]))
            broken = "the bytes of an event are not in the buffer that came with it";
        if (broken && !rig->broken)
            rig->broken = broken;
    }
    return n;
}

static void check_broken(const struct np_rig *rig)
{
    if (rig->broken)
        fail_msg("%s: %s", rig->variant->name, rig->broken);
}

int np_rig_turn(struct np_rig *rig, int64_t timeout_ns)
{
    int n = np_rig_turn_raw(rig, timeout_ns);
    check_broken(rig);
    if (n < 0 && n != -EINTR)
        fail_msg("%s: turn: %s", rig->variant->name, strerror(-n));
    return n;
}

int64_t np_rig_idle_turn(struct np_rig *rig, int64_t timeout_ns)
{
    for (int attempt = 0; attempt < 1000; attempt++) {
        int64_t before_ns = np_clock_ns();
        int n = np_rig_turn(rig, timeout_ns);
        if (n != -EINTR) {
            assert_int_equal(n, 0);
            return np_clock_ns() - before_ns;
        }
    }
    fail_msg("%s: interrupted again and again", rig->variant->name);
    return 0;
}

struct job {
    struct np_rig *rig;
    int turns, rc;
    int64_t timeout_ns;
};

static void *run_job(void *arg)
{
    struct job *job = arg;
    job->rc = job->rig->ops->enable(job->rig->be);
    for (int i = 0; i < job->turns && job->rc >= 0; i++)
        job->rc = np_rig_turn_raw(job->rig, job->timeout_ns);
    return NULL;
}

void np_rig_turn_in_thread(struct np_rig *rig, int turns, int64_t timeout_ns)
{
    struct job job = {.rig = rig, .turns = turns, .timeout_ns = timeout_ns};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run_job, &job), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    check_broken(rig);
    if (job.rc < 0)
        fail_msg("%s: in another thread: %s", rig->variant->name, strerror(-job.rc));
}

/* ---- operations ---------------------------------------------------------------------------- */

int np_rig_try_arm(struct np_rig *rig, struct np_watch *watch, uint8_t kind, int fd,
                   uint32_t poll_mask)
{
    assert_false(watch->armed);
    struct np_op *op = np_op_alloc(&np_head(rig->be)->slab, kind, fd, watch);
    assert_non_null(op);
    op->poll_mask = poll_mask;
    watch->op = np_op_udata(op);
    watch->kind = kind;
    watch->fd = fd;
    watch->poll_mask = poll_mask;
    int rc = rig->ops->arm(rig->be, op);
    watch->armed = rc == 0;
    return rc;
}

void np_rig_arm(struct np_rig *rig, struct np_watch *watch, uint8_t kind, int fd)
{
    assert_int_equal(np_rig_try_arm(rig, watch, kind, fd, 0), 0);
}

void np_rig_poll(struct np_rig *rig, struct np_watch *watch, int fd, uint32_t poll_mask)
{
    assert_int_equal(np_rig_try_arm(rig, watch, NP_OP_POLL, fd, poll_mask), 0);
}

int np_rig_try_submit(struct np_rig *rig, struct np_watch *watches, const void *sqes,
                      uint32_t count)
{
    void *owners[RIG_GROUP_MAX];
    np_udata ops[RIG_GROUP_MAX];
    assert_in_range(count, 0, RIG_GROUP_MAX);
    for (uint32_t i = 0; i < count; i++)
        owners[i] = &watches[i];
    int rc = rig->ops->submit(rig->be, sqes, count, owners, ops);
    for (uint32_t i = 0; i < count && rc == 0; i++) {
        watches[i].op = ops[i];
        watches[i].kind = NP_OP_SQE;
        watches[i].armed = 1;
    }
    return rc;
}

void np_rig_submit(struct np_rig *rig, struct np_watch *watches, const void *sqes, uint32_t count)
{
    assert_int_equal(np_rig_try_submit(rig, watches, sqes, count), 0);
}

void np_rig_stop(struct np_rig *rig, struct np_watch *watch)
{
    if (!watch->armed)
        return;
    assert_int_equal(rig->ops->cancel(rig->be, watch->op, 0), 0);
    NP_UNTIL(rig, !watch->armed);
}

void np_rig_start_send(struct np_rig *rig, struct np_watch *watch, int fd, const struct iovec *iov,
                       int iov_count, int flags)
{
    assert_false(watch->armed);
    watch->kind = flags & NP_SEND_TRANSMITS ? NP_OP_TRANSMIT : NP_OP_SEND;
    watch->fd = fd;
    watch->events_count = 0;
    watch->result = INT32_MIN;
    watch->result_flags = watch->last_flags = 0;
    int rc = rig->ops->send(rig->be, fd, watch, iov, iov_count, flags, &watch->result, &watch->op);
    assert_in_range(rc, 0, 1);
    watch->last_res = watch->result;
    watch->armed = rc == 0;
}

int32_t np_rig_send(struct np_rig *rig, int fd, const void *base, size_t len_bytes)
{
    struct np_watch watch = {0};
    struct iovec iov = {(void *)(uintptr_t)base, len_bytes};
    np_rig_start_send(rig, &watch, fd, &iov, 1, 0);
    NP_UNTIL(rig, !watch.armed);
    return watch.last_res;
}

void np_rig_close_fd(struct np_rig *rig, int fd)
{
    rig->ops->forget(rig->be, fd);
    assert_int_equal(close(fd), 0);
}

void np_watch_free(struct np_watch *watch)
{
    assert_false(watch->armed);
    free(watch->bytes);
    free(watch->accepted);
    memset(watch, 0, sizeof(*watch));
}

/* ---- sockets and bytes --------------------------------------------------------------------- */

void np_socket_pair(int fds[2])
{
    int rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds);
    assert_int_equal(rc, 0);
}

int np_tcp_listen(uint16_t *port, int backlog)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(fd, backlog), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

int np_tcp_connect(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

void np_tcp_pair(int fds[2])
{
    uint16_t port;
    int listener = np_tcp_listen(&port, 1);
    fds[1] = np_tcp_connect(port);
    fds[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fds[0] >= 0);
    close(listener);
}

void np_write_all(int fd, const void *base, size_t len_bytes)
{
    assert_int_equal(send(fd, base, len_bytes, MSG_NOSIGNAL | MSG_DONTWAIT), len_bytes);
}

size_t np_write_until_full(int fd)
{
    static const uint8_t zeros[4096];
    size_t total = 0;
    for (;;) {
        ssize_t n = send(fd, zeros, sizeof(zeros), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            assert_int_equal(errno, EAGAIN);
            return total;
        }
        total += (size_t)n;
    }
}

void np_stream_fill(uint8_t *out, uint32_t stream, uint64_t at, size_t len_bytes)
{
    for (size_t i = 0; i < len_bytes; i++)
        out[i] = np_stream_byte(stream, at + i);
}

int np_stream_matches(const uint8_t *bytes, uint32_t stream, uint64_t at, size_t len_bytes)
{
    for (size_t i = 0; i < len_bytes; i++)
        if (bytes[i] != np_stream_byte(stream, at + i))
            return 0;
    return 1;
}

/* ---- running ------------------------------------------------------------------------------- */

struct run {
    const struct np_variant *variant;
    const struct np_rig_test *test;
};

static void run_one(void **state)
{
    const struct run *run = *state;
    static struct np_rig rig;
    np_rig_open(&rig, run->variant, NULL);
    run->test->body(&rig);
    np_rig_close(&rig);
}

/* A test that failed half-way must not take the following ones with it. */
static int tidy_up(void **state)
{
    (void)state;
    struct rlimit limit;
    const struct itimerval never = {{0, 0}, {0, 0}};
    np_fail_allocations(0);
    setitimer(ITIMER_REAL, &never, NULL);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max < FDS_MAX ? limit.rlim_max : FDS_MAX;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    return 0;
}

int np_rig_main(const char *name, const struct np_rig_test *tests, size_t count)
{
    size_t total = count * VARIANTS_COUNT;
    struct CMUnitTest *all = calloc(total, sizeof(*all));
    struct run *runs = calloc(total, sizeof(*runs));
    char (*names)[96] = calloc(total, sizeof(*names));
    for (size_t i = 0; i < total; i++) {
        runs[i] = (struct run){&VARIANTS[i / count], &tests[i % count]};
        snprintf(names[i], sizeof(names[i]), "%s: %s", runs[i].variant->name, runs[i].test->name);
        all[i] = (struct CMUnitTest){names[i], run_one, NULL, tidy_up, &runs[i]};
    }
    int rc = np_test_main(name, all, total);
    free(names);
    free(runs);
    free(all);
    return rc;
}
