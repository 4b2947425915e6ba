"""The exceptions of netpoll. Other errors are those that asyncio raises in the same case."""

import errno
import os

__all__ = ["BackendUnavailableError", "PoolExhaustedError"]

# What a system call answers when it is not available here: the kernel is older than the call, or
# a container's filter refuses it. Each of these may also be the call's own answer. So the caller
# tries an older call: that one meets a real error, too. In C: csrc/base/np_refused.h.
REFUSED_ERRNOS = frozenset(
    (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL)
)


class BackendUnavailableError(OSError):
    """The backend that was asked for by name is not available here.

    `errno` is what the kernel answered. The message says why, and what to do about it.
    """


class PoolExhaustedError(OSError):
    """No block of a BufferPool is free: all of them are being filled or sent. errno is ENOBUFS.

    This is backpressure, not a failure: blocks come back when sends end.
    """


OPENED_BY = {"uring": "io_uring_setup", "epoll": "epoll_create1 and epoll_ctl"}


def no_loop(code: int, calls: str, doing: str) -> OSError:
    """For the errno of a call without which there is no loop: what failed, and what to do."""
    remedy = f": allow {calls} in the seccomp profile or sandbox" if code in REFUSED_ERRNOS else ""
    return OSError(code, f"{os.strerror(code)} ({doing}{remedy})")
