/* np_pipe.h - reading and writing of what is not a socket: pipes, FIFOs, terminals.
 *
 * Purpose   The pipe transports poll for readiness and then call these, once per readiness: the
 *           descriptor may be shared with other processes, and one of them may have made it
 *           blocking again, so a second call could wait.
 * Errors    -errno or a count; -EAGAIN when it would have waited. EINTR is retried.
 * Threads   Any.
 */
#ifndef NP_PIPE_H
#define NP_PIPE_H

#include <stddef.h>
#include <sys/uio.h>

ptrdiff_t np_pipe_read(int fd, void *buf, size_t len_bytes);
ptrdiff_t np_pipe_write(int fd, const struct iovec *iov, int iov_count);

#endif
