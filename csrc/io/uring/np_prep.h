/* np_prep.h - submission entries of operations newer than liburing 2.3, for netpoll.uring.
 *
 * Purpose   The build needs only distribution headers; what later kernels added is spelled out
 *           here, with the version it came with (include/uapi/linux/io_uring.h). The names are
 *           liburing's own: macros send its callers here, whichever liburing there is.
 */
#ifndef NP_PREP_H
#define NP_PREP_H

#include <liburing.h>

#define NP_IORING_OP_READ_MULTISHOT 49   /* Linux 6.7 */
#define NP_IORING_OP_WAITID 50           /* 6.7 */
#define NP_IORING_OP_FUTEX_WAIT 51       /* 6.7 */
#define NP_IORING_OP_FUTEX_WAKE 52       /* 6.7 */
#define NP_IORING_OP_FIXED_FD_INSTALL 54 /* 6.8 */
#define NP_IORING_OP_FTRUNCATE 55        /* 6.9 */
#define NP_IORING_OP_BIND 56             /* 6.11 */
#define NP_IORING_OP_LISTEN 57           /* 6.11 */

static inline void np_prep_read_multishot(struct io_uring_sqe *sqe, int fd, unsigned nbytes,
                                          uint64_t offset, int buf_group)
{
    io_uring_prep_rw(NP_IORING_OP_READ_MULTISHOT, sqe, fd, NULL, nbytes, offset);
    sqe->buf_group = (uint16_t)buf_group;
    sqe->flags = IOSQE_BUFFER_SELECT;
}

static inline void np_prep_waitid(struct io_uring_sqe *sqe, int idtype, uint32_t id, void *infop,
                                  int options, unsigned int flags)
{
    io_uring_prep_rw(NP_IORING_OP_WAITID, sqe, (int)id, NULL, (unsigned)idtype, 0);
    sqe->rw_flags = (int)flags;
    sqe->file_index = (uint32_t)options;
    sqe->off = (uintptr_t)infop; /* addr2 */
}

static inline void np_prep_futex(int op, struct io_uring_sqe *sqe, uint32_t *futex, uint64_t val,
                                 uint64_t mask, uint32_t futex_flags, unsigned int flags)
{
    io_uring_prep_rw(op, sqe, (int)futex_flags, futex, 0, val);
    sqe->rw_flags = (int)flags;
    sqe->addr3 = mask;
}

static inline void np_prep_futex_wait(struct io_uring_sqe *sqe, uint32_t *futex, uint64_t val,
                                      uint64_t mask, uint32_t futex_flags, unsigned int flags)
{
    np_prep_futex(NP_IORING_OP_FUTEX_WAIT, sqe, futex, val, mask, futex_flags, flags);
}

static inline void np_prep_futex_wake(struct io_uring_sqe *sqe, uint32_t *futex, uint64_t val,
                                      uint64_t mask, uint32_t futex_flags, unsigned int flags)
{
    np_prep_futex(NP_IORING_OP_FUTEX_WAKE, sqe, futex, val, mask, futex_flags, flags);
}

static inline void np_prep_fixed_fd_install(struct io_uring_sqe *sqe, int fd, unsigned int flags)
{
    io_uring_prep_rw(NP_IORING_OP_FIXED_FD_INSTALL, sqe, fd, NULL, 0, 0);
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->rw_flags = (int)flags;
}

static inline void np_prep_ftruncate(struct io_uring_sqe *sqe, int fd, uint64_t len)
{
    io_uring_prep_rw(NP_IORING_OP_FTRUNCATE, sqe, fd, NULL, 0, len);
}

static inline void np_prep_bind(struct io_uring_sqe *sqe, int fd, struct sockaddr *addr,
                                socklen_t addrlen)
{
    io_uring_prep_rw(NP_IORING_OP_BIND, sqe, fd, addr, 0, addrlen);
}

static inline void np_prep_listen(struct io_uring_sqe *sqe, int fd, int backlog)
{
    io_uring_prep_rw(NP_IORING_OP_LISTEN, sqe, fd, NULL, (unsigned)backlog, 0);
}

#define io_uring_prep_read_multishot np_prep_read_multishot
#define io_uring_prep_waitid np_prep_waitid
#define io_uring_prep_futex_wait np_prep_futex_wait
#define io_uring_prep_futex_wake np_prep_futex_wake
#define io_uring_prep_fixed_fd_install np_prep_fixed_fd_install
#define io_uring_prep_ftruncate np_prep_ftruncate
#define io_uring_prep_bind np_prep_bind
#define io_uring_prep_listen np_prep_listen

#endif
