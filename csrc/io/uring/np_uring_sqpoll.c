/* np_uring_sqpoll.c - what differs when a kernel thread reads the submission queue (SQPOLL).
 *
 * The thread reads the queue whenever something is in it, so a turn submits by moving the queue's
 * tail. Three things follow: an entry is out of our hands from that moment on; when it was read is
 * known only by looking; and nothing is carried out in our own thread, so such a ring is made
 * without SINGLE_ISSUER and DEFER_TASKRUN and goes on in another thread as it is.
 */
#include <sched.h>

#include "base/np_futex.h"
#include "io/np_timer.h"
#include "io/uring/np_uring.h"

int np_uring_submit_queue(struct np_uring *u)
{
    if (!np_uring_is_polled(u)) {
        u->head.counts.enters++;
        return io_uring_submit(&u->ring);
    }
    int n = io_uring_submit(&u->ring);
    if (np_uring_flags(u) & IORING_SQ_NEED_WAKEUP)
        u->head.counts.enters++; /* as near as it can be known: the thread may wake by itself */
    return n;
}

uint32_t np_uring_unsubmitted(const struct np_uring *u)
{
    if (np_uring_is_polled(u))
        return u->ring.sq.sqe_tail - u->ring.sq.sqe_head;
    return io_uring_sq_ready(&u->ring);
}

bool np_uring_wait_read(struct np_uring *u, uint32_t left)
{
    if (io_uring_sq_ready(&u->ring) <= left)
        return true;
    if (!np_uring_is_polled(u))
        return false;
    int64_t end_ns = np_clock_ns() + NP_SQPOLL_READ_MAX_NS;
    do {
        np_uring_submit_queue(u); /* wakes the thread if it sleeps */
        sched_yield();            /* it may want this very core */
        if (io_uring_sq_ready(&u->ring) <= left)
            return true;
    } while (np_clock_ns() < end_ns);
    return false;
}

bool np_uring_spin(struct np_uring *u, int64_t timeout_ns)
{
    if (io_uring_cq_ready(&u->ring))
        return true;
    int64_t spin_ns = NP_SQPOLL_SPIN_NS;
    if (timeout_ns > 0 && timeout_ns < spin_ns)
        spin_ns = timeout_ns;
    int64_t end_ns = np_clock_ns() + spin_ns;
    do {
        for (int i = 0; i < NP_SQPOLL_SPIN_COUNT; i++) {
            if (io_uring_cq_ready(&u->ring))
                return true;
            np_cpu_relax();
        }
    } while (np_clock_ns() < end_ns && !(np_uring_flags(u) & IORING_SQ_CQ_OVERFLOW));
    return false;
}

bool np_uring_is_unread(const struct np_uring *u, const struct np_op *op)
{
    const struct io_uring_sq *sq = &u->ring.sq;
    unsigned head = np_uring_is_polled(u) ? sq->sqe_head
                                          : __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
    return op->sqe_index - head < sq->sqe_tail - head;
}
