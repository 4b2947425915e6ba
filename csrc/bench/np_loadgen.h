/* np_loadgen.h - the benchmark's load: echo requests over many connections, a closed or open loop.
 *
 * Purpose   Each connection sends `size_bytes`, waits until the same bytes came back, and sends
 *           again. One thread, edge-triggered epoll, one clock reading per request, so that the
 *           server and not the load is the bottleneck.
 * Windows   np_load_run starts every connection, lets them run for `duration_ns`, and then waits
 *           for what is still in flight. Between two calls nothing is in flight: whoever reads the
 *           server's CPU time before and after a call has the CPU of exactly
 *           `requests_all` requests. duration_ns = 0 is one request per connection.
 * Open loop With interval_ns a request is due every so often, whether earlier ones are answered or
 *         not; a connection that is free takes it. Its latency counts from when it was due, so a
 *         server that pauses makes all that was due meanwhile late: nothing is omitted. What was
 *         due within the window is asked, if later. While one is about to be due the load polls.
 * Honesty   What comes back is compared with what was sent: wholly up to 4 KiB and in every 16th
 *           larger request, else the first 64 bytes of each piece received. The bytes differ from
 *           one request of a connection to its next. A server that answers something else, too
 *           much, too early or not at all is a fault, not a figure.
 * Datagrams With `datagrams` a request is one datagram and so is its answer: cut or doubled is a
 *           fault, and a lost one a stall (loopback loses none while buffers hold one per socket).
 * TLS       With `tls_library` every connection speaks TLS (np_loadtls.h); the handshakes are done
 *           when np_load_open returns.
 * Histogram Latencies in nanoseconds in log-linear buckets: exact below 256, then 128 buckets per
 *           power of two, so a bucket's width is below 0.8 % of its value.
 * Errors    0 or -errno; np_load_fault_text says in words what happened, `fault_conn` to whom.
 * Threads   One at a time. np_load_run blocks: call it without the GIL.
 */
#ifndef NP_LOADGEN_H
#define NP_LOADGEN_H

#include <stdint.h>
#include <sys/socket.h>

#define NP_LOAD_MAX_CONNECTIONS 100000
#define NP_LOAD_MAX_SIZE_BYTES (64u << 20)
#define NP_LOAD_MAX_DATAGRAM_BYTES 65507 /* UDP over IPv4 */
#define NP_LOAD_BUCKETS (256 + 128 * 34) /* up to 2^42 ns: more than an hour */

enum np_load_fault {
    NP_LOAD_FAULT_NONE = 0,
    NP_LOAD_FAULT_CONNECT, /* no connection */
    NP_LOAD_FAULT_TLS,     /* no TLS on a connection */
    NP_LOAD_FAULT_SYSTEM,  /* a system call of the load itself failed */
    NP_LOAD_FAULT_BROKEN,  /* reset, or another error of the connection */
    NP_LOAD_FAULT_CLOSED,  /* the server closed the connection */
    NP_LOAD_FAULT_CONTENT, /* other bytes came back than were sent */
    NP_LOAD_FAULT_EXCESS,  /* more bytes came back than were sent */
    NP_LOAD_FAULT_STALLED, /* nothing came back for stall_ns */
    NP_LOAD_FAULT_STOPPED, /* stop_fd became readable */
    NP_LOAD_FAULTS
};

struct np_load_config {
    struct sockaddr_storage address;
    socklen_t address_bytes;
    uint32_t connections;
    uint32_t size_bytes;
    int stop_fd;             /* readable = stop with -EINTR; -1 = none */
    int datagrams;           /* UDP, or Unix datagrams; else streams */
    const char *tls_library; /* where OpenSSL is; NULL: no TLS */
    const char *congestion;  /* TCP_CONGESTION of each connection; NULL: the system's */
    int reset_on_close;      /* end connections with a reset: nothing is left in TIME_WAIT */
    int64_t stall_ns;        /* patience with a silent server, and with a connect */
};

struct np_load_result {
    uint64_t requests;      /* answered before the window ended */
    uint64_t requests_all;  /* answered in all, those in flight at its end included */
    uint64_t checked_bytes; /* compared with what was sent */
    int64_t window_ns;      /* length of the window */
    int64_t elapsed_ns;     /* until the last answer */
    int64_t latency_max_ns;
    int fault; /* enum np_load_fault */
    uint32_t fault_conn;
};

struct np_load;

/* Connects everything. On failure *out is NULL and *fault says what it was. */
int np_load_open(struct np_load **out, const struct np_load_config *config, int *fault);
void np_load_close(struct np_load *load);
/* After a fault other than NP_LOAD_FAULT_NONE only np_load_close is left. */
int np_load_run(struct np_load *load, int64_t duration_ns, int64_t interval_ns,
                struct np_load_result *out);
/* The latencies of the last run: NP_LOAD_BUCKETS counts, the load's own memory. */
const uint64_t *np_load_buckets(const struct np_load *load);
/* The largest latency that falls into bucket `index`. */
int64_t np_load_bucket_top_ns(uint32_t index);
uint32_t np_load_bucket_of(int64_t latency_ns);
const char *np_load_fault_text(int fault);

#endif
