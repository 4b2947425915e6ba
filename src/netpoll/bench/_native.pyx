# cython: language_level=3, freethreading_compatible=True
"""The compiled part of the benchmark: the load generator and the floors, all without the GIL.

Errors are OSError; what the load generator finds wrong with a server is LoadError. Any thread may
use a Load, one at a time.
"""

import ipaddress
import os
import socket

from netpoll.bench.tcp import congestion_control

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset


cdef extern from "sys/socket.h" nogil:
    ctypedef uint32_t socklen_t
    struct sockaddr_storage:
        uint16_t ss_family


cdef extern from "netinet/in.h" nogil:
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    uint16_t htons(uint16_t host)


cdef extern from "sys/un.h" nogil:
    struct sockaddr_un:
        uint16_t sun_family
        char sun_path[108]


cdef extern from "sys/prctl.h" nogil:
    enum: PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG
    int prctl(int option, ...)


cdef extern from "bench/np_zcbench.h" nogil:
    struct np_zcbench:
        int fd
        uint32_t size_bytes
        uint64_t total_bytes
        uint8_t way, plain_pages, one_by_one
        uint64_t sent_bytes, zc_bytes, copied_bytes, unsure_bytes, enters
        int64_t wall_ns, cpu_ns
        int32_t attach_err
        uint8_t arena_kind
    int np_zcbench_run(np_zcbench *bench)


cdef extern from "mem/np_arena.h" nogil:
    const char *np_arena_kind_name(int kind)


cdef extern from "bench/np_loadgen.h" nogil:
    enum: NP_LOAD_BUCKETS
    enum: NP_LOAD_FAULT_STOPPED
    struct np_load_config:
        sockaddr_storage address
        socklen_t address_bytes
        uint32_t connections
        uint32_t size_bytes
        int stop_fd
        int datagrams
        const char *tls_library
        const char *congestion
        int reset_on_close
        int64_t stall_ns
    struct np_load_result:
        uint64_t requests
        uint64_t requests_all
        uint64_t checked_bytes
        int64_t window_ns
        int64_t elapsed_ns
        int64_t latency_max_ns
        int fault
        uint32_t fault_conn
    struct np_load:
        pass
    int np_load_open(np_load **out, const np_load_config *config, int *fault)
    void np_load_close(np_load *load)
    int np_load_run(np_load *load, int64_t duration_ns, int64_t interval_ns, np_load_result *out)
    const uint64_t *np_load_buckets(const np_load *load)
    int64_t np_load_bucket_top_ns(uint32_t index)
    uint32_t np_load_bucket_of(int64_t latency_ns)
    const char *np_load_fault_text(int fault)


cdef extern from "bench/np_loadtls.h" nogil:
    struct np_loadtls:
        pass
    int np_loadtls_open(np_loadtls **out, const char *library)
    void np_loadtls_close(np_loadtls *tls)


cdef extern from "bench/np_loadhttp.h" nogil:
    enum: NP_LOADHTTP_MAX_EXCHANGES, NP_LOADHTTP_FAULT_STOPPED
    struct np_loadhttp_exchange:
        const uint8_t *batch
        size_t batch_bytes
        const uint8_t *body
        size_t body_bytes
    struct np_loadhttp_config:
        sockaddr_in address
        uint32_t connections
        uint32_t depth
        uint32_t exchanges_count
        np_loadhttp_exchange exchanges[NP_LOADHTTP_MAX_EXCHANGES]
        const char *upgrade
        const char *accepted
        const char *tls_library
        const char *congestion
        int stop_fd
        int64_t stall_ns
    struct np_loadhttp:
        pass
    int np_loadhttp_open(np_loadhttp **out, const np_loadhttp_config *config, int *fault)
    void np_loadhttp_close(np_loadhttp *load)
    int np_loadhttp_run(np_loadhttp *load, int64_t duration_ns, int64_t interval_ns,
                        np_load_result *out)
    const uint64_t *np_loadhttp_buckets(const np_loadhttp *load)
    const char *np_loadhttp_fault_text(int fault)


