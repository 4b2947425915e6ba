#include "io/np_pipe.h"

#include <errno.h>
#include <unistd.h>

ptrdiff_t np_pipe_read(int fd, void *buf, size_t len_bytes)
{
    ssize_t n;
    do {
        n = read(fd, buf, len_bytes);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ptrdiff_t np_pipe_write(int fd, const struct iovec *iov, int iov_count)
{
    ssize_t n;
    do {
        n = writev(fd, iov, iov_count);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}
