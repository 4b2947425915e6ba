/* np_loadtls.h - the load generator's side of TLS.
 *
 * Purpose   The load must be cheaper than the server that it measures, so its TLS is OpenSSL on the
 *           socket itself, out of the library whose path it is given: the one that Python's ssl
 *           module uses, or that is that module. Nothing is linked, and without such a library
 *           there is no TLS load.
 * Trust     None: it talks to a server of its own on loopback and does not look at certificates.
 * Errors    -errno; -ENOTSUP from np_loadtls_open when the library or a function is missing,
 *           -EPROTO when TLS fails, -EAGAIN when the socket has nothing or takes nothing.
 * Threads   One at a time.
 */
#ifndef NP_LOADTLS_H
#define NP_LOADTLS_H

#include <stddef.h>

struct np_loadtls;

int np_loadtls_open(struct np_loadtls **out, const char *library);
void np_loadtls_close(struct np_loadtls *tls);
/* The handshake, on a blocking socket with time-outs. np_loadtls_end ends *session. */
int np_loadtls_connect(struct np_loadtls *tls, int fd, void **session);
void np_loadtls_end(struct np_loadtls *tls, void *session);
ptrdiff_t np_loadtls_send(struct np_loadtls *tls, void *session, const void *data, size_t bytes);
/* 0: the server has closed. */
ptrdiff_t np_loadtls_recv(struct np_loadtls *tls, void *session, void *data, size_t bytes);
/* 1 when something was received that np_loadtls_recv has not given yet. */
int np_loadtls_has_more(struct np_loadtls *tls, void *session);

#endif
