/* np_refused.h - is a system call not available here, or did it fail?
 *
 * Purpose   A call that is newer than the kernel answers ENOSYS (a flag of it: EINVAL). The filter
 *           of a container that is older than the call answers whatever its author chose: ENOSYS,
 *           EPERM, EACCES or EOPNOTSUPP. Every fallback asks here.
 * Use       Each of these errors may also be the call's own answer. So try the older call, which
 *           does the same: when the error was real it meets it, too, and its answer counts. Where
 *           the failed attempt has changed something (a socket's pending error was taken), first
 *           ask again with arguments that cannot succeed: a call that is there says EBADF.
 * Threads   Any.
 */
#ifndef NP_REFUSED_H
#define NP_REFUSED_H

#include <errno.h>
#include <stdbool.h>

/* err: -errno or errno. */
static inline bool np_is_refused(int err)
{
    if (err < 0)
        err = -err;
    return err == ENOSYS || err == EPERM || err == EACCES || err == EOPNOTSUPP || err == EINVAL;
}

#endif