cdef extern from "bench/np_floor_http.h" nogil:
    struct np_floor_route:
        const char *path
        const char *answer
        size_t answer_bytes
        int file_fd
        size_t file_bytes
    int np_floor_http(int listen_fd, int stop_fd, const np_floor_route *routes, uint32_t count)


cdef extern from "bench/np_floor.h" nogil:
    struct np_floor_uring_config:
        uint32_t buf_count
        uint32_t buf_bytes
        int whole_buffers
    int np_floor_epoll(int listen_fd, int stop_fd)
    int np_floor_uring(int listen_fd, int stop_fd, const np_floor_uring_config *config)
    int np_floor_uring_probe()


cdef extern from "bench/np_floor_udp.h" nogil:
    int np_floor_udp_epoll(int fd, int stop_fd)


class LoadError(OSError):
    """The server under load did not answer as it has to; `str()` is the whole sentence."""


class LoadStopped(Exception):
    """The load's stop_fd became readable in the middle of a run."""


cdef object load_error(const char *fault_text, int err, object conn):
    text = fault_text.decode()
    if conn is not None:
        text = f"{text} (connection {conn})"
    if err not in (-71, -32):  # EPROTO, EPIPE: the load's own names for what the text says
        text = f"{text}: {os.strerror(-err)}"
    error = LoadError(text)
    error.errno = -err
    return error


cdef dict result_facts(const np_load_result *result, const uint64_t *buckets):
    """Counts, times in nanoseconds, and the histogram."""
    return {
        "requests": result.requests,
        "requests_all": result.requests_all,
        "checked_bytes": result.checked_bytes,
        "window_ns": result.window_ns,
        "elapsed_ns": result.elapsed_ns,
        "latency_max_ns": result.latency_max_ns,
        "histogram": [
            (np_load_bucket_top_ns(i), buckets[i]) for i in range(NP_LOAD_BUCKETS) if buckets[i]
        ],
    }


cdef int fill_inet(sockaddr_in *inet, object address) except -1:
    """`address` is (IPv4 address, port)."""
    cdef bytes raw
    host, port = address
    raw = ipaddress.IPv4Address(host).packed
    inet.sin_family = socket.AF_INET
    inet.sin_port = htons(port)
    memcpy(&inet.sin_addr, <const char *>raw, 4)
    return 0


cdef int fill_address(np_load_config *config, object address) except -1:
    cdef sockaddr_un *local = <sockaddr_un *>&config.address
    cdef bytes raw
    if isinstance(address, str):
        raw = os.fsencode(address)
        if not 0 < len(raw) < 108:
            raise ValueError(f"not a usable Unix socket path: {address!r}")
        local.sun_family = socket.AF_UNIX
        memcpy(local.sun_path, <const char *>raw, len(raw))
        config.address_bytes = sizeof(sockaddr_un)
        return 0
    fill_inet(<sockaddr_in *>&config.address, address)
    config.address_bytes = sizeof(sockaddr_in)
    return 0


