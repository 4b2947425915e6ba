#include "io/np_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int64_t ns_of(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void take(struct np_file_facts *facts, const struct stat *found)
{
    facts->device = found->st_dev;
    facts->inode = found->st_ino;
    facts->size_bytes = found->st_size;
    facts->changed_ns = ns_of(found->st_mtim);
    facts->inode_ns = ns_of(found->st_ctim);
    facts->is_regular = S_ISREG(found->st_mode);
    facts->is_directory = S_ISDIR(found->st_mode);
}

int np_file_look(const char *path, struct np_file_facts *facts)
{
    struct stat found;
    if (stat(path, &found) < 0)
        return -errno;
    take(facts, &found);
    return 0;
}

static int open_once(int directory, const char *path, enum np_file_way way)
{
    const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    struct open_how how = {.flags = (uint64_t)flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    if (way == NP_FILE_ANYWHERE)
        return openat(directory, path, flags);
    return (int)syscall(SYS_openat2, directory, path, &how, sizeof(how));
}

int np_file_open(int directory, const char *path, enum np_file_way way, struct np_file_facts *facts)
{
    struct stat found;
    int fd, error;
    do {
        fd = open_once(directory, path, way);
        /* EAGAIN: somebody has renamed something while "..", in a link, was walked */
    } while (fd < 0 && (errno == EINTR || (errno == EAGAIN && way == NP_FILE_BELOW)));
    if (fd < 0) /* EPERM is no answer of an open for reading: a filter's */
        return errno == EPERM && way == NP_FILE_BELOW ? -ENOSYS : -errno;
    if (fstat(fd, &found) < 0) {
        error = errno;
        close(fd);
        return -error;
    }
    take(facts, &found);
    return fd;
}

ptrdiff_t np_file_read(int fd, void *memory, size_t bytes, int64_t offset)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(fd, (char *)memory + done, bytes - done, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ptrdiff_t)done;
}
