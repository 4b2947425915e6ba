/* np_limits.h - every bound of the core, with its unit and its reason.
 *
 * Purpose   One home for the numbers that shape behaviour. A limit has a name, the unit is the
 *           last word of the name, and the comment says why the value is what it is.
 * Ownership None: constants only.
 */
#ifndef NP_LIMITS_H
#define NP_LIMITS_H

#include <stdint.h>

/* Completions handed to Cython per harvest. One GIL hand-over pays for this many events; more
 * would let one busy turn hold back timers and call_soon callbacks. */
#define NP_HARVEST_MAX_EVENTS 256

/* Longer waits are cut to a day, as asyncio does: the loop simply waits again. */
#define NP_WAIT_MAX_NS (86400 * INT64_C(1000000000))

/* Submission queue entries. A turn that overflows it submits early, it does not fail. */
#define NP_SQ_DEFAULT_ENTRIES 512

/* A kernel thread that polls the submission queue reads it within microseconds, unless it finds no
 * core to run on. Who has to know that it was read waits at most this long. */
#define NP_SQPOLL_READ_MAX_NS INT64_C(1000000000)

/* With SQPOLL: how long a turn looks for completions before it sleeps in the kernel, and how often
 * between two looks at the clock. */
#define NP_SQPOLL_SPIN_NS INT64_C(1000000)
#define NP_SQPOLL_SPIN_COUNT 64

/* Completion queue entries. Multishot operations post many completions per submission, so the
 * queue is much longer than the submission queue; the kernel keeps what does not fit (NODROP). */
#define NP_CQ_DEFAULT_ENTRIES 4096

/* Since Linux 6.14 a ring is charged to its user's RLIMIT_MEMLOCK, and a closed one until the
 * kernel has taken it down: 4 to 10 ms here. A program that makes and closes many loops waits for
 * that; without it, the 82nd asyncio.run in a row failed under the usual 8 MiB. */
#define NP_RING_RETRY_NS 1000000
#define NP_RING_RETRY_MAX_COUNT 100

/* Shared receive memory: few, large, incrementally consumed buffers. The whole ring stays inside
 * a 1 MiB L2 cache; connections that move bulk data leave it (see docs/buffers.md). */
#define NP_BUF_DEFAULT_COUNT 8
#define NP_BUF_DEFAULT_BYTES (64 * 1024)

/* Without incremental buffers (kernels before 6.12) every message takes a whole buffer, so they
 * are small and many instead. */
#define NP_BUF_WHOLE_COUNT 256
#define NP_BUF_WHOLE_BYTES (4 * 1024)

/* epoll: the most that one small receive takes in one go, and the buffers it is taken into. What
 * receives more than that at once is read in bulk. */
#define NP_EPOLL_RECV_MAX_BYTES (16 * 1024)
#define NP_EPOLL_BUF_COUNT 4
#define NP_EPOLL_BUF_BYTES (64 * 1024)

/* epoll: accepted connections per listening socket and turn, so that a flood of connects does
 * not hold back the connections that are already there. */
#define NP_EPOLL_ACCEPT_MAX_PER_TURN 64

/* A process lets others on the same listening sockets go first when it has more connections than
 * the least loaded one, and more by this part of them: less is not worth a connection's wait. */
#define NP_SEAT_SLACK_PARTS 16

/* epoll: with callbacks waiting to run, readiness is asked for at most this often. Far below what
 * a connection can notice, far above the 0.2 us that the system call costs. */
#define NP_EPOLL_POLL_SKIP_NS 20000

/* Operation slots come in chunks whose addresses never change. 24 bits of slot number. */
#define NP_OP_CHUNK_SLOTS 256
#define NP_OP_MAX_SLOTS (1u << 24)

/* One send takes at most this much (the kernel's own limit is 4 KiB below 2 GiB). */
#define NP_SEND_MAX_BYTES ((size_t)1 << 30)

/* The ring of iovecs: gather lists between a send and the submission that takes it along. A turn of
 * NP_SQ_DEFAULT_ENTRIES sends of 8 pieces each fits; what does not is submitted early. */
#define NP_IOVRING_DEFAULT_COUNT 4096

/* Registered memory per ring: a pool is one region per GiB. */
#define NP_REGIONS_MAX_COUNT 16
/* The kernel's limit for one registered buffer (io_uring_register(2)). */
#define NP_REGION_MAX_BYTES ((size_t)1 << 30)

/* Size classes of a pool of send buffers. The smallest holds a short answer; below it a copy is
 * cheaper than a block. The largest is half a huge page. */
#define NP_POOL_CLASSES_MAX_COUNT 16
#define NP_POOL_BLOCK_MIN_BYTES 64
#define NP_POOL_BLOCK_MAX_BYTES (64u << 20)

/* Zero-copy sends below these sizes are not asked for. A second completion costs as much as copying
 * 1 to 2 KiB (measured: docs/zero-copy.md); pinning has the larger margin, as threads share it. */
#define NP_ZC_REGISTERED_MIN_BYTES 4096
#define NP_ZC_PINNED_MIN_BYTES 16384

/* After a send that was copied all the same, so many large ones do not ask for zero-copy; twice as
 * many after each further one. At the maximum, asking costs a thousandth of the sends. */
#define NP_ZC_RETRY_FIRST_COUNT 16
#define NP_ZC_RETRY_MAX_COUNT 1024

