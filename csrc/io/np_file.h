/* np_file.h - regular files: what they are, opening them below a directory, reading them whole.
 *
 * Purpose   Who sends files again and again looks at the name first (np_file_look): unless the file
 *           is another one, or has changed, what was read of it before is still its content.
 *           np_file_open opens without waiting (a FIFO has no writer), and looks at what it got.
 * Below     With NP_FILE_BELOW the file is found below the directory or not at all: "..", an
 *           absolute path and a symbolic link that lead out of it are refused by the kernel, while
 *           it walks the path (openat2, Linux 5.6).
 * Errors    -errno or a count. -EXDEV: the path leads out of the directory. -ENOSYS, only with
 *           NP_FILE_BELOW: this kernel or its filter has no openat2. EINTR is retried.
 * Threads   Any. All of these wait for the disk.
 */
#ifndef NP_FILE_H
#define NP_FILE_H

#include <stddef.h>
#include <stdint.h>

struct np_file_facts {
    uint64_t device, inode;
    int64_t size_bytes;
    int64_t changed_ns; /* mtime: its content */
    int64_t inode_ns;   /* ctime: its content, or anything about it */
    int32_t is_regular, is_directory;
};

enum np_file_way {
    NP_FILE_ANYWHERE,
    NP_FILE_BELOW,
};

int np_file_look(const char *path, struct np_file_facts *facts);
/* For reading, relative to a directory or AT_FDCWD: the descriptor. */
int np_file_open(int directory, const char *path, enum np_file_way way,
                 struct np_file_facts *facts);
/* From the offset on, until so many bytes are there or the file ends: the count. */
ptrdiff_t np_file_read(int fd, void *memory, size_t bytes, int64_t offset);

#endif
