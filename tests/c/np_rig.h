/* np_rig.h - one backend on a bench: tiny capacities, every event checked, everything counted.
 *
 * Purpose   The same test bodies run on each variant: both backends, and each with features taken
 *           away. The rig checks what must hold for every event of every test:
 *             - it belongs to an operation that is armed, and nothing follows its last event;
 *             - it carries data exactly when it is a RECV with res > 0;
 *           and, when it closes: no operation alive, all buffers free, all fds closed.
 * Threads   np_rig_turn_raw asserts nothing (it notes the first violation in `broken`) and may run
 *           in any thread; everything else belongs to the thread that runs the test.
 */
#ifndef NP_RIG_H
#define NP_RIG_H

#include "np_test.h"

#include "io/np_backend.h"
#include "io/np_inbox.h"
#include "io/np_timer.h"

#define MS_NS INT64_C(1000000)
#define SECOND_NS INT64_C(1000000000)

enum {
    RIG_MAX_EVENTS = 64,
    RIG_SQ_ENTRIES = 8,
    RIG_CQ_ENTRIES = 32,
    RIG_BUF_COUNT = 2,
    RIG_BUF_BYTES = 256,
    RIG_ACCEPTED_MAX = 512,
    RIG_GROUP_MAX = 16,
};

struct np_variant {
    const char *name;
    const struct np_backend_ops *ops;
    uint32_t features_off;
};

/* An operation (again and again, if it is armed again) and all that came of it. */
struct np_watch {
    np_udata op;
    int fd;
    uint8_t kind;
    uint8_t armed;      /* 0 again with the last event */
    uint32_t poll_mask; /* POLL */
    uint32_t events_count;
    uint32_t lasts_count;
    int32_t last_res; /* of the last event */
    int32_t result;   /* of a send's first event; last_res is the notice's when one came */
    uint8_t result_flags, last_flags; /* of a send: enum np_event_flags */
    uint64_t cqe_flags;               /* SQE: of the newest event */
    uint8_t *bytes;                   /* RECV: all received until the test resets bytes_count */
    size_t bytes_count, bytes_cap;
    int *accepted; /* ACCEPT: everything accepted */
    uint32_t accepted_count;
};

struct np_rig {
    const struct np_variant *variant;
    const struct np_backend_ops *ops;
    struct np_backend *be;
    struct np_inbox inbox;
    struct np_event events[RIG_MAX_EVENTS];
    int max_events; /* per turn; a test may lower it */
    int fds_before;
    const char *broken; /* the first rule that an event broke */
};

void np_rig_open(struct np_rig *rig, const struct np_variant *variant,
                 const struct np_config *config);
void np_rig_close(struct np_rig *rig);
/* Closes and opens again with other capacities. features_off is added to the variant's. */
void np_rig_reopen(struct np_rig *rig, struct np_config config);
/* The same with the rig's own capacities, as a loop is before any thread runs it. */
void np_rig_reopen_disabled(struct np_rig *rig);
struct np_stats np_rig_stats(struct np_rig *rig);
int np_rig_is_uring(const struct np_rig *rig);

int np_rig_turn_raw(struct np_rig *rig, int64_t timeout_ns);
/* Asserts that no rule was broken and that nothing but -EINTR went wrong. */
int np_rig_turn(struct np_rig *rig, int64_t timeout_ns);
/* A turn in which nothing may happen; returns how long it took. Starts over after -EINTR: a thread
 * whose io_uring was closed a moment ago, by an earlier test say, is interrupted by the kernel. */
int64_t np_rig_idle_turn(struct np_rig *rig, int64_t timeout_ns);
/* Enables the backend in a new thread and runs `turns` turns there. */
void np_rig_turn_in_thread(struct np_rig *rig, int turns, int64_t timeout_ns);

/* Turns until the condition holds; fails after ten seconds. */
#define NP_UNTIL(rig, condition)                                                                   \
    for (int64_t end_ns_ = np_clock_ns() + 10 * SECOND_NS; !(condition);) {                        \
        assert_true(np_clock_ns() < end_ns_ && "waiting for: " #condition);                        \
        np_rig_turn(rig, 20 * MS_NS);                                                              \
    }

/* 0, or what arm refused it with. */
int np_rig_try_arm(struct np_rig *rig, struct np_watch *watch, uint8_t kind, int fd,
                   uint32_t poll_mask);
void np_rig_arm(struct np_rig *rig, struct np_watch *watch, uint8_t kind, int fd);
void np_rig_poll(struct np_rig *rig, struct np_watch *watch, int fd, uint32_t poll_mask);
/* Submits entries of the test's own, one watch each. 0, or what they were refused with. */
int np_rig_try_submit(struct np_rig *rig, struct np_watch *watches, const void *sqes,
                      uint32_t count);
void np_rig_submit(struct np_rig *rig, struct np_watch *watches, const void *sqes, uint32_t count);
/* Cancels and waits for the last event; does nothing to a watch that is not armed. */
void np_rig_stop(struct np_rig *rig, struct np_watch *watch);
/* Starts a send; flags: enum np_send_flags. `watch` is armed until its last event, or not at all
 * when it is done: `result` says how it went. */
void np_rig_start_send(struct np_rig *rig, struct np_watch *watch, int fd, const struct iovec *iov,
                       int iov_count, int flags);
/* Sends and waits for the result: bytes or -errno. */
int32_t np_rig_send(struct np_rig *rig, int fd, const void *base, size_t len_bytes);
/* Forgets the fd and closes it. */
void np_rig_close_fd(struct np_rig *rig, int fd);
void np_watch_free(struct np_watch *watch);

/* Nonblocking, close-on-exec sockets. */
void np_socket_pair(int fds[2]);
int np_tcp_listen(uint16_t *port, int backlog);
int np_tcp_connect(uint16_t port);
void np_tcp_pair(int fds[2]);
/* Writes all of it or fails; for amounts that fit the socket's buffer. */
void np_write_all(int fd, const void *base, size_t len_bytes);
/* Fills the socket's buffer; returns how many bytes it took. */
size_t np_write_until_full(int fd);

/* Byte `at` of the stream number `stream`: no two streams, and no shifted ones, look alike. */
static inline uint8_t np_stream_byte(uint32_t stream, uint64_t at)
{
    uint64_t x = (at + 1) * 0x9E3779B97F4A7C15u + stream * 0xBF58476D1CE4E5B9u;
    return (uint8_t)(x >> 56 ^ x >> 29);
}

void np_stream_fill(uint8_t *out, uint32_t stream, uint64_t at, size_t len_bytes);
/* 1 when the bytes are the stream's from `at` on. */
int np_stream_matches(const uint8_t *bytes, uint32_t stream, uint64_t at, size_t len_bytes);

struct np_rig_test {
    const char *name;
    void (*body)(struct np_rig *rig);
};

#define NP_RIG_TEST(body) {#body, body}

/* Runs each test on each variant, on a freshly opened rig that it closes afterwards. */
int np_rig_main(const char *name, const struct np_rig_test *tests, size_t count);

#define NP_RIG_MAIN(name, tests) np_rig_main(name, tests, sizeof(tests) / sizeof(tests[0]))

#endif
