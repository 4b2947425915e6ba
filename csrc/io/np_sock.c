#define _GNU_SOURCE /* accept4, POLLRDHUP */
#include "io/np_sock.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/np_refused.h"

union np_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};
_Static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == NP_SOCK_PATH_BYTES, "unix(7)");

/* len: of the address, 0 for none. */
static void fill_peer(struct np_peer *peer, const union np_address *addr, socklen_t len)
{
    memset(peer, 0, sizeof(*peer));
    if (len < sizeof(addr->v4))
        return;
    if (addr->any.sa_family == AF_INET) {
        peer->port = ntohs(addr->v4.sin_port);
        memcpy(peer->address, &addr->v4.sin_addr, 4);
    } else if (addr->any.sa_family == AF_INET6) {
        peer->port = ntohs(addr->v6.sin6_port);
        peer->flow_info = ntohl(addr->v6.sin6_flowinfo);
        peer->scope_id = addr->v6.sin6_scope_id;
        memcpy(peer->address, &addr->v6.sin6_addr, 16);
    } else {
        return;
    }
    peer->family = addr->any.sa_family;
}

int np_sock_accept(int listen_fd, struct np_peer *peer)
{
    union np_address addr;
    struct sockaddr *any = peer ? &addr.any : NULL;
    socklen_t len = sizeof(addr);
    int fd = accept4(listen_fd, any, peer ? &len : NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && np_is_refused(errno)) {
        fd = accept(listen_fd, any, peer ? &len : NULL);
        if (fd >= 0) {
            fcntl(fd, F_SETFD, FD_CLOEXEC);
            fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        }
    }
    if (fd < 0)
        return -errno;
    if (peer)
        fill_peer(peer, &addr, len);
    return fd;
}

static ptrdiff_t receive(int fd, void *buf, size_t len_bytes, int flags)
{
    ssize_t n;
    do {
        n = recv(fd, buf, len_bytes, MSG_DONTWAIT | flags);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ptrdiff_t np_sock_recv(int fd, void *buf, size_t len_bytes)
{
    return receive(fd, buf, len_bytes, 0);
}

ptrdiff_t np_sock_peek(int fd, void *buf, size_t len_bytes)
{
    return receive(fd, buf, len_bytes, MSG_PEEK);
}

ptrdiff_t np_sock_send(int fd, const struct iovec *iov, int iov_count)
{
    ssize_t n;
    do {
        if (iov_count == 1) {
            n = send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        } else {
            struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)iov_count};
            n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

#define COPY_BYTES 65536

/* What sendfile(2) does, by way of a buffer; `refusal` for what has no positions. */
static ptrdiff_t send_copied(int fd, int file, int64_t offset, size_t len_bytes, int refusal)
{
    char copy[COPY_BYTES];
    ssize_t n;
    do {
        n = pread(file, copy, len_bytes < COPY_BYTES ? len_bytes : COPY_BYTES, offset);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? refusal : 0;
    struct iovec piece = {copy, (size_t)n};
    return np_sock_send(fd, &piece, 1);
}

ptrdiff_t np_sock_sendfile(int fd, int file, int64_t offset, size_t len_bytes)
{
    off_t at = offset;
    ssize_t n;
    do {
        n = sendfile(fd, file, &at, len_bytes);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && np_is_refused(errno))
        return send_copied(fd, file, offset, len_bytes, -errno);
    return n < 0 ? -errno : n;
}

int np_sock_shutdown(int fd, int how)
{
    return shutdown(fd, how) < 0 ? -errno : 0;
}

int np_sock_close(int fd)
{
    /* Not retried on EINTR: on Linux the number is free already, see close(2). */
    return close(fd) < 0 ? -errno : 0;
}

void np_sock_reset_at_close(int fd)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)); /* not a socket: nothing to do */
}

bool np_sock_peer_has_ended(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLRDHUP};
    return poll(&one, 1, 0) == 1;
}

int np_sock_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        return -errno;
    return -error;
}

void np_sock_peer(int fd, struct np_peer *peer)
{
    union np_address addr;
    socklen_t len = sizeof(addr);
    if (getpeername(fd, &addr.any, &len) < 0)
        len = 0;
    fill_peer(peer, &addr, len);
}

size_t np_sock_name(int fd, bool of_peer, struct np_peer *name, char path[NP_SOCK_PATH_BYTES])
{
    union np_address addr;
    socklen_t len = sizeof(addr);
    if ((of_peer ? getpeername : getsockname)(fd, &addr.any, &len) < 0)
        len = 0;
    fill_peer(name, &addr, len);
    if (len < sizeof(addr.any.sa_family) || addr.any.sa_family != AF_UNIX)
        return 0;
    name->family = AF_UNIX;
    size_t bytes = len - offsetof(struct sockaddr_un, sun_path);
    if (bytes > 0 && addr.un.sun_path[0] != 0)
        bytes = strnlen(addr.un.sun_path, bytes < NP_SOCK_PATH_BYTES ? bytes : NP_SOCK_PATH_BYTES);
    memcpy(path, addr.un.sun_path, bytes);
    return bytes;
}

void np_sock_nodelay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* refused: not a TCP socket */
}
