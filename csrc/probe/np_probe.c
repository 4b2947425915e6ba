/* np_probe.c - see np_probe.h. Each question opens what it needs and closes it again. */
#include "probe/np_probe.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/np_compat.h"
#include "base/np_limits.h"

#define NP_PROBE_PAGE_BYTES 4096
#define NP_PROBE_BUF_COUNT 8
#define NP_PROBE_BUF_GROUP 7
#define NP_PROBE_INC_GROUP 8
#define NP_PROBE_BUFS_BYTES (3 * NP_PROBE_PAGE_BYTES)
#define NP_PROBE_SMALL_ENTRIES 8
#define NP_PROBE_OPCODES_COUNT 256 /* as many as there can be */

struct np_probe_bufs {
    struct io_uring_buf_ring *entries; /* a page for each group, then the buffers' page */
    uint8_t *memory;
};

static void set_all(struct np_probe *facts, int32_t value)
{
    int32_t *fields = (int32_t *)facts;
    for (size_t i = 0; i < sizeof(*facts) / sizeof(*fields); i++)
        fields[i] = value;
}

/* The flags and sizes of a loop's ring (np_uring_setup.c): less would be granted where that is
 * refused. */
static int open_loop_ring(struct io_uring *ring, struct io_uring_params *params)
{
    memset(params, 0, sizeof(*params));
    params->flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE |
                    IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL;
    params->cq_entries = NP_CQ_DEFAULT_ENTRIES;
    return io_uring_queue_init_params(NP_SQ_DEFAULT_ENTRIES, ring, params);
}

static int setup_only(uint32_t flags)
{
    struct io_uring ring;
    int err = io_uring_queue_init(NP_PROBE_SMALL_ENTRIES, &ring, flags);
    if (err == 0)
        io_uring_queue_exit(&ring);
    return err;
}

/* ---- one request at a time ------------------------------------------------------------------ */

enum np_probe_tag { NP_PROBE_NOP = 1, NP_PROBE_RECV, NP_PROBE_ACCEPT };

/* The first result of the request `tag`; *more says whether it goes on. Late results of an
 * earlier request are passed over. */
static int wait_result(struct io_uring *ring, enum np_probe_tag tag, int *more)
{
    struct __kernel_timespec timeout = {0, NP_PROBE_WAIT_NS};
    for (;;) {
        struct io_uring_cqe *cqe = NULL;
        int err = io_uring_submit_and_wait_timeout(ring, &cqe, 1, &timeout, NULL);
        if (err < 0)
            return err;
        if (!cqe)
            return -ETIME;
        const int res = cqe->res;
        const int is_ours = io_uring_cqe_get_data64(cqe) == (uint64_t)tag;
        *more = (cqe->flags & IORING_CQE_F_MORE) != 0;
        io_uring_cqe_seen(ring, cqe);
        if (is_ours)
            return res;
    }
}

static int try_enter(struct io_uring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (!sqe)
        return -EBUSY;
    int more = 0;
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, NP_PROBE_NOP);
    return wait_result(ring, NP_PROBE_NOP, &more);
}

/* ---- buffer rings -------------------------------------------------------------------------- */

static int open_bufs(struct np_probe_bufs *bufs)
{
    void *base = mmap(NULL, NP_PROBE_BUFS_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return -errno;
    bufs->entries = base;
    bufs->memory = (uint8_t *)base + 2 * NP_PROBE_PAGE_BYTES;
    return 0;
}

static void close_bufs(struct np_probe_bufs *bufs)
{
    munmap(bufs->entries, NP_PROBE_BUFS_BYTES);
}

static int register_bufs(struct io_uring *ring, void *entries, uint16_t group, uint16_t flags)
{
    struct np_buf_reg reg;
    memset(&reg, 0, sizeof(reg));
    reg.ring_addr = (uintptr_t)entries;
    reg.ring_entries = NP_PROBE_BUF_COUNT;
    reg.bgid = group;
    reg.flags = flags;
    return io_uring_register_buf_ring(ring, (struct io_uring_buf_reg *)&reg, 0);
}

/* Two groups: a filter may refuse to take one back. The receive test uses the plain one. */
static void ask_buf_rings(struct io_uring *ring, struct np_probe_bufs *bufs, struct np_probe *facts)
{
    facts->buf_inc_err = register_bufs(ring, (uint8_t *)bufs->entries + NP_PROBE_PAGE_BYTES,
                                       NP_PROBE_INC_GROUP, NP_IOU_PBUF_RING_INC);
    facts->buf_ring_err = register_bufs(ring, bufs->entries, NP_PROBE_BUF_GROUP, 0);
    if (facts->buf_ring_err)
        return;
    io_uring_buf_ring_init(bufs->entries);
    const uint32_t each_bytes = NP_PROBE_PAGE_BYTES / NP_PROBE_BUF_COUNT;
    for (int i = 0; i < NP_PROBE_BUF_COUNT; i++)
        io_uring_buf_ring_add(bufs->entries, bufs->memory + i * each_bytes, each_bytes,
                              (unsigned short)i, io_uring_buf_ring_mask(NP_PROBE_BUF_COUNT), i);
    io_uring_buf_ring_advance(bufs->entries, NP_PROBE_BUF_COUNT);
}

/* ---- multishot requests -------------------------------------------------------------------- */

/* `fd` has one byte to read. */
static int ask_recv_multi(struct io_uring *ring, int fd)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (!sqe)
        return -EBUSY;
    int more = 0;
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
    sqe->buf_group = NP_PROBE_BUF_GROUP;
    io_uring_sqe_set_data64(sqe, NP_PROBE_RECV);
    int res = wait_result(ring, NP_PROBE_RECV, &more);
    if (res < 0)
        return res;
    return res == 1 && more ? 0 : -EINVAL;
}

