/* np_floor_http.h - the floor of `bench http`: a server of HTTP/1.1 in C on epoll.
 *
 * Purpose   What an answer costs when nothing but the kernel and the reading of the request is in
 *           the way. It knows its answers beforehand; it reads heads, skips bodies, answers
 *           pipelined requests with one send, and sends files with sendfile(2).
 * Correct   GET and POST with Content-Length; 404 for an unknown path. 400 for what it cannot read,
 *           431 for too long a head, 501 for another method or for Transfer-Encoding and 505 for
 *           another version end the connection, as does `Connection: close`.
 * Ownership listen_fd (listening, nonblocking, TCP_NODELAY set so that connections inherit it),
 *           stop_fd (readable = end), the routes and what they point to stay the caller's.
 * Errors    0 after stop_fd, else -errno.
 * Threads   Each call runs its own server in the calling thread until it ends.
 */
#ifndef NP_FLOOR_HTTP_H
#define NP_FLOOR_HTTP_H

#include <stddef.h>
#include <stdint.h>

struct np_floor_route {
    const char *path;
    const char *answer; /* head and body; of a file: the head. NULL: says how long the body was */
    size_t answer_bytes;
    int file_fd; /* what follows the head; -1: nothing */
    size_t file_bytes;
};

int np_floor_http(int listen_fd, int stop_fd, const struct np_floor_route *routes, uint32_t count);

#endif
