/* np_loadhttp.h - the benchmark's load for servers of HTTP/1.1 and of WebSockets.
 *
 * Purpose   Each connection sends a batch of requests, waits until all their answers are there, and
 *           sends the next batch. One thread, edge-triggered epoll, so that the server and not the
 *           load is the bottleneck. A batch of one is the usual case; more are pipelined.
 * Exchanges What is asked and what has to be answered are the caller's. A connection takes the
 *           exchanges in turn, and each connection begins with another one: a server that mixes up
 *           the answers of a connection, or of two, is found out.
 * Windows   As np_load_run (np_loadgen.h): between two calls nothing is in flight, and the
 *           histogram is the same. With an interval the load is open: batch N is due N intervals
 *           after the start, whether the server has answered the earlier ones or not, and its
 *           latency counts from then. It takes a connection that is idle, or waits for one.
 * Honesty   An answer is taken apart: its status is 200, its body has exactly the expected length,
 *           whether told by Content-Length or chunked, and the expected bytes (wholly up to 4 KiB
 *           and in every 16th larger answer, else the first 64 bytes of each piece received).
 *           Anything else, an answer that comes too early included, is a fault, not a figure.
 * WebSocket With `upgrade` each connection first asks for another protocol. After the answer 101 a
 *           request and its answer are whole frames, compared as they are.
 * Errors    0 or -errno; np_loadhttp_fault_text says in words what happened, `fault_conn` to whom.
 * Threads   One at a time. np_loadhttp_run blocks: call it without the GIL.
 */
#ifndef NP_LOADHTTP_H
#define NP_LOADHTTP_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/np_loadgen.h"

#define NP_LOADHTTP_MAX_EXCHANGES 16
#define NP_LOADHTTP_MAX_DEPTH 256

enum np_loadhttp_fault {
    NP_LOADHTTP_FAULT_NONE = 0,
    NP_LOADHTTP_FAULT_CONNECT, /* no connection */
    NP_LOADHTTP_FAULT_TLS,     /* no TLS on a connection */
    NP_LOADHTTP_FAULT_UPGRADE, /* no WebSocket on a connection */
    NP_LOADHTTP_FAULT_SYSTEM,  /* a system call of the load itself failed */
    NP_LOADHTTP_FAULT_BROKEN,  /* reset, or another error of the connection */
    NP_LOADHTTP_FAULT_CLOSED,  /* the server closed the connection */
    NP_LOADHTTP_FAULT_HEAD,    /* not the head of an answer, or not chunks */
    NP_LOADHTTP_FAULT_STATUS,  /* another status than 200 */
    NP_LOADHTTP_FAULT_LENGTH,  /* a body of another length */
    NP_LOADHTTP_FAULT_CONTENT, /* a body of other bytes */
    NP_LOADHTTP_FAULT_EXCESS,  /* more bytes than the answers have */
    NP_LOADHTTP_FAULT_STALLED, /* nothing came back for stall_ns */
    NP_LOADHTTP_FAULT_STOPPED, /* stop_fd became readable */
    NP_LOADHTTP_FAULTS
};

struct np_loadhttp_exchange {
    const uint8_t *batch; /* its request, and those of the depth - 1 exchanges that follow */
    size_t batch_bytes;
    const uint8_t *body; /* that its answer has to have; of a WebSocket: the frame */
    size_t body_bytes;   /* at least 1 */
};

/* The memory that it points to has to stay until np_loadhttp_close. */
struct np_loadhttp_config {
    struct sockaddr_in address;
    uint32_t connections;
    uint32_t depth; /* requests in a batch */
    uint32_t exchanges_count;
    struct np_loadhttp_exchange exchanges[NP_LOADHTTP_MAX_EXCHANGES];
    const char *upgrade;     /* the request that asks for a WebSocket; NULL: none */
    const char *accepted;    /* what stands in the answer when the server has understood it */
    const char *tls_library; /* where OpenSSL is; NULL: no TLS */
    const char *congestion;  /* TCP_CONGESTION of each connection; NULL: the system's */
    int stop_fd;             /* readable = stop with -EINTR; -1 = none */
    int64_t stall_ns;        /* patience with a silent server, and with a connect */
};

struct np_loadhttp;

/* Connects everything. On failure *out is NULL and *fault says what it was. */
int np_loadhttp_open(struct np_loadhttp **out, const struct np_loadhttp_config *config, int *fault);
void np_loadhttp_close(struct np_loadhttp *load);
/* interval_ns: between two batches that are due; 0: each as soon as its connection is idle. After a
 * fault other than NP_LOADHTTP_FAULT_NONE only np_loadhttp_close is left. */
int np_loadhttp_run(struct np_loadhttp *load, int64_t duration_ns, int64_t interval_ns,
                    struct np_load_result *out);
/* The latencies of the last run: NP_LOAD_BUCKETS counts, the load's own memory. */
const uint64_t *np_loadhttp_buckets(const struct np_loadhttp *load);
const char *np_loadhttp_fault_text(int fault);

#endif
