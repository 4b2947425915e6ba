/* np_zcbench.c - see np_zcbench.h. */
#include "bench/np_zcbench.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io/np_backend.h"
#include "io/np_inbox.h"
#include "io/np_timer.h"

#define SLOTS_MAX 1024u

struct sender {
    struct np_zcbench *bench;
    struct np_backend *be;
    struct np_inbox inbox;
    struct np_arena arena;
    bool busy[SLOTS_MAX];
    uint32_t slots_count, next_slot, busy_count;
    bool has_result; /* of the newest send: the next one may go */
    int err;
};

static int64_t thread_cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static int open_sender(struct sender *s)
{
    static const struct np_config config = {.sq_entries = 64, .cq_entries = 4096};
    s->inbox.wake_fd = -1;
    int pages = s->bench->plain_pages ? NP_ARENA_PLAIN_ONLY : NP_ARENA_LADDER;
    int err = np_arena_open(&s->arena, NP_ZCBENCH_WINDOW_BYTES, pages);
    if (err < 0)
        return err;
    memset(s->arena.base, 'x', s->arena.size_bytes);
    s->bench->arena_kind = s->arena.kind;
    err = np_inbox_open(&s->inbox);
    if (err < 0)
        return err;
    err = np_uring_ops.open(&s->be, &config, s->inbox.wake_fd);
    if (err < 0)
        return err;
    err = np_uring_ops.enable(s->be);
    if (err == 0 && s->bench->way == NP_ZCBENCH_REGISTERED) {
        err = np_uring_ops.attach(s->be, s->arena.base, s->arena.size_bytes, NP_ATTACH_ON);
        s->bench->attach_err = err;
    }
    return err;
}

static void close_sender(struct sender *s)
{
    if (s->be) {
        if (s->busy_count)
            np_backend_abandon(s->be); /* after an error: sends may be left in it */
        np_uring_ops.close(s->be);
    }
    if (s->inbox.wake_fd >= 0)
        np_inbox_close(&s->inbox);
    np_arena_close(&s->arena);
}

static void start_send(struct sender *s)
{
    struct np_zcbench *bench = s->bench;
    uint32_t slot = s->next_slot;
    struct iovec iov = {s->arena.base + (size_t)slot * bench->size_bytes, bench->size_bytes};
    int flags = NP_SEND_WAIT | NP_SEND_ALL;
    if (bench->way != NP_ZCBENCH_PLAIN)
        flags |= NP_SEND_ZC | (s->busy_count ? 0 : NP_SEND_ALONE);
    int32_t res;
    np_udata op;
    int rc = np_uring_ops.send(s->be, bench->fd, &s->busy[slot], &iov, 1, flags, &res, &op);
    if (rc != 0) {
        s->err = rc < 0 ? rc : -EIO;
        return;
    }
    s->busy[slot] = true;
    s->busy_count++;
    s->next_slot = (slot + 1) % s->slots_count;
    s->has_result = false;
}

static void take_event(struct sender *s, const struct np_event *event)
{
    if (!(event->flags & NP_EV_NOTIF)) {
        s->has_result = true;
        if (event->res < 0)
            s->err = event->res;
        else if (event->flags & NP_EV_NO_ZC)
            s->err = -EOPNOTSUPP;
        else
            s->bench->sent_bytes += (uint32_t)event->res;
    }
    if (!(event->flags & NP_EV_MORE)) {
        *(bool *)event->owner = false;
        s->busy_count--;
    }
}

static int run(struct sender *s)
{
    struct np_zcbench *bench = s->bench;
    struct np_event events[64];
    int64_t heard_ns = np_clock_ns();
    while (s->err == 0 && (bench->sent_bytes < bench->total_bytes || s->busy_count)) {
        bool is_free = bench->one_by_one ? s->busy_count == 0 : !s->busy[s->next_slot];
        if (s->has_result && bench->sent_bytes < bench->total_bytes && is_free)
            start_send(s);
        int n = np_uring_ops.turn(s->be, events, 64, 100 * INT64_C(1000000));
        if (n < 0 && n != -EINTR)
            return n;
        for (int i = 0; i < n; i++)
            take_event(s, &events[i]);
        int64_t now_ns = np_clock_ns();
        if (n > 0)
            heard_ns = now_ns;
        else if (now_ns - heard_ns > NP_ZCBENCH_STALL_NS)
            return -ETIMEDOUT;
    }
    return s->err;
}

int np_zcbench_run(struct np_zcbench *bench)
{
    if (bench->size_bytes == 0 || bench->size_bytes > NP_ZCBENCH_WINDOW_BYTES)
        return -EINVAL;
    struct sender *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->bench = bench;
    s->has_result = true;
    s->slots_count = NP_ZCBENCH_WINDOW_BYTES / bench->size_bytes;
    if (s->slots_count > SLOTS_MAX)
        s->slots_count = SLOTS_MAX;
    int err = open_sender(s);
    if (err == 0) {
        int64_t wall_ns = np_clock_ns(), cpu_ns = thread_cpu_ns();
        err = run(s);
        bench->wall_ns = np_clock_ns() - wall_ns;
        bench->cpu_ns = thread_cpu_ns() - cpu_ns;
        const struct np_counts *counts = &np_head(s->be)->counts;
        bench->zc_bytes = counts->zc_bytes;
        bench->copied_bytes = counts->copied_bytes;
        bench->unsure_bytes = counts->unsure_bytes;
        bench->enters = counts->enters;
    }
    close_sender(s);
    free(s);
    return err;
}