cdef class Load:
    """Echo requests over `connections` connections to one server: a closed loop, or an open one.

    `address` is `(IPv4 address, port)` or the path of a Unix socket. Connects at once. When
    `stop_fd` (say, signal.set_wakeup_fd's) becomes readable, a run ends with LoadStopped.
    `stall_s` is the patience with a server that does not answer. `reset_on_close` ends connections
    with a reset, which leaves nothing in TIME_WAIT. `datagrams`: a request is one datagram (UDP, or
    Unix datagrams), a connection one socket. `tls_library`: the path of an OpenSSL, or of a library
    that brings one; the connections are then TLS. Raises LoadError when the server misbehaves and
    OSError when this machine does.
    """

    cdef np_load *load

    def __init__(self, address, connections: int, size_bytes: int, *, stop_fd: int = -1,
                 stall_s: float = 5.0, reset_on_close: bool = False, datagrams: bool = False,
                 tls_library: str | None = None):
        cdef np_load_config config
        cdef int fault = 0
        cdef int err
        if self.load is not NULL:
            raise RuntimeError("this load is open already")
        memset(&config, 0, sizeof(config))
        fill_address(&config, address)
        config.connections = connections
        config.size_bytes = size_bytes
        config.stop_fd = stop_fd
        config.datagrams = datagrams
        cdef bytes library = None if tls_library is None else os.fsencode(tls_library)
        config.tls_library = NULL if library is None else <const char*>library
        cdef bytes congestion = congestion_control().encode()
        config.congestion = congestion
        config.reset_on_close = reset_on_close
        config.stall_ns = <int64_t>(stall_s * 1e9)
        with nogil:
            err = np_load_open(&self.load, &config, &fault)
        if err == -22:  # EINVAL
            raise ValueError(f"cannot load {connections} connections with {size_bytes} bytes")
        if err < 0:
            raise load_error(np_load_fault_text(fault), err, None)

    def run(self, duration_s: float, rate_per_s: float = 0.0) -> dict:
        """Runs one window of `duration_s` seconds (0: one request per connection) and waits for the
        last answer. Returns counts, times in nanoseconds, and the histogram: a list of
        (largest latency of the bucket in nanoseconds, count), the empty ones left out.

        With a rate it is an open loop: so many requests are due in a second, whether earlier ones
        are answered or not, and latencies count from then."""
        cdef np_load_result result
        cdef int64_t duration_ns = <int64_t>(duration_s * 1e9)
        cdef int64_t interval_ns = max(1, <int64_t>(1e9 / rate_per_s)) if rate_per_s > 0 else 0
        cdef int err
        if self.load is NULL:
            raise ValueError("this load is closed")
        with nogil:
            err = np_load_run(self.load, duration_ns, interval_ns, &result)
        if err < 0:
            if result.fault == NP_LOAD_FAULT_STOPPED:
                raise LoadStopped()
            raise load_error(np_load_fault_text(result.fault), err, result.fault_conn)
        return result_facts(&result, np_load_buckets(self.load))

    def close(self) -> None:
        """Closes every connection. May be called again."""
        np_load_close(self.load)
        self.load = NULL

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __dealloc__(self):
        np_load_close(self.load)