/* TLS: what is put while no memory is lent is an alert, a ticket or a handshake flight. The flight
 * of a server with one certificate is 1 to 3 KiB. */
#define NP_BIO_SPILL_MIN_BYTES 4096

/* Datagrams per system call. A turn's share of one socket: 64 are some 100 us of a handler's work,
 * and beyond 32 the system call's own cost is not to be seen any more. */
#define NP_DGRAM_BURST_COUNT 64

/* The most that is received of one datagram. UDP ends at 64 KiB; Unix and netlink datagrams can be
 * larger, and asyncio reads them with this size. What is longer loses its end, as there. */
#define NP_DGRAM_MAX_BYTES (256 * 1024)

/* Memory of one burst that is meant to be in use: it stays in the L2 cache. Sockets that receive
 * large datagrams take fewer of them per system call. */
#define NP_DGRAM_BURST_BYTES (256 * 1024)

/* One segmented send (UDP_SEGMENT): the kernel's UDP_MAX_SEGMENTS before Linux 6.9, and what fits
 * an IPv6 packet with room for extension headers. */
#define NP_DGRAM_SEGMENTS_MAX_COUNT 64
#define NP_DGRAM_SEGMENTED_MAX_BYTES 65000

/* Message vectors per system call: the kernel's UIO_MAXIOV. */
#define NP_IOV_MAX 1024

/* Task records come in chunks (64 KiB) and travel between threads in magazines. A magazine is what
 * one taking of the slab's lock pays for: larger ones only make idle caches heavier. */
#define NP_TASK_CHUNK_COUNT 1024
#define NP_TASK_MAGAZINE_COUNT 64

/* Looks at a taken lock before sleeping on it: about what a critical section of the scheduler
 * lasts. Longer waits mean that its holder lost the CPU, and spinning would only keep it away. */
#define NP_LOCK_SPIN_COUNT 100

/* How often a lane is passed over for higher ones before it is its turn. LOW keeps 1/65 of a
 * saturated worker, and its first task waits for 64 others at the most; HIGH, which is there to be
 * quick, for 10. */
#define NP_LANE_AGE_HIGH_COUNT 8
#define NP_LANE_AGE_NORMAL_COUNT 32
#define NP_LANE_AGE_LOW_COUNT 64

/* Slots of a worker's queue per lane. What does not fit goes to the shared list by halves; 2 KiB a
 * lane stay in the first-level cache. */
#define NP_DEQUE_DEFAULT_SLOTS 256
#define NP_DEQUE_MAX_SLOTS 65536

/* The most that changes workers at once: stealing, refilling, overflowing. */
#define NP_MOVE_MAX_COUNT 128

/* Every so many tasks of a lane a worker looks at the shared list first, so that what waits there
 * is not held back by a worker that keeps its own queue filled. Even: the mail has the turns in
 * between. */
#define NP_INJECTOR_INTERVAL_COUNT 60

/* NORMAL and LOW: the wait of every eighth task is measured. Two readings of the clock cost a third
 * of what queueing and running an empty function does. */
#define NP_WAIT_SAMPLE_COUNT 8
/* Logarithmic buckets: bucket b holds waits of [2^(b-1), 2^b) ns; the last: 2^38 ns on. */
#define NP_WAIT_BUCKETS 40

/* Looks at its token before a worker sleeps on the futex: 2 to 5 us, what a futex call and the
 * switch to another thread cost at least. */
#define NP_PARK_SPIN_COUNT 100

/* Where one lock keeps the workers' Python code apart, a second worker is of use only when the
 * first is blocked in a system call. It is taken to be when tasks wait and none was started for
 * this long. Shorter than the interpreter's switch interval, far longer than a short task. */
#define NP_RESCUE_NS 2000000

#define NP_WORKERS_MAX_COUNT 1024

/* A connection with so many unread pieces gets further small ones joined: a piece of one byte keeps
 * 24 bytes, its memory or its buffer, and is one more step of each search. */
#define NP_FLOW_APART_COUNT 16
#define NP_FLOW_JOIN_MAX_BYTES 512
#define NP_FLOW_JOINED_BYTES 4096

/* HTTP: the defaults of what a request may be. A line of 16 KiB holds what browsers and proxies let
 * pass (8 KiB), twice; RFC 9112 3 asks for 8000 octets at least. */
#define NP_HTTP_LINE_MAX_BYTES (16 * 1024)
#define NP_HTTP_HEAD_MAX_BYTES (64 * 1024)
#define NP_HTTP_FIELDS_MAX_COUNT 100

/* The longest registered method has 17 letters (UPDATEREDIRECTREF). */
#define NP_HTTP_METHOD_MAX_BYTES 32

/* A head that arrives in parts is gathered in steps of this size, so that no more than this of a
 * body behind it is copied in vain; a usual head is one step. */
#define NP_HTTP_GATHER_BYTES 1024

/* Sixteen digits are 64 bits: more is a mistake or an attack, whatever the first ones are. */
#define NP_HTTP_CHUNK_DIGITS_MAX_COUNT 16

/* Framing of a chunked body (sizes, extensions, CR LF) that is granted beyond a byte for each byte
 * of data. Chunks of one byte are 5 bytes of framing, and each costs as much as one of a MiB. */
#define NP_HTTP_FRAMING_FREE_BYTES (16 * 1024)

#define NP_PORT_MAX_COUNT 65535

#endif