static int try_recv_multi(struct io_uring *ring)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
        return -errno;
    int err = send(pair[0], "x", 1, MSG_NOSIGNAL) == 1 ? ask_recv_multi(ring, pair[1]) : -errno;
    close(pair[0]);
    close(pair[1]);
    return err;
}

/* A listener without a name in the file system or a port, and one connection that waits on it. */
static int open_waiting(int *listener, int *client)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t bytes = sizeof(sa_family_t); /* this short: the kernel makes up an abstract name */
    *client = -1;
    *listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*listener < 0)
        return -errno;
    if (bind(*listener, (struct sockaddr *)&name, bytes) || listen(*listener, 1))
        return -errno;
    bytes = sizeof(name);
    if (getsockname(*listener, (struct sockaddr *)&name, &bytes))
        return -errno;
    *client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*client < 0 || connect(*client, (struct sockaddr *)&name, bytes))
        return -errno;
    return 0;
}

static int try_accept_multi(struct io_uring *ring)
{
    int listener, client, more = 0;
    int res = open_waiting(&listener, &client);
    struct io_uring_sqe *sqe = res == 0 ? io_uring_get_sqe(ring) : NULL;
    if (sqe) {
        io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_CLOEXEC);
        io_uring_sqe_set_data64(sqe, NP_PROBE_ACCEPT);
        res = wait_result(ring, NP_PROBE_ACCEPT, &more);
        if (res >= 0) {
            close(res);
            res = more ? 0 : -EINVAL;
        }
    }
    if (client >= 0)
        close(client);
    if (listener >= 0)
        close(listener);
    return res;
}

/* ---- everything else ----------------------------------------------------------------------- */

static int try_buffers(struct io_uring *ring, struct np_probe_bufs *bufs)
{
    struct iovec iov = {bufs->memory, NP_PROBE_PAGE_BYTES};
    return io_uring_register_buffers(ring, &iov, 1);
}

static void ask_opcodes(struct io_uring *ring, struct np_probe *facts)
{
    struct io_uring_probe *ops = calloc(1, sizeof(*ops) +
                                               NP_PROBE_OPCODES_COUNT * sizeof(ops->ops[0]));
    int err = ops ? io_uring_register_probe(ring, ops, NP_PROBE_OPCODES_COUNT) : -ENOMEM;
    facts->send_zc_err = facts->sendmsg_zc_err = err;
    if (err == 0) {
        facts->send_zc_err = io_uring_opcode_supported(ops, IORING_OP_SEND_ZC) ? 0 : -EINVAL;
        facts->sendmsg_zc_err = io_uring_opcode_supported(ops, IORING_OP_SENDMSG_ZC) ? 0 : -EINVAL;
    }
    free(ops);
}

/* The system call itself: the C library may be older than the kernel. */
static int try_pwait2(void)
{
    struct __kernel_timespec timeout = {0, 0};
    struct epoll_event event;
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0)
        return -errno;
    long n = syscall(SYS_epoll_pwait2, epfd, &event, 1, &timeout, NULL, 0);
    int err = n < 0 ? -errno : 0;
    close(epfd);
    return err;
}

static void ask_the_rest(struct io_uring *ring, struct np_probe_bufs *bufs, struct np_probe *facts,
                         uint32_t features)
{
    if (facts->buf_ring_err == 0)
        facts->recv_multi_err = try_recv_multi(ring);
    facts->accept_multi_err = try_accept_multi(ring);
    facts->buffers_err = try_buffers(ring, bufs);
    facts->recv_bundle_err = features & NP_IORING_FEAT_RECVSEND_BUNDLE ? 0 : -EINVAL;
    facts->no_iowait_err = features & NP_IORING_FEAT_NO_IOWAIT ? 0 : -EINVAL;
    ask_opcodes(ring, facts);
}

static void probe(struct np_probe *facts, int everything)
{
    struct io_uring ring;
    struct io_uring_params params;
    struct np_probe_bufs bufs = {0};
    set_all(facts, NP_PROBE_UNTRIED);
    facts->setup_err = open_loop_ring(&ring, &params);
    if (facts->setup_err)
        return;
    const uint32_t needed = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP;
    facts->ext_arg_err = (params.features & needed) == needed ? 0 : -EINVAL;
    facts->enable_err = io_uring_enable_rings(&ring);
    if (facts->ext_arg_err == 0 && facts->enable_err == 0)
        facts->enter_err = try_enter(&ring);
    facts->buf_ring_err = open_bufs(&bufs);
    if (facts->buf_ring_err) {
        io_uring_queue_exit(&ring);
        return;
    }
    ask_buf_rings(&ring, &bufs, facts);
    if (everything)
        ask_the_rest(&ring, &bufs, facts, params.features);
    io_uring_queue_exit(&ring);
    close_bufs(&bufs);
}

void np_probe_ring(struct np_probe *facts)
{
    probe(facts, 0);
}

void np_probe_all(struct np_probe *facts)
{
    probe(facts, 1);
    facts->plain_setup_err = setup_only(0);
    if (facts->plain_setup_err == 0)
        facts->sqpoll_err = setup_only(IORING_SETUP_SQPOLL);
    facts->pwait2_err = try_pwait2();
}

#define NP_TEXT(x) #x
#define NP_VERSION(major, minor) NP_TEXT(major) "." NP_TEXT(minor)

const char *np_probe_liburing_version(void)
{
#ifdef IO_URING_VERSION_MAJOR
    return NP_VERSION(IO_URING_VERSION_MAJOR, IO_URING_VERSION_MINOR);
#else
    return "2.3"; /* the build asks for 2.3 or newer, and 2.4 was the first to say its version */
#endif
}
