/* np_sqe.h - submission entries for np_backend_ops.submit, filled in without liburing.
 *
 * Purpose   What the core itself submits as an entry of its own: file operations. The layout is the
 *           kernel's ABI (include/uapi/linux/io_uring.h); each function clears the entry first and
 *           sets all but user_data, which the backend owns.
 * Ownership Pointers are stored, not copied: the memory belongs to the kernel until the last event.
 * Errors    None here. What an old kernel does not know ends with -EINVAL as its result.
 */
#ifndef NP_SQE_H
#define NP_SQE_H

#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>

#include "io/np_backend.h"

NP_STATIC_ASSERT(sizeof(struct io_uring_sqe) == NP_SQE_BYTES, "the ABI's entry");

#define NP_SQE_AT_FILE ((uint64_t)-1) /* offset: where the file is at, and move it (read(2)) */

static inline void np_sqe_fill(struct io_uring_sqe *sqe, uint8_t opcode, int fd, const void *addr,
                               uint32_t len, uint64_t offset)
{
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = opcode;
    sqe->fd = fd;
    sqe->addr = (uintptr_t)addr;
    sqe->len = len;
    sqe->off = offset;
}

/* pread(2), pwrite(2); read(2) and write(2) with NP_SQE_AT_FILE. res: bytes. */
static inline void np_sqe_read(struct io_uring_sqe *sqe, int fd, void *buf, uint32_t len_bytes,
                               uint64_t offset)
{
    np_sqe_fill(sqe, IORING_OP_READ, fd, buf, len_bytes, offset);
}

static inline void np_sqe_write(struct io_uring_sqe *sqe, int fd, const void *buf,
                                uint32_t len_bytes, uint64_t offset)
{
    np_sqe_fill(sqe, IORING_OP_WRITE, fd, buf, len_bytes, offset);
}

/* openat(2). res: the new fd, which a cancelled waiter has to close. */
static inline void np_sqe_openat(struct io_uring_sqe *sqe, int dir_fd, const char *path, int flags,
                                 uint32_t mode)
{
    np_sqe_fill(sqe, IORING_OP_OPENAT, dir_fd, path, mode, 0);
    sqe->open_flags = (uint32_t)flags;
}

/* close(2) */
static inline void np_sqe_close(struct io_uring_sqe *sqe, int fd)
{
    np_sqe_fill(sqe, IORING_OP_CLOSE, fd, NULL, 0, 0);
}

/* fsync(2), or fdatasync(2) */
static inline void np_sqe_fsync(struct io_uring_sqe *sqe, int fd, int data_only)
{
    np_sqe_fill(sqe, IORING_OP_FSYNC, fd, NULL, 0, 0);
    sqe->fsync_flags = data_only ? IORING_FSYNC_DATASYNC : 0;
}

#endif