cdef class HttpLoad:
    """Requests of HTTP/1.1 over `connections` connections to the server at `address`, an
    (IPv4 address, port). Connects at once.

    `exchanges` are pairs (request, body): what is sent, and what the body of its answer has to be.
    A connection takes them in turn, `depth` at a time. `upgrade` is (request, text): the request
    for a WebSocket, and what its answer has to hold; requests and bodies are then whole frames.
    The other arguments, and what it raises, are those of `Load`.
    """

    cdef np_loadhttp *load
    cdef uint32_t depth
    cdef object memory   # what the load points to

    def __init__(self, address, connections: int, exchanges, *, depth: int = 1,
                 upgrade: tuple[bytes, bytes] | None = None, stop_fd: int = -1,
                 stall_s: float = 5.0, tls_library: str | None = None):
        cdef np_loadhttp_config config
        cdef int fault = 0
        cdef int err
        cdef bytes batch, body
        if self.load is not NULL:
            raise RuntimeError("this load is open already")
        exchanges = [(bytes(request), bytes(body)) for request, body in exchanges]
        if not 0 < len(exchanges) <= NP_LOADHTTP_MAX_EXCHANGES:
            raise ValueError(f"a load has 1 to {NP_LOADHTTP_MAX_EXCHANGES} exchanges")
        memset(&config, 0, sizeof(config))
        fill_inet(&config.address, address)
        config.connections = connections
        config.depth = self.depth = depth
        config.exchanges_count = len(exchanges)
        memory = []
        for i, (_, body) in enumerate(exchanges):
            batch = b"".join(exchanges[(i + k) % len(exchanges)][0] for k in range(depth))
            memory += [batch, body]
            config.exchanges[i].batch = batch
            config.exchanges[i].batch_bytes = len(batch)
            config.exchanges[i].body = body
            config.exchanges[i].body_bytes = len(body)
        cdef bytes asks = upgrade and upgrade[0]
        cdef bytes accepted = upgrade and upgrade[1]
        cdef bytes library = None if tls_library is None else os.fsencode(tls_library)
        cdef bytes congestion = congestion_control().encode()
        config.upgrade = NULL if asks is None else <const char*>asks
        config.accepted = NULL if asks is None else <const char*>accepted
        config.tls_library = NULL if library is None else <const char*>library
        config.congestion = congestion
        config.stop_fd = stop_fd
        config.stall_ns = <int64_t>(stall_s * 1e9)
        self.memory = [memory, asks, accepted, library, congestion]
        with nogil:
            err = np_loadhttp_open(&self.load, &config, &fault)
        if err == -22:  # EINVAL
            raise ValueError(f"cannot load {connections} connections, {depth} requests at a time")
        if err < 0:
            raise load_error(np_loadhttp_fault_text(fault), err, None)

    def run(self, duration_s: float, rate_per_s: float = 0.0) -> dict:
        """Runs one window of `duration_s` seconds and waits for the last answer. With a rate so
        many requests are due in a second, whether earlier ones are answered or not, and latencies
        count from then. Returns what `Load.run` does."""
        cdef np_load_result result
        cdef int64_t duration_ns = <int64_t>(duration_s * 1e9)
        cdef int64_t interval_ns = 0
        cdef int err
        if self.load is NULL:
            raise ValueError("this load is closed")
        if rate_per_s > 0:
            interval_ns = max(1, <int64_t>(self.depth / rate_per_s * 1e9))
        with nogil:
            err = np_loadhttp_run(self.load, duration_ns, interval_ns, &result)
        if err < 0:
            if result.fault == NP_LOADHTTP_FAULT_STOPPED:
                raise LoadStopped()
            raise load_error(np_loadhttp_fault_text(result.fault), err, result.fault_conn)
        return result_facts(&result, np_loadhttp_buckets(self.load))

    def close(self) -> None:
        """Closes every connection. May be called again."""
        np_loadhttp_close(self.load)
        self.load = NULL

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __dealloc__(self):
        np_loadhttp_close(self.load)


def can_load_tls(library: str) -> bool:
    """Whether `library` can be a Load's `tls_library`."""
    cdef np_loadtls *tls = NULL
    cdef bytes path = os.fsencode(library)
    if np_loadtls_open(&tls, path) < 0:
        return False
    np_loadtls_close(tls)
    return True


def bucket_top_ns(latency_ns: int) -> int:
    """The largest latency that the histogram keeps apart from `latency_ns` no more."""
    return np_load_bucket_top_ns(np_load_bucket_of(latency_ns))


def floor_epoll(listen_fd: int, stop_fd: int) -> None:
    """Serves echo with plain epoll in C until `stop_fd` is readable."""
    cdef int listen_c = listen_fd, stop_c = stop_fd, err
    with nogil:
        err = np_floor_epoll(listen_c, stop_c)
    if err < 0:
        raise OSError(-err, os.strerror(-err))


