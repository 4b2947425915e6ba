/* np_futex.h - the two futex calls that locks and parked workers need (futex(2)).
 *
 * Purpose   Sleep while a word has a value; wake sleepers of a word. Private futexes: one process.
 * Errors    np_futex_wait: 0 after a wake-up (also a spurious one), -EAGAIN when the word had
 *           another value, -EINTR, -ETIMEDOUT.
 * Threads   Any.
 */
#ifndef NP_FUTEX_H
#define NP_FUTEX_H

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* timeout_ns: relative, on CLOCK_MONOTONIC; negative: without end. */
static inline int np_futex_wait(_Atomic(uint32_t) *word, uint32_t value, int64_t timeout_ns)
{
    struct timespec limit = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout_ns < 0 ? NULL : &limit,
                      NULL, 0);
    return rc < 0 ? -errno : 0;
}

static inline void np_futex_wake(_Atomic(uint32_t) *word, int count)
{
    int saved_errno = errno;
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
    errno = saved_errno;
}

/* What a spinning thread does between two looks. */
static inline void np_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
