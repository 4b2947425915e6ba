/* np_zcbench.h - benchmark: a connection sends as fast as its path takes it, in one of three ways.
 *
 * Purpose   What does a byte cost the sender, copied and not copied, on this path? The connection
 *           is the caller's: over loopback, into another network namespace, to a device that only
 *           swallows. The verbs are those of the io_uring backend; nothing is measured that the
 *           transports do not use.
 * Model     A window of NP_ZCBENCH_WINDOW_BYTES of memory, sent piece by piece, so that it is in
 *           the processor's caches as little as a server's answers are. One send has no result yet
 *           at any time; those that wait for their notice hold their piece of the window.
 * Ownership Everything that is opened is closed before the call returns; the fd stays the caller's.
 * Errors    0 or -errno: of the socket, or -ETIMEDOUT when the path takes nothing for
 *           NP_ZCBENCH_STALL_NS.
 * Threads   Any; the call returns when all is sent and noticed.
 */
#ifndef NP_ZCBENCH_H
#define NP_ZCBENCH_H

#include <stdint.h>

#define NP_ZCBENCH_WINDOW_BYTES (8u << 20)
#define NP_ZCBENCH_STALL_NS INT64_C(5000000000)

enum np_zcbench_way { NP_ZCBENCH_PLAIN, NP_ZCBENCH_PINNED, NP_ZCBENCH_REGISTERED };

struct np_zcbench {
    int fd;
    uint32_t size_bytes; /* of one send, at most the window */
    uint64_t total_bytes;
    uint8_t way;         /* enum np_zcbench_way */
    uint8_t plain_pages; /* no huge pages, even where there are some */
    uint8_t one_by_one;  /* the next send waits for the notice of the last: sure reports */
    /* results */
    uint64_t sent_bytes, zc_bytes, copied_bytes, unsure_bytes, enters;
    int64_t wall_ns, cpu_ns; /* cpu_ns: of the calling thread */
    int32_t attach_err;      /* why the memory could not be registered, or 0 */
    uint8_t arena_kind;
};

int np_zcbench_run(struct np_zcbench *bench);

#endif
