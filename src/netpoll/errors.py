"""Exceptions that are netpoll's own. Everything else raises what asyncio raises."""

import errno
import os

__all__ = ["BackendUnavailableError", "PoolExhaustedError"]

# What a system call answers that is not to be had here: one that is newer than the kernel, or than
# the filter of a container. Any of them may also be the call's own answer, so try the older call:
# an error that was real it meets, too. In C: csrc/base/np_refused.h.
REFUSED_ERRNOS = frozenset(
    (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL)
)


class BackendUnavailableError(OSError):
    """The backend that was asked for by name cannot be had here.

    `errno` is what the kernel answered, the message says why and what to do about it.
    """


class PoolExhaustedError(OSError):
    """No block of a BufferPool is free: all of them are being filled or sent. errno is ENOBUFS.

    Backpressure rather than a failure: blocks come back as sends end.
    """


OPENED_BY = {"uring": "io_uring_setup", "epoll": "epoll_create1 and epoll_ctl"}


def no_loop(code: int, calls: str, doing: str) -> OSError:
    """For the errno of a call without which there is no loop: what failed, and what to do."""
    remedy = f": allow {calls} in the seccomp profile or sandbox" if code in REFUSED_ERRNOS else ""
    return OSError(code, f"{os.strerror(code)} ({doing}{remedy})")
