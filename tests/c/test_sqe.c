/* test_sqe.c - entries that the caller filled in: results, chains, full queues, moves, cancels. */
#define _GNU_SOURCE /* pipe2, memfd_create */
#include "np_rig.h"

#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/uring/np_sqe.h"

/* Entries of a ring; on epoll the verb says so, and there is nothing else to test. */
static int refused_by_epoll(struct np_rig *rig)
{
    if (np_rig_is_uring(rig))
        return 0;
    struct io_uring_sqe sqe;
    struct np_watch watch = {0};
    io_uring_prep_nop(&sqe);
    assert_int_equal(np_rig_try_submit(rig, &watch, &sqe, 1), -EOPNOTSUPP);
    assert_int_equal(np_rig_stats(rig).ops_live, 0);
    return 1;
}

static int memory_file(void)
{
    int fd = memfd_create("test_sqe", MFD_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void run(struct np_rig *rig, struct np_watch *watch, const struct io_uring_sqe *sqe)
{
    np_rig_submit(rig, watch, sqe, 1);
    NP_UNTIL(rig, !watch->armed);
}

static void a_file_is_written_and_read(struct np_rig *rig)
{
    struct io_uring_sqe sqe;
    struct np_watch watch = {0};
    uint8_t out[100], in[100] = {0};
    if (refused_by_epoll(rig))
        return;
    int fd = memory_file();
    uint64_t before = np_rig_stats(rig).counts.submissions;
    np_stream_fill(out, 1, 0, sizeof(out));
    np_sqe_write(&sqe, fd, out, sizeof(out), 50);
    run(rig, &watch, &sqe);
    assert_int_equal(watch.last_res, sizeof(out));
    np_sqe_read(&sqe, fd, in, sizeof(in), 50);
    run(rig, &watch, &sqe);
    assert_int_equal(watch.last_res, sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    np_sqe_read(&sqe, fd, in, sizeof(in), 150);
    run(rig, &watch, &sqe);
    assert_int_equal(watch.last_res, 0);
    np_sqe_fsync(&sqe, fd, 1);
    run(rig, &watch, &sqe);
    assert_int_equal(watch.last_res, 0);
    np_sqe_close(&sqe, fd);
    run(rig, &watch, &sqe);
    assert_int_equal(watch.last_res, 0);
    np_sqe_read(&sqe, fd, in, sizeof(in), 0);
    run(rig, &watch, &sqe);
    assert_int_equal(watch.last_res, -EBADF);
    assert_int_equal(np_rig_stats(rig).counts.submissions, before + 6);
}

static void the_number_of_a_file_and_its_size(struct np_rig *rig)
{
    struct io_uring_sqe sqe;
    struct np_watch watch = {0};
    struct statx about;
    if (refused_by_epoll(rig))
        return;
    np_sqe_openat(&sqe, AT_FDCWD, "/proc/self/exe", O_RDONLY | O_CLOEXEC, 0);
    run(rig, &watch, &sqe);
    int fd = watch.last_res;
    assert_true(fd >= 0);
    io_uring_prep_statx(&sqe, fd, "", AT_EMPTY_PATH, STATX_SIZE, &about);
    run(rig, &watch, &sqe);
    assert_int_equal(watch.last_res, 0);
    assert_int_equal(about.stx_size, lseek(fd, 0, SEEK_END));
    close(fd);
}

/* The entry is copied: what the caller does with his afterwards changes nothing. */
static void entries_wait_for_room(struct np_rig *rig)
{
    enum { COUNT = RIG_SQ_ENTRIES * 5 };
    struct io_uring_sqe sqe;
    struct np_watch watches[COUNT] = {0};
    uint8_t out[COUNT], in[COUNT];
    if (refused_by_epoll(rig))
        return;
    int fd = memory_file();
    /* Nobody has enabled this ring: nothing can be submitted early. */
    np_rig_reopen_disabled(rig);
    np_stream_fill(out, 2, 0, COUNT);
    for (int i = 0; i < COUNT; i++) {
        np_sqe_write(&sqe, fd, &out[i], 1, (uint64_t)i);
        np_rig_submit(rig, &watches[i], &sqe, 1);
    }
    memset(&sqe, 0xff, sizeof(sqe));
    assert_int_equal(rig->ops->enable(rig->be), 0);
    for (int i = 0; i < COUNT; i++) {
        NP_UNTIL(rig, !watches[i].armed);
        assert_int_equal(watches[i].last_res, 1);
    }
    assert_int_equal(pread(fd, in, COUNT, 0), COUNT);
    assert_memory_equal(in, out, COUNT);
    close(fd);
}

/* Chains of every length, with other entries between them: each runs in order or not at all. */
static void chains_stay_in_one_piece(struct np_rig *rig)
{
    if (refused_by_epoll(rig))
        return;
    int fd = memory_file();
    struct np_random random = np_random_seeded(11);
    for (int round = 0; round < 200; round++) {
        struct io_uring_sqe sqes[RIG_SQ_ENTRIES], nop;
        struct np_watch watches[RIG_SQ_ENTRIES] = {0}, others[RIG_SQ_ENTRIES] = {0};
        uint32_t others_count = np_random_below(&random, RIG_SQ_ENTRIES);
        uint32_t count = 2 + np_random_below(&random, RIG_SQ_ENTRIES - 1);
        uint32_t broken = np_random_below(&random, 2 * count);
        for (uint32_t i = 0; i < others_count; i++) {
            io_uring_prep_nop(&nop);
            np_rig_submit(rig, &others[i], &nop, 1);
        }
        for (uint32_t i = 0; i < count; i++) {
            /* Each reads what the one before it wrote: wrong order ends a read short. */
            static uint8_t byte;
            if (i % 2)
                np_sqe_read(&sqes[i], fd, &byte, 1, (uint64_t)round * 100 + i - 1);
            else
                np_sqe_write(&sqes[i], fd, "x", 1, (uint64_t)round * 100 + i);
            if (i == broken)
                sqes[i].fd = -1;
            sqes[i].flags = i + 1 < count ? IOSQE_IO_LINK : 0;
        }
        np_rig_submit(rig, watches, sqes, count);
        for (uint32_t i = 0; i < count; i++) {
            NP_UNTIL(rig, !watches[i].armed);
            assert_int_equal(watches[i].last_res, i < broken    ? 1
                                                  : i == broken ? -EBADF
                                                                : -ECANCELED);
        }
        for (uint32_t i = 0; i < others_count; i++)
            NP_UNTIL(rig, !others[i].armed);
    }
    close(fd);
}

static void what_would_break_the_ring_is_refused(struct np_rig *rig)
{
    struct io_uring_sqe sqes[RIG_SQ_ENTRIES + 1];
    struct np_watch watches[RIG_SQ_ENTRIES + 1] = {0};
    uint8_t memory[64];
    if (refused_by_epoll(rig))
        return;
    const uint8_t flags[] = {IOSQE_CQE_SKIP_SUCCESS, IOSQE_IO_DRAIN, IOSQE_IO_LINK,
                             IOSQE_IO_HARDLINK, IOSQE_BUFFER_SELECT};
    for (size_t i = 0; i < sizeof(flags); i++) {
        io_uring_prep_nop(&sqes[0]);
        sqes[0].flags = flags[i];
        assert_int_equal(np_rig_try_submit(rig, watches, sqes, 1), -EINVAL);
    }
    io_uring_prep_provide_buffers(&sqes[0], memory, 16, 4, 0, 0);
    assert_int_equal(np_rig_try_submit(rig, watches, sqes, 1), -EINVAL);
    for (int i = 0; i <= RIG_SQ_ENTRIES; i++)
        io_uring_prep_nop(&sqes[i]);
    assert_int_equal(np_rig_try_submit(rig, watches, sqes, RIG_SQ_ENTRIES + 1), -E2BIG);
    assert_int_equal(np_rig_try_submit(rig, watches, sqes, 0), -E2BIG);
    np_fail_allocations(1);
    int rc = np_rig_try_submit(rig, watches, sqes, 1);
    np_fail_allocations(0);
    assert_int_equal(rc, -ENOMEM);
    assert_int_equal(np_rig_stats(rig).ops_live, 0);
    np_rig_submit(rig, watches, sqes, RIG_SQ_ENTRIES);
    for (int i = 0; i < RIG_SQ_ENTRIES; i++)
        NP_UNTIL(rig, !watches[i].armed);
}

/* Multishot, and the flags of each completion. */
static void completions_carry_their_flags(struct np_rig *rig)
{
    enum { GROUP = 7, BYTES = 32, COUNT = 4 };
    struct io_uring_sqe sqe;
    struct np_watch provide = {0}, receive = {0};
    uint8_t memory[BYTES * COUNT];
    int fds[2];
    if (refused_by_epoll(rig))
        return;
    np_socket_pair(fds);
    io_uring_prep_provide_buffers(&sqe, memory, BYTES, COUNT, GROUP, 0);
    run(rig, &provide, &sqe);
    assert_true(provide.last_res >= 0);
    io_uring_prep_recv_multishot(&sqe, fds[0], NULL, 0, 0);
    sqe.flags = IOSQE_BUFFER_SELECT;
    sqe.buf_group = GROUP;
    np_rig_submit(rig, &receive, &sqe, 1);
    for (uint32_t i = 0; i < COUNT - 1; i++) {
        np_write_all(fds[1], "abcdef" + i, 2);
        NP_UNTIL(rig, receive.events_count == i + 1);
        assert_true(receive.armed);
        assert_true(receive.cqe_flags & IORING_CQE_F_BUFFER);
        assert_true(receive.cqe_flags & IORING_CQE_F_MORE);
        uint32_t id = (uint32_t)receive.cqe_flags >> IORING_CQE_BUFFER_SHIFT;
        assert_in_range(id, 0, COUNT - 1);
        assert_memory_equal(memory + id * BYTES, "abcdef" + i, 2);
    }
    np_rig_stop(rig, &receive);
    assert_int_equal(receive.last_res, -ECANCELED);
    np_rig_close_fd(rig, fds[0]);
    close(fds[1]);
}

/* ---- cancel -------------------------------------------------------------------------------- */

/* At every stage of its life. Memory is the kernel's until the last event: ASan would tell. */
static void cancelled_reads_lose_nothing(struct np_rig *rig)
{
    enum { ROUNDS = 400 };
    uint64_t arrived = 0;
    int fds[2];
    if (refused_by_epoll(rig))
        return;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct io_uring_sqe sqe;
        struct np_watch watch = {0};
        uint8_t *byte = malloc(1), expected;
        np_sqe_read(&sqe, fds[0], byte, 1, NP_SQE_AT_FILE);
        np_rig_submit(rig, &watch, &sqe, 1);
        if (i % 2)
            np_rig_turn(rig, 0);
        np_stream_fill(&expected, 4, arrived, 1);
        if (i % 3)
            assert_int_equal(write(fds[1], &expected, 1), 1);
        if (i % 5 == 0)
            assert_int_equal(rig->ops->flush(rig->be), 0);
        if (watch.armed)
            assert_int_equal(rig->ops->cancel(rig->be, watch.op, 0), 0);
        NP_UNTIL(rig, !watch.armed);
        if (i % 3 && watch.last_res == -ECANCELED) {
            assert_int_equal(read(fds[0], byte, 1), 1);
            watch.last_res = 1;
        }
        if (watch.last_res == 1) {
            assert_int_equal(*byte, expected);
            arrived++;
        }
        free(byte);
    }
    assert_int_equal(arrived, ROUNDS - (ROUNDS + 2) / 3);
    close(fds[0]);
    close(fds[1]);
}

/* One that is in the queue, unread by the kernel, is not carried out. */
static void taken_back_before_the_kernel_saw_it(struct np_rig *rig)
{
    struct io_uring_sqe sqe;
    struct np_watch watch = {0};
    uint8_t byte;
    if (refused_by_epoll(rig))
        return;
    int fd = memory_file();
    np_sqe_write(&sqe, fd, "x", 1, 0);
    np_rig_submit(rig, &watch, &sqe, 1);
    assert_int_equal(rig->ops->cancel(rig->be, watch.op, 0), 0);
    NP_UNTIL(rig, !watch.armed);
    assert_int_equal(watch.last_res, -ECANCELED);
    assert_int_equal(read(fd, &byte, 1), 0);
    close(fd);
}

/* Cancelled where it stands; the rest of the chain goes with it, and each has its last event. */
static void a_cancelled_chain_ends_as_a_whole(struct np_rig *rig)
{
    enum { COUNT = 3 };
    struct io_uring_sqe sqes[COUNT];
    uint8_t bytes[COUNT];
    int fds[2];
    if (refused_by_epoll(rig))
        return;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    for (int stage = 0; stage < 4; stage++) {
        struct np_watch watches[COUNT] = {0};
        uint32_t target = stage == 1 ? 2 : 0; /* before it is submitted any of them will do */
        if (stage < 2)
            np_rig_reopen_disabled(rig);
        for (int i = 0; i < COUNT; i++) {
            np_sqe_read(&sqes[i], fds[0], &bytes[i], 1, NP_SQE_AT_FILE);
            sqes[i].flags = i + 1 < COUNT ? IOSQE_IO_LINK : 0;
        }
        struct np_watch fillers[RIG_SQ_ENTRIES] = {0};
        for (int i = 0; i < RIG_SQ_ENTRIES && stage < 2; i++) {
            struct io_uring_sqe nop;
            io_uring_prep_nop(&nop);
            np_rig_submit(rig, &fillers[i], &nop, 1);
        }
        np_rig_submit(rig, watches, sqes, COUNT);
        if (stage == 3)
            np_rig_turn(rig, 0);
        assert_int_equal(rig->ops->cancel(rig->be, watches[target].op, 0), 0);
        if (stage < 2)
            assert_int_equal(rig->ops->enable(rig->be), 0);
        for (int i = 0; i < COUNT; i++) {
            NP_UNTIL(rig, !watches[i].armed);
            assert_int_equal(watches[i].last_res, -ECANCELED);
        }
        for (int i = 0; i < RIG_SQ_ENTRIES; i++)
            NP_UNTIL(rig, !fillers[i].armed);
    }
    close(fds[0]);
    close(fds[1]);
}

/* A link whose turn has not come cannot be found by the kernel: it is asked for again then. */
static void a_later_link_is_cancelled_when_its_turn_has_come(struct np_rig *rig)
{
    struct io_uring_sqe sqes[2];
    struct np_watch watches[2] = {0};
    uint8_t bytes[2];
    int fds[2];
    if (refused_by_epoll(rig))
        return;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < 2; i++)
        np_sqe_read(&sqes[i], fds[0], &bytes[i], 1, NP_SQE_AT_FILE);
    sqes[0].flags = IOSQE_IO_LINK;
    np_rig_submit(rig, watches, sqes, 2);
    np_rig_turn(rig, 0);
    assert_int_equal(rig->ops->cancel(rig->be, watches[1].op, 0), 0);
    np_rig_turn(rig, 0);
    assert_true(watches[0].armed);
    assert_int_equal(write(fds[1], "x", 1), 1);
    NP_UNTIL(rig, !watches[0].armed);
    assert_int_equal(watches[0].last_res, 1);
    assert_int_equal(rig->ops->cancel(rig->be, watches[1].op, 0), 0);
    NP_UNTIL(rig, !watches[1].armed);
    assert_int_equal(watches[1].last_res, -ECANCELED);
    close(fds[0]);
    close(fds[1]);
}

/* ---- threads and forks --------------------------------------------------------------------- */

static void *enable_elsewhere(void *arg)
{
    struct np_rig *rig = arg;
    return (void *)(intptr_t)rig->ops->enable(rig->be);
}

static int enable_in_thread(struct np_rig *rig)
{
    pthread_t thread;
    void *rc;
    assert_int_equal(pthread_create(&thread, NULL, enable_elsewhere, rig), 0);
    assert_int_equal(pthread_join(thread, &rc), 0);
    return (int)(intptr_t)rc;
}

/* A write must not happen twice: a ring that holds one stays where it is, and says so. */
static void a_ring_with_entries_does_not_move(struct np_rig *rig)
{
    struct io_uring_sqe sqe;
    struct np_watch waits = {0}, done = {0};
    uint8_t byte = 0;
    int fds[2];
    if (refused_by_epoll(rig))
        return;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    np_sqe_read(&sqe, fds[0], &byte, 1, NP_SQE_AT_FILE);
    np_rig_submit(rig, &waits, &sqe, 1);
    np_sqe_write(&sqe, fds[1], "", 0, NP_SQE_AT_FILE);
    np_rig_submit(rig, &done, &sqe, 1);
    assert_int_equal(rig->ops->flush(rig->be), 0);
    assert_int_equal(enable_in_thread(rig), -EBUSY);
    assert_int_equal(np_rig_stats(rig).counts.moves, 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    NP_UNTIL(rig, !waits.armed);
    NP_UNTIL(rig, !done.armed);
    assert_int_equal(waits.last_res, 1);
    assert_int_equal(byte, 'x');
    close(fds[0]);
    close(fds[1]);
}

/* One that was never in the queue moves as it is, and one that has ended moves as an event. */
static void entries_that_the_kernel_does_not_have_move(struct np_rig *rig)
{
    enum { COUNT = RIG_SQ_ENTRIES * 3 };
    struct io_uring_sqe sqe;
    struct np_watch watches[COUNT] = {0};
    uint8_t in[COUNT];
    if (refused_by_epoll(rig))
        return;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < RIG_SQ_ENTRIES; i++) {
        np_sqe_write(&sqe, fds[1], "x", 1, NP_SQE_AT_FILE);
        np_rig_submit(rig, &watches[i], &sqe, 1);
    }
    assert_int_equal(rig->ops->flush(rig->be), 0);
    assert_int_equal(enable_in_thread(rig), 0);    /* a pipe is written at once */
    for (int i = RIG_SQ_ENTRIES; i < COUNT; i++) { /* no thread but that one submits */
        np_sqe_write(&sqe, fds[1], "y", 1, NP_SQE_AT_FILE);
        np_rig_submit(rig, &watches[i], &sqe, 1);
    }
    for (int i = RIG_SQ_ENTRIES; i < 2 * RIG_SQ_ENTRIES; i++)
        assert_int_equal(rig->ops->cancel(rig->be, watches[i].op, 0), 0); /* those in the queue */
    assert_int_equal(rig->ops->enable(rig->be), 0);
    for (int i = 0; i < COUNT; i++) {
        NP_UNTIL(rig, !watches[i].armed);
        int was_cancelled = i >= RIG_SQ_ENTRIES && i < 2 * RIG_SQ_ENTRIES;
        assert_int_equal(watches[i].last_res, was_cancelled ? -ECANCELED : 1);
    }
    assert_int_equal(read(fds[0], in, COUNT), RIG_SQ_ENTRIES * 2); /* each of them once */
    for (int i = 0; i < RIG_SQ_ENTRIES * 2; i++)
        assert_int_equal(in[i], i < RIG_SQ_ENTRIES ? 'x' : 'y');
    assert_int_equal(np_rig_stats(rig).counts.moves, 2);
    close(fds[0]);
    close(fds[1]);
}

static void a_child_submits_nothing(struct np_rig *rig)
{
    struct io_uring_sqe sqe;
    struct np_watch waits = {0}, watch = {0};
    uint8_t byte;
    int fds[2], status;
    if (refused_by_epoll(rig))
        return;
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    np_sqe_read(&sqe, fds[0], &byte, 1, NP_SQE_AT_FILE);
    np_rig_submit(rig, &waits, &sqe, 1);
    np_rig_turn(rig, 0);
    pid_t pid = fork();
    if (pid == 0) {
        np_backend_abandon(rig->be);
        int refused = np_rig_try_submit(rig, &watch, &sqe, 1) == -EPERM;
        rig->ops->close(rig->be);
        _exit(refused ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    NP_UNTIL(rig, !waits.armed);
    assert_int_equal(waits.last_res, 1);
    close(fds[0]);
    close(fds[1]);
}

static void entries_that_were_never_pushed_are_freed_in_a_child(struct np_rig *rig)
{
    struct io_uring_sqe sqe;
    struct np_watch watches[RIG_SQ_ENTRIES * 2] = {0};
    if (refused_by_epoll(rig))
        return;
    np_rig_reopen_disabled(rig);
    for (int i = 0; i < RIG_SQ_ENTRIES * 2; i++) {
        io_uring_prep_nop(&sqe);
        np_rig_submit(rig, &watches[i], &sqe, 1);
    }
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        np_backend_abandon(rig->be);
        rig->ops->close(rig->be);
        exit(0); /* the leak check runs here */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(rig->ops->enable(rig->be), 0);
    for (int i = 0; i < RIG_SQ_ENTRIES * 2; i++)
        NP_UNTIL(rig, !watches[i].armed);
}

int main(void)
{
    static const struct np_rig_test tests[] = {
        NP_RIG_TEST(a_file_is_written_and_read),
        NP_RIG_TEST(the_number_of_a_file_and_its_size),
        NP_RIG_TEST(entries_wait_for_room),
        NP_RIG_TEST(chains_stay_in_one_piece),
        NP_RIG_TEST(what_would_break_the_ring_is_refused),
        NP_RIG_TEST(completions_carry_their_flags),
        NP_RIG_TEST(cancelled_reads_lose_nothing),
        NP_RIG_TEST(taken_back_before_the_kernel_saw_it),
        NP_RIG_TEST(a_cancelled_chain_ends_as_a_whole),
        NP_RIG_TEST(a_later_link_is_cancelled_when_its_turn_has_come),
        NP_RIG_TEST(a_ring_with_entries_does_not_move),
        NP_RIG_TEST(entries_that_the_kernel_does_not_have_move),
        NP_RIG_TEST(a_child_submits_nothing),
        NP_RIG_TEST(entries_that_were_never_pushed_are_freed_in_a_child),
    };
    return NP_RIG_MAIN("test_sqe", tests);
}
