/* np_sock.h - the plain socket calls, with results as -errno or a count.
 *
 * Purpose   Bulk data and user-visible buffers are read and written by direct calls once a POLL
 *           has said that they are ready; this is where those calls are. None of them waits.
 * Errors    -errno; -EAGAIN when it would have waited. EINTR is retried: these calls do not sleep,
 *           so a signal only ever interrupts them before they did anything.
 * Threads   Any.
 */
#ifndef NP_SOCK_H
#define NP_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* The peer's address as the connection was made: kept, because getpeername(2) forgets it when the
 * connection dies. Only internet addresses: those of Unix sockets are asked for (np_sock_name). */
struct np_peer {
    uint16_t family; /* AF_INET, AF_INET6, or AF_UNSPEC: ask the kernel */
    uint16_t port;   /* host order */
    uint32_t flow_info, scope_id;
    uint8_t address[16];
};

#define NP_SOCK_PATH_BYTES 108 /* sizeof(sun_path), unix(7) */

/* A connection that waits in the backlog: its fd, nonblocking and close-on-exec; or -errno.
 * peer: as of np_sock_peer, or NULL. */
int np_sock_accept(int listen_fd, struct np_peer *peer);
ptrdiff_t np_sock_recv(int fd, void *buf, size_t len_bytes);
/* What np_sock_recv would give now; it stays there. */
ptrdiff_t np_sock_peek(int fd, void *buf, size_t len_bytes);
ptrdiff_t np_sock_send(int fd, const struct iovec *iov, int iov_count);
/* sendfile(2): at most len_bytes of `file` from `offset` on; 0 when the file has ended there. */
ptrdiff_t np_sock_sendfile(int fd, int file, int64_t offset, size_t len_bytes);
/* SHUT_RD, SHUT_WR or SHUT_RDWR; 0 or -errno. */
int np_sock_shutdown(int fd, int how);
int np_sock_close(int fd);
/* The close is going to reset the connection (SO_LINGER 0): the kernel drops what is unsent, and
 * lets go of the memory that it is in. */
void np_sock_reset_at_close(int fd);
/* The peer has ended its side, or the connection is broken, whatever is unread before that. */
bool np_sock_peer_has_ended(int fd);
/* SO_ERROR: 0, or the pending error as -errno. */
int np_sock_error(int fd);
/* Fills *peer; family AF_UNSPEC when the socket is not an internet one or not connected. */
void np_sock_peer(int fd, struct np_peer *peer);
/* Fills *name with the socket's own address, or its peer's. That of a Unix socket has the family
 * AF_UNIX, and its path (abstract when it begins with a NUL) is in `path`: the result is how long
 * it is, 0 when it has none. */
size_t np_sock_name(int fd, bool of_peer, struct np_peer *name, char path[NP_SOCK_PATH_BYTES]);
/* TCP_NODELAY on, on sockets that have it; on a listening socket the accepted ones inherit it. */
void np_sock_nodelay(int fd);

#endif
