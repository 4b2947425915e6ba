"""The configuration of a loop, of a server and of a pool of buffers."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FEATURES", "BufferConfig", "LoopConfig", "ServerLimits"]

# What a loop may use of the kernel, by the names of loop.stats()["features"].
FEATURES = (
    "defer_taskrun",
    "buf_ring",
    "buf_inc",
    "recv_multi",
    "accept_multi",
    "pwait2",
    "send_zc",
    "sendmsg_zc",
    "zc_fixed",
    "zc_fixed_vec",
    "sqpoll",
    "no_iowait",
)

CAPACITIES = ("sq_entries", "cq_entries", "buf_count", "buf_bytes")

# csrc/base/np_limits.h: the smallest and the largest block, and how many classes a pool can have.
BLOCK_MIN_BYTES = 64
BLOCK_MAX_BYTES = 64 << 20
CLASSES_MAX_COUNT = 16

# Of a limit, by the last word of its name: what it may be, and the first number that is too large.
LIMIT_UNITS = {
    "bytes": ("a whole number of bytes", 1 << 46),
    "count": ("a whole number", 1 << 31),
    "s": ("a number of seconds", math.inf),
}


def check_limits(limits: Any) -> None:
    """Raises TypeError or ValueError unless each field of a dataclass of limits makes sense.

    A field that is annotated with None may be None: no limit. Fields whose names end in no unit are
    not looked at.
    """
    for field in dataclasses.fields(limits):
        name, value = field.name, getattr(limits, field.name)
        unit = name.rpartition("_")[2]
        may_be_none = "None" in str(field.type)
        if unit not in LIMIT_UNITS or (value is None and may_be_none):
            continue
        what, end = LIMIT_UNITS[unit]
        takes = f"{name} must be {what} above 0{', or None for no limit' if may_be_none else ''}"
        if isinstance(value, bool) or not isinstance(value, (int, float) if unit == "s" else int):
            raise TypeError(f"{takes}, not {value!r}")
        if not 0 < value < end:
            raise ValueError(f"{takes}{f' and below {end}' if value > 0 else ''}, not {value!r}")


def _power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


@dataclass(frozen=True)
class LoopConfig:
    """Capacities of one loop. The defaults (0) are chosen by measurement: csrc/base/np_limits.h.

    sq_entries: submission queue, entries. A turn that needs more submits early.
    cq_entries: completion queue, entries.
    buf_count: shared receive buffers; a power of two.
    buf_bytes: size of each, bytes. On epoll, buf_count * buf_bytes is the scratch memory.
    features_off: names from ``loop.stats()["features"]``. The loop does not use these features,
        even where the kernel has them. For tests and comparisons.
    sqpoll_idle_ms: experimental. With io_uring and a number above 0, a kernel thread looks for
        submissions, and sleeps when it has found none for so many milliseconds. The loop then makes
        hardly any system call under load; the loop and the thread keep one core busy each. Ignored
        on epoll.
    slow_callback_ms: above 0, a thread watches the loop while it runs. When callbacks hold a turn
        for longer than so many milliseconds, it logs the stack of what runs at that moment, as a
        warning of the logger "asyncio".

    Raises ValueError for sizes that no kernel takes and for unknown features. The uring backend
    cannot do without defer_taskrun and buf_ring: a loop on it raises BackendUnavailableError.
    """

    sq_entries: int = 0
    cq_entries: int = 0
    buf_count: int = 0
    buf_bytes: int = 0
    features_off: tuple[str, ...] = ()
    sqpoll_idle_ms: int = 0
    slow_callback_ms: float = 0

    def __post_init__(self) -> None:
        for name in (*CAPACITIES, "sqpoll_idle_ms", "slow_callback_ms"):
            value = getattr(self, name)
            if not 0 <= value < 1 << 31:
                raise ValueError(f"{name} must be between 0 and 2**31 - 1, not {value}")
        if self.buf_count and (not _power_of_two(self.buf_count) or self.buf_count > 32768):
            raise ValueError(f"buf_count must be a power of two up to 32768, not {self.buf_count}")
        for name in self.features_off:
            if name not in FEATURES:
                raise ValueError(
                    f"unknown feature {name!r}; the features are {', '.join(FEATURES)}"
                )
        if self.cq_entries and self.cq_entries < (self.sq_entries or 512):
            raise ValueError("cq_entries must not be smaller than sq_entries (512 by default)")


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What a server keeps for its connections, and for how long. None: without a limit.

    connections_max_count: accepting pauses while there are so many.
    backlog_max_count: connections that the kernel keeps until they are accepted.
    pending_max_bytes: the unsent bytes of one connection. Above it, the connection is not read from
        until half of them are sent. At twice as much, a write raises BufferError.
    when_full: "close" ends the connection then, too; "raise" only raises.
    unread_max_bytes: the unread bytes of one connection. A session's peer is paused there; an
        on_data handler that leaves more unread loses the connection.
    retained_max_bytes: the retained leases of one connection. Above it, reading pauses; at twice as
        much, retain() is refused.
    idle_timeout_s: a connection ends when for so long its handler has read nothing and its peer has
        taken nothing.
    handshake_timeout_s: a connection whose TLS handshake takes longer ends.

    Raises TypeError and ValueError for what no limit can be.
    """

    connections_max_count: int | None = None
    backlog_max_count: int = 4096
    pending_max_bytes: int = 1 << 20
    when_full: Literal["close", "raise"] = "close"
    unread_max_bytes: int = 1 << 20
    retained_max_bytes: int = 1 << 20
    idle_timeout_s: float | None = None
    handshake_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        check_limits(self)
        if self.when_full not in ("close", "raise"):
            raise ValueError(f"when_full must be 'close' or 'raise', not {self.when_full!r}")


@dataclass(frozen=True)
class BufferConfig:
    """A pool of memory to send from, see BufferPool.

    size_bytes: of all of it; rounded up to a multiple of the largest class.
    classes: sizes of blocks in bytes, ascending powers of two from 64 bytes to 64 MiB. A buffer
        takes a whole block of the smallest class that holds it.
    hugepages: "auto" (reserved huge pages, else transparent ones, else plain pages), "require"
        (reserved ones or an error) or "off".

    Raises ValueError for what no pool can be.
    """

    size_bytes: int = 16 << 20
    classes: tuple[int, ...] = (512, 4096, 16384, 65536, 262144, 1048576)
    hugepages: Literal["auto", "require", "off"] = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.size_bytes < 1 << 46:
            raise ValueError(f"size_bytes must be between 1 and 2**46 - 1, not {self.size_bytes}")
        if not 0 < len(self.classes) <= CLASSES_MAX_COUNT:
            raise ValueError(
                f"a pool must have 1 to {CLASSES_MAX_COUNT} classes, not {len(self.classes)}"
            )
        for size in self.classes:
            if not _power_of_two(size) or not BLOCK_MIN_BYTES <= size <= BLOCK_MAX_BYTES:
                raise ValueError(
                    f"a class must be a power of two from {BLOCK_MIN_BYTES} to {BLOCK_MAX_BYTES} "
                    f"bytes, not {size}"
                )
        if list(self.classes) != sorted(set(self.classes)):
            raise ValueError("the classes must be in ascending order, each once")
        if self.hugepages not in ("auto", "require", "off"):
            raise ValueError(
                f"hugepages must be 'auto', 'require' or 'off', not {self.hugepages!r}"
            )