def floor_http(listen_fd: int, stop_fd: int, routes) -> None:
    """Serves HTTP/1.1 with plain epoll in C until `stop_fd` is readable. `routes` are
    (path, answer, file): a whole answer, or the head of one and the binary file that follows it,
    or None for an answer that says how long the body of the request was."""
    cdef int listen_c = listen_fd, stop_c = stop_fd, err
    cdef bytes path, answer
    routes = list(routes)
    cdef uint32_t i, count = len(routes)
    cdef np_floor_route *table = <np_floor_route *>calloc(count, sizeof(np_floor_route))
    if table is NULL:
        raise MemoryError
    try:
        for i in range(count):
            path, answer, file = routes[i]
            table[i].path = path
            table[i].answer = NULL if answer is None else <const char *>answer
            table[i].answer_bytes = 0 if answer is None else len(answer)
            table[i].file_fd = -1 if file is None else file.fileno()
            table[i].file_bytes = 0 if file is None else os.fstat(file.fileno()).st_size
        with nogil:
            err = np_floor_http(listen_c, stop_c, table, count)
    finally:
        free(table)
    if err < 0:
        raise OSError(-err, os.strerror(-err))


def floor_udp_epoll(fd: int, stop_fd: int) -> None:
    """Answers datagrams on the bound socket `fd` in C until `stop_fd` is readable."""
    cdef int fd_c = fd, stop_c = stop_fd, err
    with nogil:
        err = np_floor_udp_epoll(fd_c, stop_c)
    if err < 0:
        raise OSError(-err, os.strerror(-err))


def floor_uring(listen_fd: int, stop_fd: int, *, buf_count: int = 0, buf_bytes: int = 0,
                whole_buffers: bool = False) -> None:
    """Serves echo with io_uring in C until `stop_fd` is readable. The keywords are for measuring
    the floor itself; 0 is the default."""
    cdef np_floor_uring_config config
    cdef int listen_c = listen_fd, stop_c = stop_fd, err
    config.buf_count = buf_count
    config.buf_bytes = buf_bytes
    config.whole_buffers = whole_buffers
    with nogil:
        err = np_floor_uring(listen_c, stop_c, &config)
    if err < 0:
        raise OSError(-err, os.strerror(-err))


def floor_uring_probe() -> str | None:
    """None when floor_uring can run here, else the kernel's reason."""
    cdef int err = np_floor_uring_probe()
    return None if err == 0 else os.strerror(-err)


def send_stream(fd: int, size_bytes: int, total_bytes: int, way: int, *, plain_pages: bool = False,
                one_by_one: bool = False) -> dict:
    """Sends on a connected nonblocking socket until total_bytes are taken and every notice is in;
    `way` is 0 (plain), 1 (zero-copy out of any memory) or 2 (out of registered memory).
    plain_pages: no huge pages. one_by_one: each send waits for the notice of the last. Returns
    counts of bytes, and wall and CPU time of this thread in nanoseconds. Raises OSError."""
    cdef np_zcbench bench
    cdef int err
    memset(&bench, 0, sizeof(bench))
    bench.fd = fd
    bench.size_bytes = size_bytes
    bench.total_bytes = total_bytes
    bench.way = way
    bench.plain_pages = plain_pages
    bench.one_by_one = one_by_one
    with nogil:
        err = np_zcbench_run(&bench)
    if err < 0:
        raise OSError(-err, os.strerror(-err))
    return {
        "sent_bytes": bench.sent_bytes, "zc_bytes": bench.zc_bytes,
        "copied_bytes": bench.copied_bytes, "unsure_bytes": bench.unsure_bytes,
        "enters": bench.enters, "wall_ns": bench.wall_ns, "cpu_ns": bench.cpu_ns,
        "pages": np_arena_kind_name(bench.arena_kind).decode(),
    }


def die_with_parent(signum: int) -> None:
    """Asks the kernel to send `signum` to this process when its parent ends."""
    if prctl(PR_SET_PDEATHSIG, <unsigned long>signum) < 0:
        raise OSError("prctl(PR_SET_PDEATHSIG) failed")


def adopt_orphans() -> None:
    """Makes this process the parent of those descendants whose own parent ends."""
    if prctl(PR_SET_CHILD_SUBREAPER, <unsigned long>1) < 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed")
