/* np_probe.h - what this kernel grants this process: facts, no judgement and no words.
 *
 * Purpose   `auto` has to know whether an io_uring loop would work before it makes one, and
 *           `netpoll probe` tells people what they have. np_probe_ring asks only what the choice
 *           needs and makes one io_uring_setup call, with the flags and sizes of a loop's ring
 *           (locked memory is charged by size). np_probe_all asks everything, by doing it: it
 *           accepts, receives and registers rather than trusting a version number.
 * Results   Every `*_err` is 0 (works), a negative errno (what the kernel answered) or
 *           NP_PROBE_UNTRIED (an earlier refusal made the question pointless).
 * Errors    None of its own: what fails is a fact.
 * Ownership Everything that is opened is closed before the call returns.
 * Threads   Any. np_probe_all waits up to NP_PROBE_WAIT_NS for a completion that ought to be there.
 */
#ifndef NP_PROBE_H
#define NP_PROBE_H

#include <stdint.h>

#define NP_PROBE_UNTRIED 1
#define NP_PROBE_WAIT_NS (200 * 1000 * 1000)

struct np_probe {
    int32_t setup_err;    /* io_uring_setup as a loop does it: SINGLE_ISSUER, DEFER_TASKRUN */
    int32_t enable_err;   /* io_uring_register: the ring may be used from now on */
    int32_t enter_err;    /* io_uring_enter: submits one request and takes its completion */
    int32_t ext_arg_err;  /* a time-out can be given to io_uring_enter; completions not lost */
    int32_t buf_ring_err; /* a ring of receive buffers, 5.19 */
    int32_t buf_inc_err;  /* ... consumed piece by piece, 6.12 */
    /* From here on only np_probe_all answers. */
    int32_t plain_setup_err;  /* io_uring_setup without any flag */
    int32_t accept_multi_err; /* one request, many connections, 5.19 */
    int32_t recv_multi_err;   /* one request, many receives, 6.0 */
    int32_t recv_bundle_err;  /* one completion, several buffers, 6.10 */
    int32_t no_iowait_err;    /* an idle ring is not counted as I/O wait, 6.15 */
    int32_t send_zc_err;      /* 6.0 */
    int32_t sendmsg_zc_err;   /* 6.1 */
    int32_t buffers_err;      /* memory registered in advance; charged to RLIMIT_MEMLOCK */
    int32_t sqpoll_err;       /* a kernel thread that submits */
    int32_t pwait2_err;       /* epoll_pwait2: nanosecond time-outs, 5.11 */
};

void np_probe_ring(struct np_probe *facts);
void np_probe_all(struct np_probe *facts);
/* The version this was built with, "2.3". */
const char *np_probe_liburing_version(void);

#endif
