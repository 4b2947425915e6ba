"""What can be set about a loop before it is made."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FEATURES", "LoopConfig"]

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
)


def _power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


@dataclass(frozen=True)
class LoopConfig:
    """Capacities of one loop. The defaults (0) are chosen by measurement: csrc/np_limits.h.

    sq_entries: submission queue, entries. A turn that needs more submits early.
    cq_entries: completion queue, entries.
    buf_count: shared receive buffers; a power of two.
    buf_bytes: size of each, bytes. On epoll, buf_count * buf_bytes is the scratch memory.
    features_off: names from ``loop.stats()["features"]`` not to use even where the kernel has
        them, for tests and comparisons.

    Raises ValueError for sizes that no kernel takes and for unknown features. The uring backend
    cannot do without defer_taskrun and buf_ring: a loop on it raises BackendUnavailableError.
    """

    sq_entries: int = 0
    cq_entries: int = 0
    buf_count: int = 0
    buf_bytes: int = 0
    features_off: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("sq_entries", "cq_entries", "buf_count", "buf_bytes"):
            value = getattr(self, name)
            if not 0 <= value < 1 << 31:
                raise ValueError(f"{name} must be between 0 and 2**31 - 1, not {value}")
        if self.buf_count and (not _power_of_two(self.buf_count) or self.buf_count > 32768):
            raise ValueError(
                f"buf_count must be a power of two up to 32768, not {self.buf_count}"
            )
        for name in self.features_off:
            if name not in FEATURES:
                raise ValueError(f"unknown feature {name!r}: there are {', '.join(FEATURES)}")
        if self.cq_entries and self.cq_entries < (self.sq_entries or 512):
            raise ValueError("cq_entries must not be smaller than sq_entries (512 by default)")
